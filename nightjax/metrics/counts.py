# SPDX-License-Identifier: Apache-2.0
"""Integer counts that merge, as `clu` metrics: what one batch adds, and what a whole set adds up to.

On the device the counts of a batch are int32. Merging happens on the host in int64, so a total is exact however many
pixels a set has. `evaluation_counts` names the collection that an evaluation fills::

    Counts = evaluation_counts(uiou=True)
    batch = Counts.single_from_model_output(label=..., prediction=..., num_classes=K, ...)  # in the jitted step
    total = batch if total is None else total.merge(batch)  # on the host
    summary = confusion.summarize(total.confusion.total, names)
"""

import functools
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jax.typing import ArrayLike

from nightjax.metrics import calibration, confusion, uiou


@flax.struct.dataclass
class Counts(metrics.Metric):
    """Counts of any shape.

    Attributes:
        counts: int32 on the device, for one batch; int64 on the host, once merged.
    """

    counts: jax.Array | np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """Counts nothing; merges with counts of any shape."""
        return cls(counts=np.zeros((), np.int64))

    @property
    def total(self) -> np.ndarray:
        """The counts as int64 on the host."""
        return np.asarray(self.counts).astype(np.int64)

    def merge(self, other: Self) -> Self:
        """The sum, int64 on the host."""
        return type(self)(counts=self.total + other.total)

    def compute(self) -> Any:
        """The counts themselves."""
        return self.total


@flax.struct.dataclass
class Confusion(Counts):
    """Confusion matrix [K, K]: rows truth, columns prediction. Computes the IoU of each class, float64 [K] in 0..1."""

    @classmethod
    def from_model_output(
        cls, *, label: ArrayLike, prediction: ArrayLike, num_classes: int, mask: jax.Array | None = None, **_: Any
    ) -> Self:
        """The confusion matrix of one batch, see `confusion.confusion_counts`."""
        return cls(counts=confusion.confusion_counts(label, prediction, num_classes, mask=mask))

    def compute(self) -> np.ndarray:
        """IoU of each class; NaN for one that is neither in the truth nor predicted."""
        return confusion.iou_per_class(self.total)


@flax.struct.dataclass
class Uiou(Counts):
    """Histogram [T + 1, 2, K, K] of `uiou.uiou_counts`. Computes the mean UIoU at each threshold, float64 [T]."""

    @classmethod
    def from_model_output(
        cls,
        *,
        label: jax.Array,
        prediction: jax.Array,
        confidence: jax.Array,
        invalid: jax.Array,
        thresholds: np.ndarray,
        num_classes: int,
        mask: jax.Array | None = None,
        **_: Any,
    ) -> Self:
        """The histogram of one batch, see `uiou.uiou_counts`."""
        return cls(counts=uiou.uiou_counts(label, prediction, confidence, invalid, thresholds, num_classes, mask=mask))

    def compute(self) -> np.ndarray:
        """Mean UIoU at each threshold; NaN without a pixel."""
        return uiou.mean_uiou(self.total)


@flax.struct.dataclass
class FittedUiou(Uiou):
    """`Uiou` by calibrated confidences, at the thresholds that a calibration has for some precisions."""

    @classmethod
    def from_model_output(
        cls, *, calibrated_confidence: jax.Array, fitted_thresholds: np.ndarray, **outputs: Any
    ) -> Self:
        """See `Uiou`."""
        outputs |= {"confidence": calibrated_confidence, "thresholds": fitted_thresholds}
        return super().from_model_output(**outputs)


@flax.struct.dataclass
class Reliability(Counts):
    """Histogram [FINE, 2] of `calibration.reliability_counts`. Computes the calibration error in 0..1."""

    @classmethod
    def from_model_output(
        cls,
        *,
        label: jax.Array,
        prediction: jax.Array,
        confidence: jax.Array,
        num_classes: int,
        merge_table: np.ndarray | None = None,
        mask: jax.Array | None = None,
        **_: Any,
    ) -> Self:
        """See `calibration.reliability_counts`; ``merge_table`` uint8 [256] says which classes count as one."""
        if merge_table is not None:
            label, prediction = (jnp.asarray(merge_table)[x] for x in (label, prediction))
        return cls(counts=calibration.reliability_counts(label, prediction, confidence, num_classes, mask=mask))

    def compute(self) -> float:
        """Expected calibration error in 0..1."""
        return calibration.calibration_error(self.total)


@flax.struct.dataclass
class CalibratedReliability(Reliability):
    """`Reliability` of calibrated confidences."""

    @classmethod
    def from_model_output(cls, *, calibrated_confidence: jax.Array, **outputs: Any) -> Self:
        """See `Reliability`."""
        changed: dict[str, Any] = outputs | {"confidence": calibrated_confidence}
        return super().from_model_output(**changed)


@flax.struct.dataclass
class Differing(Counts):
    """How many labeled pixels two predictions have otherwise, a scalar."""

    @classmethod
    def from_model_output(
        cls,
        *,
        label: jax.Array,
        prediction: jax.Array,
        other_prediction: jax.Array,
        num_classes: int,
        mask: jax.Array | None = None,
        **_: Any,
    ) -> Self:
        """Counts one batch.

        Args:
            label: integer [B, H, W]; pixels outside 0..K-1 are not counted.
            prediction, other_prediction: integer [B, H, W].
            num_classes: K.
            mask: [B], 0 for padded examples, which are not counted.
        """
        known = (label >= 0) & (label < num_classes)
        if mask is not None:
            known &= (mask > 0)[:, None, None]
        return cls(counts=(known & (prediction != other_prediction)).sum(dtype=jnp.int32))


@functools.cache
def evaluation_counts(
    *, uiou: bool = False, differing: bool = False, calibrated: bool = False
) -> type[metrics.Collection]:
    """The collection of what one evaluation counts.

    It is ``confusion`` and ``reliability``; if asked for ``uiou`` and ``differing``; and of calibrated confidences
    ``calibrated_reliability`` and ``fitted_uiou``.
    """
    wanted: dict[str, type[metrics.Metric]] = {"confusion": Confusion, "reliability": Reliability}
    if calibrated:
        wanted["calibrated_reliability"] = CalibratedReliability
    if uiou:
        wanted["uiou"] = Uiou
    if uiou and calibrated:
        wanted["fitted_uiou"] = FittedUiou
    if differing:
        wanted["differing"] = Differing
    return metrics.Collection.create(**wanted)
