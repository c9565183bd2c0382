"""Seven kinds of inputs of realistic ragged lengths, and the useful work of a step on them."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int

# Spread of the lengths that are not uniform (standard deviation of their logarithm).
LOG_SPREAD = 0.55


@dataclasses.dataclass(frozen=True)
class Kind:
    """One modality of the benchmark.

    Attributes:
        name: of the modality.
        shortest: tokens.
        longest: tokens.
        median: tokens, where lengths are log-normal; 0 where they are uniform.
        features: numbers of a token; 0 where a token is an id.
        vocabulary: ids that there are.
        classes: outputs of the head; 1 is a value.
        each: whether the head reads every token, instead of their mean.
        valued: whether a token has a value beside its id, which is also its target.
    """

    name: str
    shortest: int
    longest: int
    median: int = 0
    features: int = 0
    vocabulary: int = 0
    classes: int = 0
    each: bool = False
    valued: bool = False


# As of public models: 16 x 16 RGB patches of 224 pixels; 4 x 16 x 16 voxels; 22 channels x 10
# samples; 4 one-hot bases; genes with their expression; residues; sub-words.
KINDS = (
    Kind("image", 196, 196, features=768, classes=14),
    Kind("volume", 64, 256, features=1024, classes=10),
    Kind("eeg", 50, 100, features=220, classes=4),
    Kind("dna", 128, 512, features=20, classes=5, each=True),
    Kind("scrna", 200, 1000, 480, vocabulary=20_000, classes=1, each=True, valued=True),
    Kind("protein", 40, 300, 140, vocabulary=25, classes=25, each=True),
    Kind("text", 16, 256, 72, vocabulary=32_000, classes=20),
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The trunk, and how many samples of each kind a step has."""

    layers: int = 12
    width: int = 384
    heads: int = 6
    samples: int = 16
    mlp: int = 4


def draw_lengths(kind: Kind, number: int, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    """Lengths of some samples of a kind."""
    if not kind.median:
        return rng.integers(kind.shortest, kind.longest + 1, number)
    drawn = rng.lognormal(np.log(kind.median), LOG_SPREAD, number)
    return np.clip(drawn, kind.shortest, kind.longest).astype(int)


def step_lengths(shape: Shape, seed: int, scale: float = 1.0) -> dict[str, Int[np.ndarray, "n"]]:
    """Lengths of the samples of a step, by kind; `scale` shortens them all (for tests)."""
    rng = np.random.default_rng(seed)
    return {
        kind.name: np.maximum(1, (draw_lengths(kind, shape.samples, rng) * scale).astype(int))
        for kind in KINDS
    }


def padded_widths(lengths: dict[str, Int[np.ndarray, "n"]]) -> dict[str, int]:
    """Width of each kind's padded batch: its longest sample, rounded up to 16.

    No batch is wider than its kind can be long.
    """
    return {
        kind.name: min(kind.longest, -(-int(lengths[kind.name].max()) // 16) * 16) for kind in KINDS
    }


def useful_flops(lengths: dict[str, Int[np.ndarray, "n"]], shape: Shape) -> float:
    """Floating-point operations of the trunk, forward and backward, that real tokens need.

    A product is two operations; the backward pass is twice the forward. Of attention, only scores
    between tokens of one sample count.
    """
    n = np.concatenate(list(lengths.values())).astype(np.float64)
    linear = n.sum() * (8 + 4 * shape.mlp) * shape.width**2
    attention = 4 * shape.width * (n**2).sum()
    return float(3 * shape.layers * (linear + attention))


def attention_flops(lengths: dict[str, Int[np.ndarray, "n"]], shape: Shape) -> float:
    """The part of `useful_flops` that is attention."""
    n = np.concatenate(list(lengths.values())).astype(np.float64)
    return float(3 * shape.layers * 4 * shape.width * (n**2).sum())
