"""Bayes accuracies of the phantoms, from the channel label -> presentation alone.

With uniform labels over Y classes and a channel p(z|y), no classifier of a record x that depends
on the label through the presentation z only can beat

    C = sum_z max_y p(z|y) / Y                (label - presentation - record is a Markov chain)

and the forward models show z almost perfectly, so C is also reached: README.md gives the gap, and
a test measures it with the exact posterior of every forward model.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tfds_builders.phantoms.patient import CHANNELS


def bayes_accuracy(channel: Float[np.ndarray, "Y Z"]) -> float:
    """Accuracy of the best guess of a uniform label from what its channel shows."""
    return float(channel.max(axis=0).sum() / channel.shape[0])


def ceilings() -> dict[str, float]:
    """Task -> Bayes accuracy from everything that a record of the task holds."""
    return {task: bayes_accuracy(channel) for task, channel in CHANNELS.items()}


def subset_ceilings() -> dict[str, dict[str, float]]:
    """Disease from the X-ray (bit 1 of z), from the note (bit 2), and from both."""
    channel = CHANNELS["disease"].reshape(-1, 2, 2)
    return {
        "disease": {
            "xray": bayes_accuracy(channel.sum(axis=2)),
            "text": bayes_accuracy(channel.sum(axis=1)),
            "text+xray": bayes_accuracy(CHANNELS["disease"]),
        }
    }
