"""The pre-norm transformer over packed rows, unrolled or scanned."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.config import ModelConfig
from multimed_jax.layers.attention import packed_attention
from multimed_jax.layers.gelu import gelu
from multimed_jax.layers.posemb import rotate
from multimed_jax.layers.rms_norm import RMSNorm
from multimed_jax.layers.sight import Sight


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """The dtype of activations; parameters stay float32."""
    return jnp.dtype(config.dtype)


class Placement(Protocol):
    """Where activations and weights of a layer lie on a mesh; see `sharding.MeshPlacement`."""

    @property
    def gathers(self) -> bool: ...

    def pin(self, x: jax.Array, kind: str, rows: int) -> jax.Array: ...

    def gather(self, params: Any, prefix: str) -> Any: ...

    def on_each(self, function: Any, rows: int, heads: int) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Anywhere:
    """The placement of one device: every value lies where it is."""

    @property
    def gathers(self) -> bool:
        return False

    def pin(self, x: jax.Array, kind: str, rows: int) -> jax.Array:
        del kind, rows
        return x

    def gather(self, params: Any, prefix: str) -> Any:
        del prefix
        return params

    def on_each(self, function: Any, rows: int, heads: int) -> Any:
        del rows, heads
        return function


@jax.custom_vjp
def _unstack(x_N3D: Float[Array, "N 3 D"]) -> tuple[Float[Array, "N D"], ...]:
    """Queries, keys and values; by default the gradient adds three arrays padded to x's size."""
    return x_N3D[:, 0], x_N3D[:, 1], x_N3D[:, 2]


_unstack.defvjp(lambda x: (_unstack(x), None), lambda _, g: (jnp.stack(g, axis=1),))


