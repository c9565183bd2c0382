"""Bayes' rule for the phantoms' images: a scene, plus an object, plus white noise."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp


def normalise(log_joint: np.ndarray) -> np.ndarray:
    """p(class | image) from log p(image, class), [n, class]."""
    return np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))


def additive_log_likelihood(
    images: np.ndarray, scenes: np.ndarray, objects: np.ndarray, noise_sd: float
) -> np.ndarray:
    """log mean_scene p(image | scene + object) up to a constant, [image, object].

    White noise: |x - s - o|^2 = |x - s|^2 - 2 (x - s).o + |o|^2, from inner products only.
    """
    x = images.reshape(len(images), -1).astype(np.float64)
    s, o = scenes.reshape(len(scenes), -1), objects.reshape(len(objects), -1)
    out = np.empty((len(x), len(o)))
    s_o, o_o = s @ o.T, (o**2).sum(axis=1)
    s_s, x_s, x_o = (s**2).sum(axis=1), x @ s.T, x @ o.T
    for row in range(len(x)):
        energy = (s_s - 2 * x_s[row])[:, None] - 2 * (x_o[row] - s_o) + o_o
        log_p = -energy / (2 * noise_sd**2)
        # Scenes less likely than the best by e^-60 under every object add nothing.
        best = log_p.max(axis=1)
        out[row] = logsumexp(log_p[best > best.max() - 60], axis=0)
    return out


def group_mean(log_likelihood: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """log mean over the objects of each group (0, 1, ...)."""
    columns = [log_likelihood[:, groups == g] for g in range(groups.max() + 1)]
    return np.stack([logsumexp(c, axis=1) - np.log(c.shape[1]) for c in columns], axis=1)


def with_offsets(scenes: np.ndarray, offsets: tuple[float, ...]) -> np.ndarray:
    """Every scene at every grey offset."""
    return np.concatenate([scenes + offset for offset in offsets])


def standard_error(accuracy: float, number: int) -> float:
    """Of a share."""
    return float(np.sqrt(accuracy * (1 - accuracy) / number))
