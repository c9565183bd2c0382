"""Everything that a config stands for: data, layout, mesh, model, compiled steps."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from multimed_jax.aligned import words_of
from multimed_jax.config import RunConfig
from multimed_jax.data.loader import EvalLoader, TrainLoader
from multimed_jax.data.packing import Layout, make_layout
from multimed_jax.data.record_cache import CacheBudget, CachedRecords
from multimed_jax.data.sizes import Sizes, load_sizes
from multimed_jax.data.sources import BuiltSource, DataSource, namespaces, open_source
from multimed_jax.model import ModelSpec
from multimed_jax.optim import make_optimizer, make_schedule, make_weighting
from multimed_jax.sharding import (
    batch_sharding,
    check_lanes,
    make_mesh,
    replicated,
    state_shardings,
)
from multimed_jax.specs import ModalitySpec, Namespace, read_stream
from multimed_jax.steps import (
    Metrics,
    make_embed_step,
    make_predict_step,
    make_state,
    make_text_step,
    make_train_step,
)
from multimed_jax.types import Batch, TrainState, UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SplitData:
    """The sources of one split, and what is known of their records before reading."""

    sources: tuple[DataSource, ...]
    sizes: tuple[Sizes, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """A config made concrete.

    Attributes:
        splits: "train" and every split that is evaluated.
        namespaces: task name -> label spaces.
        state_shapes: shapes, dtypes and shardings of the TrainState.
        init: () -> a fresh sharded TrainState.
        train_step: compiled; takes the state for its own (donated).
        predict_step: compiled; (params, model_state, batch) -> predictions per task.
        embed_step: compiled; (params, model_state, batch) -> aligned vectors per task.
        text_step: compiled; (params, model_state, sub-word ids) -> aligned vectors of texts.
    """

    config: RunConfig
    workdir: Path
    mesh: jax.sharding.Mesh
    splits: Mapping[str, SplitData]
    layout: Layout
    namespaces: Mapping[str, tuple[Namespace, ...]]
    spec: ModelSpec
    state_shapes: TrainState
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    predict_step: Callable[[Any, Any, Batch], dict[str, jax.Array]]
    embed_step: Callable[[Any, Any, Batch], dict[str, jax.Array]]
    text_step: Callable[[Any, Any, Any], jax.Array]
    learning_rates: Mapping[str, Callable[[int], Any]]

    def put(self, batch: Batch) -> Batch:
        """Moves a host batch to the devices, packs over the pack axes."""
        return jax.device_put(batch, batch_sharding(self.mesh))

    def train_batches(self, cursor: np.ndarray | None) -> TrainLoader:
        """The training stream from a data state on (None: from the start)."""
        data = self.splits["train"]
        return TrainLoader(
            self.config, self.layout, data.sources, data.sizes, self.namespaces, cursor
        )

    def eval_batches(
        self, split: str, keep: frozenset[str] | None = None, limit: int | None = None
    ) -> EvalLoader:
        """Every record of a split once (`limit` records of each source)."""
        data = self.splits[split]
        return EvalLoader(
            self.config, self.layout, data.sources, data.sizes, self.namespaces, keep, limit
        )


def check_config(config: RunConfig) -> None:
    """Raises UserError for values that only together make no sense."""
    for key in ("modalities", "tasks"):
        names = [spec.name for spec in getattr(config, key)]
        if not names:
            raise UserError(f"config.{key} is empty; name at least one SPEC")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"config.{key} names {twice[0]!r} twice")
    model = config.model
    if model.d_model % (2 * model.num_heads):
        raise UserError(
            f"config.model.d_model is {model.d_model}; it must be a multiple of "
            f"{2 * model.num_heads} (2 x num_heads), because rotary planes come in pairs"
        )
    if not 0 <= model.fusion_layers <= model.num_layers:
        raise UserError(
            f"config.model.fusion_layers is {model.fusion_layers}; accepted: 0 to num_layers "
            f"({model.num_layers})"
        )
    for key in ("num_steps", "log_every_steps"):
        if getattr(config, key) < 1:
            raise UserError(f"config.{key} is {getattr(config, key)}; it must be at least 1")
    if not config.data.sources:
        raise UserError("config.data.sources is empty; name at least one built dataset")
    tasks = [task.name for task in config.tasks]
    for source in config.data.sources:
        for name in source.tasks:
            if name not in tasks:
                raise UserError(
                    f"source {source.name!r} lists the task {name!r}; configured tasks: "
                    f"{', '.join(tasks)}"
                )


def make_run(config: RunConfig, workdir: Path) -> Run:
    """Opens the data, plans the layout, builds and compiles the model's steps.

    Raises:
        UserError: for anything that a user can mend in the config or the data.
    """
    check_config(config)
    mesh = make_mesh(config.mesh)
    check_lanes(mesh, config.data.lanes, config.optim.accumulate)
    names = ["train", *config.eval.splits]
    if config.eval.validation_every_steps:
        names.append("validation")
    budget = CacheBudget(config.data.cache_mib)
    opened = {name: _open_sources(config, name, budget) for name in dict.fromkeys(names)}
    config = fit_modalities(config, opened["train"])
    splits = {
        name: SplitData(
            sources,
            tuple(load_sizes(s, config.modalities, config.tasks, workdir) for s in sources),
        )
        for name, sources in opened.items()
    }
    train = splits["train"]
    spaces = {task.name: namespaces(train.sources, task.name) for task in config.tasks}
    for task, found in spaces.items():
        if not found:
            raise UserError(
                f"task {task!r} is configured, but no source carries it; sources: "
                f"{', '.join(s.name for s in config.data.sources)}"
            )
    layout = make_layout(
        config, train.sources, train.sizes, [splits[n] for n in splits if n != "train"]
    )
    spec = ModelSpec(config.model, config.modalities, config.tasks, spaces, config.alignment)
    check_spec(spec)
    return _compile(config, workdir, mesh, splits, layout, spec)


def _open_sources(config: RunConfig, split: str, budget: CacheBudget) -> tuple[BuiltSource, ...]:
    opened = [open_source(s, config.data_dir, split) for s in config.data.sources]
    return tuple(
        dataclasses.replace(source, records=CachedRecords(source.records, budget))
        for source in opened
    )


def fit_modalities(config: RunConfig, train: Sequence[DataSource]) -> RunConfig:
    """The config with what modalities learn from the metadata of the training sources."""
    metadata = [source.info.metadata for source in train]
    fitted = tuple(
        spec if spec.fit is None else spec.with_options(**_changes(spec, metadata))
        for spec in config.modalities
    )
    return dataclasses.replace(config, modalities=fitted)


def _changes(spec: ModalitySpec, metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    assert spec.fit is not None
    options = spec.fit(spec.options, metadata)
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def check_spec(spec: ModelSpec) -> None:
    """Raises UserError where a head has no stream to read, or two tasks write answers."""
    for task in spec.tasks:
        if task.reads:
            read_stream(task, spec.streams)
    writing = [task.name for task in spec.tasks if task.generates]
    if len(writing) > 1:
        raise UserError(
            f"config.tasks has {' and '.join(writing)}; only one task may write answers"
        )
    if spec.alignment.weight > 0:
        words_of(spec)


def _compile(
    config: RunConfig,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    splits: Mapping[str, SplitData],
    layout: Layout,
    spec: ModelSpec,
) -> Run:
    optimizer = make_optimizer(config.optim, config.num_steps)
    weighting = make_weighting(
        config.optim.lambdas,
        [task.name for task in spec.tasks],
        [modality.name for modality in spec.modalities],
        config.num_steps,
    )
    fresh = functools.partial(make_state, config, spec, optimizer, weighting)
    abstract = jax.eval_shape(fresh)
    shardings = state_shardings(abstract, mesh)
    shapes = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )
    packs = batch_sharding(mesh)
    step = jax.jit(
        make_train_step(config, spec, optimizer, weighting),
        in_shardings=(shardings, packs),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )
    predict = jax.jit(
        make_predict_step(spec),
        in_shardings=(shardings.params, shardings.model_state, packs),
        out_shardings=packs,
    )
    embed = jax.jit(
        make_embed_step(spec),
        in_shardings=(shardings.params, shardings.model_state, packs),
        out_shardings=packs,
    )
    whole = replicated(mesh)
    text = jax.jit(
        make_text_step(spec),
        in_shardings=(shardings.params, shardings.model_state, whole),
        out_shardings=whole,
    )
    return Run(
        config=config,
        workdir=workdir,
        mesh=mesh,
        splits=splits,
        layout=layout,
        namespaces=spec.namespaces,
        spec=spec,
        state_shapes=shapes,
        init=jax.jit(fresh, out_shardings=shardings),
        train_step=_in_mesh(mesh, step),
        predict_step=_in_mesh(mesh, predict),
        embed_step=_in_mesh(mesh, embed),
        text_step=_in_mesh(mesh, text),
        learning_rates={
            group: make_schedule(schedule, config.num_steps)
            for group, schedule in config.optim.learning_rate.items()
        },
    )


def _in_mesh(mesh: jax.sharding.Mesh, function: Any) -> Any:
    """Runs a jitted function with the mesh set, and keeps its cache counter reachable."""

    @functools.wraps(function)
    def call(*args):
        with jax.set_mesh(mesh):
            return function(*args)

    call.compilations = function._cache_size  # type: ignore[attr-defined]
    return call


def eval_params(run: Run, state: TrainState) -> Any:
    """The parameters that are measured: the averaged ones where the run keeps an average."""
    return state.ema if run.config.optim.ema_decay > 0 else state.params


def dataset_hashes(sources: Sequence[DataSource]) -> dict[str, str]:
    """Source name -> content hash of the built dataset."""
    return {source.info.name: source.info.content_hash for source in sources}
