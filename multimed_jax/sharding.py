"""One mesh, one rule table.

Axes: `data` (packs), `fsdp` (packs, and parameters cut along one dimension) and `tensor` (heads and
the hidden width of the MLP). The pack is the unit of sharding: packs lie over `data` and `fsdp`.

Parameters, their moments and averages lie cut; a layer gathers its own over `fsdp` just before it
uses them, and its gradients are cut again as they come. Activations stay with their packs. Left to
the compiler alone, it gathers activations instead of weights, and memory grows with the mesh.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from multimed_jax.config import MeshConfig, ModelConfig
from multimed_jax.types import UserError

AXES = ("data", "fsdp", "tensor")
PACK_AXES = ("data", "fsdp")

Axes = str | tuple[str, ...] | None

# Path -> mesh axes of its LAST dimensions (parameters) or of its FIRST (activations). A scanned
# stack has one more dimension in front, which stays whole. The first rule that matches counts.
RULES: tuple[tuple[str, tuple[Axes, ...]], ...] = (
    (r"^activation/packs$", (PACK_AXES,)),  # [P, ...], [P * G, T, D] or [P * G * T, D]
    (r"^activation/heads$", (PACK_AXES, "tensor")),  # [P * G, H, T, C]
    (r"^activation/hidden$", (PACK_AXES, "tensor")),  # [P * G * T, hidden]
    (r"trunk/.*qkv/kernel$", ("fsdp", None, "tensor")),  # [D, 3, H * C]
    (r"trunk/.*mlp_in/kernel$", ("fsdp", "tensor")),
    (r"trunk/.*(out|mlp_out)/kernel$", ("tensor", "fsdp")),
    (r"^model_state/", ()),
    # The width of the model is the last dimension of most others, and divides best.
    (r"(^|/)(tokenizers|trunk|heads|align)/", (("fsdp", "tensor"),)),
)
# A leaf of fewer elements is left whole: to gather it costs more than to hold it.
MIN_CUT = 256


def make_mesh(config: MeshConfig) -> Mesh:
    """The device mesh; -1 takes the devices that the other axes leave.

    Raises:
        UserError: where the axes do not multiply to the number of devices.
    """
    sizes = mesh_sizes(config, len(jax.devices()))
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)


def mesh_sizes(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Devices along each axis. Raises UserError where they do not multiply to `num_devices`."""
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(
            f"config.mesh is data={config.data}, fsdp={config.fsdp}, tensor={config.tensor}; "
            "each axis takes a positive number, and one of them may be -1"
        )
    fixed = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and num_devices % fixed == 0:
        sizes[sizes.index(-1)] = num_devices // fixed
    if int(np.prod(sizes)) != num_devices:
        raise UserError(
            f"config.mesh is data={config.data}, fsdp={config.fsdp}, tensor={config.tensor}, "
            f"which does not divide the {num_devices} devices found"
        )
    return sizes[0], sizes[1], sizes[2]


def check_lanes(mesh: Mesh, lanes: int, accumulate: int) -> None:
    """Raises UserError unless every microbatch divides over the pack axes."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if lanes % accumulate or (lanes // accumulate) % ways:
        raise UserError(
            f"config.data.lanes is {lanes}: with config.optim.accumulate = {accumulate} it must be "
            f"a multiple of {accumulate * ways}, because mesh axes data x fsdp hold {ways} devices"
        )


def check_width(mesh: Mesh, config: ModelConfig) -> None:
    """Raises UserError unless the axis `tensor` divides the heads and the hidden width."""
    ways = mesh.shape["tensor"]
    hidden = int(config.mlp_ratio * config.d_model)
    for name, size in (("num_heads", config.num_heads), ("mlp_ratio * d_model", hidden)):
        if size % ways:
            raise UserError(
                f"config.mesh.tensor is {ways}, which does not divide config.model.{name} ({size})"
            )


def param_spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The partition of a parameter; a dimension that an axis does not divide stays whole.

    Where `fsdp` does not divide the dimension of its rule, it takes the last other one that it
    divides (but not the layers of a scanned stack), so that no large leaf is held whole by all.
    """
    axes = _rule(path)
    if not axes or len(shape) < len(axes):
        return PartitionSpec()
    lead = len(shape) - len(axes)
    stacked = lead > 0 and re.search(r"(^|/)trunk/layers/(?!\d)", path) is not None
    first = 1 if stacked else 0
    own = lead + next(i for i, axis in enumerate(axes) if "fsdp" in _names(axis))
    cut: list[Axes] = [None] * len(shape)
    for index, axis in enumerate(axes, lead):
        if index != own and shape[index] % _ways(axis, mesh) == 0 and _ways(axis, mesh) > 1:
            cut[index] = axis
    if mesh.shape["fsdp"] > 1 and math.prod(shape[first:]) >= MIN_CUT:
        places = [own, *(i for i in reversed(range(first, len(shape))) if i != own)]
        # All axes of the rule at once, or else `fsdp` alone.
        joint = tuple(a for a in _names(axes[own - lead]) if mesh.shape[a] > 1)
        for axis in (joint if len(joint) > 1 else "fsdp", "fsdp"):
            fitting = [i for i in places if cut[i] is None and shape[i] % _ways(axis, mesh) == 0]
            if fitting:
                cut[fitting[0]] = axis
                break
    return PartitionSpec(*cut) if any(cut) else PartitionSpec()


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


