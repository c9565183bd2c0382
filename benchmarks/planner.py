"""What the planner reaches, and what it costs: fill, host share of a step, cost per process.

    python -m benchmarks.planner [--json] [--windows 4] [--step_tokens_per_s 2000]

The mixture has ten modalities in twelve streams, in equal shares of draws; a sixth of the images
bring a text. Lengths are drawn from the table below. Rows hold 1,024 tokens, a window 4,096 draws,
budgets 1.3 times the mean share. Goals:

    token_fill     useful tokens per token slot at G = 16, at least 0.95
    stream_fill    per stream slot, over all streams together, at G = 16, at least 0.70
    host           planning and packing (laying decoded parts and tokens into a batch; parts of 768
                   float32), at most 5 % of a step at the given rate of tokens; reading and
                   decoding are not in it
    hosts          planning cost of a process among 1,000 hosts, at most 1.2 x that of one

The rate stands for the slowest step worth feeding (a 22 M trunk on 2 CPU cores makes some 2,000
tokens a second); with a faster device the host's share rises with the rate, so the figures to carry
over are `tokens_per_host_s` (planning) and `packed_tokens_per_host_s` (packing).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.config import (
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SourceConfig,
)
from multimed_jax.data.assemble import assemble
from multimed_jax.data.layout import Layout, make_layout
from multimed_jax.data.loader import _LanePlansIterator
from multimed_jax.data.packing import plan_fill
from multimed_jax.data.sizes import Sizes
from multimed_jax.data.sources import make_info, namespaces
from multimed_jax.data.windows import TrainWindows
from multimed_jax.specs import ModalitySpec, StreamSpec, TaskSpec
from multimed_jax.types import Parts, UserError

GOALS = {"token_fill": 0.95, "stream_fill": 0.70, "host": 0.05, "hosts": 1.2}
RECORDS = 20_000
ROW_WIDTH = 1024
FEATURES = 768  # of a part: a patch of 16 x 16 x 3
Lengths = Callable[[np.random.Generator, int], np.ndarray]


def _fixed(*values: int) -> Lengths:
    return lambda rng, n: rng.choice(values, n)


def _uniform(low: int, high: int) -> Lengths:
    return lambda rng, n: rng.integers(low, high + 1, n)


def _lognormal(median: float, low: int, high: int) -> Lengths:
    return lambda rng, n: np.clip(rng.lognormal(np.log(median), 0.55, n), low, high).astype(int)


# Stream -> tokens of a sample. Square images of 224 pixels in patches of 16 have 196 tokens, other
# aspects fewer; volumes 64 to 256 tubelets; EEG trials 320 (22 channels) or 50 to 100 (joint
# channels); DNA windows 128 to 512; cells, chains and reports are ragged.
STREAMS: dict[str, Lengths] = {
    "text.tokens": _lognormal(72, 16, 256),
    "oct.scan": _fixed(196, 168, 154),
    "oct.photo": _fixed(196),
    "xray.view": _fixed(196, 168),
    "ct.volume": _uniform(64, 256),
    "mri.slice": _fixed(196),
    "pathology.tile": _fixed(196),
    "pathology.bag": _uniform(8, 64),
    "eeg.trial": _uniform(50, 100),
    "genomics.window": _uniform(128, 512),
    "scrna.cell": _lognormal(480, 200, 1000),
    "protein.chain": _lognormal(140, 40, 300),
}
IMAGES = ("oct.photo", "xray.view")  # which of them a text may stand beside
TEXT = "text.tokens"


@dataclasses.dataclass(frozen=True)
class SizedSource:
    """Sizes of one stream's samples; records are never read."""

    stream: str
    number: int

    folder: Path | None = None
    split: str = "train"

    @property
    def tasks(self) -> tuple[str, ...]:
        return (f"task {self.stream}",)

    @property
    def info(self):
        return make_info(
            self.stream,
            {
                "namespace": self.stream,
                "class_names": {self.tasks[0]: ["a", "b"]},
                "content_hash": "0" * 16,
                "split_mode": "group",
            },
        )

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        return {self.tasks[0]: (1, 1)}

    train_class_counts = class_counts

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, row: int, /) -> Any:
        """What `decode` needs: its length, and a class."""
        tokens = self.sizes.tokens[row]
        counts = {name: int(n) for name, n in zip(STREAMS, tokens, strict=True) if n}
        return {"counts": counts, "targets": {self.tasks[0]: np.int32(0)}}

    @functools.cached_property
    def sizes(self) -> Sizes:
        rng = np.random.default_rng(self.number)
        names = list(STREAMS)
        tokens = np.zeros((RECORDS, len(names)), np.int32)
        tokens[:, self.number] = STREAMS[self.stream](rng, RECORDS)
        if self.stream in IMAGES:
            beside = np.flatnonzero(rng.random(RECORDS) < 0.5)
            tokens[beside, names.index(TEXT)] = STREAMS[TEXT](rng, len(beside))
        has_target = np.zeros((RECORDS, len(names)), bool)
        has_target[:, self.number] = True
        groups = np.arange(RECORDS, dtype=np.uint64)
        return Sizes(tokens, has_target, groups, np.ones(RECORDS, np.int32))


