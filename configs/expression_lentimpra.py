"""Promoter activity of lentiMPRA elements in WTC11 cells from 200 bases of DNA.

    python -m tfds_builders build lentimpra --config wtc11 --manual_dir RAW/lentimpra --data_dir D
    python -m multimed_jax.main --config configs/expression_lentimpra.py --config.data_dir=D \
        --workdir W

Settings were chosen on validation groups alone; whole overlapping elements share a split.
Hardware: 2 CPU cores. Time, memory and measured figures: README.md.
"""

from __future__ import annotations

import ml_collections

from configs import common
from multimed_jax.evaluators import ridge_baseline, samples, task_metrics
from multimed_jax.modalities import genomics
from multimed_jax.tasks import expression


def get_config() -> ml_collections.ConfigDict:
    """One layer over a stem that scans both strands for motifs: few data, much augmentation."""
    return common.complete(
        method="unimodal",
        data_dir="data",
        seed=0,
        num_steps=500,
        log_every_steps=25,
        modalities=(
            genomics.SPEC.with_options(
                window_bp=200,
                patch=20,
                motif_width=15,
                num_motifs=64,
                kmer=6,
                shift_bp=8,
                mutation_rate=0.05,
                average_strands=True,
            ),
        ),
        tasks=(expression.SPEC,),
        evals=(task_metrics.SPEC, ridge_baseline.SPEC, samples.SPEC),
        data=dict(
            sources=common.sources({"lentimpra/wtc11": 1.0}),
            lanes=2,
            rows=4,
            row_width=80,
            window=512,
        ),
        model=dict(d_model=64, num_layers=1, num_heads=4),
        optim=dict(
            learning_rate=common.learning_rates(1e-3, warmup_steps=50),
            weight_decay=0.05,
            ema_decay=0.99,
        ),
        checkpoint=dict(every_steps=250),
        eval=dict(validation_every_steps=100),
    )
