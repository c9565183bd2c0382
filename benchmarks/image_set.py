"""A folder of images, and the same images as a built dataset.

256 x 256 pixels, JPEG in colour and grey PNG by turns: smooth fields with a little noise, which
compress as photographs and films do and not as noise does. The dataset holds the files' own bytes
as tiles of pathology, written by the code of the builders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.made_source import MadeSource, made_card
from multimed_jax import config as c
from multimed_jax.modalities import pathology
from multimed_jax.tasks import breast
from tfds_builders.core.base import StreamedSplit
from tfds_builders.core.features import pathology_features
from tfds_builders.core.picture_records import tile
from tfds_builders.core.records import SourceRecord

NAME = "image_set"
SIDE, SHOWN, PATCH = 256, 224, 16
SPLIT = "train"


def write_images(folder: Path, count: int) -> None:
    """Writes the files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
        field = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = np.asarray(field, np.float32) + rng.normal(0, 6, (SIDE, SIDE, 3))
        pixels = np.clip(pixels, 0, 255).astype(np.uint8)
        if i % 2:
            Image.fromarray(pixels[..., 0]).save(folder / f"{i:06d}.png")
        else:
            Image.fromarray(pixels).save(folder / f"{i:06d}.jpg", quality=90)


class ImageSet(MadeSource, skip_registration=True):
    """The files of a folder, each a record with one of two classes."""

    CARD = made_card(NAME, "Images of a benchmark", "pathology", "breast", "image")

    folder = Path()

    def record_features(self) -> dict[str, Any]:
        return {"pathology": pathology_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        return {"breast": ("benign", "malignant")}

    def stream_splits(self) -> dict[str, StreamedSplit]:
        return {SPLIT: StreamedSplit(len(list(self.folder.iterdir())), self._records)}

    def _records(self, block: int) -> Iterator[SourceRecord]:
        del block  # there is one
        for number, path in enumerate(sorted(self.folder.iterdir())):
            yield SourceRecord(
                sample_id=path.name,
                group_id=path.name,
                record={"pathology": tile(path, 0.0).value, "targets": {"breast": number // 2 % 2}},
                stratum="",
            )


def build(images: Path, data_dir: Path) -> None:
    """Builds the dataset of a folder of images."""
    cls = type("ImageSet", (ImageSet,), {"folder": images}, skip_registration=True)
    cls(data_dir=data_dir).download_and_prepare()


def run_config(
    data_dir: Path,
    *,
    batch: int,
    threads: int = 2,
    cache_mib: int = 0,
    decoded_cache: str = "",
    augment: bool = False,
    side: int = SHOWN,
    width: int = 8,
    layers: int = 1,
    steps: int = 1,
) -> c.RunConfig:
    """A run over the dataset: `batch` images of `side` pixels a step, four to a row."""
    shown = pathology.SPEC.with_options(
        side=side, patch=PATCH, streams=(pathology.TILE,), augment=augment
    )
    rate = c.ScheduleConfig("constant", 1e-4)
    return c.RunConfig(
        method="benchmark",
        data_dir=str(data_dir),
        seed=0,
        num_steps=steps,
        log_every_steps=max(1, steps // 5),
        modalities=(shown,),
        tasks=(breast.SPEC,),
        evals=(),
        data=c.DataConfig(
            (c.SourceConfig(NAME, 1.0),),
            lanes=1,
            rows=max(1, batch // 4),
            row_width=4 * (side // PATCH) ** 2,
            window=1024,
            threads=threads,
            cache_mib=cache_mib,
            decoded_cache=decoded_cache,
        ),
        model=c.ModelConfig(d_model=width, num_layers=layers, num_heads=max(1, width // 64)),
        optim=c.OptimConfig({g: rate for g in ("tokenizers", "trunk", "heads")}, weight_decay=0.0),
        checkpoint=c.CheckpointConfig(every_steps=10 * steps),
        eval=c.EvalConfig(splits=()),
    )
