"""Builders of every kind by the blocks of a Beam build: the files of a plain build, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tfds_builders import (
    test_covid_chestxray,
    test_covid_vqa,
    test_eegmmidb,
    test_hcl,
    test_jats,
    test_kermany_chest_xray,
    test_lentimpra,
    test_nifti_volumes,
    test_pbmc68k,
    test_protein_chains,
    test_question_sets,
    test_rcsb_pdb,
    test_siim_ct,
    test_single_cell_expression_atlas,
)
from tests.tfds_builders.by_blocks import assert_alike, without_beam
from tfds_builders.__main__ import load_builder
from tfds_builders.core.build_options import BuildOptions, build_options


def eeg(folder: Path) -> Path:
    for subject in (1, 2, 3, 88):
        for run in (4, 6):
            test_eegmmidb.write_run(folder, subject, run, num_trials=4)
    return folder


def cells(folder: Path) -> Path:
    path = folder / test_pbmc68k.FILE_NAME
    test_pbmc68k.write_h5ad(path, test_pbmc68k.draw_matrix())
    return folder


def chains(folder: Path) -> Path:
    test_protein_chains.make_psicov(folder / "psicov")
    test_protein_chains.make_families(folder / "theseus")
    return folder


def elements(folder: Path) -> Path:
    made = test_lentimpra.make_elements()
    return test_lentimpra.write_table(folder, made[:80], {5: {"seq": "ACGT"}})


def entries(folder: Path) -> Path:
    return test_rcsb_pdb.source(folder, clusters=False)


def clusters(folder: Path) -> Path:
    return test_hcl.write_source(folder, test_hcl.draw_matrix())


def questions(folder: Path) -> Path:
    return test_question_sets.rad_source(folder, test_question_sets.rad_rows())


def films(folder: Path) -> Path:
    return test_covid_vqa.make_source(folder, test_covid_vqa.make_rows())


SOURCES: list[tuple[str, str | None, Any]] = [
    ("kermany_chest_xray", "original", test_kermany_chest_xray.make_original),
    ("kermany_chest_xray", "relaid_300px", test_kermany_chest_xray.make_relaid),
    ("covid_chestxray", None, test_covid_chestxray.make_source),
    ("covid_vqa", None, films),
    ("eegmmidb", "imagery", eeg),
    ("pbmc68k", None, cells),
    ("hcl", None, clusters),
    ("single_cell_expression_atlas", "donors", test_single_cell_expression_atlas.source),
    ("protein_chains", "cluster30", chains),
    ("rcsb_pdb", "cluster30", entries),
    ("lentimpra", "wtc11", elements),
    ("lentimpra", "folds", elements),
    ("siim_ct", None, test_siim_ct.make_source),
    ("jats", None, test_jats.make_source),
    ("vqa_rad", None, questions),
    ("nifti_volumes", "mri", test_nifti_volumes.make_source),
]


@pytest.mark.parametrize(("name", "config", "make"), SOURCES, ids=lambda value: str(value)[:30])
def test_the_files_are_those_of_a_plain_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, config: str | None, make: Any
) -> None:
    without_beam(monkeypatch, block_items=3)
    source = make(tmp_path / "source")
    accepted = BuildOptions(
        hash_key_file=tmp_path / "key", accepted_licences=frozenset({name}), accept_burned_in=True
    )
    with build_options(accepted):
        files = assert_alike(load_builder(name), source, tmp_path, config)
    assert "fingerprints.npz" in files
