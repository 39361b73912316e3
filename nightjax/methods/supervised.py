# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy on labeled images: source-only, supervised on the labeled target (oracle), pre-training,
fine-tuning."""

import dataclasses
import functools

import jax

from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step
from nightjax.core.types import Batch, Scalars
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.segmenting import Segmenting
from nightjax.methods.parts.supervision import RelightWeights, Supervision


@dataclasses.dataclass(frozen=True)
class Supervised(Segmenting):
    """Supervised training on the ``source`` domain, alone or joined by the ``day`` domain.

    A network with an auxiliary classifier is trained with both classifiers. A network with relighting (``relight`` in
    the section ``model``) gets DANNet's light loss as well, with ``source`` as the night.

    Attributes:
        network: the segmenter.
        optimizer: of the segmenter.
        training: of the run.
        loss: of the segmentation.
        photometric: augmentation of the images, or None.
        joint: train on both domains, one image of each in turn.
        relight: weights of the light loss.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss(normalizer="valid")
    photometric: Photometric | None = None
    joint: bool = False
    relight: RelightWeights = RelightWeights()

    optional_init = ("relight",)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that a batch must hold, by name."""
        return ("source", "day") if self.joint else ("source",)

    @property
    def supervision(self) -> Supervision:
        """The examples and the loss."""
        return Supervision(self.network, self.domains, self.loss, self.relight, self.photometric)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        examples = self.supervision.examples(batch, self.training.keys(state))
        loss = functools.partial(self.student_loss, state, self.supervision.level(examples))
        return gradient_step(state, self.players, {"student": loss}, examples, self.training)

    def student_loss(self, state, level, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The loss on one microbatch; see `core.step.Loss`."""
        variables = {"params": params["student"], "batch_stats": stats["student"]}
        loss, scalars, new = self.supervision(variables, part, level, self.training.keys(state, i))
        return loss, Outcome(scalars | {"loss": loss}, {"student": new})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        return self.supervision.visualizations(self.variables(state), batch, self.training.keys(state))
