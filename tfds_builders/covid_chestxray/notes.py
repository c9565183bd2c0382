"""Clinical notes: label terms are masked, and a keyword rule shows what the rest still gives away.

About half of the notes name the finding, so unmasked text would be the label in disguise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "[finding]"

# Names, abbreviations and synonyms of the findings, whichever of them a note belongs to.
_TERMS = (
    r"sars[\s-]*cov(?:[\s-]*2)?",
    r"(?:novel\s+)?corona[\s-]*virus(?:es)?(?:\s+disease)?(?:[\s,-]*(?:20)?19)?",
    r"(?:2019[\s-]*)?n[\s-]?cov",
    r"covid(?:[\s-]*19)?",
    r"sars",
    r"mers(?:[\s-]*cov)?",
    r"severe\s+acute\s+respiratory\s+syndrome",
    r"(?:acute|adult)\s+respiratory\s+distress(?:\s+syndrome)?",
    r"ards",
    r"streptococc\w*",
    r"strep\.?(?=\W|$)",
    r"pneumococc\w*",
    r"pneumocystis(?:\s+(?:carinii|jirovecii?))?",
    r"jirovecii?",
    r"pcp",
    r"pjp",
    r"(?:broncho)?pneumonia[es]?",
    r"pneumonitis",
)


def mask_note(note: str, findings: Iterable[str] = ()) -> str:
    """The note with every label term replaced by `[finding]`.

    Args:
        note: as published.
        findings: the source's own finding strings; each is masked too, and each part of a path
            such as "Pneumonia/Viral/COVID-19".
    """
    own = {
        part.strip()
        for finding in findings
        for part in re.split(r"[/,]", finding)
        if len(part.strip()) > 2 and part.strip().casefold() != "no finding"
    }
    # Longest first, so that a short term never cuts a long one in two.
    terms = [re.escape(part) for part in sorted(own, key=lambda part: (-len(part), part))]
    pattern = "|".join([*_TERMS, *terms])
    masked = re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", MASK, note, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", masked).strip()


# Radiological signs, most specific first. They were written with the notes of 36 rows of the March
# 2020 version in view, whatever their split, so on those rows the rule's accuracy is fitted, not
# held out: it says how much the masked notes can give away, not how well the rule generalises.
_SIGNS = (
    ("Pneumocystis", r"cyst|pneumatoc|perihilar.*interstitial|hiv\b|immunosuppress"),
    ("ARDS", r"diffuse|symmetric|septic|shock|respiratory failure|non-?cardiogenic"),
    ("COVID-19", r"ground[\s-]?glass|ggo|peripheral|travel|multifocal|patchy"),
    ("Streptococcus", r"bronchogram|fissure|lobar|lobe\b.*consolidat|consolidat.*\blobe"),
)
_FALLBACK = "COVID-19"  # the most frequent finding of the source


# Stored beside the rule's accuracy wherever it is reported.
RULE_PROVENANCE = (
    "hand-written with the notes of 36 rows of the March 2020 version in view, test rows included: "
    "fitted, not held out, on those rows"
)


def note_rule(text: str) -> str:
    """The finding that a masked note suggests by its signs; see `RULE_PROVENANCE`."""
    for finding, signs in _SIGNS:
        if re.search(signs, text, flags=re.IGNORECASE):
            return finding
    return _FALLBACK
