"""Histology (pathology.tile, pathology.bag): RGB patches of one tile, or one token for each tile.

Input: JPEG or PNG bytes of the tiles of a slide or patient, with their heights and widths; grey
tiles have three equal channels. One tile makes 2-D patches [patch, patch, 3]; several are a bag,
each tile fitted into [bag_side, bag_side, 3]. No tile means that the record lacks the modality.
Output: black at -1 and white at 1, padding white as glass is. Tiles are not resampled to a common
resolution: `microns_per_pixel` is 0 in most sources, and one source has one resolution.

A bag is a set: its coordinate is 0 for every tile, `item` numbers the tiles. Of a bag of more than
`max_tiles`, training sees a random subset, evaluation sees all in windows of `max_tiles` (the last
one overlaps the one before it), and a single look is an evenly spread choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from multimed_jax.layers import patches
from multimed_jax.layers.augment import augment, draw_stain, stained, turned
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.layers.stream_kinds import check_kinds
from multimed_jax.layers.tile_stem import TileStem
from multimed_jax.specs import ModalitySpec, Preparation, StreamSpec, Windows
from multimed_jax.types import Parts, Preview, Record, UserError

NAME = "pathology"
TILE, BAG = "tile", "bag"
WHITE = 1.0
MIN_BAG_SIDE = 8  # what the stem of a bag's tiles sees at least
# Tiles of a bag that the simple baselines look at, evenly spread.
FEATURE_TILES = 64
MOSAIC_SIDE, MOSAIC_TILE = 3, 96


@dataclasses.dataclass(frozen=True)
class PathologyOptions:
    """Geometry.

    Attributes:
        side: longer side of a single tile, in pixels.
        patch: side of a patch of a single tile, in pixels.
        bag_side: side of a tile of a bag, in pixels.
        max_tiles: most tiles of a bag in one sample.
        streams: "tile", "bag" or both. Where tiles are off, a single tile is a bag of one; where
            bags are off, a record of several tiles counts as missing.
        augment: in training vary the stain, turn and mirror each tile, jitter its intensity and
            shift it a little.
    """

    side: int = 96
    patch: int = 12
    bag_side: int = 64
    max_tiles: int = 64
    streams: tuple[str, ...] = (TILE, BAG)
    augment: bool = False

    def __post_init__(self):
        """Raises UserError for a geometry that leaves no part."""
        patches.check_geometry(self.side, self.patch)
        check_kinds(self.streams, (TILE, BAG))
        if self.bag_side < MIN_BAG_SIDE or self.max_tiles < 1:
            raise UserError(
                f"modality {NAME!r} has bag_side {self.bag_side} and max_tiles {self.max_tiles}; "
                f"accepted: at least {MIN_BAG_SIDE} pixels and 1 tile"
            )


def make_streams(options: PathologyOptions) -> tuple[StreamSpec, ...]:
    """Patches with a row and a column; tiles of a bag with a coordinate that never changes."""
    both = {
        TILE: StreamSpec(f"{NAME}.tile", NAME, (options.patch, options.patch, 3), 2, "float32"),
        BAG: StreamSpec(f"{NAME}.bag", NAME, (options.bag_side, options.bag_side, 3), 1, "float32"),
    }
    return tuple(both[kind] for kind in options.streams)


def read_tiles(record: Record) -> list[Mapping[str, Any]]:
    """The record's tiles as images with their stated sizes; empty where it lacks the modality.

    Raises:
        DecodeError: other numbers of tiles than of heights or widths, an empty tile.
    """
    value = record.get(NAME)
    if value is None:
        return []
    tiles = [patches.encoded_bytes({"encoded": tile}) for tile in value["tiles"]]
    heights = np.asarray(value["heights"]).ravel().tolist()
    widths = np.asarray(value["widths"]).ravel().tolist()
    if not len(tiles) == len(heights) == len(widths):
        raise DecodeError(
            f"a record has {len(tiles)} tiles, {len(heights)} heights and {len(widths)} widths; "
            "accepted: equal numbers"
        )
    if not all(tiles):
        raise DecodeError(f"one of {len(tiles)} tiles has no bytes; accepted: JPEG or PNG files")
    return [
        {"encoded": tile, "height": height, "width": width}
        for tile, height, width in zip(tiles, heights, widths, strict=True)
    ]


def kind_of(num_tiles: int, options: PathologyOptions) -> str:
    """The stream that so many tiles go to; "" for none."""
    kind = TILE if num_tiles == 1 and TILE in options.streams else BAG
    return kind if num_tiles and kind in options.streams else ""


def count(record: Record, options: PathologyOptions) -> dict[str, int]:
    """Patches of a single tile from its stated size, or tiles of the bag."""
    tiles = read_tiles(record)
    kind = kind_of(len(tiles), options)
    if kind == TILE:
        return {f"{NAME}.tile": patches.count_patches(tiles[0], options.side, options.patch)}
    return {f"{NAME}.bag": min(len(tiles), options.max_tiles)} if kind else {}


def choose_tiles(
    num_tiles: int, max_tiles: int, rng: np.random.Generator | None
) -> Int[np.ndarray, "n"]:
    """Ascending indices of at most `max_tiles` tiles: random ones, or evenly spread ones."""
    if num_tiles <= max_tiles:
        return np.arange(num_tiles)
    if rng is not None:
        return np.sort(rng.choice(num_tiles, max_tiles, replace=False))
    return (2 * np.arange(max_tiles) + 1) * num_tiles // (2 * max_tiles)


def decode(
    record: Record, options: PathologyOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Patches of a single tile, or the chosen tiles of a bag; empty where the record has none.

    Raises:
        DecodeError: numbers that do not fit each other; bytes that are no complete JPEG or PNG of
            the stated size.
    """
    tiles = read_tiles(record)
    kind = kind_of(len(tiles), options)
    if not kind:
        return {}
    if kind == BAG:
        return _decode_bag(tiles, choose_tiles(len(tiles), options.max_tiles, rng), options, rng)
    return finish(patches.prepare_image(tiles[0], options.side, colour=True), options, rng)


