# SPDX-License-Identifier: Apache-2.0
"""The calibration of a run: what its network's confidences are worth, in a small file beside the run.

`nightjax calibrate` fits it, and prediction, evaluation and export read it. It belongs to one network of one
checkpoint: after more training the file is passed over, with a line, until it is fitted again.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import read_json, write_whole
from nightjax.metrics import calibration, uiou
from nightjax.run.loaded import Run

FILE = "calibration.json"

REMEDY = "run nightjax calibrate again"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How confidences are corrected, and how often labels are right by their corrected confidence.

    Attributes:
        temperature: that logits are divided by; above 1 lowers confidences.
        counts: int64 [FINE, 2], wrong and right pixels by corrected confidence; see `metrics.calibration`.
        facts: how it was fitted, for people.
    """

    temperature: float = 1.0
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((calibration.FINE, 2), np.int64))
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def threshold(self, precision: float) -> float:
        """The corrected confidence from which labels are right so often, in 0..1.

        Raises:
            UserError: no threshold is enough.
        """
        found = calibration.threshold(self.counts, precision)
        if found is None:
            reached = [calibration.kept(self.counts, step / calibration.FINE)[0] for step in range(calibration.FINE)]
            best = max((value for value in reached if not math.isnan(value)), default=0.0)
            raise UserError(
                f"no confidence of this network is enough for {precision:g} of the labels to be right; its most "
                f"confident ones are right at {best:.3f}"
            )
        return found

    @property
    def fitted_thresholds(self) -> dict[float, float]:
        """Each of `PRECISIONS` that some threshold reaches, with that threshold."""
        found = {precision: calibration.threshold(self.counts, precision) for precision in calibration.PRECISIONS}
        return {precision: value for precision, value in found.items() if value is not None}

    @property
    def ascending(self) -> np.ndarray:
        """The fitted thresholds without repetition, float32 [T]."""
        return np.unique(np.array(list(self.fitted_thresholds.values()), np.float32))

    def summarize(self, counts: Any, names: Sequence[str], uncertainty: bool) -> dict[str, Any]:
        """What corrected confidences are worth on one evaluation set, ready for JSON.

        Args:
            counts: of `metrics.counts.evaluation_counts` with ``calibrated``.
            names: of the classes.
            uncertainty: whether UIoU is scored too.

        Returns:
            That of `calibration.summarize_calibration`, ``temperature``, and ``abstain``: asked precision to its
            threshold and, in percent, the precision and coverage, and the mean UIoU, that it gives here.
        """
        total, uious, abstain = counts.calibrated_reliability.total, {}, {}
        if uncertainty and len(self.ascending):
            means = uiou.summarize_uiou(counts.fitted_uiou.total, self.ascending, names)["mean"]
            uious = dict(zip(self.ascending.tolist(), means, strict=True))
        for asked, least in self.fitted_thresholds.items():
            precision, coverage = (None if np.isnan(value) else 100 * value for value in calibration.kept(total, least))
            entry = {"threshold": least, "precision": precision, "coverage": coverage}
            abstain[f"{asked:g}"] = entry | ({"uiou": uious[least]} if uious else {})
        return calibration.summarize_calibration(total) | {"temperature": self.temperature, "abstain": abstain}


def write(run: Run, found: Calibration) -> epath.Path:
    """Writes a run's calibration, and returns its file."""
    own = {key: value for key, value in run.facts().items() if key != "run"}
    content = own | {"temperature": found.temperature, "counts": found.counts.tolist()} | found.facts
    path = epath.Path(run.workdir) / FILE
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path


def read(run: Run) -> Calibration | None:
    """The calibration of a run's network; None, with a line, if it is another network's; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = epath.Path(run.workdir) / FILE
    if not path.exists():
        return None
    content = read_json(path, dict, REMEDY)
    try:
        counts, temperature = np.asarray(content["counts"], np.int64), float(content["temperature"])
        weights, network, step = content["weights"], content["network"], content["step"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    if counts.shape != (calibration.FINE, 2) or (counts < 0).any() or not 0.01 <= temperature <= 100:
        raise UserError(f"{path} is damaged (its counts or temperature make no sense); {REMEDY}")
    if weights != run.facts()["weights"]:
        print(f"{path} is of step {step}, network {network}, and is left aside; {REMEDY}", flush=True)
        return None
    facts = {key: content[key] for key in ("day", "night") if key in content}
    return Calibration(temperature, counts, facts)
