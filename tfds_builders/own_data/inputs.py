"""What a config says of one modality: where its values lie and in which unit.

xray: {file: film}                     column `film` names a JPEG or PNG file
text: {value: report}                  column `report` holds the text itself
genomics: {fasta: promoters.fa}        one file; its ids are the sample ids
scrna: {h5ad: cells.h5ad, unit: counts}
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from multimed_jax.types import UserError

PICTURES = ("oct", "xray", "mri", "pathology")
UNITS = ("counts", "log1p", "scaled")
SIGNAL_UNITS = ("uV", "mV", "V")
FORMS = ("slice", "volume")
# Of every modality the keys that say where its values are (one of them is needed), and the others.
_PLACES = {
    "oct": ("file",),
    "xray": ("file",),
    "mri": ("file",),
    "ct": ("file",),
    "pathology": ("file",),
    "eeg": ("file",),
    "genomics": ("value", "file", "fasta"),
    "scrna": ("h5ad", "matrix"),
    "protein": ("value", "file", "fasta"),
    "text": ("value", "file"),
}
_OPTIONS = {
    "oct": ("spacing_mm",),
    "xray": ("spacing_mm",),
    "mri": ("spacing_mm", "form", "sequence"),
    "ct": (),
    "pathology": ("microns_per_pixel",),
    "eeg": ("channel_names", "rate_hz", "unit", "onset_s", "duration_s"),
    "genomics": ("site",),
    "scrna": ("unit", "layer"),
    "protein": (),
    "text": (),
}


@dataclasses.dataclass(frozen=True)
class Input:
    """One modality of the records.

    Attributes:
        modality: the record key.
        file: column with a path below the manual folder.
        value: column with the value itself.
        fasta: FASTA file (not a column) whose ids are the sample ids.
        h5ad: AnnData file (not a column) whose cells are the samples.
        matrix: folder (not a column) with matrix.mtx, genes.tsv or features.tsv, barcodes.tsv.
        spacing_mm: (row, column) of all pictures; 0 where unknown.
        form: of MRI, "slice" (JPEG, PNG) or "volume" (NIfTI, DICOM).
        sequence: of all MRI volumes, such as "T1".
        microns_per_pixel: of all tiles; 0 where unknown.
        channel_names: channels to take, in this order; of an array all of them.
        rate_hz: of an array; a recording states its own.
        unit: of cells one of `UNITS`, of an array of a signal one of `SIGNAL_UNITS`.
        onset_s: column with the start of the trial in its recording; "" takes the whole of it.
        duration_s: of a trial.
        site: column with the base of interest, counted from 0; "" is the middle.
        layer: of an h5ad file "X", "raw.X" or the name of a layer.
    """

    modality: str
    file: str = ""
    value: str = ""
    fasta: str = ""
    h5ad: str = ""
    matrix: str = ""
    spacing_mm: tuple[float, float] = (0.0, 0.0)
    form: str = "slice"
    sequence: str = ""
    microns_per_pixel: float = 0.0
    channel_names: tuple[str, ...] = ()
    rate_hz: float = 0.0
    unit: str = ""
    onset_s: str = ""
    duration_s: float = 0.0
    site: str = ""
    layer: str = "X"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that it reads."""
        return tuple(name for name in (self.file, self.value, self.onset_s, self.site) if name)

    @property
    def is_picture(self) -> bool:
        """Whether a record has the bytes of a picture file."""
        return self.modality in PICTURES and self.form == "slice"


def make_input(modality: str, given: Any) -> Input:
    """Checks one entry of `inputs`.

    Raises:
        UserError: an unknown modality or key, no place or several, a value of the wrong kind.
    """
    check_choice("a modality of own_data", modality, _PLACES)
    where = f"inputs.{modality}"
    places, options = _PLACES[modality], _OPTIONS[modality]
    check_mapping(where, given, (*places, *options))
    named = [key for key in places if key in given]
    if len(named) != 1:
        raise UserError(f"{where} has {given!r}; accepted: exactly one of {', '.join(places)}")
    values = dict(given)
    for key, value in given.items():
        values[key] = _value(f"{where}.{key}", key, value)
    made = Input(modality, **values)
    _check_complete(where, made)
    return made


def _value(where: str, key: str, value: Any) -> Any:
    if key in ("spacing_mm", "microns_per_pixel", "rate_hz", "duration_s"):
        numbers = value if key == "spacing_mm" else [value]
        wanted = 2 if key == "spacing_mm" else 1
        fit = isinstance(numbers, (list, tuple)) and len(numbers) == wanted
        if not fit or not all(isinstance(n, (int, float)) and 0 < n < 1e6 for n in numbers):
            raise UserError(f"{where} is {value!r}; accepted: {wanted} number(s) above 0")
        return (float(numbers[0]), float(numbers[1])) if wanted == 2 else float(numbers[0])
    if key == "channel_names":
        names = tuple(value) if isinstance(value, (list, tuple)) else ()
        if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
            raise UserError(f"{where} is {value!r}; accepted: a list of names, each once")
        return names
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} is {value!r}; accepted: a text")
    return value.strip()


def _check_complete(where: str, made: Input) -> None:
    if made.modality == "scrna":
        check_choice(f"{where}.unit", made.unit, UNITS)
    elif made.modality == "eeg":
        if made.unit:
            check_choice(f"{where}.unit", made.unit, SIGNAL_UNITS)
        if not made.channel_names:
            raise UserError(f"{where} has no channel_names; accepted: the channels to take")
        if bool(made.onset_s) != bool(made.duration_s):
            raise UserError(f"{where} has one of onset_s and duration_s; accepted: both or none")
    check_choice(f"{where}.form", made.form, FORMS)


def check_mapping(where: str, given: Any, accepted: Iterable[str]) -> None:
    """Raises UserError where `given` is no mapping, or has a key that is not accepted."""
    names = tuple(accepted)
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is {given!r}; accepted: {{key: value}} of {', '.join(names)}")
    for key in given:
        check_choice(f"a key of {where}", key, names)


def check_choice(what: str, value: Any, accepted: Iterable[str]) -> None:
    """Raises UserError for a value that is not accepted, with the nearest that is."""
    names = tuple(accepted)
    if value in names:
        return
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"{what} is {value!r}{hint}; accepted: {', '.join(names)}")
