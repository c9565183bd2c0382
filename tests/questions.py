"""A source of questions in memory: toy parts and a text, with a class and an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.data.sources import make_info
from multimed_jax.modalities import text
from multimed_jax.tasks import vqa
from tests.data.fakes import A, B

TEXT = text.SPEC.with_options(max_tokens=12, max_answer=5)
VQA = vqa.SPEC.with_options(max_candidates=3)
ANSWERS = ("left lung", "right", "no")
CANDIDATES = ["yes", "no", "unclear"]


class QuestionSource:
    """Row i: a class; an open question (i % 3 = 0), a closed one (1) or none (2)."""

    folder: Path | None = None
    split = "train"
    tasks = ("toy", "vqa")

    def __init__(self, num: int = 12, parts: int = 3):
        self.num, self.num_parts = num, parts
        counts = {"toy": (num, num, num), "vqa": ()}
        self.class_counts = self.train_class_counts = counts
        self.info = make_info(
            "questions",
            {
                "namespace": "questions",
                "class_names": {"toy": ["red", "green_thing", "blue"], "vqa": []},
                "content_hash": "0" * 16,
                "split_mode": "group",
            },
        )

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        kind = row % 3
        said = {0: ANSWERS[row // 3 % 2], 1: ("yes", "no")[row // 3 % 2], 2: ""}[kind]
        rng = np.random.default_rng(row)
        return {
            "sample_id": f"q{row}".encode(),
            "group_id": f"g{row}".encode(),
            "a": {"values": rng.normal(size=(self.num_parts + row % 2, 3)).astype(np.float32)},
            "text": {"text": f"is there a shadow {row % 4}?" if kind < 2 else f"note {row}"},
            "answer": {"text": said, "candidates": CANDIDATES if kind == 1 else []},
            "targets": {"toy": np.int32(row % 3)},
        }


MODALITIES = (A, B, TEXT)
