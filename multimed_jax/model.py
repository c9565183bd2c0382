"""The model: tokenizers, the packed transformer, pooled segment states, task heads.

    streams[s].parts --tokenizers[s]--> [P, N_s, D] --gather--> rows [P*G, T, D] --trunk-->
    rows --gather back--> [P, N_s, D] --pool--> states [P, S, M, D] --heads[t]--> [P, K, ...]

Both gathers are the same bijection between parts and tokens (the packing invariant in types.py),
so the gradient of each is a gather too: no scatter runs in either pass.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.config import AlignmentConfig, ModelConfig
from multimed_jax.layers.alignment import AlignmentHead
from multimed_jax.layers.permutation import permutations, permute
from multimed_jax.layers.posemb import rotary_angles
from multimed_jax.layers.sight import make_sight
from multimed_jax.layers.transformer import Transformer, compute_dtype
from multimed_jax.sharding import MeshPlacement, constrain_packs
from multimed_jax.specs import (
    ANSWERS,
    ModalitySpec,
    Namespace,
    StreamSpec,
    TaskSpec,
    read_stream,
)
from multimed_jax.types import Batch, SegmentParts, StreamBatch, TargetSlots


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """All that fixes the model's parameters and outputs."""

    config: ModelConfig
    modalities: tuple[ModalitySpec, ...]
    tasks: tuple[TaskSpec, ...]
    namespaces: Mapping[str, tuple[Namespace, ...]]  # by task name
    alignment: AlignmentConfig = AlignmentConfig()

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        return tuple(stream for modality in self.modalities for stream in modality.streams)


def leaf_name(stream: str) -> str:
    """`mri.slice` -> `mri_slice`: parameter names hold no dots."""
    return stream.replace(".", "_")


class StreamEmbedder(nnx.Module):
    """A stream's tokenizer, and the embedding of its modality added to every token."""

    def __init__(
        self, modality: ModalitySpec, stream: StreamSpec, config: ModelConfig, rngs: nnx.Rngs
    ):
        self.tokenizer = modality.make_tokenizer(stream, config.d_model, modality.options, rngs)
        init = nnx.initializers.normal(0.02)
        self.modality_embedding = nnx.Param(init(rngs.params(), (config.d_model,)))

    def __call__(self, stream) -> Float[Array, "P N D"]:
        return self.tokenizer(stream) + self.modality_embedding[...]


