"""Records that cannot be read: kept by id and reason, counted, and too many of them end a build."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from multimed_jax.types import UserError

# A source with more unreadable records than this share is damaged, not blemished.
DEFAULT_MAX_RATE = 0.05


class Quarantine:
    """The unreadable records of one pass over a source, and what was left out by rule.

    Attributes:
        items: (sample id, reason) in source order.
        left_out: reason -> number of records that a rule of the builder leaves out, such as
            CT rows of an X-ray dataset. They are no faults and do not count towards the rate.
    """

    def __init__(self, show: Callable[[str], str] = str) -> None:
        """Keeps ids as `show` makes them: as they are, or as a keyed hash."""
        self._show = show
        self.items: list[tuple[str, str]] = []
        self.left_out: dict[str, int] = {}

    def add(self, sample_id: str, reason: str) -> None:
        """Puts an unreadable record aside."""
        self.items.append((self._show(sample_id), reason))

    def leave_out(self, reason: str) -> None:
        """Counts a readable record that this builder does not take."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def take(self) -> tuple[list[tuple[str, str]], dict[str, int]]:
        """`items` and `left_out` so far; both are empty afterwards."""
        taken = self.items, self.left_out
        self.items, self.left_out = [], {}
        return taken

    def include(self, items: Iterable[Sequence[str]], left_out: Mapping[str, int]) -> None:
        """Adds what another pass put aside, with ids as that one shows them."""
        self.items.extend((name, reason) for name, reason in items)
        for reason, number in left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + number

    def rate(self, num_read: int) -> float:
        """Share of unreadable records among all that were tried."""
        tried = num_read + len(self.items)
        return len(self.items) / tried if tried else 0.0

    def check(self, num_read: int, max_rate: float) -> None:
        """Raises UserError where the rate lies above `max_rate`, naming the first few records."""
        rate = self.rate(num_read)
        if rate <= max_rate:
            return
        first = "; ".join(f"{name}: {reason}" for name, reason in self.items[:3])
        raise UserError(
            f"{len(self.items)} of {num_read + len(self.items)} records cannot be read "
            f"({rate:.1%}, accepted: at most {max_rate:.1%}), first {first}"
        )

    def summary(self, num_read: int) -> dict[str, Any]:
        """The `quarantine` entry of a dataset's metadata."""
        return {
            "count": len(self.items),
            "rate": self.rate(num_read),
            "items": [{"sample_id": name, "reason": reason} for name, reason in self.items[:20]],
        }
