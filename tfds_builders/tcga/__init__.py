"""TCGA through the GDC: expression of tumours, whole or from the DNA of each gene."""
