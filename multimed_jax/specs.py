"""The extension points: what a modality, a stream, a task, a label space and a source declare.

Letters of shapes as in `types`. Everything else of the package goes by these specs and knows no
modality and no task by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from multimed_jax.types import Parts, Preview, Record, UserError

# Entries of `TaskSpec.target_shape` whose size follows from the run.
WIDEST_NAMESPACE = -1  # the most names that one of the task's namespaces has
READ_PARTS = -2  # `max_parts` of the stream that the task's head reads
# Kinds of streams, see `StreamSpec.kind`.
WORDS = "words"
ANSWERS = "answers"


@dataclasses.dataclass(frozen=True)
class StreamSpec:
    """One kind of token of a modality, such as `mri.slice`.

    Attributes:
        name: `<modality>.<stream>`.
        modality: that owns it.
        patch_shape: shape of one part.
        num_axes: coordinate axes.
        dtype: NumPy name of the parts' dtype.
        kind: what its parts are, for heads that read single parts, such as "residues"; a run has at
            most one stream of a kind that a task reads. Two kinds mean something to the package:
            `WORDS`, and `ANSWERS`, whose parts are the places of an answer: each sees what is
            before it and is seen by what comes after it alone, none is pooled, and none is hidden
            with its modality.
        max_parts: most parts of one sample; needed where `kind` is given.
    """

    name: str
    modality: str
    patch_shape: tuple[int, ...]
    num_axes: int
    dtype: str
    kind: str = ""
    max_parts: int = 0


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a record that is longer than one sample is read at evaluation.

    Every window has as many parts as `ModalitySpec.count` says (the last one overlaps the one
    before it); predictions of a record's windows are averaged. Training draws one view of such a
    record through `ModalitySpec.decode` with a generator.

    Attributes:
        count: (record, options) -> number of windows, at least 1.
        decode: (record, options, window) -> parts per stream.
    """

    count: Callable[[Record, Any], int]
    decode: Callable[[Record, Any, int], dict[str, Parts]]


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Decoding in two steps, so that the first can be kept and the second varied.

    `decode(record, options, rng)` is `finish(prepare(record, options), options, rng)` wherever
    `prepare` gives arrays, and so is every window's.

    Attributes:
        prepare: (record, options) -> arrays by name, which no chance decides; None where the record
            lacks the modality, or is decoded in one step.
        finish: (arrays, options, rng) -> parts per stream. The arrays may not be written to.
    """

    prepare: Callable[[Record, Any], Mapping[str, np.ndarray] | None]
    finish: Callable[[Mapping[str, np.ndarray], Any, np.random.Generator | None], dict[str, Parts]]


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
            number of parts never depends on it, and all that chance decides is drawn from it.
        make_tokenizer: (stream, d_model, options, rngs) -> nnx module, StreamBatch -> [P, N, D].
        features: (record, options) -> fixed-length float32 vector for the simple baselines.
        preview: (record, options) -> what a person sees of the record.
        windows: see `Windows`; None where a record is always one sample.
        fit: (options, metadata of every training source) -> options, for what is learnt from the
            training split before the run, such as a choice of genes; None where there is nothing.
        preparation: see `Preparation`; None where decoding is one step.
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
    windows: Windows | None = None
    fit: Callable[[Any, Sequence[Mapping[str, Any]]], Any] | None = None
    preparation: Preparation | None = None

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        return self.make_streams(self.options)

    def with_options(self, **changes: Any) -> ModalitySpec:
        """A copy with other geometry. Raises UserError for a name the options do not have."""
        return dataclasses.replace(self, options=changed("modality", self, changes))


@dataclasses.dataclass(frozen=True)
class Namespace:
    """The label space of one source for one task: one head leaf.

    Attributes:
        name: the source's namespace, such as "kermany_chest_xray".
        class_names: classes, labels or columns of values in order; empty where a task has none.
        class_counts: of the training split, for logit adjustment and the majority baseline; of
            labels the number of positives.
        stats: of the training split by column, for labels and values: "count" (known targets),
            "sum", "sum_squares". Empty for classes.
    """

    name: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    stats: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BaselineInputs:
    """What a trivial predictor may look at: everything of train, the inputs of the rest.

    Attributes:
        namespace: of the records.
        train: training records of the same source (`len`, `[row]`).
        records: the measured records in the order of the predictions. Their targets are not to be
            read.
    """

    namespace: Namespace
    train: Any
    records: Sequence[Record]


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """A task: its target, head, loss and metrics.

    Attributes:
        name: such as "tumor"; the record holds its target at record["targets"][name].
        spec: where this object lives, `module:SPEC`.
        target_shape: shape of one target; () for a class index. `WIDEST_NAMESPACE` and
            `READ_PARTS` stand for sizes that the run decides; shorter targets are padded.
        target_dtype: "int32" (-1 where not known) or "float32" (NaN where not known).
        make_head: (d_model, namespaces, rngs) -> nnx module, [..., D] states -> outputs; where
            `reads` is set ([P, K, D] states, SegmentParts) -> outputs.
        loss_fn: (outputs [P, K, ...], slots, namespaces) -> per-slot loss [P, K], not yet
            weighted; `layers.slot_loss` alone applies weight, denominator and lambda.
        predict: (outputs [P, K, ...], slots, namespaces) -> per-slot predictions [P, K, ...]
            (class probabilities, zero outside the slot's namespace; or values in target units).
        metrics: (predictions [n, ...], targets [n, ...]) -> {metric: value}, one namespace at a
            time, predictions and targets already cut to it. Every value is finite.
        primary_metric: the table's figure, a key of `metrics`; higher is better.
        lower_is_better: metrics that are errors.
        statistic: (predictions, targets) -> function of resample weights [B, n] that gives every
            metric of `metrics` in each resample, [B]; None repeats records, which is slow. The
            common metrics of classes need none.
        baselines: BaselineInputs -> {name: predictions}, the trivial one first; None is the
            majority class.
        read_target: (record, parts of the stream that the head reads, or None while sizes are
            counted) -> target, or None where the record has none. None reads
            record["targets"][name].
        reads: kind of the stream whose parts the head reads; "" for none.
        generates: whether answers are written piece by piece (`answers.py`). `predict` then gives
            log-probabilities of the next piece [P, K, L, V], targets are [1 + candidates, L] ids
            (the truth first), and predictions that evaluators see are ids [n, L].
        describe: (one prediction, namespace) -> what a person reads; None where the names of
            classes, labels or columns say it.
        save: (path without ending, one prediction, record) -> the files written, for predictions
            that a viewer opens; None where a line of text holds them.
        options: frozen dataclass, or None.
        remake: options -> this spec with those options.
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
    lower_is_better: frozenset[str] = frozenset()
    statistic: Callable[[np.ndarray, np.ndarray], Any] | None = None
    baselines: Callable[[BaselineInputs], Mapping[str, np.ndarray]] | None = None
    read_target: Callable[[Record, Parts | None], np.ndarray | None] | None = None
    reads: str = ""
    generates: bool = False
    describe: Callable[[np.ndarray, Namespace], str] | None = None
    save: Callable[[Path, np.ndarray, Record], tuple[Path, ...]] | None = None
    options: Any = None
    remake: Callable[[Any], TaskSpec] | None = None

    def with_options(self, **changes: Any) -> TaskSpec:
        """A copy with other options. Raises UserError for a name the options do not have."""
        options = changed("task", self, changes)
        return self if self.remake is None else self.remake(options)


def read_stream(task: TaskSpec, streams: Sequence[StreamSpec]) -> StreamSpec:
    """The stream whose parts the head of a task reads.

    Raises:
        UserError: unless exactly one configured stream is of that kind.
    """
    found = [stream for stream in streams if stream.kind == task.reads]
    if len(found) != 1:
        raise UserError(
            f"task {task.name!r} reads {task.reads}, and {len(found)} configured streams hold "
            f"them; accepted: exactly one, among {', '.join(stream.name for stream in streams)}"
        )
    return found[0]


@dataclasses.dataclass(frozen=True)
class EvaluatorSpec:
    """An evaluator of `evals`: `run(context)` yields result rows. `spec` is its `module:SPEC`."""

    name: str
    spec: str
    options: Any
    run: Any

    def with_options(self, **changes: Any) -> EvaluatorSpec:
        """A copy with other options. Raises UserError for a name the options do not have."""
        return dataclasses.replace(self, options=changed("evaluator", self, changes))


def changed(kind: str, spec: Any, changes: Mapping[str, Any]) -> Any:
    """The options of a spec with changes. Raises UserError for a name they do not have."""
    fields = () if spec.options is None else dataclasses.fields(spec.options)
    accepted = [field.name for field in fields]
    for name in changes:
        if name not in accepted:
            raise UserError(
                f"{kind} {spec.name!r} has no option {name!r}; it has: "
                f"{', '.join(accepted) or 'none'}"
            )
    if not changes:
        return spec.options
    assert spec.options is not None
    return dataclasses.replace(spec.options, **changes)


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What the metadata of a built dataset says, as the model and the evaluators need it."""

    name: str  # as in the config: "brain_tumor_mri/native:1.0.0"
    namespace: str
    class_names: Mapping[str, tuple[str, ...]]  # task -> names in label order
    content_hash: str
    interval_unit: str  # "group", or "sample" when splits are within_group
    metadata: Mapping[str, Any]
