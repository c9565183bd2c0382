"""The studies that the configs `all` add: eye, chest CT, hand, tissue, gene, fold, question."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfds_builders.phantoms import ct, genomics, hand, oct, pathology, protein, questions, rasters
from tfds_builders.phantoms.base_studies import class_item, class_study
from tfds_builders.phantoms.patient import CLASS_NAMES, Patients
from tfds_builders.phantoms.study import Item, Study, cell, image
from tfds_builders.phantoms.xray import SPACING_MM as CHEST_SPACING_MM


def _eyes(patients: Patients) -> list[Item]:
    photos, scans = oct.render_photos(patients), oct.render_scans(patients)
    out = []
    for row, is_photo in enumerate(oct.is_photo(patients)):
        if is_photo:
            values = {"oct": image(photos[row], oct.PHOTO_SPACING_MM)}
        else:
            values = {"oct": image(scans[row], oct.SCAN_SPACING_MM)}
        unit = "photograph" if is_photo else "scan"
        out.append(class_item(patients, row, "retinopathy", unit, "eye", values))
    return out


def _chests(patients: Patients) -> list[Item]:
    views, targets = ct.render_views(patients), ct.targets(patients).astype(np.int32)
    slices, volumes = ct.render_slices(patients), ct.render_volumes(patients)
    out = []
    for row, is_volume in enumerate(ct.is_volume(patients)):
        hu = volumes[row] if is_volume else slices[row]
        spacing_mm = ct.VOLUME_SPACING_MM if is_volume else ct.SLICE_SPACING_MM
        values = {
            "ct": {"hu": hu, "spacing_mm": np.array(spacing_mm, np.float32)},
            "xray": image(views[row], CHEST_SPACING_MM),
        }
        out.append(Item("volume" if is_volume else "slice", "lung", values, targets[row]))
    return out


def _hands(patients: Patients) -> list[Item]:
    views, lines = hand.render(patients), hand.render_text(patients)
    return [
        Item(
            "image",
            "hand",
            {"xray": image(view, hand.SPACING_MM), "text": {"text": line}},
            np.array([months], np.float32),
            tells_age=False,
        )
        for view, line, months in zip(views, lines, hand.months(patients), strict=True)
    ]


def _tissues(patients: Patients) -> list[Item]:
    tiles, counts = pathology.render(patients), pathology.num_tiles(patients)
    out = []
    for row, count in enumerate(counts):
        values = {"pathology": _tiles(tiles[row, :count])}
        unit = "tile" if count == 1 else "slide"
        out.append(class_item(patients, row, "breast", unit, "breast", values))
    return out


def _tiles(tiles: np.ndarray) -> dict[str, Any]:
    sizes = np.full(len(tiles), pathology.SIDE, np.int32)
    return {
        "tiles": [rasters.to_png(tile) for tile in tiles],
        "heights": sizes,
        "widths": sizes,
        "microns_per_pixel": np.float32(pathology.MICRONS_PER_PIXEL),
    }


def _genes(patients: Patients) -> list[Item]:
    windows, levels = genomics.render(patients), genomics.targets(patients)
    counts, kinds = genomics.render_cells(patients), genomics.cell_type(patients)
    out = []
    for row, has_cell in enumerate(genomics.has_cell(patients)):
        values: dict[str, Any] = {"genomics": {"sequence": windows[row], "site": -1}}
        if has_cell:
            values["scrna"] = cell(counts[row])
            values["cell_type"] = CLASS_NAMES["cell_type"][kinds[row]]
        out.append(Item("gene", "", values, levels[row]))
    return out


def _folds(patients: Patients) -> list[Item]:
    chains = zip(protein.sequences(patients), protein.render(patients), strict=True)
    return [
        Item("chain", "", {"protein": {"sequence": sequence}}, xyz, tells_age=False)
        for sequence, xyz in chains
    ]


def _questions(patients: Patients) -> list[Item]:
    views, asked = questions.render(patients), questions.render_text(patients)
    kinds, answers = questions.kinds(patients), questions.answers(patients)
    out = []
    for row, (kind, answer) in enumerate(zip(kinds, answers, strict=True)):
        question = questions.QUESTIONS[kind]
        values = {
            "xray": image(views[row], CHEST_SPACING_MM),
            "text": {"text": asked[row]},
            "answer": {
                "text": question.answers[answer],
                "candidates": list(question.answers) if question.closed else [],
            },
        }
        out.append(Item("question", "lung", values, None))
    return out


STUDIES = (
    class_study("eye", ("oct",), "retinopathy", _eyes),
    Study("ct", ("ct", "xray"), "radiographic", "labels", ct.FINDINGS, _chests),
    Study("hand", ("xray", "text"), "bone_age", "values", ("months",), _hands),
    class_study("tissue", ("pathology",), "breast", _tissues),
    Study(
        "gene",
        ("genomics", "scrna"),
        "expression",
        "values",
        CLASS_NAMES["cell_type"],
        _genes,
    ),
    Study("fold", ("protein",), "structure", "coordinates", (), _folds),
    Study("question", ("xray", "text"), "vqa", "answer", (), _questions),
)
