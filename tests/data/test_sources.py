"""Built datasets on disk, opened by name; namespaces over sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.config import SourceConfig
from multimed_jax.data.loader import EvalLoader, TrainLoader
from multimed_jax.data.packing import make_layout
from multimed_jax.data.sizes import load_sizes
from multimed_jax.data.sources import namespaces, open_source
from multimed_jax.specs import Namespace
from multimed_jax.types import UserError
from tests.data.fakes import TOY, A, FakeSource, make_config, records_of

COUNTS = {"train": 12, "test": 5}


def label(split: str, i: int) -> int:
    return i % 3 if split == "train" else 2


class ToyDisk(tfds.core.GeneratorBasedBuilder):
    """Vectors in array_record shards; the row count of a record tells its id."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="native"),
        tfds.core.BuilderConfig(name="small"),
    ]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "sample_id": tfds.features.Text(),
                    "group_id": tfds.features.Text(),
                    "a": {"values": tfds.features.Tensor(shape=(None, 3), dtype=np.float32)},
                    "targets": {"toy": tfds.features.Scalar(np.int32)},
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for i in range(COUNTS[split]):
            yield (
                f"{split}-{i}",
                {
                    "sample_id": f"{split}-{i}",
                    "group_id": f"g{i}",
                    "a": {"values": np.full((i % 5 + 1, 3), i, np.float32)},
                    "targets": {"toy": np.int32(label(split, i))},
                },
            )


def build(data_dir: Path, config: str = "native", metadata: bool = True) -> None:
    builder = ToyDisk(data_dir=str(data_dir), config=config, file_format="array_record")
    builder.download_and_prepare()
    if metadata:
        assert builder.info.metadata is not None
        builder.info.metadata.update(
            namespace="toy_disk",
            class_names={"toy": ["x", "y", "z"]},
            class_counts={"train": {"toy": [4, 4, 4]}, "test": {"toy": [0, 0, 5]}},
            content_hash="0123456789abcdef0123",
            split_mode="within_group",
            tasks=["toy"],
        )
        builder.info.write_to_directory(builder.data_dir)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    build(folder)
    return folder


def test_records_and_metadata(data_dir):
    source = open_source(SourceConfig("toy_disk", 1.0), str(data_dir), "train")
    assert len(source) == 12 and source.split == "train"
    assert source.folder == data_dir / "toy_disk" / "native" / "1.2.0"
    ids = sorted(source[row]["sample_id"].decode() for row in range(12))
    assert ids == sorted(f"train-{i}" for i in range(12))
    record = source[3]
    i = int(record["sample_id"].decode().split("-")[1])
    np.testing.assert_array_equal(record["a"]["values"], np.full((i % 5 + 1, 3), i, np.float32))
    assert source.info.class_names == {"toy": ("x", "y", "z")}
    assert source.info.interval_unit == "sample"
    assert source.tasks == ("toy",)
    test = open_source(SourceConfig("toy_disk/native:1.2.0", 1.0), str(data_dir), "test")
    assert test.class_counts == {"toy": (0, 0, 5)}
    assert test.train_class_counts == {"toy": (4, 4, 4)}


def test_on_disk_order_is_not_the_order_of_generation(data_dir):
    """The reason why sizes are counted on finished shards."""
    source = open_source(SourceConfig("toy_disk", 1.0), str(data_dir), "train")
    order = [int(source[row]["sample_id"].decode().split("-")[1]) for row in range(12)]
    assert order != sorted(order)


def test_the_whole_path_from_disk_to_batches(data_dir, tmp_path):
    source = open_source(SourceConfig("toy_disk", 1.0), str(data_dir), "train")
    test = open_source(SourceConfig("toy_disk", 1.0), str(data_dir), "test")
    config = make_config([source], modalities=(A,), lanes=2, window=24, threads=2)
    sizes, test_sizes = (load_sizes(s, (A,), (TOY,), tmp_path) for s in (source, test))
    assert sizes.tokens[:, 0].tolist() == [len(source[i]["a"]["values"]) for i in range(12)]
    assert len(list((data_dir / "toy_disk" / "native").glob("sizes-*"))) == 1
    layout = make_layout(config, [source], [sizes])
    spaces = {"toy": namespaces([source], "toy")}
    with_train = TrainLoader(config, layout, [source], [sizes], spaces)
    batch = next(with_train)
    with_train.close()
    for p, s in zip(*np.nonzero(batch.targets["toy"].weight), strict=True):
        segment = batch.targets["toy"].segment[p, s]
        row = batch.record[p, segment - 1, 1]
        i = int(source[int(row)]["sample_id"].decode().split("-")[1])
        parts = batch.streams["a.toy"].parts[p][batch.streams["a.toy"].segment[p] == segment]
        np.testing.assert_array_equal(parts, np.full((i % 5 + 1, 3), i))
        assert batch.targets["toy"].value[p, s] == label("train", i)
    batches = EvalLoader(config, layout, [test], [test_sizes], spaces)
    found = [pair for batch in batches for pair in records_of(batch)]
    assert sorted(found) == [(0, row) for row in range(5)]


