# SPDX-License-Identifier: Apache-2.0
"""Refinement of night pseudo-labels by the coarsely aligned day view (DSR, section 3.2.2; Refign)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax

from nightjax.core.classes import ClassSet
from nightjax.core.types import PyTree, Variables
from nightjax.methods.parts.aligners import ALIGNERS, Aligner
from nightjax.methods.parts.network import InputNormalization
from nightjax.ops import pseudo_label


@dataclasses.dataclass(frozen=True)
class DayRefinement:
    """How the day prediction changes the night's.

    Attributes:
        aligner: how the day is brought onto the night view: not at all, by a matcher, or by the true flow (NightStreet
            only: an upper bound for any aligner).
        matcher: name of the network of ``"uawarpc"``; its weights are ``frozen["aligner"]`` of the state.
        matcher_input: how pixels enter it, whatever enters the student.
        gamma: exponent of the trust in the day view.
        static: whether it always counts for classes that are static in both views (official ``disable_M``).
        confidence: whether the aligner's confidence counts elsewhere (``disable_P``).
    """

    aligner: Literal["none", "uawarpc", "true_flow"] = "none"
    matcher: str = "uawarpc"
    matcher_input: InputNormalization = InputNormalization()
    gamma: float = 0.25
    static: bool = True
    confidence: bool = True

    @property
    def align(self) -> Aligner:
        """Brings the day prediction onto the night view."""
        return ALIGNERS[self.aligner](self.matcher)

    def init(self, key: jax.Array, size: tuple[int, int]) -> dict[str, Variables]:
        """The frozen networks of the aligner, for images of ``size`` (H, W)."""
        variables = self.align.init(key, size)
        return {"aligner": variables} if variables else {}

    def __call__(
        self,
        frozen: dict[str, PyTree],
        target: Mapping[str, Any],
        night: jax.Array,
        day: jax.Array,
        classes: ClassSet,
    ) -> jax.Array:
        """Class scores of the night images.

        Args:
            frozen: of the state.
            target: the batch's target domain, with ``image`` and ``reference`` uint8 and what the aligner reads.
            night, day: logits [B, H, W, K] float32 of both views.
            classes: of the logits.

        Returns:
            [B, H, W, K] float32, summing to 1.
        """
        image, reference = (self.matcher_input(target[name]) for name in ("image", "reference"))
        aligned = self.align(frozen.get("aligner", {}), target, image, reference, day)
        if not self.confidence:
            aligned = aligned._replace(confidence=None)
        return pseudo_label.refine(
            night,
            *aligned,
            gamma=self.gamma,
            use_static_mask=self.static,
            static_classes=classes.group("static"),
        )
