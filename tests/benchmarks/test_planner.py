"""The planner's benchmark reports what it says, and the planner meets its goals on it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import planner


@pytest.fixture(scope="module")
def values():
    return planner.run(windows=1, step_tokens_per_s=2000.0)


def test_fill_meets_its_goals_at_16_rows(values):
    """Counted here from the sizes: tokens of a window over the slots of its packs."""
    row = values["fill"][-1]
    assert row["rows"] == 16
    assert row["token_fill"] >= 0.95 and row["stream_fill"] >= 0.70
    tokens = row["token_fill"] * row["packs"] * 16 * planner.ROW_WIDTH
    sources = [planner.SizedSource(name, n) for n, name in enumerate(planner.STREAMS)]
    mean = np.mean([source.sizes.tokens.sum(axis=1).mean() for source in sources])
    assert tokens == pytest.approx(4096 * mean, rel=0.02)
    assert values["goals"]["token_fill"]["met"] and values["goals"]["stream_fill"]["met"]


def test_larger_packs_fill_streams_better(values):
    fills = [row["stream_fill"] for row in values["fill"]]
    assert fills == sorted(fills) and fills[0] < 0.65


def test_the_mixture_is_the_table():
    for number, (name, lengths) in enumerate(planner.STREAMS.items()):
        sizes = planner.SizedSource(name, number).sizes
        own = sizes.tokens[:, number]
        assert own.min() > 0 and own.max() <= planner.ROW_WIDTH
        beside = sizes.tokens.sum(axis=1) > own
        assert 0.4 < beside.mean() < 0.6 if name in planner.IMAGES else not beside.any()
        assert abs(own.mean() / lengths(np.random.default_rng(9), 20_000).mean() - 1) < 0.05
