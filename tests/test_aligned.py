"""The aligned space: losses by hand, the bank, halves of samples, and that training aligns."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimed_jax.aligned import alignment_loss, bank_of, embed_slots, embed_texts, score_texts
from multimed_jax.config import AlignmentConfig, ModelConfig
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import TrainLoader
from multimed_jax.layers.alignment import AlignmentHead, multi_positive_info_nce, text_keys
from multimed_jax.layers.label_bank import encode_prompts, make_label_bank
from multimed_jax.layers.subwords import encode, to_bytes
from multimed_jax.model import Model, ModelSpec
from multimed_jax.specs import Namespace
from multimed_jax.types import UserError
from tests.data.fakes import TOY, A, make_setup
from tests.questions import TEXT, VQA, QuestionSource

MODALITIES = (A, TEXT)
ALIGN = AlignmentConfig(weight=1.0, pair_rate=0.9, dim=8)


def reference_info_nce(logits, positive, valid):
    """Row by row in float64."""
    losses = []
    for row in range(len(logits)):
        columns = [c for c in range(logits.shape[1]) if valid[row, c]]
        good = [c for c in columns if positive[row, c]]
        if not good:
            continue
        total = np.log(sum(np.exp(np.float64(logits[row, c])) for c in columns))
        losses.append(-np.mean([logits[row, c] - total for c in good]))
    return np.mean(losses)


def test_info_nce_against_a_plain_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 5)).astype(np.float32)
    positive, valid = rng.random((6, 5)) < 0.4, rng.random((6, 5)) < 0.8
    valid[2] = False
    found = multi_positive_info_nce(*map(jnp.asarray, (logits, positive, valid)))
    assert float(found) == pytest.approx(reference_info_nce(logits, positive, valid), abs=1e-6)


def test_nothing_to_compare_is_a_loss_of_0_with_a_gradient_of_0():
    nothing = jnp.zeros((3, 3), bool)
    value, gradient = jax.value_and_grad(multi_positive_info_nce)(
        jnp.ones((3, 3)), nothing, nothing
    )
    assert float(value) == 0 and np.asarray(gradient).tolist() == np.zeros((3, 3)).tolist()


def test_siglip_by_hand():
    head = AlignmentHead(dataclasses.replace(ALIGN, loss="siglip"), 4, nnx.Rngs(0))
    logits = jnp.asarray([[2.0, -1.0], [0.5, 3.0]])
    positive = jnp.asarray([[True, False], [False, True]])
    found = head.loss(logits, positive, jnp.ones((2, 2), bool))
    signed = np.array([2.0, 1.0, -0.5, 3.0])
    assert float(found) == pytest.approx(np.log1p(np.exp(-signed)).sum() / 2, abs=1e-6)


def test_bank_has_the_columns_of_the_heads():
    spaces = {"toy": (Namespace("x", ("red", "light_blue"), ()), Namespace("y", ("grey",), ()))}
    bank = make_label_bank((TOY, VQA), spaces, ("a {}", "{} thing"), 16)
    assert list(bank.columns) == ["toy"]
    said = [to_bytes(row).decode() for row in bank.ids]
    assert [[said[i] for i in rows] for rows in bank.columns["toy"]] == [
        ["a red", "red thing"],
        ["a light blue", "light blue thing"],
        ["a grey", "grey thing"],
    ]


def test_equal_texts_have_equal_keys_wherever_they_lie():
    texts = [b"left lung", b"right lung", b"left lung", b"lung left"]
    ids = [encode(text) for text in texts]
    flat = np.concatenate([[7], *ids])[None]
    segment = np.repeat([0, 1, 2, 3, 4], [1, *map(len, ids)])[None]
    keys = np.asarray(text_keys(jnp.asarray(flat), jnp.asarray(segment), 4))[0]
    assert keys[0] == keys[2] and len(set(keys.tolist())) == 3


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    source = QuestionSource(num=24)
    setup = make_setup(
        [source],
        tmp_path_factory.mktemp("aligned"),
        modalities=MODALITIES,
        tasks=(TOY, VQA),
        lanes=1,
        rows=4,
        row_width=64,
        window=24,
    )
    setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, alignment=ALIGN))
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    loader = TrainLoader(setup.config, layout, setup.sources, setup.sizes, setup.namespaces)
    batch = next(loader)
    loader.close()
    config = ModelConfig(d_model=16, num_layers=1, num_heads=2)
    spec = ModelSpec(config, MODALITIES, (TOY, VQA), setup.namespaces, ALIGN)
    return setup, layout, batch, spec


def test_halves_are_segments_of_their_own_in_one_pack(aligned):
    setup, _, batch, _ = aligned
    partner, record = batch.partner[0], batch.record[0]
    grid = batch.grids[0]
    split = np.flatnonzero(partner)
    assert len(split) > 4
    words = 2  # stream ids: a.toy, text.tokens, text.answer
    for s in split:
        other = partner[s] - 1
        assert partner[other] == s + 1
        assert record[s].tolist() == record[other].tolist()
        streams = set(grid.stream_ids[grid.segment_ids == s + 1].tolist())
        assert streams == ({words} if s > other else {1})
    # Questions stay whole, and so do targets: with the half that is no text.
    whole = {int(s) for s in batch.targets["vqa"].segment[0] if s}
    assert not whole & {int(s) + 1 for s in split}
    for segment in batch.targets["toy"].segment[0]:
        assert segment == 0 or partner[segment - 1] == 0 or partner[segment - 1] > segment


def test_no_parameter_is_weakly_typed(aligned):
    """Such a one is strongly typed after the first update, so the step would compile twice."""
    *_, spec = aligned
    shapes = nnx.eval_shape(lambda: nnx.state(Model(spec, nnx.Rngs(0)), nnx.Param))
    weak = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if leaf.weak_type
    ]
    assert not weak


def test_the_loss_is_that_of_a_plain_loop(aligned):
    setup, _, batch, spec = aligned
    model = Model(spec, nnx.Rngs(1))
    bank = bank_of(spec)
    states, present, _ = model.encode(batch)
    found = float(alignment_loss(model, bank, batch, states, present))
    t = float(model.align.log_temperature[...])
    texts = np.asarray(embed_texts(model, jnp.asarray(bank.ids)))
    columns = texts[bank.columns["toy"]].mean(1)
    slots = batch.targets["toy"]
    z = np.asarray(embed_slots(model, batch, states, present)["toy"])[0]
    used = slots.weight[0] > 0
    logits = z[used] @ columns.T / np.exp(t)
    positive = slots.value[0][used][:, None] == np.arange(3)
    every = np.ones_like(positive)
    classes = 0.5 * (
        reference_info_nce(logits, positive, every)
        + reference_info_nce(logits.T, positive.T, every.T)
    )
    mean = np.asarray(jnp.einsum("psmd,psm->psd", states, present))[0]  # one modality a half
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    halves = [s for s in range(len(batch.partner[0])) if batch.partner[0, s] > s + 1]
    others = [int(batch.partner[0, s]) - 1 for s in halves]
    image = unit(mean[halves] @ np.asarray(model.align.sample.kernel[...]))
    text = unit(mean[others] @ np.asarray(model.align.text.kernel[...]))
    rows = [setup.sources[0][int(batch.record[0, s, 1])]["text"]["text"] for s in halves]
    equal = np.array([[a == b for b in rows] for a in rows])
    logits = image @ text.T / np.exp(t)
    every = np.ones_like(equal)
    pairs = 0.5 * (
        reference_info_nce(logits, equal, every) + reference_info_nce(logits.T, equal.T, every)
    )
    assert found == pytest.approx(classes + pairs, abs=1e-4)


class Unpaired(QuestionSource):
    """Notes only; the first of four rows lacks its image, the second its text."""

    def __getitem__(self, row):
        record = super().__getitem__(row) | {"answer": {"text": "", "candidates": []}}
        if row % 4 == 0:
            del record["a"]
        return record | ({"text": {"text": ""}} if row % 4 == 1 else {})


def test_a_sample_whose_pair_is_missing_stays_whole_and_makes_no_pair(tmp_path):
    setup = make_setup(
        [Unpaired(num=24)],
        tmp_path,
        modalities=(A, TEXT),
        tasks=(TOY,),
        lanes=1,
        rows=4,
        row_width=64,
        window=24,
    )
    whole = dataclasses.replace(ALIGN, pair_rate=1.0)
    setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, alignment=whole))
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    loader = TrainLoader(setup.config, layout, setup.sources, setup.sizes, setup.namespaces)
    batch = next(loader)
    loader.close()
    used = batch.record[0, :, 1] >= 0
    paired = batch.record[0, :, 1] % 4 > 1
    assert used.any() and ((batch.partner[0] > 0) == (used & paired)).all()
    assert (used & ~paired).sum() > 4 and (used & paired).sum() > 4

    spec = ModelSpec(ModelConfig(16, 1, 2), (A, TEXT), (TOY,), setup.namespaces, whole)
    bank = bank_of(spec)
    graphdef, params, rest = nnx.split(Model(spec, nnx.Rngs(1)), nnx.Param, ...)

    @jax.jit
    def step(params, batch):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            states, present, _ = model.encode(batch)
            return alignment_loss(model, bank, batch, states, present)

        return jax.value_and_grad(loss)(params)

    # All samples; none of them in two halves; none of them with a class either.
    lone = dataclasses.replace(batch, partner=np.zeros_like(batch.partner))
    nothing = jax.tree.map(np.zeros_like, lone.targets)
    values = []
    for shown in (batch, lone, dataclasses.replace(lone, targets=nothing)):
        value, gradient = step(params, shown)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        values.append(float(value))
    assert values[0] > values[1] > values[2] == 0


def test_a_text_is_encoded_alike_alone_and_among_others(aligned):
    *_, spec = aligned
    model = Model(spec, nnx.Rngs(1))
    many = np.asarray(
        embed_texts(model, jnp.asarray(encode_prompts(["shadow", "a longer text here"], 16)))
    )
    one = np.asarray(embed_texts(model, jnp.asarray(encode_prompts(["shadow"], 16))))
    np.testing.assert_allclose(many[0], one[0], atol=1e-5)


def test_training_brings_samples_to_their_label_texts(aligned):
    _, _, batch, spec = aligned
    bank = bank_of(spec)
    graphdef, params, rest = nnx.split(Model(spec, nnx.Rngs(1)), nnx.Param, ...)

    @jax.jit
    def step(params):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            states, present, _ = model.encode(batch)
            return alignment_loss(model, bank, batch, states, present)

        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)

    first, params = step(params)
    last = first
    for _ in range(150):
        last, params = step(params)
    assert float(last) < 0.6 * float(first)
    model = nnx.merge(graphdef, params, rest)
    states, present, _ = model.encode(batch)
    z = np.asarray(embed_slots(model, batch, states, present)["toy"])[0]
    texts = np.asarray(embed_texts(model, jnp.asarray(bank.ids)))
    used = batch.targets["toy"].weight[0] > 0
    labels = {str(c): texts[rows] for c, rows in enumerate(bank.columns["toy"])}
    chosen = score_texts(z[used], labels).argmax(1)
    assert (chosen == batch.targets["toy"].value[0][used]).mean() > 0.8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": -1.0}, "weight -1.0"),
        ({"templates": ("photo",)}, "accepted: texts with '{}'"),
        ({"temperature": 0.0}, "temperature 0.0"),
    ],
)
def test_bad_values(changes, said):
    with pytest.raises(UserError, match=said):
        AlignmentConfig(**changes)
