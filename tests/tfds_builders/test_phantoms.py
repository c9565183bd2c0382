"""phantoms: pure functions of (seed, patient), and a build through the command line."""

from __future__ import annotations

import hashlib
import io
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
import tensorflow_datasets as tfds
from PIL import Image

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tfds_builders.core.records import record_digest
from tfds_builders.core.splits import SPLITS, hash_split
from tfds_builders.phantoms import eeg, mri, scrna, studies, text, xray
from tfds_builders.phantoms.ceilings import ceilings
from tfds_builders.phantoms.draws import Draws
from tfds_builders.phantoms.patient import CLASS_NAMES, make_patients, patient_id
from tfds_builders.phantoms.phantoms_dataset_builder import Builder, PhantomsConfig

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_TINY = 300
SUFFIX_TASK = {"mri": "tumor", "visit": "disease", "eeg": "motor", "cell": "cell_type"}


# ------------------------------------------------------------------------ random numbers


def test_draws_depend_on_the_address_only():
    block = Draws(3, np.arange(100)).uniform("a", 7)
    alone = Draws(3, np.array([42])).uniform("a", 5)
    np.testing.assert_array_equal(block[42, :5], alone[0])
    for seed, name in ((4, "a"), (3, "b")):
        assert not (block == Draws(seed, np.arange(100)).uniform(name, 7)).any()


def test_draws_are_uniform_normal_and_independent():
    draws = Draws(0, np.arange(2000))
    uniform, normal = draws.uniform("u", 40), draws.normal("n", 40)
    assert scipy.stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert abs(normal.mean()) < 4 / np.sqrt(normal.size)
    assert normal.std() == pytest.approx(1, abs=0.01)
    # The sum of eight bytes differs from a normal distribution by less than 0.01 anywhere.
    assert scipy.stats.kstest(normal.ravel(), "norm").statistic < 0.01
    columns = np.corrcoef(normal.T) - np.eye(40)
    neighbours = np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]
    assert np.abs(columns).max() < 5 / np.sqrt(2000) and abs(neighbours) < 4 / np.sqrt(normal.size)


def test_counts_follow_the_negative_binomial():
    means = np.array([0.05, 0.8, 4.0])
    probability = scrna.DISPERSION / (scrna.DISPERSION + means)
    expected = scipy.stats.nbinom.cdf(
        np.arange(scrna.MAX_COUNT), scrna.DISPERSION, probability[:, None]
    )
    np.testing.assert_allclose(scrna.count_cdf(means), expected, atol=1e-12)


# ------------------------------------------------------------------------ forward models


@pytest.mark.parametrize("module", [mri, xray, eeg, scrna, text])
def test_a_patient_alone_equals_the_patient_in_a_block(module: Any):
    block = module.render(make_patients(1, np.arange(60)))
    alone = module.render(make_patients(1, np.array([17])))
    other_seed = module.render(make_patients(2, np.array([17])))
    assert np.array_equal(block[17], alone[0])
    assert not np.array_equal(alone[0], other_seed[0])


def test_the_first_four_studies_never_change():
    block = make_patients(0, np.arange(50))
    shown = (
        mri.render(block),
        xray.render(block),
        scrna.render(block).astype(np.int64),
        np.rint(eeg.render(block) * 10).astype(np.int64),
    )
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(values).tobytes() for values in shown))
    digest.update("\n".join(text.render(block)).encode())
    # Recorded when version 1.0.0 had no other studies: published figures depend on it.
    assert digest.hexdigest() == "e390f193682e87cc9ebe478b8df35bfc117756fc89b8297113d34bf1176e6605"


def test_records_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch):
    indices = np.array([0, 3, 4, 9, 70])
    whole = [record_digest(r.load()) for r in studies.stream(0, indices)]
    monkeypatch.setattr(studies, "BLOCK", 2)
    assert [record_digest(r.load()) for r in studies.stream(0, indices)] == whole
    assert len(set(whole)) == 4 * len(indices)


def test_rhythm_has_its_root_mean_square_where_it_is_not_faded():
    block = make_patients(0, np.arange(3000))
    spectrum = np.fft.rfft(eeg.render(block).astype(np.float64), axis=1)[:, eeg.mu_bins()]
    # Parseval: both halves of the spectrum, in microvolt squared.
    power = 2 * (np.abs(spectrum) ** 2).sum(axis=1) / eeg.NUM_SAMPLES**2
    background = (eeg.background_sd()[eeg.mu_bins()] ** 2).sum() * 4 / eeg.NUM_SAMPLES**2
    motor = block.presentations["motor"]
    c3, c4, cz = (eeg.CHANNELS.index(name) for name in ("C3", "C4", "Cz"))
    left, right, both, feet = (power[motor == k].mean(axis=0) for k in range(4))
    expected = eeg.area_levels_uv(block) ** 2 @ (eeg.projection() ** 2).T + background
    np.testing.assert_allclose(power.mean(axis=0), expected.mean(axis=0), rtol=0.05)
    assert left[c4] < left[c3] / 4 and right[c3] < right[c4] / 4  # the opposite hemisphere fades
    assert both[c3] < left[c3] / 4 and both[c4] < right[c4] / 4
    assert feet[cz] < both[cz] / 4


