# SPDX-License-Identifier: Apache-2.0
"""A segmentation network as methods use it: the module, how pixels enter it, its training pass and its predictions."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import UserError
from nightjax.core.modules import apply
from nightjax.core.ranges import Positive, Share
from nightjax.core.types import Batch, PyTree, Variables
from nightjax.models.norm import interleaved_norm_groups
from nightjax.ops import color

Outputs = dict[str, jax.Array]
"""What a network returns: ``logits`` [B, h, w, K], features by stage, and what its kind adds."""

RandomKeys = Callable[[str], jax.Array]
"""Name of a random stream to its key at this step and microbatch; see `Training.keys`."""


@dataclasses.dataclass(frozen=True)
class InputNormalization:
    """How uint8 pixels enter a network.

    Attributes:
        mean, std: of each RGB channel in [0, 1]; torchvision's by default.
        order: of the channels that the network sees; ``"bgr"`` for Caffe's weights.
        exposure: log-mean luminance that every image is brought to, in (0, 1); 0 leaves the exposure alone.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    order: Literal["rgb", "bgr"] = "rgb"
    exposure: Share = 0.0

    def decode(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] uint8 to float32 in [0, 1], exposure-normalized if asked for."""
        return self.expose(image.astype(jnp.float32) / 255.0)

    def expose(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [0, 1], exposure-normalized if asked for."""
        return color.normalize_exposure(image, self.exposure) if self.exposure else image

    def normalize(self, image: jax.Array) -> jax.Array:
        """[0, 1] RGB to zero mean and unit variance, in the network's order of channels."""
        image = color.normalize(image, self.mean, self.std)
        return image[..., ::-1] if self.order == "bgr" else image

    def denormalize(self, x: jax.Array) -> jax.Array:
        """What the network sees back to RGB, clipped to [0, 1]."""
        x = x[..., ::-1] if self.order == "bgr" else x
        return jnp.clip(color.denormalize(x, self.mean, self.std), 0.0, 1.0)

    def __call__(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] uint8 to what the network sees."""
        return self.normalize(self.decode(image))


@dataclasses.dataclass(frozen=True)
class SegmentationNetwork:
    """A segmentation network; HRDA's views are the module's own business.

    Attributes:
        model: takes ``(x, train=, deterministic=)`` and returns `Outputs`.
        input: how pixels enter it.
        classes: that it tells apart.
    """

    model: nn.Module
    input: InputNormalization = InputNormalization()
    classes: ClassSet = CITYSCAPES

    def init(self, key: jax.Array, size: tuple[int, ...]) -> Variables:
        """The first variables, for images of shape ``size`` (H, W, 3)."""
        variables = self.model.init(key, jnp.zeros((1, *size), jnp.float32), train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    def decode(self, batch: Batch) -> dict[str, dict[str, jax.Array]]:
        """Every image of a batch, by domain and field, as float32 in [0, 1]; the one place that decodes uint8."""
        return {
            domain: {name: self.input.decode(fields[name]) for name in ("image", "reference") if name in fields}
            for domain, fields in batch.items()
        }

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 in evaluation mode for uint8 images [B, H, W, 3]."""
        return self.logits(variables, self.input.decode(image))

    def logits(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 in evaluation mode for images [B, H, W, 3] in [0, 1]."""
        return self.outputs(variables, image)["logits"].astype(jnp.float32)

    def outputs(self, variables: Variables, image: jax.Array) -> Outputs:
        """All outputs in evaluation mode for images [B, H, W, 3] in [0, 1]."""
        return apply(self.model, variables, self.input.normalize(image), train=False)

    def features(self, variables: Variables, image: jax.Array) -> Outputs:
        """The backbone's features in evaluation mode (of HRDA's context view) for images [B, H, W, 3] in [0, 1]."""
        return apply(self.model, variables, self.input.normalize(image), method="backbone_features")

    def penultimate(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the classifier reads of uint8 RGB images [B, H, W, 3]: [B, h, w, C]."""
        _, kept = apply(self.model, variables, self.input(image), train=False, mutable=["intermediates"])
        found = kept.get("intermediates", {}).get("head", {}).get("penultimate", ())
        if len(found) != 1 or len(found[0]) != len(image):
            raise UserError(
                "this network shows no features before its classifier; heads fpn, daformer, segformer and deeplab_v2 do"
            )
        return found[0]

    def forward(
        self,
        variables: Variables,
        image: jax.Array,
        key: jax.Array,
        *,
        deterministic: bool = False,
        view: Mapping[str, Any] | None = None,
        norm_groups: int = 1,
    ) -> tuple[Outputs, PyTree]:
        """One training pass, with the batch's own norm statistics.

        Args:
            variables: of the module.
            image: [B, H, W, 3] float32 in [0, 1].
            key: of dropout and drop path.
            deterministic: switches those off.
            view: what part of the image the module looks at, see ``draw_view`` and ``context_view`` of the modules;
                None for all of it.
            norm_groups: number of interleaved groups of examples with norm statistics of their own; see
                `models.norm.BatchNorm`.

        Returns:
            The outputs, with ``penultimate``, what the head's classifier reads, where the head shows it ([B * views, h,
            w, C] in HRDA); and the updated running statistics.
        """
        image = self.input.normalize(image)
        outputs, updated = _training_pass(
            self.model, variables, image, key, norm_groups, deterministic, dict(view or {})
        )
        kept = updated.get("intermediates", {}).get("head", {})
        return outputs | {name: x for name, (x,) in kept.items()}, updated.get("batch_stats", variables["batch_stats"])

    def student_pass(
        self, variables: Variables, image: jax.Array, keys: RandomKeys, name: str, **view: Any
    ) -> tuple[Outputs, PyTree]:
        """`forward` with the randomness of the student's pass ``name``: dropout, and HRDA's detail window.

        ``view`` holds further arguments of the module.
        """
        view |= self.model.draw_view(keys(f"detail_{name}"), image.shape[1:3])
        return self.forward(variables, image, keys(f"dropout_{name}"), view=view)

    def student_passes(
        self, variables: Variables, images: Mapping[str, jax.Array], keys: RandomKeys
    ) -> tuple[dict[str, Outputs], PyTree]:
        """`student_pass` of several domains, the running statistics handed on from one to the next.

        Domains that follow each other with images of one size share one pass, which is traced and compiled once. HRDA
        looks at each domain through a window of its own, so there every domain has its pass.

        Args:
            variables: of the module.
            images: domain to [B, H, W, 3] float32 in [0, 1].
            keys: of the student's random streams.
        """
        found, params, stats = {}, variables["params"], variables["batch_stats"]
        size = lambda name: images[name].shape if self.model.shares_pass else name
        for _, group in itertools.groupby(images, key=size):
            names = list(group)
            own = {"params": params, "batch_stats": stats}
            if len(names) == 1:
                found[names[0]], stats = self.student_pass(own, images[names[0]], keys, names[0])
                continue
            key, together = keys(f"dropout_{'_'.join(names)}"), interleave([images[name] for name in names])
            outputs, stats = self.forward(own, together, key, norm_groups=len(names))
            apart = {output: deinterleave(x, len(names)) for output, x in outputs.items()}
            for i, name in enumerate(names):
                found[name] = {output: parts[i] for output, parts in apart.items()}
        return found, stats

    def teacher_pass(
        self, teacher: Variables, image: jax.Array, keys: RandomKeys, *, context_only: bool = False
    ) -> tuple[Outputs, PyTree]:
        """`forward` of the teacher: batch statistics in the norms, dropout off (DSR-6 in docs/fidelity.md).

        Args:
            teacher: its variables.
            image: [B, H, W, 3] float32 in [0, 1].
            keys: of the teacher's random streams.
            context_only: only HRDA's context view counts, so it may look at a single detail window.
        """
        view = self.model.context_view() if context_only else None
        return self.forward(teacher, image, keys("teacher"), deterministic=True, view=view)


@functools.partial(jax.jit, static_argnames=("model", "norm_groups", "deterministic"))
def _training_pass(
    model: nn.Module,
    variables: Variables,
    x: jax.Array,
    key: jax.Array,
    norm_groups: int,
    deterministic: bool,
    view: dict[str, Any],
) -> tuple[Outputs, PyTree]:
    """The module on normalized images. Jitted so that the passes of a step are traced once; the compiler inlines it."""
    with interleaved_norm_groups(norm_groups):
        return apply(
            model,
            variables,
            x,
            train=True,
            deterministic=deterministic,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
            **view,
        )


def interleave(arrays: list[jax.Array]) -> jax.Array:
    """N arrays [B, ...] to [N * B, ...], one example of each in turn: examples stay on their devices."""
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])


def deinterleave(x: jax.Array, count: int) -> list[jax.Array]:
    """The inverse of `interleave`: [N * B, ...] to N arrays [B, ...]."""
    return [part[:, 0] for part in jnp.split(x.reshape(-1, count, *x.shape[1:]), count, axis=1)]
