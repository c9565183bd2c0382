"""Single chest CT slices as DICOM, with or without contrast agent (SIIM tutorial set)."""
