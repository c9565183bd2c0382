from __future__ import annotations

import json

import numpy as np
import pytest

from tfds_builders.core.variable_genes import GeneDispersion, TrainingGenes


def cells(num_cells: int = 60, num_genes: int = 150, seed: int = 0):
    rng = np.random.default_rng(seed)
    keys = rng.choice(2**31 - 1, num_genes, replace=False)
    rate = rng.lognormal(0.0, 1.5, num_genes)
    spread = rng.lognormal(0.0, 1.0, (num_cells, num_genes)) ** rng.uniform(0, 1.5, num_genes)
    counts = rng.poisson(rate * spread)
    counts[:, :4] = 0
    counts[0, 0] = counts[:2, 1] = 3  # seen in one and in two cells
    counts[:3, 2] = 1  # seen in three
    level = np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4)
    return keys.astype(np.int32), level.astype(np.float32)


def filled(keys, level, order=None) -> GeneDispersion:
    dispersion = GeneDispersion()
    for row in level if order is None else level[order]:
        present = np.flatnonzero(row)
        dispersion.add(keys[present], row[present])
    return dispersion


def reference(keys, level) -> dict[int, float]:
    """Normalised dispersion from the whole matrix, bin by bin."""
    seen = (level > 0).sum(0) >= 3
    keys, x = keys[seen], np.expm1(level[:, seen].astype(float))
    mean, variance = x.mean(0), x.var(0, ddof=1)
    dispersion, log_mean = np.log(variance / mean), np.log1p(mean)
    edges = np.linspace(log_mean.min(), log_mean.max(), 21)
    out = {}
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        first = low == edges[0]
        inside = np.flatnonzero(((log_mean > low) | first) & (log_mean <= high))
        for gene in inside:
            if len(inside) == 1:
                out[int(keys[gene])] = 1.0
            else:
                others = dispersion[inside]
                z = (dispersion[gene] - others.mean()) / others.std(ddof=1)
                out[int(keys[gene])] = float(z)
    return out


def test_equals_the_statistic_of_the_whole_matrix():
    keys, level = cells()
    expected = reference(keys, level)
    assert 100 < len(expected) < 150
    got = dict(zip(*(array.tolist() for array in filled(keys, level).normalised()), strict=True))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert int(keys[0]) not in got and int(keys[1]) not in got and int(keys[2]) in got


def test_ranking():
    keys, level = cells()
    expected = reference(keys, level)
    ranked = filled(keys, level).ranked()
    assert ranked == sorted(expected, key=lambda key: (-round(expected[key], 9), key))
    order = np.random.default_rng(1).permutation(len(level))
    assert filled(keys, level, order).ranked() == ranked


def test_a_gene_that_differs_between_cells_ranks_above_one_that_does_not():
    dispersion = GeneDispersion()
    keys = np.arange(1, 301, dtype=np.int32)
    rng = np.random.default_rng(0)
    for cell in range(50):
        counts = 6.4 * rng.lognormal(0.0, 0.1, 300)
        counts[7] = 6.4 * (1.8 if cell % 2 else 0.2)  # the same mean, so the same bin
        dispersion.add(keys, np.log1p(counts).astype(np.float32))
    assert dispersion.ranked()[0] == 8


def test_equal_levels_and_empty_splits():
    dispersion = GeneDispersion()
    assert dispersion.ranked() == []
    for _ in range(5):
        dispersion.add(np.array([9, 4], np.int32), np.array([1.0, 1.0], np.float32))
    assert dispersion.ranked() == [4, 9]
    assert dispersion.num_cells == 5


def test_illegal_cells():
    dispersion = GeneDispersion()
    with pytest.raises(ValueError, match="one length"):
        dispersion.add(np.array([1, 2], np.int32), np.array([1.0], np.float32))
    for level in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="negative or not finite"):
            dispersion.add(np.array([1], np.int32), np.array([level], np.float32))


def test_parts_of_a_split_add_up():
    keys, level = cells(num_genes=3_000)
    whole, parts = TrainingGenes("log1p"), [TrainingGenes("log1p") for _ in range(3)]
    for i, row in enumerate(level):
        present = np.flatnonzero(row)[i % 2 :: 2] if i < 40 else np.flatnonzero(row)
        record = {"scrna": {"gene_keys": keys[present], "values": row[present]}}
        for genes in (whole, parts[i // 20]):
            genes.add("train", record)
            genes.add("test", {})  # not looked at
    together = whole.empty()
    for part in parts:
        together.include(json.loads(json.dumps(part.state())))
    assert together.dispersion.num_cells == len(level)
    assert together.ranked() == whole.ranked() and len(whole.ranked()) > 2_000
    np.testing.assert_allclose(
        together.dispersion.normalised()[1], whole.dispersion.normalised()[1], rtol=1e-9
    )
