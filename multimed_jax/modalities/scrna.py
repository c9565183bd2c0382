"""Single-cell RNA (scrna.cell): the genes a cell expresses, as a set of (gene, level) parts.

Input: sparse (gene key, value) pairs in the unit that stands beside them. Output: int32 pairs
(gene key, expression bin), most expressed gene first. Levels are natural log1p of counts per
10,000 of the cell: unit "counts" is converted (the total is over all genes of the record), "log1p"
is kept, whatever its source normalised to. "scaled" (z-scores per gene) is refused: it lost the
zeros and depends on the other cells. Values that are not finite or negative are refused too.

    bin 0 padding   bin b: level in ((b-1) * bin_width, b * bin_width]   last bin: all above
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.types import (
    ModalitySpec,
    Parts,
    Preview,
    Record,
    StreamBatch,
    StreamSpec,
    UserError,
)

NAME = "scrna"
STREAM = "scrna.cell"
UNITS = ("counts", "log1p")
COUNTS_PER = 10_000.0
FEATURE_BUCKETS = 2048
PREVIEW_GENES = 20


def gene_key(symbol: str) -> int:
    """Stable 31-bit key of a gene: first 4 bytes (big-endian) of SHA-256 of the upper-cased symbol.

    Upper-casing lets human (`CD3E`) and mouse (`Cd3e`) symbols of orthologues share a key.
    """
    digest = hashlib.sha256(symbol.upper().encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


@dataclasses.dataclass(frozen=True)
class ScrnaOptions:
    """Limits and hashing.

    Attributes:
        max_genes: genes kept of a cell, by expression (ties: lower key first).
        num_bins: expression bins, padding included.
        bin_width: width of a bin in log1p units.
        first_rows: rows of the first hash table; prime.
        second_rows: rows of the second one; another prime.
    """

    max_genes: int = 128
    num_bins: int = 40
    bin_width: float = 0.2
    first_rows: int = 4093
    second_rows: int = 2039

    def __post_init__(self):
        """Raises UserError for limits that leave nothing."""
        if self.max_genes < 1 or self.num_bins < 2 or self.bin_width <= 0:
            raise UserError(
                f"modality {NAME!r} has max_genes {self.max_genes}, num_bins {self.num_bins}, "
                f"bin_width {self.bin_width}; accepted: at least 1, at least 2, above 0"
            )
        if np.gcd(self.first_rows, self.second_rows) != 1 or self.second_rows < 2:
            raise UserError(
                f"modality {NAME!r} has hash tables of {self.first_rows} and {self.second_rows} "
                "rows; accepted: sizes above 1 without a common divisor"
            )


def make_streams(options: ScrnaOptions) -> tuple[StreamSpec, ...]:
    """One stream; its one axis is always 0, because a cell is a set."""
    return (StreamSpec(STREAM, NAME, (2,), 1, "int32"),)


def count(record: Record, options: ScrnaOptions) -> dict[str, int]:
    """Genes with a value other than 0, at most `max_genes`."""
    cell = record.get(NAME)
    number = 0 if cell is None else int(np.count_nonzero(np.asarray(cell["values"])))
    return {STREAM: min(number, options.max_genes)} if number else {}


def log_levels(
    cell: Any,
) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Keys and log1p levels of the genes with a value other than 0, in record order.

    Raises:
        DecodeError: a unit other than `UNITS`; values that are negative or not finite; keys and
            values of different lengths.
    """
    unit = cell["unit"].decode("utf-8") if isinstance(cell["unit"], bytes) else str(cell["unit"])
    if unit not in UNITS:
        raise DecodeError(f"a cell has unit {unit!r}; accepted: {', '.join(UNITS)}")
    keys = np.asarray(cell["gene_keys"], np.int32)
    values = np.asarray(cell["values"], np.float32)
    if keys.shape != values.shape or keys.ndim != 1:
        raise DecodeError(
            f"a cell has {keys.shape} gene keys and {values.shape} values; accepted: two vectors "
            "of one length"
        )
    if values.size and not (np.isfinite(values).all() and values.min() >= 0):
        raise DecodeError(
            "a cell has a negative or non-finite value; accepted: values of at least 0"
        )
    if not values.all():
        present = values > 0
        keys, values = keys[present], values[present]
    if unit == "counts":
        total = max(float(values.sum(dtype=np.float64)), 1e-12)
        values = np.log1p(values * np.float32(COUNTS_PER / total))
    return keys, values


