"""Saving and restoring a state: time, bytes, and for how long a step waits.

    python -m benchmarks.checkpoint --json [--mib 16,64,256] [--repeats 5]

The state is a tree of `--arrays` float32 arrays, half of them of a third of the mean size, as
weights and moments are. Contestants take turns in one process, on one folder's disk, and the order
turns round every time; a turn ends when everything is written or in place.

    ours              `Checkpoints`: asynchronous, with the SHA-256 of every file; restores verify
    ours_unverified   the same without comparing hashes (restore alone)
    orbax             `PyTreeCheckpointer` as it is
    numpy             `numpy.savez`, `numpy.load`

Figures of each size: seconds and MiB/s of saving and restoring, bytes on disk; `blocked_s`, for how
long the call of `Checkpoints.save` holds up the step; `step_while_saving`, the time of a step while
a state is written over that of a step alone.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.measure import Times, alternate, report
from multimed_jax.checkpoint import Checkpoints

CURSOR = np.zeros((4, 2), np.int64)
STEP_SIDE = 1024


class _Unverified(Checkpoints):
    """Takes the newest listed step as it is."""

    def _faults(self, step: int) -> list[str]:
        return []


def make_state(mib: float, arrays: int) -> dict[str, jax.Array]:
    """A state of this size."""
    shares = np.where(np.arange(arrays) % 2, 1.0, 1 / 3)
    counts = (shares / shares.sum() * mib * 2**20 / 4).astype(int)
    rng = np.random.default_rng(0)
    return {
        f"layer_{i:03d}": jax.numpy.asarray(rng.standard_normal(max(1, count), np.float32))
        for i, count in enumerate(counts.tolist())
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Contest:
    """All ways of saving and restoring one state, below one folder."""

    def __init__(self, folder: Path, state: dict[str, jax.Array]):
        self.folder, self.state = folder, state
        self.abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        (folder / "run").mkdir(parents=True)
        self.ours = Checkpoints(folder / "run" / "checkpoints", keep=1)
        self.unverified = _Unverified(folder / "run" / "checkpoints", keep=1)
        self.orbax = ocp.PyTreeCheckpointer()
        self.step = 0
        self.blocked: list[float] = []

    def save_ours(self) -> None:
        self.step += 1
        start = time.perf_counter()
        self.ours.save(self.step, self.state, CURSOR)
        self.blocked.append(time.perf_counter() - start)
        self.ours.wait()

    def save_orbax(self) -> None:
        self.orbax.save(self.folder / "orbax", self.state, force=True)

    def save_numpy(self) -> None:
        np.savez(self.folder / "numpy.npz", **{k: np.asarray(v) for k, v in self.state.items()})

    def restore_ours(self) -> Any:
        return jax.block_until_ready(self.ours.restore(self.abstract, CURSOR)[1])

    def restore_unverified(self) -> Any:
        return jax.block_until_ready(self.unverified.restore(self.abstract, CURSOR)[1])

    def restore_orbax(self) -> Any:
        arguments = ocp.checkpoint_utils.construct_restore_args(self.abstract)
        found = self.orbax.restore(self.folder / "orbax", restore_args=arguments)
        return jax.block_until_ready(found)

    def restore_numpy(self) -> Any:
        with np.load(self.folder / "numpy.npz") as found:
            return jax.block_until_ready({k: jax.numpy.asarray(found[k]) for k in self.state})

    def bytes(self) -> dict[str, int]:
        """On disk, by contestant."""
        run = self.folder / "run" / "checkpoints"
        return {
            "ours": folder_bytes(run),
            "orbax": folder_bytes(self.folder / "orbax"),
            "numpy": (self.folder / "numpy.npz").stat().st_size,
        }

    def step_while_saving(self) -> float:
        """Time of a step while the state is written, over that of a step alone."""
        square = jax.numpy.ones((STEP_SIDE, STEP_SIDE))
        step = jax.jit(lambda x: x @ x / STEP_SIDE)
        jax.block_until_ready(step(square))

        def timed(until: Callable[[int], bool]) -> float:
            times: list[float] = []
            while not until(len(times)):
                start = time.perf_counter()
                jax.block_until_ready(step(square))
                times.append(time.perf_counter() - start)
            return statistics.median(times)

        alone = timed(lambda taken: taken >= 100)
        self.step += 1
        self.ours.save(self.step, self.state, CURSOR)
        thread = self.ours._saving
        during = timed(lambda taken: taken > 0 and (thread is None or not thread.is_alive()))
        self.ours.wait()
        return during / alone


def figures(times: Times, mib: float) -> dict[str, float]:
    """Best and median of one contestant."""
    return {
        "s_best": round(times.best_s, 4),
        "s_median": round(times.median_s, 4),
        "mib_per_s_best": round(mib / times.best_s, 1),
    }


def measure_size(mib: float, arrays: int, repeats: int, folder: Path) -> dict[str, Any]:
    """All figures of one size."""
    state = make_state(mib, arrays)
    size = sum(leaf.nbytes for leaf in state.values())
    contest = Contest(folder, state)
    saves = alternate(
        {"ours": contest.save_ours, "orbax": contest.save_orbax, "numpy": contest.save_numpy},
        repeats,
    )
    ways = {
        "ours": contest.restore_ours,
        "ours_unverified": contest.restore_unverified,
        "orbax": contest.restore_orbax,
        "numpy": contest.restore_numpy,
    }
    for name, way in ways.items():
        found = way()
        same = all(np.array_equal(found[key], state[key]) for key in state)
        assert same, f"{name} restored something else"
    restores = alternate(ways, repeats, warm_ups=0)
    blocked = contest.blocked[-repeats:]
    verified, plain = restores["ours"], restores["ours_unverified"]
    return {
        "state_mib": round(size / 2**20, 2),
        "save": {name: figures(times, size / 2**20) for name, times in saves.items()},
        "restore": {name: figures(times, size / 2**20) for name, times in restores.items()},
        "bytes_over_state": {k: round(v / size, 4) for k, v in contest.bytes().items()},
        "blocked_s_best": round(min(blocked), 5),
        "blocked_s_median": round(statistics.median(blocked), 5),
        "blocked_over_save": round(statistics.median(blocked) / saves["ours"].median_s, 4),
        "verification_s_best": round(verified.best_s - plain.best_s, 4),
        "verified_over_unverified_best": round(verified.best_s / plain.best_s, 3),
        "step_while_saving": round(contest.step_while_saving(), 3),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Saving and restoring a state.")
    parser.add_argument("--mib", default="16,64,256", help="sizes of the state, with commas")
    parser.add_argument("--arrays", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", default="", help="on the disk to measure; empty: temporary")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.ERROR)
    sizes = []
    for mib in flags.mib.split(","):
        folder = Path(tempfile.mkdtemp(dir=flags.folder or None))
        try:
            sizes.append(measure_size(float(mib), flags.arrays, flags.repeats, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    values = {"benchmark": "checkpoint", "repeats": flags.repeats, "sizes": sizes}
    report(values, flags.json)
    return values


if __name__ == "__main__":
    main()
