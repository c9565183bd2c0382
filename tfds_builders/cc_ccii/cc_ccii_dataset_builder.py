"""Builder of CC-CCII: folders of slices by class, patient and scan."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import ct_features
from tfds_builders.core.folders import files, subfolders
from tfds_builders.core.paper import PaperCitation
from tfds_builders.core.picture_records import grey_slice, grey_volume, late_record
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord

_FOLDERS = ("Normal", "CP", "NCP")
CLASSES = ("normal", "common pneumonia", "COVID-19")
_EXTENSIONS = (".png", ".jpg", ".jpeg")


class Builder(MedicalBuilder):
    """Chest CT slices, or whole scans, in three classes."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="slices", description="Every slice is a record."),
        tfds.core.BuilderConfig(
            name="scans", description="Every scan is a record of depth above 1."
        ),
    ]
    CARD = SourceCard(
        name="cc_ccii",
        title="CC-CCII: chest CT of COVID-19, other pneumonia and healthy people",
        namespace="cc_ccii",
        modalities=("ct",),
        tasks=("disease",),
        publisher="China Consortium of Chest CT Image Investigation (China National Center for "
        "Bioinformation)",
        homepage="http://ncov-ai.big.ac.cn/download",
        licence="for research, see the download page",
        licence_forbids="What the download page excludes; use other than for research.",
        how_to_obtain="http://ncov-ai.big.ac.cn/download: all zip files of Normal, CP and NCP, "
        "unpacked; --manual_dir is the folder that holds Normal, CP and NCP",
        citation="Zhang, K. et al. Clinically Applicable AI System for Accurate Diagnosis, "
        "Quantitative Measurements, and Prognosis of COVID-19 Pneumonia Using Computed Tomography. "
        "Cell 181 (2020). doi:10.1016/j.cell.2020.04.045",
        group_key="class and patient (the number of a patient is unique in its class alone), "
        "written as covidx_ct writes it: NCP_328",
        unit="slice or scan",
        size="617,775 slices of 4,154 patients",
        restricted=True,
    )
    PAPER = (
        PaperCitation(
            task="disease",
            cited="CT, 617,775 scans",
            really="CC-CCII: slices, not scans, of 4,154 patients; COVIDx CT takes from it",
        ),
    )
    DATASHEET = Datasheet(
        collection="Chest CT of hospitals in China in early 2020, exported as 8-bit pictures; many "
        "are cropped or masked to the lung.",
        labels="By the diagnosis of the patient, so slices without a lesion carry it too.",
        personal_data="None: running numbers; pictures without a header.",
        consent="Approved by the review boards named in the paper.",
        patients_separable="Yes, by folder.",
        known_biases="Export, crop and scanner go along with class and hospital; the order of "
        "slices and the display window are not the same in all scans.",
        intended_use="Comparison with published results; testing of pipelines.",
        unsuitable_use="Density in Hounsfield units, which is lost; any clinical use.",
    )
    EXPECTED_LAYOUT = "{Normal,CP,NCP}/<patient>/<scan>/<slice>.{png,jpg}"
    # Equal slices under two numbers are of one patient.
    ON_DUPLICATES = "merge_groups"

    def record_features(self) -> dict[str, Any]:
        """A slice or a scan."""
        return {"ct": ct_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The class folders, healthy first."""
        return {"disease": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields slices or scans by class, patient, scan and number of the slice."""
        whole = self.builder_config is not None and self.builder_config.name == "scans"
        for label, folder in enumerate(subfolders(manual_dir, _FOLDERS, others_allowed=True)):
            for scan in sorted(p for p in folder.glob("*/*") if p.is_dir()):
                slices = sorted(files(scan, _EXTENSIONS), key=_number)
                name = "/".join(scan.relative_to(manual_dir).parts)
                if whole:
                    payloads = [(name, functools.partial(grey_volume, slices))] if slices else []
                else:
                    payloads = [
                        (f"{name}/{p.name}", functools.partial(grey_slice, p)) for p in slices
                    ]
                for sample, read in payloads:
                    yield late_record(
                        "ct",
                        read,
                        sample_id=sample,
                        group_id=f"{folder.name}_{scan.parent.name}",
                        targets={"disease": label},
                        stratum=CLASSES[label],
                    )


def _number(path: Path) -> tuple[int, str]:
    """The last number of a file's name, so that slice 9 comes before slice 10."""
    numbers = re.findall(r"\d+", path.stem, re.ASCII)
    return int(numbers[-1]) if numbers else -1, path.name
