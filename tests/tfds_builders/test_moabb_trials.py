"""moabb_trials: trials of MOABB's own simulated set against its raw recordings."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tfds_builders.moabb_trials.moabb_trials_dataset_builder import Builder, MoabbConfig

ARGUMENTS = {"event_list": ["left_hand", "right_hand"], "n_sessions": 2, "n_runs": 1, "seed": 3}
ARGUMENTS |= {"n_subjects": 4, "n_events": 6, "duration": 60, "channels": ["C3", "Cz", "C4"]}


def test_trials_of_the_simulated_set(tmp_path):
    fake = pytest.importorskip("moabb.datasets.fake", reason="needs moabb, which is no dependency")
    (tmp_path / "s").mkdir()
    config = MoabbConfig(name="fake", dataset="FakeDataset", arguments=ARGUMENTS)
    built = build(Builder, tmp_path / "s", tmp_path / "d", config)
    import mne

    dataset = fake.FakeDataset(**ARGUMENTS)
    expected = {}
    for subject in dataset.subject_list:
        for session, runs in dataset.get_data([subject])[subject].items():
            for run, raw in runs.items():
                for k, (sample, _, code) in enumerate(mne.find_events(raw, verbose="ERROR"), 1):
                    rate = raw.info["sfreq"]
                    first, last = (round(s * rate) for s in dataset.interval)
                    window = raw.get_data(picks="eeg")[:, sample + first : sample + last]
                    if window.shape[1] == last - first:
                        name = f"{subject}/{session}/{run}/{k:04d}"
                        expected[name] = (code, window.T * 1e6, rate)
    classes = metadata_of(built)["class_names"]["motor"]
    assert classes == ["left_hand", "right_hand"]
    homes, found = {}, set()
    for split, record in read(built):
        name = record["sample_id"].decode()
        code, window, rate = expected[name]
        np.testing.assert_allclose(record["eeg"]["signal_uv"], window, rtol=1e-5)
        assert record["eeg"]["rate_hz"] == rate
        assert dataset.event_id[classes[record["targets"]["motor"]]] == code
        assert record["group_id"].decode() == f"subject{name.split('/')[0]}"
        assert list(record["eeg"]["channel_names"]) == [b"C3", b"Cz", b"C4"]
        homes.setdefault(record["group_id"], set()).add(split)
        found.add(name)
    assert found == set(expected) and len(homes) == 4
    assert all(len(where) == 1 for where in homes.values())
    with pytest.raises(UserError, match="has no subject 9; accepted: "):
        config = MoabbConfig(name="x", dataset="FakeDataset", arguments=ARGUMENTS, subjects=(9,))
        build(Builder, tmp_path / "s", tmp_path / "e", config)
    with pytest.raises(UserError, match="moabb.datasets has no 'Nothing'"):
        config = MoabbConfig(name="y", dataset="Nothing")
        build(Builder, tmp_path / "s", tmp_path / "e", config)


def test_without_moabb_the_build_says_so(tmp_path, monkeypatch):
    for name in ("moabb", "moabb.datasets", "moabb.datasets.fake"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="needs moabb, which is not installed: pip install moabb"):
        build(Builder, tmp_path / "s", tmp_path / "d", "zhou2016")


def test_a_config_names_a_class():
    with pytest.raises(UserError, match="has dataset 'os.system'"):
        MoabbConfig(name="x", dataset="os.system")
