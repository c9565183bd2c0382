"""The step benchmark: contestants do the same work, and figures are what they are called."""

from __future__ import annotations

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks import step
from benchmarks.shapes import (
    KINDS,
    Shape,
    attention_flops,
    padded_widths,
    step_lengths,
    useful_flops,
)
from benchmarks.synthetic import fill_of, make_problem, packed_batch, padded_batch
from benchmarks.timing_worker import Worker, take_turns
from multimed_jax.model import Model
from multimed_jax.types import Batch

SHAPE = Shape(layers=1, width=16, heads=2, samples=2)
SCALE = 0.05


def test_lengths_lie_in_their_ranges():
    lengths = step_lengths(Shape(samples=500), 0)
    for kind in KINDS:
        n = lengths[kind.name]
        assert kind.shortest <= n.min() and n.max() <= kind.longest
        if kind.median:
            assert 0.85 < np.median(n) / kind.median < 1.15


def test_useful_work_by_hand():
    """One layer on samples of 2 and 3 tokens: products with weights, and scores of pairs."""
    shape = Shape(layers=1, width=4, heads=1, mlp=4)
    lengths = {"a": np.array([2]), "b": np.array([3])}
    weights = 4 * 4 * 4 + 2 * 4 * 16  # q, k, v, out; in, out of the MLP
    pairs = 2 * 2 + 3 * 3
    forward = 2 * 5 * weights + 2 * pairs * 4 * 2  # scores and their use
    assert useful_flops(lengths, shape) == 3 * forward
    assert attention_flops(lengths, shape) == 3 * 2 * pairs * 4 * 2


def test_padded_widths_by_hand():
    """The next multiple of 16, but an image is 196 tokens and a protein at most 300."""
    longest = {k.name: np.array([k.shortest, k.longest]) for k in KINDS}
    widths = padded_widths(longest)
    assert widths["image"] == 196 and widths["protein"] == 300 and widths["scrna"] == 1000
    assert padded_widths(longest | {"scrna": np.array([481, 200])})["scrna"] == 496


def test_torch_takes_the_longest_samples():
    torch = pytest.importorskip("torch", reason="needs the extra bench")
    from benchmarks.torch_step import Network, make_data

    network = Network(Shape(layers=1, width=8, heads=1))
    data = make_data({kind.name: np.array([kind.longest]) for kind in KINDS}, 0)
    for kind in KINDS:
        states = network.embed(kind, data[kind.name])
        assert states.shape == (1, kind.longest, 8)
        assert torch.isfinite(network.loss(kind, states, data[kind.name]))


def real_tokens(batch: Batch) -> int:
    return sum(int((np.asarray(grid.segment_ids) > 0).sum()) for grid in batch.grids)


def test_packed_and_padded_are_the_same_step(tmp_path):
    """The same samples, so with the same parameters every task has the same loss."""
    lengths = step_lengths(SHAPE, 0, SCALE)
    problem = make_problem(lengths, SHAPE, tmp_path)
    batches = {
        "one width": packed_batch(problem, [64]),
        "two widths": packed_batch(problem, [16, 64]),
        "two packs": packed_batch(problem, [64], packs=2),
        "padded": padded_batch(problem),
    }
    tokens = sum(int(n.sum()) for n in lengths.values())
    widths = {name: [g.segment_ids.shape[2] for g in b.grids] for name, b in batches.items()}
    assert widths["one width"] == [64] and widths["two widths"] == [16, 64]
    assert batches["two packs"].grids[0].segment_ids.shape[0] == 2
    assert widths["padded"] == list(padded_widths(lengths).values())
    graph, state = nnx.split(Model(problem.spec, nnx.Rngs(0)))

    @jax.jit
    def losses(state, batch):
        outputs = nnx.merge(graph, state)(batch)
        return {
            task.name: (
                batch.targets[task.name].weight
                * task.loss_fn(outputs[task.name], batch.targets[task.name], ())
            ).sum()
            for task in problem.spec.tasks
        }

    found = {name: jax.device_get(losses(state, batch)) for name, batch in batches.items()}
    for name, batch in batches.items():
        assert real_tokens(batch) == tokens
        slots = sum(grid.segment_ids.size for grid in batch.grids)
        assert fill_of(batch)[0] == pytest.approx(tokens / slots)
        for kind in KINDS:
            assert found[name][kind.name] > 0
            np.testing.assert_allclose(
                found[name][kind.name], found["padded"][kind.name], rtol=2e-5, err_msg=name
            )


def test_a_sample_longer_than_the_rows_is_refused(tmp_path):
    problem = make_problem(step_lengths(SHAPE, 0, SCALE), SHAPE, tmp_path)
    with pytest.raises(ValueError, match="the longest sample has"):
        packed_batch(problem, [8])


