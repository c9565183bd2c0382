"""Runs of the EEG Motor Movement/Imagery Dataset: EDF+ files cut into trials in microvolt.

A file is checked from its own header before any parser sees its samples: a copy that was cut
short, or whose line ends were converted, does not have the size that its header implies.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from multimed_jax.types import UserError
from tfds_builders.core.records import UnreadableRecord

RATE_HZ = 160
NUM_CHANNELS = 64
WINDOW_S = 4.0
NUM_SAMPLES = round(WINDOW_S * RATE_HZ)
# Source: Schalk et al., IEEE TBME 51(6), 2004, and the dataset's page: 15 cues in each task run.
TRIALS_PER_RUN = 15
ANNOTATION_LABEL = "EDF Annotations"
_MAIN_BYTES = 256
_SIGNAL_BYTES = 256
_MICROVOLT = ("uV", "\u00b5V", "\u03bcV")


@dataclasses.dataclass(frozen=True)
class EdfHeader:
    """What an EDF+ header says of the file. Layout: edfplus.info/specs/edf.html and edfplus.html.

    Attributes:
        num_bytes: size of the whole file that the header implies.
        record_s: duration of one data record.
        labels: of all signals, the annotation channel among them.
        units: physical dimension of each signal.
        samples: per data record, of each signal.
        scaled: whether each signal has a physical and a digital range that are not empty.
    """

    num_bytes: int
    record_s: float
    labels: tuple[str, ...]
    units: tuple[str, ...]
    samples: tuple[int, ...]
    scaled: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One cued movement: its number in the run (from 1), its code ("T1", "T2") and its onset."""

    number: int
    code: str
    onset_sample: int


def import_mne() -> Any:
    """MNE-Python, which reads EDF+. Raises UserError where it is not installed."""
    try:
        import mne
    except ImportError:
        raise UserError(
            "reading EDF files needs mne, which is not installed: pip install multimed-jax[formats]"
        ) from None
    return mne


def read_header(path: Path) -> EdfHeader:
    """Parses the header of a continuous EDF+ file.

    Raises:
        UnreadableRecord: where the file cannot be opened or its header is not one.
    """
    try:
        with path.open("rb") as file:
            main = file.read(_MAIN_BYTES).decode("latin-1")
            if len(main) < _MAIN_BYTES or main[:8].strip() != "0":
                raise UnreadableRecord(f"{path.name} is no EDF file")
            if not main[192:236].startswith("EDF+C"):
                raise UnreadableRecord(f"{path.name} is no continuous EDF+ file")
            num_signals = int(main[252:256])
            if not 1 <= num_signals <= 4096:
                raise UnreadableRecord(f"{path.name} claims {num_signals} signals")
            fields = file.read(num_signals * _SIGNAL_BYTES).decode("latin-1")
        return _parse(path.name, main, fields, num_signals)
    except OSError as error:
        raise UnreadableRecord(f"{path.name} cannot be opened ({error.strerror})") from error
    except ValueError as error:
        raise UnreadableRecord(f"{path.name} has a damaged header: {error}") from error


def _parse(name: str, main: str, fields: str, num_signals: int) -> EdfHeader:
    """The signal headers: each field lies there for all signals before the next field begins."""
    if len(fields) < num_signals * _SIGNAL_BYTES:
        raise UnreadableRecord(f"{name} is truncated inside its header")

    def column(before: int, width: int) -> list[str]:
        start = before * num_signals
        cells = [fields[start + i * width : start + (i + 1) * width] for i in range(num_signals)]
        return [cell.strip(" \0") for cell in cells]

    num_records, record_s = int(main[236:244]), float(main[244:252])
    samples = [int(cell) for cell in column(216, 8)]
    if num_records < 1 or not record_s > 0 or min(samples) < 1:
        raise UnreadableRecord(
            f"{name} claims {num_records} data records of {record_s} s with at least "
            f"{min(samples)} samples"
        )
    physical = zip(column(104, 8), column(112, 8), strict=True)
    digital = zip(column(120, 8), column(128, 8), strict=True)
    ranges = zip(physical, digital, strict=True)
    return EdfHeader(
        num_bytes=int(main[184:192]) + num_records * 2 * sum(samples),
        record_s=record_s,
        labels=tuple(column(0, 16)),
        units=tuple(column(96, 8)),
        samples=tuple(samples),
        # A difference that is nan or infinite marks a range without finite ends.
        scaled=tuple(
            0 < abs(float(p[1]) - float(p[0])) < np.inf and int(d[0]) < int(d[1]) for p, d in ranges
        ),
    )


