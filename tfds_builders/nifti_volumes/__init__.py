"""Any folder of NIfTI volumes, MRI or CT, with a table of labels or without."""