def _decode(record: Any, options: Any, rng: Any, name: str) -> dict[str, Parts]:
    del options, rng
    return {
        stream: Parts(
            np.zeros((n, FEATURES), np.float32), np.zeros((n, 1), np.float32), np.zeros(n, int)
        )
        for stream, n in record["counts"].items()
        if stream.split(".")[0] == name
    }


def _nothing(*_: Any, **__: Any) -> Any:
    raise UserError("the planner's benchmark decodes and computes nothing")


def modality(name: str, number: int) -> ModalitySpec:
    """A modality that has nothing but the names of its streams."""
    names = tuple(s for s in STREAMS if s.split(".")[0] == name)

    def streams(options: Any) -> tuple[StreamSpec, ...]:
        del options
        return tuple(StreamSpec(s, name, (FEATURES,), 1, "float32") for s in names)

    none = dict.fromkeys(("count", "make_tokenizer", "features", "preview"), _nothing)
    decode = functools.partial(_decode, name=name)
    return ModalitySpec(name, number, "benchmarks.planner", None, streams, decode=decode, **none)


def task(stream: str) -> TaskSpec:
    """A task that has nothing but a name."""
    none = dict.fromkeys(("make_head", "loss_fn", "predict", "metrics"), _nothing)
    name = f"task {stream}"
    return TaskSpec(name, "benchmarks.planner", (), "int32", **none, primary_metric="none")


def make_config(rows: int, lanes: int, slack: float = 1.3) -> RunConfig:
    names = list(dict.fromkeys(s.split(".")[0] for s in STREAMS))
    return RunConfig(
        method="planner",
        data_dir="",
        seed=0,
        num_steps=1,
        log_every_steps=1,
        modalities=tuple(modality(name, n) for n, name in enumerate(names, 1)),
        tasks=tuple(task(stream) for stream in STREAMS),
        evals=(),
        data=DataConfig(
            sources=tuple(SourceConfig(stream, 1.0) for stream in STREAMS),
            lanes=lanes,
            rows=rows,
            row_width=ROW_WIDTH,
            window=4096,
            stream_slack=slack,
        ),
        model=ModelConfig(d_model=8, num_layers=1, num_heads=1),
        optim=OptimConfig(learning_rate={}, weight_decay=0.0),
        checkpoint=CheckpointConfig(every_steps=1),
    )


def fill_of(rows: int, windows: int, sources: list[SizedSource], sizes: list[Sizes]) -> dict:
    """Fill and planning time at G = `rows`."""
    config = make_config(rows, 1)
    layout = make_layout(config, sources, sizes)
    planner = TrainWindows(config, layout, sizes)
    start = time.process_time()
    plans = [plan for window in range(windows) for plan in planner.plan(window)]
    seconds = time.process_time() - start
    fill = plan_fill(plans, layout)
    tokens = sum(int(plan.samples.tokens.sum()) for plan in plans)
    slots = len(plans) * sum(layout.stream_budgets.values())
    return {
        "rows": rows,
        "packs": len(plans),
        "token_fill": fill["token"],
        "stream_fill": tokens / slots,
        "lowest_stream": min((v, k) for k, v in fill.items() if k != "token")[::-1],
        "streams": {k: v for k, v in fill.items() if k != "token"},
        "plan_s_per_window": seconds / windows,
        "tokens_per_host_s": tokens / seconds,
    }


