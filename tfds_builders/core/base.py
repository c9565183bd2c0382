"""`MedicalBuilder`: what a source's builder inherits. tfds_builders/README.md is its guide.

A build reads the source twice. The index pass keeps ids, groups, class labels and audit keys;
with them the splits are set and duplicates are looked for before a record is written. The writing
pass streams the records of one split after the other. Nothing of a payload is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core import beam
from tfds_builders.core.build import Build
from tfds_builders.core.build_options import BuildOptions, current_options
from tfds_builders.core.card import check_datasheet, how_to_obtain, write_card
from tfds_builders.core.downloads import Download, Downloader, obtain
from tfds_builders.core.paper import PaperCitation
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import DEFAULT_MAX_RATE, Quarantine
from tfds_builders.core.records import BASE_KEYS, Datasheet, SourceCard, SourceItem
from tfds_builders.core.streamed import StreamedSplit
from tfds_builders.core.tally import NoStatistics, Statistics
from tfds_builders.core.targets import TargetKind, target_features

Example = dict[str, Any]


class MedicalBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of all sources.

    A subclass is named `Builder`, lives in `<name>/<name>_dataset_builder.py` and sets:

    Attributes:
        VERSION: of the records it writes.
        CARD: see `SourceCard`.
        DATASHEET: see `Datasheet`.
        EXPECTED_LAYOUT: the files it looks for below the manual folder, for error messages.
        NEEDS_MANUAL_DIR: False for a source that is generated.
        MAX_BAD_RATE: share of unreadable records above which a build fails.
        SPLIT_MODE: "group" or "official"; override `split_mode` where it depends on the config.
        ON_DUPLICATES: what happens to duplicates of different groups; override
            `duplicate_policy` where it depends on the config.
            "fail": those across splits are listed and end the build;
            "merge_groups": their groups become one before splitting (real patients);
            "share_group": each copy moves to its first twin's group before splitting (number
            blocks of a source without patient ids, which merging would chain up);
            "leave_out": across splits only the copies in test, else in validation, are kept.
        DOWNLOADS: published files with their hashes; they lie in `self.download_dir` when
            `read_source` is called, which gets that folder where no manual folder is needed.
        MANUAL_INSTRUCTIONS: what to do by hand, shown where the manual folder is missing or
            holds no records; the card's `how_to_obtain` where it is empty.
        PRIVATE_IDS: "sample_id", "group_id" or both, where the source's own ids may name people:
            they leave the build as keyed hashes alone; splits follow the source's ids.
        PAPER: how the MultiMed paper cites this source; () where no document says that it does.
        LEARNT: names of attributes that a walk of `read_source` computes at a cost, such as
            clusters; workers of a Beam build get them from the driver. Values that JSON keeps.
        ALIASES: other sources whose records this one holds too, such as "covid_chestxray"; the
            audit between datasets accepts these within one split.
    """

    CARD: ClassVar[SourceCard]
    DATASHEET: ClassVar[Datasheet]
    EXPECTED_LAYOUT: ClassVar[str]
    NEEDS_MANUAL_DIR: ClassVar[bool] = True
    MAX_BAD_RATE: ClassVar[float] = DEFAULT_MAX_RATE
    SPLIT_MODE: ClassVar[SplitMode] = "group"
    ON_DUPLICATES: ClassVar[DuplicatePolicy] = "fail"
    DOWNLOADS: ClassVar[tuple[Download, ...]] = ()
    MANUAL_INSTRUCTIONS: ClassVar[str] = ""
    PRIVATE_IDS: ClassVar[tuple[str, ...]] = ()
    LEARNT: ClassVar[tuple[str, ...]] = ()
    ALIASES: ClassVar[tuple[str, ...]] = ()
    PAPER: ClassVar[tuple[PaperCitation, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "CARD" in cls.__dict__:
            cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.MANUAL_INSTRUCTIONS or cls.CARD.how_to_obtain

    def __init__(
        self,
        *,
        file_format: Any = "array_record",
        options: BuildOptions | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets array_record, which needs no TensorFlow, in place of tfds's default."""
        self.options = options or current_options()
        super().__init__(file_format=file_format or "array_record", **kwargs)

    # ------------------------------------------------------------- what a source provides

    def record_features(self) -> dict[str, Any]:
        """The tfds features of the record, without `sample_id`, `group_id`, `unit`, `targets`."""
        raise NotImplementedError

    def target_kinds(self) -> dict[str, TargetKind]:
        """Kind of every task's target (`core.targets`); a task that is left out has classes."""
        return {}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Names of classes, labels or columns in order, for every task.

        The tasks are fixed; names that depend on the source may become known in `read_source`.
        """
        raise NotImplementedError

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceItem]:
        """Yields every record of the source, in an order that is the same at each call.

        Unreadable records go to `quarantine.add`, records left out by rule to
        `quarantine.leave_out`. A missing file, folder or column raises UserError. What is costly
        to read is left to the functions of a `SourceRecord` or a `SourcePart`: every worker of a
        Beam build walks through all of them and calls those of its blocks.
        """
        raise NotImplementedError

    def stream_splits(self) -> dict[str, StreamedSplit] | None:
        """Splits known without an index pass; None for sources that are read. See `phantoms`.

        A streamed source vouches that no group lies in two splits; it takes part in no audit.
        """
        return None

    def split_mode(self) -> SplitMode:
        """How the records are split; see `SPLIT_MODE`."""
        return self.SPLIT_MODE

    def duplicate_policy(self) -> DuplicatePolicy:
        """What happens to duplicates; see `ON_DUPLICATES`."""
        return self.ON_DUPLICATES

    def statistics(self) -> Statistics:
        """Empty statistics of written records, for `extra_metadata`; asked for after the walk."""
        return NoStatistics()

    @property
    def written(self) -> Any:
        """`statistics` of all written records."""
        return self._build.tally.statistics

    def extra_metadata(self) -> dict[str, Any]:
        """Further metadata, asked for after the last record is written."""
        return {}

    def make_downloader(self, folder: Path) -> Downloader:
        """What fetches `DOWNLOADS` into a folder."""
        return Downloader(folder)

    # ------------------------------------------------------------------------ tfds hooks

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            **{key: tfds.features.Text() for key in BASE_KEYS},
            **self.record_features(),
            "targets": target_features(self.class_names(), self.target_kinds()),
        }
        self._metadata_dict = tfds.core.MetadataDict()
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.CARD.title,
            features=tfds.features.FeaturesDict(features),
            homepage=self.CARD.homepage,
            citation=self.CARD.citation,
            license=self.CARD.licence,
            metadata=self._metadata_dict,
        )

    def _make_download_manager(self, download_dir: Any, download_config: Any) -> Any:
        self.options.check_terms(self.CARD)
        beam.check(download_config)
        # tfds itself answers a missing manual folder with an AssertionError.
        given = download_config.manual_dir
        if self.NEEDS_MANUAL_DIR and (given is None or not Path(given).is_dir()):
            wrong = (
                f"{self.CARD.name} needs --manual_dir, the folder that holds"
                if given is None
                else f"the folder {given} does not exist; expected layout:"
            )
            raise UserError(f"{wrong} {self.EXPECTED_LAYOUT}; {how_to_obtain(self)}")
        return super()._make_download_manager(download_dir, download_config)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, Example]]]:
        return self._begin(dl_manager).generators()

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[str, Example]]:
        # tfds demands it; `_split_generators` already returns the generators.
        raise NotImplementedError

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[Any]:
        return self._begin(dl_manager).write(download_config)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        if download_config.max_examples_per_split == 0:
            return
        metadata = {**self._build.metadata(), **self.extra_metadata()}
        self._metadata_dict.update(metadata)
        write_card(Path(self.data_dir), self.CARD, self.DATASHEET, self.info, metadata)

    def _begin(self, dl_manager: Any) -> Build:
        check_datasheet(self.DATASHEET)
        names = self.options.names(self.PRIVATE_IDS, self.CARD.namespace, Path(self._data_dir_root))
        streamed = self.stream_splits()
        manual_dir = Path()
        if streamed is None:
            if self.DOWNLOADS:
                folder = Path(dl_manager._download_dir) / self.CARD.name
                self.download_dir = obtain(self.DOWNLOADS, self.make_downloader(folder))
            manual_dir = (
                self.download_dir
                if self.DOWNLOADS and not self.NEEDS_MANUAL_DIR
                else Path(dl_manager._manual_dir)  # checked above; the property asserts
            )
        self._build = Build(self, names, streamed, manual_dir)
        return self._build


def age_years(value: float | None) -> np.float32:
    """The record's `age_years`: NaN where the source lacks it."""
    return np.float32(np.nan if value is None else value)
