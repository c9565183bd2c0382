from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimed_jax.metrics.chain_baselines import align, ideal_helix
from multimed_jax.metrics.structure import tm_score
from multimed_jax.specs import BaselineInputs, Namespace
from multimed_jax.tasks import structure
from multimed_jax.types import Parts, SegmentParts, TargetSlots, UserError
from tests.metrics.chains import move, random_chain

LENGTH, D_MODEL = 12, 16
SPEC = structure.SPEC.with_options(
    width=16, pair_dim=4, pair_blocks=1, steps=2, num_heads=2, num_points=2, num_bins=8
)
SPACES = (Namespace("pdb", (), ()),)


def native(length: int = LENGTH, seed: int = 0) -> np.ndarray:
    """A helix of `length` residues, bent by noise."""
    rng = np.random.default_rng(seed)
    return (ideal_helix(length) + 0.2 * rng.normal(size=(length, 3, 3))).astype(np.float32)


def record(sequence, atoms) -> dict:
    return {"protein": {"sequence": sequence}, "targets": {"structure": atoms}}


def crop(start: int, number: int) -> Parts:
    coords = np.arange(start, start + number, dtype=np.float32)[:, None]
    return Parts(np.zeros(number, np.int32), coords, np.zeros(number, np.int32))


# ---------------------------------------------------------------------------------- target


def test_a_target_is_cropped_with_its_residues():
    atoms = native(9)
    atoms[3] = np.nan
    found = structure.read_target(record("A" * 9, atoms), crop(2, 4))
    np.testing.assert_array_equal(found, atoms[2:6])
    np.testing.assert_array_equal(structure.read_target(record("A" * 9, atoms), None), atoms)


def test_records_without_a_structure_have_no_target():
    few = np.full((9, 3, 3), np.nan, np.float32)
    few[:2] = native(2)
    for targets in ({}, {"structure": None}, {"structure": np.zeros((0, 3, 3))}):
        assert structure.read_target({"targets": targets}, None) is None
    assert structure.read_target({}, None) is None
    assert structure.read_target(record("A" * 9, few), None) is None
    few[8] = 1.0
    assert structure.read_target(record("A" * 9, few), None) is not None
    # The planner counted the record: a crop without resolved residues is still a target.
    empty = structure.read_target(record("A" * 9, few), crop(3, 4))
    assert empty is not None and np.isnan(empty).all()


def test_damaged_targets():
    with pytest.raises(UserError, match=r"\(9, 3\); accepted"):
        structure.read_target(record("A", np.zeros((9, 3))), None)
    with pytest.raises(UserError, match="4 residues and the sequence at least 6"):
        structure.read_target(record("A" * 6, native(4)), crop(0, 6))


# ------------------------------------------------------------------------------------ head


def slots(lengths: list[int], values: list[np.ndarray]) -> tuple[SegmentParts, TargetSlots]:
    """One pack: a slot for each chain, of 0 residues where it is empty."""
    number = len(lengths)
    rng = np.random.default_rng(5)
    mask = np.arange(LENGTH) < np.array(lengths)[:, None]
    states = rng.normal(size=(number, LENGTH, D_MODEL)) * mask[..., None]
    value = np.full((number, LENGTH, 3, 3), np.nan, np.float32)
    for k, atoms in enumerate(values):
        value[k, : len(atoms)] = atoms
    read = SegmentParts(
        jnp.asarray(states, jnp.float32)[None],
        jnp.zeros((1, number, LENGTH), jnp.int32),
        jnp.asarray(np.where(mask, np.arange(LENGTH), 0), jnp.float32)[None, ..., None],
        jnp.asarray(mask)[None],
    )
    weight = jnp.asarray(np.array(lengths) > 0, jnp.float32)[None]
    ones = jnp.ones((1, number), jnp.int32)
    return read, TargetSlots(ones, jnp.asarray(value)[None], weight, ones * 0, weight[..., None])


HEAD = SPEC.make_head(D_MODEL, SPACES, nnx.Rngs(0))
GRAPH, PARAMS = nnx.split(HEAD)


@jax.jit
def evaluate(params, read: SegmentParts, of: TargetSlots):
    """Loss of every slot, gradient of their sum, predictions."""

    def total(params):
        outputs = nnx.merge(GRAPH, params)(jnp.zeros((1, 4, D_MODEL)), read)
        per_slot = SPEC.loss_fn(outputs, of, SPACES)
        return per_slot.sum(), (per_slot, SPEC.predict(outputs, of, SPACES))

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return *found, gradient


def hard_slots() -> tuple[SegmentParts, TargetSlots]:
    """A whole chain, a chain with holes, one without a resolved residue, an empty slot."""
    holes = native(8, 1)
    holes[2:5] = np.nan
    holes[6, 1] = np.nan
    return slots([LENGTH, 8, 5, 0], [native(), holes, np.full((5, 3, 3), np.nan), native(0)])


