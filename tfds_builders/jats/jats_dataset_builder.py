"""Builder of figures and captions from JATS XML articles."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import image_features, text_features
from tfds_builders.core.images import read_image
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourcePart,
    SourceRecord,
    UnreadableRecord,
    text_audit,
)
from tfds_builders.jats.articles import Article, Figure, read_article

_NO_IMAGE = {
    "encoded": b"",
    "height": 0,
    "width": 0,
    "spacing_mm": np.zeros(2, np.float32),
}


class Builder(MedicalBuilder):
    """Captions as text, with the figure where its file is there."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="jats",
        title="Figures and captions of articles in JATS XML",
        namespace="jats",
        modalities=("text",),
        tasks=(),
        publisher="PubMed Central (open-access subset), eLife and other publishers of JATS XML",
        homepage="https://pmc.ncbi.nlm.nih.gov/tools/openftlist/",
        licence="per article, in each record's `licence`",
        licence_forbids="What the article's licence forbids; some are non-commercial.",
        how_to_obtain="unpack article packages of the PMC open-access subset (one folder each, "
        ".nxml or .xml with .jpg beside it); --manual_dir is a folder above them",
        citation="NISO Z39.96-2019, JATS: Journal Article Tag Suite; and each article",
        group_key="article (PMC id, else DOI, PubMed id or path)",
        unit="figure",
        size="that of the articles (TBs for all)",
    )
    DATASHEET = Datasheet(
        collection="Articles as their publishers deposited them; every figure with a caption is a "
        "record.",
        labels="None: the caption is what the authors wrote about the figure.",
        personal_data="Authors' names are not read; clinical figures and captions can show or "
        "describe patients as published.",
        consent="Unknown: it rests with the articles.",
        patients_separable="No: the group is the article, and two articles may report one patient.",
        known_biases="Open-access journals only; diagrams and charts outnumber medical images.",
        intended_use="Text of figures; reading figure and caption pairs.",
        unsuitable_use="Training as if a figure were a scan: it may be a chart or several panels.",
    )
    EXPECTED_LAYOUT = "**/*.{nxml,xml} with figures (.jpg, .jpeg, .png) beside each article"
    ON_DUPLICATES = "share_group"

    def record_features(self) -> dict[str, Any]:
        """The caption, its figure, and what the article says of itself."""
        return {
            "text": text_features(),
            "figure": image_features(),
            "label": tfds.features.Text(),
            "title": tfds.features.Text(),
            "abstract": tfds.features.Text(),
            "licence": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """No task has a label here."""
        return {}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourcePart]:
        """Yields the figures by path of the article and place in it."""
        paths = sorted(p for p in manual_dir.rglob("*") if p.suffix in (".nxml", ".xml"))
        if not paths:
            raise UserError(
                f"no .nxml or .xml file under {manual_dir}; expected layout: {self.EXPECTED_LAYOUT}"
            )
        for path in paths:
            yield SourcePart(functools.partial(_figures, manual_dir, path))


def _figures(manual_dir: Path, path: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
    name = path.relative_to(manual_dir)
    try:
        article = read_article(path, str(name.with_suffix("")))
    except UnreadableRecord as error:
        quarantine.add(str(name), str(error))
        return
    if article is None:
        quarantine.leave_out("XML file that is no article")
        return
    for figure in article.figures:
        yield from _record(article, figure, quarantine)


def _record(article: Article, figure: Figure, quarantine: Quarantine) -> Iterator[SourceRecord]:
    name = f"{article.name}/{figure.name}"
    if not figure.caption:
        quarantine.leave_out("figure without a caption")
        return
    image = None
    if figure.path is not None:
        try:
            image = read_image(figure.path)
        except UnreadableRecord as error:
            quarantine.add(name, f"its figure {error}")
            return
    yield SourceRecord(
        sample_id=name,
        group_id=article.name,
        record={
            "text": {"text": figure.caption},
            "figure": _NO_IMAGE if image is None else image.value(),
            "label": figure.label,
            "title": article.title,
            "abstract": article.abstract,
            "licence": article.licence,
            "targets": {},
        },
        stratum="",
        fine_group_id=name,
        audit=text_audit(figure.caption) if image is None else image.audit,
    )
