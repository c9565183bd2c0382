"""Sessions of BCI Competition IV 2a: GDF files cut into trials in microvolt.

    event 768 (trial starts)   + 2 s: cue 769-772, or 783 where the class is kept secret (E files)
    event 1023 at the start    an expert marked the trial as an artefact
Source: Brunner et al., "BCI Competition 2008 - Graz data set A" (description of the set), table 2.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tfds_builders.core.records import UnreadableRecord
from tfds_builders.eegmmidb.edf_trials import import_mne

RATE_HZ = 250
WINDOW_S = 4.0
NUM_SAMPLES = round(WINDOW_S * RATE_HZ)
CLASSES = ("left_hand", "right_hand", "feet", "tongue")
CUES = {"769": 0, "770": 1, "771": 2, "772": 3}
SECRET_CUE, REJECTED = "783", "1023"
# The file names only five of the electrodes; the order is that of figure 3 of the description.
ELECTRODES = (
    "Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2", "C4", "C6",
    "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz",
)  # fmt: skip
_LEAD_S = 2.5  # from the start of a trial to its cue, and half a second


@dataclasses.dataclass(frozen=True)
class Trial:
    """One cued trial: its number in the session (from 1), class (None if secret), cue's sample."""

    number: int
    label: int | None
    cue_sample: int
    is_rejected: bool


@dataclasses.dataclass(frozen=True)
class Session:
    """One GDF file.

    Attributes:
        signal_uv: the 22 EEG channels in the order of `ELECTRODES`; NaN where samples are missing.
        trials: in time order.
    """

    signal_uv: Float32[np.ndarray, "T 22"]
    trials: tuple[Trial, ...]

    def window_uv(self, trial: Trial) -> Float32[np.ndarray, "1000 22"]:
        """The 4.0 s of imagery from the cue.

        Raises:
            UnreadableRecord: the window leaves the recording, has missing samples, or is flat.
        """
        stop = trial.cue_sample + NUM_SAMPLES
        if stop > len(self.signal_uv):
            raise UnreadableRecord("has a window that leaves the recording")
        window = self.signal_uv[trial.cue_sample : stop]
        if not np.isfinite(window).all():
            raise UnreadableRecord("has missing samples in its window")
        if not np.ptp(window, axis=0).any():
            raise UnreadableRecord("has only flat channels")
        return window


def read_session(path: Path) -> Session:
    """Reads a GDF file.

    Raises:
        UnreadableRecord: missing, damaged, of another rate or montage, or without cues.
    """
    mne = import_mne()
    if not path.is_file():
        raise UnreadableRecord("names a file that does not exist")
    try:
        raw = mne.io.read_raw_gdf(path, preload=False, verbose="ERROR")
        notes = raw.annotations
        eeg = [i for i, name in enumerate(raw.ch_names) if not name.upper().startswith("EOG")]
        volt = raw.get_data(picks=eeg, verbose="ERROR")
        rate_hz = float(raw.info["sfreq"])
    except Exception as error:  # what a parser raises on a damaged file is not specified
        raise UnreadableRecord(f"cannot be parsed: {type(error).__name__}") from error
    if rate_hz != RATE_HZ or len(eeg) != len(ELECTRODES):
        raise UnreadableRecord(
            f"has {len(eeg)} EEG channels at {rate_hz:g} Hz; accepted: {len(ELECTRODES)} at "
            f"{RATE_HZ}"
        )
    _check_names([raw.ch_names[i] for i in eeg])
    onsets = np.rint(np.asarray(notes.onset) * RATE_HZ).astype(int).tolist()
    events = sorted(zip(onsets, (str(code) for code in notes.description), strict=True))
    trials = tuple(_trials(events))
    if not trials:
        raise UnreadableRecord("has no event 769 to 772, and none 783")
    return Session(np.ascontiguousarray(volt.T * 1e6).astype(np.float32), trials)


def _check_names(names: list[str]) -> None:
    """Refuses a file whose named electrodes are not where the description has them."""
    known = {name.upper(): name for name in ELECTRODES}
    for name, expected in zip(names, ELECTRODES, strict=True):
        bare = name.upper().removeprefix("EEG-").removeprefix("EEG:").strip()
        if bare in known and known[bare] != expected:
            raise UnreadableRecord(f"has {known[bare]} where {expected} is expected")


def _trials(events: list[tuple[int, str]]) -> list[Trial]:
    rejected = [onset for onset, code in events if code == REJECTED]
    found = []
    for onset, code in events:
        if code in CUES or code == SECRET_CUE:
            lead = onset - round(_LEAD_S * RATE_HZ)
            marked = any(lead <= place <= onset for place in rejected)
            label = CUES[code] if code in CUES else None
            found.append(Trial(len(found) + 1, label, onset, marked))
    return found
