"""Retinal photographs graded for diabetic retinopathy (IDRiD)."""
