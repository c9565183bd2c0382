"""The six real sources in one packed stream.

    for each source: python -m tfds_builders build NAME --manual_dir RAW --data_dir D
    python -m multimed_jax.main --config configs/real_small.py --config.data_dir=D --workdir W

Hardware: 2 CPU cores. Time, memory and measured figures: README.md.
"""

from __future__ import annotations

import ml_collections

from configs import common
from multimed_jax.evaluators import logistic_baseline, modality_subsets, samples, task_metrics
from multimed_jax.modalities import eeg, mri, scrna, text, xray
from multimed_jax.tasks import cell_type, disease, motor, tumor

# Small sources are drawn more often than their size, so that none is forgotten; the weights are
# shares of draws.
SOURCES = {
    "brain_tumor_mri/resized_224": 0.24,
    "brain_tumor_mri/native": 0.06,
    "kermany_chest_xray/relaid_300px": 0.16,
    "covid_chestxray": 0.04,
    "eegmmidb": 0.06,
    "pbmc68k": 0.14,
    "medical_abstracts": 0.30,
}


def get_config() -> ml_collections.ConfigDict:
    """A small model: the sources hold a few thousand records in all."""
    return common.complete(
        method="multimodal_multitask",
        data_dir="data",
        seed=0,
        num_steps=700,
        log_every_steps=25,
        modalities=(
            mri.SPEC.with_options(side=96, patch=12, streams=("slice",), augment=True),
            xray.SPEC.with_options(side=96, patch=12, augment=True),
            eeg.SPEC.with_options(rate_hz=160.0, window_s=4.0, patch_len=80, max_channels=64),
            scrna.SPEC.with_options(max_genes=128),
            text.SPEC.with_options(max_tokens=192),
        ),
        tasks=(tumor.SPEC, disease.SPEC, motor.SPEC, cell_type.SPEC),
        evals=(task_metrics.SPEC, logistic_baseline.SPEC, modality_subsets.SPEC, samples.SPEC),
        data=dict(
            sources=common.sources(SOURCES),
            lanes=4,
            rows=8,
            row_width=256,
            window=512,
            stream_slack=2.0,
            modality_dropout=0.2,
        ),
        model=dict(d_model=128, num_layers=4, num_heads=4),
        optim=dict(
            learning_rate=common.learning_rates(1e-3, warmup_steps=60),
            weight_decay=0.1,
            ema_decay=0.99,
        ),
        checkpoint=dict(every_steps=175),
        eval=dict(validation_every_steps=175),
    )
