"""The tiny run of the end-to-end tests, smaller still: for faults that need whole commands."""

from __future__ import annotations

from multimed_jax.modalities import eeg, scrna, text
from multimed_jax.tasks import disease, motor
from tests.end_to_end import tiny


def get_config():
    """Three of its modalities, few steps, records of every step logged."""
    config = tiny.get_config()
    config.modalities = (
        eeg.SPEC.with_options(window_s=2.0, rate_hz=64.0, patch_len=32, max_channels=8),
        scrna.SPEC.with_options(max_genes=16),
        text.SPEC.with_options(max_tokens=24),
    )
    config.tasks = (disease.SPEC, motor.SPEC)
    config.update(
        num_steps=16,
        data=dict(row_width=40, log_samples=True),
        eval=dict(bootstrap=10),
        checkpoint=dict(every_steps=4),
    )
    return config
