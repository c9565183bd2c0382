"""Text (text.tokens), and the answer to a question (text.answer): sub-word ids of layers.subwords.

Input: UTF-8 text of any script, as str or bytes. Output: one id per piece.

Over-long text keeps its head and its tail; positions keep the gap:

    text        0 1 2 3 4 5 6 7 8 9        max_tokens = 4
    parts       0 1             8 9        coords 0 1 8 9

A record that asks something (`answer`) has `max_answer` places behind its question, whatever the
length of the answer, so that neither the plan nor the mask tells it. The piece at place k stands
for what was said before place k; its state foretells the next piece. In training the places show
the answer, at evaluation they are empty until the model fills them (`answers.py`):

    answer      left lung            max_answer = 5
    training    <begin> left lung <pad> <pad>        states foretell  left lung <end> . .
    evaluation  <begin> <pad> <pad> <pad> <pad>
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.layers.subwords import VOCABULARY_SIZE, encode, special_id
from multimed_jax.specs import ANSWERS, WORDS, ModalitySpec, StreamSpec
from multimed_jax.types import Parts, Preview, Record, StreamBatch, UserError

NAME = "text"
STREAM = "text.tokens"
ANSWER_STREAM = "text.answer"


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Limits.

    Attributes:
        max_tokens: longer texts keep this many, half from the head and half from the tail.
        max_answer: places for an answer and its end; longer answers are cut. 0 reads no answers.
    """

    max_tokens: int = 128
    max_answer: int = 0

    def __post_init__(self):
        """Raises UserError unless at least 1 token is kept, and an answer has room for its end."""
        if self.max_tokens < 1:
            raise UserError(
                f"modality {NAME!r} has max_tokens {self.max_tokens}; accepted: at least 1"
            )
        if self.max_answer < 0 or self.max_answer == 1:
            raise UserError(
                f"modality {NAME!r} has max_answer {self.max_answer}; accepted: 0, or at least 2"
            )


def record_bytes(record: Record) -> bytes:
    """The UTF-8 text of a record; empty where it lacks the modality."""
    return _text_bytes(record.get(NAME))


def answer_bytes(record: Record) -> bytes:
    """The UTF-8 answer of a record; empty where it asks nothing."""
    return _text_bytes(record.get("answer"))


def _text_bytes(value: Mapping[str, Any] | None) -> bytes:
    if value is None:
        return b""
    text = value["text"]
    if isinstance(text, np.ndarray):
        text = text.item()
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


# ---------------------------------------------------------------------- the modality


def make_streams(options: TextOptions) -> tuple[StreamSpec, ...]:
    """Words and, where answers are read, their places; one axis: position in the text."""
    words = StreamSpec(STREAM, NAME, (), 1, "int32", kind=WORDS, max_parts=options.max_tokens)
    if not options.max_answer:
        return (words,)
    places = StreamSpec(
        ANSWER_STREAM, NAME, (), 1, "int32", kind=ANSWERS, max_parts=options.max_answer
    )
    return words, places


def count(record: Record, options: TextOptions) -> dict[str, int]:
    """Pieces of the text, at most `max_tokens`; all places where the record asks something."""
    number = min(len(encode(record_bytes(record))), options.max_tokens)
    if not number:
        return {}
    asks = bool(options.max_answer and answer_bytes(record))
    return {STREAM: number} | ({ANSWER_STREAM: options.max_answer} if asks else {})


def decode(
    record: Record, options: TextOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Piece ids and their positions; empty where the record has no text."""
    ids = encode(record_bytes(record))
    if not len(ids):
        return {}
    positions = np.arange(len(ids), dtype=np.int32)
    if len(ids) > options.max_tokens:
        tail = options.max_tokens // 2
        head = options.max_tokens - tail
        kept = np.concatenate([positions[:head], positions[len(ids) - tail :]])
        ids, positions = ids[kept], kept
    coords = positions[:, None].astype(np.float32)
    found = {STREAM: Parts(np.array(ids), coords, np.zeros(len(ids), np.int32))}
    said = answer_bytes(record)
    if options.max_answer and said:
        places = np.full(options.max_answer, special_id("<pad>"), np.int32)
        places[0] = special_id("<begin>")
        if rng is not None:
            shown = encode(said)[: options.max_answer - 1]
            places[1 : 1 + len(shown)] = shown
        # Behind any question that is kept whole: places right behind this one would tell its
        # length, and so what was asked, to a model that is not shown the question.
        after = options.max_tokens + np.arange(options.max_answer, dtype=np.float32)[:, None]
        found[ANSWER_STREAM] = Parts(places, after, np.zeros(len(places), np.int32))
    return found


class TokenEmbed(nnx.Module):
    """A table of piece embeddings."""

    def __init__(self, d_model: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(1.0)
        self.table = nnx.Param(init(rngs.params(), (VOCABULARY_SIZE, d_model), jnp.float32))

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """One token for each piece."""
        return jnp.take(self.table[...], jnp.asarray(stream.parts), axis=0)


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: TextOptions, rngs: nnx.Rngs
) -> TokenEmbed:
    """Piece ids to tokens."""
    return TokenEmbed(d_model, rngs)


def features(record: Record, options: TextOptions) -> Float[np.ndarray, "4096"]:
    """log1p of the count of each piece in the whole text, L2-normalised; zeros without text."""
    counts = np.bincount(encode(record_bytes(record)), minlength=VOCABULARY_SIZE)
    weights = np.log1p(counts.astype(np.float32))
    return weights / max(float(np.linalg.norm(weights)), 1e-12)


def preview(record: Record, options: TextOptions) -> Preview:
    """The whole text; a byte that is no valid UTF-8 shows as the replacement character."""
    return Preview("text", record_bytes(record).decode("utf-8", "replace"))


SPEC = ModalitySpec(
    name=NAME,
    id=1,
    spec="multimed_jax.modalities.text:SPEC",
    options=TextOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
)
