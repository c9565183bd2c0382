"""CT slices from DICOM: units, signs and padding against numbers by hand and pydicom's own."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.pixels.processing import apply_modality_lut

from tests.tfds_builders.dicoms import make_ct, save
from tfds_builders.core.dicom import AIR_HU, read_ct_slice
from tfds_builders.core.records import UnreadableRecord

UNSIGNED = np.array([[0, 1024, 4095], [40, 1064, 2000]], np.uint16)
SIGNED = np.array([[-2000, 1024, 4095], [-2000, 1064, -1]], np.int16)


def read(tmp_path, stored=UNSIGNED, **changes):
    return read_ct_slice(save(make_ct(stored, **changes), tmp_path / "x.dcm"), "salt")


def refused(tmp_path, match, stored=UNSIGNED, **changes):
    with pytest.raises(UnreadableRecord, match=match):
        read(tmp_path, stored, **changes)


def test_water_is_zero_and_air_is_minus_1000(tmp_path):
    scan = read(tmp_path)
    assert scan.hu.dtype == np.int16
    np.testing.assert_array_equal(scan.hu, [[[-1024, 0, 3071], [-984, 40, 976]]])
    assert scan.spacing_mm == (0.0, 0.5, 0.75)
    assert (scan.sex, scan.age_years, scan.manufacturer) == ("female", 63, "ACME")


def test_slopes_are_applied_before_rounding(tmp_path):
    scan = read(tmp_path, RescaleSlope="1.000244", RescaleIntercept="-1000.4")
    path = tmp_path / "x.dcm"
    header = pydicom.dcmread(path)
    expected = np.rint(apply_modality_lut(header.pixel_array, header))
    np.testing.assert_array_equal(scan.hu[0], expected)
    assert (expected != UNSIGNED.astype(int) - 1000).any()


@pytest.mark.parametrize(("vr", "padding"), [("SS", -2000), ("US", 63536)])
def test_padding_is_air_whichever_sign_it_was_written_with(tmp_path, vr, padding):
    data = make_ct(SIGNED)
    data.add_new("PixelPaddingValue", vr, padding)
    scan = read_ct_slice(save(data, tmp_path / "x.dcm"), "salt")
    np.testing.assert_array_equal(scan.hu, [[[AIR_HU, 0, 3071], [AIR_HU, 40, -1025]]])


def test_unsigned_pixels_with_a_signed_padding_value(tmp_path):
    stored = SIGNED.view(np.uint16)
    data = make_ct(stored, RescaleIntercept="0")
    data.add_new("PixelPaddingValue", "SS", -2000)
    scan = read_ct_slice(save(data, tmp_path / "x.dcm"), "salt")
    assert (scan.hu[0] == AIR_HU).sum() == 2
    assert scan.hu[0, 0, 1] == 1024
    assert scan.hu[0, 1, 2] == 32767  # 65535 does not fit: the highest value that does


def test_one_slice_written_with_and_without_a_sign(tmp_path):
    """Signed and unsigned, 16 stored bits and 12, with and without the sign beyond the 12."""
    hu = np.array([[-1000, 0, 1047], [-1, -1024, 40]], np.int16)
    above = hu.view(np.uint16) & 0x0FFF  # what a writer leaves out of the 4 highest bits
    twelve = {"BitsStored": 12, "HighBit": 11}
    ways = {
        "signed": (hu, {"RescaleIntercept": "0"}),
        "unsigned": ((hu + 1024).astype(np.uint16), {}),
        "12 bits, sign extended": (hu, {"RescaleIntercept": "0", **twelve}),
        "12 bits, sign in bit 11": (
            above,
            {"RescaleIntercept": "0", "PixelRepresentation": 1, **twelve},
        ),
        "12 bits, an overlay above": ((hu + 1024).astype(np.uint16) | 0x8000, twelve),
    }
    for way, (stored, changes) in ways.items():
        np.testing.assert_array_equal(read(tmp_path, stored, **changes).hu, hu[None], err_msg=way)


def test_a_range_of_padding(tmp_path):
    data = make_ct(UNSIGNED)
    data.PixelPaddingValue, data.PixelPaddingRangeLimit = 0, 40
    scan = read_ct_slice(save(data, tmp_path / "x.dcm"), "salt")
    np.testing.assert_array_equal(scan.hu, [[[AIR_HU, 0, 3071], [AIR_HU, 40, 976]]])


def test_values_beyond_16_bits_become_the_last_that_fit(tmp_path):
    hu = read(tmp_path, RescaleSlope="1e308").hu
    assert hu[0].tolist() == [[-1024, 32767, 32767], [32767, 32767, 32767]]


def test_monochrome1_changes_no_hounsfield_unit(tmp_path):
    changed = read(tmp_path, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(changed.hu, read(tmp_path).hu)


@pytest.mark.parametrize(
    ("age", "years"), [("063Y", 63), ("006M", 0.5), ("010D", 10 / 365.25), ("old", None)]
)
def test_ages(tmp_path, age, years):
    with disable_value_validation():
        found = read(tmp_path, PatientAge=age).age_years
    assert found == (years if years is None else pytest.approx(years))


def test_a_patient_is_kept_as_a_salted_hash(tmp_path):
    path = save(make_ct(UNSIGNED), tmp_path / "x.dcm")
    other = save(make_ct(UNSIGNED, PatientID="P-2"), tmp_path / "y.dcm")
    one = read_ct_slice(path, "salt")
    assert one.patient == read_ct_slice(path, "salt").patient
    assert (
        len({one.patient, read_ct_slice(path, "s").patient, read_ct_slice(other, "salt").patient})
        == 3
    )
    for text in ("P-1", "Doe", "Jane"):
        assert text not in repr(one)


def test_a_distance_between_slices_is_kept(tmp_path):
    assert read(tmp_path, SpacingBetweenSlices="2.5").spacing_mm == (2.5, 0.5, 0.75)
    assert read(tmp_path, PixelSpacing=None).spacing_mm == (0, 0, 0)


def test_what_is_no_slice_in_hounsfield_units(tmp_path):
    refused(tmp_path, "has no RescaleSlope, so its values are no Hounsfield", RescaleSlope=None)
    refused(tmp_path, "has no RescaleIntercept", RescaleIntercept=None)
    refused(tmp_path, "rescale slope 0; accepted: above 0", RescaleSlope="0")
    refused(tmp_path, "rescaled to 'US'; accepted: 'HU'", RescaleType="US")
    refused(tmp_path, "modality 'MR'; accepted: 'CT'", Modality="MR")
    refused(tmp_path, "modality None", Modality=None)
    refused(tmp_path, "1 frame.s. of 3 sample", SamplesPerPixel=3)
    refused(tmp_path, "2 frame.s. of 1", np.stack([UNSIGNED] * 2), NumberOfFrames=2)
    refused(tmp_path, "interpretation 'PALETTE COLOR'", PhotometricInterpretation="PALETTE COLOR")
    refused(tmp_path, "has no PatientID", PatientID=None)
    refused(tmp_path, "pixels that do not decode", PixelData=b"\1\2")
    refused(tmp_path, "pixels that do not decode", PixelData=None)
    refused(tmp_path, "has 0 x 3 pixels", Rows=0)
    refused(tmp_path, "has 65535 x 65535 pixels", Rows=65535, Columns=65535)


def test_damaged_files(tmp_path):
    path = save(make_ct(UNSIGNED), tmp_path / "x.dcm")
    content = path.read_bytes()
    for damaged in (b"", b"text", b"\0" * 500, content[:200], content[:-6]):
        path.write_bytes(damaged)
        with pytest.raises(UnreadableRecord):
            read_ct_slice(path, "salt")
    with pytest.raises(UnreadableRecord, match="cannot be opened .No such file"):
        read_ct_slice(tmp_path / "none.dcm", "salt")


def test_any_damage_is_refused_or_read(tmp_path):
    path = save(make_ct(UNSIGNED), tmp_path / "x.dcm")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for at in rng.integers(128, len(content), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            assert read_ct_slice(path, "salt").hu.dtype == np.int16
        except UnreadableRecord:
            pass
