"""Resampling of signals between sample rates, on the host."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
from jaxtyping import Float
from scipy import signal

# Rates are stored as float32; all in use are fractions with a denominator far below this.
MAX_DENOMINATOR = 1000


@functools.lru_cache(maxsize=256)
def rate_ratio(from_hz: float, to_hz: float) -> tuple[int, int]:
    """(up, down) in lowest terms with to_hz = from_hz * up / down."""
    target = Fraction(to_hz).limit_denominator(MAX_DENOMINATOR)
    ratio = target / Fraction(from_hz).limit_denominator(MAX_DENOMINATOR)
    return ratio.numerator, ratio.denominator


def resampled_length(num_samples: int, from_hz: float, to_hz: float) -> int:
    """Samples after resampling."""
    up, down = rate_ratio(from_hz, to_hz)
    return -(-num_samples * up // down)


@functools.lru_cache(maxsize=64)
def _low_pass(up: int, down: int) -> Float[np.ndarray, "taps"]:
    """The anti-aliasing filter of `scipy.signal.resample_poly`, which designs it at every call.

    A windowed sinc, ten zero crossings of the slower rate to each side, Kaiser beta 5, unit sum.
    """
    fastest = max(up, down)
    offset = np.arange(-10 * fastest, 10 * fastest + 1)
    taps = np.sinc(offset / fastest) * np.kaiser(len(offset), 5.0)
    return (taps / taps.sum()).astype(np.float32)


def resample(
    values: Float[np.ndarray, "T C"], from_hz: float, to_hz: float
) -> Float[np.ndarray, "T2 C"]:
    """Polyphase resampling along the first axis; outside the signal the values count as 0."""
    up, down = rate_ratio(from_hz, to_hz)
    if up == down:
        return values
    return signal.resample_poly(values, up, down, axis=0, window=_low_pass(up, down))
