"""Fragments that several configs share, as plain functions."""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from multimed_jax.config import RunConfig
from multimed_jax.config_io import from_dict, to_dict
from multimed_jax.types import UserError


def learning_rates(
    peak: float, warmup_steps: int, heads: float = 1.0
) -> dict[str, dict[str, object]]:
    """One cosine schedule per parameter group; heads at `heads` times the peak."""
    scale = {"tokenizers": 1.0, "trunk": 1.0, "heads": heads}
    return {
        group: dict(
            kind="cosine", value=peak * s, end_value=peak * s * 0.01, warmup_steps=warmup_steps
        )
        for group, s in scale.items()
    }


# One word for the width, depth and heads of the trunk; base and large are ViT-S and ViT-B.
# Source: Dosovitskiy et al. 2021 (ViT), table 1, and Touvron et al. 2021 (DeiT), table 1.
SIZES = {
    "small": dict(d_model=128, num_layers=4, num_heads=4),
    "base": dict(d_model=384, num_layers=12, num_heads=6),
    "large": dict(d_model=768, num_layers=12, num_heads=12),
}


def model_size(name: str | None) -> dict[str, object]:
    """The trunk of a size; None is small. Raises UserError for another word."""
    size = "small" if name is None else name
    if size not in SIZES:
        raise UserError(f"the size of a config is {size!r}; accepted: {', '.join(SIZES)}")
    return dict(SIZES[size])


def sources(weights: Mapping[str, float]) -> tuple[dict[str, object], ...]:
    """The mixture from "dataset/config" -> weight."""
    return tuple(dict(name=name, weight=weight) for name, weight in weights.items())


def complete(**values: object) -> ml_collections.ConfigDict:
    """The config with every key present, so that each can be overridden by a flag, and locked."""
    return ml_collections.ConfigDict(to_dict(from_dict(RunConfig, values))).lock()
