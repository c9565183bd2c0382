"""Pairs of protein chains of high identity; among many, by MMseqs2 where it is installed.

MMseqs2 (Steinegger and Soeding, Nature Biotechnology 35:1026, 2017) only proposes pairs; whether a
pair counts is decided by the alignment of `sequence_clusters`, so that one definition of identity
holds with and without it. Without it pairs are proposed by shared words, which takes memory by the
square of related chains: fit for some ten thousand.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from multimed_jax.types import UserError
from tfds_builders.core.sequence_clusters import MAX_LENGTH, candidate_pairs, identities

# MMseqs2 aligns locally and counts otherwise at the ends; what it proposes may lie this far below.
_MARGIN = 0.1
_BATCH = 512
_WORD = 5
# Below it shared words are found sooner than MMseqs2 has set up its tables.
MMSEQS_FROM = 3000
_MOST_HITS = 10_000
_TIMEOUT_S = 6 * 3600


def similar_pairs(sequences: Sequence[str], min_identity: float) -> list[tuple[int, int, float]]:
    """Pairs (i < j) and their identity, which is at least `min_identity`.

    Args:
        sequences: one-letter residues, none empty; of those longer than the aligner takes the
            first `MAX_LENGTH` residues are compared.
        min_identity: at least 0.6, below which the shared words would miss pairs.

    Raises:
        UserError: MMseqs2 is installed and fails.
    """
    cut = [sequence[:MAX_LENGTH] for sequence in sequences]
    program = shutil.which("mmseqs") if len(cut) >= MMSEQS_FROM else None
    pairs = _proposed(program, cut, min_identity) if program else candidate_pairs(cut, _WORD)
    pairs = sorted(pairs, key=lambda pair: len(cut[pair[0]]))
    found = []
    for at in range(0, len(pairs), _BATCH):
        batch = pairs[at : at + _BATCH]
        values = identities([cut[i] for i, _ in batch], [cut[j] for _, j in batch])
        found += [
            (i, j, float(identity))
            for (i, j), identity in zip(batch, values, strict=True)
            if identity >= min_identity
        ]
    return sorted(found)


def _proposed(program: str, sequences: Sequence[str], min_identity: float) -> list[tuple[int, int]]:
    """What MMseqs2 finds when all sequences are searched with all."""
    if len(sequences) < 2:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fasta, table = folder / "all.fasta", folder / "hits.tsv"
        fasta.write_text("".join(f">{i}\n{s}\n" for i, s in enumerate(sequences)))
        command = [program, "easy-search", str(fasta), str(fasta), str(table), str(folder / "tmp")]
        command += ["--min-seq-id", f"{max(min_identity - _MARGIN, 0):.2f}", "--seq-id-mode", "1"]
        command += ["--max-seqs", str(_MOST_HITS), "--format-output", "query,target", "-v", "1"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"mmseqs did not end within {_TIMEOUT_S // 3600} hours") from None
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"mmseqs ended with code {done.returncode}: {last[0][:160]}")
        hits = [tuple(map(int, line.split("\t"))) for line in table.read_text().splitlines()]
    return sorted({(min(pair), max(pair)) for pair in hits if pair[0] != pair[1]})
