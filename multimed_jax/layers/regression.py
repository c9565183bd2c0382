"""The regression head over namespaces: values in target units, and their losses.

As with classes (`layers.heads`), each namespace has a leaf of its own, the columns of all lie side
by side, and a slot reads only its own. A leaf learns z-scores: output = mean + deviation * leaf, in
target units, by the mean and deviation of the column in the training split. Losses are per slot and
not weighted: the mean over the columns that the target knows; one that knows none has loss 0.

    namespaces   a: 2 columns   b: 1 column      target of a   1.5  nan      loss: column 0 alone
    outputs      a0 a1          b0               target of b   7.0  nan      (behind b0 is padding)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.layers.heads import class_offsets, column_namespaces, leaf_name
from multimed_jax.specs import BaselineInputs, Namespace
from multimed_jax.types import TargetSlots, UserError

LossKind = Literal["mse", "l1", "huber", "poisson"]
# A deviation below this share of the mean is a rounding error of a constant column.
_FLAT = 1e-6
_RATE_FLOOR = 1e-6


def column_scale(
    namespace: Namespace,
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Mean and deviation of each column over the training records that know it.

    A column without such a record has mean 0; one whose values do not vary has deviation 1.

    Raises:
        UserError: for a namespace without columns or without statistics.
    """
    if not namespace.class_names or not namespace.stats:
        raise UserError(
            f"namespace {namespace.name!r} has {len(namespace.class_names)} columns and statistics "
            f"of {', '.join(namespace.stats) or 'none'}; accepted: at least 1 column, with count, "
            "sum and sum_squares of each"
        )
    total, sums, squares = (
        np.asarray(namespace.stats[key], np.float64) for key in ("count", "sum", "sum_squares")
    )
    number = np.maximum(total, 1.0)
    mean = sums / number
    deviation = np.sqrt(np.maximum(squares / number - mean**2, 0.0))
    varies = deviation > _FLAT * np.maximum(np.abs(mean), _FLAT)
    return mean, np.where(varies, deviation, 1.0)


def training_mean(inputs: BaselineInputs) -> Float[np.ndarray, "n C"]:
    """The mean of each column in the training split, for every record."""
    mean, _ = column_scale(inputs.namespace)
    return np.tile(mean, (len(inputs.records), 1))


class NamespacedRegressor(nnx.Module):
    """One linear leaf per namespace; values of all in target units, side by side."""

    def __init__(self, d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs):
        """Raises UserError as `column_scale`, and for two namespaces whose leaf names are equal."""
        leaves = {}
        for namespace in namespaces:
            name = leaf_name(namespace.name)
            if name in leaves:
                raise UserError(
                    f"namespace {namespace.name!r} has the parameter name {name!r} of another one; "
                    "accepted: names that differ in letters and digits"
                )
            leaves[name] = nnx.Linear(
                d_model,
                len(namespace.class_names),
                kernel_init=nnx.initializers.normal(0.02),
                rngs=rngs,
            )
        self.leaves = nnx.Dict(leaves)
        self.order = tuple(leaves)
        mean, deviation = _all_scales(namespaces)
        self.mean = tuple(float(value) for value in mean)
        self.deviation = tuple(float(value) for value in deviation)

    def __call__(self, states: Float[Array, "*batch D"]) -> Float[Array, "*batch C"]:
        """Values of all columns, in target units."""
        states = states.astype(jnp.float32)
        scores = jnp.concatenate([self.leaves[name](states) for name in self.order], axis=-1)
        shape = (1,) * (scores.ndim - 1) + (-1,)
        mean = jnp.array(self.mean, jnp.float32).reshape(shape)
        return mean + scores * jnp.array(self.deviation, jnp.float32).reshape(shape)


def regression_loss(
    outputs: Float[Array, "P K C"],
    slots: TargetSlots,
    namespaces: Sequence[Namespace],
    kind: LossKind = "mse",
) -> Float[Array, "P K"]:
    """Loss of each slot over the columns of its namespace that its target knows; not weighted.

    Args:
        outputs: of `NamespacedRegressor`.
        slots: `value` is [P, K, widest namespace], NaN where not known.
        namespaces: those of the head, in its order.
        kind: "mse", "l1" and "huber" (quadratic up to one deviation) are of errors in deviations
            of the column. "poisson" is half the Poisson deviance of a target that counts or is a
            level (below 0 counts as 0) given the rate softplus(output), in target units.
    """
    outputs = outputs.astype(jnp.float32)
    local = np.arange(outputs.shape[-1]) - _first_columns(namespaces)
    target = jnp.asarray(slots.value, jnp.float32)[..., local]
    known = jnp.isfinite(target) & _own_columns(slots, namespaces)
    # The output stands in for what is not known, so that no NaN enters the gradient either.
    target = jnp.where(known, target, jax.lax.stop_gradient(outputs))
    if kind == "poisson":
        costs = _poisson(outputs, target)
    else:
        _, deviation = _all_scales(namespaces)
        scale = jnp.asarray(deviation.astype(np.float32)).reshape(1, 1, -1)
        costs = _COSTS[kind]((outputs - target) / scale)
    number = jnp.maximum(jnp.sum(known, axis=-1), 1).astype(jnp.float32)
    return jnp.sum(jnp.where(known, costs, 0.0), axis=-1) / number


def regression_values(
    outputs: Float[Array, "P K C"],
    slots: TargetSlots,
    namespaces: Sequence[Namespace],
    kind: LossKind = "mse",
) -> Float[Array, "P K C"]:
    """Predictions in target units (of "poisson" the rate); exactly 0 outside the namespace."""
    values = outputs.astype(jnp.float32)
    if kind == "poisson":
        values = jax.nn.softplus(values)
    return jnp.where(_own_columns(slots, namespaces), values, 0.0)


def _huber(error: Float[Array, "..."]) -> Float[Array, "..."]:
    size = jnp.abs(error)
    return jnp.where(size <= 1.0, 0.5 * error**2, size - 0.5)


_COSTS: dict[str, Callable[[Array], Array]] = {"mse": jnp.square, "l1": jnp.abs, "huber": _huber}


def _poisson(outputs: Float[Array, "P K C"], target: Float[Array, "P K C"]) -> Array:
    rate = jax.nn.softplus(outputs) + _RATE_FLOOR
    target = jnp.maximum(target, 0.0)
    surplus = target * jnp.log(jnp.maximum(target, _RATE_FLOOR) / rate)
    return rate - target + surplus


def _all_scales(namespaces: Sequence[Namespace]) -> tuple[np.ndarray, np.ndarray]:
    means, deviations = zip(*(column_scale(namespace) for namespace in namespaces), strict=True)
    return np.concatenate(means), np.concatenate(deviations)


def _first_columns(namespaces: Sequence[Namespace]) -> np.ndarray:
    """For each column the first one of its namespace."""
    return class_offsets(namespaces)[column_namespaces(namespaces)]


def _own_columns(slots: TargetSlots, namespaces: Sequence[Namespace]) -> Array:
    column = jnp.array(column_namespaces(namespaces)).reshape(1, 1, -1)
    return column == slots.namespace[..., None]