def cost_of_hosts(hosts: int, steps: int, layout: Layout, sizes: list[Sizes]) -> float:
    """Processor seconds a step of the planning of one process that has one lane of `hosts`."""
    config = make_config(layout.rows, hosts)
    planner = TrainWindows(config, dataclasses.replace(layout, lanes=hosts), sizes)
    mine = hosts // 2
    cursor = np.array([[mine, 0]], np.int64)
    plans = _LanePlansIterator(planner, cursor, hosts)
    next(plans)
    start = time.process_time()
    for _ in range(steps):
        next(plans)
    return (time.process_time() - start) / steps


def cost_of_packing(packs: int, sources: list[SizedSource], sizes: list[Sizes]) -> float:
    """Processor seconds a useful token of laying decoded samples into batches of one pack."""
    config = make_config(16, 1)
    layout = make_layout(config, sources, sizes)
    spaces = {t.name: namespaces(sources, t.name) for t in config.tasks}
    plans = TrainWindows(config, layout, sizes).plan(0)[: packs + 1]
    cursor = np.zeros((1, 2), np.int64)
    seconds, tokens = 0.0, 0
    for number, plan in enumerate(plans):
        start = time.process_time()
        assemble(
            [plan],
            layout,
            sources,
            config.modalities,
            config.tasks,
            spaces,
            seed=0,
            train=True,
            cursor=cursor,
        )
        if number:  # the first one warms up
            seconds += time.process_time() - start
            tokens += int(plan.samples.tokens.sum())
    return seconds / tokens


def run(windows: int, step_tokens_per_s: float) -> dict[str, Any]:
    """All figures, and whether each goal is met."""
    sources = [SizedSource(stream, n) for n, stream in enumerate(STREAMS)]
    sizes = [source.sizes for source in sources]
    fills = [fill_of(rows, windows, sources, sizes) for rows in (4, 8, 16)]
    layout = make_layout(make_config(16, 1), sources, sizes)
    steps = 10 * fills[-1]["packs"] // windows  # ten windows, whatever the lane
    costs = {hosts: cost_of_hosts(hosts, steps, layout, sizes) for hosts in (1, 8, 1000)}
    best = fills[-1]
    packing = cost_of_packing(8, sources, sizes)
    host = step_tokens_per_s * (1 / best["tokens_per_host_s"] + packing)
    figures = {
        "token_fill": best["token_fill"],
        "stream_fill": best["stream_fill"],
        "host": host,
        "hosts": costs[1000] / costs[1],
    }
    return {
        "benchmark": "planner",
        "goals": {
            name: {
                "figure": round(figures[name], 4),
                "limit": limit,
                "met": figures[name] >= limit if "fill" in name else figures[name] <= limit,
            }
            for name, limit in GOALS.items()
        },
        "fill": fills,
        "step_tokens_per_s": step_tokens_per_s,
        "packed_tokens_per_host_s": 1 / packing,
        "plan_s_per_step": {str(hosts): cost for hosts, cost in costs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill and cost of the planner.")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--step_tokens_per_s", type=float, default=2000.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args()
    values = run(flags.windows, flags.step_tokens_per_s)
    if flags.json:
        print(json.dumps(values))
        return
    for row in values["fill"]:
        print(
            f"G = {row['rows']:<3} tokens {row['token_fill']:.3f}, streams {row['stream_fill']:.3f}"
            f", lowest {row['lowest_stream'][0]} {row['lowest_stream'][1]:.3f}; "
            f"{1000 * row['plan_s_per_window']:.0f} ms a window"
        )
    for hosts, cost in values["plan_s_per_step"].items():
        print(f"{hosts:>4} hosts: {1000 * cost:.2f} ms of planning a step in a process")
    print(f"packing {values['packed_tokens_per_host_s']:,.0f} tokens a second of one core")
    for name, goal in values["goals"].items():
        print(
            f"{name:<12} {goal['figure']} (limit {goal['limit']}) "
            f"{'met' if goal['met'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
