"""Builder of BCI Competition IV 2a: `A0<n>{T,E}.gdf`, and the labels of E sessions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.bci_iv_2a.gdf_trials import (
    CLASSES,
    ELECTRODES,
    RATE_HZ,
    Session,
    Trial,
    read_session,
)
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import eeg_features
from tfds_builders.core.planning import SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    array_audit,
)
from tfds_builders.eegmmidb.edf_trials import electrode_xyz, import_mne

TRIALS_PER_SESSION = 288
BLOCK_TRIALS = 12
_FILE = re.compile(r"(A\d{2})([TE])\.gdf", re.ASCII | re.IGNORECASE)


class Builder(MedicalBuilder):
    """Trials of nine people who imagine moving the left hand, right hand, feet or tongue."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="subjects", description="held-out people, both sessions"),
        tfds.core.BuilderConfig(
            name="sessions",
            description="the competition's split: session T trains, session E of another day tests",
        ),
    ]
    CARD = SourceCard(
        name="bci_iv_2a",
        title="BCI Competition IV 2a: 22-channel trials of four imagined movements",
        namespace="bci_iv_2a",
        modalities=("eeg",),
        tasks=("motor",),
        publisher="Graz University of Technology (BCI Competition IV, data set 2a)",
        homepage="https://www.bbci.de/competition/iv/",
        licence="CC BY-ND 4.0 (as BNCI 001-2014)",
        licence_forbids="Passing on changed copies; use without naming the authors.",
        how_to_obtain="accept the terms at bbci.de/competition/iv, download BCICIV_2a_gdf.zip and "
        "the true labels (A01E.mat to A09E.mat); --manual_dir is the folder that holds the .gdf "
        "files, with the .mat files beside them or in a folder true_labels",
        citation="Tangermann et al. Review of the BCI Competition IV. Frontiers in Neuroscience "
        "6:55, 2012. doi:10.3389/fnins.2012.00055",
        group_key="subject; in config sessions a block of "
        f"{BLOCK_TRIALS} trials of one subject's session",
        unit="trial",
        size="9 subjects, 5,184 trials (0.4 GB)",
    )
    DATASHEET = Datasheet(
        collection="Nine volunteers, 22 electrodes at 250 Hz (0.5 to 100 Hz, notch at 50 Hz), two "
        "sessions on different days with 288 trials each; arrows on a screen cued the imagery.",
        labels="The cue shown; nothing checks that a movement was really imagined.",
        personal_data="Subject numbers only; dates and patient fields of the files are not taken.",
        consent="Unknown: the files do not state consent or ethics approval of the volunteers.",
        patients_separable="By subject number.",
        known_biases="Eye movements towards the arrow carry class information; nine people say "
        "little of people at large.",
        intended_use="Development and comparison of decoders of motor imagery.",
        unsuitable_use="Claims about patients; of config sessions, claims about unseen people.",
    )
    EXPECTED_LAYOUT = "A0<1-9>T.gdf, A0<1-9>E.gdf, and A0<1-9>E.mat (or true_labels/A0<1-9>E.mat)"

    def record_features(self) -> dict[str, Any]:
        """A trial of 1,000 samples of 22 channels."""
        return {
            "eeg": eeg_features(len(ELECTRODES)),
            "organ": tfds.features.Text(),
            "session": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The four movements."""
        return {"motor": CLASSES}

    def split_mode(self) -> SplitMode:
        """By day in config `sessions`, else by person."""
        return "official" if self._by_session() else "group"

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the trials by subject, session and time."""
        import_mne()  # ends the build with one sentence where it is missing
        named = [(_FILE.fullmatch(path.name), path) for path in sorted(manual_dir.iterdir())]
        files = [(match, path) for match, path in named if match]
        if not files:
            raise UserError(f"no file A0<n>T.gdf or A0<n>E.gdf in {manual_dir}")
        for match, path in files:
            subject, session = match[1].upper(), match[2].upper()
            try:
                read = read_session(path)
            except UnreadableRecord as error:
                # Every trial of the session is lost, and counts.
                for number in range(1, TRIALS_PER_SESSION + 1):
                    quarantine.add(f"{path.stem}/{number:03d}", str(error))
                continue
            labels = _labels(manual_dir, path, read)
            yield from self._session(subject, session, read, labels, quarantine)

    def _session(
        self, subject: str, session: str, read: Session, labels: list[int], quarantine: Quarantine
    ) -> Iterator[SourceRecord]:
        xyz = electrode_xyz(ELECTRODES)
        for trial, label in zip(read.trials, labels, strict=True):
            if trial.is_rejected:
                quarantine.leave_out("trial that an expert marked as an artefact (1023)")
                continue
            block = f"{subject}{session}B{(trial.number - 1) // BLOCK_TRIALS + 1:02d}"
            yield SourceRecord(
                sample_id=f"{subject}{session}/{trial.number:03d}",
                group_id=block if self._by_session() else subject,
                fine_group_id=block,
                official_split={"T": "train", "E": "test"}[session] if self._by_session() else None,
                record=functools.partial(_record, read, trial, label, xyz, session),
                stratum=CLASSES[label],
                audit=functools.partial(_audit, read, trial),
            )

    def _by_session(self) -> bool:
        assert self.builder_config is not None
        return self.builder_config.name == "sessions"


def _record(
    read: Session, trial: Trial, label: int, xyz: np.ndarray, session: str
) -> dict[str, Any]:
    return {
        "eeg": {
            "signal_uv": read.window_uv(trial),
            "rate_hz": np.float32(RATE_HZ),
            "electrode_xyz": xyz,
            "channel_names": list(ELECTRODES),
        },
        "organ": "brain",
        "session": session,
        "targets": {"motor": label},
    }


def _audit(read: Session, trial: Trial) -> AuditKey:
    return array_audit(read.window_uv(trial))


def _labels(manual_dir: Path, path: Path, read: Session) -> list[int]:
    """The class of every trial: from its cue, else from the .mat file of the session.

    Raises:
        UserError: a session with secret cues has no such file, or it has other labels.
    """
    told = [trial.label for trial in read.trials]
    if None not in told:
        return [label for label in told if label is not None]
    places = [folder / f"{path.stem}.mat" for folder in (manual_dir, manual_dir / "true_labels")]
    place = next((p for p in places if p.is_file()), None)
    if place is None:
        raise UserError(f"the session {path} needs its labels; expected {path.stem}.mat beside it")
    import scipy.io

    try:
        found = scipy.io.loadmat(place, variable_names=["classlabel"])["classlabel"]
        labels = np.asarray(found, np.int64).ravel() - 1
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"the file {place} has no numbers `classlabel`: {error}") from error
    if len(labels) != len(told) or not np.isin(labels, range(len(CLASSES))).all():
        raise UserError(
            f"the file {place} has {len(labels)} labels; accepted: {len(told)} of 1 to "
            f"{len(CLASSES)}"
        )
    return labels.tolist()
