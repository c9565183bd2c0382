"""Writing and choosing answers, against the same model run sample by sample in a plain loop."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from multimed_jax.config import ModelConfig
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import EvalLoader, TrainLoader
from multimed_jax.layers.subwords import encode, special_id
from multimed_jax.model import Model, ModelSpec
from multimed_jax.steps import make_predict_step
from multimed_jax.tasks import vqa
from multimed_jax.types import UserError
from tests.data.fakes import TOY, make_setup
from tests.questions import CANDIDATES, MODALITIES, TEXT, VQA, QuestionSource

CONFIG = ModelConfig(d_model=16, num_layers=2, num_heads=2)


def make(tmp_path, fusion="early", modalities=MODALITIES[:1] + MODALITIES[2:]):
    setup = make_setup(
        [QuestionSource()],
        tmp_path,
        modalities=modalities,
        tasks=(TOY, VQA),
        lanes=1,
        rows=4,
        row_width=64,
    )
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    config = dataclasses.replace(CONFIG, fusion=fusion)
    spec = ModelSpec(config, modalities, (TOY, VQA), setup.namespaces)
    _, params, rest = nnx.split(Model(spec, nnx.Rngs(0)), nnx.Param, ...)
    # Louder than at the start, so that answers differ between samples.
    params = jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x, nnx.to_pure_dict(params))
    return setup, layout, spec, params, nnx.to_pure_dict(rest)


def batches(setup, layout, loader: Any = EvalLoader):
    return loader(setup.config, layout, setup.sources, setup.sizes, setup.namespaces)


def with_parts(batch, parts):
    places = dataclasses.replace(batch.streams["text.answer"], parts=parts)
    return dataclasses.replace(batch, streams=batch.streams | {"text.answer": places})


@pytest.fixture(scope="module", params=["early", "late"])
def answered(request, tmp_path_factory):
    """A packed batch of all records, what was predicted of it, and a function of its outputs."""
    setup, layout, spec, params, rest = make(tmp_path_factory.mktemp("q"), request.param)
    (batch,) = list(batches(setup, layout))
    predicted = jax.jit(make_predict_step(spec))(params, rest, batch)
    graphdef = nnx.split(Model(spec, nnx.Rngs(0)))[0]
    outputs = jax.jit(lambda batch: nnx.merge(graphdef, params, rest)(batch))
    return batch, jax.device_get(predicted), outputs


def slots_of(batch):
    """(slot, row of the source, first place) of every question."""
    slots = batch.targets["vqa"]
    segment = batch.streams["text.answer"].segment[0]
    for k in np.flatnonzero(slots.weight[0] > 0):
        s = slots.segment[0, k]
        yield k, int(batch.record[0, s - 1, 1]), int(np.flatnonzero(segment == s)[0])


def test_open_answers_are_the_greedy_ones(answered):
    batch, predicted, outputs = answered
    found = {}
    for k, row, first in slots_of(batch):
        if row % 3:
            continue
        parts = np.array(batch.streams["text.answer"].parts)
        said = []
        for place in range(5):
            logits = outputs(with_parts(batch, parts))["vqa"]
            said.append(int(np.asarray(logits)[0, k, place].argmax()))
            if said[-1] == special_id("<end>"):
                break
            if place < 4:
                parts[0, first + place + 1] = said[-1]
        found[row] = said
        assert predicted["vqa"][0, k, : len(said)].tolist() == said
        assert (predicted["vqa"][0, k, len(said) :] == -1).all()
    assert len(found) == 4


def test_closed_answers_are_the_most_probable_candidates(answered):
    batch, predicted, outputs = answered
    chosen = set()
    for k, row, first in slots_of(batch):
        if row % 3 != 1:
            continue
        scores = []
        for text in CANDIDATES:
            ids = [*encode(text.encode()).tolist(), special_id("<end>")]
            parts = np.array(batch.streams["text.answer"].parts)
            parts[0, first + 1 : first + len(ids)] = ids[:-1]
            logits = np.asarray(outputs(with_parts(batch, parts))["vqa"])[0, k].astype(np.float64)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            scores.append(sum(log_p[i, piece] for i, piece in enumerate(ids)))
        best = CANDIDATES[int(np.argmax(scores))]
        assert vqa.answer_text(predicted["vqa"][0, k]) == best
        chosen.add(best)
    assert chosen


def test_other_predictions_do_not_depend_on_answers(answered):
    batch, predicted, outputs = answered
    parts = np.array(batch.streams["text.answer"].parts)
    parts[parts == special_id("<pad>")] = 77
    other = outputs(with_parts(batch, parts))["toy"]
    np.testing.assert_array_equal(np.asarray(outputs(batch)["toy"]), np.asarray(other))


def test_a_place_does_not_see_later_ones(answered):
    batch, _, outputs = answered
    before = np.asarray(outputs(batch)["vqa"])
    for k, _, first in slots_of(batch):
        parts = np.array(batch.streams["text.answer"].parts)
        parts[0, first + 3] = 99
        after = np.asarray(outputs(with_parts(batch, parts))["vqa"])
        np.testing.assert_array_equal(after[0, k, :3], before[0, k, :3])
        assert np.abs(after[0, k, 3:] - before[0, k, 3:]).max() > 1e-4
        others = np.delete(np.arange(before.shape[1]), k)
        np.testing.assert_array_equal(after[0, others], before[0, others])
        break


def test_evaluation_hides_answers_and_training_shows_them(tmp_path):
    setup, layout, *_ = make(tmp_path)
    (hidden,) = list(batches(setup, layout))
    shown = next(iter(batches(setup, layout, TrainLoader)))
    begin, pad = special_id("<begin>"), special_id("<pad>")
    for batch, seen in ((hidden, False), (shown, True)):
        places = batch.streams["text.answer"]
        for k, row, first in slots_of(batch):
            ids = places.parts[0, first : first + 5]
            said = encode(setup.sources[0][row]["answer"]["text"].encode()).tolist()
            assert ids[0] == begin
            assert ids[1:].tolist() == ((said if seen else []) + [pad] * 5)[:4]
            truth = batch.targets["vqa"].value[0, k, 0]
            whole = [*said, special_id("<end>")][:5]
            assert truth[: len(whole)].tolist() == whole
        order = batch.grids[0].order
        assert sorted(set(order.ravel().tolist())) == [0, 1, 2, 3, 4, 5]


def asked(task, record):
    """The target of a record while sizes are counted."""
    return task.read_target(record, None)


def test_too_many_candidates_and_a_truth_that_is_none():
    record = dict(QuestionSource()[1])
    with pytest.raises(UserError, match="has 3 candidates; task 'vqa' accepts at most 2"):
        asked(vqa.SPEC.with_options(max_candidates=2), record)
    record["answer"] = {"text": "maybe", "candidates": CANDIDATES}
    with pytest.raises(UserError, match="'maybe' of a closed question is none of its candidates"):
        asked(VQA, record)


@pytest.mark.parametrize("nothing", ["", b"", np.array(b"", object)])
def test_an_empty_question_asks_nothing(nothing):
    record = dict(QuestionSource()[0]) | {"text": {"text": nothing}}
    assert asked(VQA, record) is None
    assert TEXT.count(record, TEXT.options) == {}
    record = dict(QuestionSource()[0]) | {"answer": {"text": nothing, "candidates": []}}
    assert asked(VQA, record) is None
    assert list(TEXT.count(record, TEXT.options)) == ["text.tokens"]


@pytest.mark.parametrize("said", ["r\u00e9tine", "r\u00e9tine".encode(), np.array(b"no", object)])
def test_places_show_an_answer_of_any_type(said):
    record = dict(QuestionSource()[0]) | {"answer": {"text": said, "candidates": []}}
    parts = TEXT.decode(record, TEXT.options, np.random.default_rng(0))["text.answer"].parts
    plain = said.item() if isinstance(said, np.ndarray) else said
    pieces = encode(plain.encode() if isinstance(plain, str) else plain)[:4].tolist()
    assert parts[: 1 + len(pieces)].tolist() == [special_id("<begin>"), *pieces]


class WithoutImages(QuestionSource):
    """The same questions about images that are not there."""

    def __getitem__(self, row):
        return {k: v for k, v in super().__getitem__(row).items() if k != "a"}


def test_a_question_whose_image_is_missing_is_still_asked(tmp_path):
    both = (QuestionSource(), WithoutImages())
    both[1].info = dataclasses.replace(both[1].info, name="b", content_hash="1" * 16)
    setup = make_setup(
        both,
        tmp_path,
        modalities=MODALITIES[:1] + MODALITIES[2:],
        tasks=(TOY, VQA),
        lanes=1,
        rows=4,
        row_width=64,
    )
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    met = set()
    for batch in batches(setup, layout):
        slots, words = batch.targets["vqa"], batch.streams["text.tokens"].segment[0]
        for k in np.flatnonzero(slots.weight[0] > 0):
            segment = slots.segment[0, k]
            source, row = batch.record[0, segment - 1].tolist()
            met.add((source, row))
            assert (words == segment).any()
            assert (batch.streams["a.toy"].segment[0] == segment).any() == (source == 0)
            # The modalities that are there share the sample: both, or the text alone.
            expected = [0.5, 0.5] if source == 0 else [0.0, 1.0]
            assert slots.modality_share[0, k].tolist() == expected
    assert met == {(source, row) for source in (0, 1) for row in range(12) if row % 3 < 2}


def test_places_tell_nothing_of_a_question_that_is_hidden():
    """Neither their number nor where they lie depends on the words of the question."""
    short = dict(QuestionSource()[0]) | {"text": {"text": "side?"}}
    long = dict(QuestionSource()[0]) | {"text": {"text": "on which side is it that you see one?"}}
    places = [TEXT.decode(record, TEXT.options, None)["text.answer"] for record in (short, long)]
    np.testing.assert_array_equal(places[0].coords, places[1].coords)
    np.testing.assert_array_equal(places[0].parts, places[1].parts)
    words = TEXT.decode(long, TEXT.options, None)["text.tokens"]
    assert words.coords.max() < places[0].coords.min()
