"""Operations and time of a run by formula."""

from __future__ import annotations

from multimed_jax.config import ModelConfig

# Multiplication and addition apart; a backward pass is two forward passes.
# Source: Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1.
_FORWARD_AND_BACKWARD = 3


def layer_weights(config: ModelConfig) -> int:
    """Matrix elements of the trunk's layers."""
    hidden = int(config.mlp_ratio * config.d_model)
    return config.num_layers * config.d_model * (4 * config.d_model + 2 * hidden)


def flops_per_token(config: ModelConfig, attended: float) -> float:
    """Model FLOPs of a training step for a useful token: the trunk, forward and backward.

    `attended` tokens are seen by a token: the scores and the weighted sum take 2 D each of them.
    Tokenizers, heads, recomputation and padding are not counted.
    """
    forward = 2 * layer_weights(config) + 4 * config.num_layers * config.d_model * attended
    return float(_FORWARD_AND_BACKWARD * forward)


def tokens_per_s(mfu: float, peak_tflops: float, devices: int, flops: float) -> float:
    """Useful tokens in a second at a share of the devices' peak."""
    return mfu * peak_tflops * 1e12 * devices / flops


def run_time_s(num_steps: int, tokens_per_step: float, rate: float) -> float:
    """Seconds of a run at a rate of useful tokens in a second; steps alone."""
    return num_steps * tokens_per_step / rate
