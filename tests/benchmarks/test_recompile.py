"""The recompilation benchmark, on a few batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mixed_batches_compile_once():
    """In a process of one device, as the command runs; the tests' own have eight."""
    command = [sys.executable, "-m", "benchmarks.recompile", "--json", "--batches", "12"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout.splitlines()[-1])
    assert values["benchmark"] == "recompile"
    assert values["batches"] == 12 and values["kinds"] > 6
    assert values["compilations"] == 1 and values["after_warm_up"] == 0 and values["met"]
