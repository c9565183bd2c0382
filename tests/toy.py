"""A toy modality and a toy task: vectors in, a class out. Small, fast, and unlike any real one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimed_jax.specs import ModalitySpec, StreamSpec, TaskSpec
from multimed_jax.types import Batch, Parts, Preview, StreamBatch, TargetSlots, TokenGrid


@dataclasses.dataclass(frozen=True)
class ToyOptions:
    width: int = 3
    axes: int = 1


def make_toy_modality(name: str, number: int, **options: int) -> ModalitySpec:
    """Records hold {name: {"values": [n, width]}}; each row is one part."""

    def streams(opts: ToyOptions):
        return (StreamSpec(f"{name}.toy", name, (opts.width,), opts.axes, "float32"),)

    def values(record: Any, opts: ToyOptions) -> np.ndarray:
        empty = np.zeros((0, opts.width), np.float32)
        return np.asarray(record[name]["values"], np.float32) if name in record else empty

    def count(record, opts):
        n = len(values(record, opts))
        return {f"{name}.toy": n} if n else {}

    def decode(record, opts, rng):
        parts = values(record, opts)
        n = len(parts)
        coords = np.stack([np.arange(n, dtype=np.float32) + a for a in range(opts.axes)], axis=1)
        return {f"{name}.toy": Parts(parts, coords, np.zeros(n, np.int32))} if n else {}

    class Tokenizer(nnx.Module):
        def __init__(self, stream, d_model, opts, rngs):
            self.project = nnx.Linear(opts.width, d_model, rngs=rngs)

        def __call__(self, stream: StreamBatch):
            return self.project(stream.parts)

    return ModalitySpec(
        name=name,
        id=number,
        spec=f"tests.toy:{name}",
        options=ToyOptions(**options),
        make_streams=streams,
        count=count,
        decode=decode,
        make_tokenizer=Tokenizer,
        features=lambda record, opts: values(record, opts).mean(0),
        preview=lambda record, opts: Preview("bars", values(record, opts).mean(0)),
    )


def make_toy_task(name: str) -> TaskSpec:
    """Softmax over the first namespace's classes."""

    def loss(outputs, slots: TargetSlots, namespaces):
        logp = jax.nn.log_softmax(outputs, axis=-1)
        return -jnp.take_along_axis(logp, slots.value[..., None], axis=-1)[..., 0]

    return TaskSpec(
        name=name,
        spec=f"tests.toy:{name}",
        target_shape=(),
        target_dtype="int32",
        make_head=lambda d, namespaces, rngs: nnx.Linear(
            d, len(namespaces[0].class_names), rngs=rngs
        ),
        loss_fn=loss,
        predict=lambda outputs, slots, namespaces: jax.nn.softmax(outputs, axis=-1),
        metrics=lambda probs, targets: {"accuracy": float((probs.argmax(-1) == targets).mean())},
        primary_metric="accuracy",
    )


def pack(
    samples: list[list[dict[str, np.ndarray]]],
    streams: list[StreamSpec],
    width: int,
    num_parts: int,
    labels: list[int],
    task: str,
    packs: int = 1,
) -> Batch:
    """Packs samples by hand: `samples[g]` are the samples of row g; each is stream -> parts.

    The stream's parts lie in the order of their tokens; labels are per sample in reading order.
    Written apart from `multimed_jax.data`, as a reference for it.
    """
    rows = len(samples)
    num_segments = sum(map(len, samples))
    grid = {k: np.zeros((1, rows, width), np.int32) for k in ("stream", "segment", "pos", "index")}
    parts = {s.name: np.zeros((1, num_parts, *s.patch_shape), np.float32) for s in streams}
    coords = {s.name: np.zeros((1, num_parts, s.num_axes), np.float32) for s in streams}
    owner = {s.name: np.zeros((1, num_parts), np.int32) for s in streams}
    used = {s.name: 0 for s in streams}
    share = np.zeros((1, num_segments, len(streams)), np.float32)
    segment = 0
    for g, row in enumerate(samples):
        t = 0
        for sample in row:
            segment += 1
            start = t
            for number, stream in enumerate(streams, 1):
                for i, part in enumerate(sample.get(stream.name, ())):
                    n = used[stream.name]
                    parts[stream.name][0, n] = part
                    coords[stream.name][0, n] = i
                    owner[stream.name][0, n] = segment
                    grid["stream"][0, g, t], grid["segment"][0, g, t] = number, segment
                    grid["pos"][0, g, t], grid["index"][0, g, t] = t - start, n
                    used[stream.name] += 1
                    t += 1
                if len(sample.get(stream.name, ())):
                    share[0, segment - 1, number - 1] = 1
    share /= share.sum(-1, keepdims=True)
    batch = Batch(
        grids=(
            TokenGrid(grid["stream"], grid["segment"], grid["pos"], grid["index"], 0 * grid["pos"]),
        ),
        streams={
            s.name: StreamBatch(parts[s.name], coords[s.name], owner[s.name], owner[s.name])
            for s in streams
        },
        targets={
            task: TargetSlots(
                np.arange(1, num_segments + 1, dtype=np.int32)[None],
                np.asarray(labels, np.int32)[None],
                np.ones((1, num_segments), np.float32),
                np.zeros((1, num_segments), np.int32),
                share,
            )
        },
        record=np.zeros((1, num_segments, 2), np.int32),
        partner=np.zeros((1, num_segments), np.int32),
        cursor=np.zeros((1, 2), np.int32),
    )
    return jax.tree.map(lambda x: np.repeat(x, packs, axis=0), batch)
