# SPDX-License-Identifier: Apache-2.0
"""Self-supervised training of a plain transformer on unlabeled days and nights, to start other runs from.

After MaskFeat (arXiv 2112.09133): see `parts.masked_gradients`. What is learned are the weights of a backbone; the
runs that name this one in ``train.init`` begin the rest of their network anew.
"""

import dataclasses
import functools
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.method import Task
from nightjax.core.modules import apply
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step
from nightjax.core.types import Batch, PyTree, Scalars
from nightjax.methods.dacs import check_one_size
from nightjax.methods.parts.masked_gradients import MaskedGradients
from nightjax.methods.parts.network import RandomKeys, SegmentationNetwork, interleave
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.segmenting import Segmenting
from nightjax.models.backbones.dinov2 import DinoV2

HEAD = "gradients"
"""The module that predicts gradients; runs that start from this one leave it out."""


@dataclasses.dataclass(frozen=True)
class SelfSupervised(Segmenting):
    """Masked image modeling on the images of ``source`` and ``target``; no labels are read.

    Attributes:
        network: whose backbone, a plain transformer with a mask token, is trained.
        optimizer: of the backbone and the map to gradients.
        training: of the run.
        masked: what is hidden and predicted.
        photometric: augmentation of the images, or None (MaskFeat has none).
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    masked: MaskedGradients = MaskedGradients()
    photometric: Photometric | None = None

    task: ClassVar[Task] = "pretraining"
    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    optional_init: ClassVar[tuple[str, ...]] = (HEAD,)

    @property
    def backbone(self) -> DinoV2:
        """The trained module.

        Raises:
            UserError: it has no mask token.
        """
        backbone = getattr(self.network.model, "backbone", None)
        if not isinstance(backbone, DinoV2):
            raise UserError(
                "method self_supervised hides patches behind a mask token, which the model has not: choose "
                "model=vit_tiny or a dinov2"
            )
        return backbone

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        check_one_size(batch)
        backbone = self.backbone
        variables = self.network.init(rng, batch["source"]["image"].shape[1:])
        head = self.masked.init(jax.random.fold_in(rng, 1), backbone.patch, backbone.dim)
        params = {"backbone": variables["params"]["backbone"], HEAD: head}
        return self.first_state({"params": params, "batch_stats": {}})

    def examples(self, batch: Batch, keys: RandomKeys) -> dict[str, jax.Array]:
        """The images of both domains in turn, [2B, H, W, 3] in [0, 1], and bool [2B, h, w], their hidden patches."""
        images = self.network.decode(batch)
        image = interleave([images[domain]["image"] for domain in self.domains])
        if self.photometric is not None:
            image = self.photometric(image, keys("photometric"))
        height, width = self.backbone.image_fit.sides(image.shape[1:3])
        grid = height // self.backbone.patch, width // self.backbone.patch
        return {"image": image, "hidden": self.masked.hidden(keys("masks"), len(image), grid)}

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        examples = self.examples(batch, self.training.keys(state))
        loss = functools.partial(self.student_loss, state)
        return gradient_step(state, self.players, {"student": loss}, examples, self.training)

    def student_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The loss on one microbatch; see `core.step.Loss`."""
        key = self.training.key(state, "dropout", i)
        predicted, seen = self.prediction(params["student"], part["image"], part["hidden"], key)
        inside = self.backbone.image_fit.image(jnp.ones_like(part["image"]))
        loss = self.masked.loss(predicted, seen, part["hidden"], inside)
        return loss, Outcome({"loss": loss}, stats)

    def prediction(
        self, params: PyTree, image: jax.Array, hidden: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Predicted gradients [B, h, w, C] of images in [0, 1], and the normalized images, of whole patches."""
        x = self.network.input.normalize(image)
        mask, rngs = hidden.reshape(len(hidden), -1), {"dropout": key}
        variables = {"params": params["backbone"]}
        features = apply(self.backbone, variables, x, train=True, token_mask=mask, rngs=rngs)
        last = features[f"stage{len(self.backbone.layers)}"]
        return self.masked.predicted(params[HEAD], last, self.backbone.patch), self.backbone.image_fit.image(x)

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        keys = self.training.keys(state)
        examples = self.examples(batch, keys)
        image, hidden = examples["image"], examples["hidden"]
        params = cast(dict[str, Any], self.variables(state)["params"])
        predicted, seen = self.prediction(params, image, hidden, keys("dropout"))
        grown = jnp.repeat(jnp.repeat(hidden, self.backbone.patch, 1), self.backbone.patch, 2)[..., None]
        true, completed = self.masked.completed(predicted, seen, hidden)
        shown, visible = (self.network.input.denormalize(x) for x in (seen, jnp.where(grown, 0.0, seen)))
        return {"image": shown, "visible": visible, "gradients": true, "completed": completed}
