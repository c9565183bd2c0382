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

from multimed_jax.checks import check_config, check_spec
from multimed_jax.config import RunConfig
from multimed_jax.data.loader import EvalLoader, TrainLoader
from multimed_jax.data.packing import Layout, make_layout
from multimed_jax.data.record_cache import CacheBudget, CachedRecords
from multimed_jax.data.sizes import Sizes, load_sizes
from multimed_jax.data.sources import BuiltSource, DataSource, namespaces, open_source
from multimed_jax.model import ModelSpec
from multimed_jax.optim import make_schedule
from multimed_jax.processes import agree_on, local_lanes, whole
from multimed_jax.sharding import (
    batch_sharding,
    check_lanes,
    check_width,
    make_mesh,
    replicated,
)
from multimed_jax.specs import ModalitySpec, Namespace
from multimed_jax.steps import (
    Metrics,
    jit_train_step,
    make_embed_step,
    make_predict_step,
    make_text_step,
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

    @functools.cached_property
    def lanes(self) -> range:
        """The lanes that this process plans and reads: those of its devices."""
        return local_lanes(self.mesh, self.config.data.lanes)

    def put(self, batch: Batch) -> Batch:
        """Moves a host batch to the devices, packs over the pack axes.

        Every process brings the packs of its own lanes; the result is the global batch.
        """
        packs = batch_sharding(self.mesh)
        if jax.process_count() == 1:
            return jax.device_put(batch, packs)

        def place(value) -> jax.Array:
            value = np.asarray(value)
            value = value.astype(jax.dtypes.canonicalize_dtype(value.dtype))
            shape = (self.config.data.lanes, *value.shape[1:])
            return jax.make_array_from_process_local_data(packs, value, shape)

        return jax.tree.map(place, batch)

    def whole(self, tree: Any) -> Any:
        """Host copies of device arrays, with the parts of all processes."""
        return whole(tree, self.mesh)

    def train_batches(self, cursor: np.ndarray | None) -> TrainLoader:
        """The training stream from a data state on (None: from the start)."""
        data = self.splits["train"]
        return TrainLoader(
            self.config,
            self.layout,
            data.sources,
            data.sizes,
            self.namespaces,
            cursor,
            self.lanes,
        )

    def eval_batches(
        self, split: str, keep: frozenset[str] | None = None, limit: int | None = None
    ) -> EvalLoader:
        """Every record of a split once (`limit` records of each source)."""
        data = self.splits[split]
        return EvalLoader(
            self.config,
            self.layout,
            data.sources,
            data.sizes,
            self.namespaces,
            keep,
            limit,
            self.lanes,
        )


def make_run(config: RunConfig, workdir: Path) -> Run:
    """Opens the data, plans the layout, builds and compiles the model's steps.

    Raises:
        UserError: for anything that a user can mend in the config or the data.
    """
    check_config(config)
    mesh = make_mesh(config.mesh)
    check_lanes(mesh, config.data.lanes, config.optim.accumulate)
    check_width(mesh, config.model)
    names = ["train", *config.eval.splits]
    if config.eval.validation_every_steps:
        names.append("validation")
    budget = CacheBudget(config.data.cache_mib)
    opened = {name: _open_sources(config, name, budget) for name in dict.fromkeys(names)}
    # Before the sizes, which process 0 alone writes: others would wait for those of other data.
    agree_on({f"content of {k}": v for k, v in dataset_hashes(opened["train"]).items()})
    config = fit_modalities(config, opened["train"])
    count_sizes = functools.partial(
        load_sizes,
        modalities=config.modalities,
        tasks=config.tasks,
        workdir=workdir,
        process_index=jax.process_index(),
    )
    splits = {
        name: SplitData(sources, tuple(count_sizes(source) for source in sources))
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


def _compile(
    config: RunConfig,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    splits: Mapping[str, SplitData],
    layout: Layout,
    spec: ModelSpec,
) -> Run:
    step, fresh, shapes = jit_train_step(config, spec, mesh)
    shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
    packs = batch_sharding(mesh)
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
