"""Faults of a build: killed half-way, files with flipped bytes, XML made to explode."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.dicoms import make_ct, save
from tests.tfds_builders.pdb_files import chain_lines
from tests.tfds_builders.test_eegmmidb import write_edf
from tfds_builders.__main__ import load_builder
from tfds_builders.core import hdf5_guard
from tfds_builders.core.dicom import read_ct_slice
from tfds_builders.core.hdf5_guard import check_hdf5
from tfds_builders.core.mmcif import read_chains
from tfds_builders.core.nifti import read_volume
from tfds_builders.core.pdb import chain_ids, parse_chain, read_lines
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.eegmmidb.edf_trials import Run

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = 7

# ------------------------------------------------------------------------- killed half-way

_SLOW_BUILD = """
import sys, time
from tfds_builders.__main__ import load_builder
from tfds_builders.core.tally import NoStatistics

class Wait(NoStatistics):
    def add(self, split, record):
        print("writing", flush=True)
        time.sleep(0.05)

class Slow(load_builder("phantoms"), skip_registration=True):
    name = "phantoms"
    def statistics(self):
        return Wait()

Slow(config="tiny", data_dir=sys.argv[1]).download_and_prepare()
"""


@pytest.mark.slow  # starts a process and builds phantoms twice
def test_killed_phantoms_leave_no_version_and_are_built_again_alike(tmp_path):
    def build(data_dir: Path) -> str:
        builder = load_builder("phantoms")(config="tiny", data_dir=data_dir)
        builder.download_and_prepare()
        return metadata_of(tfds.builder_from_directory(builder.data_dir))["content_hash"]

    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_BUILD, str(data)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    written = 0
    for line in process.stdout:
        written += line.startswith("writing")
        if written == 100:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert written == 100
    assert not (data / "phantoms" / "tiny" / "2.0.0").exists()
    assert list((data / "phantoms" / "tiny").glob("*incomplete*"))  # it was killed while writing
    assert build(data) == build(tmp_path / "whole")


# ------------------------------------------------------------------------------ flipped bytes


def write_dicom(folder: Path) -> Path:
    return save(make_ct(np.arange(80, dtype=np.uint16).reshape(8, 10)), folder / "x.dcm")


def write_nifti(folder: Path) -> Path:
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), folder / "x.nii")
    return folder / "x.nii"


def write_short_edf(folder: Path) -> Path:
    digital = np.random.default_rng(SEED).integers(-900, 900, (160 * 16, 64))
    write_edf(folder / "x.edf", digital, [(0.0, "T0"), (2.5, "T1"), (9.5, "T2")])
    return folder / "x.edf"


def write_pdb(folder: Path) -> Path:
    (folder / "x.pdb").write_text("\n".join(chain_lines("ACDEFGHIKLMN")))
    return folder / "x.pdb"


_CIF_COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id "
    "label_entity_id label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy "
    "B_iso_or_equiv auth_seq_id auth_asym_id pdbx_PDB_model_num"
).split()


def write_mmcif(folder: Path) -> Path:
    names = ("ALA", "GLY", "SER")
    atoms, residues = [], []
    for i, name in enumerate(names, start=1):
        residues.append(f"1 {i} {name} n")
        for k, atom in enumerate(("N", "CA", "C")):
            place = f"{3.8 * i:.3f} {1.4 * k:.3f} 0.000"
            serial = 3 * i + k
            atoms.append(f"ATOM {serial} C {atom} . {name} A 1 {i} ? {place} 1.00 10.0 {i} A 1")
    lines = ["data_X", "_entry.id X", "loop_"]
    lines += [f"_entity_poly.{c}" for c in ("entity_id", "type", "pdbx_strand_id")]
    lines += ["1 'polypeptide(L)' A", "#", "loop_"]
    lines += [f"_entity_poly_seq.{c}" for c in ("entity_id", "num", "mon_id", "hetero")]
    lines += [*residues, "#", "loop_", "_struct_asym.id", "_struct_asym.entity_id", "A 1", "#"]
    lines += ["loop_", *(f"_atom_site.{c}" for c in _CIF_COLUMNS), *atoms, "#"]
    (folder / "x.cif").write_text("\n".join(lines) + "\n")
    return folder / "x.cif"


def read_pdb(path: Path) -> None:
    lines = read_lines(path)
    for name in chain_ids(lines):
        parse_chain(lines, name)


FORMATS: dict[str, tuple[Callable, Callable, int]] = {
    "dicom": (write_dicom, lambda path: read_ct_slice(path, "salt"), 40),
    "nifti": (write_nifti, lambda path: read_volume(path, "first"), 40),
    "edf": (write_short_edf, lambda path: Run(path).signal_uv, 8),
    "pdb": (write_pdb, read_pdb, 40),
    "mmcif": (write_mmcif, read_chains, 40),
}


def damaged_copies(content: bytes, number: int):
    """Cut short, emptied, and with flipped bytes in the header or anywhere."""
    rng = np.random.default_rng(SEED)
    yield b""
    yield content[: len(content) // 2]
    yield content[:100]
    for i in range(number):
        flipped = bytearray(content)
        end = min(len(content), 1000) if i % 2 else len(content)
        for at in rng.integers(0, end, 1 + i % 4):
            flipped[at] = rng.integers(256)
        yield bytes(flipped)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:mne")
@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_is_read_or_is_one_typed_error(tmp_path, name):
    write, read, number = FORMATS[name]
    path = write(tmp_path)
    read(path)  # undamaged it is read
    refused = 0
    for content in damaged_copies(path.read_bytes(), number):
        path.write_bytes(content)
        try:
            read(path)
        except (UnreadableRecord, UserError) as error:  # any other error fails the test
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 3


# ------------------------------------------------------------------------------------- HDF5


def write_h5(path: Path) -> Path:
    rng = np.random.default_rng(SEED)
    with h5py.File(path, "w") as file:
        file.create_dataset("raw/X/data", data=rng.random(4000), compression="gzip", chunks=(500,))
        file.create_dataset("raw/var/_index", data=np.array(["gene"] * 50, "S8"))
        file["obs/label"] = np.arange(50)
        file["one"] = 1.5
        file["nothing"] = h5py.Empty("f4")
        file.attrs["note"] = "text"
    return path


def test_a_whole_file_passes_and_damage_is_named(tmp_path):
    path = write_h5(tmp_path / "x.h5ad")
    check_hdf5(path)
    content = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["raw/X/data"].id.get_chunk_info(3)
    in_a_chunk = bytearray(content)
    in_a_chunk[chunk.byte_offset + 40] ^= 0xFF
    for damaged in (content[: len(content) // 2], b"no HDF5", bytes(in_a_chunk)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is truncated or damaged") as caught:
            check_hdf5(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("while True: pass", "reading it did not end in 2 s"),
        ("import os; os.abort()", "the HDF5 library crashes on it"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the HDF5 library crashes"),
    ],
)
def test_a_reader_that_hangs_or_crashes_is_ended(tmp_path, monkeypatch, probe, reason):
    script = tmp_path / "probe.py"
    script.write_text(probe)
    monkeypatch.setattr(hdf5_guard, "_PROBE", script)
    path = write_h5(tmp_path / "x.h5ad")
    began = time.monotonic()
    with pytest.raises(UserError, match=f"x.h5ad is truncated or damaged: {reason}"):
        check_hdf5(path, least_s=2.0)
    assert time.monotonic() - began < 20


# -------------------------------------------------------------------------------------- XML

_EXPLODE = """
import resource, sys, time
from pathlib import Path
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.core.xml_safe import read_xml

before = resource.getrusage(resource.RUSAGE_SELF)
try:
    read_xml(Path(sys.argv[1]))
except UnreadableRecord as error:
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime, error)
"""


@pytest.mark.parametrize("kind", ["quadratic", "nested", "external"])
def test_xml_made_to_explode_is_refused_in_a_second_and_50_mib(tmp_path, kind):
    entities = {
        "quadratic": f'<!ENTITY a "{"x" * 100_000}">',
        "nested": '<!ENTITY l0 "ha">'
        + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30)),
        "external": '<!ENTITY a SYSTEM "file:///dev/zero">',
    }[kind]
    body = "&a;" * 100_000 if kind == "quadratic" else "&l29;" if kind == "nested" else "&a;"
    path = tmp_path / "article.xml"
    path.write_text(f"<!DOCTYPE article [{entities}]><article>{body}</article>")
    done = subprocess.run(
        [sys.executable, "-c", _EXPLODE, str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    grown_kib, seconds, reason = done.stdout.split(maxsplit=2)
    assert int(grown_kib) < 50 * 1024 and float(seconds) < 1
    assert "declares an entity" in reason
