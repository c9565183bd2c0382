from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.metrics.intervals import bootstrap_draws, make_resampling, resampled
from multimed_jax.specs import WIDEST_NAMESPACE, BaselineInputs, Namespace
from multimed_jax.tasks import expression
from multimed_jax.types import TargetSlots, UserError

SPEC = expression.SPEC


def levels(n: int = 50, columns: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(n, 1)) + rng.normal(size=(n, columns))
    predictions = targets + rng.normal(size=targets.shape)
    targets[rng.random(targets.shape) < 0.2] = np.nan
    return predictions.astype(np.float32), targets.astype(np.float32)


def test_metrics_across_elements_and_across_cells():
    predictions, targets = levels()
    known = ~np.isnan(targets)
    got = SPEC.metrics(predictions, targets)
    per_cell = [
        np.corrcoef(predictions[known[:, c], c], targets[known[:, c], c])[0, 1] for c in range(4)
    ]
    assert got["pearson"] == pytest.approx(np.mean(per_cell), rel=1e-6)
    per_element = [
        np.corrcoef(x[k], y[k])[0, 1]
        for x, y, k in zip(predictions, targets, known, strict=True)
        if k.sum() >= 3
    ]
    assert 20 < len(per_element) < 50
    assert got["pearson_across_cells"] == pytest.approx(np.mean(per_element), rel=1e-5)
    assert list(got)[0] == SPEC.primary_metric and SPEC.lower_is_better == {"mse"}
    one = SPEC.metrics(predictions[:, :1], targets[:, :1])
    assert set(one) == {"pearson", "spearman", "mse"}


def test_statistic_equals_metrics_of_repeated_records():
    predictions, targets = levels(40)
    resampling = make_resampling(np.arange(40) // 2, resamples=5)
    assert SPEC.statistic is not None
    fast = bootstrap_draws(SPEC.statistic(predictions, targets), resampling)
    slow = bootstrap_draws(resampled(SPEC.metrics, predictions, targets), resampling)
    assert fast.keys() == slow.keys()
    for name, values in slow.items():
        np.testing.assert_allclose(fast[name], values, rtol=1e-6)


def namespace(values: np.ndarray) -> Namespace:
    known = ~np.isnan(values)
    found = {"count": known.sum(0), "sum": np.nansum(values, 0)}
    found["sum_squares"] = np.nansum(values**2, 0)
    names = tuple(f"cell {i}" for i in range(values.shape[1]))
    made = {key: tuple(float(v) for v in value) for key, value in found.items()}
    return Namespace("lab", names, (0,) * len(names), made)


def test_the_mean_says_nothing_across_elements():
    _, targets = levels()
    space = namespace(targets)
    assert SPEC.baselines is not None
    found = SPEC.baselines(BaselineInputs(space, [], [{}] * 50))
    assert list(found) == ["mean"]
    np.testing.assert_allclose(found["mean"][7], np.nanmean(targets, 0), rtol=1e-6)
    figures = SPEC.metrics(found["mean"], targets)
    assert figures["pearson"] == 0.0
    assert figures["mse"] == pytest.approx(np.nanvar(targets, 0).mean(), rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_it_learns_levels_in_their_units(loss):
    """A linear truth on the log scale of each loss is found, and predictions have target units."""
    spec = SPEC.with_options(loss=loss)
    rng = np.random.default_rng(0)
    states = rng.normal(size=(1, 64, 3)).astype(np.float32)
    truth = states[0] @ np.array([[0.5, -0.2], [0.1, 0.4], [0.0, 0.3]]) * 4 + 3.0
    truth = np.log1p(np.exp(truth)).astype(np.float32)
    value = truth[None].copy()
    value[0, ::3, 1] = np.nan
    space = namespace(value[0].astype(float))
    head = spec.make_head(3, [space], nnx.Rngs(0))
    graph, params = nnx.split(head)
    ones = np.ones((1, 64), np.float32)
    slots = TargetSlots(ones.astype(int), value, ones, np.zeros((1, 64), int), ones[..., None])
    optimiser = optax.adam(0.05)

    @jax.jit
    def train(params):
        def loss_fn(p):
            return spec.loss_fn(nnx.merge(graph, p)(jnp.asarray(states)), slots, [space]).mean()

        def body(carry, _):
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss_fn)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, optimiser.init(params)), None, length=300)[0][0]

    trained = nnx.merge(graph, train(params))
    got = np.asarray(spec.predict(trained(jnp.asarray(states)), slots, [space]))[0]
    assert spec.metrics(got, truth)["pearson"] > 0.97
    assert np.abs(got - truth).mean() < 0.4


def test_spec_and_options():
    assert SPEC.target_shape == (WIDEST_NAMESPACE,) and SPEC.target_dtype == "float32"
    poisson = SPEC.with_options(loss="poisson")
    assert load_spec(to_json(poisson)) == poisson != SPEC == load_spec(to_json(SPEC))
    with pytest.raises(UserError, match="'l3'; accepted: mse, poisson"):
        SPEC.with_options(loss="l3")
    with pytest.raises(UserError, match="no option 'nonsense'"):
        SPEC.with_options(nonsense=1)
