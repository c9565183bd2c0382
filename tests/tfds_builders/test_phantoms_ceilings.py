"""phantoms: the ceilings of the metadata against the exact posterior of every forward model.

Each `*_posterior` below inverts a forward model by Bayes' rule, with every nuisance (place, sign,
anatomy, depth, ...) summed out. It knows the model's constants and no latent of the patient.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tests.tfds_builders.phantom_posteriors import (
    additive_log_likelihood,
    group_mean,
    normalise,
    standard_error,
    with_offsets,
)
from tfds_builders.phantoms import eeg, mri, scrna, text, xray
from tfds_builders.phantoms.ceilings import bayes_accuracy, ceilings, subset_ceilings
from tfds_builders.phantoms.patient import CHANNELS, make_patients

SEED = 20
NUM_POSTERIOR = 1200
NUM_LOGISTIC = 4000


@functools.cache
def patients(number: int):
    return make_patients(SEED, np.arange(number))


def mri_posterior(images: np.ndarray) -> np.ndarray:
    """p(presentation | slice), [n, 4]."""
    objects, groups = [], []
    for kind, patterns in enumerate(mri.lesions()):
        for pattern, contrast, sign in itertools.product(patterns, mri.LESION_CONTRASTS, (-1, 1)):
            objects.append(sign * contrast * pattern)
            groups.append(kind)
    scenes = with_offsets(mri.heads(), mri.SITE_OFFSETS)
    log_likelihood = additive_log_likelihood(images, scenes, np.stack(objects), mri.NOISE_SD)
    return normalise(group_mean(log_likelihood, np.array(groups)))


def xray_posterior(images: np.ndarray) -> np.ndarray:
    """p(shadow | view), [n, 2]."""
    shown = [c * s for c, s in itertools.product(xray.SHADOW_CONTRASTS, xray.shadows())]
    objects = np.stack([np.zeros_like(shown[0]), *shown])
    groups = np.array([0] + [1] * len(shown))
    scenes = with_offsets(xray.chests(), xray.SITE_OFFSETS)
    log_likelihood = additive_log_likelihood(images, scenes, objects, xray.NOISE_SD)
    return normalise(group_mean(log_likelihood, groups))


def eeg_posterior(signals: np.ndarray) -> np.ndarray:
    """p(presentation | trial), [n, 4]: bins of the mu band are independent complex normals."""
    bins = np.fft.rfft(signals.astype(np.float64), axis=1)[:, eeg.mu_bins()]
    gain, sd = eeg.projection(), eeg.background_sd()[eeg.mu_bins()]
    log_likelihood = []
    for fades in eeg.FADES:
        by_level = []
        for mu, alpha in itertools.product(eeg.MU_LEVELS_UV, eeg.ALPHA_LEVELS_UV):
            levels = np.append(np.where(fades, mu * eeg.FADED, mu), alpha)
            rhythm = gain @ np.diag(eeg.rhythm_sd(levels) ** 2) @ gain.T
            total = np.zeros(len(bins))
            for k in range(bins.shape[1]):
                normal = scipy.stats.multivariate_normal(
                    cov=rhythm + sd[k] ** 2 * np.eye(len(gain))  # pyright: ignore[reportArgumentType]
                )
                total += normal.logpdf(bins[:, k].real) + normal.logpdf(bins[:, k].imag)
            by_level.append(total)
        log_likelihood.append(logsumexp(by_level, axis=0))
    return normalise(np.stack(log_likelihood, axis=1))


def scrna_posterior(counts: np.ndarray) -> np.ndarray:
    """p(presentation | counts), [n, 6]: genes are independent given type and nuisances."""
    r, by_type = scrna.DISPERSION, []
    for kind in range(len(scrna.MARKERS)):
        means = np.concatenate([d * scrna.rates()[kind].reshape(-1, 180) for d in scrna.DEPTHS])
        # Negative binomial without the factors that no mean enters.
        log_p = counts @ np.log(means / (means + r)).T + r * np.log(r / (means + r)).sum(axis=1)
        by_type.append(logsumexp(log_p, axis=1))
    return normalise(np.stack(by_type, axis=1))


def text_posterior(notes: list[str]) -> np.ndarray:
    """p(cough | note), [n, 2]: the rest of a note is drawn alike in both."""
    lower = [note.lower() for note in notes]
    found = [[any(p in n for p in phrases) for n in lower] for phrases in text.COUGH_PHRASES]
    return np.array(found, float).T


def label_guess(task: str, presentation: np.ndarray) -> np.ndarray:
    """argmax_y sum_z p(y | z) p(z | x), labels uniform."""
    backward = CHANNELS[task] / CHANNELS[task].sum(axis=0)
    return (presentation @ backward.T).argmax(axis=1)


@functools.cache
def posteriors() -> dict[str, np.ndarray]:
    """Posterior of what each study shows, from the records of the first patients alone."""
    block = patients(NUM_POSTERIOR)
    return {
        "tumor": mri_posterior(mri.render(block)),
        "motor": eeg_posterior(eeg.render(block)),
        "cell_type": scrna_posterior(scrna.render(block)),
        "shadow": xray_posterior(xray.render(block)),
        "cough": text_posterior(text.render(block)),
    }


def disease_posterior(shadow: np.ndarray, cough: np.ndarray) -> np.ndarray:
    return (shadow[:, :, None] * cough[:, None, :]).reshape(len(shadow), 4)


@pytest.mark.parametrize("task", ["tumor", "motor", "cell_type"])
def test_optimal_classifier_reaches_the_ceiling(task: str):
    posterior, ceiling = posteriors()[task], ceilings()[task]
    block = patients(NUM_POSTERIOR)
    # The presentation is (almost) perfectly visible, so the channel alone sets the ceiling ...
    assert (posterior.argmax(axis=1) == block.presentations[task]).mean() >= 0.99
    # ... and the true posterior of the label scores it.
    accuracy = (label_guess(task, posterior) == block.labels[task]).mean()
    assert abs(accuracy - ceiling) < 3 * standard_error(ceiling, NUM_POSTERIOR)


@pytest.mark.parametrize("subset", ["xray", "text", "text+xray"])
def test_each_half_of_the_disease_has_its_ceiling(subset: str):
    block, unknown = patients(NUM_POSTERIOR), np.full((NUM_POSTERIOR, 2), 0.5)
    shadow = posteriors()["shadow"] if "xray" in subset else unknown
    cough = posteriors()["cough"] if "text" in subset else unknown
    accuracy = label_guess("disease", disease_posterior(shadow, cough)) == block.labels["disease"]
    ceiling = subset_ceilings()["disease"][subset]
    assert abs(accuracy.mean() - ceiling) < 3 * standard_error(ceiling, NUM_POSTERIOR)


def test_both_halves_of_the_disease_are_visible():
    block = patients(NUM_POSTERIOR)
    assert (posteriors()["shadow"].argmax(axis=1) == block.shadow).mean() >= 0.99
    # Every note holds a phrase of one list and none of the other.
    np.testing.assert_array_equal(posteriors()["cough"], np.eye(2)[block.cough])


@pytest.mark.parametrize("task", sorted(CHANNELS))
def test_ceiling_counts_what_the_channel_lets_through(task: str):
    block = patients(40_000)
    shown, label = block.presentations[task], block.labels[task]
    # The most frequent label of each presentation, counted: no formula involved.
    table = np.zeros(CHANNELS[task].shape)
    np.add.at(table, (label, shown), 1)
    counted = table.max(axis=0).sum() / len(label)
    assert abs(counted - ceilings()[task]) < 3 * standard_error(counted, len(label))
    np.testing.assert_allclose(CHANNELS[task].sum(axis=1), 1)


def test_ceilings_by_hand():
    expected = {"tumor": 0.87, "motor": 0.84, "cell_type": 0.86, "disease": 0.94**2}
    expected |= {"retinopathy": 0.82, "breast": 0.86}
    assert {task: ceilings()[task] for task in CHANNELS} == pytest.approx(expected)
    halves = {"xray": 0.94 / 2, "text": 0.94 / 2, "text+xray": 0.94**2}
    assert subset_ceilings()["disease"] == pytest.approx(halves)
    assert all(0.65 <= ceiling <= 0.92 + 1e-9 for ceiling in ceilings().values())
    # A channel that shows label 0 always and label 1 half of the time: (1 + 0.5) / 2.
    assert bayes_accuracy(np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx(0.75)


@pytest.mark.parametrize("task", ["tumor", "motor", "cell_type"])
def test_logistic_regression_on_raw_values_stays_ten_points_below(task: str):
    block = patients(NUM_LOGISTIC)
    raw = {
        "tumor": lambda: mri.render(block),
        "motor": lambda: eeg.render(block),
        "cell_type": lambda: np.log1p(scrna.render(block)),
    }[task]()
    values = StandardScaler().fit_transform(raw.reshape(NUM_LOGISTIC, -1).astype(np.float32))
    labels, half = block.labels[task], NUM_LOGISTIC // 2
    scores = [
        LogisticRegression(C=strength, max_iter=40, tol=1e-2)
        .fit(values[:half], labels[:half])
        .score(values[half:], labels[half:])
        for strength in (1e-5, 1e-3)
    ]
    assert max(scores) < ceilings()[task] - 0.10
