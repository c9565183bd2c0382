"""Questions about an image: closed ones by scoring candidates, open ones by writing the answer.

Both are one model: question and image are seen by all of a segment, and each place of the answer
foretells its next piece (`TokenGrid.order`). A closed question takes the candidate of the highest
probability, an open one the most probable piece at each place. One loss: cross-entropy of the
pieces of the true answer, averaged over them.

A target is a table of sub-word ids, -1 where there is none; the candidates are empty for open
questions, and accepted answers longer than the places are cut:

    truth         left  lung  <end>   -1
    candidate 1    -1    -1    -1     -1
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.layers.subwords import VOCABULARY_SIZE, encode, special_id, to_bytes
from multimed_jax.metrics.record_scores import mean_scores, mean_statistic
from multimed_jax.metrics.text import exact_match, normalised, token_f1
from multimed_jax.specs import ANSWERS, READ_PARTS, BaselineInputs, Namespace, TaskSpec
from multimed_jax.types import Parts, Record, SegmentParts, TargetSlots, UserError

NAME = "vqa"
NOT_KNOWN = -1


@dataclasses.dataclass(frozen=True)
class VqaOptions:
    """Limits.

    Attributes:
        max_candidates: of a closed question; a record with more ends the run.
    """

    max_candidates: int = 4

    def __post_init__(self):
        """Raises UserError unless there is room for two candidates."""
        if self.max_candidates < 2:
            raise UserError(
                f"task {NAME!r} has max_candidates {self.max_candidates}; accepted: at least 2"
            )


class AnswerHead(nnx.Module):
    """Scores of every piece of the vocabulary as the next one, at every place of an answer."""

    def __init__(self, d_model: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.project = nnx.Linear(d_model, VOCABULARY_SIZE, kernel_init=init, rngs=rngs)

    def __call__(
        self, states: Float[Array, "P K D"], places: SegmentParts
    ) -> Float[Array, "P K L V"]:
        """Logits at every place; `states` are not used: the places have seen the whole sample."""
        return self.project(places.states.astype(jnp.float32))


def make_head(d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs) -> AnswerHead:
    """One head for all sources: they share the vocabulary."""
    return AnswerHead(d_model, rngs)


def loss_fn(
    outputs: Float[Array, "P K L V"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[jax.Array, "P K"]:
    """Mean cross-entropy of the pieces of the true answer."""
    truth = slots.value[:, :, 0]
    known = truth != NOT_KNOWN
    scores = jax.nn.log_softmax(outputs, axis=-1)
    at_truth = jnp.take_along_axis(scores, jnp.maximum(truth, 0)[..., None], axis=-1)[..., 0]
    total = jnp.sum(jnp.where(known, -at_truth, 0.0), axis=-1)
    return total / jnp.maximum(known.sum(-1), 1)


def predict(
    outputs: Float[Array, "P K L V"], slots: TargetSlots, namespaces: Sequence[Namespace]
) -> Float[jax.Array, "P K L V"]:
    """Log-probabilities of the next piece at every place, from which answers are written."""
    return jax.nn.log_softmax(outputs.astype(jnp.float32), axis=-1)


# ------------------------------------------------------------------------------- targets


def read_target(record: Record, parts: Parts | None, options: VqaOptions) -> np.ndarray | None:
    """The table of the truth and the candidates; None where the record asks nothing.

    Without `parts` (while sizes are counted) the table has one column.

    Raises:
        UserError: for more candidates than `max_candidates`, or a truth that is none of them.
    """
    if "answer" not in record or not _text(record["answer"]["text"]):
        return None
    if not _text(record["text"]["text"]):
        return None
    truth = _text(record["answer"]["text"])
    candidates = [_text(text) for text in record["answer"]["candidates"]]
    if len(candidates) > options.max_candidates:
        raise UserError(
            f"a question has {len(candidates)} candidates; task {NAME!r} accepts at most "
            f"{options.max_candidates} (its option max_candidates)"
        )
    if candidates and truth not in candidates:
        raise UserError(
            f"the answer {truth!r} of a closed question is none of its candidates: "
            f"{', '.join(candidates)}"
        )
    length = 1 if parts is None else len(parts.parts)
    out = np.full((1 + options.max_candidates, length), NOT_KNOWN, np.int32)
    for row, text in enumerate([truth, *candidates]):
        pieces = [*encode(text.encode()).tolist(), special_id("<end>")][:length]
        out[row, : len(pieces)] = pieces
    return out


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def answer_text(ids: Int[np.ndarray, "L"]) -> str:
    """The words of an answer, up to its end."""
    ended = np.flatnonzero((ids == special_id("<end>")) | (ids == NOT_KNOWN))
    return to_bytes(ids[: ended[0]] if len(ended) else ids).decode("utf-8", "replace")


def describe(prediction: Int[np.ndarray, "L"], namespace: Namespace) -> str:
    """What a person reads."""
    return answer_text(prediction)


# ------------------------------------------------------------------------------- metrics


def scores(
    predictions: Int[np.ndarray, "n L"], targets: Int[np.ndarray, "n R L"]
) -> dict[str, Float[np.ndarray, "n"]]:
    """Exact match over all, closed and open questions, and F1 of the words of open ones."""
    said = [answer_text(row) for row in predictions]
    truth = [answer_text(row) for row in targets[:, 0]]
    closed = (targets[:, 1:] != NOT_KNOWN).any(axis=(1, 2))
    match = np.array([exact_match(a, b) for a, b in zip(said, truth, strict=True)])
    overlap = np.array([token_f1(a, b) for a, b in zip(said, truth, strict=True)])
    return {
        "exact_match": match,
        "exact_match_closed": np.where(closed, match, np.nan),
        "exact_match_open": np.where(closed, np.nan, match),
        "token_f1": np.where(closed, np.nan, overlap),
    }


def metrics(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """The means of `scores`."""
    return mean_scores(scores(predictions, targets))


def statistic(predictions: np.ndarray, targets: np.ndarray) -> Any:
    """The means of `scores` in resamples."""
    return mean_statistic(scores(predictions, targets))


def baselines(inputs: BaselineInputs) -> Mapping[str, np.ndarray]:
    """What the question alone tells, and the most common answer.

    question_only: the most common training answer to the same words; of a question never met, the
        most common one of its kind (closed or open).
    majority: the most common training answer of the kind.
    """
    asked: dict[str, Counter[str]] = {}
    kinds: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for row in range(len(inputs.train)):
        record = inputs.train[row]
        question, truth, closed = _asked(record)
        if truth:
            asked.setdefault(question, Counter())[truth] += 1
            kinds[closed][truth] += 1
    guesses: dict[str, list[str]] = {"question_only": [], "majority": []}
    for record in inputs.records:
        question, _, closed = _asked(record)
        common = kinds[closed] or kinds[not closed]
        guesses["majority"].append(_most_common(common))
        guesses["question_only"].append(
            _most_common(asked[question] if question in asked else common)
        )
    return {name: _table(answers) for name, answers in guesses.items()}


def _asked(record: Record) -> tuple[str, str, bool]:
    answer = record["answer"]
    return (
        normalised(_text(record["text"]["text"])),
        _text(answer["text"]),
        len(answer["candidates"]) > 0,
    )


def _most_common(counts: Counter[str]) -> str:
    """Ties go to the alphabetically first answer."""
    return min(counts, key=lambda text: (-counts[text], text)) if counts else ""


def _table(answers: Sequence[str]) -> Int[np.ndarray, "n L"]:
    ids = [[*encode(text.encode()).tolist(), special_id("<end>")] for text in answers]
    out = np.full((len(ids), max(map(len, ids), default=1)), NOT_KNOWN, np.int32)
    for row, pieces in enumerate(ids):
        out[row, : len(pieces)] = pieces
    return out


@functools.cache
def make_spec(options: VqaOptions) -> TaskSpec:
    """The task with these options, one object for each: a stored spec equals the loaded one."""
    return TaskSpec(
        name=NAME,
        spec="multimed_jax.tasks.vqa:SPEC",
        target_shape=(1 + options.max_candidates, READ_PARTS),
        target_dtype="int32",
        make_head=make_head,
        loss_fn=loss_fn,
        predict=predict,
        metrics=metrics,
        primary_metric="exact_match",
        statistic=statistic,
        baselines=baselines,
        read_target=lambda record, parts: read_target(record, parts, options),
        reads=ANSWERS,
        generates=True,
        describe=describe,
        options=options,
        remake=make_spec,
    )


SPEC = make_spec(VqaOptions())
