"""The names of all classes as prompts: encoded once per step, in the columns of the task heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from multimed_jax.layers.subwords import encode, special_id
from multimed_jax.specs import Namespace, TaskSpec


@dataclasses.dataclass(frozen=True)
class LabelBank:
    """Prompts of every class of every task with classes.

    Attributes:
        ids: sub-word ids of each prompt, `<pad>` behind the text.
        columns: task -> which rows of `ids` stand for each of its columns, [C, templates].
    """

    ids: Int[np.ndarray, "B W"]
    columns: Mapping[str, Int[np.ndarray, "C templates"]]


def make_label_bank(
    tasks: Sequence[TaskSpec],
    namespaces: Mapping[str, Sequence[Namespace]],
    templates: Sequence[str],
    max_tokens: int,
) -> LabelBank:
    """The bank of a run; the columns of a task are those of its head, namespace after namespace."""
    prompts: list[str] = []
    columns = {}
    for task in tasks:
        if not has_classes(task):
            continue
        names = [name for space in namespaces[task.name] for name in space.class_names]
        rows = len(prompts) + np.arange(len(names) * len(templates))
        columns[task.name] = rows.reshape(len(names), len(templates))
        prompts += [prompt for name in names for prompt in prompts_of(name, templates)]
    return LabelBank(encode_prompts(prompts, max_tokens), columns)


def has_classes(task: TaskSpec) -> bool:
    """Whether the target of a task is the index of a class."""
    return task.target_shape == () and task.target_dtype.startswith("int")


def prompts_of(name: str, templates: Sequence[str]) -> list[str]:
    """The texts that stand for a class: its name in every template, where "{}" is."""
    return [template.replace("{}", readable(name)) for template in templates]


def readable(name: str) -> str:
    """A class name as words: `both_fists` -> `both fists`."""
    return " ".join(name.replace("_", " ").split())


def encode_prompts(prompts: Sequence[str], max_tokens: int) -> Int[np.ndarray, "B W"]:
    """Sub-word ids, cut at `max_tokens`; as wide as the longest, at least 1."""
    pieces = [encode(prompt.encode())[:max_tokens] for prompt in prompts]
    width = max((len(ids) for ids in pieces), default=1)
    out = np.full((len(pieces), max(width, 1)), special_id("<pad>"), np.int32)
    for row, ids in enumerate(pieces):
        out[row, : len(ids)] = ids
    return out
