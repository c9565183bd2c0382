"""Five modalities, four tasks, one model, on simulated patients with known ceilings.

    python -m tfds_builders build phantoms --data_dir data
    python -m multimed_jax.main --config configs/quickstart.py --workdir runs/quickstart

Hardware: 2 CPU cores. Time, memory and expected accuracy: README.md.
"""

from __future__ import annotations

import ml_collections

from configs import common
from multimed_jax.evaluators import logistic_baseline, modality_subsets, samples, task_metrics
from multimed_jax.modalities import eeg, mri, scrna, text, xray
from multimed_jax.tasks import cell_type, disease, motor, tumor


def get_config() -> ml_collections.ConfigDict:
    """A small model in small geometry: about four passes over the phantoms."""
    return common.complete(
        method="multimodal_multitask",
        data_dir="data",
        seed=0,
        num_steps=800,
        log_every_steps=25,
        modalities=(
            mri.SPEC.with_options(side=32, patch=8, streams=("slice",)),
            xray.SPEC.with_options(side=32, patch=8),
            eeg.SPEC.with_options(rate_hz=64.0, window_s=2.0, patch_len=32, max_channels=8),
            scrna.SPEC.with_options(max_genes=64),
            text.SPEC.with_options(max_tokens=48),
        ),
        tasks=(tumor.SPEC, disease.SPEC, motor.SPEC, cell_type.SPEC),
        evals=(task_metrics.SPEC, logistic_baseline.SPEC, modality_subsets.SPEC, samples.SPEC),
        data=dict(
            sources=common.sources({"phantoms/quickstart": 1.0}),
            lanes=4,
            rows=8,
            row_width=128,
            window=1024,
            stream_slack=1.5,
            # A model that may read the X-ray or the note alone is measured on either alone too.
            modality_dropout=0.2,
        ),
        model=dict(d_model=96, num_layers=3, num_heads=3),
        optim=dict(
            learning_rate=common.learning_rates(2e-3, warmup_steps=50),
            weight_decay=0.05,
        ),
        checkpoint=dict(every_steps=400),
        eval=dict(validation_every_steps=400),
    )
