"""Fragments that several configs share, as plain functions."""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from multimed_jax.config import RunConfig
from multimed_jax.config_io import from_dict, to_dict


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


def sources(weights: Mapping[str, float]) -> tuple[dict[str, object], ...]:
    """The mixture from "dataset/config" -> weight."""
    return tuple(dict(name=name, weight=weight) for name, weight in weights.items())


def complete(**values: object) -> ml_collections.ConfigDict:
    """The config with every key present, so that each can be overridden by a flag, and locked."""
    return ml_collections.ConfigDict(to_dict(from_dict(RunConfig, values))).lock()
