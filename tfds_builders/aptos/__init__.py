"""Retinal photographs graded for diabetic retinopathy (APTOS 2019)."""
