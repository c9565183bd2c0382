"""The audit between built datasets: injected leaks are listed, versions of a source are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.core.toy_source import ToySource
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.__main__ import main
from tfds_builders.core import fingerprints, overlap, similar_chains
from tfds_builders.core.features import ct_features, protein_features
from tfds_builders.core.fingerprints import PrintLog, prints_of
from tfds_builders.core.images import read_image
from tfds_builders.core.overlap import Built, find_links, report
from tfds_builders.core.records import SourceRecord
from tfds_builders.core.sequence_clusters import LETTERS
from tfds_builders.core.similar_chains import similar_pairs


def folder_of(tmp_path: Path, name: str, seeds, splits=("train", "validation", "test")) -> Path:
    for i, seed in enumerate(seeds):
        file = f"{splits[i % len(splits)]}-{name}p{i}-{i}.jpg"
        write(tmp_path / name / file, jpeg(smooth_image(seed)))
    return tmp_path / name


def build(tmp_path: Path, name: str, base=ToySource, aliases=()) -> None:
    made = type(
        name,
        (base,),
        {"name": name, "mode": "official", "ALIASES": aliases},
        skip_registration=True,
    )
    builder = made(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / name))
    builder.download_and_prepare(download_config=config)


def audit(tmp_path: Path, capsys, *names: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["audit", "--data_dir", str(tmp_path / "data"), *names])
    said = capsys.readouterr()
    return code, said.out + said.err


def leaks(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("leak: ")]


def test_sources_that_share_nothing(tmp_path, capsys):
    for name, seeds in (("left", range(6)), ("right", range(100, 106))):
        folder_of(tmp_path, name, seeds)
        build(tmp_path, name)
    code, text = audit(tmp_path, capsys)
    assert code == 0 and "no leak was found" in text
    assert text.splitlines()[1].split() == ["left", "6", "6"]


def test_a_byte_copy_and_a_re_encoded_copy_in_another_source(tmp_path, capsys):
    left = folder_of(tmp_path, "left", range(6))
    right = folder_of(tmp_path, "right", range(100, 106))
    write(right / "test-a-900.jpg", (left / "train-leftp0-0.jpg").read_bytes())
    write(right / "train-b-901.jpg", jpeg(smooth_image(2), quality=40))  # left has it in test
    write(right / "train-c-902.jpg", jpeg(smooth_image(3)))  # left has it in train: no leak
    for name in ("left", "right"):
        build(tmp_path, name)
    code, text = audit(tmp_path, capsys)
    assert code == 1
    assert leaks(text) == [
        "leak: left train train-leftp0-0.jpg = right test test-a-900.jpg (same content)",
        "leak: left test test-leftp2-2.jpg = right train train-b-901.jpg (looks the same)",
    ]
    assert "left ~ right: 1 in one split, 0 declared, 2 across splits" in text
    # Named alone a dataset has nothing to be compared with.
    assert audit(tmp_path, capsys, "left")[0] == 0


def test_versions_are_no_leak_and_aliases_none_within_a_split(tmp_path, capsys):
    left = folder_of(tmp_path, "left", range(6))
    shutil.copytree(left, tmp_path / "right")
    moved = tmp_path / "right" / "train-leftp0-0.jpg"
    moved.rename(moved.with_name("test-leftp0-0.jpg"))
    build(tmp_path, "left")
    build(tmp_path, "right", aliases=("left",))
    code, text = audit(tmp_path, capsys)
    assert code == 1 and "left ~ right: 0 in one split, 5 declared, 1 across splits" in text
    assert len(leaks(text)) == 1 and "train train-leftp0-0.jpg = right test" in leaks(text)[0]
    # Two configs of one source need no declaration; the same folder under another name does.
    data = tmp_path / "data"
    (data / "left" / "a").mkdir()
    shutil.move(data / "left" / "1.0.0", data / "left" / "a" / "1.0.0")
    shutil.copytree(data / "right" / "1.0.0", data / "left" / "b" / "1.0.0")
    shutil.rmtree(data / "right")
    code, text = audit(tmp_path, capsys, "left")
    assert code == 0 and "left/a ~ left/b: 0 in one split, 6 declared" in text
    shutil.move(data / "left" / "b", data / "other")
    build_info = data / "other" / "1.0.0" / "metadata.json"
    build_info.write_text(build_info.read_text().replace('"left"', '"nothing"'))
    code, text = audit(tmp_path, capsys, "left", "other")
    assert code == 1 and len(leaks(text)) == 1


class Slices(ToySource, skip_registration=True):
    """CT: `<split>-<n>.npy`, a slice or a volume."""

    def record_features(self):
        return {"ct": ct_features()}

    def read_source(self, manual_dir, quarantine):
        for path in sorted(manual_dir.glob("*.npy")):
            split, number = path.stem.split("-")
            value = {"hu": np.load(path), "spacing_mm": np.zeros(3, np.float32)}
            yield SourceRecord(
                sample_id=path.name,
                group_id=path.stem,
                record={"ct": value, "targets": {"disease": int(number) % 2}},
                stratum="",
                official_split=split,
            )


def hu(seed: int, depth: int = 1) -> np.ndarray:
    planes = [
        np.asarray(smooth_image(1000 * seed + d, (40, 40)), np.int16) * 3 - 500
        for d in range(depth)
    ]
    return np.stack(planes)


def test_a_slice_of_one_source_in_a_volume_of_another(tmp_path, capsys):
    for name in ("plain", "deep"):
        (tmp_path / name).mkdir()
        depth = {"plain": 1, "deep": 4}[name]
        for i, split in enumerate(("train", "validation", "test")):
            seed = i + 10 * depth
            np.save(tmp_path / name / f"{split}-{i}.npy", hu(seed, depth))
    volume = hu(7, 4)
    volume[1] = -1000  # a blank slice is nobody's
    np.save(tmp_path / "deep" / "train-7.npy", volume)
    np.save(tmp_path / "plain" / "test-8.npy", volume[2:3])
    np.save(tmp_path / "plain" / "test-9.npy", volume[1:2])
    noisy = hu(40, 4)[3:4] + np.random.default_rng(0).integers(-4, 5, (1, 40, 40)).astype(np.int16)
    np.save(tmp_path / "plain" / "train-6.npy", noisy)
    for name in ("plain", "deep"):
        build(tmp_path, name, Slices)
    code, text = audit(tmp_path, capsys)
    assert code == 1
    assert leaks(text) == ["leak: deep train train-7.npy = plain test test-8.npy (same content)"]
    assert "deep ~ plain: 1 in one split, 0 declared, 1 across" in text  # the noisy one, in train


class Chains(ToySource, skip_registration=True):
    """Proteins: lines `<split> <name> <residues>` of chains.txt."""

    def record_features(self):
        return {"protein": protein_features()}

    def read_source(self, manual_dir, quarantine):
        for line in (manual_dir / "chains.txt").read_text().splitlines():
            split, name, residues = line.split()
            record = {"protein": {"sequence": residues}, "targets": {"disease": 0}}
            yield SourceRecord(name, name, record, "", official_split=split)


def chain(seed: int, length: int = 120) -> str:
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(list(LETTERS), length))


def substituted(sequence: str, number: int, seed: int = 0) -> str:
    """The chain with so many residues replaced, all by others."""
    rng = np.random.default_rng(seed)
    letters = list(sequence)
    for at in rng.choice(len(letters), number, replace=False):
        letters[at] = LETTERS[(LETTERS.index(letters[at]) + rng.integers(1, 20)) % 20]
    return "".join(letters)


def write_chains(folder: Path, chains) -> None:
    folder.mkdir()
    (folder / "chains.txt").write_text("\n".join(" ".join(row) for row in chains))


def test_proteins_of_ninety_per_cent_identity(tmp_path, capsys):
    splits = ("train", "validation", "test")
    write_chains(tmp_path / "one", [(s, f"one{i}", chain(i)) for i, s in enumerate(splits)])
    two = [(s, f"two{i}", chain(50 + i)) for i, s in enumerate(splits)]
    two += [
        ("test", "ninety", substituted(chain(0), 12)),
        ("test", "eighty", substituted(chain(0), 24)),
    ]
    two += [("train", "copy", chain(2))]
    write_chains(tmp_path / "two", two)
    for name in ("one", "two"):
        build(tmp_path, name, Chains)
    code, text = audit(tmp_path, capsys)
    assert code == 1
    assert leaks(text) == [
        "leak: one test one2 = two train copy (same content)",
        "leak: one train one0 = two test ninety (90% identical)",
    ]


def check_similar_pairs() -> None:
    founders = [chain(i, 150) for i in range(6)]
    sequences = founders + [substituted(f, 5 * i, i) for i, f in enumerate(founders)]
    expected = [(i, i + 6, 1 - 5 * i / 150) for i in range(6) if 5 * i <= 15]
    found = similar_pairs(sequences, 0.9)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([p[2] for p in found], [p[2] for p in expected])


def test_similar_pairs():
    check_similar_pairs()
    assert similar_pairs([], 0.9) == similar_pairs([chain(0)], 0.9) == []


@pytest.mark.slow  # its tables take a minute whatever the number of chains
@pytest.mark.skipif(shutil.which("mmseqs") is None, reason="MMseqs2 is not installed")
def test_similar_pairs_proposed_by_mmseqs(monkeypatch):
    monkeypatch.setattr(similar_chains, "MMSEQS_FROM", 0)
    monkeypatch.delattr(similar_chains, "candidate_pairs")
    check_similar_pairs()


def test_a_failing_mmseqs_is_named(tmp_path, monkeypatch):
    program = tmp_path / "mmseqs"
    program.write_text("#!/bin/sh\necho no memory left >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(similar_chains, "MMSEQS_FROM", 2)
    with pytest.raises(UserError, match="mmseqs ended with code 3: no memory left"):
        similar_pairs([chain(0), chain(1)], 0.9)
    assert similar_pairs([chain(0)], 0.9) == []


def test_a_dataset_without_fingerprints_is_read(tmp_path, capsys):
    left = folder_of(tmp_path, "left", range(6))
    write(tmp_path / "right" / "train-a-0.jpg", jpeg(smooth_image(50)))
    write(tmp_path / "right" / "validation-b-1.jpg", jpeg(smooth_image(51)))
    write(tmp_path / "right" / "test-c-2.jpg", (left / "train-leftp0-0.jpg").read_bytes())
    for name in ("left", "right"):
        build(tmp_path, name)
    with_file = audit(tmp_path, capsys)
    for path in (tmp_path / "data").rglob(fingerprints.FILE_NAME):
        path.unlink()
    assert audit(tmp_path, capsys) == with_file and with_file[0] == 1
    # A damaged file is named.
    path = tmp_path / "data" / "left" / "1.0.0" / fingerprints.FILE_NAME
    path.write_bytes(b"PK damaged")
    code, text = audit(tmp_path, capsys)
    assert code == 1 and str(path) in text and "build the dataset again" in text


def test_mistakes_are_one_sentence(tmp_path, capsys):
    assert main(["audit", "--data_dir", str(tmp_path)]) == 1
    assert "there is no built dataset in" in capsys.readouterr().err
    assert main(["audit"]) == 1
    assert "--data_dir; --help lists" in capsys.readouterr().err
    folder_of(tmp_path, "left", range(6))
    build(tmp_path, "left")
    code, text = audit(tmp_path, capsys, "lefd")
    assert code == 1 and "no built dataset 'lefd'" in text and "accepted: left" in text


# ---------------------------------------------------------------------------- of one record


def digests(record) -> list[tuple[str, bytes]]:
    return [(p.kind, p.digest) for p in prints_of(record)]


def test_what_makes_no_print():
    silent = {"signal_uv": np.ones((50, 3), np.float32)}
    absent = {
        "xray": {"encoded": b""},
        "pathology": {"tiles": []},
        "ct": {"hu": np.zeros((0, 0, 0), np.int16)},
        "mri": {"voxels": np.full((2, 4, 4), 5, np.float32), "sequence": "T1"},
        "eeg": silent,
        "scrna": {"gene_keys": np.zeros(0, np.int32), "values": np.zeros(0, np.float32)},
        "genomics": {"sequence": "N" * 200, "site": -1},
        "protein": {"sequence": ""},
        "text": {"text": "what does this film show"},
        "xray2": {"encoded": b"\xff\xd8 broken"},
    }
    assert digests(absent) == []


def test_contents_that_are_the_same():
    keys, values = np.array([3, 1, 2], np.int32), np.array([0.5, 1, 2], np.float32)
    order = [1, 2, 0]
    twins = [
        (
            {"genomics": {"sequence": "AACCGGTTACGTACGTACGTAA", "site": 3}},
            {"genomics": {"sequence": b"ttacgtacgtacgtaaccggtt", "site": -1}},
        ),
        (
            {"scrna": {"gene_keys": keys, "values": values}},
            {"scrna": {"gene_keys": keys[order], "values": values[order].astype(np.float64)}},
        ),
        ({"text": {"text": "One  word " * 20}}, {"text": {"text": b"one word\n" * 20}}),
        ({"ct": {"hu": hu(1)}}, {"ct": {"hu": hu(1).astype(np.int32)}}),
    ]
    for first, second in twins:
        assert digests(first) == digests(second) and len(digests(first)) == 1
    base = {"scrna": {"gene_keys": keys, "values": values}}
    assert digests(base) != digests({"scrna": {"gene_keys": keys, "values": values[order]}})


def test_fingerprints_are_stored_as_they_are(tmp_path):
    log = PrintLog()
    write(tmp_path / "a.jpg", jpeg(smooth_image(1)))
    image = read_image(tmp_path / "a.jpg")
    for i, record in enumerate(
        ({"xray": image.value()}, {"protein": {"sequence": chain(1)}}, {"text": {"text": "short"}})
    ):
        log.add("train", {"sample_id": f"s{i}", "group_id": "\u00e4", **record})
    kept = log.fingerprints()
    fingerprints.save(kept, tmp_path)
    found = fingerprints.load(tmp_path)
    assert found is not None
    assert found.records == kept.records == tuple((f"s{i}", "\u00e4", "train") for i in range(3))
    assert found.chains == {1: chain(1)}
    for name in ("row", "kind", "digest", "looks", "perceptual", "thumbnails"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))
    assert int(found.perceptual[0]) == image.audit.perceptual
    assert found.thumbnails[0].tobytes() == image.audit.thumbnail


def test_bright_discs_that_differ_in_detail_are_no_copies(monkeypatch):
    """As photographs of two retinas: one outline, one brightness, other vessels."""
    y, x = np.mgrid[:256, :256] - 127.5
    inside = np.hypot(x, y) < 120
    shade = np.asarray(smooth_image(999, (256, 256)), np.float64) * inside

    def photograph(seed: int) -> bytes:
        fine = np.random.default_rng(seed).normal(0, 8, (32, 32)).repeat(8, 0).repeat(8, 1)
        pixels = np.clip(shade + fine * inside, 0, 255)
        return jpeg(Image.fromarray(pixels.astype(np.uint8)))

    def one(name: str, split: str, seeds) -> Built:
        log = PrintLog()
        for seed in seeds:
            value = {"encoded": photograph(seed)}
            log.add(split, {"sample_id": str(seed), "group_id": "", "oct": value})
        return Built(name, log.fingerprints())

    built = [one("a", "train", range(8)), one("b", "test", range(8, 16))]
    assert report(built, list(find_links(built)))[1] == 0
    with monkeypatch.context() as patch:
        patch.setattr(overlap, "MIN_DETAIL", -1.0)
        assert report(built, list(find_links(built)))[1] > 10  # it is the detail that tells them
    built = [one("a", "train", range(8)), one("b", "test", range(7, 16))]
    assert report(built, list(find_links(built)))[1] == 1
