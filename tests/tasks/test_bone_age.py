"""bone_age: absolute error in deviations of the source, figures in months, honest constants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics import mean_absolute_error

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.metrics.intervals import resampled
from multimed_jax.metrics.regression import weighted_regression
from multimed_jax.specs import WIDEST_NAMESPACE, BaselineInputs, Namespace
from multimed_jax.tasks.bone_age import FIGURES, SPEC, baselines
from multimed_jax.types import TargetSlots, UserError


def space(name: str, months: list[float]) -> Namespace:
    values = np.array(months)
    sums = {
        "count": (float(len(values)),),
        "sum": (float(values.sum()),),
        "sum_squares": (float((values**2).sum()),),
    }
    return Namespace(name, ("months",), (), sums)


FIRST, SECOND = [24.0, 120.0, 150.0, 160.0], [60.0, 61.0, 65.0]
SPACES = (space("a", FIRST), space("b", SECOND))


def make_slots(namespace, months) -> TargetSlots:
    namespace = jnp.asarray(namespace, jnp.int32)
    return TargetSlots(
        segment=jnp.ones(namespace.shape, jnp.int32),
        value=jnp.asarray(months, jnp.float32)[..., None],
        weight=jnp.ones(namespace.shape),
        namespace=namespace,
        modality_share=jnp.ones((*namespace.shape, 1)),
    )


def test_spec():
    assert load_spec(to_json(SPEC)) == SPEC
    assert SPEC.target_shape == (WIDEST_NAMESPACE,) and SPEC.target_dtype == "float32"
    assert SPEC.lower_is_better == {"mae_months"}


def test_loss_is_absolute_error_in_deviations_and_predictions_are_months():
    head = SPEC.make_head(8, SPACES, nnx.Rngs(0))
    states = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8)), jnp.float32)
    slots = make_slots([[0, 1, 0]], [[130.0, 50.0, np.nan]])
    outputs = head(states)
    loss = np.asarray(SPEC.loss_fn(outputs, slots, SPACES))[0]
    found = np.asarray(SPEC.predict(outputs, slots, SPACES))[0]
    for k, (months, name, train) in enumerate([(130.0, "a", FIRST), (50.0, "b", SECOND)]):
        score = np.asarray(head.leaves[name](states))[0, k, 0]
        expected = np.mean(train) + np.std(train) * score
        assert found[k].tolist() == pytest.approx(
            [expected, 0.0] if name == "a" else [0.0, expected], rel=1e-5
        )
        assert loss[k] == pytest.approx(abs(expected - months) / np.std(train), rel=1e-4)
    assert loss[2] == 0.0
    graph, params = nnx.split(head)
    grads = jax.grad(lambda p: SPEC.loss_fn(nnx.merge(graph, p)(states), slots, SPACES).sum())(
        params
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_metrics_equal_the_references_and_their_resamples():
    rng = np.random.default_rng(1)
    months = rng.uniform(12, 216, (50, 1))
    said = months + 15 * rng.normal(size=(50, 1))
    said[0], months[0] = 100.0, 112.0  # just right
    values = SPEC.metrics(said, months)
    assert values == pytest.approx(
        {
            "accuracy_within_12_months": np.mean(np.abs(said - months) <= 12),
            "mae_months": mean_absolute_error(months, said),
            "pearson": np.corrcoef(said[:, 0], months[:, 0])[0, 1],
        }
    )
    assert next(iter(values)) == SPEC.primary_metric
    weights = rng.poisson(1.0, (5, 50))
    fast, slow = (
        weighted_regression(FIGURES, said, months)(weights),
        resampled(SPEC.metrics, said, months)(weights),
    )
    for name in values:
        np.testing.assert_allclose(fast[name], slow[name])


def train_of(months) -> list[dict]:
    return [{"targets": {"bone_age": np.array([value], np.float32)}} for value in months]


def test_baselines_are_the_best_constants_of_train():
    rng = np.random.default_rng(2)
    months = np.concatenate([rng.uniform(0, 100, 60), rng.uniform(150, 174, 40), [np.nan]])
    found = baselines(BaselineInputs(SPACES[0], train_of(months), [{}, {}]))
    assert list(found) == ["median", "best_constant"]
    known = months[np.isfinite(months)].astype(np.float32)
    np.testing.assert_allclose(found["median"], np.full((2, 1), np.median(known)))
    tried = [np.mean(np.abs(known - constant) <= 12) for constant in np.arange(0, 230, 0.05)]
    reached = np.mean(np.abs(known - found["best_constant"][0, 0]) <= 12)
    assert reached >= max(tried) - 1e-9


def test_a_large_train_split_is_read_in_part():
    read = []

    class Train:
        def __getitem__(self, row: int):
            read.append(row)
            return {"targets": {"bone_age": np.array([float(row)], np.float32)}}

        def __len__(self):
            return 10_001

    found = baselines(BaselineInputs(SPACES[0], Train(), [{}]))
    assert len(read) <= 4000
    assert found["median"][0, 0] == pytest.approx(5000, abs=3)


@pytest.mark.parametrize("months", [[], [np.nan]])
def test_no_age_in_train_is_a_users_error(months):
    with pytest.raises(UserError, match="no training record of 'a'"):
        baselines(BaselineInputs(SPACES[0], train_of(months), [{}]))
