"""Ten modalities, eleven tasks, one model, on simulated patients with known ceilings.

    python -m tfds_builders build phantoms --config all --data_dir data
    python -m multimed_jax.main --config configs/all_phantoms.py --workdir runs/all_phantoms

The size of the trunk is one word: `--config configs/all_phantoms.py:base` (small, base, large).
Hardware: 2 CPU cores for small. Time, memory and measured figures: README.md.
"""

from __future__ import annotations

import ml_collections

from configs import common
from multimed_jax.evaluators import (
    label_text,
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
    bone_age,
    breast,
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


def get_config(size: str | None = None) -> ml_collections.ConfigDict:
    """Every task in one packed stream; `size` is small, base or large."""
    return common.complete(
        method="multimodal_multitask",
        data_dir="data",
        seed=0,
        num_steps=1800,
        log_every_steps=50,
        modalities=(
            text.SPEC.with_options(max_tokens=48, max_answer=8),
            oct.SPEC.with_options(side=32, patch=8),
            xray.SPEC.with_options(side=32, patch=8),
            ct.SPEC.with_options(
                side=32,
                patch=8,
                volume_size=(8, 24, 24),
                tubelet=(4, 8, 8),
                spacing_mm=(20.0, 15.0, 15.0),
                # Both findings lie in the lungs: the usual lung window alone.
                windows_hu=((-600.0, 1500.0),),
            ),
            mri.SPEC.with_options(side=32, patch=8, streams=("slice",)),
            pathology.SPEC.with_options(side=16, patch=8, bag_side=16, max_tiles=12),
            eeg.SPEC.with_options(rate_hz=64.0, window_s=2.0, patch_len=32, max_channels=8),
            # The grammar of the phantoms is written on one strand, in words of a patch.
            genomics.SPEC.with_options(
                window_bp=128,
                patch=8,
                patch_hidden=256,
                both_strands=False,
                reverse_complement=False,
            ),
            scrna.SPEC.with_options(max_genes=64),
            protein.SPEC.with_options(max_residues=40),
        ),
        tasks=(
            disease.SPEC,
            tumor.SPEC,
            breast.SPEC,
            radiographic.SPEC,
            bone_age.SPEC,
            retinopathy.SPEC,
            motor.SPEC,
            cell_type.SPEC,
            expression.SPEC,
            # Short chains whose letters set their torsions.
            structure.SPEC.with_options(start="chain", width=32, pair_dim=16),
            vqa.SPEC,
        ),
        evals=(
            task_metrics.SPEC,
            modality_subsets.SPEC,
            label_text.SPEC,
            logistic_baseline.SPEC,
            ridge_baseline.SPEC,
            samples.SPEC,
        ),
        data=dict(
            sources=common.sources({"phantoms/all": 1.0}),
            lanes=4,
            rows=8,
            row_width=128,
            window=2048,
            stream_slack=1.5,
            # A model that may read one modality alone is measured on it alone too.
            modality_dropout=0.2,
        ),
        model=common.model_size(size),
        optim=dict(
            learning_rate=common.learning_rates(2e-3, warmup_steps=100),
            weight_decay=0.05,
            ema_decay=0.99,
        ),
        checkpoint=dict(every_steps=450),
        alignment=dict(weight=0.2, pair_rate=0.25),
        eval=dict(validation_every_steps=450),
    )
