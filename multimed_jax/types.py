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
from collections.abc import Callable, Mapping
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
    """Rows of one width. Stream ids count from 1 in the order of the streams; 0 is padding."""

    stream_ids: Int[Array, "P G T"]
    segment_ids: Int[Array, "P G T"]
    positions: Int[Array, "P G T"]  # index of the token inside its segment
    stream_index: Int[Array, "P G T"]  # which part of the stream the token shows


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
class TargetSlots:
    """The targets of one task. `weight` 0 marks an empty slot (its segment is 0).

    Attributes:
        segment: the segment that carries the task.
        value: class index inside its namespace, or the task's own target array.
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
        cursor: the data state (window, pack) of each lane after this batch.
    """

    grids: tuple[TokenGrid, ...]
    streams: dict[str, StreamBatch]
    targets: dict[str, TargetSlots]
    record: Int[Array, "P S 2"]
    cursor: Int[Array, "P 2"]


# ---------------------------------------------------------------------- extension points


@dataclasses.dataclass(frozen=True)
class StreamSpec:
    """One kind of token of a modality, such as `mri.slice`."""

    name: str
    modality: str
    patch_shape: tuple[int, ...]
    num_axes: int
    dtype: str  # NumPy name of the parts' dtype


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
    """A modality: everything the rest of the package needs to know of it.

    Attributes:
        name: canonical record key, such as "mri".
        id: stable number (table in docs/modalities.md); never depends on the config's order.
        spec: where this object lives, `module:SPEC`; what a stored run names.
        options: frozen dataclass of the geometry (side, patch, limits); see `with_options`.
        make_streams: options -> the streams that this modality owns.
        count: (record, options) -> exact number of parts per stream, without decoding payloads;
            empty where the record lacks the modality. Over-long inputs are already cut.
        decode: (record, options, rng) -> parts per stream. `rng` is None at evaluation; the
            number of parts never depends on it.
        make_tokenizer: (stream, d_model, options, rngs) -> nnx module, StreamBatch -> [P, N, D].
        features: (record, options) -> fixed-length float32 vector for the logistic baseline.
        preview: (record, options) -> what a person sees of the record.
    """

    name: str
    id: int
    spec: str
    options: Any
    make_streams: Callable[[Any], tuple[StreamSpec, ...]]
    count: Callable[[Record, Any], dict[str, int]]
    decode: Callable[[Record, Any, np.random.Generator | None], dict[str, Parts]]
    make_tokenizer: Callable[..., Any]
    features: Callable[[Record, Any], Float[np.ndarray, "F"]]  # noqa: F821
    preview: Callable[[Record, Any], Preview]

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        return self.make_streams(self.options)

    def with_options(self, **changes: Any) -> ModalitySpec:
        """A copy with other geometry. Raises UserError for a name the options do not have."""
        accepted = [field.name for field in dataclasses.fields(self.options)]
        for name in changes:
            if name not in accepted:
                raise UserError(
                    f"modality {self.name!r} has no option {name!r}; it has: {', '.join(accepted)}"
                )
        options = dataclasses.replace(self.options, **changes)
        return dataclasses.replace(self, options=options)


@dataclasses.dataclass(frozen=True)
class Namespace:
    """The label space of one source for one task: one head leaf.

    Attributes:
        name: the source's namespace, such as "kermany_chest_xray".
        class_names: in label order; empty for regression.
        class_counts: of the training split, for logit adjustment and the majority baseline.
    """

    name: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """A task: its target, head, loss and metrics.

    Attributes:
        name: such as "tumor"; the record holds its target at record["targets"][name].
        spec: where this object lives, `module:SPEC`.
        target_shape: shape of one target; () for a class index.
        target_dtype: "int32" for classes (-1 where the record has none), "float32" otherwise
            (NaN where it has none).
        make_head: (d_model, namespaces, rngs) -> nnx module, [..., D] states -> outputs.
        loss_fn: (outputs [P, K, ...], slots, namespaces) -> per-slot loss [P, K], not yet
            weighted; `optim.weighting` alone applies weight, denominator and lambda.
        predict: (outputs [P, K, ...], slots, namespaces) -> per-slot predictions [P, K, ...]
            (class probabilities, zero outside the slot's namespace; or values in target units).
        metrics: (predictions [n, ...], targets [n, ...]) -> {metric: value}, one namespace at a
            time, predictions already cut to it.
        primary_metric: the table's figure, a key of `metrics`.
    """

    name: str
    spec: str
    target_shape: tuple[int, ...]
    target_dtype: str
    make_head: Callable[..., Any]
    loss_fn: Callable[..., Float[jax.Array, "P K"]]
    predict: Callable[..., Float[jax.Array, "P K *out"]]
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    primary_metric: str


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What the metadata of a built dataset says, as the model and the evaluators need it."""

    name: str  # as in the config: "brain_tumor_mri/native:1.0.0"
    namespace: str
    class_names: Mapping[str, tuple[str, ...]]  # task -> names in label order
    content_hash: str
    interval_unit: str  # "group", or "sample" when splits are within_group
    metadata: Mapping[str, Any]


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
