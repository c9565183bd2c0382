"""FASTA files: all sequences of a small one, or windows of a reference genome of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from multimed_jax.types import UserError
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.core.tables import open_text

_COMPLEMENT = str.maketrans("ACGTNacgtn", "TGCANtgcan")


def reverse_complement(sequence: str) -> str:
    """The other strand, read in its own direction; letters that are no bases stay."""
    return sequence[::-1].translate(_COMPLEMENT)


def read_fasta(path: Path) -> Iterator[tuple[str, str]]:
    """(id, sequence) of every record: the first word of the header, and its lines joined.

    Raises:
        UserError: where the file is missing or damaged, or does not start with `>`.
    """
    name, parts = None, []
    with open_text(path) as lines:
        for line in lines:
            if line.startswith(">"):
                if name is not None:
                    yield name, "".join(parts)
                name, parts = (line[1:].split() or [""])[0], []
            elif name is not None:
                parts.append("".join(line.split()))
            elif line.strip():
                raise UserError(f"the file {path} is no FASTA file: it does not start with '>'")
    if name is None:
        raise UserError(f"the file {path} holds no sequence; expected records of >id and letters")
    yield name, "".join(parts)


@dataclasses.dataclass(frozen=True)
class _Contig:
    length: int
    offset: int
    line_bases: int
    line_bytes: int


class ReferenceGenome:
    """Windows of a FASTA file that is not compressed, read from their places on disk.

    The places come from one pass over the file, or from `<file>.fai` where samtools made one.
    Source of that format: samtools faidx, columns NAME, LENGTH, OFFSET, LINEBASES, LINEWIDTH.
    """

    def __init__(self, path: Path) -> None:
        """Finds the contigs. Raises UserError where the file is missing or no such file."""
        if path.suffix == ".gz":
            raise UserError(f"the genome {path} is compressed; accepted: the unpacked FASTA file")
        if not path.is_file():
            raise UserError(f"the genome {path} does not exist; expected a FASTA file")
        self._path = path
        index = path.with_name(f"{path.name}.fai")
        self._contigs = _from_index(index) if index.is_file() else _scan(path)

    def length(self, contig: str) -> int:
        """Bases of a contig. Raises UnreadableRecord for one that the file lacks."""
        return self._contig(contig).length

    def window(self, contig: str, start: int, stop: int) -> str:
        """Bases from `start` (from 0) up to `stop` in upper case; N beyond the contig's ends.

        `chr1` and `1` name the same contig, `chrM` and `MT` too.

        Raises:
            UnreadableRecord: for a contig that the file lacks, or a window without a base of it.
        """
        found = self._contig(contig)
        first, last = max(start, 0), min(stop, found.length)
        if first >= last:
            raise UnreadableRecord(f"lies at {start} to {stop} of a contig of {found.length} bases")
        begin, end = _bytes_of(found.offset, found.line_bases, found.line_bytes, first, last)
        with self._path.open("rb") as file:
            file.seek(begin)
            text = b"".join(file.read(end - begin).split()).decode("ascii", "replace").upper()
        if len(text) != last - first:
            raise UnreadableRecord("lies where the genome's index does not fit its file")
        return "N" * (first - start) + text + "N" * (stop - last)

    def _contig(self, name: str) -> _Contig:
        bare = name.removeprefix("chr")
        other = {"M": "MT", "MT": "M"}.get(bare, bare)
        for known in (name, bare, f"chr{bare}", other, f"chr{other}"):
            if known in self._contigs:
                return self._contigs[known]
        raise UnreadableRecord(f"lies on {name[:40]!r}, which the genome lacks")


def _bytes_of(
    offset: int, line_bases: int, line_bytes: int, start: int, stop: int
) -> tuple[int, int]:
    """First and last byte of a window, line ends between them included."""

    def place(base: int) -> int:
        return offset + base // line_bases * line_bytes + base % line_bases

    return place(start), place(stop - 1) + 1


def _from_index(path: Path) -> dict[str, _Contig]:
    contigs = {}
    for line in path.read_text("utf-8").splitlines():
        name, *numbers = line.split("\t")
        try:
            contigs[name] = _Contig(*(int(number) for number in numbers[:4]))
        except (TypeError, ValueError):
            raise UserError(f"the index {path} is no index of samtools faidx") from None
    return contigs


def _scan(path: Path) -> dict[str, _Contig]:
    contigs: dict[str, _Contig] = {}
    name, length, offset, bases, width, ended, at = "", 0, 0, 0, 0, False, 0
    with path.open("rb") as lines:
        for line in lines:
            at += len(line)
            if line.startswith(b">"):
                if name:
                    contigs[name] = _Contig(length, offset, max(bases, 1), max(width, 1))
                name = (line[1:].split() or [b""])[0].decode("utf-8", "replace")
                length, offset, bases, width, ended = 0, at, 0, 0, False
                continue
            if not name:
                raise UserError(f"the genome {path} is no FASTA file: it does not start with '>'")
            here = len(line.strip())
            # Every line but the last of a contig has the width of its first.
            if (ended and here) or (bases and here > bases):
                raise UserError(f"the genome {path} has lines of unequal width in {name!r}")
            ended = bases > 0 and here < bases
            length += here
            if not bases:
                bases, width = here, len(line)
    if not name:
        raise UserError(f"the genome {path} holds no sequence")
    contigs[name] = _Contig(length, offset, max(bases, 1), max(width, 1))
    return contigs