def test_losses_and_gradients_are_finite_and_empty_slots_cost_nothing():
    losses, predicted, gradient = evaluate(PARAMS, *hard_slots())
    assert losses.shape == (1, 4)
    assert (np.asarray(losses[0, :2]) > 0.1).all() and losses[0, 2] == losses[0, 3] == 0
    norms = [float(jnp.linalg.norm(g)) for g in jax.tree.leaves(gradient)]
    assert np.isfinite(norms).all() and sum(n > 0 for n in norms) > 0.9 * len(norms)
    assert np.isfinite(predicted).all() and (np.asarray(predicted[0, 3]) == 0).all()


def test_a_slot_does_not_depend_on_its_neighbours_or_on_unresolved_coordinates():
    read, of = hard_slots()
    losses, predicted, _ = evaluate(PARAMS, read, of)
    order = jnp.array([1, 0, 3, 2])
    turned_read = jax.tree.map(lambda a: a[:, order], read)
    turned_of = jax.tree.map(lambda a: a[:, order], of)
    turned, turned_predicted, _ = evaluate(PARAMS, turned_read, turned_of)
    np.testing.assert_allclose(turned, losses[:, order], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(turned_predicted, predicted[:, order], rtol=1e-3, atol=1e-3)


def test_a_motion_of_the_native_changes_nothing_and_a_mirror_does():
    read, of = slots([LENGTH] * 4, [native()] * 4)
    rng = np.random.default_rng(0)
    moved = move(native().reshape(-1, 3), rng).reshape(-1, 3, 3).astype(np.float32)
    _, of_moved = slots([LENGTH] * 4, [moved, native() * [1, 1, -1], native(), native()])
    still = np.asarray(evaluate(PARAMS, read, of)[0])[0]
    other = np.asarray(evaluate(PARAMS, read, of_moved)[0])[0]
    assert other[0] == pytest.approx(still[0], abs=1e-3)
    assert abs(other[1] - still[1]) > 1e-3


def test_bonds_of_predictions():
    _, predicted, _ = evaluate(PARAMS, *hard_slots())
    for k, length in enumerate((LENGTH, 8, 5)):
        trace = np.asarray(predicted)[0, k, :length, 1]
        bonds = np.linalg.norm(np.diff(trace, axis=0), axis=1)
        assert (np.abs(bonds - 3.8) < 0.3).all()
        atoms = np.asarray(predicted)[0, k, :length]
        np.testing.assert_allclose(
            np.linalg.norm(atoms[:, 0] - atoms[:, 1], axis=-1), 1.46, atol=0.01
        )


def test_a_few_steps_fold_one_chain():
    read, of = slots([LENGTH, 0, 0, 0], [native()])
    optimiser = optax.adam(2e-2)
    params, state = PARAMS, optimiser.init(PARAMS)
    losses, errors = [], []
    for _ in range(60):
        loss, predicted, gradient = evaluate(params, read, of)
        losses.append(float(loss[0, 0]))
        errors.append(rmsd_of(np.asarray(predicted)[0, :1, :, 1]))
        updates, state = optimiser.update(gradient, state)
        params = optax.apply_updates(params, updates)
    assert losses[-1] < 0.5 * losses[0], losses
    assert errors[-1] < 0.6 * errors[0], errors


def rmsd_of(trace: np.ndarray) -> float:
    return float(structure.rmsd(trace, native()[None, :, 1], np.ones((1, LENGTH), bool))[0])


def test_options():
    with pytest.raises(UserError, match="width 10, heads 4"):
        structure.SPEC.with_options(width=10)
    with pytest.raises(UserError, match="weights of at least 0"):
        structure.SPEC.with_options(bond_weight=-1.0)
    with pytest.raises(UserError, match="has no option 'blocks'"):
        structure.SPEC.with_options(blocks=1)
    assert structure.SPEC.with_options(steps=2).options.steps == 2
    assert SPEC.read_target is structure.read_target and SPEC.baselines is structure.baselines
    assert SPEC.statistic is structure.statistic and SPEC.reads == "residues"


# --------------------------------------------------------------------------------- figures


def test_figures_are_means_over_chains_and_resamples_are_weighted():
    rng = np.random.default_rng(1)
    targets = np.full((3, 40, 3, 3), np.nan, np.float32)
    predictions = np.zeros((3, 40, 3, 3), np.float32)
    for b, length in enumerate((40, 25, 30)):
        targets[b, :length, :, :] = random_chain(length, rng)[:, None] + [[-1], [0], [1]]
        predictions[b, :length] = targets[b, :length] + b * rng.normal(size=(length, 3, 3))
    targets[2, 4:9] = np.nan
    got = SPEC.metrics(predictions, targets)
    each = [SPEC.metrics(predictions[b : b + 1], targets[b : b + 1]) for b in range(3)]
    assert each[0]["tm_score"] == pytest.approx(1.0, abs=1e-6) and each[0]["lddt_ca"] == 1.0
    for name in ("tm_score", "lddt_ca", "rmsd"):
        assert got[name] == pytest.approx(np.mean([e[name] for e in each]))
    resample = structure.statistic(predictions, targets)
    weights = np.array([[1, 1, 1], [0, 3, 0], [2, 0, 1]])
    for name, values in resample(weights).items():
        expected = [np.repeat([e[name] for e in each], w).mean() for w in weights]
        np.testing.assert_allclose(values, expected)
    # Rows behind a chain, and a narrower or wider array of predictions, change nothing.
    wide = np.concatenate([predictions, np.full((3, 9, 3, 3), 7.0)], axis=1)
    assert SPEC.metrics(wide, targets) == got
    assert SPEC.primary_metric == "tm_score" and SPEC.lower_is_better == {"rmsd"}


def test_the_ideal_helix_is_one():
    helix = ideal_helix(37).astype(float)
    n, ca, c = helix.swapaxes(0, 1)
    step = np.linalg.norm(np.diff(ca, axis=0), axis=1)
    np.testing.assert_allclose(step, 3.8, atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(c[:-1] - n[1:], axis=1), 1.33, atol=0.01)
    # 3.6 residues a turn and 1.5 angstrom a residue; four C-alpha make a right-handed turn of 50.
    assert np.linalg.norm(ca[36] - ca[0]) / 36 == pytest.approx(1.5, abs=0.06)
    first, second, third = np.diff(ca[:4], axis=0)
    sine = np.linalg.norm(second) * first @ np.cross(second, third)
    cosine = np.cross(first, second) @ np.cross(second, third)
    assert np.degrees(np.arctan2(sine, cosine)) == pytest.approx(50, abs=5)


def test_alignment_by_hand_and_by_biopython():
    assert align(b"ACDEFGH", b"CDEFWGH").tolist() == [
        [1, 0], [2, 1], [3, 2], [4, 3], [5, 5], [6, 6],
    ]  # fmt: skip
    assert align(b"", b"AC").shape == (0, 2)
    bio = pytest.importorskip("Bio.Align")
    rng = np.random.default_rng(2)
    aligner = bio.PairwiseAligner(
        mode="global", match_score=2, mismatch_score=-1, gap_score=-2, end_gap_score=0
    )
    for _ in range(20):
        first = bytes(rng.choice(list(b"ACDE"), rng.integers(5, 40)).tolist())
        second = bytes(rng.choice(list(b"ACDE"), rng.integers(5, 40)).tolist())
        pairs = align(first, second)
        assert (np.diff(pairs, axis=0) > 0).all()
        score = sum(2 if first[i] == second[j] else -1 for i, j in pairs)
        gaps = np.diff(pairs, axis=0) - 1
        assert score - 2 * gaps.sum() == aligner.score(first.decode(), second.decode())


def test_baselines():
    rng = np.random.default_rng(3)
    amino = list(b"ACDEFGHIKLMNPQRSTVWY")
    letters = [bytes(rng.choice(amino, n).tolist()) for n in (30, 50, 40)]
    atoms = [random_chain(len(s), rng)[:, None] + np.eye(3) for s in letters]
    atoms[1][7] = np.nan
    train = [record(s, a.astype(np.float32)) for s, a in zip(letters, atoms, strict=True)]
    train.append(record("AAA", None))
    lower, other = letters[2].decode().lower(), {"sequence": "ACGT", "site": 1}
    asked = [
        {"protein": {"sequence": letters[1][5:45]}, "text": {"text": "x"}},
        {"protein": {"sequence": lower}, "genomics": other},
    ]
    found = structure.baselines(BaselineInputs(SPACES[0], train, asked))
    assert list(found) == ["ideal_helix", "nearest_train_copy"]
    assert all(values.shape == (2, 40, 3, 3) for values in found.values())
    copied = found["nearest_train_copy"]
    np.testing.assert_allclose(copied[1], atoms[2], rtol=1e-5)
    known = np.arange(40) != 2
    np.testing.assert_allclose(copied[0][known], atoms[1][5:45][known], rtol=1e-5)
    np.testing.assert_allclose(copied[0, 2], (atoms[1][6] + atoms[1][8]) / 2, rtol=1e-4)
    targets = np.stack([atoms[1][5:45], atoms[2]])
    assert SPEC.metrics(copied, targets)["tm_score"] > 0.95
    helix = SPEC.metrics(found["ideal_helix"], targets)
    assert 0.05 < helix["tm_score"] < 0.5
    assert list(structure.baselines(BaselineInputs(SPACES[0], [], asked))) == ["ideal_helix"]


def test_a_record_needs_one_chain():
    with pytest.raises(UserError, match="0 chains"):
        structure.sequence_of({"genomics": {"sequence": "ACGT", "site": -1}})


def test_scores_are_of_c_alpha():
    target = native()[None]
    prediction = target.copy()
    prediction[:, :, [0, 2]] += 5.0
    assert SPEC.metrics(prediction, target)["tm_score"] == pytest.approx(1.0, abs=1e-6)
    assert tm_score(prediction[:, :, 0], target[:, :, 1], np.ones((1, LENGTH), bool))[0] < 1.0