class Model(nnx.Module):
    """One model over all configured modalities and tasks."""

    def __init__(self, spec: ModelSpec, rngs: nnx.Rngs):
        config = spec.config
        self.spec = spec
        self.tokenizers = nnx.Dict(
            {
                leaf_name(stream.name): StreamEmbedder(modality, stream, config, rngs)
                for modality in spec.modalities
                for stream in modality.streams
            }
        )
        self.trunk = Transformer(config, rngs, MeshPlacement())
        self.heads = nnx.Dict(
            {
                task.name: task.make_head(config.d_model, spec.namespaces[task.name], rngs)
                for task in spec.tasks
            }
        )
        if config.fusion == "late" and config.late_vote == "weighted":
            self.late_weights = nnx.Param(jnp.zeros((len(spec.modalities),)))
        if spec.alignment.weight > 0:
            self.align = AlignmentHead(spec.alignment, config.d_model, rngs)

    def __call__(self, batch: Batch) -> dict[str, Array]:
        """Outputs of every task at its target slots, [P, K, ...]."""
        states_PSMD, present_PSM, parts = self.encode(batch)
        return self.read(batch, states_PSMD, present_PSM, parts)

    def read(
        self,
        batch: Batch,
        states_PSMD: Float[Array, "P S M D"],
        present_PSM: Float[Array, "P S M"],
        parts: Mapping[str, Float[Array, "P N D"]],
    ) -> dict[str, Array]:
        """Outputs of every task from the states that `encode` gave."""
        outputs = {}
        for task in self.spec.tasks:
            slots = batch.targets[task.name]
            index = jnp.maximum(slots.segment - 1, 0)
            state_PKMD = _take(states_PSMD, index)
            present_PKM = _take(present_PSM, index)
            read = None
            if task.reads:
                stream = read_stream(task, self.spec.streams)
                read = segment_parts(batch.streams[stream.name], parts[stream.name], slots, stream)
            outputs[task.name] = self._read(task, state_PKMD, present_PKM, slots, read)
        return outputs

    def encode(
        self, batch: Batch
    ) -> tuple[Float[Array, "P S M D"], Float[Array, "P S M"], dict[str, Float[Array, "P N D"]]]:
        """What the trunk makes of the batch.

        Returns:
            Mean state of every (segment, modality); 1 where the segment has that modality; states
            of the parts of every stream, by its name.
        """
        config = self.spec.config
        head_dim = config.d_model // config.num_heads
        names = [stream.name for stream in self.spec.streams]
        embedded = [
            constrain_packs(self.tokenizers[leaf_name(n)](batch.streams[n])).astype(
                compute_dtype(config)
            )
            for n in names
        ]
        angles = [rotary_angles(batch.streams[n].coords, head_dim) for n in names]
        sizes = [batch.streams[n].segment.shape[1] for n in names]
        to_token, to_part = permutations(batch.grids, sizes)
        x_PLD = permute(jnp.concatenate(embedded, axis=1), to_token, to_part)
        angles_PLF = permute(jnp.concatenate(angles, axis=1), to_token, to_part)
        x_PLD = self._run_rows(batch, x_PLD, angles_PLF)
        states = permute(x_PLD, to_part, to_token)
        ends = np.cumsum(sizes)[:-1]
        parts = dict(zip(names, jnp.split(states, ends, axis=1), strict=True))
        return *self._pool(batch, states, sizes), parts

    def _run_rows(self, batch: Batch, x_PLD, angles_PLF) -> Float[Array, "P L D"]:
        config, streams = self.spec.config, self.spec.streams
        answers = any(stream.kind == ANSWERS for stream in streams)
        # Padding may lie before, between and behind the samples of a row.
        runs = 2 * batch.record.shape[1] + 1
        modalities = 1 if config.fusion == "early" else len(self.spec.modalities) + 1
        hold = {
            "modalities": modalities,
            # A sample that is split in two lies with its words between its other parts.
            "contiguous": self.spec.alignment.split_rate == 0,
            "max_runs": runs * modalities,
        }
        modality_of_stream = jnp.array(
            [0]
            + [
                index + 1
                for index, modality in enumerate(self.spec.modalities)
                for _ in modality.streams
            ]
        )
        rows_out, start = [], 0
        for grid in batch.grids:
            packs, rows, width = grid.segment_ids.shape
            stop = start + rows * width
            x, angles = (
                rearrange(a[:, start:stop], "p (g t) d -> (p g) t d", g=rows)
                for a in (x_PLD, angles_PLF)
            )
            segment = rearrange(grid.segment_ids, "p g t -> (p g) t")
            modality = rearrange(modality_of_stream[grid.stream_ids], "p g t -> (p g) t")
            x = constrain_packs(x)
            order = rearrange(grid.order, "p g t -> (p g) t") if answers else None
            see = functools.partial(make_sight, segment, order=order, **hold)
            within = see() if config.fusion == "early" else see(modality)
            y = self.trunk(x, see(), within, angles)
            rows_out.append(rearrange(y, "(p g) t d -> p (g t) d", p=packs))
            start = stop
        return jnp.concatenate(rows_out, axis=1)

    def _pool(self, batch: Batch, states_PND, sizes: list[int]):
        num_segments = batch.record.shape[1]
        segments = 1 + jnp.arange(num_segments)
        sums, counts, start = [], [], 0
        for modality in self.spec.modalities:
            total, count = 0.0, jnp.zeros(segments.shape)
            for stream in modality.streams:
                segment = batch.streams[stream.name].segment
                stop = start + segment.shape[1]
                if stream.kind == ANSWERS:  # a pooled answer would tell itself to every head
                    start = stop
                    continue
                member = (segment[:, None, :] == segments[None, :, None]).astype(states_PND.dtype)
                total += jnp.einsum("psn,pnd->psd", member, states_PND[:, start:stop])
                count += member.sum(-1, dtype=jnp.float32)
                start = stop
            sums.append(total)
            counts.append(count)
        assert start == sum(sizes)
        count_PSM = jnp.stack(counts, axis=-1)
        mean_PSMD = jnp.stack(sums, axis=2) / jnp.maximum(count_PSM, 1.0)[..., None]
        return mean_PSMD.astype(jnp.float32), (count_PSM > 0).astype(jnp.float32)

    def _read(
        self,
        task: TaskSpec,
        state_PKMD,
        present_PKM,
        slots: TargetSlots,
        read: SegmentParts | None,
    ) -> Array:
        """Head outputs of the slots: on the merged state, or (late fusion) merged outputs.

        A head that reads parts reads them as they are, beside the merged state.
        """
        head = self.heads[task.name]
        weights_PKM = present_PKM / jnp.maximum(present_PKM.sum(-1, keepdims=True), 1.0)
        config = self.spec.config
        merged_PKD = jnp.einsum("pkmd,pkm->pkd", state_PKMD, weights_PKM)
        if read is not None:
            return head(merged_PKD, read)
        if config.fusion != "late":
            return head(merged_PKD)
        outputs_PKMC = head(state_PKMD)
        if config.late_vote == "weighted":
            gated = present_PKM * jnp.exp(self.late_weights[...])
            weights_PKM = gated / jnp.maximum(gated.sum(-1, keepdims=True), 1e-6)
        # Other predictions than class probabilities are averaged: they have no vote.
        if config.late_vote == "vote" and task.target_shape == ():
            return _vote(task, outputs_PKMC, weights_PKM, slots, self.spec.namespaces[task.name])
        return jnp.einsum("pkm...,pkm->pk...", outputs_PKMC, weights_PKM)


def _vote(task, outputs_PKMC, weights_PKM, slots, namespaces) -> Array:
    """Mean of the modalities' predicted probabilities, as log-probabilities."""
    votes = jnp.stack(
        [
            task.predict(outputs_PKMC[:, :, m], slots, namespaces)
            for m in range(weights_PKM.shape[-1])
        ],
        axis=2,
    )
    mean = jnp.einsum("pkm...,pkm->pk...", votes, weights_PKM)
    return jnp.log(mean + 1e-9)


def _take(values: Array, index: Int[Array, "P K"]) -> Array:
    """values[p, index[p, k]]."""
    return jax.vmap(lambda v, i: v[i])(values, index)


def segment_parts(
    stream: StreamBatch, states_PND: Float[Array, "P N D"], slots: TargetSlots, spec: StreamSpec
) -> SegmentParts:
    """The parts of a stream in the segment of each slot; they lie side by side."""
    member_PKN = stream.segment[:, None, :] == slots.segment[..., None]
    place = jnp.arange(spec.max_parts).reshape(1, 1, -1)
    mask = (slots.segment > 0)[..., None] & (place < member_PKN.sum(-1)[..., None])
    index = jnp.where(mask, member_PKN.argmax(-1)[..., None] + place, 0)

    def taken(values: Array) -> Array:
        found = jax.vmap(lambda v, i: v[i])(values, index)
        return jnp.where(mask.reshape(*mask.shape, *[1] * (found.ndim - 3)), found, 0)

    return SegmentParts(taken(states_PND), taken(stream.parts), taken(stream.coords), mask)
