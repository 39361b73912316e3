# SPDX-License-Identifier: Apache-2.0
"""nightjax from Python and Colab: load a run, predict, evaluate, look, train, and list what there is.

from nightjax import api

model = api.load("runs/dsr_fpa")  # Or api.load(), for the network that comes with nightjax.
prediction = model.predict("night.jpg")
model.overlay("night.jpg")
api.list_benchmarks()
"""

import os
from collections.abc import Mapping
from typing import IO, Any

import jax
import ml_collections
import numpy as np
from etils import epath
from PIL import Image

from nightjax import bundled
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.evaluator import Evaluator
from nightjax.inference import overlay
from nightjax.inference.images import read_image
from nightjax.inference.predict import Prediction, Scores, score_image
from nightjax.run import calibration, loaded, settings
from nightjax.train import train as _train
from nightjax.zoo.listing import list_benchmarks, list_configs, list_methods, list_models, list_sets, list_studies

__all__ = [
    "Model",
    "get_config",
    "list_benchmarks",
    "list_configs",
    "list_methods",
    "list_models",
    "list_sets",
    "list_studies",
    "load",
    "train",
]

ImageLike = np.ndarray | str | os.PathLike | IO[bytes] | Image.Image


class Model:
    """A trained network. Made by `load`.

    Attributes:
        run: config, method and weights.
        calibration: of its confidences, if ``nightjax calibrate`` fitted it.
    """

    def __init__(self, run: loaded.Run, calibrated: calibration.Calibration | None = None):
        self.run, self.calibration = run, calibrated

    def __repr__(self) -> str:
        run, names = self.run, self.classes.names
        shown = ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])}, ..."
        count = sum(np.size(x) for x in jax.tree.leaves(run.variables["params"]))
        rows = f"sees images at {self.input_height} rows" if self.input_height else "sees images at their own size"
        network = f"{run.config.method.name}, {count / 1e6:.2f} M parameters, {rows}"
        return f"<nightjax Model of {run.workdir}, step {run.step}: {network}; {len(names)} classes: {shown}>"

    @property
    def classes(self) -> ClassSet:
        """The classes that the network tells apart: ``names`` and ``palette`` in train-id order."""
        return self.run.classes

    @property
    def temperature(self) -> float:
        """That logits are divided by for confidences; 1 without calibration."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def predict(self, image: ImageLike, **options: Any) -> Prediction:
        """Segments one image.

        Args:
            image: uint8 [H, W, 3] RGB, the path of any image file, an open binary file, or an image of Pillow.
            **options: of `predict_image`, such as ``flip=True`` or ``scales=(0.75, 1, 1.25)``. ``input_size`` is by
                default `input_size`; None feeds the image as it is.

        Returns:
            Train ids [H, W] uint8 and confidence [H, W] float32, at the image's own size. Confidences of a calibrated
            run are corrected; ``temperature=1`` gives the network's own.
        """
        probabilities = options.pop("probabilities", False)
        return self.scores(image, **options).prediction(probabilities)

    def label(self, image: ImageLike, *, abstain: float = 0.0, **options: Any) -> np.ndarray:
        """The train ids of `predict` alone, uint8 [H, W], in less than half the time.

        Args:
            image: as for `predict`.
            abstain: see `confident_from`; less confident pixels are 255, "no class".
            **options: of `score_image`.

        Raises:
            UserError: see `confident_from`.
        """
        return self.scores(image, **options).label(self.confident_from(abstain))

    def confident_from(self, precision: float) -> float:
        """The confidence from which labels are right so often by the run's calibration; 0, which keeps all, for 0.

        Args:
            precision: share of right pixels among those that are kept, in 0..1.

        Raises:
            UserError: it is outside of 0..1, the run is not calibrated, or no confidence is enough.
        """
        if not precision:
            return 0.0
        if not 0 < precision < 1:
            raise UserError(f"abstain={precision:g} must be the share of kept pixels that are to be right, below 1")
        if self.calibration is None:
            raise UserError(
                f"{self.run.workdir} has no calibration, which says what its confidences are worth; fit one with "
                "nightjax calibrate --workdir=RUN"
            )
        return self.calibration.threshold(precision)

    def scores(self, image: ImageLike, **options: Any) -> Scores:
        """What the network says of one image at its own size, from which labels and predictions are made.

        Args:
            image: as for `predict`.
            **options: of `score_image`.
        """
        image = _image(image)
        options = {"input_size": self.input_size(image.shape[:2]), "temperature": self.temperature} | options
        return score_image(self.run.predict_fn, image, **options)

    def input_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Where things in an image of this size are as large as in training: with `input_height` rows.

        Args:
            size: (height, width) of an image.

        Returns:
            (height, width), the aspect kept up to a width that 32 divides; None for the image's own size.
        """
        height = self.input_height
        return (height, max(round(height * size[1] / size[0] / 32), 1) * 32) if height else None

    @property
    def input_height(self) -> int:
        """``eval.height``, else the height to which the run resized its images; 0 where it took their own size."""
        streams = self.run.config.data.streams
        trained = streams.get("target", streams.source).get("resize")
        return self.run.config.eval.height or (trained[0] if trained else 0)

    def overlay(self, image: ImageLike, opacity: float = 0.55, **options: Any) -> np.ndarray:
        """The image under the colors of its predicted classes, uint8 [H, W, 3]."""
        image = _image(image)
        return overlay.blend(image, self.label(image, **options), opacity, self.classes.colors)

    def evaluate(self, *, data_dir: str = "", manual_dir: str = "") -> dict[str, dict[str, Any]]:
        """Scores the evaluation sets of the run's config and prints the table; see `Evaluator`."""
        config = ml_collections.ConfigDict(self.run.config.to_dict())
        config.data.dir = data_dir or config.data.dir
        config.data.manual_dir = manual_dir or config.data.manual_dir
        config.eval.network = self.run.network
        place = None if bundled.holds(self.run.workdir) else epath.Path(self.run.workdir)
        evaluator = Evaluator(config, self.run.method, self.run.mesh, place, self.run.config, self.calibration)
        return evaluator(self.run.variables, self.run.step)


def load(
    workdir: str | os.PathLike = "", *, network: str = "", step: int | str | None = None, calibrated: bool = True
) -> Model:
    """Loads a trained network from its run folder.

    Args:
        workdir: of the run; by default the small network that comes with nightjax (`nightjax.bundled`).
        network: ``"student"`` or ``"teacher"``; by default what the config evaluates.
        step: of the checkpoint, or "best"; the newest by default.
        calibrated: whether to correct confidences by the run's calibration, if it has one.

    Raises:
        UserError: no run or checkpoint there.
    """
    run = loaded.load(workdir or bundled.NETWORK, network, step)
    return Model(run, calibration.read(run) if calibrated else None)


def get_config(path: str | os.PathLike, overrides: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """A config file's config, complete.

    Args:
        path: ``configs/dsr_fpa.py`` or ``dsr_fpa``, with arguments after a colon if wanted.
        overrides: values by dotted key, such as ``{"train.steps": 100}``.

    Raises:
        UserError: no such file or key, or a value of the wrong type.
    """
    return settings.override(settings.load(os.fspath(path)), overrides or {})


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> Model:
    """Trains as ``python -m nightjax.main`` does, continuing what the folder holds, and loads the result."""
    _train(config, workdir)
    return load(workdir)


def _image(image: ImageLike) -> np.ndarray:
    return image if isinstance(image, np.ndarray) else read_image(image)
