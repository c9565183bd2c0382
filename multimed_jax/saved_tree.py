"""A pytree as named arrays that Orbax takes, and back.

Orbax refuses empty arrays and does not know typed PRNG keys; named tuples and None would tie a
checkpoint to the Python classes of the day. So a state is saved as one flat mapping of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from multimed_jax.types import UserError


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path ("params.trunk.kernel") -> leaf, in the order of `jax.tree.leaves`; None is no leaf."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = {jax.tree_util.keystr(p, simple=True, separator="."): leaf for p, leaf in pairs}
    assert len(named) == len(pairs), "two leaves share a path"
    return named


def signatures(tree: Any) -> dict[str, str]:
    """Path -> dtype and shape, such as "float32[96,8]"."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in named_leaves(tree).items()
    }


def check_signatures(where: str, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises UserError naming the first array that is stored otherwise than it is wanted."""
    for name in [*wanted, *sorted(stored.keys() - wanted.keys())]:
        held, needed = (table[name] if name in table else "nothing" for table in (stored, wanted))
        if held != needed:
            raise UserError(f"{where} holds {held} at {name}, but this config needs {needed}")


def to_saved(tree: Any) -> dict[str, Any]:
    """The leaves (arrays, or shapes with shardings) that go to disk, by path."""
    leaves = {name: leaf for name, leaf in named_leaves(tree).items() if np.prod(leaf.shape)}
    return {name: _key_data(leaf) if _is_key(leaf) else leaf for name, leaf in leaves.items()}


def from_saved(saved: Mapping[str, Any], abstract: Any) -> Any:
    """The pytree of the structure of `abstract` from what was saved."""

    def leaf(name: str, wanted: Any) -> Any:
        if not np.prod(wanted.shape):
            return jax.device_put(np.zeros(wanted.shape, wanted.dtype), wanted.sharding)
        if _is_key(wanted):
            return jax.random.wrap_key_data(saved[name], impl=_key_impl(wanted))
        return saved[name]

    leaves = [leaf(name, wanted) for name, wanted in named_leaves(abstract).items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.random.key_data(leaf)
    data = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding)


def _key_impl(abstract: jax.ShapeDtypeStruct) -> Any:
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), abstract)
    return found[0]
