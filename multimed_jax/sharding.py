"""One mesh, one rule table.

Axes: `data` (packs), `fsdp` (packs, and parameters cut along one dimension), `tensor` (heads and
the hidden width of the MLP). The pack is the unit of sharding: packs lie over `data` and `fsdp`.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from multimed_jax.config import MeshConfig
from multimed_jax.types import UserError

AXES = ("data", "fsdp", "tensor")
PACK_AXES = ("data", "fsdp")

# Path of a parameter -> mesh axis of each of its LAST dimensions. A scanned stack has one more
# dimension in front, which stays whole. The first rule that matches counts.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"trunk/.*/(qkv|mlp_in)/kernel$", ("fsdp", "tensor")),
    (r"trunk/.*/(out|mlp_out)/kernel$", ("tensor", "fsdp")),
    (r"tokenizers/.*(embedding|kernel)$", ("fsdp", None)),
    (r"heads/.*kernel$", ("fsdp", None)),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """The device mesh; -1 takes the devices that the other axes leave.

    Raises:
        UserError: where the axes do not multiply to the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    devices = jax.devices()
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(
            f"config.mesh is data={config.data}, fsdp={config.fsdp}, tensor={config.tensor}; "
            "each axis takes a positive number, and one of them may be -1"
        )
    fixed = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if int(np.prod(sizes)) != len(devices):
        raise UserError(
            f"config.mesh is data={config.data}, fsdp={config.fsdp}, tensor={config.tensor}, "
            f"which does not divide the {len(devices)} devices found"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def check_lanes(mesh: Mesh, lanes: int, accumulate: int) -> None:
    """Raises UserError unless every microbatch divides over the pack axes."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if lanes % accumulate or (lanes // accumulate) % ways:
        raise UserError(
            f"config.data.lanes is {lanes}: with config.optim.accumulate = {accumulate} it must be "
            f"a multiple of {accumulate * ways}, because mesh axes data x fsdp hold {ways} devices"
        )


def param_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The partition of a parameter; a dimension that an axis does not divide stays whole."""
    for pattern, axes in RULES:
        if re.search(pattern, path) and len(shape) >= len(axes):
            lead = len(shape) - len(axes)
            cut = [
                axis if axis and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, shape[lead:], strict=True)
            ]
            return PartitionSpec(*([None] * lead), *cut)
    return PartitionSpec()


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as "a/b/c"."""
    return "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """A sharding per leaf of a TrainState or a part of one.

    Optimiser moments and averages carry their parameter's path, so they follow its rule.
    """

    def leaf(path, value):
        return NamedSharding(mesh, param_spec(path_name(path), value.shape, mesh))

    return jax.tree_util.tree_map_with_path(leaf, abstract)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Packs over `data` and `fsdp`; the sharding of every array of a Batch."""
    return NamedSharding(mesh, PartitionSpec(PACK_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain_packs(x: jax.Array) -> jax.Array:
    """Keeps the leading (pack or row) axis of an activation over the pack axes of the mesh in use.

    Without a mesh (a test of the bare model) it does nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(PACK_AXES) <= set(mesh.axis_names):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(PACK_AXES))
