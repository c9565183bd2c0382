"""Pictures, tiles and volumes of a table: JPEG, PNG, NIfTI, DICOM."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfds_builders.core import features
from tfds_builders.core.dicom import read_ct_slice
from tfds_builders.core.dicom_volume import read_series
from tfds_builders.core.images import look_of, read_image
from tfds_builders.core.nifti import Volume, is_nifti, read_volume
from tfds_builders.core.records import AuditKey, UnreadableRecord, array_audit
from tfds_builders.own_data.inputs import Input
from tfds_builders.own_data.readers import file_of, has_cell
from tfds_builders.own_data.table import Sample

_INT16 = np.iinfo(np.int16)
_PICTURES = (".jpg", ".jpeg", ".png")


class _FileReader:
    """What readers of the column `file` share."""

    def __init__(self, given: Input, accept_burned_in: bool = False) -> None:
        """Reads as the config's input and the build's options say."""
        self._input = given
        self._accept_burned_in = accept_burned_in

    def present(self, sample: Sample) -> bool:
        return has_cell(sample, self._input.file)

    def _path(self, manual_dir: Path, sample: Sample) -> Path:
        return file_of(manual_dir, sample.rows[0], self._input.file)

    def _volume(self, path: Path, modality: Literal["CT", "MR"]) -> Volume:
        if path.is_dir():
            return read_series(path, modality, self._accept_burned_in)
        return read_volume(path, "refuse")


class PictureReader(_FileReader):
    """One JPEG or PNG file for each sample."""

    def features(self) -> Any:
        return features.image_features()

    def empty(self) -> Any:
        return {"encoded": b"", "height": 0, "width": 0, "spacing_mm": np.zeros(2, np.float32)}

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        return read_image(self._path(manual_dir, sample)).value(self._input.spacing_mm)

    def audit(self, value: Any) -> AuditKey:
        return look_of(value["encoded"])


class TileReader(_FileReader):
    """One tile or more for each sample: a row each, or a folder of them."""

    def features(self) -> Any:
        return features.pathology_features()

    def empty(self) -> Any:
        return self._value([])

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        paths = [file_of(manual_dir, row, self._input.file) for row in sample.rows]
        tiles = []
        for path in paths:
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
            tiles += [read_image(p) for p in inside if p.suffix.lower() in _PICTURES]
        if not tiles:
            raise UnreadableRecord(f"names no tile; accepted: {', '.join(_PICTURES)}")
        return self._value(tiles)

    def _value(self, tiles: list[Any]) -> Any:
        return {
            "tiles": [tile.encoded for tile in tiles],
            "heights": np.array([tile.height for tile in tiles], np.int32),
            "widths": np.array([tile.width for tile in tiles], np.int32),
            "microns_per_pixel": np.float32(self._input.microns_per_pixel),
        }

    def audit(self, value: Any) -> AuditKey:
        first, *others = value["tiles"]
        if not others:
            return look_of(first)
        digests = [hashlib.sha256(tile).digest() for tile in value["tiles"]]
        return AuditKey(hashlib.sha256(b"".join(digests)).digest())


class CtReader(_FileReader):
    """Hounsfield units from a NIfTI file, a DICOM slice or a folder with a DICOM series."""

    def features(self) -> Any:
        return features.ct_features()

    def empty(self) -> Any:
        return {"hu": np.zeros((0, 0, 0), np.int16), "spacing_mm": np.zeros(3, np.float32)}

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        path = self._path(manual_dir, sample)
        if not (is_nifti(path) or path.is_dir()):
            one = read_ct_slice(path, "own_data", self._accept_burned_in)
            return {"hu": one.hu, "spacing_mm": np.asarray(one.spacing_mm, np.float32)}
        volume = self._volume(path, "CT")
        hu = np.clip(np.rint(volume.voxels), _INT16.min, _INT16.max).astype(np.int16)
        return {"hu": hu, "spacing_mm": np.asarray(volume.spacing_mm, np.float32)}

    def audit(self, value: Any) -> AuditKey:
        return array_audit(value["hu"])


class MriVolumeReader(_FileReader):
    """Intensities from a NIfTI file or a folder with a DICOM series."""

    def features(self) -> Any:
        return features.mri_volume_features()

    def empty(self) -> Any:
        return self._value(Volume(np.zeros((0, 0, 0), np.float32), (0.0, 0.0, 0.0), 0), "")

    def read(self, manual_dir: Path, sample: Sample) -> Any:
        path = self._path(manual_dir, sample)
        volume = self._volume(path, "MR")
        return self._value(volume, self._input.sequence)

    def _value(self, volume: Volume, sequence: str) -> Any:
        spacing = np.asarray(volume.spacing_mm, np.float32)
        return {"voxels": volume.voxels, "spacing_mm": spacing, "sequence": sequence}

    def audit(self, value: Any) -> AuditKey:
        return array_audit(value["voxels"])
