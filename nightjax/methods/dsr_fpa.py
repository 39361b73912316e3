"""DSR+FPA: dynamic and small object refinement with feature prototype alignment (arXiv 2310.04747).

DACS self-training with (a) a class mask that keeps objects whole, (b) a bank that pastes rare
classes, (c) night pseudo-labels refined by the coarsely aligned day view, and (d) pixels pulled to
the prototypes of the other domain. Every part is a field, so that the paper's ablation is a handful
of overrides. Where paper and official code (Rorisis/DSRNSS_codes) disagree the default is the
code's.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.state import TrainState
from nightjax.core.types import Batch
from nightjax.losses.contrastive import fpa_loss
from nightjax.methods.aligners import ALIGNERS, Aligner
from nightjax.methods.dacs import Dacs, Targets, Terms
from nightjax.methods.network import Input, in_turn, out_of_turn
from nightjax.ops import bank as banks
from nightjax.ops import pseudo_label

PyTree = Any


@dataclasses.dataclass(frozen=True)
class DsrFpa(Dacs):
    """DSR+FPA. The fields of `Dacs` hold too, with the mask of section 3.2.1 as default.

    Attributes:
        bank: whether rare classes of the last batches are pasted.
        bank_size: batches remembered, the present one included.
        bank_every: steps between pastes.
        bank_classes: train ids pasted.
        bank_weight: ``"keep"`` or ``"one"``, loss weight of pasted pixels.
        refine: whether day predictions refine the night pseudo-labels (section 3.2.2).
        aligner: ``"none"``, ``"uawarpc"`` or ``"true_flow"`` (NightStreet only: an upper bound for any aligner).
        matcher: name of the network of ``"uawarpc"``; its weights are ``frozen["aligner"]`` of the state.
        matcher_input: how pixels enter it, whatever the student's ``input``.
        refine_gamma: exponent of the trust in the day view.
        refine_static: whether it always counts for classes that are static in both views (official ``disable_M``).
        refine_confidence: whether the aligner's confidence counts elsewhere (``disable_P``).
        adapt_to_ref: whether, at every second step on average, the day view takes the night
            image's place.
        fpa: whether features are aligned to prototypes (section 3.3).
        fpa_start_step: first step with FPA.
        fpa_weight: of each direction.
        fpa_mixed_weight: factor of the (source, mixed) pair; 0.01 in HRDA mode.
        fpa_class_weight: ``"overlap"``, ``"ds_inv"`` or ``"dannet"`` (spec D4).
        pixel_share: of each class, for ``"dannet"``.
    """

    mask_mode: str = "closure"
    bank: bool = True
    bank_size: int = 3
    bank_every: int = 5
    bank_classes: tuple[int, ...] = banks.TAIL_CLASSES
    bank_weight: str = "keep"
    refine: bool = True
    aligner: str = "none"
    matcher: str = "uawarpc"
    matcher_input: Input = Input()
    refine_gamma: float = 0.25
    refine_static: bool = True
    refine_confidence: bool = True
    adapt_to_ref: bool = False
    fpa: bool = True
    fpa_start_step: int = 9664
    fpa_weight: float = 0.1
    fpa_mixed_weight: float = 0.1
    fpa_class_weight: str = "overlap"
    pixel_share: tuple[float, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        choose(ALIGNERS, self.aligner, "method.aligner")
        for name in ("bank_size", "bank_every"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)} must be 1 or more")

    @property
    def align(self) -> Aligner:
        """Brings the day prediction onto the night view."""
        return ALIGNERS[self.aligner](self.matcher)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        state = super().init(rng, batch)
        variables = self.align.init(jax.random.fold_in(rng, 1), batch["target"]["image"].shape[1:3])
        if variables:
            state = state.replace(frozen=state.frozen | {"aligner": variables})
        if not self.bank:
            return state
        return state.replace(bank=banks.empty_bank(batch["source"]["image"], size=self.bank_size))

    def targets(self, state: TrainState, teacher: Variables, batch: Batch) -> tuple[Targets, PyTree]:
        """Refined pseudo-labels of the night images, or plain ones of day images that stand in."""
        if not (self.refine or self.adapt_to_ref):
            return super().targets(state, teacher, batch)
        night = self.input.decode(batch["target"]["image"])
        day = self.input.decode(batch["target"]["reference"])

        def on_night() -> tuple[Targets, PyTree]:
            if not self.refine:
                return Dacs.targets(self, state, teacher, batch)
            # Night and day alternate in one batch: the norms see both, no example changes device.
            logits, stats = self.teacher_logits(state, teacher, in_turn([night, day]))
            night_logits, day_logits = out_of_turn(logits, 2)
            views = (
                self.matcher_input.normalize(self.matcher_input.decode(batch["target"][name]))
                for name in ("image", "reference")
            )
            network = state.frozen.get("aligner", {})
            aligned = self.align(network, batch["target"], *views, day_logits)
            if not self.refine_confidence:
                aligned = aligned._replace(confidence=None)
            scores = pseudo_label.refine(
                night_logits, *aligned, gamma=self.refine_gamma, use_static_mask=self.refine_static
            )
            return self._label(night, scores), stats

        def on_day() -> tuple[Targets, PyTree]:
            logits, stats = self.teacher_logits(state, teacher, day)
            return self._label(day, jax.nn.softmax(logits)), stats

        if not self.adapt_to_ref:
            return on_night()
        use_day = jax.random.uniform(self.key(state, "adapt_to_ref")) < 0.5
        return jax.lax.cond(use_day, on_day, on_night)

    def mix(self, state: TrainState, batch: Batch, targets: Targets) -> tuple[dict[str, jax.Array], PyTree]:
        """As in `Dacs`, then the bank's rare classes on top of the augmented mixed images."""
        examples, _ = super().mix(state, batch, targets)
        examples |= {"night": targets.image, "night_label": targets.label}
        if not self.bank:
            return examples, state.bank
        source = batch["source"]
        bank = banks.push(state.bank, source["image"], source["label"])
        decoded = bank.replace(image=jax.vmap(self.input.decode)(bank.image))
        image, label, weight = banks.paste(
            decoded,
            examples["mixed"],
            examples["mixed_label"],
            examples["mixed_weight"],
            enabled=self.bank_is_due(state),
            classes=self.bank_classes,
            pasted_weight=self.bank_weight,
        )
        return examples | {"mixed": image, "mixed_label": label, "mixed_weight": weight}, bank

    def bank_is_due(self, state: TrainState) -> jax.Array:
        """Whether this step pastes; every step pushes. Counted over the run; the official program begins anew each
        epoch."""
        return state.step % self.bank_every == 0

    def losses(self, state: TrainState, params: PyTree, stats: PyTree, part: dict, i) -> tuple[Terms, PyTree]:
        """The terms of `Dacs` and FPA between source and night, and source and mixed features."""
        if not self.fpa:
            return super().losses(state, params, stats, part, i)
        source, terms, stats = self.source_losses(state, params, stats, part, i)
        fixed = jax.lax.stop_gradient(params)
        night, night_stats = self.student_forward(state, fixed, stats, part["night"], "night", i)
        # Only the backbone runs on the night images, so the head's statistics stay.
        stats = dict(stats) | {k: v for k, v in night_stats.items() if k == "backbone"}
        mixed, mixed_terms, stats = self.mixed_losses(state, params, stats, part, i)
        loss = fpa_loss(
            (source["stage4"], part["source_label"]),
            (night["stage4"], part["night_label"]),
            (mixed["stage4"], part["mixed_label"]),
            mixed_weight=self.fpa_mixed_weight,
            weight=self.fpa_weight,
            class_weight=self.fpa_class_weight,
            pixel_share=self.pixel_share,
        )
        terms |= mixed_terms | {"loss_fpa": jnp.where(state.step >= self.fpa_start_step, loss, 0.0)}
        return terms, stats
