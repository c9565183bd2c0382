"""Builder of COVIDx CT: lists of slices with boxes, a table of patients, one folder of pictures."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import age_years
from tfds_builders.core.features import ct_features
from tfds_builders.core.listings import (
    age_named,
    file_named,
    first_there,
    one_of,
    read_words,
    sex_named,
)
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.paper import PaperCitation
from tfds_builders.core.picture_records import grey_slice, late_record
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv

CLASSES = ("normal", "pneumonia", "COVID-19")
_SIDES = {"train": "train", "val": "validation", "test": "test"}
_COLUMNS = ("patient id", "source", "sex", "age")
_LIST = re.compile(r"(?P<side>train|val|test)_COVIDx[_-]CT-?(?P<version>\w+)\.txt", re.ASCII)


class Builder(OfficialSplitBuilder):
    """Chest CT slices in three classes, from several collections."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="covidx_ct",
        title="COVIDx CT: chest CT slices of COVID-19, other pneumonia and healthy people",
        namespace="covidx_ct",
        modalities=("ct",),
        tasks=("disease",),
        publisher="COVID-Net initiative (Hayden Gunraj and others, University of Waterloo)",
        homepage="https://github.com/haydengunraj/COVIDNet-CT",
        licence="mixed: that of each collection it is taken from",
        licence_forbids="What any of the collections forbids; several allow research only.",
        how_to_obtain="Kaggle hgunraj/covidxct; --manual_dir is the folder that holds "
        "metadata.csv, the three lists and the folder of images (2A_images, 3A_images)",
        citation="Gunraj, H., Sabri, A., Koff, D. and Wong, A. COVID-Net CT-2: Enhanced Deep "
        "Neural Networks for Detection of COVID-19 From Chest CT Images. Front Med 8 (2022). "
        "doi:10.3389/fmed.2021.729287",
        group_key="patient (column patient id, found in the file name); those of CC-CCII are named "
        "as cc_ccii names them",
        unit="slice",
        size="194,922 slices of 3,745 patients (2A)",
        restricted=True,
    )
    PAPER = (
        PaperCitation(
            task="disease",
            cited="X-ray, 194,922",
            really="COVIDx CT-2A: CT slices, not X-rays, of 3,745 patients",
        ),
    )
    DATASHEET = Datasheet(
        collection="Put together from public collections of many countries, the largest of them "
        "CC-CCII; slices with findings were chosen, for training partly by a model.",
        labels="Those of the collections; validation and test slices were chosen by radiologists.",
        personal_data="Sex, age and country as the table has them; patients are ids of their "
        "collections.",
        consent="Unknown: it rests with each collection.",
        patients_separable="Yes, by the table of patients.",
        known_biases="Class and collection are confounded, as are the display window and the "
        "collection; healthy slices come from few of them.",
        intended_use="Comparison with published results on the same lists.",
        unsuitable_use="Density in Hounsfield units, which is lost; any clinical use.",
    )
    EXPECTED_LAYOUT = (
        "metadata.csv, {train,val,test}_COVIDx_CT-<2A|3A>.txt with lines <file> <class> <xmin> "
        "<ymin> <xmax> <ymax>, and <2A|3A>_images/*.png"
    )
    # Its slices of CC-CCII are the same ones.
    ALIASES = ("cc_ccii",)

    def record_features(self) -> dict[str, Any]:
        """A slice, the box of the body in it, and what the table says of the patient."""
        return {
            "ct": ct_features(),
            "body_box": tfds.features.Tensor(shape=(4,), dtype=np.int32),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "site": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """In the order of the lists' numbers."""
        return {"disease": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the slices by list, in the order of its lines."""
        table = manual_dir / "metadata.csv"
        people = {row["patient id"].strip(): row for row in read_csv(table, _COLUMNS)}
        lists = _lists(manual_dir, self.EXPECTED_LAYOUT)
        version = next(iter(lists.values()))[1]
        folder = first_there([manual_dir / f"{version}_images"], self.EXPECTED_LAYOUT)
        for side, (path, _) in lists.items():
            for words in read_words(path, 6):
                name, (label, *box) = " ".join(words[:-5]), words[-5:]
                patient = patient_of(name, people)
                if patient is None:
                    raise UserError(
                        f"the file {path} names the slice {name!r}, which fits no patient of "
                        f"{table}"
                    )
                yield late_record(
                    "ct",
                    functools.partial(grey_slice, file_named(folder, name, path)),
                    sample_id=name,
                    group_id=patient,
                    targets={"disease": one_of(label, list("012"), "class", path)},
                    stratum=CLASSES[int(label)],
                    official_split=_SIDES[side],
                    more={"body_box": _box(box, path), **_person(people[patient])},
                )


def patient_of(name: str, patients: Collection[str]) -> str | None:
    """The patient of a slice: the longest id at the head of its name, else the longest inside.

    An id ends where a blank, "_" or "-" follows, and inside also begins after one: the name
    "NCP_96_1328_0035.png" is of patient "NCP_96", not of "NCP_9".
    """
    ends = [match.start() for match in re.finditer(r"[ _-]", name)]
    starts = [0, *(end + 1 for end in ends)]
    for heads in (starts[:1], starts[1:]):
        found = [name[a:b] for a in heads for b in ends if a < b and name[a:b] in patients]
        if found:
            return max(found, key=len)
    return None


def _lists(root: Path, layout: str) -> dict[str, tuple[Path, str]]:
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted(root.iterdir()):
        match = _LIST.fullmatch(path.name)
        if match is None:
            continue
        if match["side"] in found:
            raise UserError(
                f"the folder {root} has two lists of {match['side']}: "
                f"{found[match['side']][0].name}, {path.name}; accepted: those of one version"
            )
        found[match["side"]] = (path, match["version"])
    for side in _SIDES:
        if side not in found:
            raise UserError(
                f"the folder {root} has no list {side}_COVIDx_CT-*.txt; expected layout: {layout}"
            )
    if len({version for _, version in found.values()}) > 1:
        raise UserError(f"the folder {root} has lists of several versions; accepted: one")
    return {side: found[side] for side in _SIDES}


def _box(words: list[str], path: Path) -> np.ndarray:
    """Int32 [4]: xmin, ymin, xmax, ymax in pixels."""
    if not all(word.isdecimal() for word in words):
        raise UserError(f"the file {path} has the box {' '.join(words)!r}; accepted: four numbers")
    return np.asarray([int(word) for word in words], np.int32)


def _person(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        "sex": sex_named(row["sex"]),
        "age_years": age_years(age_named(row["age"])),
        "site": row["source"].strip(),
    }
