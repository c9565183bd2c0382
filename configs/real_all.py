"""Real data of every modality that a small public copy exists for, in one packed stream.

    for each source of README.md: python -m tfds_builders build NAME --manual_dir RAW --data_dir D
    python -m multimed_jax.main --config configs/real_all.py --config.data_dir=D --workdir W

All ten modalities; of CT and MRI the slices, for the volumes at hand carry no label. The sources
hold a few hundred records each: the config shows that one model reads them all, not what it could
do with more.
Hardware: 2 CPU cores, 6 GiB; a step takes 2 s.
"""

from __future__ import annotations

import ml_collections

from configs import common
from multimed_jax.evaluators import (
    logistic_baseline,
    modality_subsets,
    ridge_baseline,
    samples,
    task_metrics,
)
from multimed_jax.modalities import (
    ct,
    eeg,
    genomics,
    mri,
    oct,
    pathology,
    protein,
    scrna,
    text,
    xray,
)
from multimed_jax.tasks import (
    cell_type,
    disease,
    expression,
    motor,
    radiographic,
    retinopathy,
    structure,
    tumor,
    vqa,
)

# Shares of draws, not sizes: none is forgotten, and the long chains do not eat the rows.
SOURCES = {
    "brain_tumor_mri/resized_224": 0.14,
    "brain_tumor_mri/native": 0.04,
    "kermany_chest_xray/relaid_300px": 0.08,
    "covid_chestxray": 0.02,
    "covid_vqa": 0.04,
    "kermany_oct/original": 0.02,
    "odir5k": 0.12,
    "siim_ct": 0.03,
    "bccd": 0.10,
    "eegmmidb": 0.04,
    "lentimpra/wtc11": 0.12,
    "pbmc68k": 0.06,
    "hcl/samples": 0.06,
    "protein_chains/cluster90": 0.02,
    "medical_abstracts": 0.11,
}


def get_config(size: str | None = None) -> ml_collections.ConfigDict:
    """Every task that a real source has; `size` is small, base or large."""
    return common.complete(
        method="multimodal_multitask",
        data_dir="data",
        seed=0,
        num_steps=400,
        log_every_steps=25,
        modalities=(
            text.SPEC.with_options(max_tokens=160, max_answer=12),
            oct.SPEC.with_options(side=96, patch=16, augment=True),
            xray.SPEC.with_options(side=96, patch=12, augment=True),
            ct.SPEC.with_options(side=96, patch=16, streams=("slice",), augment=True),
            mri.SPEC.with_options(side=96, patch=12, streams=("slice",), augment=True),
            pathology.SPEC.with_options(side=64, patch=16, streams=("tile",), augment=True),
            eeg.SPEC.with_options(rate_hz=160.0, window_s=4.0, patch_len=80, max_channels=64),
            genomics.SPEC.with_options(
                window_bp=200, patch=20, shift_bp=8, mutation_rate=0.05, average_strands=True
            ),
            # The genes that vary most among the training cells of both sources.
            scrna.SPEC.with_options(max_genes=160, select="variable", num_variable=1000),
            protein.SPEC.with_options(max_residues=256),
        ),
        tasks=(
            disease.SPEC,
            tumor.SPEC,
            radiographic.SPEC,
            retinopathy.SPEC,
            motor.SPEC,
            cell_type.SPEC,
            expression.SPEC,
            # A chain of 256 residues costs more than all else of its step.
            structure.SPEC.with_options(pair_dim=8, clamp_angstrom=20.0),
            vqa.SPEC,
        ),
        evals=(
            task_metrics.SPEC,
            logistic_baseline.SPEC,
            ridge_baseline.SPEC,
            modality_subsets.SPEC,
            samples.SPEC,
        ),
        data=dict(
            sources=common.sources(SOURCES),
            # One pack: each has room for eight chains at least, which cost as much empty.
            lanes=1,
            rows=32,
            row_width=256,
            window=512,
            stream_slack=2.0,
            modality_dropout=0.2,
        ),
        model=common.model_size(size),
        optim=dict(
            learning_rate=common.learning_rates(1e-3, warmup_steps=60),
            weight_decay=0.1,
            ema_decay=0.99,
        ),
        checkpoint=dict(every_steps=150),
        eval=dict(validation_every_steps=200),
    )
