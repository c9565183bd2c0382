"""Trains the byte-level BPE vocabulary of the text modality.

    python -m multimed_jax.modalities.vocabulary.train --input FILE... --size 4096 --output FILE

Inputs are UTF-8 text, or articles in JATS XML (`.xml`, `.nxml`), of which title, abstract and body
are read as text; citations, formulas, tables and references are left out. The 256 bytes are always
part of the vocabulary, so every text has tokens. The result depends on the inputs alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from multimed_jax.types import UserError

# Ids 0 to 3. Padding is 0 by the packing contract; the others serve masked-word and answer tasks.
SPECIAL_TOKENS = ("<pad>", "<mask>", "<begin>", "<end>")
NUM_BYTES = 256
# A pair of pieces must be seen this often to become a piece.
MIN_FREQUENCY = 2
SKIPPED = frozenset(
    {"xref", "disp-formula", "inline-formula", "table", "ref-list", "graphic", "object-id", "label"}
)
BLOCKS = frozenset({"p", "title", "article-title"})


def jats_text(xml: str) -> Iterator[str]:
    """Title, headings and paragraphs of an article, one string each."""
    root = ElementTree.fromstring(xml)
    front = [root.find(".//front//title-group/article-title"), *root.findall(".//front//abstract")]
    for part in [*front, root.find("./body")]:
        if part is not None:
            for block in part.iter():
                if block.tag in BLOCKS:
                    yield re.sub(r"\s+", " ", _inline(block)).strip()


def _inline(element: ElementTree.Element) -> str:
    """The text of a block without that of the elements in `SKIPPED` and of inner blocks."""
    pieces = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and child.tag not in SKIPPED | BLOCKS:
            pieces.append(_inline(child))
        pieces.append(child.tail or "")
    return "".join(pieces)


def read_text(path: Path) -> list[str]:
    """The paragraphs of a file. Raises UserError where it cannot be read."""
    try:
        text = path.read_text("utf-8")
        if path.suffix in (".xml", ".nxml"):
            return [block for block in jats_text(text) if block]
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); accepted: UTF-8 text or JATS XML"
        ) from None
    return [line for line in text.splitlines() if line]


def train(texts: Sequence[str], size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer of at most `size` pieces, special tokens and bytes included.

    Raises:
        UserError: where `size` leaves no room for the bytes.
    """
    smallest = NUM_BYTES + len(SPECIAL_TOKENS)
    if size < smallest:
        raise UserError(f"a vocabulary of size {size} was asked for; accepted: at least {smallest}")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main(arguments: Sequence[str]) -> int:
    """Reads, trains, writes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="multimed_jax.modalities.vocabulary.train")
    parser.add_argument("--input", nargs="+", type=Path, required=True)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        texts = [text for path in options.input for text in read_text(path)]
        tokenizer = train(texts, options.size)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tokenizer.save(str(options.output), pretty=False)
    characters = sum(map(len, texts))
    print(f"{tokenizer.get_vocab_size()} pieces from {characters} characters: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
