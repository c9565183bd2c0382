from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from multimed_jax.layers.regression import (
    LossKind,
    NamespacedRegressor,
    column_scale,
    regression_loss,
    regression_values,
    training_mean,
)
from multimed_jax.specs import BaselineInputs, Namespace
from multimed_jax.types import TargetSlots, UserError

TRAIN = {
    "lab a": np.array([[1.0, 10.0], [3.0, np.nan], [5.0, 30.0]]),
    "b": np.array([[120.0], [121.0], [125.0]]),
    "c": np.array([[7.0, np.nan, 0.5], [7.0, np.nan, 1.5], [7.0, np.nan, 4.0]]),
}


def space(name: str) -> Namespace:
    values = TRAIN[name]
    known = ~np.isnan(values)
    stats_of = {
        "count": known.sum(0),
        "sum": np.nansum(values, 0),
        "sum_squares": np.nansum(values**2, 0),
    }
    names = tuple(f"column {i}" for i in range(values.shape[1]))
    counts = tuple(0 for _ in names)
    return Namespace(name, names, counts, {k: tuple(map(float, v)) for k, v in stats_of.items()})


SPACES = tuple(space(name) for name in TRAIN)
# Mean and deviation of each of the six columns by hand.
MEAN = np.array([3.0, 20.0, 122.0, 7.0, 0.0, 2.0])
DEVIATION = np.array([(8 / 3) ** 0.5, 10.0, (14 / 3) ** 0.5, 1.0, 1.0, (13 / 6) ** 0.5])
COLUMNS = (slice(0, 2), slice(2, 3), slice(3, 6))
NAN = np.nan


def make_slots() -> TargetSlots:
    value = np.array(
        [
            [[2.0, NAN, NAN], [119.0, NAN, NAN], [8.0, NAN, 2.5]],
            [[NAN, NAN, NAN], [1.0, 15.0, NAN], [NAN, NAN, NAN]],
        ],
        np.float32,
    )
    namespace = np.array([[0, 1, 2], [2, 0, 0]])
    ones = np.ones((2, 3), np.float32)
    return TargetSlots(ones.astype(int), value, ones, namespace, ones[..., None])


def outputs() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(2, 3, 6))
    return (MEAN + 1.5 * DEVIATION * noise).astype(np.float32)


def test_outputs_are_in_target_units():
    head = NamespacedRegressor(8, SPACES, nnx.Rngs(0))
    states = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)
    got = np.asarray(head(jnp.asarray(states)))
    leaves = [head.leaves[name] for name in ("lab_a", "b", "c")]
    scores = np.concatenate(
        [states @ np.asarray(leaf.kernel[...]) + np.asarray(leaf.bias[...]) for leaf in leaves], -1
    )
    np.testing.assert_allclose(got, MEAN + DEVIATION * scores, rtol=1e-5)
    for name, columns in zip(SPACES, COLUMNS, strict=True):
        mean, deviation = column_scale(name)
        np.testing.assert_allclose(mean, MEAN[columns])
        np.testing.assert_allclose(deviation, DEVIATION[columns])


def cost(kind: str, output: float, target: float, deviation: float) -> float:
    error = (output - target) / deviation
    if kind == "mse":
        return error**2
    if kind == "l1":
        return abs(error)
    if kind == "huber":
        return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
    rate = np.logaddexp(0.0, output)
    whole = round(target)
    assert whole == target, "the reference is that of counts"
    # Half the deviance: the likelihood of the saturated model over that of the rate.
    return float(stats.poisson.logpmf(whole, whole) - stats.poisson.logpmf(whole, rate))


@pytest.mark.parametrize("kind", ["mse", "l1", "huber", "poisson"])
def test_losses_over_known_columns_of_the_own_namespace(kind):
    slots, values = make_slots(), outputs()
    if kind == "poisson":
        slots.value[0, 2, 2] = 3.0
    got = np.asarray(jax.jit(lambda o: regression_loss(o, slots, SPACES, kind))(values))
    for p, k in np.ndindex(2, 3):
        own = np.arange(6)[COLUMNS[slots.namespace[p, k]]]
        costs = [
            cost(kind, float(values[p, k, c]), float(t), float(DEVIATION[c]))
            for c, t in zip(own, slots.value[p, k], strict=False)
            if not np.isnan(t)
        ]
        expected = np.mean(costs) if costs else 0.0
        assert got[p, k] == pytest.approx(expected, rel=1e-3, abs=1e-4), (p, k)


@pytest.mark.parametrize("kind", ["mse", "l1", "huber", "poisson"])
def test_gradients_reach_known_columns_alone(kind):
    slots = make_slots()
    slots.value[0, 1, 0] = -2.0  # below 0: counts as 0 in a Poisson loss
    gradient = np.asarray(
        jax.jit(jax.grad(lambda o: regression_loss(o, slots, SPACES, kind).sum()))(outputs())
    )
    known = np.zeros((2, 3, 6), bool)
    for p, k, c in [(0, 0, 0), (0, 1, 2), (0, 2, 3), (0, 2, 5), (1, 1, 0), (1, 1, 1)]:
        known[p, k, c] = True
    assert np.isfinite(gradient).all()
    assert (gradient[known] != 0).all() and not gradient[~known].any()


def test_predictions_are_zero_outside_the_namespace():
    slots, values = make_slots(), outputs()
    wanted: dict[LossKind, np.ndarray] = {"mse": values, "poisson": np.logaddexp(0.0, values)}
    for kind, expected in wanted.items():
        got = np.asarray(regression_values(jnp.asarray(values), slots, SPACES, kind))
        for p, k in np.ndindex(2, 3):
            own = COLUMNS[slots.namespace[p, k]]
            np.testing.assert_allclose(got[p, k, own], expected[p, k, own], rtol=1e-5)
            assert np.count_nonzero(got[p, k]) == own.stop - own.start


def test_the_baseline_is_the_training_mean():
    got = training_mean(BaselineInputs(SPACES[0], [], [{}, {}]))
    np.testing.assert_allclose(got, [[3.0, 20.0]] * 2)


def test_illegal_namespaces():
    with pytest.raises(UserError, match="statistics of none"):
        NamespacedRegressor(8, [Namespace("a", ("x",), (0,))], nnx.Rngs(0))
    with pytest.raises(UserError, match="has 0 columns"):
        column_scale(Namespace("a", (), ()))
    twins = [space("b"), space("b")]
    with pytest.raises(UserError, match="parameter name 'b'"):
        NamespacedRegressor(8, twins, nnx.Rngs(0))
