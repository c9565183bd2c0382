"""Texts of a sample sheet as cards, with what was said of each. Every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from multimed_jax.report.run_data import SampleSheet
from multimed_jax.report.sample_figures import Shown, verdict

# A text is shown up to so many characters.
_MAX_TEXT = 1200


def text_cards(sheet: SampleSheet, shown: Sequence[Shown]) -> str:
    """A card for each record whose preview is a text."""
    cards = []
    for record, preview in shown:
        told = verdict(record, sheet.sheet)
        text = preview["text"]
        if len(text) > _MAX_TEXT:
            text = f"{text[:_MAX_TEXT]} …"
        kind, tone = {True: ("", "yes"), False: (" miss", "no"), None: (" plain", "against")}[
            told.right
        ]
        said = f"{told.said} ({told.probability})" if told.probability else told.said
        above = (
            f"<p class='said'>truth <b>{escape(told.truth)}</b><br>"
            f"<span class='{tone}'>{told.mark} said {escape(said)}</span></p>"
            if told.truth or told.said
            else ""
        )
        cards.append(
            f"<div class='card{kind}'>{above}<blockquote>{escape(text)}</blockquote></div>"
        )
    return f"<div class='cards'>{''.join(cards)}</div>"
