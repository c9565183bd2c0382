"""The order of draws: bijections, exact counts, prefix consistency."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from multimed_jax.data.mixture import BLOCK, Mixture, hash_words, permute
from multimed_jax.data.sizes import Sizes
from multimed_jax.types import UserError


def sizes(n: int, undrawable: tuple[int, ...] = ()) -> Sizes:
    tokens = np.ones((n, 1), np.int32)
    tokens[list(undrawable)] = 0
    return Sizes(tokens, np.ones((n, 1), bool), np.zeros(n, np.uint64), np.ones(n, np.int32))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 36, 64, 65, 1000, 4097])
def test_permutation_is_a_bijection(size):
    for word in range(5):
        key = np.broadcast_to(hash_words(word), (size,))
        assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permutation_depends_on_its_key_and_scatters():
    key = [np.broadcast_to(hash_words(word), (1000,)) for word in range(2)]
    first, second = (permute(np.arange(1000), 1000, k) for k in key)
    assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.1
    # Neighbours of the input must not stay neighbours.
    assert (np.abs(np.diff(first)) == 1).mean() < 0.02


def test_permutation_of_small_sets_is_close_to_uniform():
    """Over many keys every order of 4 elements turns up about as often (24 orders)."""
    keys = hash_words(np.arange(4800))
    rows = np.stack([permute(np.full(4800, i), 4, keys) for i in range(4)], axis=1)
    counts = np.array(list(collections.Counter(map(tuple, rows.tolist())).values()))
    assert len(counts) == 24
    chi2 = ((counts - 200) ** 2 / 200).sum()
    assert chi2 < 60  # 23 degrees of freedom: mean 23, this is p < 1e-4


def test_a_huge_source_needs_no_table():
    key = np.broadcast_to(hash_words(3), (4096,))
    rows = permute(np.arange(10**9, 10**9 + 4096), 10**9 + 7 + 4096, key)
    assert len(set(rows.tolist())) == 4096
    assert rows.max() > 9 * 10**8 and rows.min() < 10**8


def test_counts_are_exact_over_blocks():
    weights = [0.5, 0.3, 0.1337, 0.0663]
    mixture = Mixture([sizes(50), sizes(7), sizes(3000), sizes(1)], weights, seed=5)
    source, _, draw = mixture.draws(0, 20 * BLOCK)
    np.testing.assert_array_equal(draw, np.arange(20 * BLOCK))
    for blocks in range(1, 21):
        drawn = np.bincount(source[: blocks * BLOCK], minlength=4)
        assert drawn.tolist() == mixture.counts(blocks)
        assert np.all(np.abs(drawn - np.array(weights) * blocks * BLOCK) <= 1)


def test_every_record_once_per_epoch_of_its_source():
    """Also where an epoch spans blocks or a block spans epochs; orders differ between epochs."""
    n = [37, 6001]
    mixture = Mixture([sizes(n[0]), sizes(n[1])], [1, 3], seed=0)
    source, row, _ = mixture.draws(0, 6 * BLOCK)
    for index in range(2):
        rows = row[source == index]
        epochs = [rows[i : i + n[index]] for i in range(0, len(rows) - n[index] + 1, n[index])]
        assert len(epochs) >= 2
        for epoch in epochs:
            assert sorted(epoch.tolist()) == list(range(n[index]))
        assert (epochs[0] != epochs[1]).any()


def test_draws_do_not_depend_on_how_they_are_asked_for():
    def make():
        return Mixture([sizes(101), sizes(13)], [2, 1], seed=9)

    whole = make().draws(0, 3 * BLOCK)
    for start, stop in [(0, 10), (4000, 4200), (4096, 8192), (8000, 12288), (12287, 12288)]:
        part = make().draws(start, stop)
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[start:stop])
    other = Mixture([sizes(101), sizes(13)], [2, 1], seed=10).draws(0, BLOCK)
    assert (other[0] != whole[0][:BLOCK]).any()


def test_sources_are_interleaved_within_a_block():
    source, _, _ = Mixture([sizes(5), sizes(5)], [1, 1], seed=1).draws(0, BLOCK)
    halves = [np.bincount(part)[0] for part in np.split(source, 16)]
    assert min(halves) > 80 and max(halves) < 176  # 128 expected, SD 8


def test_undrawable_records_are_never_drawn():
    source, row, _ = Mixture([sizes(10, (0, 4, 9))], [1], seed=1).draws(0, BLOCK)
    assert set(row.tolist()) == {1, 2, 3, 5, 6, 7, 8}


@pytest.mark.parametrize("weights", [[1.0, 1 / 5000], [1.0, 0.0], [1.0, -1.0]])
def test_a_weight_too_small_is_refused(weights):
    with pytest.raises(UserError, match=r"source 1 .*1/4096"):
        Mixture([sizes(3), sizes(3)], weights, seed=0)


def test_smallest_weight_is_drawn_at_most_once_more_per_block():
    mixture = Mixture([sizes(3), sizes(3)], [4095, 1], seed=0)
    assert [mixture.counts(b)[1] for b in range(6)] == list(range(6))


def test_a_source_without_records_to_draw_is_refused():
    with pytest.raises(UserError, match="source 1 .*no record"):
        Mixture([sizes(3), sizes(2, (0, 1))], [1, 1], seed=0)