def test_lesions_and_rhythms_leave_class_means_equal():
    block = make_patients(5, np.arange(6000))
    for values, task, noise in (
        (mri.render(block), "tumor", 45.0),
        (eeg.render(block), "motor", 20.0),
    ):
        values = values.reshape(len(values), -1).astype(np.float64)
        labels = block.presentations[task]
        means = np.stack([values[labels == k].mean(axis=0) for k in range(4)])
        # 5 standard errors of the widest pixel or sample.
        assert np.abs(means - values.mean(axis=0)).max() < 5 * noise / np.sqrt(len(values) / 4)


def test_notes_are_short_and_speak_of_nothing_but_the_cough():
    block = make_patients(0, np.arange(3000))
    notes = text.render(block)
    words = [len(note.split()) for note in notes]
    assert min(words) >= 12 and max(words) <= 25
    forbidden = [n.replace("_", " ") for n in CLASS_NAMES["disease"]] + ["shadow", "x-ray", "chest"]
    assert not [note for note, word in itertools.product(notes, forbidden) if word in note.lower()]


def test_cells_have_few_genes_of_a_panel_without_collisions():
    counts = scrna.render(make_patients(0, np.arange(2000)))
    present = (counts > 0).sum(axis=1)
    assert 35 <= present.mean() <= 50 and present.max() <= 80
    assert len(set(scrna.panel_keys().tolist())) == len(scrna.PANEL)
    assert scrna.panel_keys()[0] == gene_key("CD3D")


def test_labels_are_balanced_and_presentations_follow_the_severity_of_nothing():
    block = make_patients(0, np.arange(20_000))
    for task, names in CLASS_NAMES.items():
        share = np.bincount(block.labels[task]) / 20_000
        np.testing.assert_allclose(share, 1 / len(names), atol=0.015)
        table = np.zeros((len(names), 3))
        np.add.at(table, (block.labels[task], block.severity), 1)
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3  # pyright: ignore


