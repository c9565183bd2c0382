"""Tiny phantoms built once, and a way to run the package's commands as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = "tests/end_to_end/tiny.py"


def command(
    module: str, *arguments: object, devices: int = 1, **kwargs
) -> subprocess.CompletedProcess:
    """Runs `python -m module arguments` from the root of the checkout."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        **kwargs,
    )


def environment(devices: int = 1) -> dict[str, str]:
    """The environment of a command on some simulated CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data_dir with phantoms/tiny."""
    folder = tmp_path_factory.mktemp("data")
    done = command("tfds_builders", "build", "phantoms", "--config", "tiny", "--data_dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def train(data: Path, workdir: Path, *extra: str, devices: int = 1) -> subprocess.CompletedProcess:
    """One training command on the tiny config."""
    return command(
        "multimed_jax.main",
        "--config",
        TINY,
        f"--config.data_dir={data}",
        "--workdir",
        workdir,
        *extra,
        devices=devices,
    )
