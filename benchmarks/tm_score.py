"""Seconds of `tm_score` for many pairs of chains, beside tmtools where it is installed.

    python -m benchmarks.tm_score [--pairs 1000] [--residues 150] [--json]

The pairs are generated: persistent random walks, and copies with noise of 0.5 to 8 angstrom. The
peer, TM-align by tmtools, answers another question (it searches its own alignment), so its figure
is a scale, not a race; it is timed on the first 50 pairs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import time

import numpy as np

from multimed_jax.metrics import tm_score

PEER_PAIRS = 50


def make_pairs(number: int, residues: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and natives, [number, residues, 3] in angstrom."""
    rng = np.random.default_rng(0)
    step = rng.normal(size=(number, residues, 3))
    for i in range(1, residues):
        step[:, i] += 1.5 * step[:, i - 1]
        step[:, i] /= np.linalg.norm(step[:, i], axis=-1, keepdims=True)
    native = np.cumsum(3.8 * step, axis=1)
    noise_angstrom = np.linspace(0.5, 8.0, number)[:, None, None] / np.sqrt(3)
    return native + noise_angstrom * rng.normal(size=native.shape), native


def seconds_of_peer(predicted: np.ndarray, native: np.ndarray) -> float | None:
    """Seconds a pair of tmtools; None where it is not installed."""
    if importlib.util.find_spec("tmtools") is None:
        return None
    import tmtools

    letters = "A" * native.shape[1]
    start = time.perf_counter()
    for ours, theirs in zip(predicted[:PEER_PAIRS], native[:PEER_PAIRS], strict=True):
        tmtools.tm_align(ours, theirs, letters, letters)
    return (time.perf_counter() - start) / min(PEER_PAIRS, len(native))


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of tm_score.")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--residues", type=int, default=150)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args()
    predicted, native = make_pairs(flags.pairs, flags.residues)
    mask = np.ones(native.shape[:2], bool)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    scores = tm_score(predicted, native, mask)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    values = {
        "benchmark": "tm_score",
        "pairs": flags.pairs,
        "residues": flags.residues,
        "seconds": round(wall_s, 3),
        "cpu_seconds": round(cpu_s, 3),
        "milliseconds_per_pair": round(1000 * wall_s / flags.pairs, 3),
        "tmtools_milliseconds_per_pair": None,
        "mean_score": round(float(scores.mean()), 4),
        "machine": platform.machine(),
        "numpy": np.__version__,
    }
    peer_s = seconds_of_peer(predicted, native)
    if peer_s is not None:
        values["tmtools_milliseconds_per_pair"] = round(1000 * peer_s, 3)
    if flags.json:
        print(json.dumps(values))
    else:
        print("\n".join(f"{name}: {value}" for name, value in values.items()))


if __name__ == "__main__":
    main()
