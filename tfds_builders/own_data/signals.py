"""Signals of a table: EDF, BDF, GDF or FIF recordings through mne, or arrays of NumPy.

An array `.npy` is [samples, channels] of numbers; one that holds objects is refused, since reading
it would run code. Recordings are cut to trials where the config names onsets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from multimed_jax.types import UserError
from tfds_builders.core import features
from tfds_builders.core.records import AuditKey, UnreadableRecord, array_audit
from tfds_builders.eegmmidb.edf_trials import electrode_xyz, import_mne
from tfds_builders.own_data.inputs import Input
from tfds_builders.own_data.readers import file_of, has_cell
from tfds_builders.own_data.table import Sample, cell

_RECORDINGS = (".edf", ".bdf", ".gdf", ".fif")
_MICROVOLT = {"uV": 1.0, "mV": 1e3, "V": 1e6}


class SignalReader:
    """A recording, or a trial of one, with the channels that the config names."""

    def __init__(self, given: Input) -> None:
        """Finds the electrodes of the channels once."""
        self._input = given
        self._names = given.channel_names
        self._last: tuple[Path, Any] | None = None

    def features(self) -> Any:
        return features.eeg_features(len(self._names))

    def empty(self) -> Any:
        unknown = np.full((len(self._names), 3), np.nan, np.float32)
        return self._value(np.zeros((0, len(self._names)), np.float32), 0.0, unknown)

    def present(self, sample: Sample) -> bool:
        return has_cell(sample, self._input.file)

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        path = file_of(manual_dir, sample.rows[0], self._input.file)
        if path.suffix.lower() == ".npy":
            signal, rate_hz = self._array(path), self._input.rate_hz
        elif path.suffix.lower() in _RECORDINGS:
            signal, rate_hz = self._recording(path)
        else:
            accepted = ", ".join((".npy", *_RECORDINGS))
            raise UnreadableRecord(f"has the suffix {path.suffix!r}; accepted: {accepted}")
        signal = self._cut(signal, rate_hz, sample)
        if not np.isfinite(signal).all():
            raise UnreadableRecord("has samples that are not finite")
        if not len(signal) or not np.ptp(signal, axis=0).any():
            raise UnreadableRecord("has no samples, or every channel is flat")
        return self._value(signal, rate_hz, electrode_xyz(self._names))

    def audit(self, value: Any) -> AuditKey:
        return array_audit(value["signal_uv"])

    def _value(self, signal: np.ndarray, rate_hz: float, xyz: np.ndarray) -> Any:
        return {
            "signal_uv": signal,
            "rate_hz": np.float32(rate_hz),
            "electrode_xyz": xyz,
            "channel_names": list(self._names) if len(signal) else [],
        }

    def _array(self, path: Path) -> Float32[np.ndarray, "T C"]:
        if not self._input.rate_hz or not self._input.unit:
            raise UserError(
                "inputs.eeg of own_data reads an array and lacks rate_hz or unit; accepted: both"
            )
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UnreadableRecord(f"is no array of numbers: {str(error)[:60]}") from error
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
            raise UnreadableRecord("is no array of numbers")
        if values.ndim != 2 or values.shape[1] != len(self._names):
            raise UnreadableRecord(
                f"has the shape {values.shape}; accepted: samples by {len(self._names)} channels"
            )
        return (values * _MICROVOLT[self._input.unit]).astype(np.float32)

    def _recording(self, path: Path) -> tuple[Float32[np.ndarray, "T C"], float]:
        # Trials of one recording follow each other: it is read once.
        if self._last is None or self._last[0] != path:
            self._last = (path, self._open(path))
        return self._last[1]

    def _open(self, path: Path) -> tuple[Float32[np.ndarray, "T C"], float]:
        mne = import_mne()
        try:
            raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
            known = {name.strip(" ."): name for name in raw.ch_names}
            missing = [name for name in self._names if name not in known]
            if missing:
                raise UnreadableRecord(
                    f"has no channel {missing[0]!r}; it has: {', '.join(list(known)[:40])}"
                )
            volt = raw.get_data(picks=[known[name] for name in self._names], verbose="ERROR")
            rate_hz = float(raw.info["sfreq"])
        except UnreadableRecord:
            raise
        except Exception as error:  # what a parser raises on a damaged file is not specified
            raise UnreadableRecord(f"cannot be parsed: {type(error).__name__}") from error
        return np.ascontiguousarray(volt.T * 1e6).astype(np.float32), rate_hz

    def _cut(self, signal: np.ndarray, rate_hz: float, sample: Sample) -> np.ndarray:
        if not self._input.onset_s:
            return signal
        text = cell(sample.rows[0], self._input.onset_s)
        try:
            start = round(float(text) * rate_hz)
        except (ValueError, OverflowError):
            raise UserError(
                f"a row of the table has {self._input.onset_s} {text!r}; accepted: seconds from "
                "the start of the recording"
            ) from None
        stop = start + round(self._input.duration_s * rate_hz)
        if start < 0 or stop > len(signal):
            raise UnreadableRecord(
                f"is a trial up to {stop / rate_hz:g} s of a recording of "
                f"{len(signal) / rate_hz:g} s"
            )
        return signal[start:stop]
