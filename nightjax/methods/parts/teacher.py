# SPDX-License-Identifier: Apache-2.0
"""The EMA teacher of the self-training methods."""

import dataclasses

from nightjax.core.ema import ema_update
from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.core.types import Variables


@dataclasses.dataclass(frozen=True)
class EmaTeacher:
    """A moving average of the student.

    Attributes:
        decay: cap of the average's decay, which warms up from 0.
    """

    decay: float = 0.999

    def __post_init__(self):
        if not 0.0 <= self.decay < 1.0:
            raise UserError(f"method.teacher.decay={self.decay} must be at least 0 and below 1")

    def update(self, state: TrainState) -> Variables:
        """The teacher moved toward the student; its running statistics are its own and stay."""
        params = ema_update(state.teacher["params"], state.params["student"], state.step, self.decay)
        return {"params": params, "batch_stats": state.teacher["batch_stats"]}
