"""Attention kernels of GPUs that take samples by number and never hold [T, T] scores.

Both read one number per token (`Sight.groups`), equal where tokens see each other: samples, or the
modalities of samples. Places of answers cannot be told to them; `attention.refusal` says so.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from multimed_jax.layers.sight import Sight

# Tile of the Pallas kernel; a row is a multiple of it, or one of the smaller powers of two.
TILE = 128
SMALL_TILES = (16, 32, 64)
# Widest head of the packed kernel of cuDNN (9, Hopper); its widths are multiples of 8.
CUDNN_MAX_DEPTH = 256
CUDNN_DEPTH_MULTIPLE = 8


def pallas_attention(
    q_BHTC: Float[Array, "B H T C"],
    k_BHTC: Float[Array, "B H T C"],
    v_BHTC: Float[Array, "B H T C"],
    sight: Sight,
    interpret: bool = False,
) -> Float[Array, "B H T C"]:
    """The kernel that JAX ships for GPUs; `interpret` runs it step by step without one."""
    # Imported where it is used: it loads the compiler of GPU kernels.
    from jax.experimental.pallas.ops.gpu import attention as kernel

    q, k, v = (a.swapaxes(1, 2) for a in (q_BHTC, k_BHTC, v_BHTC))
    groups, scale = sight.groups(), q.shape[-1] ** -0.5
    out: Array = kernel.mha(q, k, v, groups, sm_scale=scale, interpret=interpret)
    return out.swapaxes(1, 2)


def cudnn_attention(
    q_BHTC: Float[Array, "B H T C"],
    k_BHTC: Float[Array, "B H T C"],
    v_BHTC: Float[Array, "B H T C"],
    sight: Sight,
) -> Float[Array, "B H T C"]:
    """The packed kernel of cuDNN, by where each run of equal numbers starts and how long it is."""
    # No public function of JAX 0.10 takes the offsets of packed rows.
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    q, k, v = (a.swapaxes(1, 2) for a in (q_BHTC, k_BHTC, v_BHTC))
    starts, lengths = runs(sight.groups(), min(sight.width, sight.max_runs))
    out = dot_product_attention(
        q,
        k,
        v,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=starts,
        kv_offsets=starts,
        scale=q.shape[-1] ** -0.5,
        mask_type=MaskType.PADDING,
    )
    return jnp.asarray(out).swapaxes(1, 2)


def runs(
    groups: Int[Array, "B T"], most: int
) -> tuple[Int[Array, "B most+1"], Int[Array, "B most"]]:
    """Starts and lengths of the runs of equal numbers in each row, -1 behind the last.

    Args:
        groups: a number per token.
        most: runs of a row; it must hold them all.
    """
    width = groups.shape[1]
    changes = jnp.diff(groups, axis=1) != 0
    begins = jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)
    # The k-th run starts where the running count of starts first reaches k + 1.
    place = jnp.where(begins, jnp.arange(width)[None], width)
    starts = jnp.sort(place, axis=1)
    starts = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=width)[:, : most + 1]
    ends = starts[:, 1:]
    lengths = jnp.where(starts[:, :-1] < width, ends - starts[:, :-1], -1)
    # The kernel takes starts alone: an end of the row is no start.
    starts = jnp.where(starts < width, starts, -1)
    return starts.astype(jnp.int32), lengths.astype(jnp.int32)
