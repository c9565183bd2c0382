"""Settings of all tests: eight simulated CPU devices, and where the small real data lie."""

from __future__ import annotations

import os

# Before the first import of jax: afterwards neither has an effect.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real sources; skips where neither place has it."""
    given = os.environ.get("MULTIMED_SHARED_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data" / "raw"
    if not folder.is_dir():
        pytest.skip(
            f"needs the small real sources, which are not at {folder} (MULTIMED_SHARED_DATA)"
        )
    return folder
