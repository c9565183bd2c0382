"""Builder of motor-imagery sets through MOABB: the package reads them, trials become records."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
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
from tfds_builders.eegmmidb.edf_trials import electrode_xyz, import_mne

_CLASS = re.compile(r"[A-Za-z]\w*", re.ASCII)
_READY = ("BNCI2014_001", "BNCI2014_004", "Cho2017", "Lee2019_MI", "Schirrmeister2017", "Zhou2016")


@dataclasses.dataclass(kw_only=True)
class MoabbConfig(tfds.core.BuilderConfig):
    """Which set.

    Attributes:
        dataset: name of a class of `moabb.datasets`.
        subjects: their numbers; () takes all.
        arguments: of the class, such as {"n_sessions": 2}.
    """

    dataset: str
    subjects: Sequence[int] = ()
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError for a value that is not accepted."""
        if not self.name or not _CLASS.fullmatch(self.dataset):
            raise UserError(
                f"a config of moabb_trials has dataset {self.dataset!r}; accepted: a name, and "
                "a class of moabb.datasets such as 'BNCI2014_001'"
            )


class Builder(MedicalBuilder):
    """Trials of imagined movement."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        MoabbConfig(name=name.lower(), dataset=name, description=f"moabb.datasets.{name}")
        for name in _READY
    ]
    CARD = SourceCard(
        name="moabb_trials",
        title="Motor imagery through MOABB",
        namespace="moabb",
        modalities=("eeg",),
        tasks=("motor",),
        publisher="the publisher of each set; read by MOABB (BSD-3-Clause)",
        homepage="https://moabb.neurotechx.com",
        licence="that of each set, named on its page in MOABB's documentation",
        licence_forbids="What the licence of the set forbids.",
        how_to_obtain="pip install moabb; --manual_dir is the folder in which MOABB keeps its "
        "downloads (MNE_DATA): it fetches there what is missing",
        citation="Jayaram and Barachant. MOABB: trustworthy algorithm benchmarking for BCIs. "
        "Journal of Neural Engineering 15:066011, 2018; and the set's paper",
        group_key="subject; in a set with fewer than 3 subjects the run",
        unit="trial",
        size="that of the set, up to hundreds of GB",
    )
    DATASHEET = Datasheet(
        collection="As each set's paper says.",
        labels="The cue shown; nothing checks that a movement was really imagined.",
        personal_data="Subject numbers only.",
        consent="Unknown to the builder: it rests with each set.",
        patients_separable="By subject number.",
        known_biases="Eye movements towards the cue and muscle activity carry class information.",
        intended_use="Development and comparison of decoders of motor imagery.",
        unsuitable_use="Claims about patients, unless the set is one of patients.",
    )
    EXPECTED_LAYOUT = "the folder of MOABB's downloads (MNE-*-data), which may be empty"

    def __init__(self, **kwargs: Any) -> None:
        """The classes become known with the set."""
        self._classes: tuple[str, ...] = ()
        super().__init__(**kwargs)

    @property
    def _config(self) -> MoabbConfig:
        return cast(MoabbConfig, self.builder_config)

    def record_features(self) -> dict[str, Any]:
        """A trial; the number of channels is that of the set."""
        text = tfds.features.Text()
        return {"eeg": eeg_features(None), "organ": text, "session": tfds.features.Text()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The events of the set by name; known once it is read."""
        return {"motor": self._classes}

    def extra_metadata(self) -> dict[str, Any]:
        """Every set has a label space of its own."""
        return {"namespace": f"{self.CARD.namespace}/{self._config.dataset}"}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourcePart]:
        """Yields the trials by subject, session, run and time: a part for each subject."""
        import_mne()
        with _downloads_in(manual_dir):
            dataset = self._dataset()
            self._classes = tuple(sorted(dataset.event_id))
            subjects = list(self._config.subjects) or list(dataset.subject_list)
            unknown = [subject for subject in subjects if subject not in dataset.subject_list]
            if unknown:
                raise UserError(
                    f"{self._config.dataset} has no subject {unknown[0]!r}; accepted: "
                    f"{dataset.subject_list}"
                )
        for subject in subjects:
            yield SourcePart(functools.partial(self._subject, manual_dir, dataset, subject))

    def _subject(
        self, manual_dir: Path, dataset: Any, subject: int, quarantine: Quarantine
    ) -> Iterator[SourceRecord]:
        with _downloads_in(manual_dir):
            sessions = self._sessions(dataset, subject)
            for session, runs in sessions.items():
                for run, raw in runs.items():
                    where = (str(subject), str(session), str(run))
                    yield from self._run(dataset, raw, where, quarantine)

    def _sessions(self, dataset: Any, subject: int) -> Any:
        try:
            return dataset.get_data(subjects=[subject])[subject]
        except OSError as error:  # of the network or the disk
            raise UserError(
                f"moabb cannot obtain subject {subject} of {self._config.dataset}: "
                f"{' '.join(str(error).split())[:160]}"
            ) from error

    def _dataset(self) -> Any:
        try:
            # Not among the dependencies, so no checker finds it.
            places = [importlib.import_module(f"moabb.datasets{end}") for end in ("", ".fake")]
        except ImportError:
            raise UserError(
                "reading sets through MOABB needs moabb, which is not installed: pip install moabb"
            ) from None
        name = self._config.dataset
        made = next((getattr(place, name) for place in places if hasattr(place, name)), None)
        if made is None:
            raise UserError(f"moabb.datasets has no {name!r}; accepted: a class of that module")
        dataset = made(**self._config.arguments)
        if dataset.paradigm != "imagery":
            raise UserError(f"{name} is a set of {dataset.paradigm!r}; accepted: 'imagery'")
        return dataset

    def _run(
        self, dataset: Any, raw: Any, where: tuple[str, str, str], quarantine: Quarantine
    ) -> Iterator[SourceRecord]:
        mne = import_mne()
        codes = {code: name for name, code in dataset.event_id.items()}
        if "stim" in raw.get_channel_types():
            events = mne.find_events(raw, shortest_event=0, verbose="ERROR")
        else:
            events, _ = mne.events_from_annotations(raw, dataset.event_id, verbose="ERROR")
        picks = mne.pick_types(raw.info, eeg=True)
        names = [raw.ch_names[i] for i in picks]
        trial = _Trials(raw, picks, names, electrode_xyz(names), dataset.interval, where[1])
        for number, (sample, _, code) in enumerate(events.tolist(), start=1):
            if code not in codes:
                quarantine.leave_out("event that is none of the set's movements")
                continue
            label = self._classes.index(codes[code])
            start = sample - raw.first_samp
            yield SourceRecord(
                sample_id=f"{'/'.join(where)}/{number:04d}",
                group_id=f"subject{where[0]}",
                fine_group_id="/".join(where),
                record=functools.partial(trial.record, start, label),
                stratum=codes[code],
                audit=functools.partial(trial.audit, start),
            )


