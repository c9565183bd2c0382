"""The manifest that a run begins with, and that it must fit when it goes on."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from multimed_jax.config_io import config_hash, to_json
from multimed_jax.run import Run, dataset_hashes
from multimed_jax.run_folder import (
    check_same_data,
    check_same_run,
    read_manifest,
    write_manifest,
)
from multimed_jax.versions import git_commit, package_versions


def begin_manifest(run: Run) -> None:
    """Writes the manifest of a run, or compares the run with the one that its folder holds.

    Raises:
        UserError: where the folder holds a run of another config, or of other data.
    """
    config, path = run.config, run.workdir / "manifest.json"
    if path.exists():
        # After what modalities learn from train, which the manifest holds as well.
        manifest = read_manifest(path)
        check_same_run(manifest, config)
        check_same_data(manifest, dataset_hashes(run.splits["train"].sources), config.data_dir)
    write_manifest(
        path,
        config=to_json(config),
        config_hash=config_hash(config),
        git_commit=git_commit(),
        datasets=dataset_hashes(run.splits["train"].sources),
        packages=package_versions(),
        mesh=dict(run.mesh.shape),
        namespaces={
            task: [dataclasses.asdict(space) for space in spaces]
            for task, spaces in run.namespaces.items()
        },
        budgets={
            "streams": dict(run.layout.stream_budgets),
            "slots": dict(run.layout.slot_budgets),
        },
        num_params=sum(
            int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(run.state_shapes.params)
        ),
    )
