"""Text <-> sub-word ids: a byte-level BPE (Sennrich et al. 2016; on bytes), shipped as a list.

The 256 bytes are pieces too, so nothing is unrepresentable; a byte that is no valid UTF-8 becomes
the piece of that byte, and `to_bytes(encode(data)) == data` for any bytes. A special token written
out in a text ("<mask>") is text like any other. Case and white space are kept.
"""

from __future__ import annotations

import functools
import importlib.resources
import re

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import pre_tokenizers

VOCABULARY = "text_bpe_4096.json"
VOCABULARY_SIZE = 4096
# Texts whose ids are kept: the sizes pass, the loader and the baselines ask for the same ones.
CACHED_TEXTS = 4096
# Bytes that are no valid UTF-8 travel as these code points ("surrogateescape", PEP 383).
_ESCAPED = re.compile("([\udc80-\udcff]+)")
_ESCAPE_OFFSET = 0xDC00


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
