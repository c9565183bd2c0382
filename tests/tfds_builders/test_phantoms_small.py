"""Phantoms of small records: at most 1 kB, with the forward model of the larger study."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of, read
from tfds_builders.core.shards import Output
from tfds_builders.phantoms import eeg, genomics, studies
from tfds_builders.phantoms.ceilings import ceilings, expression_of_windows
from tfds_builders.phantoms.patient import CHANNELS, make_patients
from tfds_builders.phantoms.phantoms_dataset_builder import MAX_PATIENTS, Builder, PhantomsConfig
from tfds_builders.phantoms.small_studies import BRIEF_STEP

MOST_BYTES = 1000
STUDY_OF = {"eeg": "brief", "dna": "window"}


def build(data_dir, config):
    builder = Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare()
    return tfds.builder_from_directory(builder.data_dir)


@pytest.mark.parametrize("kind", STUDY_OF)
def test_no_record_is_larger_than_a_kilobyte(tmp_path, kind):
    builder = Builder(data_dir=tmp_path, config=f"{kind}_100")
    encode = Output(builder.info.features, {}, None, None).encoder()  # type: ignore[arg-type]
    # Ids of the last patients are as long as those of the first.
    last = np.arange(MAX_PATIENTS - 400, MAX_PATIENTS)
    sizes = []
    for source in studies.stream(0, last, (STUDY_OF[kind],)):
        record = {"sample_id": source.sample_id, "group_id": source.group_id, "unit": "study"}
        sizes.append(len(encode(source.sample_id, {**record, **source.load()})))
    assert len(sizes) == 400 and 300 < max(sizes) <= MOST_BYTES


def test_a_brief_trial_is_a_cut_of_the_patients_trial(tmp_path):
    block = make_patients(0, np.arange(120))
    trials = eeg.render(block)
    rows = list(read(build(tmp_path, "eeg_120")))
    assert len(rows) == 120
    for _, row in rows:
        index = int(row["group_id"][1:])
        np.testing.assert_array_equal(row["eeg"]["signal_uv"], trials[index, :32:BRIEF_STEP])
        assert row["eeg"]["rate_hz"] == eeg.RATE_HZ / BRIEF_STEP
        assert row["targets"]["motor"] == block.labels["motor"][index]


def test_a_window_is_that_of_the_patients_gene_without_a_cell(tmp_path):
    block = make_patients(0, np.arange(120))
    windows = genomics.render(block)
    built = build(tmp_path, "dna_120")
    for _, row in read(built):
        assert row["genomics"]["sequence"].decode() == windows[int(row["group_id"][1:])]
        assert np.isfinite(row["targets"]["expression"]).all() and "scrna" not in row
    metadata = metadata_of(built)
    assert metadata["modalities"] == ["genomics"] and metadata["tasks"] == ["expression"]
    assert metadata["ceilings"] == {"expression": pytest.approx(expression_of_windows())}
    assert metadata["subset_ceilings"] == {}
    assert metadata["ceiling_metrics"] == {"expression": "pearson"}


def test_the_best_prediction_from_a_window_reaches_its_ceiling():
    block = make_patients(3, np.arange(6000))
    levels = genomics.targets(block, with_cell=np.zeros(6000, np.int64))
    windows = genomics.render(block)
    found = [
        np.array([motif in re.findall("." * genomics.MOTIF_BP, window) for window in windows])
        for motif in (*genomics.LINEAGE_MOTIFS, genomics.STATE_MOTIF)
    ]
    # From the motifs that the windows show, by least squares: nothing else raises a level.
    shown = np.column_stack([*found, np.ones(6000)])
    rs = []
    for column in levels.T:
        predicted = shown @ np.linalg.lstsq(shown, column, rcond=None)[0]
        rs.append(np.corrcoef(predicted, column)[0, 1])
    # Of one column the standard error is (1 - r^2) / sqrt(6000), 0.004.
    assert np.mean(rs) == pytest.approx(expression_of_windows(), abs=0.012)
    assert abs(expression_of_windows() - ceilings()["expression"]) > 0.02


def test_the_posterior_of_a_brief_trial_finds_most_presentations():
    """Every trial is Gaussian given presentation and levels, so its posterior is exact."""
    at, number = np.arange(0, 32, BRIEF_STEP), 4000
    lag = np.abs(at[:, None] - at)
    bins = np.arange(1, eeg.NUM_SAMPLES // 2)
    waves = np.cos(2 * np.pi * bins * lag[..., None] / eeg.NUM_SAMPLES) * (2 / eeg.NUM_SAMPLES) ** 2
    background = np.kron(waves @ eeg.background_sd()[1:-1] ** 2, np.eye(len(eeg.CHANNELS)))
    mu = waves[..., eeg.mu_bins() - 1].sum(-1) * float(eeg.rhythm_sd(np.array(1.0))) ** 2
    block = make_patients(20, np.arange(number))
    trials = eeg.render(block)[:, at].reshape(number, -1).astype(np.float64)
    levels = list(itertools.product(eeg.MU_LEVELS_UV, eeg.ALPHA_LEVELS_UV))
    logs = np.zeros((number, 4, len(levels)))
    for z, (k, (mu_uv, alpha_uv)) in itertools.product(range(4), enumerate(levels)):
        gains = np.append(mu_uv * np.where(eeg.FADES[z], eeg.FADED, 1.0), alpha_uv)
        spread = (eeg.projection() * gains**2) @ eeg.projection().T
        root = np.linalg.cholesky(np.kron(mu, spread) + background)
        whitened = np.linalg.solve(root, trials.T)
        logs[:, z, k] = -0.5 * (whitened**2).sum(0) - np.log(np.diag(root)).sum()
    posterior = np.exp(logs - logs.max(axis=(1, 2), keepdims=True)).sum(axis=2)
    assert 0.93 < (posterior.argmax(1) == block.presentations["motor"]).mean() < 0.97
    labels = posterior @ CHANNELS["motor"].T
    right = (labels.argmax(1) == block.labels["motor"]).mean()
    assert 0.78 < right < ceilings()["motor"]


def test_listed_configs_are_not_changed():
    assert set(studies.SMALL) == {"brief", "window"} and not set(studies.SMALL) & set(
        studies.STUDIES
    )
    everything = Builder.builder_configs["all"]
    assert isinstance(everything, PhantomsConfig) and len(everything.studies) == 11


def test_names_and_studies_that_are_refused(tmp_path):
    for name in ("eeg_300", "dna_300"):
        with pytest.raises(UserError, match=f"'{name}' stands for"):
            Builder(data_dir=tmp_path, config=PhantomsConfig(name=name, num_patients=100))
    with pytest.raises(UserError, match="two have one task"):
        PhantomsConfig(name="x", studies=("eeg", "brief"))
    with pytest.raises(UserError, match="no study 'briefs'; accepted: .*, brief, window"):
        PhantomsConfig(name="x", studies=("briefs",))
    assert Builder.get_builder_config("eeg_") is None
