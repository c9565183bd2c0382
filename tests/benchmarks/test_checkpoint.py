"""The benchmark of checkpoints: everyone restores the same state, and figures are as named."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import checkpoint
from multimed_jax.types import UserError


def test_a_state_has_the_size_asked_for():
    state = checkpoint.make_state(2.0, 10)
    sizes = np.array([leaf.nbytes for leaf in state.values()])
    assert len(sizes) == 10 and sizes.sum() == pytest.approx(2 * 2**20, rel=1e-3)
    assert sizes[1::2].min() == pytest.approx(3 * sizes[::2].max(), rel=1e-3)


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """`measure_size` itself compares what every contestant restored with the state."""
    folder = tmp_path_factory.mktemp("checkpoint") / "disk"
    return checkpoint.measure_size(0.5, 4, 2, folder)


def test_every_contestant_saves_and_restores(values):
    assert set(values["save"]) == {"ours", "orbax", "numpy"}
    assert set(values["restore"]) == {"ours", "ours_unverified", "orbax", "numpy"}
    for part in (*values["save"].values(), *values["restore"].values()):
        assert 0 < part["s_best"] <= part["s_median"]
        assert part["mib_per_s_best"] == pytest.approx(
            values["state_mib"] / part["s_best"], rel=0.1
        )
    assert 0 < values["blocked_s_best"] <= values["blocked_s_median"]
    assert values["bytes_over_state"]["numpy"] > 1
    assert 0.5 < values["bytes_over_state"]["ours"] < 1.5


def test_what_is_called_unverified_is(tmp_path):
    contest = checkpoint.Contest(tmp_path / "disk", checkpoint.make_state(0.25, 2))
    contest.save_ours()
    files = [path for path in (tmp_path / "disk" / "run").rglob("*") if path.is_file()]
    extra = max(files, key=lambda path: path.stat().st_size).with_name("added")
    extra.write_bytes(b"x")
    contest.restore_unverified()
    with pytest.raises(UserError, match="no intact checkpoint"):
        contest.restore_ours()
