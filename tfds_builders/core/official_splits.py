"""Builders with two configs: the house's split by group, and the publisher's own."""

from __future__ import annotations

import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.planning import DuplicatePolicy, SplitMode


class OfficialSplitBuilder(MedicalBuilder, skip_registration=True):
    """Base of sources with a published split. Its records give `official_split`.

    `original` splits whatever is there by group; equal files of two groups unite them. `official`
    keeps to the publisher: a group in two of its splits ends the build, and of copies across
    splits only those in test, else in validation, are kept.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="original", description="All records, split by group."),
        tfds.core.BuilderConfig(
            name="official",
            description="The publisher's split; where it has no validation, 15/85 of the "
            "training groups become one.",
        ),
    ]

    @property
    def is_official(self) -> bool:
        """Whether the publisher's split is kept."""
        return self.builder_config is not None and self.builder_config.name == "official"

    def split_mode(self) -> SplitMode:
        """The publisher's split in `official`."""
        return "official" if self.is_official else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal files of two groups are of one group; a published split can only leave out."""
        return "leave_out" if self.is_official else "merge_groups"
