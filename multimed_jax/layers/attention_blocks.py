"""Attention that skips blocks of scores in which no sample meets itself; the path of CPUs.

Rows are packed with samples far shorter than the row, so most scores of a dense [T, T] belong to
nobody. Queries are taken in blocks, and each block visits only the blocks of keys from the first to
the last that hold a token of one of its samples (all trip counts are data, all shapes static):

    samples   a a b b | b b b c | c d d d | . . . .        keys that a block of queries visits
                                                           1: 1-2   2: 1-3   3: 2-3   4: none

The mask inside a block stays exact, whatever the order of the tokens: a sample that lies apart only
widens the visits. Softmax is accumulated over the visits (Dao et al. 2022, FlashAttention, alg. 1),
the backward pass computes the weights again from their logarithmic sums (alg. 4); neither holds
[T, T] scores.

Scores are held keys first, [keys, queries]: sums and maxima over keys then run along whole vectors
of queries. No input is turned for that: products whose left factor is read by columns take a third
to a half longer than others, which is less than turned copies of all keys and values cost.

The loop runs on one core of a device: it takes about a third of the processor time of the dense
path at rows of 1,024 and half of it at 512. On a device of many cores the dense path ends sooner.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from multimed_jax.layers.sight import Sight, visible

MASKED_SCORE = -1e30
# Of 32, 48, 64, 96 and 128 the fastest by 7 % and more at rows of 512 and 1,024 (2 CPU cores).
BLOCK = 64

Columns = tuple[Int[Array, "B T"], ...]


def block_attention(
    q_BHTC: Float[Array, "B H T C"],
    k_BHTC: Float[Array, "B H T C"],
    v_BHTC: Float[Array, "B H T C"],
    sight: Sight,
    block: int = BLOCK,
) -> Float[Array, "B H T C"]:
    """Softmax attention by blocks of `block` tokens; outputs of padding are 0 or finite."""
    width = sight.width
    block = min(block, width)
    extra = -width % block
    columns = tuple(jnp.pad(c, ((0, 0), (0, extra))) for c in sight.columns)
    padding = ((0, 0), (0, 0), (0, extra), (0, 0))
    q, k, v = (jnp.pad(a, padding) for a in (q_BHTC, k_BHTC, v_BHTC))
    out: Array = _attend(q * q.shape[-1] ** -0.5, k, v, columns, block)
    return out[:, :, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, columns: Columns, block: int) -> Array:
    return _forward(q, k, v, columns, block)[0]


def _attend_forward(q, k, v, columns, block):
    out, lse = _forward(q, k, v, columns, block)
    return out, (q, k, v, columns, out, lse)


def _attend_backward(block, residuals, gradient):
    q, k, v, columns, out, lse = residuals
    return *_backward(q, k, v, columns, out, lse, gradient, block), None


_attend.defvjp(_attend_forward, _attend_backward)


def visits(segment_ids: Int[Array, "B T"], block: int) -> tuple[Array, Array]:
    """First block of keys that each block of queries visits, and the one after the last, [B, n].

    Blocks of nothing but padding visit none.
    """
    rows, width = segment_ids.shape
    number = width // block
    meet = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids > 0)[:, :, None]
    meet = meet.reshape(rows, number, block, number, block).any((2, 4))
    first = meet.argmax(-1)
    stop = jnp.where(meet.any(-1), number - meet[:, :, ::-1].argmax(-1), 0)
    return first, stop


def _forward(q, k, v, columns: Columns, block: int) -> tuple[Array, Array]:
    """Outputs [B, H, T, C], and the logarithms of the sums of the weights [B, H, T]."""
    rows, heads, width, depth = q.shape
    number = width // block
    first, stop = visits(columns[0], block)

    def queries(index, carry):
        row, start = index // number, (index % number) * block
        q_QC = _rows_of(q, row, start, block)
        seen_by = _numbers(columns, row, start, block)

        def keys(place, carry):
            y, top, total = carry
            at = place * block
            scores = _dot("hkc,hqc->hkq", _rows_of(k, row, at, block), q_QC)
            ok = visible(seen_by, _numbers(columns, row, at, block)).T
            scores = jnp.where(ok[None], scores, MASKED_SCORE)
            higher = jnp.maximum(top, scores.max(1))
            weights = jnp.exp(scores - higher[:, None])
            fade = jnp.exp(top - higher)
            v_KC = _rows_of(v, row, at, block)
            y = y * fade[:, None] + _dot("hkc,hkq->hcq", v_KC, weights.astype(v.dtype))
            return y, higher, total * fade + weights.sum(1)

        empty = (
            jnp.zeros((heads, depth, block)),
            jnp.full((heads, block), MASKED_SCORE),
            jnp.zeros((heads, block)),
        )
        y, top, total = lax.fori_loop(
            first[row, index % number], stop[row, index % number], keys, empty
        )
        total = jnp.where(total > 0, total, 1.0)  # blocks that visit nothing
        out, lse = carry
        y_QC = (y / total[:, None]).swapaxes(1, 2)
        out = lax.dynamic_update_slice(out, y_QC[None], (row, 0, start, 0))
        return out, lax.dynamic_update_slice(lse, (top + jnp.log(total))[None], (row, 0, start))

    carry = (jnp.zeros((rows, heads, width, depth)), jnp.zeros((rows, heads, width)))
    out, lse = lax.fori_loop(0, rows * number, queries, carry)
    return out.astype(v.dtype), lse


def _backward(q, k, v, columns: Columns, out, lse, gradient, block: int):
    """Gradients of q, k and v; blocks of keys visit queries here, as seldom as the reverse."""
    rows, heads, width, depth = q.shape
    number = width // block
    first, stop = visits(columns[0], block)
    delta = (out.astype(jnp.float32) * gradient.astype(jnp.float32)).sum(-1)

    def keys(index, carry):
        dq, dk, dv = carry
        row, start = index // number, (index % number) * block
        k_KC, v_KC = (_rows_of(a, row, start, block) for a in (k, v))
        seen = _numbers(columns, row, start, block)

        def queries(place, carry):
            dq, dk_KC, dv_KC = carry
            at = place * block
            q_QC, g_QC = (_rows_of(a, row, at, block) for a in (q, gradient))
            lse_Q, delta_Q = (_columns_of(a, row, at, block) for a in (lse, delta))
            ok = visible(_numbers(columns, row, at, block), seen).T
            scores = _dot("hkc,hqc->hkq", k_KC, q_QC)
            weights = jnp.where(ok[None], jnp.exp(scores - lse_Q[:, None]), 0.0)
            d_scores = weights * (_dot("hkc,hqc->hkq", v_KC, g_QC) - delta_Q[:, None])
            d_scores = d_scores.astype(q.dtype)
            dq = _add_rows(dq, _dot("hkq,hkc->hqc", d_scores, k_KC), row, at)
            dk_KC += _dot("hkq,hqc->hkc", d_scores, q_QC)
            dv_KC += _dot("hkq,hqc->hkc", weights.astype(q.dtype), g_QC)
            return dq, dk_KC, dv_KC

        begin, end = first[row, index % number], stop[row, index % number]
        empty = jnp.zeros((heads, block, depth))
        dq, dk_KC, dv_KC = lax.fori_loop(begin, end, queries, (dq, empty, empty))
        at = (row, 0, start, 0)
        dk = lax.dynamic_update_slice(dk, dk_KC[None], at)
        return dq, dk, lax.dynamic_update_slice(dv, dv_KC[None], at)

    empty = jnp.zeros((rows, heads, width, depth))
    dq, dk, dv = lax.fori_loop(0, rows * number, keys, (empty, empty, empty))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


def _dot(form: str, a: Array, b: Array) -> Array:
    return jnp.einsum(form, a, b, preferred_element_type=jnp.float32)


def _rows_of(a: Array, row, start, size: int) -> Array:
    """a[row, :, start : start + size] of [B, H, T, C]."""
    _, heads, _, depth = a.shape
    return lax.dynamic_slice(a, (row, 0, start, 0), (1, heads, size, depth))[0]


def _columns_of(a: Array, row, start, size: int) -> Array:
    """a[row, ..., start : start + size] of [B, ..., T]."""
    between = a.shape[1:-1]
    at = (row, *[0] * len(between), start)
    return lax.dynamic_slice(a, at, (1, *between, size))[0]


def _numbers(columns: Columns, row, start, size: int) -> tuple[Array, ...]:
    return tuple(_columns_of(column, row, start, size) for column in columns)


def _add_rows(total: Array, part: Array, row, start) -> Array:
    old = _rows_of(total, row, start, part.shape[1])
    return lax.dynamic_update_slice(total, (old + part)[None], (row, 0, start, 0))
