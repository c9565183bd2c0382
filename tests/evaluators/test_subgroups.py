"""Figures of subgroups: which records count, beside which baseline, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from multimed_jax.evaluators import subgroups
from multimed_jax.types import UserError
from tests.evaluators.test_evaluators import rows_of
from tests.evaluators.toy_run import make_context

SEXES = (b"female", b"male", b"")
AGES = (17.0, 18.0, 39.9, 40.0, 70.0, math.nan)


def told(context):
    """The toy's context whose records tell sex, age and site by their place."""

    def open_source(name, split):
        return [
            record
            | {
                "sex": SEXES[row % 3],
                "age_years": np.float32(AGES[row % 6]),
                "site": b"st mary" if row < 5 else b"north",
            }
            for row, record in enumerate(context.open_source(name, split))
        ]

    return dataclasses.replace(context, open_source=open_source)


@pytest.fixture
def context(tmp_path):
    return told(make_context(tmp_path))


def test_each_value_is_measured_on_its_own_records(context):
    (found,) = context.predict("test", None)
    rows = {row.protocol: row for row in rows_of(subgroups, context)}
    sizes = {"below_18": [0], "18-39": [1, 2], "40-64": [3], "from_65": [4]}
    expected = {f"age_years:{band}": np.isin(found.rows % 6, at) for band, at in sizes.items()}
    expected |= {f"sex:{s.decode()}": found.rows % 3 == i for i, s in enumerate(SEXES[:2])}
    expected |= {"site:north": found.rows >= 5}  # five records of the other are too few
    assert rows.keys() == expected.keys()
    for protocol, chosen in expected.items():
        row = rows[protocol]
        right = accuracy_score(found.targets[chosen], found.probabilities[chosen].argmax(1))
        common = np.argmax(found.namespace.class_counts)
        assert row.value == pytest.approx(right) and row.n == chosen.sum()
        assert row.groups == len(np.unique(found.groups[chosen]))
        assert row.baseline == pytest.approx(np.mean(found.targets[chosen] == common))
        assert row.baseline_name == "majority" and row.trivial


def test_small_subgroups_by_option_and_shared_groups_in_the_protocol(tmp_path):
    context = told(make_context(tmp_path, interval_unit="sample"))
    rows = rows_of(subgroups, context, fields=("site",), min_records=5)
    assert [(row.protocol, row.n) for row in rows] == [
        ("within_group site:north", 115),
        ("within_group site:st_mary", 5),
    ]


def test_a_field_that_no_record_has_is_an_error(context):
    with pytest.raises(UserError, match="'ward', which no record"):
        rows_of(subgroups, context, fields=("site", "ward"))


@pytest.mark.parametrize(
    "options", [{"fields": ()}, {"min_records": 0}, {"age_edges_years": (40.0, 40.0)}]
)
def test_options_out_of_range_are_errors(options):
    with pytest.raises(UserError, match="accepted"):
        subgroups.SPEC.with_options(**options)
