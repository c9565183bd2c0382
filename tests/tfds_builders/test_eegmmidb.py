"""eegmmidb: trials against an EDF reader of our own, run-wise codes, splits, damaged files."""

from __future__ import annotations

import collections
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import expand
from tfds_builders.eegmmidb import edf_trials
from tfds_builders.eegmmidb.eegmmidb_dataset_builder import Builder

pytest.importorskip("mne", reason="reads EDF (extra `formats`)")

RECORD_S = 1
ANNOTATION_SAMPLES = 40  # 80 bytes of annotations in each data record
# The file's own spelling, padded with dots; "Xx9" is no electrode of any montage.
NAMES = ["Fc5.", "C3..", "Cz..", "T10.", "Xx9."] + [f"U{i:02d}." for i in range(59)]
ALL_CLASSES = ("left_fist", "right_fist", "both_fists", "both_feet")


def write_edf(
    path: Path,
    digital: np.ndarray,
    events: Sequence[tuple[float, str]],
    names: Sequence[str] = tuple(NAMES),
    gain_uv: float = 0.25,
    offset_uv: float = 3.0,
    unit: str = "uV",
    rate_hz: int = 160,
) -> None:
    """An EDF+C file with `digital` [T, C] int16 and annotations (onset, code).

    physical = gain * digital + offset, by way of the header's physical and digital ranges.
    """
    num_records = len(digital) // (rate_hz * RECORD_S)
    low, high = -1000 * gain_uv + offset_uv, 1000 * gain_uv + offset_uv
    columns = [(name, unit, low, high, -1000, 1000, rate_hz * RECORD_S) for name in names]
    columns.append((edf_trials.ANNOTATION_LABEL, "", -1, 1, -32768, 32767, ANNOTATION_SAMPLES))
    num_signals = len(columns)
    header_bytes = 256 * (num_signals + 1)
    head = f"{'0':8}{'X X X X':80}{'Startdate 12-AUG-2009 X X X':80}12.08.0916.15.00"
    head += f"{header_bytes:<8}{'EDF+C':44}{num_records:<8}{RECORD_S:<8}{num_signals:<4}"
    fields = "".join(f"{c[0]:16}" for c in columns) + " " * 80 * num_signals
    for i in (1, 2, 3, 4, 5):
        fields += "".join(f"{c[i]:<8}" for c in columns)
    fields += " " * 80 * num_signals + "".join(f"{c[6]:<8}" for c in columns)
    fields += " " * 32 * num_signals
    body = bytearray((head + fields).encode("ascii"))
    assert len(body) == header_bytes
    for k in range(num_records):
        part = digital[k * rate_hz * RECORD_S : (k + 1) * rate_hz * RECORD_S]
        body += np.ascontiguousarray(part.T).astype("<i2").tobytes()
        notes = f"+{k * RECORD_S}\x14\x14\x00"
        for onset, code in events:
            if k * RECORD_S <= onset < (k + 1) * RECORD_S:
                notes += f"+{onset:g}\x154.1\x14{code}\x14\x00"
        body += notes.encode().ljust(2 * ANNOTATION_SAMPLES, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def read_edf_uv(path: Path) -> np.ndarray:
    """[T, 64] microvolt by the EDF specification, in plain NumPy."""
    raw = path.read_bytes()
    num_signals = int(raw[252:256])
    num_records = int(raw[236:244])

    def column(before: int, width: int) -> list[str]:
        start = 256 + before * num_signals
        return [
            raw[start + i * width : start + (i + 1) * width].decode("latin-1").strip()
            for i in range(num_signals)
        ]

    low, high = (np.array(column(at, 8), float) for at in (104, 112))
    digital_low, digital_high = (np.array(column(at, 8), float) for at in (120, 128))
    samples = [int(s) for s in column(216, 8)]
    data = np.frombuffer(raw[int(raw[184:192]) :], "<i2").reshape(num_records, sum(samples))
    edges = np.cumsum([0, *samples])
    out = []
    for i, label in enumerate(column(0, 16)):
        if label == "EDF Annotations":
            continue
        digital = data[:, edges[i] : edges[i + 1]].reshape(-1).astype(float)
        gain = (high[i] - low[i]) / (digital_high[i] - digital_low[i])
        out.append((digital - digital_low[i]) * gain + low[i])
    return np.stack(out, axis=1)


def write_run(root: Path, subject: int, run: int, num_trials: int = 15, **options: Any) -> Path:
    """A run of alternating rest and cues, 2 s of rest and 5 s a cue, codes T1 T2 T2 T1 ..."""
    rng = np.random.default_rng(1000 * subject + run)
    rate_hz = options["rate_hz"] if "rate_hz" in options else 160
    seconds = 7 * num_trials + 1
    digital = rng.integers(-900, 900, (seconds * rate_hz, 64))
    events = []
    for i in range(num_trials):
        events.append((7.0 * i, "T0"))
        events.append((7.0 * i + 2.5, "T1" if i % 4 in (0, 3) else "T2"))
    path = root / f"S{subject:03d}" / f"S{subject:03d}R{run:02d}.edf"
    write_edf(path, digital, events, **options)
    return path


def build(manual_dir: Path, data_dir: Path, config: str = "imagery") -> Any:
    builder = Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    return builder


def records_of(builder: Any) -> dict[str, list[Any]]:
    return {split: list(builder.as_data_source(split)) for split in ("train", "validation", "test")}


def name_of(record: Any) -> str:
    return ALL_CLASSES[int(record["targets"]["motor"])]


@pytest.fixture(scope="module")
def one_subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("one_subject")
    for run in (3, 4, 6, 8, 10):
        write_run(root / "manual" / "files", 1, run)
    return root / "manual", build(root / "manual", root / "data")


def test_codes_mean_other_movements_in_other_runs(one_subject: tuple[Path, Any]) -> None:
    _, builder = one_subject
    found = {
        r["sample_id"].decode(): name_of(r) for part in records_of(builder).values() for r in part
    }
    assert len(found) == 60  # run 3 is executed movement, rest is left out
    # Codes are T1 T2 T2 T1 ... in every run.
    assert [found[f"S001R04T{i:02d}"] for i in (1, 2, 4)] == [
        "left_fist",
        "right_fist",
        "left_fist",
    ]
    assert [found[f"S001R08T{i:02d}"] for i in (1, 2)] == ["left_fist", "right_fist"]
    assert [found[f"S001R06T{i:02d}"] for i in (1, 2)] == ["both_fists", "both_feet"]
    assert [found[f"S001R10T{i:02d}"] for i in (1, 2)] == ["both_fists", "both_feet"]
    assert builder.info.metadata["left_out"] == {"rest period (T0)": 60}


def test_trials_equal_an_independent_reader(one_subject: tuple[Path, Any]) -> None:
    manual, builder = one_subject
    for record in (r for part in records_of(builder).values() for r in part):
        sample_id = record["sample_id"].decode()
        path = manual / "files" / "S001" / f"{sample_id[:7]}.edf"
        trial = int(sample_id[8:]) - 1
        start = round((7.0 * trial + 2.5) * 160)
        expected = read_edf_uv(path)[start : start + 640]
        eeg = record["eeg"]
        assert eeg["signal_uv"].dtype == np.float32 and eeg["signal_uv"].shape == (640, 64)
        np.testing.assert_allclose(eeg["signal_uv"], expected, rtol=1e-6, atol=1e-5)
        assert float(eeg["rate_hz"]) == 160.0
        assert [name.decode() for name in eeg["channel_names"]][:5] == [
            "Fc5", "C3", "Cz", "T10", "Xx9",
        ]  # fmt: skip


def test_electrodes_lie_where_the_head_has_them(one_subject: tuple[Path, Any]) -> None:
    _, builder = one_subject
    xyz = builder.as_data_source("train")[0]["eeg"]["electrode_xyz"]
    fc5, c3, cz, t10, unknown = xyz[:5]
    assert xyz.shape == (64, 3) and np.isnan(unknown).all() and np.isfinite(t10).all()
    np.testing.assert_allclose(np.linalg.norm(xyz[:4], axis=1), 1, atol=1e-6)
    assert cz[2] > 0.98 and abs(cz[0]) < 0.02  # the vertex
    assert c3[0] < -0.6 and c3[2] > 0.6 and abs(c3[1]) < 0.2  # left, half-way down
    assert fc5[0] < -0.8 and fc5[1] > c3[1]  # further left, in front of C3
    assert t10[0] > 0.8 and t10[2] < -0.3  # right, below the ear line
    folded = edf_trials.electrode_xyz(["FC5", "fc5", "CZ"])
    np.testing.assert_array_equal(folded, np.stack([fc5, fc5, cz]))


def test_one_subject_splits_by_block_and_every_class_is_everywhere(
    one_subject: tuple[Path, Any],
) -> None:
    _, builder = one_subject
    assert builder.info.metadata["split_mode"] == "within_group"
    where = collections.defaultdict(set)
    for split, part in records_of(builder).items():
        assert {name_of(r) for r in part} == set(ALL_CLASSES)
        for record in part:
            sample_id, group = record["sample_id"].decode(), record["group_id"].decode()
            assert group == f"{sample_id[:7]}B{(int(sample_id[8:]) + 4) // 5}"
            where[group].add(split)
    assert len(where) == 12 and all(len(splits) == 1 for splits in where.values())


def test_from_three_subjects_on_a_subject_stays_whole_and_bad_ones_are_left_out(
    tmp_path: Path,
) -> None:
    # The folder of subjects itself is accepted too.
    for subject in (1, 2, 3, 88):
        for run in (4, 6):
            write_run(tmp_path / "manual", subject, run, num_trials=4)
    builder = build(tmp_path / "manual", tmp_path / "data")
    where = collections.defaultdict(set)
    for split, part in records_of(builder).items():
        for record in part:
            where[record["group_id"].decode()].add(split)
    assert set(where) == {"S001", "S002", "S003"}
    assert sorted(next(iter(s)) for s in where.values()) == ["test", "train", "validation"]
    left_out = builder.info.metadata["left_out"]
    assert [n for reason, n in left_out.items() if "S088" in reason] == [2]


def test_executed_config_takes_the_executed_runs(
    one_subject: tuple[Path, Any], tmp_path: Path
) -> None:
    manual, _ = one_subject
    builder = build(manual, tmp_path / "data", "executed")
    ids = [r["sample_id"].decode() for part in records_of(builder).values() for r in part]
    assert len(ids) == 15 and all(i.startswith("S001R03") for i in ids)
    assert builder.info.metadata["class_names"]["motor"][0] == "left_fist"


def quarantined(manual: Path) -> list[tuple[str, str]]:
    quarantine = Quarantine()
    builder = Builder(data_dir=manual / "unused")
    for record in expand(builder.read_source(manual, quarantine), quarantine):
        try:
            record.audit_key()
        except edf_trials.UnreadableRecord as error:
            quarantine.add(record.sample_id, str(error))
    return quarantine.items


def test_a_truncated_run_loses_all_its_trials_and_fails_a_small_build(tmp_path: Path) -> None:
    for run in (4, 8, 6, 10):
        path = write_run(tmp_path / "manual" / "files", 1, run)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    items = quarantined(tmp_path / "manual")
    assert [i for i, _ in items] == [f"S001R10T{n:02d}" for n in range(1, 16)]
    assert f"has {len(whole) - 1000} bytes where its header implies {len(whole)}" in items[0][1]
    with pytest.raises(UserError, match=r"15 of 60 records .*25\.0%.*S001R10\.edf.*truncated"):
        build(tmp_path / "manual", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: raw[:100], "is no EDF file"),
        (lambda raw: raw[:2000], "truncated inside its header"),
        (lambda raw: b"", "is no EDF file"),
        (lambda raw: raw.replace(b"\n", b"\r\n"), "line ends may be converted"),
        (lambda raw: raw[:192] + b"EDF+D" + raw[197:], "no continuous EDF"),
        (lambda raw: raw[:236] + b"-1      " + raw[244:], "claims -1 data records"),
        (lambda raw: raw[:236] + b"many    " + raw[244:], "damaged header"),
        (lambda raw: raw[:252] + b"9999" + raw[256:], "claims 9999 signals"),
        (lambda raw: raw.replace(b"EDF Annotations ", b"Status          "), "has no channel"),
    ],
)
def test_damaged_headers_are_named(tmp_path: Path, damage: Any, reason: str) -> None:
    path = write_run(tmp_path, 1, 4, num_trials=2)
    path.write_bytes(damage(path.read_bytes()))
    items = quarantined(tmp_path)
    assert len(items) == 15 and reason in items[0][1] and "S001R04.edf" in items[0][1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rate_hz": 128}, "has 128 Hz, not 160"),
        ({"unit": "V"}, "is in 'V', not uV"),
        ({"gain_uv": 0.0}, "empty range"),
        ({"names": ("Fc5.", "FC5..", *NAMES[2:])}, "has 63 channels"),
    ],
)
def test_other_rates_units_and_montages_are_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    write_run(tmp_path, 1, 4, num_trials=2, **options)
    items = quarantined(tmp_path)
    assert len(items) == 15 and reason in items[0][1]


