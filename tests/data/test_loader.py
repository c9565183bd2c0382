"""Streams: the same for any threads and processes, exact on resume, each test record once."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from multimed_jax.data.loader import EvalLoader, TrainLoader, batch_fill
from multimed_jax.data.mixture import BLOCK
from multimed_jax.data.packing import Layout, make_layout
from multimed_jax.data.windows import TrainWindows, drop_modalities
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.types import Batch, UserError
from tests.data.fakes import (
    A,
    B,
    FakeSource,
    Setup,
    assert_same,
    make_setup,
    records_of,
    toy_sources,
)
from tests.data.test_assemble import check_invariants

STREAMS = ("a.toy", "b.toy")


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    folder = tmp_path_factory.mktemp("sizes")
    return make_setup(toy_sources(), folder, weights=[3, 2, 1], modality_dropout=0.3)


@pytest.fixture(scope="module")
def layout(setup) -> Layout:
    return make_layout(setup.config, setup.sources, setup.sizes)


def loader(setup: Setup, layout: Layout, cursor=None, lanes=None, **data) -> TrainLoader:
    config = dataclasses.replace(setup.config, data=dataclasses.replace(setup.config.data, **data))
    return TrainLoader(config, layout, setup.sources, setup.sizes, setup.namespaces, cursor, lanes)


def take(batches, n: int) -> list[Batch]:
    found = list(itertools.islice(batches, n))
    batches.close()
    return found


def test_batches_keep_the_invariants(setup, layout):
    for batch in take(loader(setup, layout), 12):
        check_invariants(batch, STREAMS)
        for slots in batch.targets.values():
            filled = slots.weight > 0
            assert np.all((slots.segment > 0) == filled)
            np.testing.assert_allclose(slots.modality_share[filled].sum(-1), 1)


def test_the_stream_is_the_planned_order(setup, layout):
    """Lane p consumes windows p, p + P, ...: every draw of a window exactly once, no other."""
    windows = TrainWindows(setup.config, layout, setup.sizes)
    batches = take(loader(setup, layout), 40)
    for lane in range(4):
        packs = [pack for w in (lane, lane + 4, lane + 8) for pack in windows.plan(w)]
        found = [[tuple(pair) for pair in batch.record[lane] if pair[0] >= 0] for batch in batches][
            : len(packs)
        ]
        planned = [
            list(zip(p.samples.source.tolist(), p.samples.row.tolist(), strict=True)) for p in packs
        ]
        assert found == planned[: len(found)] and len(found) > 5
        draws = np.concatenate([p.samples.draw for p in windows.plan(lane)])
        assert sorted(draws.tolist()) == list(range(lane * 64, lane * 64 + 64))


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 2), (4, 0), (4, 3)])
def test_threads_and_prefetching_change_nothing(setup, layout, threads, prefetch):
    want = take(loader(setup, layout, prefetch=0), 10)
    got = take(loader(setup, layout, threads=threads, prefetch=prefetch), 10)
    for a, b in zip(want, got, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("lanes", [[range(0, 2), range(2, 4)], [range(0, 4, 2), range(1, 4, 2)]])
def test_two_processes_give_the_batches_of_one(setup, layout, lanes):
    import jax

    whole = take(loader(setup, layout), 10)
    parts = [take(loader(setup, layout, lanes=mine), 10) for mine in lanes]
    for want, *got in zip(whole, *parts, strict=True):
        for mine, part in zip(lanes, got, strict=True):
            assert_same(jax.tree.map(lambda x: x[list(mine)], want), part)  # noqa: B023


def test_resuming_anywhere_gives_the_same_rest(setup, layout):
    batches = take(loader(setup, layout), 30)
    mid_window = [i for i, b in enumerate(batches) if (b.cursor[:, 1] > 0).all()]
    at_an_edge = [i for i, b in enumerate(batches) if (b.cursor[:, 1] == 0).any()]
    assert mid_window and at_an_edge
    for i in (0, mid_window[0], mid_window[-1], at_an_edge[0], at_an_edge[-1] - 1):
        rest = take(loader(setup, layout, cursor=batches[i].cursor, threads=2), 29 - i)
        for a, b in zip(batches[i + 1 :], rest, strict=False):
            assert_same(a, b)


def test_resuming_at_the_edge_of_an_epoch(tmp_path):
    """A window equals an epoch of the only source: the cursor stands between two epochs."""
    source = FakeSource("one", {"a": [1 + i % 7 for i in range(64)]}, number=1)
    setup = make_setup([source], tmp_path, lanes=1)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    batches = take(loader(setup, layout), 40)
    edges = [i for i, b in enumerate(batches) if b.cursor[0].tolist() == [1, 0]]
    (edge,) = edges
    first = [pair for b in batches[: edge + 1] for pair in records_of(b)]
    assert sorted(first) == [(0, row) for row in range(64)]
    rest = take(loader(setup, layout, cursor=batches[edge].cursor), 39 - edge)
    for a, b in zip(batches[edge + 1 :], rest, strict=True):
        assert_same(a, b)


def test_a_data_state_of_another_run_is_refused(setup, layout):
    with pytest.raises(UserError, match=r"shape \(3, 2\).*lanes is 4"):
        loader(setup, layout, cursor=np.zeros((3, 2), int))
    bad = np.array([[0, 99], [1, 0], [2, 0], [3, 0]])
    with pytest.raises(UserError, match="pack 99 of window 0"):
        next(loader(setup, layout, cursor=bad))


def test_the_mixture_of_the_stream_follows_the_weights(setup, layout):
    windows = TrainWindows(setup.config, layout, setup.sizes)
    source = np.concatenate([p.samples.source for w in range(BLOCK // 64) for p in windows.plan(w)])
    assert np.bincount(source).tolist() == [2048, 1365, 683]


def test_dropout_hides_but_never_all():
    rng = np.random.default_rng(0)
    present = rng.random((5000, 3)) < 0.7
    present[~present.any(axis=1), 1] = True
    draw = np.arange(5000)
    shown = drop_modalities(present, draw, 3, 0.4)
    assert np.all(shown <= present) and shown.any(axis=1).all()
    alone = present.sum(axis=1) == 1
    np.testing.assert_array_equal(shown[alone], present[alone])
    three = shown[present.all(axis=1)]
    # Each of three is hidden with 0.4, but one returns where all would be: 0.4 - 0.4**3 / 3.
    np.testing.assert_allclose(1 - three.mean(axis=0), 0.4 - 0.064 / 3, atol=0.05)
    assert drop_modalities(present, draw, 3, 0.0) is present
    every = drop_modalities(present, draw, 3, 1.0)
    assert (every.sum(axis=1) == 1).all()
    # A function of (seed, draw), not of the place in the call.
    back = drop_modalities(present[::-1], draw[::-1], 3, 0.4)[::-1]
    np.testing.assert_array_equal(back, shown)
    assert (drop_modalities(present, draw, 4, 0.4) != shown).any()


def test_dropout_reaches_the_stream(setup, layout):
    """Samples of source three have both modalities; some of them show one, with shares of 1/2."""
    seen = set()
    for batch in take(loader(setup, layout), 30):
        toy = batch.targets["toy"]
        for p, k in zip(*np.nonzero(toy.weight), strict=True):
            segment = toy.segment[p, k]
            source, row = batch.record[p, segment - 1]
            if source == 2 and setup.sizes[2].tokens[row].all():
                has = [bool((batch.streams[n].segment[p] == segment).any()) for n in STREAMS]
                seen.add(tuple(has))
                assert toy.modality_share[p, k].tolist() == [0.5, 0.5]
    assert seen == {(True, True), (True, False), (False, True)}


def test_undecodable_records_are_counted_once(tmp_path):
    def decode(record, options, rng):
        if record["sample_id"] in (b"one-3", b"one-9"):
            raise DecodeError("cut off")
        return A.decode(record, options, rng)

    modalities = (dataclasses.replace(A, decode=decode), B)
    setup = make_setup(toy_sources(), tmp_path, modalities=modalities)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    batches = loader(setup, layout, threads=3)
    for _ in range(40):
        batch = next(batches)
        check_invariants(batch, STREAMS)
        assert not {(0, 3), (0, 9)} & set(records_of(batch))
    assert batches.quarantined == 2
    assert batches.quarantine == {("one", 3): "cut off", ("one", 9): "cut off"}
    batches.close()


def test_errors_of_a_reading_thread_reach_the_caller(tmp_path):
    class Gone(FakeSource):
        def __getitem__(self, row, /):
            if self.armed:
                raise UserError(f"record {row} cannot be read")
            return super().__getitem__(row)

        armed = False

    source = Gone("one", {"a": [3] * 20})
    setup = make_setup([source], tmp_path, threads=2)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    source.armed = True
    with pytest.raises(UserError, match="cannot be read"):
        next(loader(setup, layout, threads=2))


# -------------------------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> Setup:
    return make_setup(
        toy_sources("test", scale=3), tmp_path_factory.mktemp("sizes"), weights=[3, 2, 1]
    )


def test_every_record_exactly_once(setup, held_out):
    layout = make_layout(setup.config, setup.sources, setup.sizes, [held_out])
    batches = EvalLoader(
        held_out.config, layout, held_out.sources, held_out.sizes, setup.namespaces
    )
    found: list[Batch] = []
    records: list[tuple[int, int]] = []
    for _ in range(2):  # each iteration starts anew
        found = list(batches)
        assert len(found) == len(batches)
        records = sorted(pair for batch in found for pair in records_of(batch))
        drawable = [
            (s, int(r))
            for s, size in enumerate(held_out.sizes)
            for r in size.drawable_row(np.arange(size.num_drawable))
        ]
        assert records == drawable and len(records) == batches.num_records
    for batch in found:
        check_invariants(batch, STREAMS)
        assert batch.grids[0].segment_ids.shape == (4, 2, 32)
    # Whole batches: the last is padded with packs of weight 0.
    weights = [float(batch.targets["toy"].weight.sum()) for batch in found]
    assert sum(weights) == len(records)


def test_several_processes_share_an_evaluation(setup, layout, held_out):
    layout = make_layout(setup.config, setup.sources, setup.sizes, [held_out])
    arguments = (held_out.config, layout, held_out.sources, held_out.sizes, setup.namespaces)
    parts = [EvalLoader(*arguments, lanes=mine) for mine in (range(0, 2), range(2, 4))]
    assert len({len(part) for part in parts}) == 1
    halves = [[pair for batch in part for pair in records_of(batch)] for part in parts]
    whole = sorted(pair for batch in EvalLoader(*arguments) for pair in records_of(batch))
    assert sorted(halves[0] + halves[1]) == whole and not set(halves[0]) & set(halves[1])


def test_keep_leaves_out_what_has_none_of_it(setup, held_out):
    layout = make_layout(setup.config, setup.sources, setup.sizes, [held_out])
    batches = EvalLoader(
        held_out.config,
        layout,
        held_out.sources,
        held_out.sizes,
        setup.namespaces,
        frozenset({"b"}),
    )
    found = list(batches)
    tokens = [size.tokens for size in held_out.sizes]
    want = [(s, r) for s in range(3) for r in range(len(tokens[s])) if tokens[s][r, 1]]
    assert sorted(pair for batch in found for pair in records_of(batch)) == want
    for batch in found:
        assert not batch.streams["a.toy"].segment.any()
        filled = batch.targets["toy"].weight > 0
        assert np.all(batch.targets["toy"].modality_share[filled] == [0, 1])
    with pytest.raises(UserError, match="no modality 'c' is configured; accepted: a, b"):
        EvalLoader(
            held_out.config,
            layout,
            held_out.sources,
            held_out.sizes,
            setup.namespaces,
            frozenset({"c"}),
        )


def test_a_limit_takes_the_same_few_records_for_every_seed(setup, held_out):
    layout = make_layout(setup.config, setup.sources, setup.sizes, [held_out])

    def records(seed: int) -> list[tuple[int, int]]:
        config = dataclasses.replace(held_out.config, seed=seed)
        batches = EvalLoader(
            config, layout, held_out.sources, held_out.sizes, setup.namespaces, limit=20
        )
        return sorted(pair for batch in batches for pair in records_of(batch))

    first = records(0)
    assert [sum(s == n for s, _ in first) for n in range(3)] == [20, 20, 20]
    assert len(set(first)) == 60 and records(1) == first
    assert [r for s, r in first if s == 0] != list(range(20))


def test_fill_of_a_batch(setup, layout):
    (batch,) = take(loader(setup, layout), 1)
    fill = batch_fill(batch, layout)
    assert set(fill) == {"token", "stream/a.toy", "stream/b.toy"}
    assert fill["token"] == (batch.grids[0].stream_ids > 0).sum() / (4 * 2 * 32)
    slots = 4 * layout.stream_budgets["a.toy"]
    shown = (batch.grids[0].stream_ids == 1).sum()
    assert fill["stream/a.toy"] == pytest.approx(shown / slots)


@pytest.mark.parametrize("window", [512, 4096])
def test_a_token_fill_of_nine_tenths_in_the_stream(tmp_path, window):
    """Eight packs a window are enough; of two or three, one that is half full costs too much."""
    setup = make_setup(toy_sources(scale=4), tmp_path, rows=8, row_width=64, window=window)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    fills = [batch_fill(batch, layout)["token"] for batch in take(loader(setup, layout), 24)]
    assert np.mean(fills) >= 0.9


def test_plans_of_a_window_are_made_once(setup, layout, monkeypatch):
    planned = []
    plan = TrainWindows.plan

    def counting(self, window):
        planned.append(window)
        return plan(self, window)

    monkeypatch.setattr(TrainWindows, "plan", counting)
    take(loader(setup, layout, prefetch=0), 30)
    assert len(planned) == len(set(planned)) and set(range(4)) <= set(planned)


def test_reading_runs_in_parallel(tmp_path):
    """Reads wait until four of them are under way at once (the order of the batch stays)."""
    together, inside, lock = threading.Event(), [], threading.Lock()

    class Slow(FakeSource):
        waits = False

        def __getitem__(self, row, /):
            if self.waits:
                with lock:
                    inside.append(row)
                    if len(inside) == 4:
                        together.set()
                assert together.wait(60), "never four at once"
            return super().__getitem__(row)

    source = Slow("one", {"a": [8] * 20})
    setup = make_setup([source], tmp_path)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    source.waits = True
    batches = loader(setup, layout, threads=8, prefetch=0)
    assert len(records_of(next(batches))) >= 4
    batches.close()
