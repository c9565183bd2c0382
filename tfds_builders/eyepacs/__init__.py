"""Retinal photographs of both eyes graded for diabetic retinopathy (EyePACS)."""
