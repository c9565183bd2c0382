"""What the names of the classes alone are worth: every sample goes to the nearest label text.

The candidates are the texts of a task's classes (its names in the run's templates, or other texts
given as an option), encoded by the model; no head takes part. The protocol of its rows is
"label_text". Beside it: the majority class, and chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from multimed_jax.aligned import score_texts
from multimed_jax.config import EvaluatorSpec
from multimed_jax.evaluators.context import EvalContext, Predictions
from multimed_jax.evaluators.measured import majority, make_row, measure, resampling_for
from multimed_jax.layers.label_bank import has_classes, prompts_of
from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.types import UserError

PROTOCOL = "label_text"


@dataclasses.dataclass(frozen=True)
class LabelTextOptions:
    """Which texts stand for a class.

    Attributes:
        texts: "task/class name" -> one text, in place of the class name in the run's templates.
    """

    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run(options: LabelTextOptions, context: EvalContext) -> Iterator[ResultRow]:
    """Yields two rows of the primary metric per split and (source, task) with classes.

    Raises:
        UserError: where the run has no aligned space, or an option names no class of the run.
    """
    if context.embed is None or context.embed_texts is None:
        raise UserError(
            "evaluator 'label_text' needs an aligned space; accepted: config.alignment.weight "
            f"above 0, not {context.config.alignment.weight}"
        )
    _check_texts(options, context)
    for split in context.config.eval.splits:
        for found in context.embed(split):
            if has_classes(found.task) and found.namespace.class_names:
                yield from _rows(options, context, split, found)


def _rows(
    options: LabelTextOptions, context: EvalContext, split: str, found: Predictions
) -> Iterator[ResultRow]:
    assert context.embed_texts is not None
    prompts = {
        name: _prompts(options, context, found.task.name, name)
        for name in found.namespace.class_names
    }
    flat = context.embed_texts([text for texts in prompts.values() for text in texts])
    ends = np.cumsum([len(texts) for texts in prompts.values()])[:-1]
    vectors = dict(zip(prompts, np.split(flat, ends), strict=True))
    cosine = score_texts(found.probabilities, vectors)
    scores = np.exp(cosine / context.config.alignment.temperature)
    probabilities = scores / scores.sum(1, keepdims=True)
    resampling = resampling_for(context, found)
    metric = found.task.primary_metric
    ours = measure(found.task, probabilities, found.targets, resampling, [metric])
    trivial = measure(found.task, majority(found), found.targets, resampling, [metric])
    baselines = {"majority": trivial, "chance": 1.0 / len(found.namespace.class_names)}
    for name, baseline in baselines.items():
        row = make_row(
            context,
            found,
            resampling,
            split=split,
            metric=metric,
            ours=ours,
            baseline=baseline,
            baseline_name=name,
        )
        prefix = "" if row.protocol == "full" else f"{row.protocol} "
        yield dataclasses.replace(row, protocol=prefix + PROTOCOL)


def _prompts(options: LabelTextOptions, context: EvalContext, task: str, name: str) -> list[str]:
    key = f"{task}/{name}"
    if key in options.texts:
        return [options.texts[key]]
    return prompts_of(name, context.config.alignment.templates)


def _check_texts(options: LabelTextOptions, context: EvalContext) -> None:
    if not options.texts or context.embed is None:
        return
    known = {
        f"{found.task.name}/{name}"
        for split in context.config.eval.splits
        for found in context.predict(split, None)
        for name in found.namespace.class_names
    }
    for key in options.texts:
        if key not in known:
            raise UserError(
                f"label_text.texts has the key {key!r}; accepted: {', '.join(sorted(known))}"
            )


SPEC = EvaluatorSpec(
    name="label_text",
    spec="multimed_jax.evaluators.label_text:SPEC",
    options=LabelTextOptions(),
    run=run,
)
