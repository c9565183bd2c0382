"""Invariants of plans on random inputs, fill on a realistic mixture, budgets by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from multimed_jax.data.packing import Layout, PackPlan, Samples, make_layout, plan_fill, plan_window
from multimed_jax.specs import StreamSpec
from multimed_jax.types import UserError
from tests.data.fakes import A, B, FakeSource, make_setup
from tests.toy import make_toy_task


def make_samples(tokens: np.ndarray, has_target: np.ndarray) -> Samples:
    k = len(tokens)
    numbers = np.arange(k)
    whole, first = np.zeros(len(numbers), bool), np.zeros(len(numbers), int)
    present = tokens > 0
    return Samples(numbers % 3, numbers, numbers + 1000, tokens, has_target, present, whole, first)


def layout_for(
    samples: Samples, rows: int, width: int, slack: float, tasks: int, lanes: int = 1
) -> Layout:
    """Budgets at `slack` times the mean share, as `make_layout` sets them."""
    tokens = samples.tokens
    per_pack = rows * width / tokens.sum(axis=1).mean() * slack
    names = [f"s{i}" for i in range(tokens.shape[1])]

    def up(value: float) -> int:
        return int(-(-value // 8) * 8)

    typical = [np.mean(column[column > 0]) for column in tokens.T]
    budgets = {
        name: up(max(column.max(), np.ceil(column.mean() * per_pack / t) * t))
        for name, column, t in zip(names, tokens.T, typical, strict=True)
    }
    specs = tuple(make_toy_task(f"t{i}") for i in range(tasks))
    return Layout(
        streams=tuple(StreamSpec(n, n, (1,), 1, "float32") for n in names),
        tasks=specs,
        modality_names=tuple(names),
        stream_modality=tuple(range(len(names))),
        lanes=lanes,
        rows=rows,
        row_width=width,
        stream_budgets=budgets,
        slot_budgets={
            t.name: up(samples.has_target[:, i].mean() * per_pack) for i, t in enumerate(specs)
        },
        segments=up(per_pack),
        target_shapes={t.name: () for t in specs},
    )


def check_plans(plans: list[PackPlan], samples: Samples, layout: Layout) -> None:
    """Every sample in exactly one place; no row overflows or overlaps; budgets are kept."""
    drawn = np.concatenate([plan.samples.draw for plan in plans])
    assert sorted(drawn.tolist()) == sorted(samples.draw.tolist())
    by_draw = {int(draw): i for i, draw in enumerate(samples.draw)}
    for plan in plans:
        part = plan.samples
        assert len(part) == len(plan.g) == len(plan.start) > 0
        total = part.tokens.sum(axis=1)
        for i, draw in enumerate(part.draw.tolist()):
            for field in dataclasses.fields(Samples):
                before = getattr(samples, field.name)[by_draw[draw]]
                np.testing.assert_array_equal(getattr(part, field.name)[i], before)
        taken = np.zeros((layout.rows, layout.row_width), int)
        for g, start, n in zip(plan.g, plan.start, total, strict=True):
            assert start + n <= layout.row_width
            taken[g, start : start + n] += 1
        assert taken.max() <= 1
        place = plan.g * layout.row_width + plan.start
        assert np.all(np.diff(place) > 0), "segments lie in the order of their tokens"
        assert np.all(part.tokens.sum(axis=0) <= list(layout.stream_budgets.values()))
        assert np.all(part.has_target.sum(axis=0) <= list(layout.slot_budgets.values()))
        assert len(part) <= layout.segments


@pytest.mark.parametrize("seed", range(12))
def test_invariants_on_random_samples(seed):
    rng = np.random.default_rng(seed)
    k, streams, tasks = int(rng.integers(2, 400)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
    width, rows = int(rng.choice([16, 50, 128])), int(rng.integers(1, 9))
    tokens = rng.integers(1, width // streams + 1, (k, streams))
    tokens[1:] *= rng.integers(0, 2, (k - 1, streams))  # the first sample keeps all its streams
    tokens[tokens.sum(axis=1) == 0, 0] = 1
    tokens[1] = width * (np.arange(streams) == streams - 1)  # as long as a row
    has_target = rng.random((k, tasks)) < 0.5
    has_target[~has_target.any(axis=1), 0] = True
    samples = make_samples(tokens, has_target)
    layout = layout_for(samples, rows, width, float(rng.uniform(1, 2)), tasks)
    plans = plan_window(samples, layout, np.random.default_rng(seed))
    check_plans(plans, samples, layout)
    again = plan_window(samples, layout, np.random.default_rng(seed))
    for a, b in zip(plans, again, strict=True):
        np.testing.assert_array_equal(a.samples.draw, b.samples.draw)
        np.testing.assert_array_equal(a.start, b.start)


def test_budgets_bind_where_they_are_tighter_than_rows():
    """40 samples of 2 tokens, budget of 8 tokens a pack: ten packs, though 80 tokens fit two."""
    samples = make_samples(np.full((40, 1), 2), np.ones((40, 1), bool))
    layout = dataclasses.replace(
        layout_for(samples, 4, 10, 1.0, 1),
        stream_budgets={"s0": 8},
        slot_budgets={"t0": 40},
        segments=40,
    )
    plans = plan_window(samples, layout, np.random.default_rng(0))
    check_plans(plans, samples, layout)
    assert len(plans) == 10
    layout = dataclasses.replace(layout, stream_budgets={"s0": 40}, slot_budgets={"t0": 5})
    assert len(plan_window(samples, layout, np.random.default_rng(0))) == 8
    layout = dataclasses.replace(layout, slot_budgets={"t0": 40}, segments=4)
    assert len(plan_window(samples, layout, np.random.default_rng(0))) == 10


def realistic(rng: np.random.Generator, k: int) -> Samples:
    """Five modalities in equal shares; a tenth of all samples are image and text together."""

    def clip(values, low, high):
        return np.clip(values, low, high).astype(int)

    columns = [
        clip(rng.lognormal(5.2, 0.5, k), 20, 512),  # text
        np.full(k, 196),  # square images
        rng.choice([196, 168, 154], k),  # images of other shapes
        np.full(k, 320),  # EEG trials
        clip(rng.normal(300, 80, k), 50, 512),  # expressed genes
    ]
    kind = rng.permutation(np.arange(k) % 5)
    tokens = np.stack([np.where(kind == i, column, 0) for i, column in enumerate(columns)], axis=1)
    paired = (kind == 2) & (rng.random(k) < 0.5)
    tokens[paired, 0] = columns[0][paired]
    return make_samples(tokens, np.eye(5, dtype=bool)[kind])


@pytest.mark.parametrize(("rows", "fill", "stream_fill"), [(16, 0.95, 0.65), (4, 0.93, 0.5)])
def test_fill_of_a_realistic_window(rows, fill, stream_fill):
    samples = realistic(np.random.default_rng(0), 4096)
    layout = layout_for(samples, rows, 1024, 1.3, 5)
    plans = plan_window(samples, layout, np.random.default_rng(0))
    check_plans(plans, samples, layout)
    found = plan_fill(plans, layout)
    assert found["token"] >= fill
    assert min(v for k, v in found.items() if k != "token") >= stream_fill


def test_packs_of_a_window_are_alike_and_shuffled():
    """No pack is made of one kind only, and under-filled packs do not all come last."""
    samples = realistic(np.random.default_rng(1), 4096)
    layout = layout_for(samples, 16, 1024, 1.3, 5)
    plans = plan_window(samples, layout, np.random.default_rng(2))
    for plan in plans:
        if plan.samples.tokens.sum() > 0.9 * 16 * 1024:
            assert plan.samples.tokens.any(axis=0).all()
    other = plan_window(samples, layout, np.random.default_rng(3))
    assert [len(p.g) for p in plans] != [len(p.g) for p in other]
    assert sorted(len(p.g) for p in plans) == sorted(len(p.g) for p in other)


def test_an_empty_window_has_no_packs():
    samples = make_samples(np.zeros((0, 1), int), np.zeros((0, 1), bool))
    one = make_samples(np.ones((1, 1), int), np.ones((1, 1), bool))
    assert plan_window(samples, layout_for(one, 1, 8, 1, 1), np.random.default_rng(0)) == []


# ------------------------------------------------------------------------------- make_layout


def test_budgets_by_hand(tmp_path):
    """Half the draws have 8 parts of a, half 4 of b: 2 x 48 slots hold 8 of each at fill 1."""
    sources = [FakeSource("one", {"a": [8] * 6}), FakeSource("two", {"b": [4] * 6})]
    setup = make_setup(sources, tmp_path, rows=2, row_width=48, stream_slack=1.3)
    layout = make_layout(setup.config, sources, setup.sizes)
    # a: 8 records of 8 -> 64 x 1.3 = 83.2 -> 11 whole records = 88; b: 32 x 1.3 -> 11 x 4 -> 48.
    assert layout.stream_budgets == {"a.toy": 88, "b.toy": 48}
    assert layout.slot_budgets == {"toy": 24}  # 16 x 1.3 = 20.8
    assert layout.segments == 24
    assert layout.modality_names == ("a", "b")
    assert layout.budgets.tolist() == [88, 48, 24, 24]
    assert "a.toy" in layout.describe() and "88" in layout.describe()


def test_budgets_follow_the_weights_and_hold_the_largest_record(tmp_path):
    sources = [FakeSource("one", {"a": [8] * 6}), FakeSource("two", {"b": [4] * 5 + [30]})]
    setup = make_setup(sources, tmp_path, weights=[99, 1], rows=2, row_width=48)
    layout = make_layout(setup.config, sources, setup.sizes)
    assert layout.stream_budgets["a.toy"] > 96 * 0.98 * 1.25
    assert layout.stream_budgets["b.toy"] == 32
    others = [FakeSource("two", {"b": [40]}, split="test")]
    test = make_setup(others, tmp_path)
    layout = make_layout(setup.config, sources, setup.sizes, [test])
    assert layout.stream_budgets["b.toy"] == 40


def test_dropout_lowers_the_mean_share(tmp_path):
    """With rate 1 exactly one of two modalities is shown: half the tokens of each remain."""
    sources = [FakeSource("one", {"a": [8] * 6, "b": [8] * 6})]
    setup = make_setup(sources, tmp_path, rows=2, row_width=48, modality_dropout=1.0)
    layout = make_layout(setup.config, sources, setup.sizes)
    assert layout.segments == 16  # 96 slots / 8 tokens x 1.3 = 15.6; without dropout 7.8
    assert layout.stream_budgets == {"a.toy": 64, "b.toy": 64}


def test_a_record_longer_than_a_row_is_refused(tmp_path):
    sources = [FakeSource("one", {"a": [8, 9, 33, 2]})]
    setup = make_setup(sources, tmp_path, row_width=32)
    with pytest.raises(
        UserError, match=r"record 2 of source 'one'.*33 tokens.*'a.toy'.*at most 32"
    ):
        make_layout(setup.config, sources, setup.sizes)


def test_a_task_or_source_without_records_is_refused(tmp_path):
    other = make_toy_task("other")
    sources = [FakeSource("one", {"a": [8, 9]})]
    setup = make_setup(sources, tmp_path, tasks=(make_toy_task("toy"), other))
    with pytest.raises(UserError, match="'other'"):
        make_layout(setup.config, sources, setup.sizes)
    setup = make_setup(sources, tmp_path, modalities=(B,))
    with pytest.raises(UserError, match="source 'one'"):
        make_layout(setup.config, sources, setup.sizes)
    setup = make_setup(sources, tmp_path, modalities=(A,), rows=0)
    with pytest.raises(UserError, match=r"config.data.rows is 0"):
        make_layout(setup.config, sources, setup.sizes)
