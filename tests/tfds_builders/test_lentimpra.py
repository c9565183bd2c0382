"""lentimpra: groups of alike elements, folds, adapters, damaged rows, the real subsets."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from Bio import SeqIO
from Bio.Seq import Seq

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tfds_builders.core.splits import SPLITS
from tfds_builders.lentimpra.elements import WORD, canonical, group_elements, words
from tfds_builders.lentimpra.lentimpra_dataset_builder import ADAPTERS, Builder


def draw(seed: int, length: int = 60) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def turned(sequence: str) -> str:
    return str(Seq(sequence).reverse_complement())


def construct(element: str) -> str:
    return ADAPTERS[0] + element + ADAPTERS[1]


def make_elements() -> list[str]:
    """40 random elements, both orientations each, and a tile that overlaps element 0."""
    elements = [draw(seed) for seed in range(40)]
    both = [form for element in elements for form in (element, turned(element))]
    return [*both, turned(elements[0])[30:] + draw(99, 30)]


def write_table(folder: Path, elements: list[str], changes: dict[int, dict[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "WTC11_valid.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["seq", "mean_value", "fold_num"], delimiter="\t")
        writer.writeheader()
        for i, element in enumerate(elements):
            row = {
                "seq": construct(element),
                "mean_value": f"{i / 8 - 3:.3f}",
                "fold_num": str(i // 2 % 10 + 1),
            }
            writer.writerow(row | (changes[i] if i in changes else {}))
    return folder


def build(config: str, manual_dir: Path, data_dir: Path) -> Any:
    builder = Builder(config=config, data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built: Any) -> dict[str, tuple[str, Any]]:
    found = {}
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            found[source[i]["sample_id"].decode()] = (split, source[i])
    return found


def test_sequences_values_and_groups(tmp_path: Path) -> None:
    elements = make_elements()
    built = build("wtc11", write_table(tmp_path / "in", elements, {}), tmp_path / "out")
    found = read(built)
    assert len(found) == 81
    for i, element in enumerate(elements):
        _, record = found[f"WTC11_valid/{i}"]
        assert record["genomics"]["sequence"].decode() == construct(element)
        assert record["genomics"]["site"] == -1 and record["gene_id"] == b""
        np.testing.assert_allclose(record["targets"]["expression"], [round(i / 8 - 3, 3)])
    groups = [found[f"WTC11_valid/{i}"][1]["group_id"] for i in range(81)]
    assert all(groups[i] == groups[i + 1] for i in range(0, 80, 2))
    assert groups[80] == groups[0] and len(set(groups)) == 40
    metadata = metadata_of(built)
    assert metadata["elements"] == {"number": 41, "largest_group": 2}
    assert metadata["value_unit"] == "log2(RNA/DNA)"
    values = [float(r["targets"]["expression"][0]) for s, r in found.values() if s == "train"]
    stats = metadata["target_stats"]["train"]["expression"]
    np.testing.assert_allclose(stats["sum"], [sum(values)], rtol=1e-5)


def test_groups_against_a_search_of_substrings() -> None:
    elements = [draw(i, 70) for i in range(12)]
    elements += [draw(50, 40) + elements[3][10:30], turned(elements[4][5:25]) + draw(51, 40)]
    other = "A" if elements[5][19] != "A" else "C"
    elements += [elements[5][:19] + other + draw(52, 40)]  # 19 bases are no word
    groups = group_elements(elements)

    def share(a: str, b: str) -> bool:
        return any(
            a[i : i + WORD] in form for form in (b, turned(b)) for i in range(len(a) - WORD + 1)
        )

    for a in elements:
        for b in elements:
            assert (groups[canonical(a)] == groups[canonical(b)]) == share(a, b)
    assert len(set(groups.values())) == 13


def test_words_do_not_depend_on_the_strand() -> None:
    sequence = draw(1, 50)
    assert sorted(words(sequence)) == sorted(words(turned(sequence)))
    assert len(words(sequence)) == 31 and len(words(sequence[:19])) == 0
    assert len(words(sequence[:25] + "N" + sequence[25:])) == 12


def test_folds_of_the_publisher(tmp_path: Path) -> None:
    elements = make_elements()[:80]
    built = build("folds", write_table(tmp_path / "in", elements, {}), tmp_path / "out")
    assert metadata_of(built)["split_mode"] == "official"
    for name, (split, _) in read(built).items():
        fold = int(name.split("/")[1]) // 2 % 10 + 1
        assert split == {9: "validation", 10: "test"}.get(fold, "train")


def test_folds_need_their_column(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "WTC11_valid.tsv").write_text(f"seq\tmean_value\n{construct('ACGT')}\t1\n")
    with pytest.raises(UserError, match="no column 'fold_num'; it has: seq, mean_value"):
        build("folds", folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seq": "ACGT" * 20}, "lacks the adapters"),
        ({"seq": construct("ACGU")}, "other letters"),
        ({"seq": construct("")}, "no element between"),
        ({"mean_value": "high"}, "no number"),
        ({"mean_value": ""}, "no number"),
        ({"mean_value": "nan"}, "not finite"),
    ],
)
def test_bad_rows_are_quarantined_alone(tmp_path: Path, change: dict, reason: str) -> None:
    folder = write_table(tmp_path / "in", make_elements(), {6: change})
    built = build("wtc11", folder, tmp_path / "out")
    quarantine = metadata_of(built)["quarantine"]
    assert quarantine["count"] == 1 and reason in quarantine["items"][0]["reason"]
    assert quarantine["items"][0]["sample_id"] == "WTC11_valid/6"
    assert len(read(built)) == 80


def test_unlabelled_elements(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = []
    for i in range(12):
        name = f"ENSG{i:011d}" if i % 2 else f"seq{i}"
        element = draw(i)
        for form in (construct(element), turned(construct(element))):
            lines += [f">{name}_F", form[:40], form[40:]]
    (folder / "example.fasta").write_text("\n".join(lines) + "\n")
    found = read(build("elements", folder, tmp_path / "out"))
    assert len(found) == 24
    for i in range(12):
        name = f"ENSG{i:011d}" if i % 2 else f"seq{i}"
        first, second = found[f"{name}_F/1"], found[f"{name}_F/2"]
        assert first[0] == second[0] and first[1]["group_id"] == second[1]["group_id"]
        assert first[1]["genomics"]["sequence"].decode() == construct(draw(i))
        assert first[1]["gene_id"].decode() == (name if i % 2 else "")
        assert np.isnan(second[1]["targets"]["expression"]).all()


@pytest.mark.parametrize(
    ("config", "name", "content", "sentence"),
    [
        ("wtc11", "other.tsv", "seq", r"no file WTC11\*\.tsv"),
        ("wtc11", "WTC11.tsv", "sequence\tmean_value\n", "no column 'seq'"),
        ("wtc11", "WTC11.tsv", "seq\tmean_value\n", "no records found"),
        ("elements", "a.txt", "", r"no file \*\.fasta"),
        ("elements", "a.fasta", "ACGT", "does not start with '>'"),
    ],
)
def test_unusable_sources(
    tmp_path: Path, config: str, name: str, content: str, sentence: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        build(config, folder, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_real_tables(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "lentimpra_wtc11_agarwal"
    found = read(build("wtc11", folder, tmp_path))
    with (folder / "WTC11_valid.tsv").open() as lines:
        rows = [re.split(r"\t", line.strip()) for line in lines][1:]
    assert len(found) == len(rows) == 4617
    elements = {min(row[0][15:-15], turned(row[0][15:-15])) for row in rows}
    assert len(elements) == 2311
    where: dict[str, set[str]] = {}
    for i, (sequence, value) in enumerate(rows):
        split, record = found[f"WTC11_valid/{i}"]
        assert record["genomics"]["sequence"].decode() == sequence
        np.testing.assert_equal(
            record["targets"]["expression"], np.array([float(value)], np.float32)
        )
        # Every 30 bases of either strand stay in one split.
        for form in (sequence[15:-15], turned(sequence[15:-15])):
            for at in range(len(form) - 29):
                where.setdefault(form[at : at + 30], set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    levels = [float(r["targets"]["expression"][0]) for _, r in found.values()]
    np.testing.assert_allclose([np.mean(levels), np.std(levels)], [-0.57, 1.11], atol=0.005)


def test_real_elements(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "lentimpra_human_elements_fasta"
    found = read(build("elements", folder, tmp_path))
    records = list(SeqIO.parse(folder / "example.fasta", "fasta"))
    assert len(found) == len(records) == 4568
    sequences = sorted(r["genomics"]["sequence"].decode() for _, r in found.values())
    assert sequences == sorted(str(record.seq) for record in records)
    genes = [r["gene_id"] for _, r in found.values() if r["gene_id"]]
    assert len(genes) == 884 and len(set(genes)) == 221
