"""The split rule against hand-made cases and random groups."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from multimed_jax.types import UserError
from tfds_builders.core.splits import (
    SPLITS,
    assign_splits,
    hash_fraction,
    hash_split,
    merge_groups,
)


def split(groups, strata=None, fine=None, official=None, mode="group"):
    n = len(groups)
    return assign_splits(
        groups,
        strata or ["a"] * n,
        fine or [None] * n,
        official or [None] * n,
        mode,
        "salt",
    )


def test_hash_split_is_the_stated_hash():
    digest = hashlib.sha256(b"salt\x1fpatient7").hexdigest()
    fraction = int(digest[:12], 16) / 16**12
    assert hash_fraction("patient7", "salt") == fraction
    expected = "train" if fraction < 0.7 else "validation" if fraction < 0.85 else "test"
    assert hash_split("patient7", "salt") == expected


def test_hash_split_shares_are_70_15_15():
    splits = [hash_split(f"group{i}", "salt") for i in range(20_000)]
    shares = [splits.count(name) / len(splits) for name in SPLITS]
    # Three standard errors of a share of 0.15 at n = 20,000 are 0.0076.
    np.testing.assert_allclose(shares, (0.70, 0.15, 0.15), atol=0.01)


def test_many_groups_do_not_depend_on_each_other():
    groups = [f"g{i}" for i in range(100)]
    whole = dict(zip(groups, split(groups).splits, strict=True))
    part = dict(zip(groups[:50], split(groups[:50]).splits, strict=True))
    assert all(whole[name] == part[name] for name in part)


@pytest.mark.parametrize("seed", range(40))
def test_no_group_crosses_and_every_split_is_filled(seed):
    rng = np.random.default_rng(seed)
    num_groups = int(rng.integers(3, 60))
    names = [f"s{seed}-{i}" for i in range(num_groups)]
    # Every group occurs; sizes are uneven.
    groups = names + [str(name) for name in rng.choice(names, size=int(rng.integers(0, 200)))]
    strata = [str(name) for name in rng.choice(["a", "b", "c"], size=len(groups))]
    got = split(groups, strata)
    homes = {}
    for group, where in zip(groups, got.splits, strict=True):
        homes.setdefault(group, set()).add(where)
    assert all(len(where) == 1 for where in homes.values())
    assert set(got.splits) == set(SPLITS)
    assert got.split_mode == "group"
    order = rng.permutation(len(groups))
    shuffled = split([groups[i] for i in order], [strata[i] for i in order])
    assert list(shuffled.splits) == [got.splits[i] for i in order]


def test_stratified_mode_fills_quotas_at_any_number_of_groups():
    """60 groups of one class each, 24 and 36: every split has its share of either, to one group."""
    groups = [f"g{i}" for i in range(60) for _ in range(5)]
    strata = ["a" if i < 24 else "b" for i in range(60) for _ in range(5)]
    none = [None] * len(groups)
    found = assign_splits(groups, strata, none, none, "stratified", "salt")
    table = dict(zip(groups, found.splits, strict=True))
    assert all(table[g] == s for g, s in zip(groups, found.splits, strict=True))
    for lot, number in ((range(24), 24), (range(24, 60), 36)):
        for split, share in (("train", 0.7), ("validation", 0.15), ("test", 0.15)):
            held = sum(table[f"g{i}"] == split for i in lot)
            assert abs(held - share * number) <= 1


def test_quotas_are_stratified_by_class():
    # 20 groups of one record each, 10 per class: 70/15/15 of 10 is 7 and 1.5 and 1.5.
    groups = [f"g{i}" for i in range(20)]
    strata = ["a"] * 10 + ["b"] * 10
    got = split(groups, strata)
    for name in ("a", "b"):
        where = [s for s, stratum in zip(got.splits, strata, strict=True) if stratum == name]
        assert where.count("train") == 7
        assert {where.count("validation"), where.count("test")} == {1, 2}


def test_a_class_of_one_group_goes_to_train():
    groups = [f"g{i}" for i in range(10)]
    strata = ["common"] * 9 + ["rare"]
    assert split(groups, strata).splits[-1] == "train"


def test_three_groups_fill_three_splits():
    got = split(["a", "a", "a", "b", "c"])
    assert len({got.splits[0], got.splits[3], got.splits[4]}) == 3


def test_two_groups_need_a_finer_key():
    groups = ["s1"] * 6 + ["s2"] * 6
    with pytest.raises(UserError, match="2 group"):
        split(groups)
    fine = [f"s{1 + i // 6}/run{i % 6}" for i in range(12)]
    got = split(groups, fine=fine)
    assert got.split_mode == "within_group"
    assert got.groups == tuple(fine)
    assert set(got.splits) == set(SPLITS)


def test_official_mode_refuses_a_patient_in_two_splits_and_names_it():
    groups = ["p1", "p2", "p1", "p3"]
    with pytest.raises(UserError, match=r"1 group\(s\).*p1 in test and train"):
        split(groups, official=["train", "train", "test", "test"], mode="official")


def test_official_mode_cuts_validation_from_training_groups():
    groups = [f"g{i // 2}" for i in range(400)]
    official = ["train"] * 300 + ["test"] * 100
    got = split(groups, official=official, mode="official")
    assert got.splits[300:] == ("test",) * 100
    share = got.splits[:300].count("validation") / 300
    assert 0.08 < share < 0.28  # 15/85 = 0.176 of 150 groups
    assert all(got.splits[i] == got.splits[i + 1] for i in range(0, 400, 2))


def test_official_mode_keeps_a_published_validation_split():
    official = ["train", "validation", "test", "train"]
    got = split(["a", "b", "c", "d"], official=official, mode="official")
    assert list(got.splits) == official


@pytest.mark.parametrize("bad", [None, "val"])
def test_official_mode_refuses_an_unknown_split(bad):
    with pytest.raises(UserError, match="accepted: train, validation, test"):
        split(["a", "b"], official=["train", bad], mode="official")


def test_unknown_mode():
    with pytest.raises(UserError, match="'random'.*accepted: group, stratified, official"):
        split(["a"], mode="random")


def test_merge_groups_unites_chains():
    groups = ["d", "c", "b", "a", "x", "c"]
    #          d-c, c-b link three groups; a and x stay
    assert merge_groups(groups, [(0, 1), (5, 2)]) == ["b", "b", "b", "a", "x", "b"]
