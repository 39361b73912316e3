# SPDX-License-Identifier: Apache-2.0
"""Steadier labels of a video: each frame is averaged with the frame before, which is moved along the optical flow."""

import dataclasses
from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from nightjax.inference.predict import Scores
from nightjax.ops.warp import flow_warp

SHARE = 0.6
"""Share of the frame before where the flow is trusted; what is older counts less and less."""

FLOW_SCALE = 4
"""The flow is found in images that are so many times larger than the network's maps."""

TRUSTED = 12.0
"""Difference of two gray values, of 255, at which the flow is trusted to 1 / e."""


LEAST = 1e-30
"""Probabilities below are taken for this one, so that logarithms stay finite."""


class Smoother:
    """Labels the frames of one video in their order.

    Probabilities at the network's own size are averaged over time, so that smoothing costs little beside the network.
    The flow is that of OpenCV's DIS (Kroeger et al., 2016), which needs no weights. Where it leads out of the image, or
    to a point of another brightness, the frame before does not count.

    Args:
        score: a frame uint8 [H, W, 3] to its scores, of one scale and not mirrored.
        confident: see `Scores.label`.
    """

    def __init__(self, score: Callable[[np.ndarray], Scores], confident: float = 0.0):
        self._score, self._confident = score, confident
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._before: tuple[np.ndarray, jax.Array] | None = None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The labels of the next frame, uint8 [H, W].

        Raises:
            ValueError: the scores are of several scales.
        """
        scores = self._score(image)
        if len(scores.maps) != 1:
            raise ValueError(f"scores of {len(scores.maps)} views cannot be smoothed, only those of one")
        (logits,) = scores.maps
        height, width, _ = logits.shape
        size = (FLOW_SCALE * width, FLOW_SCALE * height)
        gray = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        probabilities, before = jax.nn.softmax(logits, axis=-1), self._before
        if before is None or before[0].shape != gray.shape:
            self._before = gray, probabilities
            return scores.label(self._confident)
        past, earlier = before
        flow = self._flow.calc(gray, past, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
        trust = cv2.resize(_trust(gray, past, flow), (width, height), interpolation=cv2.INTER_AREA)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / np.float32(FLOW_SCALE)
        probabilities = _average(probabilities, earlier, flow, trust)
        self._before = gray, probabilities
        logits = jnp.log(jnp.maximum(probabilities, LEAST))
        return dataclasses.replace(scores, maps=(logits,)).label(self._confident)


def _trust(gray: np.ndarray, past: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """How far the flow is trusted, float32 [H, W] in 0..1: it leads to a like gray value, inside the image."""
    rows, columns = np.indices(gray.shape, np.float32)
    column, row = columns + flow[..., 0], rows + flow[..., 1]
    moved = cv2.remap(past, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    difference = cv2.GaussianBlur(gray.astype(np.float32) - moved, (0, 0), 1.0)  # Without the noise.
    inside = (column > 0) & (column < gray.shape[1] - 1) & (row > 0) & (row < gray.shape[0] - 1)
    return np.exp(-((difference / TRUSTED) ** 2)) * inside


@jax.jit
def _average(now: jax.Array, earlier: jax.Array, flow: jax.Array, trust: jax.Array) -> jax.Array:
    """Probabilities [h, w, K] of a frame, averaged with those of the frame before; flow [h, w, 2], trust [h, w]."""
    moved, inside = flow_warp(earlier[None], flow[None])
    share = SHARE * jnp.where(inside[0], trust, 0.0)[..., None]
    return (1 - share) * now + share * moved[0]
