"""Counts updates that the training step skipped, and ends a run that skips nothing else."""

from __future__ import annotations

import math

from multimed_jax.types import UserError


class SkipCount:
    """Skipped updates since the last log line, and in a row.

    The step itself decides (`optim.accepts`); parameters and moments are as before a skipped step.
    """

    def __init__(self, max_skipped: int):
        """`max_skipped` updates in a row are one too many."""
        self._max_skipped = max_skipped
        self._in_row = 0
        self._since_taken = 0

    def add(self, step: int, skipped: bool, loss: float, norm: float) -> str:
        """Counts a step.

        Args:
            step: its number.
            skipped: whether its update was.
            loss: of the step.
            norm: of its gradient.

        Returns:
            A sentence about a skipped update, else "".

        Raises:
            UserError: where `max_skipped` updates in a row were skipped.
        """
        if not skipped:
            self._in_row = 0
            return ""
        self._in_row += 1
        self._since_taken += 1
        finite = math.isfinite(loss) and math.isfinite(norm)
        why = f"gradient norm {norm:.4g} is a spike" if finite else "loss or gradient not finite"
        if self._in_row >= self._max_skipped:
            raise UserError(
                f"the updates of {self._in_row} steps in a row, to step {step}, were skipped "
                f"({why}); config.optim.max_skipped is {self._max_skipped}: lower the learning "
                "rate, or see by config.data.log_samples=True which records they were"
            )
        return f"step {step}: {why}, update skipped"

    def take(self) -> float:
        """Skipped updates since the last call."""
        found, self._since_taken = self._since_taken, 0
        return float(found)
