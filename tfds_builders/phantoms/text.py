"""Visit note: a few template sentences; the other half of the disease, a productive cough, is here.

The note never speaks of the chest image, the label or the side of anything.
"""

from __future__ import annotations

from tfds_builders.phantoms.patient import NUM_SEVERITIES, Patients

_PERSONS = (("woman", "lady"), ("man", "gentleman"))
_SEVERITY_WORDS = (("slightly", "a little"), ("moderately", "rather"), ("severely", "very"))
# Each entry is (no cough, productive cough); the two lists share most of their words.
COUGH_PHRASES = (
    (
        "dry throat without any cough",
        "no cough and no sputum",
        "denies cough or phlegm",
        "has never coughed up sputum",
        "cough is absent",
        "breathing is quiet with no phlegm",
    ),
    (
        "productive cough for days",
        "coughs up yellow sputum",
        "reports cough with thick phlegm",
        "brings up sputum every morning",
        "wet cough is present",
        "rattling cough with green phlegm",
    ),
)
_OPENINGS = (
    "{age}-year-old {person}, {how} unwell for {days} days.",
    "{person} of {age}, {how} tired, day {days}.",
    "seen today: {person}, {age}, {how} weak.",
)
_HISTORIES = (
    "takes tablets for blood pressure.",
    "had a knee operation last year.",
    "works in an office.",
    "no known allergies.",
    "sleeps well and eats normally.",
    "family history is not known.",
)
_PLANS = (
    "review in one week.",
    "blood tests were taken.",
    "advised to rest and drink.",
    "return if worse.",
)


def render(patients: Patients) -> list[str]:
    """The notes of a block of patients."""
    draws = patients.draws
    assert len(_SEVERITY_WORDS) == NUM_SEVERITIES
    picks = {
        name: draws.choice(f"text/{name}", size)
        for name, size in (
            ("person", 2),
            ("how", 2),
            ("cough", len(COUGH_PHRASES[0])),
            ("opening", len(_OPENINGS)),
            ("history", len(_HISTORIES)),
            ("plan", len(_PLANS)),
            ("days", 20),
            ("order", 2),
        )
    }
    notes = []
    for row in range(len(draws.patients)):
        pick = {name: int(values[row]) for name, values in picks.items()}
        notes.append(_note(patients, row, pick))
    return notes


def _note(patients: Patients, row: int, pick: dict[str, int]) -> str:
    opening = _OPENINGS[pick["opening"]].format(
        age=patients.age_years[row],
        person=_PERSONS[patients.sex[row]][pick["person"]],
        how=_SEVERITY_WORDS[patients.severity[row]][pick["how"]],
        days=pick["days"] + 2,
    )
    middle = [COUGH_PHRASES[patients.cough[row]][pick["cough"]] + ".", _HISTORIES[pick["history"]]]
    if pick["order"]:
        middle.reverse()
    sentences = [opening, *middle, _PLANS[pick["plan"]]]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
