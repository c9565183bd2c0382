"""Structure: the backbone of a chain (N, CA, C of every residue, in angstrom) from its sequence.

A target is float32 [L, 3, 3] in angstrom, residue by residue of the sequence, NaN where a residue
is not resolved. A chain counts from `MIN_RESOLVED` resolved residues on: fewer fix no
superposition.

Figures are means over chains of `metrics.structure`, on C-alpha atoms: TM-score (residue by
residue, best superposition, no reflection), lDDT and RMSD. The trivial predictors are one ideal
helix and the backbone of the most similar training chain.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.backbone_files import write_mmcif, write_pdb
from multimed_jax.layers.structure_head import (
    Fold,
    FoldHead,
    FoldOptions,
    fold_backbone,
    fold_loss,
)
from multimed_jax.metrics.chain_baselines import ideal_helix, nearest_copies
from multimed_jax.metrics.record_scores import mean_statistic
from multimed_jax.metrics.structure import lddt_ca, rmsd, tm_score
from multimed_jax.specs import READ_PARTS, BaselineInputs, Namespace, TaskSpec
from multimed_jax.types import Parts, Record, TargetSlots, UserError

NAME = "structure"
MIN_RESOLVED = 3
CA = 1  # among N, CA, C


def read_target(record: Record, parts: Parts | None) -> Float[np.ndarray, "L 3 3"] | None:
    """The coordinates of the residues in `parts` (their coords are indices in the chain), or all.

    None where the record resolves fewer than `MIN_RESOLVED` residues. A crop may have none of them;
    it is then all NaN and its loss is 0.

    Raises:
        UserError: coordinates that are no [L, 3, 3], or of fewer residues than the sequence.
    """
    targets = record["targets"] if "targets" in record else {}
    if NAME not in targets or targets[NAME] is None:
        return None
    atoms = np.asarray(targets[NAME], np.float32)
    if atoms.ndim != 3 or atoms.shape[1:] != (3, 3):
        raise UserError(
            f"a target of task {NAME!r} has shape {atoms.shape}; accepted: [residues, 3, 3]"
        )
    if np.isfinite(atoms).all(axis=(1, 2)).sum() < MIN_RESOLVED:
        return None
    if parts is None:
        return atoms
    index = np.rint(parts.coords[:, 0]).astype(np.int64)
    if len(index) and index.max() >= len(atoms):
        raise UserError(
            f"a target of task {NAME!r} has {len(atoms)} residues and the sequence at least "
            f"{index.max() + 1}; accepted: one row for each residue"
        )
    return atoms[index]


def structure_scores(
    predictions: Float[np.ndarray, "n L 3 3"], targets: Float[np.ndarray, "n M 3 3"]
) -> dict[str, Float[np.ndarray, "n"]]:
    """TM-score, lDDT and RMSD (angstrom) of every chain; rows beyond a target's do not count."""
    native = np.asarray(targets)[:, :, CA]
    predicted = np.full(native.shape, np.nan, np.float32)
    common = min(native.shape[1], np.shape(predictions)[1])
    predicted[:, :common] = np.asarray(predictions)[:, :common, CA]
    mask = np.isfinite(targets).all(axis=(2, 3))
    return {
        "tm_score": tm_score(predicted, native, mask),
        "lddt_ca": lddt_ca(predicted, native, mask),
        "rmsd": rmsd(predicted, native, mask),
    }


def metrics(
    predictions: Float[np.ndarray, "n L 3 3"], targets: Float[np.ndarray, "n M 3 3"]
) -> dict[str, float]:
    """Means over chains of `structure_scores`."""
    scores = structure_scores(predictions, targets)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def statistic(predictions: np.ndarray, targets: np.ndarray) -> Any:
    """The means over chains in resamples."""
    return mean_statistic(structure_scores(predictions, targets))


def sequence_of(record: Record) -> bytes:
    """The residues of a record: its one value that is a sequence and nothing else.

    Raises:
        UserError: where there is none or more than one.
    """
    found = []
    for value in record.values():
        if isinstance(value, Mapping) and set(value) == {"sequence"}:
            letters = value["sequence"]
            letters = letters.item() if isinstance(letters, np.ndarray) else letters
            letters = letters.encode("utf-8") if isinstance(letters, str) else bytes(letters)
            found.append(b"".join(letters.split()).removesuffix(b"*").upper())
    found = [letters for letters in found if letters]
    if len(found) != 1:
        raise UserError(
            f"a record of task {NAME!r} has {len(found)} chains of residues; accepted: exactly 1"
        )
    return found[0]


def baselines(inputs: BaselineInputs) -> Mapping[str, Float[np.ndarray, "n L 3 3"]]:
    """`ideal_helix`, and `nearest_train_copy` where the training split resolves a chain."""
    sequences = [sequence_of(record) for record in inputs.records]
    width = max(len(sequence) for sequence in sequences)
    out = {"ideal_helix": np.tile(ideal_helix(width), (len(sequences), 1, 1, 1))}
    known, backbones = [], []
    for row in range(len(inputs.train)):
        record = inputs.train[row]
        atoms = read_target(record, None)
        if atoms is not None:
            known.append(sequence_of(record))
            backbones.append(atoms)
    if known:
        copies = np.zeros((len(sequences), width, 3, 3), np.float32)
        found = nearest_copies(sequences, known, backbones)
        for out_row, copy in zip(copies, found, strict=True):
            out_row[: len(copy)] = copy
        out["nearest_train_copy"] = copies
    return out


def save(path: Path, backbone: Float[np.ndarray, "L 3 3"], record: Record) -> tuple[Path, ...]:
    """Writes the predicted backbone as a PDB and an mmCIF file beside each other."""
    sequence = sequence_of(record).decode("ascii", "replace")
    title = "predicted backbone"
    write_pdb(path.with_suffix(".pdb"), sequence, backbone[: len(sequence)], title=title)
    write_mmcif(path.with_suffix(".cif"), sequence, backbone[: len(sequence)], title=title)
    return path.with_suffix(".pdb"), path.with_suffix(".cif")


@functools.cache
def make_spec(options: FoldOptions) -> TaskSpec:
    """The task with these options, one object for each: a stored spec equals the loaded one."""

    def make_head(d_model: int, namespaces: Sequence[Namespace], rngs: nnx.Rngs) -> FoldHead:
        return FoldHead(d_model, options, rngs)

    def loss_fn(
        outputs: Fold, slots: TargetSlots, namespaces: Sequence[Namespace]
    ) -> Float[jax.Array, "P K"]:
        return fold_loss(outputs, slots.value, options)

    def predict(
        outputs: Fold, slots: TargetSlots, namespaces: Sequence[Namespace]
    ) -> Float[Array, "P K L 3 3"]:
        return fold_backbone(outputs)

    return TaskSpec(
        name=NAME,
        spec="multimed_jax.tasks.structure:SPEC",
        target_shape=(READ_PARTS, 3, 3),
        target_dtype="float32",
        make_head=make_head,
        loss_fn=loss_fn,
        predict=predict,
        metrics=metrics,
        primary_metric="tm_score",
        lower_is_better=frozenset({"rmsd"}),
        statistic=statistic,
        baselines=baselines,
        read_target=read_target,
        reads="residues",
        save=save,
        options=options,
        remake=make_spec,
    )


SPEC = make_spec(FoldOptions())