def whole_leaves(abstract: Any, mesh: Mesh) -> dict[str, int]:
    """Path -> elements of the leaves that every device of `fsdp` holds whole."""
    if mesh.shape["fsdp"] == 1:
        return {}
    return {
        path_name(path): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
        if not is_gathered(param_spec(path_name(path), leaf.shape, mesh))
    }


def is_gathered(spec: PartitionSpec) -> bool:
    """Whether what is cut so is gathered before it is used."""
    return any("fsdp" in _names(axis) for axis in spec)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Packs over `data` and `fsdp`; the sharding of every array of a Batch."""
    return NamedSharding(mesh, PartitionSpec(PACK_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


# ---------------------------------------------------------------- inside a compiled program


def constrain_packs(x: jax.Array) -> jax.Array:
    """Keeps the leading (pack or row) axis of an activation over the pack axes of the mesh in use.

    Without a mesh (a test of the bare model) it does nothing.
    """
    return MeshPlacement().pin(x, "packs", x.shape[0])


def constrain_cut(params: Any, prefix: str = "") -> Any:
    """Keeps parameters, or gradients or averages of their shapes, cut as they are stored."""
    mesh = _mesh_in_use()
    if mesh is None:
        return params

    def leaf(path, value):
        spec = param_spec(prefix + path_name(path), value.shape, mesh)
        return jax.lax.with_sharding_constraint(value, spec)

    return jax.tree_util.tree_map_with_path(leaf, params)


def gather_outside_layers(params: Any) -> Any:
    """The parameters with all but the trunk's layers gathered: those gather their own."""
    place = MeshPlacement()
    trunk = {
        k: v if k == "layers" else place.gather(v, f"trunk/{k}/")
        for k, v in params["trunk"].items()
    }
    rest = {k: place.gather(v, f"{k}/") for k, v in params.items() if k != "trunk"}
    return rest | {"trunk": trunk}


@dataclasses.dataclass(frozen=True)
class MeshPlacement:
    """Where values lie on the mesh in use, by the rule table; without a mesh it does nothing."""

    @property
    def gathers(self) -> bool:
        """Whether parameters lie cut, so that what is gathered should not be kept."""
        mesh = _mesh_in_use()
        return mesh is not None and mesh.shape["fsdp"] > 1

    def pin(self, x: jax.Array, kind: str, rows: int) -> jax.Array:
        """Keeps an activation where the rule `activation/<kind>` says.

        Its leading dimension holds `rows` rows (or packs). An axis that does not divide what it
        would cut leaves it whole, such as the rows of a label bank, which every device computes.
        """
        mesh = _mesh_in_use()
        if mesh is None:
            return x
        axes = _rule(f"activation/{kind}")
        assert axes is not None
        sizes = (rows, *x.shape[1:])[: len(axes)]
        fitting = [a if n % _ways(a, mesh) == 0 else None for a, n in zip(axes, sizes, strict=True)]
        return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))

    def gather(self, params: Any, prefix: str) -> Any:
        """Parameters whole over `fsdp`, as they are used; gradients of them come back cut."""
        mesh = _mesh_in_use()
        if mesh is None or not self.gathers:
            return params

        def leaf(path, value):
            spec = param_spec(prefix + path_name(path), value.shape, mesh)
            if not is_gathered(spec):
                return value
            whole = PartitionSpec(*(None if "fsdp" in _names(axis) else axis for axis in spec))
            return _gather(value, spec, whole)

        return jax.tree_util.tree_map_with_path(leaf, params)

    def on_each(self, function: Any, rows: int, heads: int) -> Any:
        """`function(q, k, v, sight)` of attention, run by every device on what it holds.

        q, k and v are [rows, heads, ...], the sight [rows, ...]; see `pin` for what is left whole.
        """
        mesh = _mesh_in_use()
        if mesh is None or math.prod(mesh.shape[name] for name in AXES) == 1:
            return function
        axes = _rule("activation/heads")
        assert axes is not None
        fitting = [
            a if n % _ways(a, mesh) == 0 else None for a, n in zip(axes, (rows, heads), strict=True)
        ]
        whole = PartitionSpec(*fitting)
        specs = (whole, whole, whole, PartitionSpec(fitting[0]))
        return jax.shard_map(function, in_specs=specs, out_specs=whole, check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, cut: PartitionSpec, whole: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, whole)


def _gather_forward(x, cut, whole):
    return _gather(x, cut, whole), None


def _gather_backward(cut, whole, _, gradient):
    # Summed first, then cut: the gradient of a table would else send its rows to all devices.
    gradient = jax.lax.with_sharding_constraint(gradient, whole)
    return (jax.lax.with_sharding_constraint(gradient, cut),)


_gather.defvjp(_gather_forward, _gather_backward)


def _mesh_in_use() -> AbstractMesh | None:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(AXES) <= set(mesh.axis_names):
        return None
    return mesh


def _rule(path: str) -> tuple[Axes, ...] | None:
    for pattern, axes in RULES:
        if re.search(pattern, path):
            return axes
    return None


def _names(axes: Axes) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()


def _ways(axes: Axes, mesh: Mesh | AbstractMesh) -> int:
    return math.prod(mesh.shape[name] for name in _names(axes))
