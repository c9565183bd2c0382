"""What holds for every stream of the image modalities."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.modalities import ct, mri, oct, pathology
from tests.modalities import test_ct, test_mri, test_pathology
from tests.modalities.streams import to_batch
from tests.modalities.test_images import image_record, noise
from tests.modalities.test_oct import colour

# Stream -> a record that it is read from. Every stream of the four modalities is here.
RECORDS = {
    "oct.scan": image_record("oct", noise(30, 20)),
    "oct.photo": image_record("oct", colour(30, 20)),
    "ct.slice": test_ct.scan(test_ct.random_hu(1, 30, 20)),
    "ct.volume": test_ct.scan(test_ct.random_hu(5, 30, 20), (5.0, 4.0, 4.0)),
    "mri.slice": image_record("mri", noise(30, 20)),
    "mri.volume": test_mri.scan(test_mri.signal(5, 30, 20), (5.0, 4.0, 4.0)),
    "pathology.tile": test_pathology.tiles(colour(30, 20)),
    "pathology.bag": test_pathology.bag_of(3),
}
SPECS = {spec.name: spec for spec in (oct.SPEC, ct.SPEC, mri.SPEC, pathology.SPEC)}


def test_every_stream_is_here():
    assert [s.name for spec in SPECS.values() for s in spec.streams] == list(RECORDS)


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda s: s.name)
def test_a_stored_spec_loads_again(spec):
    assert load_spec(to_json(spec)) == spec
    changed = spec.with_options(streams=spec.options.streams[:1], patch=6)
    assert load_spec(to_json(changed)) == changed != spec


@pytest.mark.parametrize("name", RECORDS)
def test_every_parameter_gets_a_gradient(name):
    spec = SPECS[name.split(".")[0]]
    (stream,) = [stream for stream in spec.streams if stream.name == name]
    parts = spec.decode(RECORDS[name], spec.options, None)[name]
    batch = to_batch([parts], len(parts.parts) + 1)
    graph, params = nnx.split(spec.make_tokenizer(stream, 8, spec.options, nnx.Rngs(0)))
    probe = jnp.asarray(
        np.random.default_rng(0).normal(size=(1, len(parts.parts) + 1, 8)), jnp.float32
    )

    def loss(params):
        return jnp.sum(nnx.merge(graph, params)(batch) * probe)

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        gradient = jax.jit(jax.grad(loss))(params)
    for path, value in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(value).all() and jnp.abs(value).max() > 0, path


def test_count_is_exact_for_volumes_of_any_shape():
    rng = np.random.default_rng(5)
    for _ in range(60):
        shape = rng.integers(1, 40, 3) if rng.random() < 0.8 else (1, *rng.integers(1, 60, 2))
        spacing = rng.uniform(0.3, 6.0, 3) if rng.random() < 0.7 else (0.0, 0.0, 0.0)
        spec = test_ct.SPEC.with_options(max_windows=int(rng.integers(1, 5)), augment=True)
        record = test_ct.scan(rng.integers(-1000, 1000, shape).astype(np.int16), spacing)
        counted = spec.count(record, spec.options)
        assert spec.windows is not None
        views = [spec.decode(record, spec.options, None), spec.decode(record, spec.options, rng)]
        number = spec.windows.count(record, spec.options)
        assert 1 <= number <= spec.options.max_windows
        views += [spec.windows.decode(record, spec.options, w) for w in range(number)]
        for view in views:
            assert {k: len(v.parts) for k, v in view.items()} == counted
            for name, parts in view.items():
                (stream,) = [s for s in spec.streams if s.name == name]
                assert parts.parts.shape[1:] == stream.patch_shape
                assert parts.parts.dtype == np.float32
                assert parts.coords.shape == (len(parts.parts), stream.num_axes)
                assert np.abs(parts.parts).max() <= 1


def test_decoding_starts_no_backend():
    program = (
        "from tests.modalities.test_image_specs import RECORDS, SPECS\n"
        "for name, r in RECORDS.items():\n"
        "    s = SPECS[name.split('.')[0]]\n"
        "    s.count(r, s.options), s.decode(r, s.options, None)\n"
        "    s.features(r, s.options), s.preview(r, s.options)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
