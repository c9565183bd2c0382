"""Goals of the growth benchmark on figures made here; two real programs where time allows."""

from __future__ import annotations

import argparse
import copy

import pytest

from benchmarks.growth import compiled, judged


def row(devices: int, **changes) -> dict:
    values = {
        "devices": devices,
        "argument_excess": 0.001,
        "device_bytes": {"temporaries": 1000},
        "gather_theory_bytes": 500,
        "traffic": {"all-gather": {"count": 3, "bytes": 510}},
        "compile_s": 10.0,
    }
    return values | changes


ROWS = [row(1, traffic={}, gather_theory_bytes=0), row(8), row(512)]
DEPTHS = [row(8), row(8, compile_s=12.0)]


def met(rows, depths=DEPTHS, pair=None):
    return {name: goal["met"] for name, goal in judged(rows, depths, pair).items()}


def test_all_met():
    assert set(met(ROWS, pair=row(8)).values()) == {True}


@pytest.mark.parametrize(
    ("goal", "changes"),
    [
        ("arguments", {"argument_excess": 0.03}),
        ("arguments", {"argument_excess": -0.03}),
        ("temporaries", {"device_bytes": {"temporaries": 1100}}),
        ("all_gather", {"traffic": {"all-gather": {"count": 3, "bytes": 560}}}),
        ("all_to_all", {"traffic": {"all-to-all": {"count": 1, "bytes": 4}}}),
        ("compile_n", {"compile_s": 21.0}),
    ],
)
def test_each_goal_is_missed_by_its_figure(goal, changes):
    rows = copy.deepcopy(ROWS)
    rows[-1] |= changes
    found = met(rows)
    assert [name for name, ok in found.items() if not ok] == [goal]


def test_depth_and_the_tensor_axis():
    assert not met(ROWS, [row(8), row(8, compile_s=16.0)])["compile_depth"]
    pair = row(8, traffic={"all-gather": {"count": 9, "bytes": 900}})
    assert not met(ROWS, pair=pair)["tensor"]


@pytest.mark.slow
def test_two_programs():
    flags = argparse.Namespace(d_model=128, rows=1, remat="none", dtype="float32")
    rows = [compiled(flags, devices, 2) for devices in (1, 8, 16)]
    goals = judged(rows, rows[:2], None)
    for name in ("arguments", "temporaries", "all_gather", "all_to_all"):
        assert goals[name]["met"], (name, goals[name])
