"""A run over the tiny phantoms that ends in seconds: for the tests of whole commands."""

from __future__ import annotations

from configs import common
from multimed_jax.evaluators import task_metrics
from multimed_jax.modalities import eeg, mri, scrna, text, xray
from multimed_jax.tasks import cell_type, disease, motor, tumor


def get_config():
    """Shapes as small as they go, all modalities and tasks of the phantoms."""
    return common.complete(
        method="multimodal_multitask",
        data_dir="data",
        seed=3,
        num_steps=40,
        log_every_steps=1,
        modalities=(
            mri.SPEC.with_options(side=32, patch=16, streams=("slice",)),
            xray.SPEC.with_options(side=32, patch=16),
            eeg.SPEC.with_options(window_s=2.0, rate_hz=64.0, patch_len=32, max_channels=8),
            scrna.SPEC.with_options(max_genes=16),
            text.SPEC.with_options(max_tokens=24),
        ),
        tasks=(tumor.SPEC, disease.SPEC, motor.SPEC, cell_type.SPEC),
        evals=(task_metrics.SPEC,),
        data=dict(
            sources=common.sources({"phantoms/tiny": 1.0}),
            lanes=8,
            rows=2,
            row_width=48,
            window=128,
            stream_slack=2.0,
            modality_dropout=0.2,
        ),
        model=dict(d_model=16, num_layers=1, num_heads=2),
        optim=dict(
            learning_rate=common.learning_rates(3e-3, warmup_steps=4),
            weight_decay=0.05,
            lambdas={"disease/text": dict(kind="linear", value=1.0, end_value=0.5)},
        ),
        checkpoint=dict(every_steps=6),
        eval=dict(bootstrap=50),
    )
