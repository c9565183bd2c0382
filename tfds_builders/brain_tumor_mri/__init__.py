"""Brain tumour MRI slices in four classes (Nickparvar)."""
