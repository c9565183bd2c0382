"""Builder of protein chains: PSICOV-150 entries and the families of the THESEUS examples."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import protein_features
from tfds_builders.core.pdb import Chain, chain_ids, parse_chain, read_lines
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    text_audit,
)
from tfds_builders.core.sequence_clusters import MAX_LENGTH, cluster

FAMILIES = ("trypsins", "cytochromes")
MIN_IDENTITY = {"cluster30": 0.3, "cluster90": 0.9}
_TARGET = re.compile(r">(?P<entry>\w{4})_(?P<chain>\w)\s*", re.ASCII)
_SUFFIXES = (".pdb", ".pdb.gz")


@dataclasses.dataclass(frozen=True)
class ChainFile:
    """Where a chain lies.

    Attributes:
        sample_id: such as "1a3a_A" or "d1lfma_".
        path: of the PDB file.
        target: FASTA file whose header names the chain; None where the file holds one chain.
        site: "psicov150", "theseus_trypsins" or "theseus_cytochromes".
    """

    sample_id: str
    path: Path
    target: Path | None
    site: str


class Builder(MedicalBuilder):
    """Chains of different folds and of two families, with N, CA and C of every residue."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="cluster30",
            description="new folds: clusters at 30 % identity stay together, so that no chain of "
            "the test set has a relative in the training set",
        ),
        tfds.core.BuilderConfig(
            name="cluster90",
            description="known families: clusters at 90 % identity stay together, so that unseen "
            "members of a family are tested whose relatives were trained on",
        ),
    ]
    CARD = SourceCard(
        name="protein_chains",
        title="Protein chains with backbones: PSICOV-150 targets, trypsins and cytochromes",
        namespace="protein_chains",
        modalities=("protein",),
        tasks=("structure",),
        publisher="wwPDB (coordinates); PSICOV-150 list of Jones et al.; THESEUS examples of "
        "D. Theobald",
        homepage="https://www.rcsb.org",
        licence="CC0 1.0 (PDB coordinates); GPL-3+ (the package of the THESEUS examples)",
        licence_forbids="Nothing for the coordinates; the THESEUS package must stay under its "
        "licence when passed on.",
        how_to_obtain="put PDB entries and fasta/<id>.fasta of the PSICOV-150 targets (GitHub "
        "bestlab/GREMLIN_RF) in one folder and examples/{trypsins,cytochromes} of Debian's "
        "theseus-examples in another; --manual_dir is either or the folder that holds both",
        citation="Jones et al. PSICOV. Bioinformatics 28:184, 2012; Theobald and Steindel. "
        "Bioinformatics 28:1972, 2012; wwPDB consortium. Nucleic Acids Research 47:D520, 2019.",
        group_key="cluster of sequences at 30 or 90 % identity, over both sources together",
        unit="chain",
        size="150 targets and two families",
    )
    DATASHEET = Datasheet(
        collection="Crystal structures as deposited in the PDB; one target chain per PSICOV "
        "entry, and single chains of two families prepared for THESEUS.",
        labels="Coordinates as refined by the depositors; residues without density are missing, "
        "and errors grow with the resolution, which is not stored.",
        personal_data="None: proteins, no persons.",
        consent="Not applicable: no human subjects.",
        patients_separable="Not applicable: the group is a cluster of sequences.",
        known_biases="Small well-behaved crystal structures; 43 % of the chains of the small copy "
        "are trypsins; in cluster90 their relatives are in the training set by design.",
        intended_use="Backbone prediction on new folds (cluster30) and known families (cluster90).",
        unsuitable_use="Claims about structure prediction at large, disordered regions, "
        "complexes, or variants of one protein.",
    )
    EXPECTED_LAYOUT = (
        "<id>.pdb (or org_pdb/<id>.pdb) with fasta/<id>.fasta, and/or "
        "{trypsins,cytochromes}/*.pdb, there or one folder below"
    )
    # One giant family: quotas put it in train (cluster30) and share its members out (cluster90).
    SPLIT_MODE = "stratified"
    LEARNT = ("_clusters",)

    def __init__(self, **kwargs: Any) -> None:
        """Clusters are computed once, at the first reading of the source."""
        self._clusters: dict[str, str] = {}
        super().__init__(**kwargs)

    def record_features(self) -> dict[str, Any]:
        """The sequence; the structure is the target."""
        return {"protein": protein_features(), "site": tfds.features.Text()}

    def target_kinds(self) -> dict[str, Any]:
        """Coordinates of N, CA and C."""
        return {"structure": "coordinates"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Coordinates have no names."""
        return {"structure": ()}

    def extra_metadata(self) -> dict[str, Any]:
        """How the groups came about."""
        return {
            "clusters": {
                "min_identity": MIN_IDENTITY[self._config_name()],
                "linkage": "single",
                "number": len(set(self._clusters.values())),
            }
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the chains by source and name."""
        files = find_chains(manual_dir)
        if not files:
            raise UserError(
                f"no protein chains found under {manual_dir}; expected layout: "
                f"{self.EXPECTED_LAYOUT}"
            )
        if not self._clusters:
            self._clusters = name_clusters(files, MIN_IDENTITY[self._config_name()])
        for file in files:
            try:
                chain = read_chain(file)
            except UnreadableRecord as error:
                quarantine.add(file.sample_id, str(error))
                continue
            yield SourceRecord(
                sample_id=file.sample_id,
                group_id=self._clusters[file.sample_id],
                record={
                    "protein": {"sequence": chain.sequence},
                    "site": file.site,
                    "targets": {"structure": chain.backbone},
                },
                stratum=file.site,
                audit=functools.partial(text_audit, chain.sequence),
            )

    def _config_name(self) -> str:
        assert self.builder_config is not None
        return self.builder_config.name


def find_chains(manual_dir: Path) -> list[ChainFile]:
    """The chains of both layouts in `manual_dir` and the folders directly below it."""
    below = sorted(p for p in manual_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
    found: list[ChainFile] = []
    for folder in (manual_dir, *below):
        found += _psicov(folder)
        found += _families(folder)
    return found


def _psicov(folder: Path) -> Iterator[ChainFile]:
    for target in sorted((folder / "fasta").glob("*.fasta")):
        places = [
            place / f"{target.stem}{suffix}"
            for place in (folder, folder / "org_pdb")
            for suffix in _SUFFIXES
        ]
        path = next((place for place in places if place.is_file()), places[0])
        header = target.read_text("latin-1").split("\n", 1)[0]
        match = _TARGET.fullmatch(header)
        name = f"{match['entry']}_{match['chain']}" if match else target.stem
        yield ChainFile(name, path, target, "psicov150")


def _families(folder: Path) -> Iterator[ChainFile]:
    for family in FAMILIES:
        for path in sorted((folder / family).glob("*")):
            if path.name.endswith(_SUFFIXES) and not path.name.startswith("."):
                name = path.name.split(".")[0]
                yield ChainFile(name, path, None, f"theseus_{family}")


def read_chain(file: ChainFile) -> Chain:
    """Reads one chain.

    Raises:
        UnreadableRecord: where the file is missing or damaged, the FASTA header names no chain,
            or a file of one chain holds several.
    """
    lines = read_lines(file.path)
    if file.target is None:
        chains = chain_ids(lines)
        if len(chains) != 1:
            raise UnreadableRecord(f"holds {len(chains)} chains; accepted: one")
        chain = parse_chain(lines, chains[0])
    else:
        match = _TARGET.fullmatch(file.target.read_text("latin-1").split("\n", 1)[0])
        if match is None:
            raise UnreadableRecord("its FASTA header names no chain; accepted: >1abc_A")
        chain = parse_chain(lines, match["chain"])
    if len(chain.sequence) > MAX_LENGTH:
        raise UnreadableRecord(f"has {len(chain.sequence)} residues, above {MAX_LENGTH}")
    return chain


def name_clusters(files: list[ChainFile], min_identity: float) -> dict[str, str]:
    """Sample id -> first sample id (by the alphabet) of its cluster, over all readable chains."""
    sequences: dict[str, str] = {}
    for file in sorted(files, key=lambda file: file.sample_id):
        try:
            sequences[file.sample_id] = read_chain(file).sequence
        except UnreadableRecord:
            continue  # `read_source` puts it into quarantine
    names = list(sequences)
    roots = cluster(list(sequences.values()), min_identity)
    return {name: names[root] for name, root in zip(names, np.asarray(roots), strict=True)}
