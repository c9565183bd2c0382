"""Decoded records that are kept: the same batches bit for bit, and nothing of chance in them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import image_set
from multimed_jax.config import RunConfig
from multimed_jax.config_io import from_dict
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import EvalLoader, TrainLoader
from multimed_jax.data.sizes import load_sizes
from multimed_jax.data.sources import namespaces, open_source
from multimed_jax.modalities import ct, mri, oct, pathology, xray
from multimed_jax.run import fit_modalities
from multimed_jax.specs import ModalitySpec
from multimed_jax.types import Batch
from tests.data.fakes import A, B, Setup, assert_same, make_setup, toy_sources
from tests.modalities.test_images import image_record, noise


def drawing(spec: ModalitySpec) -> ModalitySpec:
    """Draws an offset for even numbers of parts, and nothing for odd ones."""

    def decode(record, options, rng):
        found = spec.decode(record, options, rng)
        for parts in found.values():
            if rng is not None and len(parts) % 2 == 0:
                parts.parts[...] += rng.uniform(1, 2)
        return found

    return dataclasses.replace(spec, decode=decode)


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    folder = tmp_path_factory.mktemp("sizes")
    modalities = (drawing(A), B)
    return make_setup(
        toy_sources(), folder, weights=[3, 2, 1], modalities=modalities, modality_dropout=0.3
    )


def take(setup: Setup, n: int, cursor=None, **data: Any) -> list[Batch]:
    config = dataclasses.replace(setup.config, data=dataclasses.replace(setup.config.data, **data))
    layout = make_layout(config, setup.sources, setup.sizes)
    batches = TrainLoader(config, layout, setup.sources, setup.sizes, setup.namespaces, cursor)
    found = list(itertools.islice(batches, n))
    batches.close()
    return found


def assert_all_same(found: list[Batch], wanted: list[Batch]) -> None:
    for x, y in zip(found, wanted, strict=True):
        assert_same(x, y)


def blind(setup: Setup) -> Setup:
    """The same sources, whose records cannot be read any more."""

    class Blind:
        def __init__(self, source):
            self._source = source

        def __getattr__(self, name):
            return getattr(self._source, name)

        def __len__(self):
            return len(self._source)

        def __getitem__(self, row):
            raise AssertionError(f"row {row} is read")

    sources = tuple(Blind(source) for source in setup.sources)
    return dataclasses.replace(setup, sources=sources)


@pytest.mark.parametrize("threads", [0, 3])
def test_batches_are_the_same_cold_warm_and_on_resume(setup, tmp_path, threads):
    plain = take(setup, 30)
    folder = str(tmp_path)
    assert_all_same(take(setup, 30, decoded_cache=folder, threads=threads), plain)
    assert_all_same(take(setup, 30, decoded_cache=folder, threads=threads), plain)
    later = take(setup, 20, plain[9].cursor, decoded_cache=folder, threads=threads)
    assert_all_same(later, plain[10:])


def test_another_seed_draws_anew(setup, tmp_path):
    take(setup, 30, decoded_cache=str(tmp_path))
    other = dataclasses.replace(setup, config=dataclasses.replace(setup.config, seed=8))
    assert_all_same(take(other, 20, decoded_cache=str(tmp_path)), take(other, 20))


def test_what_is_kept_is_not_read_again(tmp_path):
    steady = make_setup(toy_sources(), tmp_path / "sizes", modality_dropout=0.3)
    plain = take(steady, 60, decoded_cache=str(tmp_path / "kept"))
    assert_all_same(take(blind(steady), 60, decoded_cache=str(tmp_path / "kept")), plain)


def test_a_small_limit_changes_no_batch(setup, tmp_path):
    limit = 3000 / 2**30
    values = {"decoded_cache": str(tmp_path), "decoded_cache_gib": limit}
    assert_all_same(take(setup, 20, **values), take(setup, 20))
    sizes = [path.stat().st_size for path in tmp_path.rglob("data")]
    assert 1500 < sum(sizes) <= 3000


def test_other_options_tasks_and_contents_have_other_tables(tmp_path):
    def tables(setup: Setup) -> set[Path]:
        before = set(tmp_path.glob("*/*"))
        take(setup, 1, decoded_cache=str(tmp_path))
        return set(tmp_path.glob("*/*")) - before

    sources = toy_sources()
    first = make_setup(sources, tmp_path / "sizes")
    assert len(tables(first)) == 9 and not tables(first)  # 3 sources, 2 modalities and targets
    sources[0].info = dataclasses.replace(sources[0].info, content_hash="f" * 16)
    assert len(tables(dataclasses.replace(first, sources=tuple(sources)))) == 3
    sources[1].tasks = ("toy", "more")
    changed = tables(dataclasses.replace(first, sources=tuple(sources)))
    assert [path.name.split("-")[0] for path in changed] == ["targets"]


# ------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    image_set.write_images(folder / "images", 8)
    image_set.build(folder / "images", folder / "data")
    return folder


def opened(folder: Path, augment: bool, side: int) -> Setup:
    config = image_set.run_config(folder / "data", batch=4, augment=augment, side=side)
    source = open_source(config.data.sources[0], config.data_dir, image_set.SPLIT)
    sizes = load_sizes(source, config.modalities, config.tasks, folder)
    return Setup(config, (source,), (sizes,))


@pytest.mark.parametrize("augment", [False, True])
def test_images_are_augmented_after_they_were_kept(images, tmp_path, augment):
    setup = opened(images, augment, 48)
    plain = take(setup, 6)
    for one in (setup, blind_source(setup)):
        assert_all_same(take(one, 6, decoded_cache=str(tmp_path), threads=2), plain)
    parts = [batch.streams["pathology.tile"].parts for batch in plain]
    rows = [batch.record[..., 1] for batch in plain]
    views: dict[int, set[bytes]] = {}
    for part, row in zip(parts, rows, strict=True):
        for number, index in enumerate(row[row >= 0].tolist()):
            views.setdefault(index, set()).add(part[0, 9 * number : 9 * number + 9].tobytes())
    assert (max(map(len, views.values())) > 1) == augment


def blind_source(setup: Setup) -> Setup:
    class Records:
        def __len__(self):
            return len(setup.sources[0])

        def __getitem__(self, row):
            raise AssertionError(f"row {row} is read")

    source: Any = setup.sources[0]
    return dataclasses.replace(setup, sources=(dataclasses.replace(source, records=Records()),))


def test_another_side_reads_no_pixels_of_this_one(images, tmp_path):
    for side in (48, 64, 48):
        setup = opened(images, False, side)
        assert_all_same(take(setup, 3, decoded_cache=str(tmp_path)), take(setup, 3))


def test_evaluation_sees_what_it_sees_without(images, tmp_path):
    setup = opened(images, True, 48)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    spaces = {"breast": namespaces(setup.sources, "breast")}
    found = []
    for folder in ("", str(tmp_path), str(tmp_path)):
        data = dataclasses.replace(setup.config.data, decoded_cache=folder)
        config = dataclasses.replace(setup.config, data=data)
        batches = EvalLoader(config, layout, setup.sources, setup.sizes, spaces)
        found.append(list(batches))
        batches.close()
    assert len(found[0]) > 1
    for other in found[1:]:
        assert_all_same(other, found[0])


# ------------------------------------------------------------------------------- modalities

HU = np.random.default_rng(0).integers(-1000, 1000, (1, 40, 30)).astype(np.int16)
RECORDS = {
    "xray": (xray.SPEC, image_record("xray", noise(30, 20))),
    "oct": (oct.SPEC, image_record("oct", noise(30, 20))),
    "oct colour": (oct.SPEC, image_record("oct", np.stack([noise(30, 20)] * 3, axis=-1))),
    "mri": (mri.SPEC, image_record("mri", noise(30, 20).astype(np.uint16) * 9)),
    "ct": (ct.SPEC, {"ct": {"hu": HU, "spacing_mm": np.zeros(3, np.float32)}}),
    "pathology": (
        pathology.SPEC,
        {
            "pathology": {
                "tiles": [image_record("x", noise(30, 20))["x"]["encoded"]],
                "heights": np.array([30]),
                "widths": np.array([20]),
            }
        },
    ),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("augment", [False, True])
def test_decoding_is_its_two_steps(name, augment):
    spec, record = RECORDS[name]
    spec = spec.with_options(augment=augment)
    assert spec.preparation is not None
    prepared = spec.preparation.prepare(record, spec.options)
    assert prepared is not None
    for array in prepared.values():
        array.flags.writeable = False
    for seed in (None, 0, 1):
        rngs = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
        ((_, whole),) = spec.decode(record, spec.options, rngs[0]).items()
        ((_, steps),) = spec.preparation.finish(prepared, spec.options, rngs[1]).items()
        out = np.full_like(whole.parts, np.nan)
        steps.write(out)
        for array in (steps.parts, out):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, whole.parts)
        np.testing.assert_array_equal(steps.coords, whole.coords)
        assert len(steps) == len(whole) == len(whole.coords)


@pytest.mark.slow  # builds records of every modality, and decodes them many times
def test_batches_of_every_modality_are_the_same(tmp_path):
    from configs.all_phantoms import get_config
    from tfds_builders.phantoms.phantoms_dataset_builder import Builder

    Builder(data_dir=tmp_path / "data", config="all_tiny").download_and_prepare()
    values: dict[str, Any] = get_config().to_dict() | {"data_dir": str(tmp_path / "data")}
    values["data"] |= {"sources": ({"name": "phantoms/all_tiny", "weight": 1.0},)}
    values["data"] |= {"lanes": 1, "rows": 6, "row_width": 128, "window": 256}
    config = from_dict(RunConfig, values)
    source = open_source(config.data.sources[0], config.data_dir, "train")
    config = fit_modalities(config, [source])
    sizes = load_sizes(source, config.modalities, config.tasks, tmp_path)
    setup = Setup(config, (source,), (sizes,))
    plain = take(setup, 40)
    for _ in range(2):
        assert_all_same(take(setup, 40, decoded_cache=str(tmp_path / "kept")), plain)
    filled = {path.parent.name for path in tmp_path.glob("kept/*/*/data") if path.stat().st_size}
    found = {name.split("-")[0] for name in filled}
    assert found >= {spec.name for spec in config.modalities} | {"targets"}
