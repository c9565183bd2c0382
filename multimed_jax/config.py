"""The frozen configs of a run.

A config file returns an `ml_collections.ConfigDict` whose keys are the field names below;
`config_io` converts it strictly. A field with a default may be left out, every other must be given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from multimed_jax.specs import EvaluatorSpec, ModalitySpec, TaskSpec
from multimed_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A built dataset in the mixture.

    Attributes:
        name: "dataset", "dataset/config" or "dataset/config:1.0.0".
        weight: share of the draws, relative to the other sources.
        tasks: which of its targets are used; empty means every configured task that it carries.
    """

    name: str
    weight: float
    tasks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which records are drawn and how they are packed.

    Attributes:
        sources: the mixture.
        lanes: packs in a global batch (P).
        rows: rows of a pack (G).
        row_width: token slots of a row (T).
        window: draws that are planned together.
        stream_slack: stream and target budgets as a multiple of their mean share.
        modality_dropout: chance to hide each modality of a sample that has several (never all).
        prefetch: batches that are assembled ahead.
        threads: that read and decode; 0 does so where batches are assembled, without a time limit.
        read_timeout_s: a record that takes longer to read and decode ends the run, by its name.
        log_samples: writes which records each step was trained on to `samples.jsonl`, for audits.
        cache_mib: memory for parsed records, which are then read once; payloads stay encoded.
        decoded_cache: folder that keeps decoded records for this run and others; "" keeps none.
        decoded_cache_gib: it does not grow above this (docs/data.md, "Decoded records").
    """

    sources: tuple[SourceConfig, ...]
    lanes: int
    rows: int
    row_width: int
    window: int
    stream_slack: float = 1.3
    modality_dropout: float = 0.0
    prefetch: int = 2
    threads: int = 2
    cache_mib: int = 1024
    read_timeout_s: float = 25.0
    log_samples: bool = False
    decoded_cache: str = ""
    decoded_cache_gib: float = 100.0

    def __post_init__(self):
        """Raises UserError for a limit or numbers of threads and batches out of range."""
        values = self.read_timeout_s, self.decoded_cache_gib, self.threads, self.prefetch
        said = "read_timeout_s {}, decoded_cache_gib {}, threads {}, prefetch {}".format(*values)
        if not all(value >= 0 for value in values) or 0 in values[:2]:
            raise UserError(f"config.data has {said}; accepted: above 0, above 0, from 0, from 0")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shared transformer.

    Attributes:
        fusion: "early" (all tokens of a sample attend to each other), "intermediate" (within a
            modality for the first `fusion_layers` layers, then across) or "late" (never across;
            outputs of the modalities are merged).
        late_vote: how late fusion merges: "mean", "weighted" (learnt) or "vote".
        scan_layers: True compiles one layer and scans it (compile time flat in depth; the CPU
            step is about a quarter slower), False unrolls.
        remat: what the backward pass of a layer recomputes: "none", "dots" (all but the products
            with weights) or "full" (the layer). Memory falls in this order, time rises.
        dtype: compute dtype, "float32" or "bfloat16"; parameters and softmax stay float32.
        attention: how it is computed: "dense" (the reference), "cpu" (blocks; scores that no
            sample needs are left out), "pallas" or "cudnn" (GPU kernels), "auto" (the fastest that
            fits the devices and rows; see `layers.attention`). All give the same figures.
    """

    d_model: int
    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    fusion: Literal["early", "intermediate", "late"] = "early"
    fusion_layers: int = 0
    late_vote: Literal["mean", "weighted", "vote"] = "mean"
    scan_layers: bool = False
    remat: Literal["none", "dots", "full"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "dense", "cpu", "pallas", "cudnn"] = "auto"


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A value over training steps.

    Attributes:
        kind: "constant", "linear", "cosine" (both after a linear warm-up) or "piecewise".
        value: the constant, or the peak.
        end_value: where linear and cosine end, at the last step of the run.
        warmup_steps: steps from 0 to `value`.
        boundaries: steps at which piecewise multiplies the value by the scale of the same place.
        scales: see `boundaries`.
    """

    kind: Literal["constant", "linear", "cosine", "piecewise"]
    value: float
    end_value: float = 0.0
    warmup_steps: int = 0
    boundaries: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with one learning-rate schedule per parameter group, and the loss weights.

    Attributes:
        learning_rate: group ("tokenizers", "trunk", "heads") -> schedule.
        lambdas: "task/modality" or "task" -> schedule of the loss weight; 1 where not named.
        accumulate: microbatches per step; divides `data.lanes`.
        ema_decay: decay of the averaged parameters used in evaluation; 0 is off.
        max_skipped: so many skipped updates in a row end the run. An update is skipped where the
            loss or the gradient is not finite.
        spike_factor: an update is also skipped where the norm of its gradient is above this
            multiple of the norm's running mean; 0 is off.
    """

    learning_rate: Mapping[str, ScheduleConfig]
    weight_decay: float
    b1: float = 0.9
    b2: float = 0.98
    clip_norm: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.0
    lambdas: Mapping[str, ScheduleConfig] = dataclasses.field(default_factory=dict)
    max_skipped: int = 20
    spike_factor: float = 0.0

    def __post_init__(self):
        """Raises UserError for limits of skipped updates out of range."""
        if self.max_skipped < 1 or (self.spike_factor != 0 and self.spike_factor <= 1):
            raise UserError(
                f"config.optim has max_skipped {self.max_skipped}, spike_factor "
                f"{self.spike_factor}; accepted: from 1, 0 or above 1"
            )


