"""Text (text.tokens): sub-word ids of a byte-level BPE (Sennrich et al. 2016; on bytes).

Input: UTF-8 text of any script, as str or bytes. Output: one id per piece. The 256 bytes are pieces
too, so nothing is unrepresentable; a byte that is no valid UTF-8 becomes the piece of that byte,
and `to_bytes(encode(data)) == data` for any bytes. A special token written out in a text
("<mask>") is text like any other. Case and white space are kept.

Over-long text keeps its head and its tail; positions keep the gap:

    text        0 1 2 3 4 5 6 7 8 9        max_tokens = 4
    parts       0 1             8 9        coords 0 1 8 9
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import re

import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import nnx
from jaxtyping import Array, Float, Int
from tokenizers import pre_tokenizers

from multimed_jax.types import (
    ModalitySpec,
    Parts,
    Preview,
    Record,
    StreamBatch,
    StreamSpec,
    UserError,
)

NAME = "text"
STREAM = "text.tokens"
VOCABULARY = "text_bpe_4096.json"
VOCABULARY_SIZE = 4096
# Texts whose ids are kept: the sizes pass, the loader and the baselines ask for the same ones.
CACHED_TEXTS = 4096
# Bytes that are no valid UTF-8 travel as these code points ("surrogateescape", PEP 383).
_ESCAPED = re.compile("([\udc80-\udcff]+)")
_ESCAPE_OFFSET = 0xDC00


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Limits.

    Attributes:
        max_tokens: longer texts keep this many, half from the head and half from the tail.
    """

    max_tokens: int = 128

    def __post_init__(self):
        """Raises UserError unless at least 1 token is kept."""
        if self.max_tokens < 1:
            raise UserError(
                f"modality {NAME!r} has max_tokens {self.max_tokens}; accepted: at least 1"
            )


# ------------------------------------------------------------------------- text <-> ids


@functools.cache
def load_tokenizer() -> tokenizers.Tokenizer:
    """The shipped tokenizer. Special tokens written out in a text are not special."""
    folder = importlib.resources.files("multimed_jax.modalities.vocabulary")
    tokenizer = tokenizers.Tokenizer.from_str((folder / VOCABULARY).read_text("utf-8"))
    tokenizer.encode_special_tokens = True
    assert tokenizer.get_vocab_size() == VOCABULARY_SIZE
    return tokenizer


def special_id(name: str) -> int:
    """Id of `<pad>` (0), `<mask>`, `<begin>` or `<end>`."""
    identity = load_tokenizer().token_to_id(name)
    assert identity is not None, name
    return identity


@functools.cache
def _byte_pieces() -> tuple[tuple[str, ...], dict[str, int]]:
    """The visible character that stands for each byte in pieces, and its inverse.

    Printable Latin-1 bytes stand for themselves, the others for the code points from 256 on; the
    alphabet of the pre-tokenizer is checked to be the same.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    characters = tuple(chr(b if b in printable else next(others)) for b in range(256))
    assert set(characters) == set(pre_tokenizers.ByteLevel.alphabet())
    return characters, {character: byte for byte, character in enumerate(characters)}


@functools.lru_cache(maxsize=CACHED_TEXTS)
def encode(data: bytes) -> Int[np.ndarray, "n"]:
    """Ids of all pieces of a text; empty for an empty text. Treat the array as read-only."""
    tokenizer = load_tokenizer()
    ids: list[int] = []
    for index, span in enumerate(_ESCAPED.split(data.decode("utf-8", "surrogateescape"))):
        if index % 2 == 0:
            ids.extend(tokenizer.encode(span, add_special_tokens=False).ids)
        else:
            ids.extend(_byte_id(ord(escaped) - _ESCAPE_OFFSET) for escaped in span)
    out = np.array(ids, np.int32)
    out.flags.writeable = False
    return out


def _byte_id(byte: int) -> int:
    identity = load_tokenizer().token_to_id(_byte_pieces()[0][byte])
    assert identity is not None, byte
    return identity


def to_bytes(ids: Int[np.ndarray, "n"]) -> bytes:
    """The text of the ids; special tokens vanish."""
    tokenizer = load_tokenizer()
    special = set(tokenizer.get_added_tokens_decoder())
    pieces = (tokenizer.id_to_token(int(i)) for i in ids if int(i) not in special)
    return bytes(_byte_pieces()[1][c] for piece in pieces if piece is not None for c in piece)


def record_bytes(record: Record) -> bytes:
    """The UTF-8 text of a record; empty where it lacks the modality."""
    value = record.get(NAME)
    if value is None:
        return b""
    text = value["text"]
    if isinstance(text, np.ndarray):
        text = text.item()
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


# ---------------------------------------------------------------------- the modality


def make_streams(options: TextOptions) -> tuple[StreamSpec, ...]:
    """One stream, one axis: position in the text."""
    return (StreamSpec(STREAM, NAME, (), 1, "int32"),)


def count(record: Record, options: TextOptions) -> dict[str, int]:
    """Pieces of the text, at most `max_tokens`."""
    number = min(len(encode(record_bytes(record))), options.max_tokens)
    return {STREAM: number} if number else {}


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
    return {STREAM: Parts(np.array(ids), coords, np.zeros(len(ids), np.int32))}


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
