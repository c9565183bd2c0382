"""The summary of sizes is what a pass over all of them gives, and lies in the sidecar."""

from __future__ import annotations

import numpy as np
import pytest

from multimed_jax.data import size_summary
from multimed_jax.data.size_summary import let_go, open_summary, summarise
from multimed_jax.data.sizes import load_sizes
from multimed_jax.types import UserError
from tests.data.fakes import OTHER, TOY, A, FakeSource


def arrays(n: int, absent: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    tokens = rng.integers(0 if absent else 1, 4, (n, 3)).astype(np.int32)
    has_target = rng.random((n, 2)) < (0.6 if absent else 2.0)
    return tokens, has_target


@pytest.fixture
def in_pieces(monkeypatch):
    monkeypatch.setattr(size_summary, "_PIECE", 7)
    monkeypatch.setattr(size_summary, "SAMPLED", 10)


@pytest.mark.parametrize("used", [None, [True, True], [False, True], [False, False]])
@pytest.mark.parametrize("n", [1, 6, 7, 50])
def test_it_is_what_a_pass_gives(in_pieces, n, used):
    tokens, has_target = arrays(n)
    found = summarise(tokens, has_target, None if used is None else np.array(used))
    targets = has_target if used is None else has_target & np.array(used)
    rows = np.flatnonzero(tokens.any(axis=1) & targets.any(axis=1))
    if found.rows is None:
        assert len(rows) == n
    else:
        np.testing.assert_array_equal(found.rows, rows)
    if len(rows):
        np.testing.assert_array_equal(found.largest[0], tokens[rows].max(axis=0))
        longest = rows[tokens[rows].sum(axis=1).argmax()]
        np.testing.assert_array_equal(found.largest[1], tokens[longest])
        assert found.largest[2, 0] == longest
    else:
        assert not found.largest.any()
    sampled = rows[:: max(1, len(rows) // 10)]
    np.testing.assert_array_equal(found.sampled_tokens, tokens[sampled])
    np.testing.assert_array_equal(found.sampled_has_target, targets[sampled])
    assert (found.has_target is None) == (used is None or all(used))
    if found.has_target is not None:
        np.testing.assert_array_equal(found.has_target, targets)


def test_all_drawable_keeps_no_rows(in_pieces):
    assert summarise(*arrays(30, absent=False)).rows is None


@pytest.mark.parametrize("used", [[True, True], [True, False]])
def test_what_is_written_is_what_is_read(tmp_path, used):
    tokens, has_target = arrays(50)
    first = open_summary(tmp_path, tokens, has_target, np.array(used), write=True)
    second = open_summary(tmp_path, tokens, has_target, np.array(used), write=False)
    assert [p.name for p in tmp_path.iterdir()] == ["summary-" + "".join("01"[u] for u in used)]
    computed = summarise(tokens, has_target, np.array(used))
    for name in ("largest", "sampled_tokens", "sampled_has_target", "rows", "has_target"):
        for found in (first, second):
            wanted, got = getattr(computed, name), getattr(found, name)
            assert (wanted is None) == (got is None)
            if wanted is not None:
                assert isinstance(got, np.memmap)
                np.testing.assert_array_equal(got, wanted)


def test_others_than_process_0_write_nothing(tmp_path):
    tokens, has_target = arrays(20)
    open_summary(tmp_path, tokens, has_target, np.ones(2, bool), write=False)
    assert not list(tmp_path.iterdir())
    gone = open_summary(tmp_path / "gone", tokens, has_target, np.ones(2, bool), write=True)
    np.testing.assert_array_equal(gone.largest, summarise(tokens, has_target).largest)


def test_a_damaged_summary_is_refused(tmp_path):
    tokens, has_target = arrays(50)
    open_summary(tmp_path, tokens, has_target, np.ones(2, bool), write=True)
    file = tmp_path / "summary-11" / "sampled_tokens.npy"
    file.write_bytes(file.read_bytes()[:140])
    with pytest.raises(UserError, match="cannot be read"):
        open_summary(tmp_path, tokens, has_target, np.ones(2, bool), write=True)


def test_a_source_has_a_summary_for_each_set_of_tasks(tmp_path):
    class Both(FakeSource):
        def __getitem__(self, row, /):
            return super().__getitem__(row) | {
                "targets": {"toy": np.int32(0), "other": np.int32(1)}
            }

    one = Both("one", {"a": [1, 2, 3]}, tasks=("toy", "other"))
    assert load_sizes(one, (A,), (TOY, OTHER), tmp_path).rows is None
    one.tasks = ("other",)
    second = load_sizes(one, (A,), (TOY, OTHER), tmp_path)
    assert second.has_target.tolist() == [[False, True]] * 3
    found = sorted(p.name for p in tmp_path.rglob("summary-*"))
    assert found == ["summary-01", "summary-11"]


def test_pages_that_were_let_go_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(size_summary, "_SMALL_BYTES", 0)
    wanted = np.arange(100_000, dtype=np.int64)
    np.save(tmp_path / "x.npy", wanted)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert int(mapped.sum()) == int(wanted.sum())
    let_go(mapped, None, np.arange(3))
    np.testing.assert_array_equal(mapped, wanted)
