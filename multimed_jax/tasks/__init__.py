"""One file per task, each ending in `SPEC`. Siblings never import each other."""
