"""Small parts of the figures: running means and shortened names."""

from __future__ import annotations

import numpy as np
import pytest

from multimed_jax.report.curves import smoothed
from multimed_jax.report.run_data import Curve
from multimed_jax.report.style import shorten


@pytest.mark.parametrize("n", [1, 2, 3, 100, 333])
def test_running_mean_equals_the_plain_one(n):
    values = np.random.default_rng(n).normal(size=n)
    half = max(1, n // 40)
    plain = []
    for i in range(n):
        reach = min(half, i, n - 1 - i)
        plain.append(values[i - reach : i + reach + 1].mean())
    np.testing.assert_allclose(smoothed(Curve(np.arange(n), values)), plain)


def test_names_are_cut_in_the_middle():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 7) == "abcd…jk"
    assert len(shorten("x" * 99, 22)) == 22
