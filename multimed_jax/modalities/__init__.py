"""One file per modality, each ending in `SPEC`. Siblings never import each other."""
