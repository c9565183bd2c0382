"""The attention benchmark: what it packs, what it counts, and that its paths agree."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import attention
from multimed_jax.layers.sight import make_sight


def test_rows_are_packed_with_whole_samples():
    segments = attention.packed_segments(512, 4, seed=0)
    assert segments.shape == (4, 512) and (segments > 0).mean() > 0.8
    rows_of: dict[int, int] = {}
    for r, row in enumerate(segments):
        changes = np.flatnonzero(np.diff(row)) + 1
        runs = [int(run[0]) for run in np.split(row, changes)]
        # Each sample is one run of one row, and padding lies behind.
        assert len(set(runs)) == len(runs) and 0 not in runs[:-1]
        for number in runs:
            assert number == 0 or rows_of.setdefault(number, r) == r


def test_pairs_by_hand():
    segments = np.array([[1, 1, 1, 2, 0, 0], [3, 3, 4, 4, 4, 4]])
    assert attention.useful_pairs(segments) == 9 + 1 + 4 + 16


def test_only_paths_that_run_here_are_timed():
    sight = make_sight(jnp.ones((1, 512), int), contiguous=True, max_runs=1)
    assert attention.available_paths(sight, 64, "float32") == ["dense", "cpu"]


@pytest.mark.timeout(900)
def test_the_command(capsys):
    flags = "--json --widths 256 --tokens 256 --heads 1 --depth 8 --repeats 2"
    values = attention.main([str(flag) for flag in flags.split()])
    assert capsys.readouterr().out.startswith('{"benchmark": "attention"')
    found = values["T=256"]
    assert found["rows"] == 1 and 0 < found["useful_share"] <= 1
    for path in ("dense", "cpu"):
        for timed in (found[path]["forward"], found[path]["both"]):
            ratio = timed["useful_gflops"] / timed["total_gflops"]
            assert ratio == pytest.approx(found["useful_share"], rel=2e-3)
        assert found[path]["agreement"] < 1e-5
