"""Every tokenizer of the package stays finite on parts that say nothing, and on padding alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import multimed_jax.modalities
from multimed_jax.specs import ModalitySpec, StreamSpec
from multimed_jax.types import StreamBatch
from tests.option_variants import all_variants, smaller, specs_of

D_MODEL, SLOTS = 8, 6
# Small enough to compile in seconds; sizes do not decide what is finite.
SIZES = dict(num_hidden=6, num_filters=3, max_channels=4, max_answer=4)
SPECS = {
    name: smaller(spec, **SIZES) for name, spec in all_variants(multimed_jax.modalities).items()
}


def make_tokenizer(spec: ModalitySpec, stream: StreamSpec) -> nnx.Module:
    return spec.make_tokenizer(stream, D_MODEL, spec.options, nnx.Rngs(0))


def tokenizers() -> dict[str, tuple[ModalitySpec, StreamSpec]]:
    """Every stream of every spec, without those whose tokenizer is one that is there already."""
    found, seen = {}, []
    for name, spec in SPECS.items():
        for stream in spec.streams:
            module = nnx.eval_shape(functools.partial(make_tokenizer, spec, stream))
            key = stream, nnx.graphdef(module)
            if key not in seen:
                seen.append(key)
                found[f"{name}:{stream.name}"] = spec, stream
    return found


STEMS = tokenizers()


def zeros(stream: StreamSpec) -> np.ndarray:
    return np.zeros((1, SLOTS, *stream.patch_shape), stream.dtype)


def filled(value: float) -> Callable[[StreamSpec], np.ndarray]:
    """Parts of one value; ids and levels are at most 1, whatever the value."""

    def make(stream: StreamSpec) -> np.ndarray:
        whole = np.dtype(stream.dtype).kind in "iu"
        return np.full_like(zeros(stream), min(value, 1) if whole else value)

    return make


CASES: dict[str, tuple[Callable[[StreamSpec], np.ndarray], int]] = {
    "all padding": (zeros, 0),
    "zeros": (zeros, 3),
    "ones": (filled(1.0), 3),
    "1e4": (filled(1e4), 3),
    "1e-20": (filled(1e-20), 3),
    "no padding": (zeros, SLOTS),
}


def batch_of(stream: StreamSpec, parts: np.ndarray, used: int) -> StreamBatch:
    """Two samples in the used slots, both at the origin; padding behind them."""
    place = np.arange(SLOTS)
    segment = np.where(place < used, 1 + (place >= used // 2), 0).astype(np.int32)[None]
    there = (segment > 0).reshape(1, SLOTS, *[1] * (parts.ndim - 2))
    coords = np.zeros((1, SLOTS, stream.num_axes), np.float32)
    return StreamBatch(np.where(there, parts, 0).astype(parts.dtype), coords, segment, segment)


def make_step(spec: ModalitySpec, stream: StreamSpec) -> Callable[[StreamBatch], Any]:
    """Batch -> (tokens, gradients of the parameters), compiled."""
    graph, params = nnx.split(make_tokenizer(spec, stream))

    @jax.jit
    def step(params, batch: StreamBatch):
        def loss(params):
            tokens = nnx.merge(graph, params)(batch)
            # What the model does to a token before it is used: padding weighs nothing.
            used = (batch.segment > 0)[..., None]
            return jnp.sum(jnp.where(used, jnp.sin(tokens), 0.0)), tokens

        (_, tokens), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return tokens, gradient

    return lambda batch: jax.device_get(step(params, batch))


@pytest.mark.parametrize("name", STEMS)
def test_tokens_and_gradients_are_finite(name):
    spec, stream = STEMS[name]
    step = make_step(spec, stream)
    for what, (make, used) in CASES.items():
        tokens, gradient = step(batch_of(stream, make(stream), used))
        assert tokens.shape == (1, SLOTS, D_MODEL)
        assert np.isfinite(tokens).all(), f"{what}: tokens"
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.isfinite(leaf).all(), f"{what}: {jax.tree_util.keystr(path)}"
            if not used:
                assert not leaf.any(), f"padding moves {jax.tree_util.keystr(path)}"


def test_every_stream_and_stem_of_the_package_is_here():
    streams = {s.name for spec in specs_of(multimed_jax.modalities).values() for s in spec.streams}
    assert {stream.name for _, stream in STEMS.values()} >= streams and len(streams) >= 13
    stems = {getattr(spec.options, "stem", "") for spec, _ in STEMS.values()}
    assert {"conv", "lstm", "kmer"} <= stems
