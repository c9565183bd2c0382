"""Who sees whom in a packed row: `Sight`, by numbers per token, and the mask that it stands for.

A row holds several samples. Token i sees token j only where both carry the same segment number
(0 is padding and sees nothing that matters). Where modality numbers are told apart, both must also
carry the same one: that is late fusion, or the first layers of intermediate fusion. For one row of
two samples, a (modalities x, t) and b (modality x):

    segment   a a a b b 0          plain mask        within-modality mask
    modality  x x t x x .     a x  1 1 1 . . .       1 1 . . . .
                              a x  1 1 1 . . .       1 1 . . . .
                              a t  1 1 1 . . .       . . 1 . . .
                              b x  . . . 1 1 .       . . . 1 1 .
                              b x  . . . 1 1 .       . . . 1 1 .
                              0 .  . . . . . 1       . . . . . 1

The places of an answer (`TokenGrid.order` above 0) see all of their sample up to themselves,
whatever the modality, and only later places see them: with two places after an image x

    order     0 1 2           x 0  1 . .
    modality  x t t           t 1  1 1 .
                              t 2  1 1 1

Kernels read the numbers, of which there are T; the dense mask has T x T.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sight:
    """Who sees whom in rows of T tokens.

    Attributes:
        segment_ids: the sample of each token.
        modality_ids: its modality; the same number everywhere is fusion from the first layer.
        order: its place in an answer; None where no row can hold an answer.
        contiguous: whether the tokens of a sample surely lie side by side.
        max_runs: most runs of equal numbers in a row, padding included.
        modalities: numbers that `modality_ids` may take; 1 where all see all.
    """

    segment_ids: Int[Array, "B T"]
    modality_ids: Int[Array, "B T"]
    order: Int[Array, "B T"] | None
    contiguous: bool = dataclasses.field(metadata={"static": True})
    max_runs: int = dataclasses.field(metadata={"static": True})
    modalities: int = dataclasses.field(metadata={"static": True})

    @property
    def width(self) -> int:
        """T."""
        return self.segment_ids.shape[-1]

    def mask(self) -> Bool[Array, "B T T"]:
        """[b, i, j]: whether token i sees token j."""
        return visible(self.columns, self.columns)

    @property
    def columns(self) -> tuple[Int[Array, "B T"], ...]:
        """The numbers as `visible` takes them."""
        numbers = (self.segment_ids, self.modality_ids)
        return numbers if self.order is None else (*numbers, self.order)

    def groups(self) -> Int[Array, "B T"]:
        """One number per token, equal where two tokens see each other.

        Only without answers, whose places are seen by some and see others.
        """
        assert self.order is None
        return self.segment_ids * self.modalities + self.modality_ids


def make_sight(
    segment_ids: Int[Array, "B T"],
    modality_ids: Int[Array, "B T"] | None = None,
    order: Int[Array, "B T"] | None = None,
    *,
    modalities: int = 1,
    contiguous: bool = False,
    max_runs: int = 0,
) -> Sight:
    """The sight of some rows.

    Args:
        segment_ids: the sample of each token, 0 for padding.
        modality_ids: from 0, under `modalities`; a token then sees its own modality alone. None
            tells no modalities apart.
        order: see `Sight`.
        modalities: see `Sight`; as given, also where `modality_ids` is None, so that two sights of
            one model have one structure.
        contiguous: see `Sight`.
        max_runs: see `Sight`; 0 is as many as there are tokens.
    """
    if modality_ids is None:
        modality_ids = jnp.zeros_like(segment_ids)
    most = max_runs or segment_ids.shape[-1]
    return Sight(segment_ids, modality_ids, order, contiguous, most, modalities)


def visible(
    queries: tuple[Int[Array, "*b q"], ...], keys: tuple[Int[Array, "*b k"], ...]
) -> Bool[Array, "*b q k"]:
    """Which queries see which keys, by their columns (`Sight.columns`)."""
    q, k = ([column[..., None] for column in queries], [column[..., None, :] for column in keys])
    same = q[1] == k[1]
    if len(q) > 2:
        return (q[0] == k[0]) & (same | (q[2] > 0)) & (k[2] <= q[2])
    return (q[0] == k[0]) & same
