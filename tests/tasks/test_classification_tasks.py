"""tumor, disease, motor and cell_type: linear heads over namespaces."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.special import log_softmax
from sklearn import metrics as reference

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.layers.heads import log_prior
from multimed_jax.tasks import cell_type, disease, motor, tumor
from tests.layers.test_heads import COLUMNS, SPACES, make_slots

SPECS = [tumor.SPEC, disease.SPEC, motor.SPEC, cell_type.SPEC]
# What the benchmark's protocol says that each task reports.
REPORTED = {
    "tumor": {"accuracy", "macro_f1"},
    "disease": {
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "auroc",
        "sensitivity",
        "specificity",
    },
    "motor": {"accuracy", "kappa"},
    "cell_type": {"accuracy", "macro_f1"},
}


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_spec(spec):
    assert load_spec(to_json(spec)) == spec
    assert spec.target_shape == () and spec.target_dtype == "int32"
    assert spec.primary_metric == "accuracy"


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_metrics(spec):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet(np.ones(3), 200) + 0.4 * np.eye(3)[targets]
    values = spec.metrics(probabilities / 1.4, targets)
    assert set(values) == REPORTED[spec.name]
    guess = probabilities.argmax(1)
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(targets, guess))
    if "macro_f1" in values:
        expected = reference.f1_score(targets, guess, average="macro")
        assert values["macro_f1"] == pytest.approx(expected)
    if "kappa" in values:
        assert values["kappa"] == pytest.approx(reference.cohen_kappa_score(targets, guess))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_loss_and_predictions_fit_together(spec):
    head = spec.make_head(8, SPACES, nnx.Rngs(0))
    states = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8)), jnp.float32)
    namespace = np.array([[0, 1, 2, 0], [1, 0, 0, 1]])
    slots = make_slots(namespace, [[2, 1, 0, 0], [0, 1, -1, 1]])
    outputs = head(states)
    loss, probabilities = spec.loss_fn(outputs, slots, SPACES), spec.predict(outputs, slots, SPACES)
    leaves = np.concatenate(
        [head.leaves[n](states) for n in ("hospital_a_native", "b", "c")], axis=-1
    )
    if spec.name == "disease":
        leaves = leaves + log_prior(SPACES)
    for p, k in np.ndindex(2, 4):
        own = COLUMNS[namespace[p, k]]
        log_p = log_softmax(leaves[p, k, own].astype(float))
        np.testing.assert_allclose(probabilities[p, k, own], np.exp(log_p), atol=1e-5)
        value = int(slots.value[p, k])
        assert loss[p, k] == pytest.approx(-log_p[value] if value >= 0 else 0.0, abs=1e-5)


def test_disease_predicts_the_frequencies_that_it_saw():
    """Trained where the input says nothing, it must answer the class shares, not equal chances."""
    head = disease.SPEC.make_head(4, SPACES[:1], nnx.Rngs(0))
    graph, params = nnx.split(head)
    slots = make_slots(np.zeros((1, 10)), [[0] * 6 + [1] * 3 + [2]])
    states = jnp.zeros((1, 10, 4))
    optimiser = optax.sgd(0.5)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state):
        def loss(params):
            return disease.SPEC.loss_fn(nnx.merge(graph, params)(states), slots, SPACES[:1]).mean()

        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(20):
        params, state = step(params, state)
    trained = nnx.merge(graph, params)
    got = disease.SPEC.predict(trained(states), slots, SPACES[:1])[0, 0]
    np.testing.assert_allclose(got, [0.6, 0.3, 0.1], atol=1e-4)
    # The leaf itself has learnt no frequency: its scores are equal.
    np.testing.assert_allclose(trained.leaves["hospital_a_native"].bias[...], 0.0, atol=1e-4)