class Block(nnx.Module):
    """Attention and a gated MLP, each behind its own RMS norm and added to the stream.

    Over the mesh axis `tensor` the heads and the hidden width are cut: each device multiplies its
    own columns of `qkv` and `mlp_in`, and its rows of `out` and `mlp_out`, whose sums alone travel.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, placement: Placement = Anywhere()):
        width, dtype = config.d_model, compute_dtype(config)
        hidden = int(config.mlp_ratio * width)
        # Residual branches start small, so that depth does not change the scale of the stream.
        out_init = nnx.initializers.variance_scaling(
            1.0 / (2 * config.num_layers), "fan_in", "truncated_normal"
        )

        def linear(fan_in: int, fan_out: int, **kwargs) -> nnx.Linear:
            return nnx.Linear(fan_in, fan_out, use_bias=False, dtype=dtype, rngs=rngs, **kwargs)

        self.num_heads = config.num_heads
        self.attention = config.attention
        self.placement = placement
        self.norm_attention = RMSNorm(width, dtype=dtype, rngs=rngs)
        # Three dimensions, so that a cut of the last one cuts queries, keys and values by heads.
        self.qkv = nnx.LinearGeneral(width, (3, width), use_bias=False, dtype=dtype, rngs=rngs)
        self.out = linear(width, width, kernel_init=out_init)
        self.norm_mlp = RMSNorm(width, dtype=dtype, rngs=rngs)
        self.mlp_in = linear(width, hidden)
        self.mlp_out = linear(hidden, width, kernel_init=out_init)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        sight: Sight,
        angles_BTF: Float[Array, "B T F"],
    ) -> Float[Array, "B T D"]:
        """One layer. `angles_BTF` are the rotary angles of the tokens."""
        batch = x_BTD.shape[0]
        pin = functools.partial(self.placement.pin, rows=batch)
        # Flat tokens: with two leading axes the weight gradients take 1.4 times as long on CPU.
        x_ND = rearrange(x_BTD, "b t d -> (b t) d")
        q, k, v = (
            pin(rearrange(a, "(b t) (h c) -> b h t c", b=batch, h=self.num_heads), kind="heads")
            for a in _unstack(self.qkv(self.norm_attention(x_ND)))
        )
        y = packed_attention(
            rotate(q, angles_BTF),
            rotate(k, angles_BTF),
            v,
            sight,
            path=self.attention,
            on_each=self.placement.on_each,
        )
        y = rearrange(pin(y, kind="heads"), "b h t c -> (b t) (h c)")
        x_ND = pin(x_ND + self.out(y), kind="packs")
        hidden = pin(gelu(self.mlp_in(self.norm_mlp(x_ND))), kind="hidden")
        x_ND = pin(x_ND + self.mlp_out(hidden), kind="packs")
        return rearrange(x_ND, "(b t) d -> b t d", b=batch)


class Transformer(nnx.Module):
    """`num_layers` blocks; the first `fusion_layers` see only their own modality.

    Unrolled layers run about a quarter faster on CPU; scanned layers compile in a time that does
    not grow with depth (`config.scan_layers`).
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, placement: Placement = Anywhere()):
        self.scan = config.scan_layers
        self.remat = config.remat
        self.dtype = config.dtype
        self.placement = placement
        self.num_layers = config.num_layers
        self.num_within = {
            "early": 0,
            "intermediate": config.fusion_layers,
            "late": config.num_layers,
        }[config.fusion]
        if self.scan:

            @nnx.split_rngs(splits=config.num_layers)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs: nnx.Rngs) -> Block:
                return Block(config, rngs, placement)

            self.layers = make(rngs)
        else:
            self.layers = nnx.List(
                [Block(config, rngs, placement) for _ in range(config.num_layers)]
            )
        self.norm = RMSNorm(config.d_model, dtype=compute_dtype(config), rngs=rngs)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        sight: Sight,
        within: Sight,
        angles_BTF: Float[Array, "B T F"],
    ) -> Float[Array, "B T D"]:
        """Runs the layers: the first ones see as `within` says, the rest as `sight`."""
        if self.scan:
            x_BTD = self._scanned(x_BTD, sight, within, angles_BTF)
        else:
            assert isinstance(self.layers, nnx.List)
            for index, layer in enumerate(self.layers):
                graphdef, params = nnx.split(layer)
                run = self._layer(graphdef, f"trunk/layers/{index}/")
                seen = within if index < self.num_within else sight
                x_BTD = run(nnx.to_pure_dict(params), x_BTD, seen, angles_BTF)
        return self.norm(x_BTD)

    def _layer(self, graphdef: nnx.GraphDef, prefix: str) -> Callable[..., Any]:
        """One layer as a function of its parameters, which it gathers in the compute dtype.

        Where they lie cut, the backward pass gathers them again: kept for it, those of all layers
        would lie whole on every device.
        """

        def run(params, x_BTD, sight, angles_BTF):
            def computed(weight):
                return weight.astype(self.dtype) if weight.ndim > 1 else weight

            whole = self.placement.gather(jax.tree.map(computed, params), prefix)
            return nnx.merge(graphdef, whole)(x_BTD, sight, angles_BTF)

        if self.remat == "none" and not self.placement.gathers:
            return run
        policies = {
            "none": _all_but_gathered,
            "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            "full": jax.checkpoint_policies.nothing_saveable,
        }
        return jax.checkpoint(run, policy=policies[self.remat], prevent_cse=not self.scan)

    def _scanned(self, x_BTD, sight, within, angles_BTF):
        graphdef, params = nnx.split(self.layers)
        run = self._layer(graphdef, "trunk/layers/")

        def body(x, layer):
            index, weights = layer
            seen = sight
            if self.num_within:
                first = index < self.num_within
                seen = jax.tree.map(lambda a, b: jnp.where(first, a, b), within, sight)
            return run(weights, x, seen, angles_BTF), None

        stack = (jnp.arange(self.num_layers), nnx.to_pure_dict(params))
        x_BTD, _ = jax.lax.scan(body, x_BTD, stack)
        return x_BTD


def _all_but_gathered(primitive: Any, *_: Any, **params: Any) -> bool:
    """Saves everything for the backward pass but gathered weights, and their cast before it.

    What gathers is a function with a gradient of its own, whose body is a constraint alone.
    """
    names = [primitive.name]
    if primitive.name == "custom_vjp_call":
        names = [equation.primitive.name for equation in params["call_jaxpr"].eqns]
    return not set(names) <= {"sharding_constraint", "convert_element_type"}