# --------------------------------------------------------------------------------- builds


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny`, built through the command line."""
    folder = tmp_path_factory.mktemp("phantoms")
    command = [sys.executable, "-m", "tfds_builders", "build", "phantoms", "--config", "tiny"]
    command += ["--data_dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "phantoms" / "tiny" / "2.0.0"


def read(folder: Path) -> dict[str, list[Any]]:
    source = cast("dict[str, Any]", tfds.builder_from_directory(folder).as_data_source())
    return {split: list(source[split]) for split in SPLITS}


def test_tiny_reads_back_with_four_studies_a_patient(tiny: Path):
    splits = read(tiny)
    groups = {split: {r["group_id"].decode() for r in rows} for split, rows in splits.items()}
    assert not any(groups[a] & groups[b] for a, b in itertools.combinations(SPLITS, 2))
    assert set.union(*groups.values()) == {patient_id(i) for i in range(NUM_TINY)}
    for split, rows in splits.items():
        assert len(rows) == 4 * len(groups[split])
        assert all(hash_split(group, "phantoms") == split for group in groups[split])
        for row in rows:
            group, _, suffix = row["sample_id"].decode().rpartition("-")
            assert group == row["group_id"].decode()
            carried = {task for task, value in row["targets"].items() if value >= 0}
            assert carried == {SUFFIX_TASK[suffix]}


def test_records_are_those_of_the_forward_models(tiny: Path):
    rows = {r["sample_id"].decode(): r for part in read(tiny).values() for r in part}
    block = make_patients(0, np.arange(NUM_TINY))
    views, trials, counts = xray.render(block), eeg.render(block), scrna.render(block)
    for index in (0, 123, 299):
        group = patient_id(index)
        visit, trial, cell = (rows[f"{group}-{suffix}"] for suffix in ("visit", "eeg", "cell"))
        pixels = np.asarray(Image.open(io.BytesIO(visit["xray"]["encoded"])))
        np.testing.assert_array_equal(pixels, views[index])
        assert (visit["xray"]["height"], visit["xray"]["width"]) == pixels.shape
        assert visit["text"]["text"].decode() == text.render(block)[index]
        np.testing.assert_array_equal(trial["eeg"]["signal_uv"], trials[index])
        assert [name.decode() for name in trial["eeg"]["channel_names"]] == list(eeg.CHANNELS)
        present = np.flatnonzero(counts[index])
        expected = {gene_key(scrna.PANEL[g]): counts[index, g] for g in present}
        found = zip(cell["scrna"]["gene_keys"], cell["scrna"]["values"], strict=True)
        assert {int(key): int(value) for key, value in found} == expected
        assert cell["scrna"]["unit"] == b"counts"
        assert int(visit["targets"]["disease"]) == block.labels["disease"][index]
        assert cell["cell_type"].decode() == CLASS_NAMES["cell_type"][cell["targets"]["cell_type"]]
        assert float(cell["age_years"]) == block.age_years[index]


def test_a_study_has_the_other_modalities_empty(tiny: Path):
    for row in read(tiny)["test"]:
        suffix = row["sample_id"].decode().rpartition("-")[2]
        carried = {
            name
            for name, size in (
                ("mri", len(row["mri"]["encoded"])),
                ("xray", len(row["xray"]["encoded"])),
                ("text", len(row["text"]["text"])),
                ("eeg", len(row["eeg"]["signal_uv"])),
                ("cell", len(row["scrna"]["gene_keys"])),
            )
            if size
        }
        assert carried == ({"xray", "text"} if suffix == "visit" else {suffix})
        assert row["eeg"]["signal_uv"].shape[1] == len(eeg.CHANNELS)


def test_metadata_tells_ceilings_counts_and_groups(tiny: Path):
    metadata = metadata_of(tfds.builder_from_directory(tiny))
    assert metadata["ceilings"] == pytest.approx({t: ceilings()[t] for t in SUFFIX_TASK.values()})
    assert set(metadata["subset_ceilings"]) == {"disease"}
    assert metadata["subset_ceilings"]["disease"]["xray"] == pytest.approx(0.47)
    names = {task: list(CLASS_NAMES[task]) for task in SUFFIX_TASK.values()}
    assert metadata["class_names"] == names
    assert metadata["tasks"] == list(SUFFIX_TASK.values())
    assert metadata["modalities"] == ["mri", "xray", "text", "eeg", "scrna"]
    assert sum(metadata["num_groups"].values()) == metadata["num_patients"] == NUM_TINY
    for task in SUFFIX_TASK.values():
        assert sum(sum(metadata["class_counts"][s][task]) for s in SPLITS) == NUM_TINY
    assert metadata["split_mode"] == "group" and metadata["simulated"] is True
    assert (tiny / "dataset_card.json").is_file()


def test_same_seed_same_content(tiny: Path, tmp_path: Path):
    again = Builder(data_dir=tmp_path, config="tiny")
    again.download_and_prepare()
    first, second = metadata_of(tfds.builder_from_directory(tiny)), metadata_of(again)
    assert first["content_hash"] == second["content_hash"]
    # Same records at the same rows (shards differ in bytes: protobuf maps have no fixed order).
    rows, rows_again = read(tiny), read(Path(again.data_dir))
    for split in SPLITS:
        digests = [[record_digest(r) for r in part[split]] for part in (rows, rows_again)]
        assert digests[0] == digests[1]


def test_any_number_of_patients_by_name_and_another_seed(tmp_path: Path):
    seed_7 = PhantomsConfig(name="seed_7", num_patients=120, seed=7)
    builders = [Builder(data_dir=tmp_path, config=c) for c in ("patients_120", seed_7)]
    for builder in builders:
        builder.download_and_prepare()
        assert sum(split.num_examples for split in builder.info.splits.values()) == 480
    first, second = (metadata_of(builder) for builder in builders)
    assert first["num_patients"] == second["num_patients"] == 120
    assert second["num_groups"] == first["num_groups"]  # ids alone decide the split
    assert second["content_hash"] != first["content_hash"]


@pytest.mark.parametrize(
    "fields",
    [
        {"num_patients": 5},
        {"num_patients": 10**9},
        {"seed": -1},
        {"studies": ("mri", "mri")},
        {"studies": ()},
    ],
)
def test_a_config_out_of_range_is_named(fields: dict[str, Any]):
    with pytest.raises(UserError, match=str(next(iter(fields.values())))):
        PhantomsConfig(name="x", **fields)


def test_a_config_named_by_number_cannot_hide_other_fields(tmp_path: Path):
    with pytest.raises(UserError, match="patients_300"):
        Builder(data_dir=tmp_path, config=PhantomsConfig(name="patients_300", num_patients=100))


def test_quickstart_has_two_thousand_test_patients():
    config = Builder.builder_configs["quickstart"]
    assert isinstance(config, PhantomsConfig)
    assert Builder.BUILDER_CONFIGS[0] is config  # the default
    splits = [hash_split(patient_id(i), "phantoms") for i in range(config.num_patients)]
    assert splits.count("test") >= 2000
