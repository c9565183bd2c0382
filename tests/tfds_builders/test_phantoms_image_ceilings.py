"""phantoms: ceilings of the image studies of `all`, from the posterior of each forward model.

As in `test_phantoms_ceilings`: a posterior knows the model's constants, never a patient's latents,
and none uses the closed forms of `ceilings.py`.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

from tests.tfds_builders.phantom_posteriors import (
    additive_log_likelihood,
    group_mean,
    normalise,
    standard_error,
    with_offsets,
)
from tfds_builders.phantoms import ct, hand, oct, pathology, xray
from tfds_builders.phantoms.ceilings import ceilings, subset_ceilings
from tfds_builders.phantoms.patient import CHANNELS, make_patients

SEED = 21
NUM_IMAGES = 800


@functools.cache
def patients(number: int = NUM_IMAGES):
    return make_patients(SEED, np.arange(number))


def label_guess(task: str, presentation: np.ndarray) -> np.ndarray:
    """argmax_y sum_z p(y | z) p(z | x), labels uniform."""
    backward = CHANNELS[task] / CHANNELS[task].sum(axis=0)
    return (presentation @ backward.T).argmax(axis=1)


def within(measured: Any, ceiling: float, number: float) -> bool:
    return abs(measured - ceiling) < 3 * standard_error(ceiling, round(number))


# ------------------------------------------------------------------- classes: eye, tissue


def eye_posterior(images: np.ndarray, retinas: np.ndarray, lesions: np.ndarray, sd: float):
    """p(grade shown | image), [n, 5]: the first k kinds of lesion, each in any layout."""
    objects, groups = [], []
    for grade in range(5):
        for layout in itertools.product(range(oct.NUM_LAYOUTS), repeat=grade):
            shown = [lesions[kind, place] for kind, place in enumerate(layout)]
            objects.append(np.sum(shown, axis=0) if shown else np.zeros_like(lesions[0, 0]))
            groups.append(grade)
    scenes = with_offsets(retinas, oct.SITE_OFFSETS)
    log_likelihood = additive_log_likelihood(images, scenes, np.stack(objects), sd)
    return normalise(group_mean(log_likelihood, np.array(groups)))


@pytest.mark.parametrize("device", ["photo", "scan"])
def test_both_devices_reach_the_ceiling_of_retinopathy(device: str):
    block, number = patients(), 400
    if device == "photo":
        images, retinas, lesions = (
            oct.render_photos(block),
            oct.photo_retinas(),
            oct.photo_lesions(),
        )
        sd = oct.PHOTO_NOISE_SD
    else:
        images, retinas, lesions = oct.render_scans(block), oct.scan_retinas(), oct.scan_lesions()
        sd = oct.SCAN_NOISE_SD
    posterior = eye_posterior(images[:number], retinas, lesions, sd)
    shown, labels = block.presentations["retinopathy"], block.labels["retinopathy"]
    assert (posterior.argmax(axis=1) == shown[:number]).mean() >= 0.99
    accuracy = (label_guess("retinopathy", posterior) == labels[:number]).mean()
    assert within(accuracy, ceilings()["retinopathy"], number)
    assert np.abs(shown - labels).max() == 1  # neighbours only


def test_one_malignant_tile_among_benign_ones_is_seen():
    block = patients()
    tiles, counts = pathology.render(block), pathology.num_tiles(block)
    objects = pathology.nuclei().reshape(-1, pathology.SIDE, pathology.SIDE, 3)
    groups = np.repeat([0, 1], pathology.NUM_LAYOUTS)
    scenes = with_offsets(
        np.broadcast_to(pathology.STROMA, (1, *tiles.shape[2:])), pathology.STAIN_OFFSETS
    )
    log_p = additive_log_likelihood(
        tiles.reshape(-1, *tiles.shape[2:]), scenes, objects, pathology.NOISE_SD
    )
    log_p = group_mean(log_p, groups).reshape(*tiles.shape[:2], 2)
    either = logsumexp(log_p, axis=2) - np.log(2)  # a tile that is malignant by chance of one half
    joint = np.empty((len(tiles), 2))
    for row, count in enumerate(counts):
        benign, malignant = log_p[row, :count].T
        joint[row, 0] = benign.sum()
        # The sure tile is any of them.
        others = either[row, :count].sum() - either[row, :count]
        joint[row, 1] = logsumexp(malignant + others) - np.log(count)
    posterior, shown = normalise(joint), block.presentations["breast"]
    for kind in (counts == 1, counts > 1):
        assert (posterior.argmax(axis=1) == shown)[kind].mean() >= 0.99
        right = label_guess("breast", posterior) == block.labels["breast"]
        assert within(right[kind].mean(), ceilings()["breast"], kind.sum())
    assert counts.max() == pathology.MAX_TILES and counts[counts > 1].min() == pathology.MIN_TILES
    mixed = pathology.malignant_tiles(block)[(shown == 1) & (counts == 12)]
    assert 0.45 < mixed.mean() < 0.65  # not all of them


# ------------------------------------------------------------------ radiographic: CT, view


def finding_posteriors(images, scenes, first, second, noise_sd) -> np.ndarray:
    """p(finding shown | image) of the two findings that an image shows, [n, 2]."""
    grid = [(a, b) for a in (None, *first) for b in (None, *second)]
    zero = np.zeros_like(first[0])
    objects = np.stack([(zero if a is None else a) + (zero if b is None else b) for a, b in grid])
    groups = np.array([2 * (a is not None) + (b is not None) for a, b in grid])
    log_p = group_mean(additive_log_likelihood(images, scenes, objects, noise_sd), groups)
    p, wrong = ct.PREVALENCE, ct.WRONG
    shown = p * (1 - wrong) + (1 - p) * wrong
    prior = np.array([1 - shown, shown])
    posterior = normalise(log_p + np.log(np.outer(prior, prior).ravel())).reshape(-1, 2, 2)
    return np.stack([posterior[:, 1].sum(axis=1), posterior[:, :, 1].sum(axis=1)], axis=1)


@functools.cache
def radiographic_posteriors() -> tuple[np.ndarray, np.ndarray]:
    """From the view [n, 2], and from the CT the patient has [n, 2]."""
    block = patients()
    heart, bases = ct.view_objects()
    scenes = with_offsets(xray.chests(), xray.SITE_OFFSETS)
    view = finding_posteriors(ct.render_views(block), scenes, [heart], list(bases), xray.NOISE_SD)
    by_kind = []
    for images, size in (
        (ct.render_slices(block), (ct.SLICE_SIDE, 1)),
        (ct.render_volumes(block), (ct.VOLUME_SIDE, ct.VOLUME_DEPTH)),
    ):
        parts = ct.bodies(*size), list(ct.nodules(*size)), list(ct.emphysemas(*size))
        by_kind.append(finding_posteriors(images, *parts, ct.NOISE_HU))
    return view, np.where(ct.is_volume(block)[:, None], by_kind[1], by_kind[0])


@pytest.mark.parametrize("subset", ["xray", "ct", "ct+xray"])
def test_findings_have_their_ceilings(subset: str):
    block = patients()
    view, scan = radiographic_posteriors()
    shown = ct.presented(block)
    assert ((view > 0.5) == shown[:, :2]).mean() >= 0.99
    assert ((scan > 0.5) == shown[:, 2:]).mean() >= 0.99
    marginal = ct.PREVALENCE * (1 - ct.WRONG) + (1 - ct.PREVALENCE) * ct.WRONG
    view = view if "xray" in subset else np.full_like(view, marginal)
    scan = scan if "ct" in subset else np.full_like(scan, marginal)
    posterior = np.concatenate([view, scan], axis=1)
    has = ct.PREVALENCE * (1 - ct.WRONG) / marginal  # p(label 1 | shown)
    misses = ct.PREVALENCE * ct.WRONG / (1 - marginal)
    guess = posterior * has + (1 - posterior) * misses > 0.5
    targets = ct.targets(block)
    known = targets >= 0
    accuracy = np.mean([(guess == targets)[known[:, f], f].mean() for f in range(4)])
    assert within(accuracy, subset_ceilings()["radiographic"][subset], known.sum())
    assert np.abs(1 - known.mean() - ct.UNKNOWN) < 0.02


# ------------------------------------------------------------------------ bone age: months


@pytest.mark.parametrize("subset", ["xray", "text", "text+xray"])
def test_bone_age_within_twelve_months_has_its_ceiling(subset: str):
    block = patients()
    months = hand.months(block)
    ages = np.arange(hand.MIN_MONTHS, hand.MAX_MONTHS + 0.5, 0.5)
    log_m = additive_log_likelihood(
        hand.render(block),
        with_offsets(hand.hands(), hand.SITE_OFFSETS),
        hand.centres(),
        hand.NOISE_SD,
    )
    if "xray" in subset:
        best = hand.MATURITIES[log_m.argmax(axis=1)]
        assert np.abs(best - hand.maturity(block)).mean() < 2  # months: far below the noise
    else:
        log_m = np.zeros_like(log_m)
    likelihood = np.exp(log_m - log_m.max(axis=1, keepdims=True))
    # p(maturity | age) by sex, and which ages lie within reach of a guess.
    by_sex = [
        scipy.stats.norm.pdf(
            hand.MATURITIES[None, :], ages[:, None] + shift, hand.MATURITY_SD_MONTHS
        )
        for shift in hand.SEX_SHIFT_MONTHS
    ]
    window = np.abs(ages[:, None] - ages[None, :]) <= hand.WITHIN_MONTHS
    caught = []
    for row in range(len(months)):
        sexes = [int(block.sex[row])] if "text" in subset else [0, 1]
        posterior = np.sum([by_sex[sex] @ likelihood[row] for sex in sexes], axis=0)
        guess = ages[(window @ posterior).argmax()]
        caught.append(abs(guess - months[row]) <= hand.WITHIN_MONTHS)
    assert within(np.mean(caught), subset_ceilings()["bone_age"][subset], len(caught))


def test_the_line_tells_the_sex_and_no_age():
    block = patients()
    lines = hand.render_text(block)
    said = ["male" in line.replace("female", "") for line in lines]
    np.testing.assert_array_equal(said, block.sex == 1)
    assert not [line for line in lines if any(c.isdigit() for c in line)]
    assert len(set(lines)) == 16
