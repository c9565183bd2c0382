"""Genes of an annotation (GTF or BED), and the DNA window round the start of each.

    strand +   ....[upstream | TSS, downstream]....>    the TSS lies `upstream` bases in
    strand -   <....[downstream, TSS | upstream]....    turned round, so that it reads 5' to 3'

Source of the formats: GTF 2.2 (coordinates from 1, both ends counted), UCSC BED (from 0, end not
counted).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from multimed_jax.types import UserError
from tfds_builders.core.fasta import ReferenceGenome, reverse_complement
from tfds_builders.core.tables import open_text

SUFFIXES = (".gtf", ".gtf.gz", ".bed", ".bed.gz")
_ATTRIBUTE = re.compile(r'(\w+) "([^"]*)"')
_CHROMOSOME = re.compile(r"(?:chr)?(\d{1,2}|[XY])", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Gene:
    """One gene.

    Attributes:
        gene_id: without its version, such as "ENSG00000141510".
        symbol: "" where the annotation has none.
        contig: as the annotation spells it.
        start: its transcription start, from 0.
        forward: whether it lies on the forward strand.
    """

    gene_id: str
    symbol: str
    contig: str
    start: int
    forward: bool

    @property
    def chromosome(self) -> str:
        """Such as "chr7"; "" for patches, the mitochondrion and other contigs."""
        match = _CHROMOSOME.fullmatch(self.contig)
        return f"chr{match[1]}" if match else ""


@dataclasses.dataclass(frozen=True)
class Window:
    """How much DNA is cut round a transcription start: `upstream` bases of `length` lie before."""

    length: int
    upstream: int

    def __post_init__(self) -> None:
        """Raises UserError where the start would lie outside of the window."""
        if not 0 <= self.upstream < self.length <= 10_000_000:
            raise UserError(
                f"a window of {self.length} bases has {self.upstream} upstream; accepted: fewer "
                "upstream than in all, and at most 10,000,000"
            )

    def bounds(self, gene: Gene) -> tuple[int, int]:
        """First base and the base after the last, on the forward strand."""
        if gene.forward:
            first = gene.start - self.upstream
            return first, first + self.length
        last = gene.start + self.upstream
        return last + 1 - self.length, last + 1

    def cut(self, genome: ReferenceGenome, gene: Gene) -> str:
        """The window in the gene's direction. Raises UnreadableRecord: see `genome.window`."""
        text = genome.window(gene.contig, *self.bounds(gene))
        return text if gene.forward else reverse_complement(text)


def bare_id(gene_id: str) -> str:
    """An Ensembl id without its version; the copies of PAR genes on Y keep their mark."""
    head, _, tail = gene_id.partition(".")
    return head + ("_PAR_Y" if tail.endswith("_PAR_Y") else "")


def read_genes(path: Path) -> list[Gene]:
    """The genes of an annotation in its order; of one id only the first.

    Raises:
        UserError: the file is missing, damaged, of another format or without genes.
    """
    if not path.is_file():
        raise UserError(f"the annotation {path} does not exist; expected a GTF or BED file")
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise UserError(f"the annotation {path} is none of {', '.join(SUFFIXES)}")
    read = _gtf if ".gtf" in name else _bed
    found: dict[str, Gene] = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith(("#", "track", "browser")) or not line.strip():
                continue
            try:
                for gene in read(line.rstrip("\r\n").split("\t")):
                    found.setdefault(gene.gene_id, gene)
            except (ValueError, IndexError):
                raise UserError(f"the annotation {path} has a wrong line {number}") from None
    if not found:
        raise UserError(f"the annotation {path} names no gene")
    return list(found.values())


def _gtf(cells: list[str]) -> Iterator[Gene]:
    if cells[2] != "gene":
        return
    known = dict(_ATTRIBUTE.findall(cells[8]))
    forward = _is_forward(cells[6])
    start = int(cells[3]) - 1 if forward else int(cells[4]) - 1
    symbol = known["gene_name"] if "gene_name" in known else ""
    yield Gene(_known_id(known), symbol, cells[0], start, forward)


def _known_id(known: dict[str, str]) -> str:
    if "gene_id" not in known:
        raise ValueError("no gene_id")
    return bare_id(known["gene_id"])


def _bed(cells: list[str]) -> Iterator[Gene]:
    forward = _is_forward(cells[5])
    start = int(cells[1]) if forward else int(cells[2]) - 1
    yield Gene(bare_id(cells[3]), "", cells[0], start, forward)


def _is_forward(strand: str) -> bool:
    if strand not in ("+", "-"):
        raise ValueError(strand)
    return strand == "+"


def only_file(folder: Path, suffixes: tuple[str, ...], what: str) -> Path:
    """The one file of a folder with such a suffix. Raises UserError for none or several."""
    there = sorted(p for p in folder.iterdir() if p.name.lower().endswith(suffixes))
    if len(there) != 1:
        raise UserError(
            f"the folder {folder} has {len(there)} files {what} ({', '.join(suffixes)}); "
            "accepted: 1"
        )
    return there[0]
