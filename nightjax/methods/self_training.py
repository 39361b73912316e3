"""Self-training on unlabelled images under a teacher that stays as it is.

After Zoph et al., "Rethinking pre-training and self-training" (NeurIPS 2020), and "Semantic image segmentation in the
dark with domain adaptation method" (UIT, VNU-HCM, 2021), which labels whole images once, keeps every pixel, and trains
on the union: that is `Supervised` on what ``nightjax pseudo-label`` wrote. Here the teacher labels each crop in
    the step, so that labels may
be soft, and the student may see it under stronger augmentation than the teacher.
"""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.config import choose
from nightjax.core.optim import accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import IGNORE, Batch, Scalars
from nightjax.losses.segmentation import soft_cross_entropy
from nightjax.methods.supervised import Supervised
from nightjax.ops.pseudo_label import pseudo_label
from nightjax.ops.resize import resize


@dataclasses.dataclass(frozen=True)
class SelfTraining(Supervised):
    """Supervised training on ``source``, and on ``target`` under the labels of a frozen teacher.

    The teacher is the run that ``train.frozen.teacher`` names; ``train.init`` says whether the student starts from it
    too (the
    thesis: better) or from scratch. A next round takes this run as teacher.

    Attributes:
        labels: ``"hard"``, the teacher's likeliest class, or ``"soft"``, its probabilities.
        threshold: pixels whose likeliest class is less probable than this have no label; 0 keeps all.
        target_weight: of the loss on the target.
    """

    labels: str = "hard"
    threshold: float = 0.0
    target_weight: float = 1.0

    streams = ("source", "target")

    def __post_init__(self):
        super().__post_init__()
        choose({"hard": 0, "soft": 0}, self.labels, "method.labels")

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        state = super().init(rng, batch)
        teacher = jax.tree.map(jnp.copy, self.variables(state))  # Donated buffers must not be shared.
        return state.replace(frozen=state.frozen | {"teacher": teacher})

    def teacher_probabilities(self, state: TrainState, image: jax.Array) -> jax.Array:
        """Of the frozen teacher in evaluation mode: [B, H, W, K] for images [B, H, W, 3] in [0, 1]."""
        logits = self.model.apply(state.frozen["teacher"], self.input.normalize(image), train=False)["logits"]
        return jax.nn.softmax(resize(logits.astype(jnp.float32), image.shape[1:3], align_corners=False))

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        probabilities = self.teacher_probabilities(state, self.input.decode(batch["target"]["image"]))
        label, confidence = pseudo_label(probabilities)
        sure = confidence >= self.threshold
        examples = {
            "source": self._images(state, batch, "source")["image"],
            "source_label": batch["source"]["label"],
            "target": self._images(state, batch, "target")["image"],
            "target_label": jnp.where(sure, label, jnp.uint8(IGNORE)),
        }
        if self.labels == "soft":
            examples["probabilities"] = probabilities

        def grad_fn(stats, part, i):
            def loss_fn(params):
                student = params["student"]
                outputs, new = self.student_forward(state, student, stats, part["source"], "source", i)
                weight = self.label_weight(part["source_label"])
                source = self.segmentation_loss(outputs, part["source_label"], weight, divisor=self.divisor)
                outputs, new = self.student_forward(state, student, new, part["target"], "target", i)
                target = self._target_loss(outputs, part)
                loss = source + self.target_weight * target
                return loss, (new, {"loss": loss, "loss_source": source, "loss_target": target})

            grads, (new, scalars) = jax.grad(loss_fn, has_aux=True)(state.params)
            return grads, new, scalars

        grads, stats, scalars = accumulate(grad_fn, state.batch_stats["student"], examples, self.accumulate)
        return self.update(state, grads, stats, scalars | {"labelled_share": sure.mean()})

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        target = batch["target"]["image"]
        label, confidence = pseudo_label(self.teacher_probabilities(state, self.input.decode(target)))
        return {
            "source": batch["source"]["image"],
            "truth": batch["source"]["label"],
            "target": target,
            "pseudo_label": label,
            "confidence": confidence,
            "prediction": self.predict(self.variables(state), target).argmax(-1).astype(jnp.uint8),
        }

    def _target_loss(self, outputs, part):
        label = part["target_label"]
        if self.labels == "hard":
            return self.segmentation_loss(outputs, label, divisor=self.divisor)
        return soft_cross_entropy(outputs["logits"], part["probabilities"], label != IGNORE, divisor=self.divisor)
