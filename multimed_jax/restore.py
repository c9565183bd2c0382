"""A trained run from its folder: manifest -> config -> data and model -> last checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from multimed_jax.checkpoint import Checkpoints, read_manifest
from multimed_jax.config import MeshConfig
from multimed_jax.config_io import from_json
from multimed_jax.run import Run, dataset_hashes, make_run
from multimed_jax.run_folder import check_same_data
from multimed_jax.types import TrainState, UserError


def restore_run(workdir: Path, data_dir: str | None = None) -> tuple[Run, TrainState]:
    """Rebuilds the run of `workdir` and restores its last verified step.

    Args:
        workdir: folder of a trained run.
        data_dir: where the data are now; None takes the place that the manifest names.

    Raises:
        UserError: where the folder holds no run, no checkpoint, or the data have changed.
    """
    if not (workdir / "manifest.json").exists():
        raise UserError(f"{workdir} holds no run: it has no manifest.json")
    manifest = read_manifest(workdir / "manifest.json")
    config = from_json(manifest["config"])
    # Another machine may have other devices; the result does not depend on the mesh.
    config = dataclasses.replace(config, mesh=MeshConfig())
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    run = make_run(config, workdir)
    check_same_data(manifest, dataset_hashes(run.splits["train"].sources), config.data_dir)
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
    try:
        if checkpoints.latest() is None:
            raise UserError(f"{workdir} holds no finished checkpoint")
        cursor = np.zeros((config.data.lanes, 2), np.int64)
        _, state, _ = checkpoints.restore(run.state_shapes, cursor)
    finally:
        checkpoints.close()
    return run, state
