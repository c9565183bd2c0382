"""Builder of the Brain Tumor MRI Dataset: `{Training,Testing}/<class>/<file>.jpg`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import image_features
from tfds_builders.core.folders import files, subfolders
from tfds_builders.core.picture_records import film, late_record
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SIDES = {"Training": "train", "Testing": "test"}
# Neighbouring numbers can be slices of one patient; 3,064 slices of the set's largest part come
# from 233 patients, about 13 each (Cheng, figshare 1512427).
BLOCK_SIZE = 10
_NAME = re.compile(r"(?P<collection>.+)_(?P<number>\d+)", re.ASCII)


def number_block(stem: str) -> str:
    """The block of ten neighbouring numbers a file belongs to: "Tr-gl_0214" -> "Tr-gl_0210".

    It depends on the name alone, so both copies of a file are in the same block.

    Raises:
        UserError: where the name does not end in a number.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise UserError(
            f"the file name {stem!r} has no number; expected <Tr|Te>-<gl|me|no|pi>[Tr]_<4 digits>"
        )
    first = int(match["number"]) // BLOCK_SIZE * BLOCK_SIZE
    return f"{match['collection']}_{first:04d}"


class Builder(MedicalBuilder):
    """Brain MRI slices: glioma, meningioma, pituitary tumour or none."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="native", description="Files at their published size."),
        tfds.core.BuilderConfig(
            name="resized_224",
            description="A copy resized to 224 x 224 under the same names; its files have the "
            "groups and splits of their native twins.",
        ),
        tfds.core.BuilderConfig(
            name="official",
            description="The published Training and Testing folders; training images that recur "
            "in Testing are left out.",
        ),
    ]
    CARD = SourceCard(
        name="brain_tumor_mri",
        title="Brain Tumor MRI Dataset: 2-D slices of glioma, meningioma, pituitary tumour, none",
        namespace="brain_tumor_mri",
        modalities=("mri",),
        tasks=("tumor",),
        publisher="Masoud Nickparvar (Kaggle), from figshare 1512427, SARTAJ and Br35H",
        homepage="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
        licence="CC0 according to third parties; check the Kaggle page",
        licence_forbids="Nothing if CC0 holds; the terms of the three merged sets are not stated.",
        how_to_obtain="download kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset and "
        "unpack it; --manual_dir is the folder that holds Training and Testing",
        citation="Nickparvar, M. Brain Tumor MRI Dataset. Kaggle, 2021. doi:10.34740/KAGGLE/DSV/"
        "2645886",
        group_key=f"block of {BLOCK_SIZE} neighbouring numbers of one class and collection "
        "(no patient id is published); a copy joins the block of its first twin",
        unit="slice",
        size="7,023 slices",
    )
    DATASHEET = Datasheet(
        collection="Merged by one person from three public sets of contrast-enhanced T1 and other "
        "slices; scanners and protocols are not stated.",
        labels="Taken over from the merged sets; some glioma labels of SARTAJ are known to be "
        "wrong.",
        personal_data="No identifiers: JPEG slices without headers, named by class and number.",
        consent="Unknown: the merged sets do not state consent or ethics approval.",
        patients_separable="No: patient ids were lost in the merge; number blocks stand in.",
        known_biases="Slices without tumour come from another collection (Br35H) than the tumour "
        "classes, so a model can win on the look of the source.",
        intended_use="Development and testing of image classification of slices.",
        unsuitable_use="Any claim on patients, prevalence or clinical performance.",
    )
    EXPECTED_LAYOUT = "{Training,Testing}/{glioma,meningioma,notumor,pituitary}/*.jpg"

    def split_mode(self) -> SplitMode:
        """Official only where the config asks for it."""
        return "official" if self._is_official else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """The published set repeats images, also between Training and Testing."""
        return "leave_out" if self._is_official else "share_group"

    @property
    def _is_official(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "official"

    def record_features(self) -> dict[str, Any]:
        """One slice."""
        return {"mri": image_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The names of the class folders."""
        return {"tumor": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the slices by folder and name."""
        sides = subfolders(manual_dir, tuple(SIDES), others_allowed=True)
        for side in sides:
            for label, folder in enumerate(subfolders(side, CLASSES)):
                for path in files(folder, (".jpg", ".jpeg", ".png")):
                    yield late_record(
                        "mri",
                        functools.partial(film, path),
                        sample_id=f"{side.name}/{folder.name}/{path.name}",
                        group_id=f"{folder.name}/{number_block(path.stem)}",
                        targets={"tumor": label},
                        stratum=folder.name,
                        official_split=SIDES[side.name],
                    )
