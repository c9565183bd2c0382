"""Metrics of short answers: exact match and token F1 after the usual normalisation.

Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
section 4.2: case, punctuation, articles and spare white space do not count.
"""

from __future__ import annotations

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))


def normalised(answer: str) -> str:
    """The answer without case, punctuation, articles and spare white space."""
    plain = answer.casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(predicted: str, truth: str) -> float:
    """1 where both are the same answer, else 0."""
    return float(normalised(predicted) == normalised(truth))


def token_f1(predicted: str, truth: str) -> float:
    """Harmonic mean of precision and recall of the words; 1 where both are empty."""
    first, second = normalised(predicted).split(), normalised(truth).split()
    if not first or not second:
        return float(first == second)
    shared = sum((Counter(first) & Counter(second)).values())
    return 2.0 * shared / (len(first) + len(second))
