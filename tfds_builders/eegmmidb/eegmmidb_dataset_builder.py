"""Builder of the EEG Motor Movement/Imagery Dataset: `files/S###/S###R##.edf`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import eeg_features
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourcePart,
    SourceRecord,
    UnreadableRecord,
    array_audit,
)
from tfds_builders.eegmmidb.edf_trials import (
    NUM_CHANNELS,
    RATE_HZ,
    TRIALS_PER_RUN,
    Run,
    Trial,
    electrode_xyz,
    import_mne,
)

CLASSES = ("left_fist", "right_fist", "both_fists", "both_feet")
_FISTS = {"T1": "left_fist", "T2": "right_fist"}
_BOTH = {"T1": "both_fists", "T2": "both_feet"}
# The same codes mean other movements in other runs. Source: the dataset's page on PhysioNet.
IMAGERY_RUNS = {4: _FISTS, 8: _FISTS, 12: _FISTS, 6: _BOTH, 10: _BOTH, 14: _BOTH}
EXECUTED_RUNS = {3: _FISTS, 7: _FISTS, 11: _FISTS, 5: _BOTH, 9: _BOTH, 13: _BOTH}
RUNS = {"imagery": IMAGERY_RUNS, "executed": EXECUTED_RUNS}
# Recorded at another rate or with other trial lengths; commonly left out.
BAD_SUBJECTS = ("S088", "S092", "S100")
# The finer key of a copy with fewer than three subjects. Runs would not do: an evaluation split of
# one run would hold two of the four classes.
BLOCK_TRIALS = 5
_SUBJECT = re.compile(r"S\d{3}", re.ASCII)


def subject_folders(manual_dir: Path) -> list[Path]:
    """The folders S001, S002, ... below `manual_dir/files`, or `manual_dir` itself."""
    inner = manual_dir / "files"
    root = inner if inner.is_dir() else manual_dir
    return sorted(p for p in root.iterdir() if p.is_dir() and _SUBJECT.fullmatch(p.name))


class Builder(MedicalBuilder):
    """EEG trials of imagined or executed movement of fists and feet."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="imagery", description="Imagined movement: runs 4, 6, 8, 10, 12, 14."
        ),
        tfds.core.BuilderConfig(
            name="executed", description="Executed movement: runs 3, 5, 7, 9, 11, 13."
        ),
    ]
    CARD = SourceCard(
        name="eegmmidb",
        title="EEG Motor Movement/Imagery Dataset: 64-channel trials of four movements",
        namespace="eegmmidb",
        modalities=("eeg",),
        tasks=("motor",),
        publisher="PhysioNet; recorded at the Wadsworth Center with BCI2000",
        homepage="https://physionet.org/content/eegmmidb/1.0.0/",
        licence="Open Data Commons Attribution License v1.0 (ODC-By 1.0)",
        licence_forbids="Use without naming the dataset and its authors.",
        how_to_obtain="download physionet.org/files/eegmmidb/1.0.0/ (3.4 GB); --manual_dir is the "
        "folder that holds S001 to S109, or a folder `files` with them",
        citation="Schalk, McFarland, Hinterberger, Birbaumer, Wolpaw. BCI2000: a general-purpose "
        "brain-computer interface (BCI) system. IEEE TBME 51(6), 2004. doi:10.13026/C28G6P",
        group_key="subject; in a copy with fewer than 3 subjects a contiguous block of "
        f"{BLOCK_TRIALS} trials within a run",
        unit="trial",
        size="109 subjects, 14 runs each (3.4 GB)",
    )
    DATASHEET = Datasheet(
        collection="109 volunteers, 64 electrodes of the 10-10 system at 160 Hz, 14 runs each; "
        "targets on a screen cued the movement.",
        labels="The cue shown; nothing checks that a movement was really imagined.",
        personal_data="Subject numbers only; recording dates of the EDF headers are not taken.",
        consent="Unknown: the files do not state consent or ethics approval of the volunteers.",
        patients_separable="By subject number; one person per number is assumed.",
        known_biases="Eye movements towards the target and muscle activity carry class "
        "information; the order of run kinds is the same for all subjects.",
        intended_use="Development and comparison of decoders of motor imagery.",
        unsuitable_use="Claims about patients with paralysis; with fewer than 3 subjects any claim "
        "across subjects, because neighbouring blocks share one session.",
    )
    EXPECTED_LAYOUT = (
        "files/S###/S###R##.edf with runs 4, 6, 8, 10, 12, 14 (config imagery) or 3, 5, 7, 9, 11, "
        "13 (config executed)"
    )

    def record_features(self) -> dict[str, Any]:
        """A trial of 640 samples of 64 channels."""
        return {"eeg": eeg_features(NUM_CHANNELS), "organ": tfds.features.Text()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The four movements; both configs share them."""
        return {"motor": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourcePart]:
        """Yields the trials by subject, run and time: a part for each run."""
        import_mne()  # ends the build with one sentence where it is missing
        config = self.builder_config
        assert config is not None
        for folder in subject_folders(manual_dir):
            for run in sorted(RUNS[config.name]):
                path = folder / f"{folder.name}R{run:02d}.edf"
                if not path.exists():
                    continue
                if folder.name in BAD_SUBJECTS:
                    quarantine.leave_out("run of a subject recorded otherwise (S088, S092, S100)")
                    continue
                meaning = RUNS[config.name][run]
                yield SourcePart(functools.partial(_read_run, path, folder.name, meaning))


def _read_run(
    path: Path, subject: str, meaning: dict[str, str], quarantine: Quarantine
) -> Iterator[SourceRecord]:
    try:
        run = Run(path)
    except UnreadableRecord as error:
        # Every trial of the run is lost, and counts: one file of four is no small blemish.
        for number in range(1, TRIALS_PER_RUN + 1):
            quarantine.add(f"{path.stem}T{number:02d}", str(error))
        return
    for _ in range(run.num_rest):
        quarantine.leave_out("rest period (T0)")
    xyz = electrode_xyz(run.channel_names)
    for trial in run.trials:
        name = meaning[trial.code]
        yield SourceRecord(
            sample_id=f"{path.stem}T{trial.number:02d}",
            group_id=subject,
            fine_group_id=f"{path.stem}B{(trial.number - 1) // BLOCK_TRIALS + 1}",
            record=functools.partial(_record, run, trial, xyz, name),
            stratum=name,
            audit=functools.partial(_audit, run, trial),
        )


def _record(run: Run, trial: Trial, xyz: np.ndarray, name: str) -> dict[str, Any]:
    return {
        "eeg": {
            "signal_uv": run.window_uv(trial),
            "rate_hz": np.float32(RATE_HZ),
            "electrode_xyz": xyz,
            "channel_names": list(run.channel_names),
        },
        "organ": "brain",
        "targets": {"motor": CLASSES.index(name)},
    }


def _audit(run: Run, trial: Trial) -> AuditKey:
    return array_audit(run.window_uv(trial))
