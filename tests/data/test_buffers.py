"""Memory of batches is used again once nothing sees it, and not before."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from multimed_jax.data.buffers import Buffers
from tests.data.fakes import assert_same, make_setup, toy_sources
from tests.data.test_decoded_cache import take


def place(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_with_the_last_view():
    buffers = Buffers()
    first = buffers.empty((3, 4), "float32")
    assert first.shape == (3, 4) and first.dtype == np.float32 and first.flags.writeable
    first[...] = 7
    where, view = place(first), first[1:].reshape(-1)[2:]
    del first
    second = buffers.empty((3, 4), "float32")
    assert place(second) != where and (view == 7).all()  # the view still needs it
    second[...] = 0
    del view
    third = buffers.empty((12,), "int32")
    assert place(third) == where and place(second) != where
    assert place(buffers.empty((5,), "float32")) not in (where, place(second))


def test_nothing_is_kept_after_the_end():
    buffers = Buffers()
    array = buffers.empty((4,), "float32")
    buffers.close()
    array[...] = 3
    view = array[:2]
    del array
    assert (view == 3).all()
    again = buffers.empty((4,), "float32")
    again[...] = 5
    assert (view == 3).all() and place(again) != place(view)


def test_arrays_of_a_device_keep_their_values():
    buffers = Buffers()
    kept = []
    for value in range(8):
        array = buffers.empty((64, 1024), "float32")
        array[...] = value
        kept.append(jax.device_put(array))
    for value, array in enumerate(kept):
        assert bool(jnp.all(array == value))


def test_batches_that_are_let_go_leave_nothing_in_later_ones(tmp_path):
    """Padding too: it lies where other batches had parts."""
    setup = make_setup(toy_sources(), tmp_path, modality_dropout=0.5)
    kept = take(setup, 25)  # all are held, so none shares memory
    from multimed_jax.data.layout import make_layout
    from multimed_jax.data.loader import TrainLoader

    layout = make_layout(setup.config, setup.sources, setup.sizes)
    batches = TrainLoader(setup.config, layout, setup.sources, setup.sizes, setup.namespaces)
    places = set()
    for batch, wanted in zip(itertools.islice(batches, 25), kept, strict=True):
        assert_same(batch, wanted)
        for stream in batch.streams.values():
            assert (stream.parts[stream.segment == 0] == 0).all()
        places.add(place(batch.streams["a.toy"].parts))
    batches.close()
    assert len(places) < 25
