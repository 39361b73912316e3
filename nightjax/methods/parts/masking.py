# SPDX-License-Identifier: Apache-2.0
"""Masked image consistency: the student labels masked images as the complete ones are labeled (MIC, arXiv 2212.01322).

One more student pass a step, on crops of which most blocks are hidden, under the labels that the step has anyway. The
mixed images stay out of it. Source: ``mmseg/models/uda/masking_consistency_module.py`` of the official repository;
decisions that are ours are MIC-1 to MIC-12 in docs/fidelity.md.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.core.step import Loss, Outcome
from nightjax.core.types import Batch, PyTree, Size
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import RandomKeys, SegmentationNetwork, interleave
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.methods.parts.source_terms import student_passes
from nightjax.ops import masking


@dataclasses.dataclass(frozen=True)
class MaskedConsistency:
    """Which images are masked, how, and how much the loss on them weighs.

    Attributes:
        mode: mask ``"target"`` images, ``"source"`` images, or ``"both"``: of every two examples the first one's source
            image and its target image (official ``separatetrg``, ``separatesrc`` and ``separate``). Published results
            on Dark Zurich and ACDC are of ``"both"``.
        ratio: expected share of masked pixels, in [0, 1].
        block: side of a block, pixels. 64 is for crops of 1024, 32 for crops of 512.
        kind: hide ``"block"``s of pixels behind the mean color, or each ``"token"`` of a plain transformer behind its
            learned mask token (VFM-UDA, arXiv 2406.09896).
        weight: of the loss.
        photometric: augmentation of the images before they are masked, with draws of its own; None as published for
            Dark Zurich and ACDC.
        running_statistics: whether the masked pass moves the running statistics of the student's norms, as the official
            program does.
    """

    mode: Literal["target", "source", "both"] = "target"
    ratio: float = 0.7
    block: int = 64
    kind: Literal["block", "token"] = "block"
    weight: float = 1.0
    photometric: Photometric | None = Photometric()
    running_statistics: bool = True

    def __post_init__(self):
        if not 0.0 <= self.ratio <= 1.0:
            raise UserError(f"method.masking.ratio={self.ratio} must be at least 0 and at most 1")
        if self.block < 1:
            raise UserError(f"method.masking.block={self.block} must be 1 or more")

    def check(self, network: SegmentationNetwork, batch: Batch) -> None:
        """Raises UserError for a batch that mode ``"both"`` cannot take a source and a target image from, and for a
        network without a mask token if tokens are to be masked."""
        if self.kind == "token":
            token_count(network, batch["target"]["image"].shape[1:3])
        if self.mode == "both" and len(batch["target"]["image"]) < 2:
            raise UserError(
                "method.masking.mode=both masks one source and one target image of every two examples, and train.batch "
                "is 1: use train.batch=2 or more, or mode=target"
            )

    def __call__(
        self,
        keys: RandomKeys,
        image: jax.Array,
        label: jax.Array,
        targets: Targets,
        pseudo_labels: PseudoLabels,
        loss: SegmentationLoss,
        network: SegmentationNetwork,
    ) -> dict[str, jax.Array]:
        """Masks.

        Args:
            keys: of the step's random streams, so the masks do not depend on the microbatches.
            image: [B, H, W, 3] source images in [0, 1], not augmented.
            label: [B, H, W] source labels.
            targets: the target images and their pseudo-labels.
            pseudo_labels: which of their rows have no weight.
            loss: which class weights the source has.
            network: its input's mean is the color of masked pixels, which it sees as 0.

        Returns:
            ``masked`` [B, H, W, 3] in [0, 1], ``masked_label`` [B, H, W] and ``masked_weight`` [B, H, W] float32; with
            masked tokens, the whole images and ``masked_tokens`` bool [B, tokens].
        """
        source = image, label, loss.pixel_weight(label)
        target = targets.image, targets.label.astype(label.dtype), pseudo_labels.pixel_weight(targets)
        if self.mode == "both":
            image, label, weight = (alternate(*pair) for pair in zip(source, target, strict=True))
        else:
            image, label, weight = source if self.mode == "source" else target
        if self.photometric is not None:
            image = self.photometric(image, keys("photometric_masked"))
        size, made = image.shape[1:3], {"masked_label": label, "masked_weight": weight}
        if self.kind == "token":
            draws = masking.draw_tokens(keys("masks"), len(image), token_count(network, size))
            return made | {"masked": image, "masked_tokens": masking.masked_tokens(draws, self.ratio)}
        draws = masking.draw_blocks(keys("masks"), len(image), size, self.block)
        kept = masking.kept_pixels(draws, size, self.ratio)
        return made | {"masked": masking.mask_pixels(image, kept, network.input.mean)}

    def loss(
        self, method: Any, state: TrainState, params: Mapping[str, PyTree], stats: PyTree, part: Any, i: Any
    ) -> tuple[jax.Array, Outcome]:
        """``loss_masked`` of one microbatch of a self-training method, and running statistics; see `core.step.Loss`."""
        passes = student_passes(method, method.training, state, dict(params), i)
        view = {"token_mask": part["masked_tokens"]} if self.kind == "token" else {}
        outputs, new = passes.run(stats["student"], part["masked"], "masked", view)
        loss = self.weight * method.loss(outputs, part["masked_label"], part["masked_weight"])
        return loss, Outcome({"loss_masked": loss}, {"student": new} if self.running_statistics else {})


def token_count(network: SegmentationNetwork, size: Size) -> int:
    """Number of patch tokens of an image of ``size`` (H, W); UserError if the network has no mask token."""
    count = getattr(getattr(network.model, "backbone", None), "token_count", None)
    if count is None:
        raise UserError(
            "method.masking.kind=token needs a network with a mask token, such as model=dinov2_b: choose one, or use "
            "kind=block"
        )
    return count(size)


def alternate(source: jax.Array, target: jax.Array) -> jax.Array:
    """Two arrays [B, ...] to one [B, ...]: of examples 0, 2, 4, .. the source, each followed by its target.

    No pair of examples changes its device.
    """
    even = len(source) // 2 * 2
    first = [x[:even].reshape(-1, 2, *x.shape[1:])[:, 0] for x in (source, target)]
    return jnp.concatenate([interleave(first), source[even:]])


def masked_examples(
    method: Any, keys: RandomKeys, image: jax.Array, label: jax.Array, targets: Targets
) -> dict[str, jax.Array]:
    """What the masked pass of a self-training method sees, see `MaskedConsistency`; nothing without masking."""
    if method.masking is None:
        return {}
    return method.masking(keys, image, label, targets, method.pseudo_labels, method.loss, method.network)


def student_losses(method: Any, state: TrainState) -> list[Loss]:
    """The losses of a self-training method's student: its own, and with masking that of the masked pass.

    Its own are one, or pass by pass, see `core.step.Training`. The gradient of the masked pass is always taken by
    itself, as in the official program, so that it need not be in memory beside the passes before.
    """
    own = method.passes if method.training.passes == "apart" else (method.student_loss,)
    losses: list[Loss] = [functools.partial(loss, state) for loss in own]
    if method.masking is not None:
        losses.append(functools.partial(method.masking.loss, method, state))
    return losses