def test_opening_starts_no_tensorflow(data_dir):
    script = (
        "import sys; from multimed_jax.config import SourceConfig;"
        "from multimed_jax.data.sources import open_source;"
        f"s = open_source(SourceConfig('toy_disk', 1.0), {str(data_dir)!r}, 'test'); s[0];"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "split", "sentence"),
    [
        ("toy_dusk", "train", "no dataset 'toy_dusk'; there: toy_disk"),
        ("toy_disk/tiny", "train", "no config 'tiny'; there: native"),
        ("toy_disk/native:9.0.0", "train", "no version '9.0.0'; there: 1.2.0"),
        ("toy_disk", "dev", "no split 'dev'; there: test, train"),
        ("toy disk", "train", "'toy disk' cannot be parsed"),
        ("toy_disk:1", "train", "cannot be parsed"),
        ("../toy_disk", "train", "cannot be parsed"),
        ("toy_disk/..", "train", "no config"),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(data_dir, name, split, sentence):
    with pytest.raises(UserError, match=sentence):
        open_source(SourceConfig(name, 1.0), str(data_dir), split)


def test_a_missing_data_dir_and_task(data_dir, tmp_path):
    with pytest.raises(UserError, match="nowhere' is not a folder"):
        open_source(SourceConfig("toy_disk", 1.0), str(tmp_path / "nowhere"), "train")
    with pytest.raises(UserError, match="no task 'motor'; there: toy"):
        open_source(SourceConfig("toy_disk", 1.0, ("motor",)), str(data_dir), "train")


def test_several_configs_must_be_told_apart(tmp_path):
    for config in ("native", "small"):
        build(tmp_path, config)
    with pytest.raises(UserError, match="toy_disk/native, toy_disk/small"):
        open_source(SourceConfig("toy_disk", 1.0), str(tmp_path), "train")
    source = open_source(SourceConfig("toy_disk/small", 1.0), str(tmp_path), "train")
    assert source.folder is not None and source.folder.parent.name == "small"


def test_the_newest_version_is_taken_by_number(data_dir, tmp_path):
    folder = tmp_path / "toy_disk" / "native"
    folder.mkdir(parents=True)
    for version in ("1.2.0", "1.10.0", "1.9.0"):
        (folder / version).symlink_to(data_dir / "toy_disk" / "native" / "1.2.0")
    source = open_source(SourceConfig("toy_disk", 1.0), str(tmp_path), "train")
    assert source.folder is not None and source.folder.name == "1.10.0"


def test_an_unfinished_or_foreign_dataset_is_refused(tmp_path):
    (tmp_path / "toy_disk" / "native" / "1.2.0.incomplete").mkdir(parents=True)
    with pytest.raises(UserError, match="no finished version|no config"):
        open_source(SourceConfig("toy_disk", 1.0), str(tmp_path), "train")
    (tmp_path / "toy_disk" / "native" / "1.2.0").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be opened"):
        open_source(SourceConfig("toy_disk", 1.0), str(tmp_path), "train")
    build(tmp_path / "foreign", metadata=False)
    with pytest.raises(UserError, match="metadata .* lacks namespace"):
        open_source(SourceConfig("toy_disk", 1.0), str(tmp_path / "foreign"), "train")


@pytest.mark.parametrize("size", [0, 1000, 1 << 16, (1 << 17) - 1])
def test_a_truncated_shard_is_named(data_dir, tmp_path, size):
    """Cut at a block's end (64 KiB) array_record itself returns empty records."""
    shutil.copytree(data_dir, tmp_path / "data")
    (shard,) = (tmp_path / "data" / "toy_disk" / "native" / "1.2.0").glob("*train*array_record*")
    content = shard.read_bytes()
    assert len(content) == 1 << 17
    shard.write_bytes(content[:size])
    source = open_source(SourceConfig("toy_disk", 1.0), str(tmp_path / "data"), "train")
    with pytest.raises(UserError, match="record 3 of 'toy_disk' split 'train' cannot be read"):
        source[3]


# -------------------------------------------------------------------------------- namespaces


def test_namespaces_are_sorted_and_merged():
    one, two = FakeSource("b", {"a": [1] * 6}), FakeSource("a", {"a": [1] * 5})
    again = FakeSource("c", {"a": [1] * 4})
    again.info = one.info
    other = FakeSource("d", {"a": [1]}, tasks=("other",))
    assert namespaces([one, two, again, other], "toy") == (
        Namespace("a", ("x", "y", "z"), (2, 2, 1)),
        Namespace("b", ("x", "y", "z"), (2 + 2, 2 + 1, 2 + 1)),
    )
    assert namespaces([one], "other") == ()
    one.tasks = ()  # not used for the task
    assert [n.name for n in namespaces([one, two], "toy")] == ["a"]


def test_a_shared_namespace_needs_the_same_classes():
    one, two = FakeSource("b", {"a": [1]}), FakeSource("b", {"b": [1]})
    two.info.class_names["toy"] = ("x", "z", "y")  # type: ignore[index]
    with pytest.raises(UserError, match="share the namespace 'b'.*x, y, z against x, z, y"):
        namespaces([one, two], "toy")
