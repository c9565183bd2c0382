"""Attention over packed rows: one function, `packed_attention`, and the ways to compute it.

All ways give the same figures (each is tested against "dense", values and gradients):

    dense    [T, T] scores of every row: the reference, and the fastest for short rows
    cpu      blocks of scores, those that no sample needs left out (`attention_blocks`)
    pallas   the GPU kernel of JAX, samples by number (`attention_kernels`)
    cudnn    the packed kernel of cuDNN, samples by offset (`attention_kernels`)

"auto" takes "cpu" on CPUs where rows are long (for devices of a few cores, see there), "pallas" on
NVIDIA GPUs and "dense" elsewhere. A kernel that cannot express what a row may hold is never run:
"auto" and the kernel's own name then give "dense", and the log says so once, while the step is
built.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jaxtyping import Array, Float

from multimed_jax.layers.attention_blocks import MASKED_SCORE, block_attention
from multimed_jax.layers.attention_kernels import (
    CUDNN_DEPTH_MULTIPLE,
    CUDNN_MAX_DEPTH,
    SMALL_TILES,
    TILE,
    cudnn_attention,
    pallas_attention,
)
from multimed_jax.layers.sight import Sight
from multimed_jax.types import UserError

# Shorter rows have too few blocks to leave out.
SHORTEST_BLOCKED = 512
PLATFORMS = {"cpu": "cpu", "pallas": "gpu", "cudnn": "gpu"}


def packed_attention(
    q_BHTC: Float[Array, "B H T C"],
    k_BHTC: Float[Array, "B H T C"],
    v_BHTC: Float[Array, "B H T C"],
    sight: Sight,
    path: str = "dense",
    on_each: Callable[..., Any] | None = None,
) -> Float[Array, "B H T C"]:
    """Softmax attention in the head-major layout, with scores and softmax in float32.

    Args:
        q_BHTC: queries; they are scaled here.
        k_BHTC: keys.
        v_BHTC: values.
        sight: who sees whom.
        path: see above.
        on_each: (function, rows, heads) -> the function run by every device of a mesh on its own
            rows and heads: the compiler can cut the dense path by itself, but no kernel and no
            loop over rows. None is one device.

    Raises:
        UserError: where `path` is not for the devices at hand.
    """
    taken = choose(path, sight, q_BHTC.shape[-1], q_BHTC.dtype, jax.default_backend())
    if taken == "dense":
        return dense_attention(q_BHTC, k_BHTC, v_BHTC, sight)
    function: Callable[..., Any] = {
        "cpu": block_attention,
        "pallas": pallas_attention,
        "cudnn": cudnn_attention,
    }[taken]
    if on_each is not None:
        function = on_each(function, rows=q_BHTC.shape[0], heads=q_BHTC.shape[1])
    return function(q_BHTC, k_BHTC, v_BHTC, sight)


def dense_attention(
    q_BHTC: Float[Array, "B H T C"],
    k_BHTC: Float[Array, "B H T C"],
    v_BHTC: Float[Array, "B H T C"],
    sight: Sight,
) -> Float[Array, "B H T C"]:
    """The reference: it forms [T, T] scores."""
    scale = q_BHTC.shape[-1] ** -0.5
    scores = jnp.einsum(
        "bhtc,bhsc->bhts", q_BHTC * scale, k_BHTC, preferred_element_type=jnp.float32
    )
    # Finite, so that a row of nothing but masked scores gives a uniform distribution, never NaN.
    scores = jnp.where(sight.mask()[:, None], scores, MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BHTC.dtype)
    return jnp.einsum("bhts,bhsc->bhtc", weights, v_BHTC)


def choose(path: str, sight: Sight, depth: int, dtype: Any, backend: str) -> str:
    """The path that is taken for these rows on this kind of device; see the head of the file.

    Raises:
        UserError: where a path is asked for that is for other devices.
    """
    wanted = path
    if path == "auto":
        wanted = {"cpu": "cpu", "gpu": "pallas"}.get(backend, "dense")
        if wanted == "cpu" and sight.width < SHORTEST_BLOCKED:
            return "dense"
    elif path not in ("dense", *PLATFORMS):
        raise UserError(
            f"config.model.attention is {path!r}; accepted: auto, dense, {', '.join(PLATFORMS)}"
        )
    elif path != "dense" and PLATFORMS[path] not in (backend, "cpu"):
        raise UserError(
            f"config.model.attention is {path!r}, which runs on {PLATFORMS[path]}, and the devices "
            f"are {backend}; accepted here: auto, dense, cpu"
        )
    reason = refusal(wanted, sight, depth, jnp.dtype(dtype))
    if reason:
        _say(f"attention runs dense instead of {wanted} on rows of {sight.width}: {reason}")
        return "dense"
    return wanted


def refusal(path: str, sight: Sight, depth: int, dtype: Any) -> str:
    """Why a path cannot compute attention over such rows exactly; "" where it can."""
    if path in ("dense", "cpu"):
        return ""
    if sight.order is not None:
        return "its mask has no order of answers"
    if path == "pallas":
        if sight.width % TILE and sight.width not in SMALL_TILES:
            tiles = ", ".join(map(str, SMALL_TILES))
            return f"its rows are {tiles} or multiples of {TILE} tokens wide"
        return ""
    if not sight.contiguous:
        return "the tokens of a sample may lie apart"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"its numbers have 16 bits, and these are {dtype}"
    if depth % CUDNN_DEPTH_MULTIPLE or depth > CUDNN_MAX_DEPTH:
        return (
            f"its heads are multiples of {CUDNN_DEPTH_MULTIPLE} up to {CUDNN_MAX_DEPTH} wide, and "
            f"these {depth}"
        )
    return ""


@functools.cache
def _say(message: str) -> None:
    """Logs a message once."""
    logging.warning("%s", message)
