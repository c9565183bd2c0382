"""Ridge regression on simple features, its strength chosen inside train: a baseline of values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from multimed_jax.metrics.baselines import standardised

# Penalties on the squared weights of standardised features, per training record; strongest first.
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
FOLDS = 5


def ridge_regression(
    train_x: Float[np.ndarray, "n F"],
    train_y: Float[np.ndarray, "n C"],
    test_x: Float[np.ndarray, "m F"],
    seed: int,
    groups: Shaped[np.ndarray, "n"] | None = None,
) -> Float[np.ndarray, "m C"]:
    """Predictions of one ridge regression for each column of values.

    Features are standardised with the mean and deviation of train alone; a NaN becomes the training
    mean. A column is fitted on the records where it is known, around their mean; its penalty is the
    one of `PENALTIES` with the lowest cross-validated squared error inside train, over `FOLDS`
    folds that never split a group; ties go to the stronger one. A column that is never known is
    predicted as 0.

    Args:
        train_x: training features.
        train_y: training values, NaN where not known.
        test_x: features to predict.
        seed: of the folds.
        groups: group of each training record; None makes each record a group of its own.

    Raises:
        ValueError: where there is no training record.
    """
    if not len(train_y):
        raise ValueError("ridge regression needs at least one training record")
    owners = np.arange(len(train_y)) if groups is None else np.asarray(groups)
    train_x, test_x = (x.astype(np.float64) for x in standardised(train_x, test_x))
    out = np.zeros((len(test_x), train_y.shape[1]))
    # One thread, for figures that do not depend on the number of cores.
    with threadpool_limits(limits=1):
        for column, known in _by_known(train_y):
            y = train_y[np.ix_(known, column)].astype(np.float64)
            if not len(known):
                continue
            x = train_x[known]
            best = _chosen(x, y, owners[known], seed)
            fits = _predictions(x, y, test_x)
            out[:, column] = fits[best, :, np.arange(len(column))].T
    return out


def _by_known(train_y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns that are known in the same records, and those records."""
    masks, owner = np.unique(np.isfinite(train_y), axis=1, return_inverse=True)
    owner = owner.reshape(-1)
    return [
        (np.flatnonzero(owner == i), np.flatnonzero(masks[:, i])) for i in range(masks.shape[1])
    ]


def _chosen(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Index of the best penalty of each column."""
    num_groups = len(np.unique(groups))
    errors = np.zeros((len(PENALTIES), y.shape[1]))
    if num_groups < 2:
        return errors.argmin(0)
    splitter = GroupKFold(min(FOLDS, num_groups), shuffle=True, random_state=seed)
    for train, held_out in splitter.split(x, y, groups):
        fits = _predictions(x[train], y[train], x[held_out])
        errors += ((fits - y[held_out]) ** 2).sum(1)
    return errors.argmin(0)


def _predictions(
    x: Float[np.ndarray, "n F"], y: Float[np.ndarray, "n C"], test_x: Float[np.ndarray, "m F"]
) -> Float[np.ndarray, "S m C"]:
    """Of the fit with each penalty; one decomposition serves all."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y, test_x = x - mean_x, y - mean_y, test_x - mean_x
    wide = x.shape[1] > x.shape[0]
    gram = x @ x.T if wide else x.T @ x
    values, basis = np.linalg.eigh(gram)
    seen = test_x @ x.T @ basis if wide else test_x @ basis
    rotated = basis.T @ y if wide else basis.T @ (x.T @ y)
    shrunk = values[None] + len(x) * np.array(PENALTIES)[:, None]
    return seen @ (rotated[None] / shrunk[..., None]) + mean_y
