"""The training loop's own arithmetic; whole runs are in end_to_end."""

from __future__ import annotations

from typing import Any

import pytest

from multimed_jax import train


def test_the_log_tells_the_share_of_time_that_waits_for_input(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])

    def batches(seconds):
        for second in seconds:
            now[0] += second
            yield second

    window = train._Window()
    stream: Any = batches([1.0, 2.0, 0.0])
    for _ in range(3):
        window.next(stream)
        now[0] += 3.0  # the step itself
    assert window.take()["input_wait"] == pytest.approx(3 / 12)
    now[0] += 5.0
    assert window.take()["input_wait"] == 0.0  # what was taken does not count twice
