"""Fault 38: a damaged compilation cache is compiled anew, without a crash or another result."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.end_to_end.conftest import ROOT, environment

# One process loads the libraries and forks a child for each trial, before JAX has threads.
TRIALS = """
import os, random, sys
from pathlib import Path
import jax, jax.numpy as jnp
from multimed_jax.command import use_compilation_cache

folder = Path(sys.argv[1])
use_compilation_cache()
assert jax.config.jax_compilation_cache_dir == str(folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

def compute(out):
    @jax.jit
    def function(x):
        for i in range(6):
            x = jnp.sin(x @ x) + i
        return x.sum()
    os.write(out, repr(float(function(jnp.ones((16, 16))))).encode())

def in_child():
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            compute(write)
        except BaseException as error:
            os.write(write, repr(error).encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(read) as told:
        return status, told.read()

generator = random.Random(38)
first = in_child()
assert first[0] == 0, first
whole = {path: path.read_bytes() for path in folder.glob("*-cache")}
assert whole, "nothing was cached"
for trial in range(12):
    for path, content in whole.items():
        damaged = bytearray(content)
        if trial == 0:
            damaged.clear()
        elif trial == 1:
            del damaged[len(damaged) // 2 :]
        else:
            for _ in range(1 if trial < 8 else 20):
                damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
    found = in_child()
    assert found == first, (trial, found, first)
print("same result in", trial + 1, "trials")
"""


@pytest.mark.timeout(600)
def test_fault_38_a_damaged_cache_is_compiled_anew(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRIALS, str(tmp_path)],
        cwd=ROOT,
        env=environment() | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "same result in 12 trials" in done.stdout
