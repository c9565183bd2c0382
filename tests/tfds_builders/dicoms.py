"""Tiny generated DICOM files for the tests of CT readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def make_ct(stored: np.ndarray, **changes: Any) -> pydicom.Dataset:
    """A CT slice with the given stored values; `changes` sets tags, None removes them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Modality = "CT"
    data.Manufacturer = "Acme"
    data.PatientID = "P-1"
    data.PatientName = "Doe^Jane"
    data.PatientSex = "F"
    data.PatientAge = "063Y"
    data.PixelSpacing = [0.5, 0.75]
    data.SliceThickness = "5"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * stored.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.PixelData = stored.tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def save(data: pydicom.Dataset, path: Path) -> Path:
    """Writes a file with its preamble and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
