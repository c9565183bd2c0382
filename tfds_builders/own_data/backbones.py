"""Coordinates of a table: PDB or mmCIF files beside the sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tfds_builders.core.mmcif import read_chains
from tfds_builders.core.pdb import Chain, chain_ids, parse_chain, read_lines
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.own_data.config import Target
from tfds_builders.own_data.readers import file_of
from tfds_builders.own_data.table import Sample, cell

_MMCIF = (".cif", ".cif.gz")


def read_backbone(
    manual_dir: Path, sample: Sample, target: Target, sequence: str
) -> Float32[np.ndarray, "L 3 3"]:
    """N, CA and C of every residue of the sample's protein; [0, 3, 3] where no file is named.

    Raises:
        UnreadableRecord: the file cannot be read, holds several chains and none is named, or has
            another sequence than the sample.
    """
    if not sequence or not cell(sample.rows[0], target.columns[0]):
        return np.zeros((0, 3, 3), np.float32)
    path = file_of(manual_dir, sample.rows[0], target.columns[0])
    named = cell(sample.rows[0], target.columns[1]) if len(target.columns) > 1 else ""
    chain = _chain(path, named)
    if chain.sequence != sequence:
        raise UnreadableRecord(
            f"has {len(sequence)} residues, and its structure {len(chain.sequence)} or others; "
            "accepted: one sequence for both"
        )
    return chain.backbone


def _chain(path: Path, named: str) -> Chain:
    if path.name.lower().endswith(_MMCIF):
        chains = read_chains(path)
        # The author's letter is what tables hold; of copies of one molecule the first serves.
        fitting = [c.chain for c in chains if named in ("", c.author_id, c.chain_id)]
        if not fitting or (not named and len(fitting) > 1):
            raise UnreadableRecord(f"holds {len(fitting)} chains that fit; accepted: one")
        return fitting[0]
    lines = read_lines(path)
    ids = chain_ids(lines)
    if not named and len(ids) != 1:
        raise UnreadableRecord(f"holds {len(ids)} chains; accepted: one, or a named one")
    return parse_chain(lines, named or ids[0])