@dataclasses.dataclass(frozen=True)
class _Trials:
    raw: Any
    picks: Any
    names: list[str]
    xyz: np.ndarray
    interval_s: Sequence[float]
    session: str

    def window_uv(self, event_sample: int) -> np.ndarray:
        rate_hz = float(self.raw.info["sfreq"])
        start = event_sample + round(self.interval_s[0] * rate_hz)
        stop = start + round((self.interval_s[1] - self.interval_s[0]) * rate_hz)
        if start < 0 or stop > self.raw.n_times:
            raise UnreadableRecord("has a window that leaves the recording")
        volt = self.raw.get_data(picks=self.picks, start=start, stop=stop, verbose="ERROR")
        if not np.isfinite(volt).all() or not np.ptp(volt, axis=1).any():
            raise UnreadableRecord("has samples that are not finite, or only flat channels")
        return np.ascontiguousarray(volt.T * 1e6).astype(np.float32)

    def audit(self, event_sample: int) -> AuditKey:
        return array_audit(self.window_uv(event_sample))

    def record(self, event_sample: int, label: int) -> dict[str, Any]:
        return {
            "eeg": {
                "signal_uv": self.window_uv(event_sample),
                "rate_hz": np.float32(self.raw.info["sfreq"]),
                "electrode_xyz": self.xyz,
                "channel_names": self.names,
            },
            "organ": "brain",
            "session": self.session,
            "targets": {"motor": label},
        }


@contextlib.contextmanager
def _downloads_in(folder: Path) -> Iterator[None]:
    """MNE's downloads go to the folder, without a change of the user's settings."""
    before = os.environ.get("MNE_DATA")
    os.environ["MNE_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MNE_DATA"]
        else:
            os.environ["MNE_DATA"] = before
