"""Frozen configs and the strict conversion of an `ml_collections.ConfigDict` into them.

A config file returns a ConfigDict whose keys are the field names below. Unknown and missing keys,
and values of another type, raise `UserError`: there are no silent defaults. A field with a default
may be left out; every other field must be given.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from multimed_jax.types import ModalitySpec, TaskSpec, UserError

T = TypeVar("T")

# Modules from which a stored run may name a `module:SPEC`; configs add prefixes by `plugins`.
SPEC_PREFIXES = ("multimed_jax.modalities.", "multimed_jax.tasks.", "multimed_jax.evaluators.")


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
        threads: threads that read and decode.
        cache_mib: memory for parsed records, payloads still encoded; reading a record again
            costs several times its decoding.
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
        remat: "none" or "full" (recompute a layer in the backward pass).
        dtype: compute dtype, "float32" or "bfloat16"; parameters and softmax stay float32.
    """

    d_model: int
    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    fusion: Literal["early", "intermediate", "late"] = "early"
    fusion_layers: int = 0
    late_vote: Literal["mean", "weighted", "vote"] = "mean"
    scan_layers: bool = False
    remat: Literal["none", "full"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"


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
    """

    learning_rate: Mapping[str, ScheduleConfig]
    weight_decay: float
    b1: float = 0.9
    b2: float = 0.98
    clip_norm: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.0
    lambdas: Mapping[str, ScheduleConfig] = dataclasses.field(default_factory=dict)


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
class EvaluatorSpec:
    """An evaluator of `evals`: `run(context)` yields result rows. `spec` is its `module:SPEC`."""

    name: str
    spec: str
    options: Any
    run: Any

    def with_options(self, **changes: Any) -> EvaluatorSpec:
        """A copy with other options. Raises UserError for a name the options do not have."""
        accepted = [field.name for field in dataclasses.fields(self.options)]
        for name in changes:
            if name not in accepted:
                raise UserError(
                    f"evaluator {self.name!r} has no option {name!r}; it has: "
                    f"{', '.join(accepted) or 'none'}"
                )
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **changes))


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
    mesh: MeshConfig = MeshConfig()
    plugins: tuple[str, ...] = ()


_SPEC_TYPES = (ModalitySpec, TaskSpec, EvaluatorSpec)


# ---------------------------------------------------------------------- strict conversion


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Converts a (nested) mapping into the frozen dataclass `cls`.

    Raises:
        UserError: for an unknown key, a missing key or a value of another type; the sentence
            names the key, the value and what is accepted.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a mapping of keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UserError(f"{where} has no key {key!r}{hint}; accepted keys: {', '.join(fields)}")
    out = {}
    for name, field in fields.items():
        if name in values:
            out[name] = _convert(hints[name], values[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} lacks the key {name!r}")
    return cls(**out)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and hint not in _SPEC_TYPES:
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        return from_dict(hint, value, where)  # type: ignore[type-var]
    if origin is Literal:
        if value not in typing.get_args(hint):
            accepted = ", ".join(map(repr, typing.get_args(hint)))
            raise UserError(f"{where} is {value!r}; accepted: {accepted}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise UserError(f"{where} must be a list or tuple, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (Mapping, dict) or isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a mapping, not {value!r}")
        item = typing.get_args(hint)[1]
        return {str(k): _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool or not isinstance(value, hint):
        raise UserError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value


def to_dict(config: Any) -> Any:
    """The config with every key that it could have, as nested dicts; specs stay objects.

    A config file returns it as a ConfigDict, so that each key can be overridden on the command
    line, the defaults included.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, _SPEC_TYPES):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, tuple):
        return tuple(to_dict(v) for v in config)
    return config


# ------------------------------------------------------------------- stored configs (JSON)


def to_json(config: Any) -> Any:
    """The config as plain JSON values; specs become {"spec": "module:SPEC", "options": {...}}."""
    if isinstance(config, _SPEC_TYPES):
        out: dict[str, Any] = {"spec": config.spec}
        options = getattr(config, "options", None)
        if options is not None:
            out["options"] = dataclasses.asdict(options)
        return out
    if isinstance(config, Mapping):
        return {key: to_json(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    if dataclasses.is_dataclass(config):
        return to_json(to_dict(config))
    return config


def load_spec(stored: Mapping[str, Any], plugins: tuple[str, ...] = ()) -> Any:
    """Imports the spec that a stored run names, with its stored options.

    Only modules under `SPEC_PREFIXES` and the run's own `plugins` can be imported; nothing of a
    stored config is executed.

    Raises:
        UserError: where the name lies elsewhere or does not exist.
    """
    prefixes = SPEC_PREFIXES + tuple(plugins)
    module, _, attribute = stored["spec"].partition(":")
    if not any(f"{module}.".startswith(p if p.endswith(".") else f"{p}.") for p in prefixes):
        raise UserError(
            f"a stored run names {stored['spec']!r}, which lies outside the accepted modules: "
            f"{', '.join(prefixes)}"
        )
    try:
        spec = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"a stored run names {stored['spec']!r}, which is not there: {error}"
        ) from None
    options = stored.get("options")
    if options is None:
        return spec
    typed = from_dict(type(spec.options), options, stored["spec"])
    return dataclasses.replace(spec, options=typed)


def from_json(stored: Mapping[str, Any]) -> RunConfig:
    """The `RunConfig` that `to_json` wrote. Raises UserError where it no longer fits."""
    values = dict(stored)
    plugins = tuple(values["plugins"])
    for key in ("modalities", "tasks", "evals"):
        values[key] = tuple(load_spec(v, plugins) for v in values[key])
    return from_dict(RunConfig, values)


def config_hash(config: RunConfig) -> str:
    """12 hex digits of the resolved config without `data_dir`: the same run, anywhere."""
    values = to_json(config)
    values.pop("data_dir")
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
