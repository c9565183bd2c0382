"""radiographic: masked binary cross-entropy over namespaces of different widths."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit
from sklearn.metrics import log_loss

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.specs import WIDEST_NAMESPACE, BaselineInputs, Namespace
from multimed_jax.tasks.radiographic import SPEC, baselines
from multimed_jax.types import UserError
from tests.layers.test_heads import make_slots

SPACES = (
    Namespace(
        "wide",
        ("effusion", "nodule", "edema"),
        (30, 0, 5),
        {"count": (100.0, 50.0, 0.0), "sum": (30.0, 0.0, 0.0), "sum_squares": (30.0, 0.0, 0.0)},
    ),
    Namespace("b", ("p", "q"), (1, 2), {"count": (4.0, 4.0), "sum": (1.0, 2.0)}),
)
COLUMNS = [slice(0, 3), slice(3, 5)]
NAMESPACE = [[0, 1, 0, 1]]
# The third place of namespace b is padding, whatever it holds.
VALUE = [[[1, 0, -1], [0, 1, -1], [-1, -1, -1], [1, -1, 1]]]


def test_loss_and_predictions_equal_the_definition():
    outputs = 3 * np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
    slots = make_slots(NAMESPACE, VALUE)
    loss = np.asarray(SPEC.loss_fn(jnp.asarray(outputs), slots, SPACES))
    found = np.asarray(SPEC.predict(jnp.asarray(outputs), slots, SPACES))
    for k in range(4):
        own = COLUMNS[NAMESPACE[0][k]]
        probabilities = expit(outputs[0, k, own].astype(float))
        np.testing.assert_allclose(found[0, k, own], probabilities, atol=1e-6)
        assert found[0, k].sum() == pytest.approx(probabilities.sum(), abs=1e-5)
        truth = np.array(VALUE[0][k])[: len(probabilities)]
        known = truth >= 0
        expected = (
            log_loss(truth[known], probabilities[known], labels=[0, 1]) if known.any() else 0.0
        )
        assert loss[0, k] == pytest.approx(expected, abs=1e-5)


def test_a_new_head_starts_at_the_training_odds():
    head = SPEC.make_head(8, SPACES, nnx.Rngs(0))
    start = expit(np.asarray(head(jnp.zeros((1, 1, 8))))[0, 0])
    # (positives + 1/2) / (known + 1); a finding never seen starts near 0, one never told at 1/2.
    np.testing.assert_allclose(start, [30.5 / 101, 0.5 / 51, 0.5, 1.5 / 5, 0.5], atol=1e-6)


def test_spec():
    assert load_spec(to_json(SPEC)) == SPEC
    assert SPEC.target_shape == (WIDEST_NAMESPACE,) and SPEC.target_dtype == "int32"
    assert SPEC.primary_metric == "label_accuracy"


def test_baseline_is_the_prevalence_of_train():
    found = baselines(BaselineInputs(SPACES[0], None, [{}, {}]))
    assert list(found) == ["prevalence"]
    np.testing.assert_allclose(found["prevalence"], [[0.3, 0.0, 0.5]] * 2)
    with pytest.raises(UserError, match="'old' count no findings"):
        baselines(BaselineInputs(Namespace("old", ("x",), (1,)), None, [{}]))
