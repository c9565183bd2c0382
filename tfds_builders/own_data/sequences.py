"""Texts and sequences of a table: in the cell itself, in a file for each row, or in one FASTA."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from multimed_jax.types import UserError
from tfds_builders.core import features
from tfds_builders.core.fasta import read_fasta
from tfds_builders.core.records import AuditKey, UnreadableRecord, text_audit
from tfds_builders.own_data.inputs import Input
from tfds_builders.own_data.readers import file_of, has_cell
from tfds_builders.own_data.table import Sample, cell

# A report or a note; beyond it a path was mistaken.
_MAX_TEXT_BYTES = 16_000_000
_BASES = re.compile("[ACGTN]+")
_RESIDUES = re.compile("[ARNDCQEGHILKMFPSTWYVX]+")
# Rare residues and codes for two of them: unknown to the alphabet of twenty.
_RARE = str.maketrans("UOBZJ", "XXXXX")


class TextReader:
    """Free text."""

    def __init__(self, given: Input) -> None:
        """Reads as the config's input says."""
        self._input = given

    def features(self) -> Any:
        return features.text_features()

    def empty(self) -> Any:
        return {"text": ""}

    def present(self, sample: Sample) -> bool:
        return has_cell(sample, self._input.value or self._input.file)

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        if self._input.value:
            return {"text": cell(sample.rows[0], self._input.value)}
        path = file_of(manual_dir, sample.rows[0], self._input.file)
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_TEXT_BYTES + 1).decode("utf-8-sig").strip()
        except OSError as error:
            raise UnreadableRecord(f"cannot be opened ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UnreadableRecord("is no UTF-8 text") from error
        if not 0 < len(text) <= _MAX_TEXT_BYTES:
            raise UnreadableRecord(f"is empty, or has more than {_MAX_TEXT_BYTES} bytes")
        return {"text": text}

    def audit(self, value: Any) -> AuditKey:
        return text_audit(value["text"])


class SequenceReader:
    """Bases of DNA or residues of a protein."""

    def __init__(self, given: Input) -> None:
        """Reads as the config's input says."""
        self._input = given
        self._is_dna = given.modality == "genomics"
        self._by_id: dict[str, str] | None = None

    def features(self) -> Any:
        return features.genomics_features() if self._is_dna else features.protein_features()

    def empty(self) -> Any:
        return {"sequence": "", "site": -1} if self._is_dna else {"sequence": ""}

    def present(self, sample: Sample) -> bool:
        column = self._input.value or self._input.file
        return has_cell(sample, column) if column else True

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        sequence = self._checked(self._text(manual_dir, sample))
        if not self._is_dna:
            return {"sequence": sequence}
        return {"sequence": sequence, "site": self._site(sample, len(sequence))}

    def audit(self, value: Any) -> AuditKey:
        return text_audit(value["sequence"])

    def _text(self, manual_dir: Path, sample: Sample) -> str:
        if self._input.value:
            return cell(sample.rows[0], self._input.value)
        if self._input.fasta:
            if self._by_id is None:
                self._by_id = _all_of(manual_dir / self._input.fasta)
            if sample.sample_id not in self._by_id:
                raise UnreadableRecord(f"has no sequence in {self._input.fasta}")
            return self._by_id[sample.sample_id]
        found = list(read_fasta(file_of(manual_dir, sample.rows[0], self._input.file)))
        if len(found) != 1:
            raise UnreadableRecord(f"names a file of {len(found)} sequences; accepted: 1")
        return found[0][1]

    def _checked(self, text: str) -> str:
        sequence = text.upper().removesuffix("*")
        if not self._is_dna:
            sequence = sequence.translate(_RARE)
        if not (_BASES if self._is_dna else _RESIDUES).fullmatch(sequence):
            kind = "A, C, G, T and N" if self._is_dna else "the twenty residues and X"
            raise UnreadableRecord(f"is empty, or has other letters than {kind}")
        return sequence

    def _site(self, sample: Sample, length: int) -> int:
        text = cell(sample.rows[0], self._input.site) if self._input.site else ""
        if not text:
            return -1
        if not text.isdecimal() or int(text) >= length:
            raise UnreadableRecord(f"has the site {text[:20]!r}; accepted: 0 to {length - 1}")
        return int(text)


def _all_of(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, sequence in read_fasta(path):
        if name in found:
            raise UserError(f"the file {path} has the id {name!r} twice; accepted: each once")
        found[name] = sequence
    return found
