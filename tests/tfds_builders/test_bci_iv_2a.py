"""bci_iv_2a: trials of GDF 1.25 files written here, labels of both sessions, damaged files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tfds_builders.bci_iv_2a import bci_iv_2a_dataset_builder
from tfds_builders.bci_iv_2a.bci_iv_2a_dataset_builder import Builder

pytest.importorskip("mne", reason="reads GDF (extra `formats`)")

RATE, NUM_TRIALS, GAP_S = 250, 8, 6
GAIN_UV = 0.05
# As the published files name them: five electrodes, and the rest without a name.
NAMES = ["EEG-Fz", *["EEG"] * 6, "EEG-C3", "EEG", "EEG-Cz", "EEG", "EEG-C4", *["EEG"] * 7]
NAMES += ["EEG-Pz", "EEG", "EEG", "EOG-left", "EOG-central", "EOG-right"]
CUES = (769, 770, 771, 772)


def write_gdf(
    path: Path, digital: np.ndarray, events: list[tuple[int, int]], names: list[str] | None = None
) -> None:
    """A GDF 1.25 file of int16 samples [T, C] and events (sample from 0, code).

    physical = GAIN_UV * digital. Source: Schlogl, "GDF - A general dataformat for biosignals".
    """
    names = names or NAMES
    num_records, channels = len(digital) // RATE, len(names)
    header = 256 * (channels + 1)
    head = b"GDF 1.25" + b"X X X X".ljust(80) + b"made here".ljust(80) + b"2005010112000000"
    head += struct.pack("<q", header) + bytes(24) + bytes(20)
    head += struct.pack("<qIII", num_records, 1, 1, channels)
    assert len(head) == 256
    head += b"".join(name.encode().ljust(16) for name in names)
    head += b" " * 80 * channels + b"uV".ljust(8) * channels
    low, high = -20000, 20000
    head += (
        struct.pack("<d", low * GAIN_UV) * channels + struct.pack("<d", high * GAIN_UV) * channels
    )
    head += struct.pack("<q", low) * channels + struct.pack("<q", high) * channels
    head += b" " * 80 * channels
    head += struct.pack("<i", RATE) * channels + struct.pack("<i", 3) * channels  # 3: int16
    head += b" " * 32 * channels
    assert len(head) == header
    body = b"".join(
        np.ascontiguousarray(digital[r * RATE : (r + 1) * RATE].T).astype("<i2").tobytes()
        for r in range(num_records)
    )
    table = bytes([1]) + RATE.to_bytes(3, "little") + struct.pack("<I", len(events))
    table += b"".join(struct.pack("<I", place + 1) for place, _ in events)
    table += b"".join(struct.pack("<H", code) for _, code in events)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + body + table)


def digital_of(subject: int, session: str) -> np.ndarray:
    rng = np.random.default_rng(10 * subject + (session == "E"))
    return rng.integers(-5000, 5000, ((NUM_TRIALS * GAP_S + 8) * RATE, len(NAMES)))


def label(subject: int, number: int) -> int:
    return (subject + number) % 4


def write_session(folder: Path, subject: int, session: str) -> None:
    """Trial `number` starts at 2 + 6 (number - 1) s; the third is marked as an artefact."""
    events = [(0, 32766)]
    for number in range(1, NUM_TRIALS + 1):
        start = (2 + GAP_S * (number - 1)) * RATE
        events.append((start, 768))
        if number == 3:
            events.append((start, 1023))
        code = CUES[label(subject, number)] if session == "T" else 783
        events.append((start + 2 * RATE, code))
    write_gdf(folder / f"A0{subject}{session}.gdf", digital_of(subject, session), events)
    if session == "E":
        labels = [[label(subject, number) + 1] for number in range(1, NUM_TRIALS + 1)]
        (folder / "true_labels").mkdir(exist_ok=True)
        scipy.io.savemat(folder / f"true_labels/A0{subject}E.mat", {"classlabel": labels})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bci") / "s"
    for subject in (1, 2, 3):
        for session in "TE":
            write_session(folder, subject, session)
    return folder


@pytest.mark.parametrize("config", ["subjects", "sessions"])
def test_trials_of_both_sessions(source, tmp_path, config, monkeypatch):
    monkeypatch.setattr(bci_iv_2a_dataset_builder, "BLOCK_TRIALS", 1)  # enough to cut validation
    built = build(Builder, source, tmp_path / "d", config)
    homes, found = {}, {}
    for split, record in read(built):
        name = record["sample_id"].decode()
        subject, session, number = int(name[1:3]), name[3], int(name[5:])
        start = (2 + GAP_S * (number - 1) + 2) * RATE
        expected = digital_of(subject, session)[start : start + 1000, :22] * GAIN_UV
        eeg = record["eeg"]
        np.testing.assert_allclose(eeg["signal_uv"], expected, rtol=1e-5, atol=1e-3)
        assert eeg["rate_hz"] == RATE and record["session"].decode() == session
        assert record["targets"]["motor"] == label(subject, number)
        names = [text.decode() for text in eeg["channel_names"]]
        assert (names[0], names[7], names[9], names[11], names[19]) == (
            "Fz",
            "C3",
            "Cz",
            "C4",
            "Pz",
        )
        assert np.isfinite(eeg["electrode_xyz"]).all()
        if config == "sessions":
            assert (split == "test") == (session == "E")
        else:
            assert record["group_id"].decode() == f"A0{subject}"
        homes.setdefault(record["group_id"], set()).add(split)
        found[name] = split
    assert len(found) == 3 * 2 * (NUM_TRIALS - 1)
    assert all(len(where) == 1 for where in homes.values())
    left_out = metadata_of(built)["left_out"]
    assert left_out == {"trial that an expert marked as an artefact (1023)": 6}


def test_mistakes(source, tmp_path):
    folder = tmp_path / "s"
    for path in source.glob("*.gdf"):
        (folder / path.name).parent.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="A01E.gdf needs its labels; expected A01E.mat beside it"):
        build(Builder, folder, tmp_path / "a")
    for subject in (1, 2, 3):
        scipy.io.savemat(folder / f"A0{subject}E.mat", {"classlabel": [[1]] * NUM_TRIALS})
    scipy.io.savemat(folder / "A02E.mat", {"classlabel": [[1]] * 3})
    with pytest.raises(UserError, match="A02E.mat has 3 labels; accepted: 8 of 1 to 4"):
        build(Builder, folder, tmp_path / "b")
    scipy.io.savemat(folder / "A02E.mat", {"label": [[1]]})
    with pytest.raises(UserError, match="A02E.mat has no numbers `classlabel`"):
        build(Builder, folder, tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file A0<n>T.gdf or A0<n>E.gdf"):
        build(Builder, tmp_path / "empty", tmp_path / "d")


def test_a_damaged_or_unlike_session_is_put_aside_whole(source, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for path in source.glob("*T.gdf"):
        (folder / path.name).write_bytes(path.read_bytes())
    swapped = [*NAMES]
    swapped[7], swapped[11] = swapped[11], swapped[7]
    write_gdf(folder / "A01T.gdf", digital_of(1, "T"), [(500, 769)], swapped)
    with pytest.raises(
        UserError, match="288 of 302 records .*A01T/001: has C4 where C3 is expected"
    ):
        build(Builder, folder, tmp_path / "a")
    content = (source / "A01T.gdf").read_bytes()
    (folder / "A01T.gdf").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="A01T/001: (cannot be parsed|has no event)"):
        build(Builder, folder, tmp_path / "b")
