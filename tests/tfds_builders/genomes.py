"""A tiny genome, its annotation and a reader of our own, for the tests of DNA builders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_CHROMOSOMES = 6
LENGTH = 6000
_PAIRS = dict(zip("ACGTN", "TGCAN", strict=True))


def chromosome(number: int) -> str:
    """The bases of a chromosome, counted from 1."""
    return "".join(np.random.default_rng(number).choice(list("ACGT"), LENGTH))


def turned(text: str) -> str:
    """The other strand, base by base."""
    return "".join(_PAIRS[base] for base in reversed(text))


def write_genome(path: Path, prefix: str = "", width: int = 61) -> None:
    """A FASTA file in lines of `width`; a part is in lower case, as repeats are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(1, NUM_CHROMOSOMES + 1):
        text = chromosome(number)
        text = text[:100].lower() + text[100:]
        lines.append(f">{prefix}{number} dna:chromosome")
        lines += [text[i : i + width] for i in range(0, len(text), width)]
    path.write_text("\n".join(lines) + "\n")


def genes() -> list[tuple[str, str, int, int, str]]:
    """(id, chromosome, first base, last base, strand), counted from 1, both ends in the gene."""
    found = []
    for number in range(1, NUM_CHROMOSOMES + 1):
        for k in range(3):
            start = 1500 + 900 * k + number
            strand = "+-"[k % 2]
            found.append((f"ENSG{number}{k}", f"chr{number}", start, start + 400, strand))
    return found


def write_gtf(path: Path) -> None:
    """Genes, and transcripts that must not be taken for genes; one gene off the chromosomes."""
    lines = ["##description: made for a test"]
    for name, contig, first, last, strand in [*genes(), ("ENSG99", "chrM", 10, 20, "+")]:
        more = f'gene_id "{name}.7"; gene_type "x"; gene_name "SYM{name[4:]}";'
        for kind, start in (("gene", first), ("transcript", first + 5)):
            lines.append(f"{contig}\tX\t{kind}\t{start}\t{last}\t.\t{strand}\t.\t{more}")
    path.write_text("\n".join(lines) + "\n")


def window(name: str, length: int = 2048, upstream: int = 1024) -> str:
    """The window round a gene's start, by plain indexing of the chromosome."""
    _, contig, first, last, strand = next(gene for gene in genes() if gene[0] == name)
    text = chromosome(int(contig[3:]))
    start = (first if strand == "+" else last) - 1
    if strand == "-":
        text, start = turned(text), LENGTH - 1 - start
    out = ""
    for at in range(start - upstream, start - upstream + length):
        out += text[at] if 0 <= at < LENGTH else "N"
    return out
