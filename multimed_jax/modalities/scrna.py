"""Single-cell RNA (scrna.cell): the genes a cell expresses, as a set of (gene, level) parts.

Input: sparse (gene key, value) pairs in the unit that stands beside them. Output: int32 pairs
(gene key, expression bin), most expressed gene first. Levels are natural log1p of counts per
10,000 of the cell: unit "counts" is converted (the total is over all genes of the record), "log1p"
is kept, whatever its source normalised to. "scaled" (z-scores per gene) is refused: it lost the
zeros and depends on the other cells. Values that are not finite or negative are refused too.

    bin 0 padding   bin b: level in ((b-1) * bin_width, b * bin_width]   last bin: all above

A cell shows at most `max_genes` genes. With select="top" those are its most expressed ones; with
"variable" only highly variable genes count at all, `num_variable` of them, chosen on the training
splits alone: every source's metadata ranks its own by dispersion ("highly_variable"), and `fit`
takes turns between the sources. A cell that expresses none of them lacks the modality. Genes may
come in any order; the same gene twice is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.gene_embed import GeneEmbed
from multimed_jax.specs import ModalitySpec, StreamSpec
from multimed_jax.types import Parts, Preview, Record, UserError

NAME = "scrna"
STREAM = "scrna.cell"
UNITS = ("counts", "log1p")
SELECTIONS = ("top", "variable")
# Where the metadata of a source rank its genes, the most variable first (by key).
METADATA_KEY = "highly_variable"
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
        max_genes: genes kept of a cell, by expression (ties: lower key first); may be thousands.
        num_bins: expression bins, padding included.
        bin_width: width of a bin in log1p units.
        first_rows: rows of the first hash table; prime.
        second_rows: rows of the second one; another prime.
        select: "top" or "variable", see the module's docstring.
        num_variable: how many highly variable genes `fit` chooses.
        variable_genes: their keys; `fit` fills them in, and keeps those that are given.
    """

    max_genes: int = 128
    num_bins: int = 40
    bin_width: float = 0.2
    first_rows: int = 4093
    second_rows: int = 2039
    select: Literal["top", "variable"] = "top"
    num_variable: int = 2000
    variable_genes: tuple[int, ...] = ()

    def __post_init__(self):
        """Raises UserError for a choice that is none, and limits that leave nothing."""
        if self.select not in SELECTIONS or self.num_variable < 1:
            raise UserError(
                f"modality {NAME!r} has select {self.select!r} and num_variable "
                f"{self.num_variable}; accepted: {', '.join(SELECTIONS)}, and at least 1"
            )
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


def fit(options: ScrnaOptions, metadata: Sequence[Mapping[str, Any]]) -> ScrnaOptions:
    """Chooses the highly variable genes from the rankings of the training sources, in turn.

        source a   5 8 2        num_variable = 4        chosen   5 7 8 2
        source b   7 5 9

    Raises:
        UserError: where a source of cells has no ranking, or there is no source of cells.
    """
    if options.select != "variable" or options.variable_genes:
        return options
    rankings = []
    for source in metadata:
        if "modalities" in source and NAME not in source["modalities"]:
            continue
        if METADATA_KEY not in source or not len(source[METADATA_KEY]):
            raise UserError(
                f"source {source['namespace']!r} has no {METADATA_KEY!r} in its metadata, which "
                f"modality {NAME!r} with select='variable' chooses genes from; build it again with "
                "a builder that ranks genes, or set select='top'"
            )
        rankings.append([int(key) for key in source[METADATA_KEY]])
    if not rankings:
        raise UserError(
            f"modality {NAME!r} has select='variable', and no source of the run holds cells; "
            "accepted: at least one, or select='top'"
        )
    # A dict keeps the first place of each gene.
    turns = dict.fromkeys(key for turn in zip_longest(*rankings) for key in turn if key is not None)
    return dataclasses.replace(options, variable_genes=tuple(turns)[: options.num_variable])


