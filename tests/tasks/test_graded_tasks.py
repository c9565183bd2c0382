"""retinopathy and breast: ordered thresholds over namespaces, metrics of grades."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit
from sklearn import metrics as reference

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.layers.heads import NamespacedClassifier
from multimed_jax.layers.ordinal import NamespacedOrdinal
from multimed_jax.specs import Namespace
from multimed_jax.tasks import breast, retinopathy
from multimed_jax.types import UserError
from tests.layers.test_heads import make_slots

SPACES = (
    Namespace("clinic a", ("none", "mild", "moderate", "severe"), (70, 20, 9, 1)),
    Namespace("b", ("benign", "malignant"), (30, 10)),
    Namespace("c", ("I", "II", "III"), (0, 5, 5)),
)
UNIT = 10.0  # of a stored threshold, in logits
COLUMNS = [slice(0, 4), slice(4, 6), slice(6, 9)]
SPECS = [retinopathy.SPEC, breast.SPEC]


@pytest.fixture(scope="module")
def head():
    return NamespacedOrdinal(8, SPACES, nnx.Rngs(0))


def states(seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(3 * rng.normal(size=(2, 6, 8)), jnp.float32)


NAMESPACE = [[0, 1, 2, 0, 1, 2], [2, 0, 0, 1, 1, 0]]
VALUE = [[3, 1, 0, 0, 0, 2], [1, 2, -1, 1, -1, 1]]


def by_hand(head, x) -> list[np.ndarray]:
    """P(at least k) for k >= 1 of each namespace, in float64."""
    out = []
    for name in ("clinic_a", "b", "c"):
        leaf = head.leaves[name]
        w = np.asarray(leaf.direction.kernel[...], np.float64)[:, 0]
        raw = UNIT * np.asarray(leaf.thresholds[...], np.float64)
        bias = [raw[0]]
        for gap in raw[1:]:
            bias.append(bias[-1] - np.log1p(np.exp(gap)))
        out.append(expit(np.asarray(x, np.float64) @ w + np.array(bias)[:, None, None]))
    return out


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_probabilities_and_loss_equal_the_definition(spec, head):
    x = states()
    slots = make_slots(NAMESPACE, VALUE)
    outputs = head(x)
    assert outputs.shape == (2, 6, 9)
    found = np.asarray(spec.predict(outputs, slots, SPACES))
    loss = np.asarray(spec.loss_fn(outputs, slots, SPACES))
    at_least = by_hand(head, x)
    for p, k in np.ndindex(2, 6):
        space, value = NAMESPACE[p][k], VALUE[p][k]
        ours = at_least[space][:, p, k]
        expected = -np.diff(np.concatenate([[1.0], ours, [0.0]]))
        assert (expected > 0).all()
        np.testing.assert_allclose(found[p, k, COLUMNS[space]], expected, atol=1e-6)
        assert np.delete(found[p, k], np.arange(9)[COLUMNS[space]]).tolist() == [0.0] * (
            9 - len(SPACES[space].class_names)
        )
        has = np.array([value >= grade for grade in range(1, len(ours) + 1)])
        entropy = -np.where(has, np.log(ours), np.log(1 - ours)).sum() if value >= 0 else 0.0
        assert loss[p, k] == pytest.approx(entropy, rel=1e-4, abs=1e-6)


def test_a_new_head_predicts_the_training_shares(head):
    """With no direction yet; a grade never seen counts as one record."""
    slots = make_slots([[0, 1, 2]], [[0, 0, 0]])
    found = np.asarray(
        retinopathy.SPEC.predict(head(jnp.zeros((1, 3, 8))), slots, SPACES), np.float64
    )[0]
    np.testing.assert_allclose(found[0, COLUMNS[0]], [0.7, 0.2, 0.09, 0.01], atol=1e-6)
    np.testing.assert_allclose(found[1, COLUMNS[1]], [0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(found[2, COLUMNS[2]], [1 / 11, 5 / 11, 5 / 11], atol=1e-6)


def test_without_counts_every_grade_starts_equal():
    spaces = (Namespace("new", ("I", "II", "III", "IV"), ()),)
    head = NamespacedOrdinal(8, spaces, nnx.Rngs(0))
    found = retinopathy.SPEC.predict(head(jnp.zeros((1, 1, 8))), make_slots([[0]], [[0]]), spaces)
    np.testing.assert_allclose(found[0, 0], np.full(4, 0.25), atol=1e-6)


def test_two_classes_are_logistic_regression():
    """The same loss and gradient as the cross-entropy of a leaf whose first column is 0."""
    ordered, free = breast.SPEC, breast.SPEC.with_options(ordered=False)
    space = (Namespace("b", ("benign", "malignant"), (30, 10)),)
    slots = make_slots([[0, 0]], [[1, 0]])
    logit = np.array([1.3, -0.4])
    outputs = jnp.asarray(np.stack([np.zeros(2), logit], -1)[None], jnp.float32)
    np.testing.assert_allclose(
        ordered.loss_fn(outputs, slots, space), free.loss_fn(outputs, slots, space), rtol=1e-5
    )
    np.testing.assert_allclose(
        ordered.predict(outputs, slots, space), free.predict(outputs, slots, space), rtol=1e-5
    )


def test_gradients_reach_direction_and_thresholds(head):
    """Against finite differences of the definition in float64."""
    x, slots = states(1), make_slots(NAMESPACE, VALUE)
    graph, params = nnx.split(head)
    got = jax.grad(lambda p: retinopathy.SPEC.loss_fn(nnx.merge(graph, p)(x), slots, SPACES).sum())(
        params
    )
    raw = UNIT * np.asarray(head.leaves["clinic_a"].thresholds[...], np.float64)
    w = np.asarray(head.leaves["clinic_a"].direction.kernel[...], np.float64)[:, 0]
    mine = (np.asarray(NAMESPACE) == 0) & (np.asarray(VALUE) >= 0)
    inputs, values = np.asarray(x, np.float64)[mine], np.asarray(VALUE)[mine]

    def loss(theta):
        bias = theta[0] - np.concatenate([[0.0], np.cumsum(np.log1p(np.exp(theta[1:3])))])
        at_least = expit((inputs @ theta[3:])[:, None] + bias)
        has = values[:, None] >= np.array([1, 2, 3])
        return -np.where(has, np.log(at_least), np.log(1 - at_least)).sum()

    theta, step = np.concatenate([raw, w]), 1e-5
    expected = np.array(
        [(loss(theta + step * e) - loss(theta - step * e)) / (2 * step) for e in np.eye(11)]
    )
    np.testing.assert_allclose(
        got["leaves"]["clinic_a"]["thresholds"][...] / UNIT, expected[:3], atol=1e-3
    )
    np.testing.assert_allclose(
        got["leaves"]["clinic_a"]["direction"]["kernel"][...][:, 0], expected[3:], atol=1e-3
    )


def test_classes_without_an_order_take_cross_entropy():
    free = breast.SPEC.with_options(ordered=False)
    assert isinstance(free.make_head(8, SPACES, nnx.Rngs(0)), NamespacedClassifier)
    assert isinstance(breast.SPEC.make_head(8, SPACES, nnx.Rngs(0)), NamespacedOrdinal)
    assert load_spec(to_json(free)) == free != breast.SPEC
    with pytest.raises(UserError, match="has no option 'order'; it has: ordered"):
        breast.SPEC.with_options(order=1)


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ((Namespace("only", ("x",), (3,)),), "'only' has 1 grades; accepted: at least 2"),
        ((SPACES[1], Namespace("b", ("p", "q"), (1, 1))), "parameter name 'b' of another"),
    ],
)
def test_namespaces_that_a_head_cannot_have(spaces, message):
    with pytest.raises(UserError, match=message):
        retinopathy.SPEC.make_head(8, spaces, nnx.Rngs(0))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_spec(spec):
    assert load_spec(to_json(spec)) == spec
    assert spec.target_shape == () and spec.target_dtype == "int32"
    assert spec.primary_metric == "accuracy"


def test_metrics_are_those_of_the_protocol():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 200)
    probabilities = rng.dirichlet(np.ones(2), 200) + 0.4 * np.eye(2)[targets]
    values = breast.SPEC.metrics(probabilities, targets)
    guess = probabilities.argmax(1)
    assert values == pytest.approx(
        {
            "accuracy": reference.accuracy_score(targets, guess),
            "auroc": reference.roc_auc_score(targets, probabilities[:, 1]),
            "balanced_accuracy": reference.balanced_accuracy_score(targets, guess),
        }
    )
    assert set(retinopathy.SPEC.metrics(probabilities, targets)) == {
        "accuracy",
        "kappa_quadratic",
        "mae",
    }
    assert retinopathy.SPEC.lower_is_better == {"mae"}
