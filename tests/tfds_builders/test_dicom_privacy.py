"""What a DICOM header says of a person: absent from all that a build writes, prints and raises."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import traceback
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tensorflow_datasets as tfds
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.core.toy_source import ToySource
from tests.tfds_builders.dicoms import make_ct, save
from tfds_builders.__main__ import load_builder, main
from tfds_builders.core.build_options import BuildOptions, build_options
from tfds_builders.core.dicom import read_ct_slice
from tfds_builders.core.dicom_header import read_header
from tfds_builders.core.features import ct_features
from tfds_builders.core.identity import HashKey, load_key
from tfds_builders.core.records import SourceRecord, UnreadableRecord, array_audit

# pydicom warns of the wrong values that are planted here while they are written.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
# Planted into the files; none may be found again, in any case or encoding.
SECRETS = (
    "Zappelphilipp",
    "MRN-778899",
    "19331224",
    "Doktor-Eisenbart",
    "Struwwelstadt",
    "geheim42",
)


def personal_ct(number: int, **changes):
    """A slice whose header tells all, in plain and private tags, sequences and the file meta."""
    rng = np.random.default_rng(number)
    data = make_ct(rng.integers(0, 2000, (8, 9)).astype(np.uint16))
    data.PatientName = f"Zappelphilipp^{number}"
    data.PatientID = f"MRN-778899-{number}"
    data.PatientBirthDate = "19331224"
    data.ReferringPhysicianName = "Doktor-Eisenbart"
    data.InstitutionName = "Struwwelstadt"
    data.PatientComments = "Zappelphilipp geheim42"
    data.RequestAttributesSequence = Sequence([Dataset()])
    data.RequestAttributesSequence[0].RequestedProcedureDescription = "Zappelphilipp"
    block = data.private_block(0x0011, "ACME geheim42", create=True)
    block.add_new(0x01, "LO", "MRN-778899")
    block.add_new(0x02, "UN", b"Zappelphilipp")
    data.file_meta.SourceApplicationEntityTitle = "geheim42"
    for name, value in changes.items():
        setattr(data, name, value)
    return data


class Folders(ToySource, skip_registration=True):
    """A lab's own folders: `<patient's name>/<n>.dcm`."""

    EXPECTED_LAYOUT = "<patient>/<n>.dcm"
    PRIVATE_IDS = ("sample_id", "group_id")
    MAX_BAD_RATE = 0.2

    def record_features(self):
        return {"ct": ct_features(), "sex": tfds.features.Text()}

    def read_source(self, manual_dir, quarantine):
        for path in sorted(manual_dir.glob("*/*.dcm")):
            name = path.relative_to(manual_dir).as_posix()
            try:
                scan = read_ct_slice(path, "toy", self.options.accept_burned_in)
            except UnreadableRecord as error:
                quarantine.add(name, str(error))
                continue
            number = int(path.stem)
            yield SourceRecord(
                sample_id=name,
                group_id=scan.patient if self.mode == "group" else path.parent.name,
                record={
                    "ct": {"hu": scan.hu, "spacing_mm": np.asarray(scan.spacing_mm, np.float32)},
                    "sex": scan.sex,
                    "targets": {"disease": number % 2},
                },
                stratum=str(number % 2),
                official_split=("train", "validation", "test")[number % 3],
                audit=array_audit(scan.hu),
            )


def make_source(folder: Path, num: int = 12) -> Path:
    for i in range(num):
        # Two of one patient, so that a broken one leaves the group.
        save(
            personal_ct(i, PatientID=f"MRN-778899-{i // 2}"),
            folder / f"Zappelphilipp-{i // 2}" / f"{i}.dcm",
        )
    return folder


def assert_clean(content: bytes, where: str) -> None:
    for secret in SECRETS:
        for variant in {secret, secret.lower(), secret.upper(), secret.replace("-", "")}:
            for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
                assert variant.encode(encoding) not in content, f"{secret} in {where}"


def scan(folder: Path) -> int:
    """Scans names and bytes of all files of a folder; their number."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert_clean(str(path.relative_to(folder)).encode(), f"the name of {path.name}")
        content = path.read_bytes()
        assert_clean(content, path.name)
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                for name in arrays.files:
                    assert_clean(arrays[name].tobytes(), f"{path.name}: {name}")
    return len(files)


@pytest.fixture
def options(tmp_path):
    chosen = BuildOptions(hash_key_file=tmp_path / "private" / "key")
    with build_options(chosen):
        yield chosen


def test_nothing_personal_is_written(tmp_path, options, capfd):
    source = make_source(tmp_path / "source")
    broken = source / "Zappelphilipp-3" / "6.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    save(personal_ct(90, Modality="Zappelphilipp"), source / "Zappelphilipp-4" / "90.dcm")
    built = build(Folders, source, tmp_path / "data")
    assert scan(tmp_path / "data") >= 8  # shards, infos, card, croissant, fingerprints
    said = capfd.readouterr()
    assert_clean((said.out + said.err).encode(), "what was printed")
    records = list(read(built))
    assert len(records) == 11
    # The scan would find something: the same bytes with the source's ids.
    with pytest.raises(AssertionError):
        assert_clean(str(source / "Zappelphilipp-1").encode(), "x")
    quarantine = metadata_of(built)["quarantine"]
    assert quarantine["count"] == 2
    assert all(re.fullmatch("[0-9a-f]{16}", item["sample_id"]) for item in quarantine["items"])
    assert {item["reason"] for item in quarantine["items"]} == {
        "has pixels that do not decode: ValueError",
        "has the modality an unknown term; accepted: 'CT'",
    }
    assert {record["sex"] for _, record in records} == {b"female"}


def test_ids_are_keyed_hashes_and_splits_do_not_depend_on_the_key(tmp_path):
    source = make_source(tmp_path / "source")
    seen, hashes = [], []
    for name in ("one", "two"):
        chosen = BuildOptions(hash_key_file=tmp_path / name / "key")
        with build_options(chosen):
            built = build(Folders, source, tmp_path / "data" / name)
        key = bytes.fromhex((tmp_path / name / "key").read_text().strip())
        places = {}
        for split, record in read(built):
            places[record["sample_id"].decode()] = split, record["group_id"].decode()
        seen.append(places)
        hashes.append(metadata_of(built)["content_hash"])
        by_hand = {
            hmac.new(
                key, f"toy_source\x1f{p.relative_to(source).as_posix()}".encode(), hashlib.sha256
            ).hexdigest()[:16]: p
            for p in source.glob("*/*.dcm")
        }
        assert set(by_hand) == set(places)
        # The group is made with the key, too, of the hash that splits follow.
        for sealed, path in by_hand.items():
            inner = read_ct_slice(path, "toy").patient
            outer = hmac.new(key, f"toy_source\x1f{inner}".encode(), hashlib.sha256).hexdigest()
            assert places[sealed][1] == outer[:16]
        # Two slices of one patient have one group.
        groups = {}
        for sealed, path in by_hand.items():
            groups.setdefault(path.parent.name, set()).add(places[sealed][1])
        assert all(len(found) == 1 for found in groups.values()) and len(groups) == 6
        seen[-1] = {by_hand[s].name: split for s, (split, _) in places.items()}, set(places)
    assert seen[0][0] == seen[1][0] and hashes[0] == hashes[1]
    assert not seen[0][1] & seen[1][1]


def message_of(call) -> str:
    """The whole traceback, as a person or a log sees it."""
    with pytest.raises((UserError, UnreadableRecord)) as caught:
        call()
    return "".join(traceback.format_exception(caught.value))


def test_no_message_names_anyone(tmp_path, options):
    source = make_source(tmp_path / "source")

    class Official(Folders, skip_registration=True):
        mode = "official"

    leak = message_of(lambda: build(Official, source, tmp_path / "data"))
    last = leak.strip().splitlines()[-1]
    assert "group(s) lie in more than one split" in last
    assert_clean(last.encode(), "a leaking group")

    class Twice(Folders, skip_registration=True):
        def read_source(self, manual_dir, quarantine):
            for record in super().read_source(manual_dir, quarantine):
                yield record
                yield record

    assert_clean(
        message_of(lambda: build(Twice, source, tmp_path / "data")).splitlines()[-1].encode(),
        "twice",
    )
    for path in list(source.glob("*/*.dcm"))[:6]:
        path.write_bytes(b"no DICOM")
    many = message_of(lambda: build(Folders, source, tmp_path / "data")).splitlines()[-1]
    assert re.search(r"first [0-9a-f]{16}: is no DICOM file", many)
    assert_clean(many.encode(), "too many")


FAULTY = [
    {"PatientID": None},
    {"Modality": "Zappelphilipp"},
    {"RescaleType": "Zappelphilipp"},
    {"PhotometricInterpretation": "ZAPPELPHILIPP"},
    {"RescaleSlope": None},
    {"BurnedInAnnotation": "YES"},
]


@pytest.mark.parametrize("changes", FAULTY)
def test_faulty_values_are_not_quoted(tmp_path, changes):
    path = save(personal_ct(1, **changes), tmp_path / "x.dcm")
    text = message_of(lambda: read_ct_slice(path, "salt"))
    assert_clean(text.replace(str(tmp_path), "").encode(), "the traceback")


def test_a_value_that_does_not_convert_is_not_quoted(tmp_path):
    path = save(personal_ct(1, RescaleSlope="1.000000000000"), tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.000000000000", b"Zappelphilipp "))
    text = message_of(lambda: read_ct_slice(path, "salt"))
    assert_clean(text.encode(), "the traceback")


def test_burned_in_annotation_is_refused_unless_accepted(tmp_path):
    for value in ("YES", "yes", "MAYBE"):
        path = save(personal_ct(1, BurnedInAnnotation=value), tmp_path / "x.dcm")
        with pytest.raises(UnreadableRecord, match="burned-in annotation.*--accept_burned_in"):
            read_ct_slice(path, "salt")
        assert read_ct_slice(path, "salt", accept_burned_in=True).hu.shape == (1, 8, 9)
    for value in ("NO", ""):
        path = save(personal_ct(1, BurnedInAnnotation=value), tmp_path / "x.dcm")
        assert read_ct_slice(path, "salt").hu.shape == (1, 8, 9)


def test_private_and_unasked_tags_are_not_even_read(tmp_path):
    path = save(personal_ct(1), tmp_path / "x.dcm")
    header, values = read_header(path, ("Rows", "PatientSex"))
    assert values == {"Rows": 8, "PatientSex": "F"}
    assert {element.keyword for element in header} <= {"Rows", "PatientSex", "SpecificCharacterSet"}
    assert_clean(repr(header).encode(), "the dataset")


# ------------------------------------------------------------------------------------ the key


def test_a_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "config" / "key"
    first = load_key(path, tmp_path / "data")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["key"]
    again = load_key(path, tmp_path / "data")
    assert first.seal("a", "x") == again.seal("a", "x") != again.seal("b", "x")
    assert first.seal("a", "x") != load_key(tmp_path / "other", tmp_path / "data").seal("a", "x")
    assert path.read_text().strip() not in repr(first)
    # RFC 4231, test case 2.
    assert HashKey(b"Jefe")._key == b"Jefe"
    digest = hmac.new(b"Jefe", b"what do ya want for nothing?", hashlib.sha256).hexdigest()
    assert digest.startswith("5bdcc146bf60754e")


def test_keys_that_are_not_accepted(tmp_path):
    data = tmp_path / "data"
    with pytest.raises(UserError, match="lies in the data folder"):
        load_key(data / "sub" / "key", data)
    assert not data.exists()
    path = tmp_path / "key"
    load_key(path, data)
    path.chmod(0o644)
    with pytest.raises(UserError, match="has the mode 644; accepted: 600"):
        load_key(path, data)
    path.chmod(0o600)
    for content in ("", "xyz", "0" * 63):
        path.write_text(content)
        with pytest.raises(UserError, match="holds no key; accepted: 64 hexadecimal digits"):
            load_key(path, data)
    with pytest.raises(UserError, match="cannot be read or made"):
        load_key(path / "below_a_file", data)


def test_the_flags_of_the_command(tmp_path, capfd):
    source = tmp_path / "source"
    rows = ["id,Age,Contrast,ContrastTag,raw_input_path,id,tiff_name,dicom_name"]
    for i in range(9):
        name = f"ID_{i:04d}_AGE_0063_CONTRAST_{i % 2}_CT.dcm"
        save(personal_ct(i, BurnedInAnnotation="YES"), source / "dicom_dir" / name)
        rows.append(f"{i},63,{bool(i % 2)},,,{i},,{name}")
    (source / "overview.csv").write_text("\n".join(rows))
    command = ["build", "siim_ct", f"--manual_dir={source}", f"--data_dir={tmp_path / 'data'}"]
    command += ["--hash_key", str(tmp_path / "key")]
    for more, code in (([], 1), (["--accept_burned_in"], 0)):
        assert main([*command, *more]) == code
        said = capfd.readouterr()
        assert_clean((said.out + said.err).encode(), "the command's output")
        assert ("9 of 9 records cannot be read" in said.err) == bool(code)
    assert scan(tmp_path / "data") >= 8
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    card = json.loads(next((tmp_path / "data").rglob("dataset_card.json")).read_text())
    assert sum(count["slice"] for count in card["mm:counts"].values()) == 9


def test_real_headers_are_not_found_again(shared_data, tmp_path, options):
    source = shared_data / "siim_tcga_ct_age_contrast"
    builder = load_builder("siim_ct")
    built = build(builder, source, tmp_path / "data")
    told = set()
    for path in sorted((source / "dicom_dir").glob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for name in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
            value = str(header[name].value) if name in header else ""
            if len(value) >= 8:
                told.add(value.encode())
    assert len(told) > 10
    for path in (tmp_path / "data").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [value for value in told if value in content], path.name
    assert len(list(read(built))) > 0