def prepare(record: Record, options: PathologyOptions) -> dict[str, np.ndarray] | None:
    """The resampled single tile; None for a bag, whose tiles are chosen first. Raises DecodeError.

    Tiles of a bag are decoded in one step.
    """
    tiles = read_tiles(record)
    if kind_of(len(tiles), options) != TILE:
        return None
    return patches.prepare_image(tiles[0], options.side, colour=True)


def finish(
    prepared: Mapping[str, np.ndarray],
    options: PathologyOptions,
    rng: np.random.Generator | None,
) -> dict[str, Parts]:
    """The patches of a single tile."""
    levels = prepared[patches.LEVELS]
    if rng is None or not options.augment:
        return {f"{NAME}.tile": patches.level_parts(levels, options.patch, WHITE)}
    pixels = _augmented(patches.scale_levels(levels), draw_stain(rng), rng)
    return {f"{NAME}.tile": patches.whole_parts(*patches.patchify(pixels, options.patch, WHITE))}


def count_windows(record: Record, options: PathologyOptions) -> int:
    """Windows of `max_tiles` that hold all tiles; 1 for a single tile."""
    tiles = read_tiles(record)
    return max(1, -(-len(tiles) // options.max_tiles))


def decode_window(record: Record, options: PathologyOptions, window: int) -> dict[str, Parts]:
    """The tiles of one window; the last one ends with the bag. Raises DecodeError as `decode`."""
    tiles = read_tiles(record)
    if kind_of(len(tiles), options) != BAG:
        return decode(record, options, None)
    number = min(len(tiles), options.max_tiles)
    start = min(window * number, len(tiles) - number)
    return _decode_bag(tiles, np.arange(start, start + number), options, None)


def _decode_bag(
    tiles: list[Mapping[str, Any]],
    chosen: Int[np.ndarray, "n"],
    options: PathologyOptions,
    rng: np.random.Generator | None,
) -> dict[str, Parts]:
    side = options.bag_side
    parts = np.full((len(chosen), side, side, 3), WHITE, np.float32)
    # Tiles of a bag come from one stain bath: its colours vary together.
    jitter = rng if options.augment else None
    stain = None if jitter is None else draw_stain(jitter)
    for part, index in zip(parts, chosen, strict=True):
        pixels = _read_fitted(tiles[int(index)], side)
        if jitter is not None and stain is not None:
            pixels = _augmented(pixels, stain, jitter)
        part[: pixels.shape[0], : pixels.shape[1]] = pixels
    coords = np.zeros((len(chosen), 1), np.float32)
    return {f"{NAME}.bag": Parts(parts, coords, np.arange(len(chosen), dtype=np.int32))}


def _read_fitted(tile: Mapping[str, Any], side: int) -> Float[np.ndarray, "h w 3"]:
    size = patches.fitted_size(*patches.stored_size(tile), side)
    return patches.read_pixels(tile, size, colour=True)


def _augmented(
    pixels: Float[np.ndarray, "h w 3"], stain: Float[np.ndarray, "3"], rng: np.random.Generator
) -> Float[np.ndarray, "..."]:
    return augment(turned(stained(pixels, stain), rng), rng, fill=WHITE)


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: PathologyOptions, rngs: nnx.Rngs
) -> PatchEmbed | TileStem:
    """Patches to tokens, or tiles to tokens."""
    if stream.num_axes == 2:
        return PatchEmbed(stream.patch_shape, options.side / options.patch, d_model, rngs)
    return TileStem(options.bag_side, 3, d_model, rngs)


def features(record: Record, options: PathologyOptions) -> Float[np.ndarray, "432"]:
    """Mean over the tiles, and standard deviation, of 8 x 8 RGB means and colour histograms.

    Of a large bag `FEATURE_TILES` evenly spread tiles; zeros where the record has none.
    """
    tiles = read_tiles(record)
    if not kind_of(len(tiles), options):
        return np.zeros(2 * patches.NUM_COLOUR_FEATURES, np.float32)
    chosen = choose_tiles(len(tiles), FEATURE_TILES, None)
    every = np.stack([patches.colour_features(tiles[int(index)]) for index in chosen])
    return np.concatenate([every.mean(axis=0), every.std(axis=0)])


def preview(record: Record, options: PathologyOptions) -> Preview:
    """The tile, or a mosaic of up to 9 evenly spread tiles of a bag on white."""
    tiles = read_tiles(record)
    if len(tiles) < 2:
        return patches.image_preview(tiles[0] if tiles else None, colour=True)
    chosen = choose_tiles(len(tiles), MOSAIC_SIDE**2, None)
    columns = min(MOSAIC_SIDE, len(chosen))
    rows = -(-len(chosen) // columns)
    mosaic = np.full((rows * MOSAIC_TILE, columns * MOSAIC_TILE, 3), WHITE, np.float32)
    for place, index in enumerate(chosen):
        pixels = _read_fitted(tiles[int(index)], MOSAIC_TILE)
        top, left = place // columns * MOSAIC_TILE, place % columns * MOSAIC_TILE
        mosaic[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return Preview("image", patches.to_bytes(mosaic))


SPEC = ModalitySpec(
    name=NAME,
    id=6,
    spec="multimed_jax.modalities.pathology:SPEC",
    options=PathologyOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
    windows=Windows(count_windows, decode_window),
    preparation=Preparation(prepare, finish),
)
