"""The nouns of multimed_jax: Record, Example, PackPlan, Batch, the extension specs, TrainState.

Shape letters used throughout the package:

    P  packs in a global batch (= lanes)      G  rows of a pack
    T  token slots of a row                   N  part slots of one stream in a pack
    S  segment slots of a pack (1..S used)    K  target slots of one task in a pack
    M  configured modalities                  A  coordinate axes of a stream
    D  model width                            H  attention heads

A pack with G=2 rows of T=8, three segments (a=1, b=2, c=3), streams x (xray) and t (text);
0 is padding:

    segment_ids   1 1 1 1 1 2 2 0      stream_ids   x x x x t t t .      (x=1, t=2, .=0)
                  3 3 3 3 0 0 0 0                   x x x x . . . .
    stream_index  0 1 2 3 0 1 2 0      -> token (g, t) of stream s shows part stream_index[g, t]
                  4 5 6 7 0 0 0 0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

# A host array before the transfer, a device array after it, the same Batch class around both;
# the type checker cannot follow that.
if TYPE_CHECKING:
    Array = Any
else:
    Array = np.ndarray | jax.Array

# One record as a data source yields it: nested dict of canonical keys (tfds_builders/README.md).
Record = Mapping[str, Any]

PAD_SEGMENT = 0


class UserError(Exception):
    """Something a user can mend: one sentence that names the offending value and the accepted set.

    The commands print it without a traceback and exit with a code other than 0.
    """


# --------------------------------------------------------------------------- host side


@dataclasses.dataclass(frozen=True)
class Parts:
    """The decoded parts of one stream of one sample, on the host.

    Attributes:
        parts: patches, words, residues; one row is one token.
        coords: position of each part along the stream's axes (patch units for rotary positions).
        item: which item (view, tile, window) of the sample a part belongs to, from 0.
    """

    parts: Shaped[np.ndarray, "n *patch_shape"]
    coords: Float[np.ndarray, "n A"]
    item: Int[np.ndarray, "n"]  # noqa: F821

    def __len__(self) -> int:
        return len(self.parts)

    def write(self, out: Shaped[np.ndarray, "n *patch_shape"]) -> None:
        """Writes the parts to their place in a batch."""
        out[...] = self.parts


@dataclasses.dataclass(frozen=True)
class Preview:
    """How a person looks at one input of a modality, for the sample sheets of the report.

    Attributes:
        kind: "image" ([h, w] or [h, w, 3] uint8), "traces" ([T, C] float32), "bars" ([k] float32)
            or "text" (a str).
        values: as `kind` says.
        labels: of traces or bars; empty otherwise.
        unit: of the values, such as "uV"; empty where it has none.
    """

    kind: Literal["image", "traces", "bars", "text"]
    values: Any
    labels: tuple[str, ...] = ()
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Example:
    """One sample after decoding: streams of parts, and its targets (task name -> value)."""

    streams: Mapping[str, Parts]
    targets: Mapping[str, np.ndarray]
    group_id: str
    sample_id: str


# ------------------------------------------------------------------------- device side


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenGrid:
    """Rows of one width. Stream ids count from 1 in the order of the streams; 0 is padding.

    A token sees the tokens of its segment whose `order` does not exceed its own: an image i and a
    question q are seen by all, the pieces of an answer only by themselves and later pieces.

        segment  1 1 1 1 1 1 1      tokens  i i q q a a a
        order    0 0 0 0 1 2 3
    """

    stream_ids: Int[Array, "P G T"]
    segment_ids: Int[Array, "P G T"]
    positions: Int[Array, "P G T"]  # index of the token inside its segment
    stream_index: Int[Array, "P G T"]  # which part of the stream the token shows
    order: Int[Array, "P G T"]  # 0, or the place in an answer, from 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamBatch:
    """The parts of one stream of every pack. Padding parts are 0 with segment 0."""

    parts: Shaped[Array, "P N *patch_shape"]
    coords: Float[Array, "P N A"]
    segment: Int[Array, "P N"]
    item: Int[Array, "P N"]  # unique in the pack, from 1; 0 is padding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SegmentParts:
    """The parts of one stream in the segments of a task's slots, for heads that read them.

    L is `StreamSpec.max_parts`; parts lie in the order of the sample, padding behind them.

    Attributes:
        states: of the parts' tokens after the trunk; 0 where `mask` is False.
        parts: what the tokens show; 0 where `mask` is False.
        coords: of the parts.
        mask: where there is a part.
    """

    states: Float[Array, "P K L D"]
    parts: Shaped[Array, "P K L *patch_shape"]
    coords: Float[Array, "P K L A"]
    mask: Bool[Array, "P K L"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TargetSlots:
    """The targets of one task. `weight` 0 marks an empty slot (its segment is 0).

    Attributes:
        segment: the segment that carries the task.
        value: class index inside its namespace, or the task's own target array; what is not
            known in it is -1 (integers) or NaN (floats).
        weight: weight of the target in losses and metrics.
        namespace: index into the task's namespaces (see `Namespace`).
        modality_share: 1/|M| for each modality the sample has, before any dropout; rows sum to 1.
    """

    segment: Int[Array, "P K"]
    value: Num[Array, "P K *target_shape"]
    weight: Float[Array, "P K"]
    namespace: Int[Array, "P K"]
    modality_share: Float[Array, "P K M"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A global batch of P packs: static shapes, one pytree. The pack is the unit of sharding.

    Attributes:
        grids: one per row width.
        streams: stream name -> parts.
        targets: task name -> slots.
        record: (source index, row) of segment s at [p, s - 1]; (-1, -1) where unused.
        partner: the other segment of a sample that was split in two for alignment, at [p, s - 1];
            0 where the sample is whole.
        cursor: the data state (window, pack) of each lane after this batch.
    """

    grids: tuple[TokenGrid, ...]
    streams: dict[str, StreamBatch]
    targets: dict[str, TargetSlots]
    record: Int[Array, "P S 2"]
    partner: Int[Array, "P S"]
    cursor: Int[Array, "P 2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a checkpoint holds, beside the data state `Batch.cursor`."""

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: Any
    weighting_state: Any
    ema: Any  # None unless config.optim.ema_decay > 0
    rng: Shaped[Array, "..."]


Scalar = Float[Array, ""]
Mask = Bool[Array, "..."]
