"""Backbones of real chains from their sequences: PSICOV-150 and the trypsins of THESEUS.

    python -m tfds_builders build protein_chains --config cluster90 --manual_dir RAW --data_dir D
    python -m multimed_jax.main --config configs/structure_real.py:cluster90 \
        --config.data_dir=D --workdir W
    python -m multimed_jax.predict --checkpoint W --out W/test.csv --files W/structures

`:cluster90` (the default) holds out chains whose family is known from training, `:cluster30` whole
folds: each is a run of its own, for the training chains of one hold test chains of the other.
Hardware: 2 CPU cores. Time, memory and measured figures: README.md.
"""

from __future__ import annotations

import ml_collections

from configs import common
from multimed_jax.evaluators import samples, subgroups, task_metrics
from multimed_jax.modalities import protein
from multimed_jax.tasks import structure
from multimed_jax.types import UserError

SPLITS = ("cluster90", "cluster30")


def get_config(split: str | None = None) -> ml_collections.ConfigDict:
    """Whole chains of up to 256 residues; `split` is cluster90 or cluster30."""
    name = SPLITS[0] if split is None else split
    if name not in SPLITS:
        raise UserError(f"structure_real has no split {name!r}; accepted: {', '.join(SPLITS)}")
    return common.complete(
        method="unimodal",
        data_dir="data",
        seed=0,
        num_steps=300,
        log_every_steps=20,
        modalities=(protein.SPEC.with_options(max_residues=256),),
        tasks=(
            structure.SPEC.with_options(
                pair_dim=8,
                num_bins=32,
                clamp_angstrom=20.0,
                # Where residues lie is learnt before how they are turned.
                superposed_weight=2.0,
                fape_weight=0.5,
                steps_weight=0.25,
                local_weight=0.5,
            ),
        ),
        evals=(
            task_metrics.SPEC,
            # Known families apart: the trypsins of THESEUS, the chains of PSICOV.
            subgroups.SPEC.with_options(fields=("site",), min_records=5),
            samples.SPEC,
        ),
        data=dict(
            sources=common.sources({f"protein_chains/{name}": 1.0}),
            lanes=2,
            rows=2,
            row_width=256,
            window=64,
            stream_slack=1.1,
        ),
        model=dict(d_model=96, num_layers=3, num_heads=3),
        optim=dict(
            learning_rate=common.learning_rates(2e-3, warmup_steps=30),
            weight_decay=0.05,
            ema_decay=0.99,
        ),
        checkpoint=dict(every_steps=100),
        eval=dict(validation_every_steps=100),
    )
