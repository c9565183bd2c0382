"""Two modalities and one task of the tiny phantoms: for tests that start many processes."""

from __future__ import annotations

from configs import common
from multimed_jax.evaluators import task_metrics
from multimed_jax.modalities import text, xray
from multimed_jax.tasks import disease


def get_config():
    """A model that compiles in seconds; four lanes, for up to four devices."""
    return common.complete(
        method="multimodal",
        data_dir="data",
        seed=5,
        num_steps=40,
        log_every_steps=1,
        modalities=(
            xray.SPEC.with_options(side=32, patch=16),
            text.SPEC.with_options(max_tokens=16),
        ),
        tasks=(disease.SPEC,),
        evals=(task_metrics.SPEC,),
        data=dict(
            sources=common.sources({"phantoms/tiny": 1.0}),
            lanes=4,
            rows=2,
            row_width=32,
            window=64,
            stream_slack=2.0,
            modality_dropout=0.2,
            log_samples=True,
        ),
        model=dict(d_model=16, num_layers=1, num_heads=2),
        optim=dict(learning_rate=common.learning_rates(3e-3, warmup_steps=4), weight_decay=0.05),
        checkpoint=dict(every_steps=15),
        eval=dict(bootstrap=20),
    )