def test_windows_that_end_late_and_flat_trials_are_quarantined(tmp_path: Path) -> None:
    digital = np.random.default_rng(0).integers(-900, 900, (10 * 160, 64))
    digital[: 5 * 160] = 7
    path = tmp_path / "S001" / "S001R04.edf"
    write_edf(path, digital, [(0.0, "T0"), (0.5, "T1"), (5.5, "T2"), (6.5, "T1")])
    items = dict(quarantined(tmp_path))
    assert set(items) == {"S001R04T01", "S001R04T03"}
    assert "flat" in items["S001R04T01"]
    assert "ends at 10.5 s, the recording at 10 s" in items["S001R04T03"]


def test_without_runs_or_without_mne_the_build_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manual" / "files").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no records found.*S###R##\.edf"):
        build(tmp_path / "manual", tmp_path / "data")
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(UserError, match=r"pip install multimed-jax\[formats\]"):
        build(tmp_path / "manual", tmp_path / "data")


def test_staged_subject(shared_data: Path, tmp_path: Path) -> None:
    manual = shared_data / "physionet_eegmmidb_S001"
    if not manual.is_dir():
        pytest.skip(f"{manual.name} is not among the small real sources")
    builder = build(manual, tmp_path)
    counts = collections.Counter()
    for part in records_of(builder).values():
        assert {name_of(r) for r in part} == set(ALL_CLASSES)
        for record in part:
            counts[name_of(record)] += 1
            eeg = record["eeg"]
            assert np.isfinite(eeg["electrode_xyz"]).all()
            sample_id = record["sample_id"].decode()
            path = manual / "files" / "S001" / f"{sample_id[:7]}.edf"
            start = onset_sample(path, int(sample_id[8:]))
            expected = read_edf_uv(path)[start : start + 640]
            np.testing.assert_allclose(eeg["signal_uv"], expected, rtol=1e-6, atol=1e-5)
    assert counts == {"left_fist": 16, "right_fist": 14, "both_fists": 14, "both_feet": 16}
    assert builder.info.metadata["quarantine"]["count"] == 0


def onset_sample(path: Path, trial: int) -> int:
    """Onset sample of a trial from the annotation bytes of the EDF file, without a parser."""
    raw = path.read_bytes()
    onsets = []
    for piece in raw.split(b"\x14\x00"):
        for code in (b"T1", b"T2"):
            head, mark, _ = piece.rpartition(b"\x14" + code)
            if mark and b"\x15" in head[-12:]:
                onset = head.rpartition(b"\x15")[0].rpartition(b"+")[2]
                onsets.append(float(onset))
    return round(sorted(onsets)[trial - 1] * 160)
