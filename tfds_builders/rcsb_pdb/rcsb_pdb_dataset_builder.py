"""Builder of a folder of mmCIF entries of the PDB, grouped by the published clusters."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import protein_features
from tfds_builders.core.mmcif import PolymerChain, read_chains
from tfds_builders.core.planning import DuplicatePolicy
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourcePart,
    SourceRecord,
    UnreadableRecord,
    text_audit,
)
from tfds_builders.core.sequence_clusters import MAX_LENGTH, cluster

CLUSTER_FILE = "clusters-by-entity-{}.txt"
_ENDINGS = (".cif", ".cif.gz")
_MEMBER = re.compile(r"(\w+)_(\d+)", re.ASCII)


@dataclasses.dataclass(kw_only=True)
class RcsbConfig(tfds.core.BuilderConfig):
    """Which clusters stay together, and which chains are taken.

    Attributes:
        identity: of the clusters in per cent: 30 (new folds) or 90 (known families).
        min_residues: shorter chains are left out.
        max_residues: longer chains are left out.
    """

    identity: int = 30
    min_residues: int = 30
    max_residues: int = 1024

    def __post_init__(self) -> None:
        """Raises UserError for a value that is not accepted."""
        if self.identity not in (30, 90) or not 1 <= self.min_residues <= self.max_residues:
            raise UserError(
                f"a config of rcsb_pdb has identity {self.identity} and {self.min_residues} to "
                f"{self.max_residues} residues; accepted: 30 or 90, and a range from 1"
            )


class Builder(MedicalBuilder):
    """One chain of each molecule of each entry, with N, CA and C of every residue."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        RcsbConfig(name="cluster30", description="new folds: clusters at 30 % identity"),
        RcsbConfig(
            name="cluster90", identity=90, description="known families: clusters at 90 % identity"
        ),
    ]
    CARD = SourceCard(
        name="rcsb_pdb",
        title="Protein chains of the RCSB PDB with their backbones",
        namespace="rcsb_pdb",
        modalities=("protein",),
        tasks=("structure",),
        publisher="wwPDB; clusters of sequences by RCSB PDB",
        homepage="https://www.rcsb.org",
        licence="CC0 1.0",
        licence_forbids="Nothing.",
        how_to_obtain="download entries as mmCIF (files.rcsb.org/download/<ID>.cif.gz, or by rsync "
        "of divided/mmCIF) and clusters-by-entity-30.txt or -90.txt from "
        "cdn.rcsb.org/resources/sequence/clusters; --manual_dir is the folder that holds them",
        citation="wwPDB consortium. Protein Data Bank: the single global archive for 3D "
        "macromolecular structure data. Nucleic Acids Research 47:D520, 2019.",
        group_key="published cluster of sequences at 30 or 90 % identity; computed here where the "
        "cluster file is absent",
        unit="chain",
        size="tens of GB for all entries",
    )
    DATASHEET = Datasheet(
        collection="Structures as deposited in the PDB, by crystallography, cryo-EM and NMR.",
        labels="Coordinates as refined by the depositors; of NMR entries the first model.",
        personal_data="None: proteins, no persons.",
        consent="Not applicable: no human subjects.",
        patients_separable="Not applicable: the group is a cluster of sequences.",
        known_biases="Proteins that crystallise, and families that many groups work on, are far "
        "more frequent than in nature.",
        intended_use="Backbone prediction on new folds (cluster30) and known families (cluster90).",
        unsuitable_use="Claims about disordered regions, complexes or effects of variants.",
    )
    EXPECTED_LAYOUT = "**/*.cif[.gz], and clusters-by-entity-30.txt or -90.txt"
    # Large families go to train as a whole (30 %).
    SPLIT_MODE = "stratified"
    LEARNT = ("_clusters", "_origin")

    def __init__(self, **kwargs: Any) -> None:
        """Clusters are read or computed once, at the first reading of the source."""
        self._clusters: dict[str, str] = {}
        self._origin = ""
        super().__init__(**kwargs)

    @property
    def _config(self) -> RcsbConfig:
        return cast(RcsbConfig, self.builder_config)

    def record_features(self) -> dict[str, Any]:
        """The sequence; the structure is the target."""
        return {"protein": protein_features(), "site": tfds.features.Text()}

    def target_kinds(self) -> dict[str, Any]:
        """Coordinates of N, CA and C."""
        return {"structure": "coordinates"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Coordinates have no names."""
        return {"structure": ()}

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal sequences in two clusters: the copy joins its first twin's."""
        return "share_group"

    def extra_metadata(self) -> dict[str, Any]:
        """How the groups came about."""
        return {
            "clusters": {
                "min_identity": self._config.identity / 100,
                "origin": self._origin,
                "number": len(set(self._clusters.values())),
            }
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourcePart]:
        """Yields the first chain of every molecule: a part for each entry."""
        paths = sorted(p for p in manual_dir.rglob("*") if p.name.lower().endswith(_ENDINGS))
        if not paths:
            raise UserError(f"no file *.cif or *.cif.gz under {manual_dir}")
        if not self._clusters:
            self._clusters = self._find_clusters(manual_dir, paths)
        for path in paths:
            yield SourcePart(functools.partial(self._chains, path))

    def _chains(self, path: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        try:
            chains = read_chains(path)
        except UnreadableRecord as error:
            quarantine.add(_entry(path), str(error))
            return
        for chain in one_for_each(chains):
            yield from self._record(_entry(path), chain, quarantine)

    def _record(
        self, entry: str, found: PolymerChain, quarantine: Quarantine
    ) -> Iterator[SourceRecord]:
        sequence = found.chain.sequence
        name = f"{entry}_{found.entity}"
        if not self._config.min_residues <= len(sequence) <= self._config.max_residues:
            quarantine.leave_out("chain shorter or longer than the config takes")
            return
        if set(sequence) == {"X"}:
            quarantine.leave_out("chain without a known amino acid")
            return
        if name not in self._clusters:
            quarantine.leave_out("molecule that no cluster names")
            return
        yield SourceRecord(
            sample_id=name,
            group_id=self._clusters[name],
            record={
                "protein": {"sequence": sequence},
                "site": found.author_id,
                "targets": {"structure": found.chain.backbone},
            },
            stratum="",
            audit=functools.partial(text_audit, sequence),
        )

    def _find_clusters(self, manual_dir: Path, paths: list[Path]) -> dict[str, str]:
        file = manual_dir / CLUSTER_FILE.format(self._config.identity)
        if file.is_file():
            self._origin = "published"
            return read_clusters(file)
        self._origin = "computed here, single linkage"
        return self._compute_clusters(paths)

    def _compute_clusters(self, paths: list[Path]) -> dict[str, str]:
        sequences: dict[str, str] = {}
        longest = min(self._config.max_residues, MAX_LENGTH)
        for path in paths:
            try:
                chains = one_for_each(read_chains(path))
            except UnreadableRecord:
                continue  # `read_source` puts it into quarantine
            for found in chains:
                if self._config.min_residues <= len(found.chain.sequence) <= longest:
                    sequences[f"{_entry(path)}_{found.entity}"] = found.chain.sequence
        names = list(sequences)
        roots = cluster(list(sequences.values()), self._config.identity / 100)
        return {name: names[root] for name, root in zip(names, roots, strict=True)}


def _entry(path: Path) -> str:
    return path.name.split(".")[0].upper()


def one_for_each(chains: list[PolymerChain]) -> list[PolymerChain]:
    """The first chain of every molecule of an entry; its copies differ little."""
    first: dict[str, PolymerChain] = {}
    for chain in chains:
        first.setdefault(chain.entity, chain)
    return list(first.values())


def read_clusters(path: Path) -> dict[str, str]:
    """Molecule -> cluster, one for each line. Members of other archives (AF_...) are passed over.

    Raises:
        UserError: the file names no molecule of the PDB.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        for member in line.split():
            match = _MEMBER.fullmatch(member.upper())
            if match:
                found[f"{match[1]}_{match[2]}"] = f"cluster{number}"
    if not found:
        raise UserError(
            f"the file {path} names no molecule; accepted: lines such as '4HHB_1 1GZX_2'"
        )
    return found
