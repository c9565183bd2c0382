"""Trivial predictors: a result without one of them beside it is not reported."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from threadpoolctl import threadpool_limits

# Inverse penalties (scikit-learn's C) that the logistic baseline chooses from, stiffest first: each
# fit of the cross-validation starts from the one before it.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 3
_MAX_ITERATIONS = 150


def majority_probabilities(
    class_counts: Sequence[int] | Int[np.ndarray, "C"], num_records: int
) -> Float[np.ndarray, "num_records C"]:
    """The majority-class predictor: the training shares of the classes, for every record.

    Its most probable class is the training majority; as a ranking it is uninformed.

    Raises:
        ValueError: where the training split holds no labelled record.
    """
    counts = np.asarray(class_counts, np.float64)
    if counts.ndim != 1 or counts.sum() <= 0:
        raise ValueError(f"class counts {list(class_counts)} hold no training record")
    return np.tile(counts / counts.sum(), (num_records, 1))


def prevalence_probabilities(
    counts: Sequence[float], positives: Sequence[float], num_records: int
) -> Float[np.ndarray, "num_records F"]:
    """The training share of positives of each label, for every record.

    Args:
        counts: training records in which each label is known; 0.5 stands for a label with none.
        positives: those that have it.
        num_records: rows of the result.
    """
    known = np.asarray(counts, np.float64)
    share = np.divide(np.asarray(positives), known, out=np.full(known.shape, 0.5), where=known > 0)
    return np.tile(share, (num_records, 1))


def logistic_regression(
    train_x: Float[np.ndarray, "n F"],
    train_y: Int[np.ndarray, "n"],
    test_x: Float[np.ndarray, "m F"],
    num_classes: int,
    seed: int,
    groups: Shaped[np.ndarray, "n"] | None = None,
) -> Float[np.ndarray, "m C"]:
    """Probabilities of an L2-penalised multinomial logistic regression.

    Features are standardised with the mean and deviation of train alone; a NaN (a modality that a
    record lacks) becomes the training mean. The penalty is the one of `STRENGTHS` with the best
    cross-validated accuracy inside train, over `FOLDS` folds that never split a group; ties go to
    the stronger penalty. Test features are only ever predicted.

    Args:
        train_x: training features.
        train_y: training classes, 0 to `num_classes` - 1.
        test_x: features to predict.
        num_classes: columns of the result; classes absent from train get 0.
        seed: of the folds.
        groups: group of each training record; None makes each record a group of its own.

    Raises:
        ValueError: where there is no training record.
    """
    if not len(train_y):
        raise ValueError("logistic regression needs at least one training record")
    owners = np.arange(len(train_y)) if groups is None else groups
    train_x, test_x = standardised(train_x, test_x)
    present = np.unique(train_y)
    if len(present) == 1 or not train_x.shape[1]:
        return majority_probabilities(np.bincount(train_y, minlength=num_classes), len(test_x))
    # One thread: figures that do not depend on the number of cores, and products this small only
    # lose by more (beside other work, two threads on two cores took 90 times as long).
    with threadpool_limits(limits=1):
        train_x, test_x = _rotated(train_x, test_x)
        strength = _choose_strength(train_x, train_y, owners, seed)
        model = _new_model()
        _fit(model, train_x, train_y, strength)
        probabilities = model.predict_proba(test_x)
    out = np.zeros((len(test_x), num_classes))
    out[:, model.classes_] = probabilities
    return out


def standardised(
    train_x: Float[np.ndarray, "n F"], test_x: Float[np.ndarray, "m F"]
) -> tuple[Float[np.ndarray, "n F"], Float[np.ndarray, "m F"]]:
    """Both in units of the mean and deviation of train; NaN and constant features become 0."""
    known = np.isfinite(train_x)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, train_x, 0.0).sum(0) / count
    deviation = np.sqrt((np.where(known, train_x - mean, 0.0) ** 2).sum(0) / count)
    # A constant feature says nothing; dividing it by a rounding error would make it a giant.
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = np.where(varies, deviation, np.inf)

    def scaled(x: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(x), (x - mean) / scale, 0.0).astype(np.float32)

    return scaled(train_x), scaled(test_x)


def _rotated(train_x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same features in the span of train where there are more features than records.

    An L2 penalty does not change under rotation, and the solution lies in the span of the training
    records: the fitted probabilities are the same, and the fit is faster.
    """
    if train_x.shape[1] <= train_x.shape[0]:
        return train_x, test_x
    basis = np.linalg.qr(train_x.T)[0]
    return train_x @ basis, test_x @ basis


def _choose_strength(
    train_x: np.ndarray, train_y: np.ndarray, groups: np.ndarray, seed: int
) -> float:
    correct = np.zeros(len(STRENGTHS))
    for train, held_out in _folds(train_y, groups, seed):
        if len(np.unique(train_y[train])) < 2:
            continue
        model = _new_model()
        for i, strength in enumerate(STRENGTHS):
            _fit(model, train_x[train], train_y[train], strength)
            hits = np.equal(model.predict(train_x[held_out]), train_y[held_out])
            correct[i] += np.count_nonzero(hits)
    return STRENGTHS[int(correct.argmax())]


def _folds(
    train_y: np.ndarray, groups: np.ndarray, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    num_groups = len(np.unique(groups))
    if num_groups < 2:
        return []
    num_folds = min(FOLDS, num_groups)
    rows = np.zeros((len(train_y), 1))
    if np.bincount(train_y).max() < num_folds:
        return list(GroupKFold(num_folds).split(rows, train_y, groups))
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A rare class has fewer members than folds: the folds are still valid.
        warnings.filterwarnings("ignore", message="The least populated class", module="sklearn")
        return [
            (train, held_out)
            for train, held_out in splitter.split(rows, train_y, groups)
            if len(train) and len(held_out)
        ]


def _fit(model: LogisticRegression, x: np.ndarray, y: np.ndarray, strength: float) -> None:
    """Fits in place, from the model's present coefficients where it has any."""
    model.set_params(C=strength)
    with warnings.catch_warnings():
        # The weakest penalties may stop at the limit; the folds judge them as they are.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)


def _new_model() -> LogisticRegression:
    return LogisticRegression(max_iter=_MAX_ITERATIONS, tol=1e-3, warm_start=True)