def check_file(path: Path) -> None:
    """Checks a file against its header and the dataset's montage and rate.

    Raises:
        UnreadableRecord: that names the file and what is wrong with it.
    """
    header = read_header(path)
    size = path.stat().st_size
    if size != header.num_bytes:
        fault = "it is truncated" if size < header.num_bytes else "its line ends may be converted"
        raise UnreadableRecord(
            f"{path.name} has {size} bytes where its header implies {header.num_bytes}: {fault}"
        )
    if ANNOTATION_LABEL not in header.labels:
        raise UnreadableRecord(f"{path.name} has no channel {ANNOTATION_LABEL!r}")
    signals = [i for i, label in enumerate(header.labels) if label != ANNOTATION_LABEL]
    names = {header.labels[i].rstrip(".").lower() for i in signals}
    if len(signals) != NUM_CHANNELS or len(names) != NUM_CHANNELS:
        raise UnreadableRecord(f"{path.name} has {len(names)} channels; accepted: {NUM_CHANNELS}")
    for i in signals:
        label, rate_hz = header.labels[i], header.samples[i] / header.record_s
        if rate_hz != RATE_HZ:
            raise UnreadableRecord(f"{path.name}: {label} has {rate_hz:g} Hz, not {RATE_HZ}")
        if header.units[i] not in _MICROVOLT:
            raise UnreadableRecord(f"{path.name}: {label} is in {header.units[i]!r}, not uV")
        if not header.scaled[i]:
            raise UnreadableRecord(f"{path.name}: {label} has an empty range of values")


class Run:
    """One EDF+ file; its samples are read when the first trial is asked for.

    Attributes:
        channel_names: without the trailing dots of the file, such as "Fc5".
        trials: the T1 and T2 annotations in time order.
        num_rest: number of T0 annotations.
    """

    def __init__(self, path: Path) -> None:
        """Checks the file and reads its annotations. Raises UnreadableRecord."""
        mne = import_mne()
        check_file(path)
        self._name = path.name
        try:
            self._raw = mne.io.read_raw_edf(path, preload=False, verbose="ERROR")
        except Exception as error:  # what a parser raises on a damaged file is not specified
            raise UnreadableRecord(f"{path.name} cannot be parsed: {error}") from error
        self.channel_names = tuple(name.rstrip(".") for name in self._raw.ch_names)
        codes = [str(text) for text in self._raw.annotations.description]
        onsets = np.rint(np.asarray(self._raw.annotations.onset) * RATE_HZ).astype(int)
        events = sorted(zip(onsets.tolist(), codes, strict=True))
        cued = [(onset, code) for onset, code in events if code in ("T1", "T2")]
        self.trials = tuple(Trial(i, code, onset) for i, (onset, code) in enumerate(cued, start=1))
        self.num_rest = codes.count("T0")
        if not self.trials:
            raise UnreadableRecord(f"{path.name} has no annotation T1 or T2")

    @functools.cached_property
    def signal_uv(self) -> Float32[np.ndarray, "T 64"]:
        """The whole run in microvolt at 160 Hz, channels in the file's order."""
        try:
            volt = self._raw.get_data(verbose="ERROR")
        except Exception as error:  # see __init__
            raise UnreadableRecord(f"{self._name} cannot be parsed: {error}") from error
        return np.ascontiguousarray(volt.T * 1e6).astype(np.float32)

    def window_uv(self, trial: Trial) -> Float32[np.ndarray, "640 64"]:
        """The 4.0 s from the trial's onset.

        Raises:
            UnreadableRecord: where the window leaves the recording, or every channel is flat.
        """
        stop = trial.onset_sample + NUM_SAMPLES
        if trial.onset_sample < 0 or stop > len(self.signal_uv):
            raise UnreadableRecord(
                f"the window of {WINDOW_S} s ends at {stop / RATE_HZ:g} s, the recording at "
                f"{len(self.signal_uv) / RATE_HZ:g} s"
            )
        window = self.signal_uv[trial.onset_sample : stop]
        if not np.ptp(window, axis=0).any():
            raise UnreadableRecord("every channel is flat")
        return window


@functools.cache
def _positions() -> dict[str, np.ndarray]:
    """Unit vectors of the 10-05 electrodes by lower-case name (x right, y front, z up)."""
    mne = import_mne()
    # mne 1.13 renamed the montage; the positions are the same.
    names = ("colin27_1005", "standard_1005")
    known = mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage(next(name for name in names if name in known))
    places = montage.get_positions()["ch_pos"]
    return {name.lower(): place / np.linalg.norm(place) for name, place in places.items()}


def electrode_xyz(channel_names: Sequence[str]) -> Float32[np.ndarray, "C 3"]:
    """Electrode directions in head coordinates: x right, y front, z up, length 1.

    The template positions of mne's standard_1005 montage, scaled to length 1; names are compared
    without case. A name that the montage lacks gives a row of NaN.
    """
    unknown = np.full(3, np.nan)
    places = _positions()
    rows = [places[n.lower()] if n.lower() in places else unknown for n in channel_names]
    return np.asarray(rows, np.float32).reshape(-1, 3)
