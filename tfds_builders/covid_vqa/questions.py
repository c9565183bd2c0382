"""Questions that a row of the table answers: fixed sentences, answers from its own cells.

A cell that is empty or holds another value asks nothing. Columns that a film cannot show (survival,
place) or that are the same for all films (modality) ask nothing either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

VIEWS = {
    "pa": "posteroanterior",
    "ap": "anteroposterior",
    "ap supine": "supine anteroposterior",
    "ap erect": "anteroposterior",
    "ap semi erect": "anteroposterior",
    "l": "lateral",
}
SEXES = ("female", "male")
YES_NO = ("yes", "no")
# About the median age of the table.
AGE_YEARS = 50


@dataclasses.dataclass(frozen=True)
class Question:
    """A question and its answer.

    Attributes:
        name: unique for a film, such as "view_open".
        text: the question.
        answer: its true answer.
        candidates: the answers to choose from; empty for an open question.
    """

    name: str
    text: str
    answer: str
    candidates: tuple[str, ...] = ()


def make_questions(
    view: str, finding: str, sex: str, age_years: float | None
) -> Iterator[Question]:
    """The questions of one film.

    Args:
        view: the cell, such as "PA" or "AP Supine".
        finding: class of the finding, such as "COVID-19"; "" for none.
        sex: "female", "male" or "".
        age_years: None where unknown.
    """
    key = " ".join(view.casefold().split())
    plane = VIEWS[key] if key in VIEWS else ""
    if plane:
        yield Question("view_open", "Which view is shown?", plane)
        for name in ("posteroanterior", "lateral"):
            text = f"Is this a {name} view?"
            yield _yes_no(f"view_{name}", text, plane == name)
    if finding:
        yield Question("finding_open", "Which finding was reported?", finding)
        yield _yes_no("finding_covid", "Was COVID-19 reported?", finding == "COVID-19")
    if sex in SEXES:
        yield Question("sex", "Is the patient female or male?", sex, SEXES)
    if age_years is not None:
        text = f"Is the patient at least {AGE_YEARS} years old?"
        yield _yes_no("age", text, age_years >= AGE_YEARS)


def _yes_no(name: str, text: str, truth: bool) -> Question:
    return Question(name, text, YES_NO[0] if truth else YES_NO[1], YES_NO)
