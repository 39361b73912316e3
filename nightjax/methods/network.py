"""One network under one optimiser: what supervised training and the self-training methods share."""

import dataclasses
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.optim import Optimizer
from nightjax.core.rng import stream_key
from nightjax.core.state import TrainState
from nightjax.core.types import NUM_CLASSES, Batch, Scalars
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.models import hrda
from nightjax.models.norm import interleaved_norm_groups
from nightjax.ops import color
from nightjax.ops.resize import resize

PyTree = Any
Outputs = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Input:
    """How uint8 pixels enter a network.

    Attributes:
        mean, std: of each RGB channel in [0, 1]; torchvision's by default.
        order: of the channels that the network sees, ``"rgb"`` or ``"bgr"`` (Caffe's weights).
        exposure: target of the log-mean luminance of every image, in (0, 1); 0 leaves the exposure
            alone.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    order: str = "rgb"
    exposure: float = 0.0

    def __post_init__(self):
        choose({"rgb": 0, "bgr": 0}, self.order, "method.input.order")

    def decode(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] uint8 to float32 in [0, 1], exposure-normalised if asked for."""
        image = image.astype(jnp.float32) / 255.0
        return color.normalize_exposure(image, self.exposure) if self.exposure else image

    def normalize(self, image: jax.Array) -> jax.Array:
        """[0, 1] RGB to zero mean and unit variance, in the network's order of channels."""
        image = color.normalize(image, self.mean, self.std)
        return image[..., ::-1] if self.order == "bgr" else image

    def denormalize(self, x: jax.Array) -> jax.Array:
        """What the network sees back to RGB, cut to [0, 1]."""
        x = x[..., ::-1] if self.order == "bgr" else x
        return jnp.clip(color.denormalize(x, self.mean, self.std), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Colour jitter and blur on the device; see `color.photometric`.

    Attributes:
        jitter_probability: of the colour jitter.
        jitter_strength, jitter_ranges, jitter_each, jitter_order: see `color.draw_jitter`.
        blur_probability, blur_sigma: of the Gaussian blur, pixels.
    """

    jitter_probability: float = 0.8
    jitter_strength: float = 0.2
    jitter_ranges: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    jitter_each: float = 1.0
    jitter_order: str = "any"
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.15, 1.15)

    def __post_init__(self):
        choose(color.ORDERS, self.jitter_order, "photometric.jitter_order")

    def __call__(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """[B, H, W, 3] float32 in [0, 1] to the same."""
        return color.photometric(image, key, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class NetworkMethod:
    """Base of the methods that train one segmentation network, called the student.

    Attributes:
        model: takes ``(x, train=, deterministic=)`` and returns a dict with ``logits`` [B, h, w, K]
            and the stages.
        optimizer: of the student.
        steps: length of the run, for schedules.
        seed: of the run.
        accumulate: equal parts of the batch whose gradients are computed one after the other.
        input: how pixels enter.
        class_weights: weight of each class in the cross-entropy on true labels, K numbers; None
            for 1 (the papers' choice). Pseudo-labels are never weighted by class: it would
            multiply their mistakes.
        detail_weight: share of the detail window in the loss of an HRDA model; other models have no
            such window.
    """

    model: nn.Module
    optimizer: Optimizer
    steps: int
    seed: int = 0
    accumulate: int = 1
    input: Input = Input()
    class_weights: tuple[float, ...] | None = None
    detail_weight: float = 0.1

    def __post_init__(self):
        if self.class_weights is not None and len(self.class_weights) != NUM_CLASSES:
            raise UserError(
                f"method.class_weights has {len(self.class_weights)} numbers; give one for each of {NUM_CLASSES} "
                "classes"
            )

    scratch = ()
    """Parts of the student that the run named by ``train.init`` may lack; they start from scratch."""

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        size = batch["source"]["image"].shape[1:]
        variables = self.model.init(rng, jnp.zeros((1, *size), jnp.float32), train=False)
        params = {"student": variables["params"]}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"student": variables.get("batch_stats", {})},
            opt_state={"student": self.optimizer.build(params, self.steps).init(params)},
        )

    def with_weights(self, state: TrainState, variables: Variables) -> TrainState:
        """The first state with the student's weights replaced, as fine-tuning starts; parts not given stay."""
        student = {key: tree | variables[key] for key, tree in self.variables(state).items()}
        return state.replace(
            params=state.params | {"student": student["params"]},
            batch_stats=state.batch_stats | {"student": student["batch_stats"]},
        )

    def variables(self, state: TrainState, which: str = "student") -> Variables:
        """See `Method`."""
        if which == "teacher" and state.teacher:
            return {"params": state.teacher["params"], "batch_stats": state.teacher["batch_stats"]}
        return {"params": state.params["student"], "batch_stats": state.batch_stats["student"]}

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """See `Method`."""
        x = self.input.normalize(self.input.decode(image))
        return self.model.apply(variables, x, train=False)["logits"].astype(jnp.float32)

    def decoded(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the head's classifier reads of uint8 [B, H, W, 3] images in evaluation mode: [B, h, w, C].

        Raises:
            UserError: the head does not show it, or the model has several views of an image (HRDA).
        """
        x = self.input.normalize(self.input.decode(image))
        _, sown = self.model.apply(variables, x, train=False, mutable=["intermediates"])
        found = sown.get("intermediates", {}).get("head", {}).get("penultimate", ())
        if len(found) != 1 or len(found[0]) != len(image):
            raise UserError(
                "this network shows no features before its classifier; heads fpn, daformer, segformer and deeplab_v2 do"
            )
        return found[0]

    def forward(
        self,
        params: PyTree,
        stats: PyTree,
        image: jax.Array,
        key: jax.Array,
        *,
        deterministic: bool = False,
        detail_offset: jax.Array | None = None,
        groups: int = 1,
    ) -> tuple[Outputs, PyTree]:
        """One training pass, with the batch's own norm statistics.

        Args:
            params, stats: of the model.
            image: [B, H, W, 3] float32 in [0, 1].
            key: of dropout and drop path.
            deterministic: switches those off.
            detail_offset: of the one detail window of an HRDA model; None for all windows, and for
                other models.
            groups: of examples, in turn, with norm statistics of their own; see `models.norm.BatchNorm`.

        Returns:
            The model's outputs, with ``penultimate``, what the head's classifier reads, where the head sows it
            ([B * views, h, w, C] in HRDA); and the updated running statistics.
        """
        window = {} if detail_offset is None else {"detail_offset": detail_offset}
        variables = {"params": params, "batch_stats": stats}
        image = self.input.normalize(image)
        outputs, updated = _training_pass(self.model, variables, image, key, groups, deterministic, window)
        sown = updated.get("intermediates", {}).get("head", {})
        return outputs | {name: x for name, (x,) in sown.items()}, updated.get("batch_stats", stats)

    def student_forward(
        self,
        state: TrainState,
        params: PyTree,
        stats: PyTree,
        image: jax.Array,
        name: str,
        part: jax.Array | int = 0,
    ) -> tuple[Outputs, PyTree]:
        """`forward` with the randomness of the student's pass ``name``: dropout, HRDA's window."""
        offset = self.detail_offset(state, name, part, image.shape[1:3])
        return self.forward(params, stats, image, self.key(state, f"dropout_{name}", part), detail_offset=offset)

    def student_passes(
        self, state: TrainState, params: PyTree, stats: PyTree, images: dict[str, jax.Array], part: jax.Array | int = 0
    ) -> tuple[dict[str, Outputs], PyTree]:
        """`student_forward` of several domains, the running statistics handed on from one to the next.

        Domains that follow each other with images of one size share one pass, which is traced and compiled once. HRDA
        models look at each domain through a window of its own, so there every domain has its pass.

        Args:
            images: domain to [B, H, W, 3] float32 in [0, 1].
        """
        found = {}
        size = lambda name: name if isinstance(self.model, hrda.HRDA) else images[name].shape
        for _, names in itertools.groupby(images, key=size):
            names = list(names)
            if len(names) == 1:
                found[names[0]], stats = self.student_forward(state, params, stats, images[names[0]], names[0], part)
                continue
            key = self.key(state, f"dropout_{'_'.join(names)}", part)
            outputs, stats = self.forward(
                params, stats, in_turn([images[name] for name in names]), key, groups=len(names)
            )
            apart = {output: out_of_turn(x, len(names)) for output, x in outputs.items()}
            for i, name in enumerate(names):
                found[name] = {output: parts[i] for output, parts in apart.items()}
        return found, stats

    def detail_offset(
        self, state: TrainState, name: str, part: jax.Array | int, size: tuple[int, int]
    ) -> jax.Array | None:
        """Where HRDA's detail window of the student's pass ``name`` lies; None for other models."""
        if not isinstance(self.model, hrda.HRDA):
            return None
        return hrda.draw_detail_offset(self.key(state, f"detail_{name}", part), size)

    def label_weight(self, label: jax.Array) -> jax.Array | None:
        """Loss weight of true labels [B, H, W] by their class, or None for 1."""
        if self.class_weights is None:
            return None
        table = jnp.asarray((*self.class_weights, 0.0))  # The last is of ignored pixels.
        return table[jnp.minimum(label, len(self.class_weights))]

    def segmentation_loss(
        self,
        outputs: Outputs,
        label: jax.Array,
        weight: jax.Array | None = None,
        *,
        divisor: str = "all",
    ) -> jax.Array:
        """Pixel-weighted cross-entropy; for HRDA also that of the detail window's own logits.

        Args:
            outputs: of `student_forward`.
            label: [B, H, W], 255 = ignore.
            weight: [B, H, W] float32 or None for 1.
            divisor: see `pixel_weighted_cross_entropy`.
        """
        loss = self.pixel_loss(outputs["logits"], label, weight, divisor)
        if "hr_logits" not in outputs:
            return loss
        offset = outputs["detail_box"][0, ::2]
        crops = [None if x is None else hrda.detail_crop(x, offset) for x in (label, weight)]
        detail = self.pixel_loss(outputs["hr_logits"][:, 0], *crops, divisor)
        return (1 - self.detail_weight) * loss + self.detail_weight * detail

    def pixel_loss(self, logits: jax.Array, label: jax.Array, weight: jax.Array | None, divisor: str) -> jax.Array:
        """What `segmentation_loss` takes of logits [B, h, w, K]; methods may put another loss here."""
        return pixel_weighted_cross_entropy(logits, label, weight, divisor=divisor)

    def features(self, variables: Variables, image: jax.Array) -> Outputs:
        """The backbone's features in evaluation mode; for HRDA those of the context view.

        Args:
            variables: of the model.
            image: [B, H, W, 3] float32 in [0, 1].
        """
        x = self.input.normalize(image)
        if isinstance(self.model, hrda.HRDA):
            x = resize(x, hrda.view_size(x.shape[1:3]), align_corners=False)
        return self.model.apply(variables, x, method=lambda model, x: model.backbone(x, train=False))

    def key(self, state: TrainState, stream: str, part: jax.Array | int = 0) -> jax.Array:
        """Key of a random stream at this step, and at this part of an accumulated batch."""
        return jax.random.fold_in(stream_key(self.seed, state.step, stream), part)

    def update(self, state: TrainState, grads: PyTree, stats: PyTree, scalars: Scalars, **changes):
        """One optimiser step.

        Args:
            state: before the step.
            grads: of ``state.params``.
            stats: the student's new running statistics.
            scalars: to be logged; the gradient's norm and the learning rate are added.
            **changes: other fields of the new state.

        Returns:
            The new state and all scalars.
        """
        transform = self.optimizer.build(state.params, self.steps)
        updates, opt_state = transform.update(grads, state.opt_state["student"], state.params)
        scalars = dict(scalars) | {
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": self.optimizer.schedule_fn(self.steps)(state.step),
        }
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=state.batch_stats | {"student": stats},
            opt_state=state.opt_state | {"student": opt_state},
            **changes,
        )
        return state, scalars


@functools.partial(jax.jit, static_argnames=("model", "groups", "deterministic"))
def _training_pass(
    model: nn.Module, variables: Variables, x: jax.Array, key: jax.Array, groups: int, deterministic: bool, window: dict
) -> tuple[Outputs, PyTree]:
    """The model on normalised images. Jitted so that the passes of a step are traced once; the compiler inlines it."""
    with interleaved_norm_groups(groups):
        return model.apply(
            variables,
            x,
            train=True,
            deterministic=deterministic,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
            **window,
        )


def in_turn(arrays: list[jax.Array]) -> jax.Array:
    """One example of each of N arrays [B, ...] in turn, [N * B, ...]: examples stay on their devices."""
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])


def out_of_turn(x: jax.Array, count: int) -> list[jax.Array]:
    """The inverse: [N * B, ...] to N arrays [B, ...]."""
    return [part[:, 0] for part in jnp.split(x.reshape(-1, count, *x.shape[1:]), count, axis=1)]
