"""Strict conversion of configs, and stored configs that are data and never code."""

from __future__ import annotations

import dataclasses
import json

import pytest

from configs import quickstart, real_small
from multimed_jax.command import resolve_config
from multimed_jax.config import DataConfig, ModelConfig, RunConfig, ScheduleConfig
from multimed_jax.config_io import config_hash, from_dict, from_json, load_spec, to_dict, to_json
from multimed_jax.modalities import mri
from multimed_jax.types import UserError

MODEL = dict(d_model=8, num_layers=1, num_heads=2)


@pytest.fixture(scope="module", params=[quickstart, real_small], ids=["quickstart", "real_small"])
def config(request) -> RunConfig:
    return resolve_config(request.param.get_config())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            MODEL | {"d_modl": 1},
            r"no key 'd_modl' \(did you mean 'd_model'\?\); accepted keys: d_m",
        ),
        ({"d_model": 8}, "lacks the key 'num_layers'"),
        (MODEL | {"num_heads": "four"}, "config.num_heads must be of type int, not 'four'"),
        (MODEL | {"num_heads": True}, "config.num_heads must be of type int, not True"),
        (MODEL | {"num_heads": 2.0}, "config.num_heads must be of type int, not 2.0"),
        (MODEL | {"fusion": "sideways"}, "'sideways'; accepted: 'early', 'intermediate', 'late'"),
    ],
)
def test_model_config_is_strict(values, sentence):
    with pytest.raises(UserError, match=sentence):
        from_dict(ModelConfig, values)


def test_nested_values_are_named_by_their_path():
    values = dict(sources=[dict(name="a", weight="much")], lanes=1, rows=1, row_width=8, window=8)
    with pytest.raises(UserError, match=r"config.data.sources\[0\].weight must be of type float"):
        from_dict(DataConfig, values, "config.data")


def test_an_int_serves_as_a_float():
    schedule = from_dict(ScheduleConfig, dict(kind="constant", value=1))
    assert isinstance(schedule.value, float)


def test_a_config_survives_json(config):
    stored = json.loads(json.dumps(to_json(config)))
    assert from_json(stored) == config
    assert config_hash(from_json(stored)) == config_hash(config)


def test_every_key_is_in_the_config_file():
    """So that each can be overridden on the command line, defaults included."""
    values = to_dict(resolve_config(quickstart.get_config()))
    assert {f.name for f in dataclasses.fields(RunConfig)} == set(values)
    assert values["mesh"] == {"data": -1, "fsdp": 1, "tensor": 1}


def test_the_hash_knows_the_run_and_not_the_place(config):
    moved = dataclasses.replace(config, data_dir="elsewhere")
    assert config_hash(moved) == config_hash(config)
    assert config_hash(dataclasses.replace(config, seed=99)) != config_hash(config)


def test_unknown_options_of_a_modality():
    with pytest.raises(
        UserError, match="modality 'mri' has no option 'sied'; it has: .*side, patch"
    ):
        mri.SPEC.with_options(sied=3)


@pytest.mark.parametrize(
    "name", ["os:system", "multimed_jax.config:load_spec", "multimed_jax.modalities_evil.x:SPEC"]
)
def test_a_stored_name_outside_the_package_is_refused(name):
    with pytest.raises(UserError, match="outside the accepted modules"):
        load_spec({"spec": name})


def test_plugins_widen_what_a_stored_run_may_name():
    assert (
        load_spec({"spec": "tests.toy:make_toy_task"}, ("tests.toy",)).__name__ == "make_toy_task"
    )
    with pytest.raises(UserError, match="is not there"):
        load_spec({"spec": "tests.toy:nothing"}, ("tests.toy",))
