"""croissant.json, the dataset card, and sources whose terms must be accepted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import read
from tests.tfds_builders.core.toy_source import ToySource
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.__main__ import load_builder, main, source_names
from tfds_builders.core.build_options import BuildOptions
from tfds_builders.core.card import check_datasheet


class Licensed(ToySource, skip_registration=True):
    CARD = dataclasses.replace(
        ToySource.CARD,
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        licence_forbids="Sharing the data, and any attempt to find out who a person is.",
        restricted=True,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for i in range(12):
        write(folder / f"train-p{i:02d}-{i}.jpg", jpeg(smooth_image(i)))
    return folder


def build(builder_cls, source: Path, data_dir: Path, **options):
    builder = builder_cls(data_dir=data_dir, options=BuildOptions(**options))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(source))
    )
    return tfds.builder_from_directory(builder.data_dir)


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    return build(Licensed, source, data_dir, accepted_licences=frozenset({"toy_source"}))


def document(built, name: str) -> dict:
    return json.loads((Path(built.data_dir) / name).read_text(encoding="utf-8"))


def test_croissant_says_what_was_built(built):
    found = document(built, "croissant.json")
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert found["license"] == Licensed.CARD.licence
    assert found["usageInfo"] == Licensed.CARD.licence_forbids
    for split, records in built.info.splits.items():
        assert f"{split}: {records.num_examples} x image of" in found["description"]
    files = [part for part in found["distribution"] if part["@type"] == "cr:FileObject"]
    assert len(files) == 3
    for file in files:
        content = (Path(built.data_dir) / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"
    fields = {field["@id"]: field for field in found["recordSet"][0]["field"]}
    assert {"records/sample_id", "records/xray/encoded", "records/targets/disease"} < set(fields)
    assert fields["records/targets/disease"]["dataType"] == "sc:Integer"
    assert fields["records/xray/spacing_mm"]["dataType"] == "sc:Float"
    assert not [key for key in found if key.startswith("mm:")]


def test_no_path_or_host_of_this_machine(built):
    for name in ("croissant.json", "dataset_card.json", "metadata.json"):
        text = (Path(built.data_dir) / name).read_text()
        assert str(Path(built.data_dir).parent) not in text
        assert "/tmp" not in text and str(Path.home()) not in text


def test_the_card_counts_units_groups_and_terms(built):
    card = document(built, "dataset_card.json")
    records = list(read(built))
    groups: dict[str, set[bytes]] = {}
    for split, record in records:
        groups.setdefault(split, set()).add(record["group_id"])
    assert card["mm:groups"] == {split: len(found) for split, found in groups.items()}
    assert sum(count["image"] for count in card["mm:counts"].values()) == len(records) == 12
    assert card["mm:licenceForbids"] == Licensed.CARD.licence_forbids
    assert card["mm:licenceRestricts"] is True
    assert set(card["mm:datasheet"]) == {f.name for f in dataclasses.fields(Licensed.DATASHEET)}
    licence = (Path(built.data_dir) / "LICENSE").read_text()
    assert Licensed.CARD.licence in licence


@pytest.mark.slow  # the validator takes some ten seconds to start
@pytest.mark.skipif(shutil.which("mlcroissant") is None, reason="mlcroissant is not installed")
@pytest.mark.parametrize("name", ["croissant.json", "dataset_card.json"])
def test_the_validator_of_croissant_accepts_it_and_not_anything(built, tmp_path, name):
    def validate(found: dict) -> subprocess.CompletedProcess[str]:
        path = tmp_path / name
        path.write_text(json.dumps(found))
        command = ["mlcroissant", "validate", "--jsonld", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = document(built, name)
    done = validate(found)
    assert done.returncode == 0, done.stderr
    assert "Found the following" not in done.stderr, done.stderr
    found["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"] = "nothing"
    done = validate(found)
    assert done.returncode != 0 and "nothing" in done.stderr


def refusal(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def test_restricted_terms_must_be_accepted(source, tmp_path):
    for accepted in (frozenset(), frozenset({"another_source"})):
        said = refusal(lambda a=accepted: build(Licensed, source, tmp_path, accepted_licences=a))
        assert "PhysioNet Credentialed Health Data License 1.5.0" in said
        assert "Sharing the data" in said and "--accept_licence toy_source" in said
    assert not list(tmp_path.rglob("*.array_record*"))
    # It is asked before the folder is looked for, and of no other source.
    with pytest.raises(UserError, match="terms restrict its use"):
        Licensed(data_dir=tmp_path).download_and_prepare()
    assert build(ToySource, source, tmp_path).info.splits["train"].num_examples > 0


def test_the_flag_of_the_command(tmp_path, monkeypatch, capsys):
    builder = load_builder("brain_tumor_mri")
    monkeypatch.setattr(builder, "CARD", dataclasses.replace(builder.CARD, restricted=True))
    argv = ["build", "brain_tumor_mri", f"--data_dir={tmp_path}", "--manual_dir=/no/where"]
    assert main(argv) == 1
    assert "CC0 according to third parties" in capsys.readouterr().err
    assert main([*argv, "--accept_licence", "brain_tumor_mri"]) == 1
    assert "/no/where does not exist" in capsys.readouterr().err
    assert main([*argv, "--accept_licence", "brain_tumour_mri"]) == 1
    assert "did you mean 'brain_tumor_mri'?" in capsys.readouterr().err


def test_every_source_has_its_datasheet_and_terms():
    for name in source_names():
        builder = load_builder(name)
        check_datasheet(builder.DATASHEET)
        for field in ("title", "publisher", "licence", "licence_forbids", "how_to_obtain"):
            assert getattr(builder.CARD, field), f"{name}: {field}"
        assert builder.CARD.group_key and builder.CARD.unit, name
