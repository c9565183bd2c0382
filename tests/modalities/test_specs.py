"""What holds for every modality and task of the package."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.config_io import load_spec, to_json
from multimed_jax.modalities import eeg, genomics, mri, scrna, text, xray
from multimed_jax.types import UserError
from tests.modalities.streams import to_batch
from tests.modalities.test_eeg import trial
from tests.modalities.test_genomics import dna, letters
from tests.modalities.test_images import image_record, noise
from tests.modalities.test_scrna import cell

RECORD = {
    **image_record("mri", noise(30, 20)),
    **image_record("xray", noise(30, 20)),
    **trial(),
    **dna(letters(70)),
    **cell([3.0, 1.0]),
    "text": {"text": "No finding."},
}
SPECS = [text.SPEC, xray.SPEC, mri.SPEC, eeg.SPEC, genomics.SPEC, scrna.SPEC]
STEMS = [
    *SPECS,
    eeg.SPEC.with_options(stem="lstm", num_hidden=8),
    genomics.SPEC.with_options(stem="kmer", kmer=3),
]


def test_ids_are_those_of_the_table():
    assert [spec.id for spec in SPECS] == [1, 3, 5, 7, 8, 9]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_stored_spec_loads_again(spec):
    assert load_spec(to_json(spec)) == spec
    with pytest.raises(UserError, match="has no option 'nonsense'"):
        spec.with_options(nonsense=1)


@pytest.mark.parametrize("spec", STEMS, ids=lambda s: s.name)
def test_every_parameter_gets_a_gradient(spec):
    ((name, parts),) = spec.decode(RECORD, spec.options, None).items()
    (stream,) = [stream for stream in spec.streams if stream.name == name]
    batch = to_batch([parts], len(parts.parts) + 1)
    graph, params = nnx.split(spec.make_tokenizer(stream, 8, spec.options, nnx.Rngs(0)))
    probe = jnp.asarray(np.random.default_rng(0).normal(size=(1, len(parts.parts) + 1, 8)))

    def loss(params):
        return jnp.sum(nnx.merge(graph, params)(batch) * probe.astype(jnp.float32))

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        gradient = jax.jit(jax.grad(loss))(params)
    for path, value in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(value).all() and jnp.abs(value).max() > 0, path


def test_decoding_starts_no_backend():
    program = (
        "from tests.modalities.test_specs import RECORD, SPECS\n"
        "for s in SPECS:\n"
        "    s.count(RECORD, s.options), s.decode(RECORD, s.options, None)\n"
        "    s.features(RECORD, s.options), s.preview(RECORD, s.options)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