@functools.lru_cache(maxsize=8)
def _sorted_keys(genes: tuple[int, ...]) -> Int[np.ndarray, "v"]:
    return np.sort(np.array(genes, np.int32))


def selected(keys: Int[np.ndarray, "k"], options: ScrnaOptions) -> Bool[np.ndarray, "k"]:
    """Which genes may be shown.

    Raises:
        UserError: where variable genes are asked for and `fit` has not chosen any.
    """
    if options.select == "top":
        return np.ones(len(keys), bool)
    if not options.variable_genes:
        raise UserError(
            f"modality {NAME!r} has select='variable' and no variable_genes; accepted: the keys "
            "that a run chooses from its training sources"
        )
    chosen = _sorted_keys(options.variable_genes)
    place = np.minimum(np.searchsorted(chosen, keys), len(chosen) - 1)
    return chosen[place] == keys


def count(record: Record, options: ScrnaOptions) -> dict[str, int]:
    """Selected genes with a value other than 0, at most `max_genes`."""
    cell = record.get(NAME)
    if cell is None:
        return {}
    values, keys = np.asarray(cell["values"]), np.asarray(cell["gene_keys"])
    if options.select == "top":
        number = int(np.count_nonzero(values))
    elif keys.shape == values.shape:
        number = int(np.count_nonzero(selected(keys, options) & (values != 0)))
    else:  # cannot be decoded: it lies as an empty place, and is counted there
        number = 1
    return {STREAM: min(number, options.max_genes)} if number else {}


def log_levels(
    cell: Any,
) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Keys and log1p levels of the genes with a value other than 0, in record order.

    Raises:
        DecodeError: a unit other than `UNITS`; values that are negative or not finite; keys and
            values of different lengths; a key that is negative or comes twice.
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
    if keys.size and (keys.min() < 0 or not _are_distinct(keys)):
        raise DecodeError(
            "a cell has a gene key that is negative or comes twice; accepted: each gene once"
        )
    if not values.all():
        present = values > 0
        keys, values = keys[present], values[present]
    if unit == "counts":
        total = max(float(values.sum(dtype=np.float64)), 1e-12)
        values = np.log1p(values * np.float32(COUNTS_PER / total))
    return keys, values


def _are_distinct(keys: Int[np.ndarray, "k"]) -> bool:
    if (keys[1:] > keys[:-1]).all():  # as most sources store them
        return True
    ordered = np.sort(keys)
    return bool((ordered[1:] > ordered[:-1]).all())


def decode(
    record: Record, options: ScrnaOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """(gene key, bin) of the most expressed of the selected genes; empty where there is none.

    Raises:
        DecodeError: as `log_levels`.
    """
    cell = record.get(NAME)
    if cell is None or not len(cell["values"]):
        return {}
    keys, levels = log_levels(cell)
    # Levels first: the total of counts is over all genes, shown or not.
    chosen = selected(keys, options)
    keys, levels = keys[chosen], levels[chosen]
    if not len(keys):
        return {}
    order = np.lexsort((keys, -levels))[: options.max_genes]
    parts = np.empty((len(order), 2), np.int32)
    parts[:, 0] = keys[order]
    bins = np.ceil(levels[order] / np.float32(options.bin_width))
    parts[:, 1] = np.clip(bins, 1, options.num_bins - 1)
    zeros = np.zeros(len(order), np.int32)
    return {STREAM: Parts(parts, np.zeros((len(order), 1), np.float32), zeros)}


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: ScrnaOptions, rngs: nnx.Rngs
) -> GeneEmbed:
    """Genes to tokens."""
    # The level in the middle of each bin.
    levels = (np.arange(options.num_bins) - 0.5).clip(0) * options.bin_width
    return GeneEmbed(levels, options.first_rows, options.second_rows, d_model, rngs)


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
    fit=fit,
)
