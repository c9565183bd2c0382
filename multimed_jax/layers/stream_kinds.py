"""The choice of a modality's streams: a stream that is off has no tokenizer and no budget."""

from __future__ import annotations

from multimed_jax.types import UserError


def check_kinds(chosen: tuple[str, ...], accepted: tuple[str, ...]) -> None:
    """Raises UserError unless at least one of the accepted kinds is chosen, each at most once."""
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(accepted):
        raise UserError(
            f"a modality has streams {list(chosen)}; accepted: one or more of "
            f"{', '.join(accepted)}, each once"
        )