def test_too_few_samples_for_the_packs_are_refused(tmp_path):
    problem = make_problem(step_lengths(SHAPE, 0, SCALE), SHAPE, tmp_path)
    with pytest.raises(ValueError, match="14 samples do not fill 9 packs of rows of 64"):
        packed_batch(problem, [64], packs=9)


def test_figures_by_hand():
    about = {
        "tokens": 100,
        "useful_flops": 4e9,
        "attention_s": 0.5,
        "useful_attention_flops": 1e9,
        "peak_rss_mib": 10,
    }
    steps = [{"wall_s": w, "cpu_s": 2 * w} for w in (2.0, 1.0, 4.0)]
    found = step.figures(about, steps, cores=2)
    assert found["tokens_per_s_best"] == 100 and found["tokens_per_s_median"] == 50
    assert found["tokens_per_cpu_s"] == pytest.approx(100 * 3 / 14, abs=0.05)
    assert found["useful_gflops_per_core"] == 1.0 and found["attention_share"] == 0.25
    assert found["attention_gflops_per_core"] == 1.0
    slower = found | {"tokens_per_s_best": 80, "peak_rss_mib": 5}
    ratio = step.ratios({"packed": found, "padded": slower})["packed/padded"]
    assert ratio["tokens_per_s_best"] == 1.25 and ratio["peak_rss_mib"] == 2.0


WORKER = """
import sys, time
sys.path.insert(0, {folder!r})
from benchmarks.timing_worker import serve
serve(lambda: time.sleep({seconds}), {{"name": {seconds}}})
"""


def test_workers_take_turns(tmp_path, monkeypatch):
    """Each step is timed on its own, and what a worker says of itself comes last."""
    from benchmarks import timing_worker

    monkeypatch.setattr(timing_worker, "REPOSITORY", tmp_path)
    folder = str(importlib.util.find_spec("benchmarks").submodule_search_locations[0] + "/..")  # type: ignore
    for name, seconds in (("slow", 0.2), ("fast", 0.01)):
        (tmp_path / f"{name}.py").write_text(WORKER.format(folder=folder, seconds=seconds))
    workers = {name: Worker(name, []) for name in ("slow", "fast")}
    take_turns(workers, 3)
    about = {name: worker.finish() for name, worker in workers.items()}
    assert about["slow"]["name"] == 0.2 and about["slow"]["peak_rss_mib"] > 0
    assert [len(worker.steps) for worker in workers.values()] == [3, 3]
    best = {n: min(s["wall_s"] for s in w.steps) for n, w in workers.items()}
    assert best["slow"] >= 0.2 > best["fast"] >= 0.01


def test_a_worker_that_ends_early_is_said(tmp_path, monkeypatch):
    from benchmarks import timing_worker

    monkeypatch.setattr(timing_worker, "REPOSITORY", tmp_path)
    (tmp_path / "broken.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(RuntimeError, match="ended early, with code 3"):
        Worker("broken", [])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra bench")
def test_rows_of_torch_hold_every_token_once():
    from benchmarks.torch_step import pack_rows

    lengths = {"a": np.array([5, 3]), "b": np.array([6, 2, 4])}
    token, see = pack_rows(lengths, {"a": 16, "b": 16}, 8)
    first = {"a": [0, 16], "b": [32, 48, 64]}  # padded to 16
    wanted = [
        f + i
        for name, n in lengths.items()
        for f, m in zip(first[name], n, strict=True)
        for i in range(m)
    ]
    shown = token[token < 80]
    assert sorted(shown.tolist()) == sorted(wanted)
    for r in range(len(token)):
        for i in range(8):
            for j in range(8):
                mine, other = int(token[r, i]), int(token[r, j])
                same = mine // 16 == other // 16 if max(mine, other) < 80 else mine == other
                assert bool(see[r, 0, i, j]) == same


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command(capsys):
    peer = importlib.util.find_spec("torch") is not None
    values = step.main(
        "--json --samples 2 --layers 1 --width 16 --heads 2 --scale 0.05 --row_widths 64 "
        "--repeats 2 --scan".split()
        + (["--peer", "torch", "--peers", "torch_padded_f32"] if peer else [])
    )
    assert capsys.readouterr().out.startswith("{")
    found = values["contestants"]
    assert found["packed"]["tokens"] == found["padded"]["tokens"]
    assert found["packed"]["fill"] > found["padded"]["fill"]
    assert found["packed"]["attention_paths"] == ["dense"]
    for contestant in found.values():
        assert contestant["peak_rss_mib"] > 10 and contestant["tokens_per_s_best"] > 0
    if peer:
        assert found["torch_padded_f32"]["fill"] == found["padded"]["fill"]
        assert "packed/torch_padded_f32" in values["ratios"]


def test_shapes_are_those_of_the_peer():
    assert dataclasses.asdict(Shape()) == dict(layers=12, width=384, heads=6, samples=16, mlp=4)
