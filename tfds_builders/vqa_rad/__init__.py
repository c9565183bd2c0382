"""VQA-RAD: questions of clinicians about radiological pictures."""