@dataclasses.dataclass(frozen=True)
class AlignmentConfig:
    """A space that samples share with texts, for zero-shot evaluation; off while `weight` is 0.

    Two things are pulled together: a sample of a class and the names of that class (a bank of all
    names is encoded once per step), and the two halves of a sample that has text beside another
    modality. Such a sample is planned as two segments with chance `pair_rate`, for inside one
    segment each half would have read the other.

    Attributes:
        weight: of the alignment loss beside the losses of the tasks.
        pair_rate: see above.
        loss: "infonce" (softmax over the global batch, several positives allowed) or "siglip"
            (a sigmoid per pair).
        temperature: at the start; it is learnt.
        dim: width of the space.
        templates: prompts of a class name ("{}"); training draws one, evaluation averages all.
        max_label_tokens: longer prompts are cut.
    """

    weight: float = 0.0
    pair_rate: float = 0.25
    loss: Literal["infonce", "siglip"] = "infonce"
    temperature: float = 0.1
    dim: int = 64
    templates: tuple[str, ...] = ("{}",)
    max_label_tokens: int = 16

    def __post_init__(self):
        """Raises UserError for values out of range."""
        if self.weight < 0 or not 0 <= self.pair_rate <= 1 or self.temperature <= 0:
            raise UserError(
                f"config.alignment has weight {self.weight}, pair_rate {self.pair_rate}, "
                f"temperature {self.temperature}; accepted: from 0, 0 to 1, above 0"
            )
        if min(self.dim, self.max_label_tokens) < 1 or not self.templates:
            raise UserError(
                f"config.alignment has dim {self.dim}, max_label_tokens {self.max_label_tokens} "
                f"and {len(self.templates)} templates; accepted: at least 1 of each"
            )
        for template in self.templates:
            if "{}" not in template:
                raise UserError(
                    f"config.alignment.templates has {template!r}; accepted: texts with '{{}}'"
                )

    @property
    def split_rate(self) -> float:
        """Chance that a sample with text and another modality becomes two segments."""
        return self.pair_rate if self.weight > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes all that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """How often to save, and how many steps to keep."""

    every_steps: int
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How the figures are made.

    Attributes:
        splits: evaluated after training.
        validation_every_steps: how often the primary metrics of the validation split are logged
            during training; 0 is never.
        validation_records: at most this many records of each source in those.
        bootstrap: resamples of an interval.
        confidence: its coverage.
    """

    splits: tuple[str, ...] = ("test",)
    validation_every_steps: int = 0
    validation_records: int = 512
    bootstrap: int = 1000
    confidence: float = 0.95


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Steps that are traced to `profile` in the run folder; see docs/profiling.md.

    Attributes:
        first_step: the first of them, counted from 1; 0 is off. The step that compiles is 1.
        num_steps: how many; all lie before the end of the run.
    """

    first_step: int = 0
    num_steps: int = 5

    def __post_init__(self):
        """Raises UserError for numbers out of range."""
        if self.first_step < 0 or self.num_steps < 1:
            raise UserError(
                f"config.profile has first_step {self.first_step}, num_steps {self.num_steps}; "
                "accepted: from 0, from 1"
            )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run.

    Attributes:
        method: row of the results table ("multimodal_multitask", "unimodal", ...).
        data_dir: folder that `python -m tfds_builders build` wrote to.
        plugins: module prefixes outside the package that may hold specs.
    """

    method: str
    data_dir: str
    seed: int
    num_steps: int
    log_every_steps: int
    modalities: tuple[ModalitySpec, ...]
    tasks: tuple[TaskSpec, ...]
    evals: tuple[EvaluatorSpec, ...]
    data: DataConfig
    model: ModelConfig
    optim: OptimConfig
    checkpoint: CheckpointConfig
    eval: EvalConfig = EvalConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    mesh: MeshConfig = MeshConfig()
    profile: ProfileConfig = ProfileConfig()
    plugins: tuple[str, ...] = ()
