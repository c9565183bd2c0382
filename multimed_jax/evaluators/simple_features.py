"""Simple features of records, side by side over modalities, for the baselines that learn.

Features are `ModalitySpec.features`. A modality that a record lacks, or that cannot be decoded, is
a NaN block, which the baselines read as the training mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.specs import ModalitySpec
from multimed_jax.types import Record

Features = Mapping[str, np.ndarray]  # modality -> vector, of the modalities that a record has


class FeatureReader:
    """Reads the features of the modalities that a record has, and counts what cannot be decoded."""

    def __init__(self, modalities: Sequence[ModalitySpec]):
        self._modalities = modalities
        self.num_undecodable = 0

    def read(self, record: Record) -> Features:
        """The features of one record."""
        found = {}
        for spec in self._modalities:
            try:
                if spec.count(record, spec.options):
                    found[spec.name] = np.asarray(spec.features(record, spec.options), np.float32)
            except DecodeError:
                self.num_undecodable += 1
        return found

    def matrix(self, records: Sequence[Features]) -> Float[np.ndarray, "n F"]:
        """Records as lines, a NaN block where one lacks a modality that another has."""
        blocks = []
        for spec in self._modalities:
            widths = [found[spec.name].size for found in records if spec.name in found]
            if not widths:
                continue
            absent = np.full(widths[0], np.nan, np.float32)
            blocks.append(np.stack([f[spec.name] if spec.name in f else absent for f in records]))
        return np.concatenate(blocks, 1) if blocks else np.zeros((len(records), 0), np.float32)