def decode(
    record: Record, options: ScrnaOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """(gene key, bin) of the most expressed genes; empty where the record has no cell.

    Raises:
        DecodeError: as `log_levels`.
    """
    cell = record.get(NAME)
    if cell is None or not len(cell["values"]):
        return {}
    keys, levels = log_levels(cell)
    if not len(keys):
        return {}
    order = np.lexsort((keys, -levels))[: options.max_genes]
    parts = np.empty((len(order), 2), np.int32)
    parts[:, 0] = keys[order]
    bins = np.ceil(levels[order] / np.float32(options.bin_width))
    parts[:, 1] = np.clip(bins, 1, options.num_bins - 1)
    zeros = np.zeros(len(order), np.int32)
    return {STREAM: Parts(parts, np.zeros((len(order), 1), np.float32), zeros)}


class GeneEmbed(nnx.Module):
    """Hashed gene embedding, scaled and shifted by the expression bin.

    A gene is the sum of a row of each of two tables (Svenstrup et al. 2017, "Hash embeddings for
    efficient word representations"); rows are key % V1 and (key // V1) % V2, so two genes share
    both with a chance of about 1 / (V1 * V2), and a gene of any source fits without a vocabulary.
    The gate starts at the level of the bin: the mean token of a cell is then linear in its
    expression from the first step on.
    """

    def __init__(self, d_model: int, options: ScrnaOptions, rngs: nnx.Rngs):
        self.first_rows, self.second_rows = options.first_rows, options.second_rows
        init = nnx.initializers.normal(2**-0.5)
        self.first = nnx.Param(init(rngs.params(), (self.first_rows, d_model), jnp.float32))
        self.second = nnx.Param(init(rngs.params(), (self.second_rows, d_model), jnp.float32))
        level = (np.arange(options.num_bins) - 0.5).clip(0) * options.bin_width
        gate = np.repeat(level[:, None], d_model, axis=1).astype(np.float32)
        self.gate = nnx.Param(jnp.asarray(gate))
        small = nnx.initializers.normal(0.1)
        self.bin = nnx.Param(small(rngs.params(), (options.num_bins, d_model), jnp.float32))

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """One token for each gene."""
        key, level = jnp.asarray(stream.parts)[..., 0], jnp.asarray(stream.parts)[..., 1]
        first = jnp.take(self.first[...], key % self.first_rows, axis=0)
        second = jnp.take(self.second[...], (key // self.first_rows) % self.second_rows, axis=0)
        gate = jnp.take(self.gate[...], level, axis=0)
        return (first + second) * gate + jnp.take(self.bin[...], level, axis=0)


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: ScrnaOptions, rngs: nnx.Rngs
) -> GeneEmbed:
    """Genes to tokens."""
    return GeneEmbed(d_model, options, rngs)


def features(record: Record, options: ScrnaOptions) -> Float[np.ndarray, "2048"]:
    """log1p levels of all genes, summed in buckets key % 2048; zeros without a cell.

    Raises:
        DecodeError: as `log_levels`.
    """
    cell = record.get(NAME)
    if cell is None or not len(cell["values"]):
        return np.zeros(FEATURE_BUCKETS, np.float32)
    keys, levels = log_levels(cell)
    buckets = np.bincount(keys % FEATURE_BUCKETS, weights=levels, minlength=FEATURE_BUCKETS)
    return buckets.astype(np.float32)


def preview(record: Record, options: ScrnaOptions) -> Preview:
    """Levels of the 20 most expressed genes, labelled by the hexadecimal key (names are hashed)."""
    cell = record.get(NAME)
    if cell is None or not len(cell["values"]):
        return Preview("bars", np.zeros(0, np.float32), (), "log1p(counts per 10k)")
    keys, levels = log_levels(cell)
    order = np.lexsort((keys, -levels))[:PREVIEW_GENES]
    labels = tuple(f"{int(key):08x}" for key in keys[order])
    return Preview("bars", levels[order], labels, "log1p(counts per 10k)")


SPEC = ModalitySpec(
    name=NAME,
    id=9,
    spec="multimed_jax.modalities.scrna:SPEC",
    options=ScrnaOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
)
