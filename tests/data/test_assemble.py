"""What a batch holds: the packing invariant, items, targets, shares, undecodable records."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from multimed_jax.data.assemble import assemble, empty_batch
from multimed_jax.data.packing import PackPlan, make_layout
from multimed_jax.data.windows import gather_samples, show_modalities
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.types import Batch, UserError
from tests.data.fakes import OTHER, TOY, A, B, FakeSource, Setup, make_setup

CURSOR = np.array([[3, 4]])


def two_sources() -> list[FakeSource]:
    one = FakeSource("one", {"a": [3, 2], "b": [2, 0]}, labels=[2, 1], number=1)
    two = FakeSource("two", {"b": [4]}, tasks=("toy", "other"), labels=[0], number=2)
    return [one, two]


def plan(setup: Setup, layout) -> PackPlan:
    """Row 0: (one, 0) then (two, 0); row 1: (one, 1)."""
    source, row = np.array([0, 1, 0]), np.array([0, 0, 1])
    samples = gather_samples(layout, setup.sizes, source, row, np.array([10, 11, 12]))
    return PackPlan(samples, np.array([0, 0, 1]), np.array([0, 5, 0]))


def make(tmp_path, change=lambda p, layout: p, modalities=(A, B), **arguments) -> Batch:
    setup = make_setup(
        two_sources(), tmp_path, tasks=(TOY, OTHER), lanes=1, row_width=10, modalities=(A, B)
    )
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    values: dict[str, Any] = dict(seed=0, train=False, cursor=CURSOR) | arguments
    return assemble(
        [change(plan(setup, layout), layout)],
        layout,
        setup.sources,
        modalities,
        setup.config.tasks,
        setup.namespaces,
        **values,
    )


def test_a_pack_by_hand(tmp_path):
    batch = make(tmp_path)
    (grid,) = batch.grids
    assert grid.segment_ids[0].tolist() == [[1] * 5 + [2] * 4 + [0], [3] * 2 + [0] * 8]
    assert grid.stream_ids[0].tolist() == [[1] * 3 + [2] * 6 + [0], [1] * 2 + [0] * 8]
    assert grid.positions[0].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0], [0, 1] + [0] * 8]
    assert grid.stream_index[0].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 5, 0], [3, 4] + [0] * 8]
    a, b = batch.streams["a.toy"], batch.streams["b.toy"]
    assert a.segment[0, :6].tolist() == [1, 1, 1, 3, 3, 0]
    assert b.segment[0, :7].tolist() == [1, 1, 2, 2, 2, 2, 0]
    assert a.item[0, :6].tolist() == [1, 1, 1, 2, 2, 0]
    assert a.parts[0, :5, 0].tolist() == [10000] * 3 + [10001] * 2
    assert b.parts[0, :6, 0].tolist() == [10000] * 2 + [20000] * 4
    assert a.parts[0, :5, 2].tolist() == [0, 1, 2, 0, 1]
    assert a.coords.shape[-1] == 2 and a.coords[0, 4].tolist() == [1, 2]
    assert batch.record[0, :4].tolist() == [[0, 0], [1, 0], [0, 1], [-1, -1]]
    assert batch.cursor.tolist() == CURSOR.tolist()


def test_targets_by_hand(tmp_path):
    batch = make(tmp_path)
    toy, other = batch.targets["toy"], batch.targets["other"]
    assert toy.segment[0, :4].tolist() == [1, 2, 3, 0]
    assert toy.value[0, :3].tolist() == [2, 0, 1]
    assert toy.weight[0, :4].tolist() == [1, 1, 1, 0]
    assert toy.namespace[0, :3].tolist() == [0, 1, 0]
    assert toy.modality_share[0, :4].tolist() == [[0.5, 0.5], [0, 1], [1, 0], [0, 0]]
    # "other" has one namespace: index 0 is source two's.
    assert other.segment[0, :2].tolist() == [2, 0] and other.namespace[0, 0] == 0
    assert other.value.dtype == np.int32 and other.weight.dtype == np.float32


def check_invariants(batch: Batch, names: tuple[str, ...]) -> None:
    """Token (g, t) of stream s shows part stream_index[g, t]; written apart from the code."""
    for p in range(len(batch.record)):
        (grid,) = batch.grids
        segments = grid.segment_ids[p]
        used = np.unique(segments[segments > 0])
        for segment in used:
            g, t = np.nonzero(segments == segment)
            assert len(set(g)) == 1 and t.tolist() == list(range(t[0], t[0] + len(t)))
            assert grid.positions[p][g, t].tolist() == list(range(len(t)))
            assert np.all(np.diff(grid.stream_ids[p][g, t]) >= 0)
            assert batch.record[p, segment - 1, 0] >= 0
        assert (batch.record[p, :, 0] >= 0).sum() == len(used)
        for s, name in enumerate(names, 1):
            stream = batch.streams[name]
            g, t = np.nonzero(grid.stream_ids[p] == s)  # in the order of the tokens
            shown = grid.stream_index[p][g, t]
            filled = np.flatnonzero(stream.segment[p])
            assert shown.tolist() == filled.tolist()
            np.testing.assert_array_equal(stream.segment[p][shown], segments[g, t])
            source, row = batch.record[p][segments[g, t] - 1].T
            np.testing.assert_array_equal(stream.parts[p][shown][:, 0], (source + 1) * 10_000 + row)
            item = stream.item[p]
            assert np.all((item > 0) == (stream.segment[p] > 0))
            pairs = {(i, s) for i, s in zip(item[filled], stream.segment[p][filled], strict=True)}
            assert len(pairs) == len({i for i, _ in pairs}), "an item lies in one segment"
        empty = segments == 0
        for field in (grid.stream_ids, grid.positions, grid.stream_index):
            assert not field[p][empty].any()


def test_hidden_modalities_take_no_slots_but_keep_their_share(tmp_path):
    def hide_b(p, layout):
        shown = p.samples.present & np.array([[True, False], [True, True], [True, True]])
        return dataclasses.replace(p, samples=show_modalities(p.samples, shown, layout))

    batch = make(tmp_path, hide_b)
    check_invariants(batch, ("a.toy", "b.toy"))
    assert not (batch.streams["b.toy"].segment == 1).any()
    assert batch.targets["toy"].modality_share[0, 0].tolist() == [0.5, 0.5]


def test_an_undecodable_record_leaves_padding_and_is_told(tmp_path):
    def decode(record, options, rng):
        if record["sample_id"] == b"two-0":
            raise DecodeError("cut off")
        return B.decode(record, options, rng)

    told = []
    batch = make(
        tmp_path,
        modalities=(A, dataclasses.replace(B, decode=decode)),
        on_undecodable=lambda *what: told.append(what),
    )
    assert told == [(1, 0, "cut off")]
    check_invariants(batch, ("a.toy", "b.toy"))
    (grid,) = batch.grids
    assert set(np.unique(grid.segment_ids)) == {0, 1, 3}
    assert batch.record[0, :3].tolist() == [[0, 0], [-1, -1], [0, 1]]
    assert batch.targets["toy"].weight[0, :3].tolist() == [1, 0, 1]
    assert not batch.targets["other"].weight.any()
    b = batch.streams["b.toy"]
    assert b.segment[0, :6].tolist() == [1, 1, 0, 0, 0, 0] and not b.parts[0, 2:].any()


def test_stale_sizes_and_broken_decoders_stop(tmp_path):
    def longer(record, options, rng):
        found = B.decode(record, options, rng)
        return {k: dataclasses.replace(v, parts=np.tile(v.parts, (2, 1))) for k, v in found.items()}

    with pytest.raises(UserError, match="record 0 of 'one' split 'train' has tokens .*stale"):
        make(tmp_path, modalities=(A, dataclasses.replace(B, decode=longer)))

    def broken(record, options, rng):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError) as caught:
        make(tmp_path, modalities=(A, dataclasses.replace(B, decode=broken)))
    assert "record 0 of 'one'" in caught.value.__notes__[0]


def test_decoders_get_a_generator_of_the_draw(tmp_path):
    """In training it is a function of (seed, draw, modality); in evaluation there is none."""
    seen: dict[tuple, float | None] = {}

    def listen(modality):
        def decode(record, options, rng):
            key = modality.name, record["sample_id"]
            seen[key] = None if rng is None else float(rng.random())
            return modality.decode(record, options, rng)

        return dataclasses.replace(modality, decode=decode)

    modalities = listen(A), listen(B)
    make(tmp_path, modalities=modalities, train=True, seed=1)
    first = dict(seen)
    make(tmp_path, modalities=modalities, train=True, seed=1)
    assert seen == first and len(set(first.values())) == len(first) == 4

    def draw_later(p, layout):
        return dataclasses.replace(
            p, samples=dataclasses.replace(p.samples, draw=p.samples.draw + 9)
        )

    make(tmp_path, draw_later, modalities=modalities, train=True, seed=1)
    assert not set(seen.values()) & set(first.values())
    make(tmp_path, modalities=modalities, train=True, seed=2)
    assert not set(seen.values()) & set(first.values())
    make(tmp_path, modalities=modalities, train=False)
    assert set(seen.values()) == {None}


def test_a_pack_of_padding(tmp_path):
    setup = make_setup(two_sources(), tmp_path, tasks=(TOY, OTHER))
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    batch = empty_batch(layout, np.zeros((4, 2), int))
    assert batch.grids[0].segment_ids.shape == (4, 2, 32) and not batch.grids[0].segment_ids.any()
    assert batch.targets["toy"].modality_share.shape == (4, layout.slot_budgets["toy"], 2)
    assert batch.streams["a.toy"].coords.shape == (4, layout.stream_budgets["a.toy"], 2)
    assert (batch.record == -1).all() and batch.record.shape == (4, layout.segments, 2)
