"""Highly variable genes of a training split, ranked in one pass over its cells.

The statistic is normalised dispersion in the "seurat" flavour of Seurat (Satija et al. 2015) and
scanpy (Wolf et al. 2018): of levels x = expm1(log1p level), counts per 10,000, zeros included,

    dispersion = log(variance / mean), variance with n - 1
    genes fall into 20 bins of equal width by log1p(mean)
    normalised = (dispersion - mean of the bin) / deviation of the bin (with n - 1)

A gene alone in its bin has normalised dispersion 1: its bin has no deviation. Genes seen in fewer
than 3 cells are left out before binning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

NUM_BINS = 20
LEAST_CELLS = 3
COUNTS_PER = 10_000.0
_SUM, _SQUARES, _CELLS = range(3)
_TINY_MEAN = 1e-12


class GeneDispersion:
    """Sums of every gene over the cells of a split, and the ranking that follows from them.

    Memory grows with the number of genes, not of cells. The order of the cells does not matter.
    """

    def __init__(self) -> None:
        self.num_cells = 0
        self._row: dict[int, int] = {}
        self._sums = np.zeros((3, 1024))

    def add(self, gene_keys: Int[np.ndarray, "k"], levels: Float[np.ndarray, "k"]) -> None:
        """Counts one cell: its genes (each once) and their log1p levels; the rest are 0.

        Raises:
            ValueError: where keys and levels differ in length, or a level is negative or not
                finite.
        """
        if gene_keys.shape != levels.shape or gene_keys.ndim != 1:
            raise ValueError(
                f"a cell has {gene_keys.shape} gene keys and {levels.shape} levels; accepted: two "
                "vectors of one length"
            )
        if levels.size and not (np.isfinite(levels).all() and levels.min() >= 0):
            raise ValueError("a cell has a level that is negative or not finite")
        self.num_cells += 1
        present = levels > 0
        rows = self._rows(gene_keys[present])
        level = np.expm1(levels[present].astype(np.float64))
        self._sums[_SUM, rows] += level
        self._sums[_SQUARES, rows] += level**2
        self._sums[_CELLS, rows] += 1

    def add_counts(self, gene_keys: Int[np.ndarray, "k"], counts: Float[np.ndarray, "k"]) -> None:
        """Counts one cell given as reads: levels are log1p of reads per 10,000."""
        values = counts.astype(np.float64)
        self.add(gene_keys, np.log1p(values * (COUNTS_PER / values.sum())))

    def state(self) -> dict[str, Any]:
        """The sums, in values that JSON keeps; `include` takes them."""
        sums = self._sums[:, : len(self._row)]
        return {"num_cells": self.num_cells, "keys": list(self._row), "sums": sums.tolist()}

    def include(self, state: Mapping[str, Any]) -> None:
        """Counts the cells that another one did."""
        self.num_cells += state["num_cells"]
        rows = self._rows(state["keys"])  # may put wider sums in place
        self._sums[:, rows] += np.asarray(state["sums"], np.float64)

    def ranked(self) -> list[int]:
        """Gene keys, the most variable first; ties go to the lower key."""
        keys, normalised = self.normalised()
        return [int(key) for key in keys[np.lexsort((keys, -normalised))]]

    def _rows(self, keys: Iterable[Any]) -> Int[np.ndarray, "k"]:
        rows = np.array([self._row.setdefault(int(key), len(self._row)) for key in keys], np.int64)
        if len(self._row) > self._sums.shape[1]:
            wider = np.zeros((3, 2 * len(self._row)))
            wider[:, : self._sums.shape[1]] = self._sums
            self._sums = wider
        return rows

    def normalised(self) -> tuple[Int[np.ndarray, "g"], Float[np.ndarray, "g"]]:
        """Keys of the genes seen in at least 3 cells, ascending, and normalised dispersions."""
        all_keys = np.array(list(self._row), np.int64)
        sums = self._sums[:, : len(all_keys)]
        order = np.argsort(all_keys)
        order = order[sums[_CELLS, order] >= LEAST_CELLS]
        keys, sums = all_keys[order], sums[:, order]
        if not len(keys):
            return keys, np.zeros(0)
        mean = np.maximum(sums[_SUM] / self.num_cells, _TINY_MEAN)
        spread = np.maximum(sums[_SQUARES] - self.num_cells * mean**2, 0.0)
        variance = spread / max(self.num_cells - 1, 1)
        # Equal in all cells: not variable, and without a logarithm.
        varies = variance > _TINY_MEAN * mean**2
        dispersion = np.full(len(keys), -np.inf)
        dispersion[varies] = np.log(variance[varies] / mean[varies])
        out = np.full(len(keys), -np.inf)
        out[varies] = _within_bins(np.log1p(mean), dispersion, varies)
        return keys, out


class TrainingGenes:
    """`GeneDispersion` of the training records, as `tally.Statistics`.

    Attributes:
        dispersion: of their cells.
    """

    def __init__(self, unit: Literal["counts", "log1p"]) -> None:
        """`unit` is that of the records."""
        self._unit: Literal["counts", "log1p"] = unit
        self.dispersion = GeneDispersion()

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts the cell of a training record."""
        if split != "train":
            return
        cell = record["scrna"]
        add = self.dispersion.add_counts if self._unit == "counts" else self.dispersion.add
        add(cell["gene_keys"], cell["values"])

    def empty(self) -> TrainingGenes:
        """One of the same unit that has counted no cell."""
        return TrainingGenes(self._unit)

    def state(self) -> dict[str, Any]:
        """As of `GeneDispersion`."""
        return self.dispersion.state()

    def include(self, state: Mapping[str, Any]) -> None:
        """As of `GeneDispersion`."""
        self.dispersion.include(state)

    def ranked(self) -> list[int]:
        """Gene keys, the most variable first."""
        return self.dispersion.ranked()


def _within_bins(
    log_mean: Float[np.ndarray, "g"], dispersion: Float[np.ndarray, "g"], varies: np.ndarray
) -> Float[np.ndarray, "v"]:
    """Dispersions of the genes that vary, normalised by their bin; bins span all genes."""
    edges = np.linspace(log_mean.min(), log_mean.max(), NUM_BINS + 1)
    # A gene on an inner edge belongs to the bin below it, the lowest gene to the first bin.
    place = np.searchsorted(edges[1:-1], log_mean[varies], side="left")
    dispersion = dispersion[varies]
    number = np.bincount(place, minlength=NUM_BINS)
    mean = np.bincount(place, dispersion, NUM_BINS) / np.maximum(number, 1)
    squares = np.bincount(place, (dispersion - mean[place]) ** 2, NUM_BINS)
    deviation = np.sqrt(squares / np.maximum(number - 1, 1))
    alone = (number == 1) | (deviation == 0)
    centre = np.where(alone, 0.0, mean)[place]
    scale = np.where(alone, mean, deviation)[place]
    return np.where(scale == 0, 0.0, (dispersion - centre) / np.where(scale == 0, 1.0, scale))
