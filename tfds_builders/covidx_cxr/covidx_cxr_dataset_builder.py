"""Builder of COVIDx CXR: the published lists and the folders of images beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.features import image_features
from tfds_builders.core.listings import file_named, first_there, one_of, read_words
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.picture_records import late_record, picture
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord

# The two kinds of lists: for or against COVID-19, or three classes.
BINARY = ("negative", "positive")
THREE = ("normal", "pneumonia", "COVID-19")
_SIDES = {"train": "train", "val": "validation", "test": "test"}


class Builder(OfficialSplitBuilder):
    """Chest X-rays with and without COVID-19."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="covidx_cxr",
        title="COVIDx CXR: chest X-rays with and without COVID-19 from several collections",
        namespace="covidx_cxr",
        modalities=("xray",),
        tasks=("disease",),
        publisher="COVID-Net initiative (Linda Wang and others, University of Waterloo)",
        homepage="https://github.com/lindawangg/COVID-Net",
        licence="mixed: that of each collection it is taken from",
        licence_forbids="What any of the collections forbids; several allow research only.",
        how_to_obtain="Kaggle andyczhao/covidx-cxr2 (images and binary lists); lists of three "
        "classes lie in labels/ of github.com/lindawangg/COVID-Net. --manual_dir is the folder "
        "that holds train, test and one train list and one test list",
        citation="Wang, L., Lin, Z. Q. and Wong, A. COVID-Net: a tailored deep convolutional "
        "neural network design for detection of COVID-19 cases from chest X-ray images. Sci Rep "
        "10 (2020). doi:10.1038/s41598-020-76550-z",
        group_key="collection and patient (fourth and first word of a line)",
        unit="image",
        size="30,386 images (CXR-3)",
        restricted=True,
    )
    DATASHEET = Datasheet(
        collection="Put together from public collections: case reports, hospitals of several "
        "countries, and films of the NIH by way of the RSNA challenge.",
        labels="Those of the collections; how COVID-19 was confirmed differs between them.",
        personal_data="None beyond what the collections publish; patients are their ids.",
        consent="Unknown: it rests with each collection.",
        patients_separable="Yes, by collection and patient in the lists, as far as these go.",
        known_biases="Class and collection are confounded: a model can tell the collection by "
        "its borders, markers and compression, and so the class.",
        intended_use="Comparison with published results on the same lists.",
        unsuitable_use="Any claim on detection of COVID-19; any clinical use.",
    )
    EXPECTED_LAYOUT = (
        "{train,val,test}/<file>, and one list train*.txt, one test*.txt, optionally one val*.txt "
        "with lines <patient> <file> <class> [<collection>]"
    )
    ALIASES = ("covid_chestxray", "nih_chestxray14")

    def __init__(self, **kwargs: Any) -> None:
        """The lists that are there decide between two and three classes."""
        self._classes: tuple[str, ...] = BINARY
        super().__init__(**kwargs)

    def record_features(self) -> dict[str, Any]:
        """A film and the collection it is from."""
        return {"xray": image_features(), "site": tfds.features.Text()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Two or three classes; known once the lists are read."""
        return {"disease": self._classes}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the films by list, in the order of its lines."""
        lists = {side: _list_of(manual_dir, side, self.EXPECTED_LAYOUT) for side in _SIDES}
        lines = {
            side: [_parsed(words) for words in read_words(path, 3)]
            for side, path in lists.items()
            if path is not None
        }
        found = {label for side in lines.values() for _, _, label, _ in side}
        self._classes = THREE if found & set(THREE) else BINARY
        for side, rows in lines.items():
            path = lists[side]
            assert path is not None
            folder = first_there([manual_dir / side], self.EXPECTED_LAYOUT)
            for patient, name, label, collection in rows:
                yield late_record(
                    "xray",
                    functools.partial(picture, file_named(folder, name, path)),
                    sample_id=f"{side}/{name}",
                    group_id=f"{collection or 'unnamed'}/{patient}",
                    targets={"disease": one_of(label, self._classes, "class", path)},
                    stratum=label,
                    official_split=_SIDES[side],
                    more={"site": collection},
                )


def _list_of(root: Path, side: str, layout: str) -> Path | None:
    found = sorted(path for path in root.glob(f"{side}*.txt") if path.is_file())
    if len(found) > 1:
        raise UserError(
            f"the folder {root} has {len(found)} lists named {side}*.txt "
            f"({', '.join(path.name for path in found)}); accepted: one"
        )
    if not found and side != "val":
        raise UserError(f"the folder {root} has no list {side}*.txt; expected layout: {layout}")
    return found[0] if found else None


def _parsed(words: list[str]) -> tuple[str, str, str, str]:
    """Patient, file, class and collection; a file name may hold blanks, early lists lack the last.

    p1 a.png positive cohen       ->  p1, a.png, positive, cohen
    p1 a b.png positive cohen     ->  p1, a b.png, positive, cohen
    p1 a.png COVID-19             ->  p1, a.png, COVID-19, ""
    """
    named = {*BINARY, *THREE}
    if words[-1] in named:
        return words[0], " ".join(words[1:-1]), words[-1], ""
    return words[0], " ".join(words[1:-2]), words[-2], words[-1]
