from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax, softmax

from multimed_jax.layers.heads import (
    NamespacedClassifier,
    namespaced_cross_entropy,
    namespaced_probabilities,
)
from multimed_jax.specs import Namespace
from multimed_jax.types import TargetSlots, UserError

SPACES = (
    Namespace("hospital_a/native", ("x", "y", "z"), (6, 3, 1)),
    Namespace("b", ("p", "q"), (0, 8)),
    Namespace("c", ("only",), (5,)),
)
COLUMNS = [slice(0, 3), slice(3, 5), slice(5, 6)]


def make_slots(namespace, value) -> TargetSlots:
    namespace, value = np.asarray(namespace, np.int32), np.asarray(value, np.int32)
    return TargetSlots(
        segment=jnp.ones(value.shape, jnp.int32),
        value=jnp.asarray(value),
        weight=jnp.ones(value.shape),
        namespace=jnp.asarray(namespace),
        modality_share=jnp.ones((*value.shape, 1)),
    )


NAMESPACE = [[0, 1, 2, 0], [1, 0, 0, 1]]
VALUE = [[2, 1, 0, 0], [0, 1, -1, 1]]


def random_outputs(seed: int = 0) -> np.ndarray:
    return 3 * np.random.default_rng(seed).normal(size=(2, 4, 6)).astype(np.float32)


@pytest.mark.parametrize("tau", [0.0, 1.0, 0.5])
def test_cross_entropy_equals_scipy_inside_the_namespace(tau):
    outputs = random_outputs()
    got = namespaced_cross_entropy(jnp.asarray(outputs), make_slots(NAMESPACE, VALUE), SPACES, tau)
    # Shares of the classes; class p of b was never seen and counts as 1 of 9.
    priors = [np.log([0.6, 0.3, 0.1]), np.log([1 / 9, 8 / 9]), np.log([1.0])]
    for p in range(2):
        for k in range(4):
            space, value = NAMESPACE[p][k], VALUE[p][k]
            own = outputs[p, k, COLUMNS[space]].astype(float) + tau * priors[space]
            expected = -log_softmax(own)[value] if value >= 0 else 0.0
            assert got[p, k] == pytest.approx(expected, abs=1e-5)


def test_probabilities_are_those_of_the_namespace_alone():
    outputs = random_outputs()
    slots = make_slots(NAMESPACE, VALUE)
    got = np.asarray(namespaced_probabilities(jnp.asarray(outputs), slots, SPACES))
    expected = np.zeros_like(outputs)
    for p in range(2):
        for k in range(4):
            own = COLUMNS[NAMESPACE[p][k]]
            expected[p, k, own] = softmax(outputs[p, k, own].astype(float))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert (got[expected == 0] == 0).all()
    # What a vote of modalities relies on: predicting from log-probabilities changes nothing.
    again = namespaced_probabilities(jnp.log(jnp.asarray(got) + 1e-9), slots, SPACES)
    np.testing.assert_allclose(again, got, atol=1e-5)


def test_bfloat16_outputs_are_summed_in_float32():
    outputs = jnp.asarray(random_outputs()).astype(jnp.bfloat16)
    slots = make_slots(NAMESPACE, VALUE)
    exact = namespaced_cross_entropy(outputs.astype(jnp.float32), slots, SPACES)
    got = namespaced_cross_entropy(outputs, slots, SPACES)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, exact)
    assert namespaced_probabilities(outputs, slots, SPACES).dtype == jnp.float32


def test_only_the_own_leaf_gets_a_gradient():
    head = NamespacedClassifier(8, SPACES, nnx.Rngs(0))
    graph, params = nnx.split(head)
    states = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8)), jnp.float32)
    slots = make_slots(np.zeros((2, 4)), np.ones((2, 4)))

    def loss(params):
        return namespaced_cross_entropy(nnx.merge(graph, params)(states), slots, SPACES).sum()

    gradient = nnx.to_pure_dict(jax.grad(loss)(params))["leaves"]
    assert np.abs(gradient["hospital_a_native"]["kernel"]).max() > 0
    for other in ("b", "c"):
        for value in jax.tree.leaves(gradient[other]):
            assert (np.asarray(value) == 0).all()


def test_adding_a_namespace_reshapes_nothing():
    def leaves(spaces):
        module = NamespacedClassifier(8, spaces, nnx.Rngs(0))
        return {
            k: jax.tree.map(jnp.shape, v)
            for k, v in nnx.to_pure_dict(nnx.state(module))["leaves"].items()
        }

    small, large = leaves(SPACES[:2]), leaves(SPACES)
    assert set(large) - set(small) == {"c"}
    assert all(large[name] == small[name] for name in small)


def test_outputs_lie_in_the_order_of_the_namespaces():
    spaces = SPACES[::-1]
    head = NamespacedClassifier(4, spaces, nnx.Rngs(0))
    states = jnp.ones((2, 3, 5, 4))
    got = head(states)
    assert got.shape == (2, 3, 5, 6)
    for name, columns in (
        ("c", slice(0, 1)),
        ("b", slice(1, 3)),
        ("hospital_a_native", slice(3, 6)),
    ):
        expected = states @ head.leaves[name].kernel[...] + head.leaves[name].bias[...]
        np.testing.assert_allclose(got[..., columns], expected, atol=1e-6)
    assert head(states.astype(jnp.bfloat16)).dtype == jnp.float32


def test_adjusted_head_adds_the_log_prior():
    plain = NamespacedClassifier(4, SPACES, nnx.Rngs(0))
    adjusted = NamespacedClassifier(4, SPACES, nnx.Rngs(0), logit_adjustment=1.0)
    states = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4)), jnp.float32)
    slots = make_slots(NAMESPACE, VALUE)
    np.testing.assert_allclose(
        namespaced_cross_entropy(adjusted(states), slots, SPACES),
        namespaced_cross_entropy(plain(states), slots, SPACES, 1.0),
        atol=1e-5,
    )
    # With scores of 0 the prediction is the class frequencies of training.
    flat = adjusted(jnp.zeros((1, 1, 4)))
    got = namespaced_probabilities(flat, make_slots([[0]], [[0]]), SPACES)
    np.testing.assert_allclose(got[0, 0, :3], [0.6, 0.3, 0.1], atol=1e-6)


def test_illegal_namespaces():
    with pytest.raises(UserError, match="'none' has no classes"):
        NamespacedClassifier(4, (Namespace("none", (), ()),), nnx.Rngs(0))
    with pytest.raises(UserError, match="a_b"):
        pair = (Namespace("a/b", ("x",), (1,)), Namespace("a_b", ("x",), (1,)))
        NamespacedClassifier(4, pair, nnx.Rngs(0))
