# SPDX-License-Identifier: Apache-2.0
"""How the day prediction is brought onto the night view: the plug-in of DSR's refinement."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from nightjax.core.modules import apply
from nightjax.core.types import Variables
from nightjax.models.matcher import Matcher, build_matcher
from nightjax.ops.warp import flow_confidence, flow_warp


class Alignment(NamedTuple):
    """Day logits on the night's pixels.

    Attributes:
        logits: [B, H, W, K] float32.
        confidence: [B, H, W] in [0, 1], or None for 0.5 everywhere.
        valid: [B, H, W] bool, False where the warp left the day image, or None for valid everywhere.
    """

    logits: jax.Array
    confidence: jax.Array | None
    valid: jax.Array | None


class Aligner(Protocol):
    """One way to align; without gradient."""

    def init(self, key: jax.Array, size: tuple[int, int]) -> Variables:
        """Variables of the aligner's network, or nothing."""
        ...

    def __call__(
        self,
        variables: Variables,
        target: Mapping[str, Any],
        night: jax.Array,
        day: jax.Array,
        logits: jax.Array,
    ) -> Alignment:
        """Aligns.

        Args:
            variables: what `init` made or loaded weights.
            target: the batch's target domain.
            night, day: [B, H, W, 3] float32, normalized.
            logits: [B, H, W, K] of the day.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Unaligned:
    """Takes the day as it is: the official ``use_align=False`` (DSR-9 in docs/fidelity.md)."""

    def init(self, key, size):
        """Variables of the aligner's network."""
        return {}

    def __call__(self, variables, target, night, day, logits):
        """Day logits on the night's pixels; `Aligner` describes the arguments."""
        return Alignment(logits, None, None)


@dataclasses.dataclass(frozen=True)
class TrueFlow:
    """Warps by the batch's ``flow`` and ``flow_valid``: on NightStreet the bound of any aligner."""

    def init(self, key, size):
        """Variables of the aligner's network."""
        return {}

    def __call__(self, variables, target, night, day, logits):
        """Day logits on the night's pixels; `Aligner` describes the arguments."""
        logits, valid = flow_warp(logits, target["flow"])
        valid = valid & target["flow_valid"]
        return Alignment(logits, jnp.ones(valid.shape, jnp.float32), valid)


@dataclasses.dataclass(frozen=True)
class UAWarpC:
    """Warps by a matcher's flow, with its probability of being right within a pixel.

    Attributes:
        matcher: in evaluation mode.
    """

    matcher: Matcher

    def init(self, key, size):
        """Variables of the aligner's network."""
        image = jnp.zeros((1, *size, 3), jnp.float32)
        return self.matcher.init(key, image, image)

    def __call__(self, variables, target, night, day, logits):
        """Day logits on the night's pixels; `Aligner` describes the arguments."""
        match = jax.lax.stop_gradient(apply(self.matcher, variables, night, day))
        logits, valid = flow_warp(logits, match["flow"])
        return Alignment(logits, flow_confidence(match["logvar"])[..., 0], valid)


ALIGNERS = {
    "none": lambda matcher: Unaligned(),
    "true_flow": lambda matcher: TrueFlow(),
    "uawarpc": lambda matcher: UAWarpC(build_matcher(matcher)),
}
"""Name to a builder of an `Aligner` from a matcher's name in `nightjax.models.matcher.MATCHERS`."""
