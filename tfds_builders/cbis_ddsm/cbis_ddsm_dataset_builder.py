"""Builder of CBIS-DDSM: whole mammograms by the four tables of case descriptions."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.features import image_features
from tfds_builders.core.listings import first_there, one_of
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.picture_records import Payload, late_record
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.radiograph import radiograph
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord, UnreadableRecord
from tfds_builders.core.tables import read_csv

CLASSES = ("benign", "malignant")
_PATHOLOGIES = ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")
_KINDS = ("mass", "calc")
_SIDES = ("train", "test")
_COLUMNS = ("patient_id", "pathology", "image file path")
_CASE = re.compile(r"(?:Mass|Calc)-(?:Training|Test)_P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO)", re.ASCII)


@dataclasses.dataclass
class _Mammogram:
    """One view and what its rows say of its abnormalities."""

    kind: str
    side: str
    patient: str
    path: Path
    is_malignant: bool


class Builder(OfficialSplitBuilder):
    """Digitised screening mammograms with masses or calcifications."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="cbis_ddsm",
        title="CBIS-DDSM: mammograms with masses or calcifications, benign or malignant",
        namespace="cbis_ddsm",
        modalities=("xray",),
        tasks=("breast",),
        publisher="Sawyer-Lee, Gimenez, Hoogi, Rubin (The Cancer Imaging Archive)",
        homepage="https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY",
        licence="CC BY 3.0",
        licence_forbids="Use without naming the authors and the archive.",
        how_to_obtain="The Cancer Imaging Archive, collection CBIS-DDSM: the images in the classic "
        "directory layout or the descriptive one, and the four csv files; --manual_dir is the "
        "folder that holds the csv files and CBIS-DDSM",
        citation="Lee, R. S. et al. A curated mammography data set for use in computer-aided "
        "detection and diagnosis research. Sci Data 4, 170177 (2017). doi:10.1038/sdata.2017.177",
        group_key="patient (column patient_id), in masses and calcifications alike",
        unit="image",
        size="3,103 mammograms",
    )
    DATASHEET = Datasheet(
        collection="Film mammograms of four hospitals of the United States, 1988 to 1999, "
        "digitised for the DDSM and curated again in 2016.",
        labels="Pathology by biopsy, or benign by follow-up (without callback). An image with "
        "several abnormalities counts as malignant where one of them is.",
        personal_data="Patients are running numbers; of the header only pixels and spacing are "
        "kept.",
        consent="Described with the DDSM: released without identity by the hospitals.",
        patients_separable="Yes, by the column patient_id.",
        known_biases="Every image has an abnormality, there is no normal one; scanners differ by "
        "hospital and so by case mix; density and age are not balanced.",
        intended_use="Development and testing of classification of mammograms.",
        unsuitable_use="Screening; claims on digital mammography or on clinical performance.",
    )
    EXPECTED_LAYOUT = (
        "{mass,calc}_case_description_{train,test}_set.csv and "
        "CBIS-DDSM/<Mass|Calc>-<Training|Test>_P_<n>_<LEFT|RIGHT>_<CC|MLO>/<study>/<series>/*.dcm"
    )

    def record_features(self) -> dict[str, Any]:
        """One view."""
        return {"xray": image_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """In order of severity."""
        return {"breast": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the views by table, in the order of their first rows."""
        images = first_there([manual_dir / "CBIS-DDSM", manual_dir], self.EXPECTED_LAYOUT)
        views = [
            view
            for kind in _KINDS
            for side in _SIDES
            for view in _views(manual_dir, images, kind, side)
        ]
        tested = {(view.kind, view.patient) for view in views if view.side == "test"}
        for view in views:
            own = (view.kind, view.patient) in tested
            if self.is_official and view.side == "train" and not own:
                if any((kind, view.patient) in tested for kind in _KINDS):
                    # The two kinds were split apart from each other.
                    quarantine.leave_out("training view of a patient tested for the other kind")
                    continue
            read = functools.partial(_mammogram, view.path, self.options.accept_burned_in)
            yield late_record(
                "xray",
                read,
                sample_id=view.path.name,
                group_id=view.patient,
                targets={"breast": int(view.is_malignant)},
                stratum=CLASSES[view.is_malignant],
                official_split=view.side,
            )


def _views(root: Path, images: Path, kind: str, side: str) -> list[_Mammogram]:
    table = root / f"{kind}_case_description_{side}_set.csv"
    views: dict[str, _Mammogram] = {}
    for row in read_csv(table, _COLUMNS):
        place = row["image file path"].strip()
        case = place.split("/")[0]
        patient = row["patient_id"].strip()
        if _CASE.fullmatch(case) is None or f"_{patient}_" not in case:
            raise UserError(
                f"the file {table} has the image file path {place!r} beside the patient "
                f"{patient!r}; expected <Mass|Calc>-<Training|Test>_<patient>_<side>_<view>/..."
            )
        pathology = one_of(row["pathology"], _PATHOLOGIES, "pathology", table)
        view = views.setdefault(case, _Mammogram(kind, side, patient, images / case, False))
        view.is_malignant |= _PATHOLOGIES[pathology] == "MALIGNANT"
    return list(views.values())


def _mammogram(case: Path, accept_burned_in: bool) -> Payload:
    """The one DICOM file below a case's folder, whatever the downloader named the folders."""
    found = sorted(p for p in case.rglob("*") if p.suffix.lower() == ".dcm" and p.is_file())
    if len(found) != 1:
        raise UnreadableRecord(f"has {len(found)} DICOM files in its folder; accepted: 1")
    payload = radiograph(found[0], ("MG",), accept_burned_in)
    return Payload(payload.value, payload.audit)
