from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.resample import resample, resampled_length
from multimed_jax.modalities import eeg
from multimed_jax.types import UserError
from tests.modalities.streams import (
    D_MODEL,
    assert_missing,
    check_tokenizer,
    decode_one,
    run,
    to_batch,
)

SPEC = eeg.SPEC.with_options(
    rate_hz=64.0, window_s=2.0, patch_len=32, max_channels=6, num_filters=4
)

LSTM = SPEC.with_options(stem="lstm", num_hidden=7)


def ring(channels: int) -> np.ndarray:
    """Electrodes from ear to ear over the vertex."""
    angle = np.linspace(-1.4, 1.4, channels)
    return np.stack([np.sin(angle), 0 * angle, np.cos(angle)], axis=1).astype(np.float32)


def trial(samples: int = 128, channels: int = 5, rate_hz: float = 64.0, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "eeg": {
            "signal_uv": rng.normal(3.0, 12.0, (samples, channels)).astype(np.float32),
            "rate_hz": np.float32(rate_hz),
            "electrode_xyz": ring(channels),
            "channel_names": [f"E{i}".encode() for i in range(channels)],
        }
    }


def test_parts_hold_samples_places_and_presence():
    record = trial()
    parts = decode_one(SPEC, record).parts
    assert parts.shape == (4, 6, 36)
    x = record["eeg"]["signal_uv"].astype(float)
    x = x - x.mean(axis=0)
    scale = np.sort(x.std(axis=0))[2]
    joined = parts[:, :5, :32].swapaxes(0, 1).reshape(5, 128)
    np.testing.assert_allclose(joined, (x / scale).T, atol=1e-4)
    np.testing.assert_allclose(parts[:, :5, 32:35], np.tile(ring(5), (4, 1, 1)))
    assert (parts[:, :, 35] == [1, 1, 1, 1, 1, 0]).all()
    assert (parts[:, 5] == 0).all()


@pytest.mark.parametrize(
    ("rate_hz", "ratio"), [(160.0, 0.4), (250.0, 0.256), (100.0, 0.64), (48.0, 4 / 3)]
)
def test_resampling_equals_scipy(rate_hz, ratio):
    x = np.random.default_rng(0).normal(size=(333, 3)).astype(np.float32)
    got = resample(x, rate_hz, 64.0)
    fraction = {0.4: (2, 5), 0.256: (32, 125), 0.64: (16, 25), 4 / 3: (4, 3)}[ratio]
    expected = signal.resample_poly(x.astype(float), *fraction, axis=0)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert len(got) == resampled_length(333, rate_hz, 64.0)


@pytest.mark.parametrize("rate_hz", [64.0, 160.0, 250.0, 512.0, 99.5])
def test_count_equals_decode(rate_hz):
    for samples in (1, 2, 31, 32, 33, 79, 80, 127, 128, 129, 400, 1500):
        parts = decode_one(SPEC, trial(samples + 1, 2, rate_hz)).parts
        assert 1 <= len(parts) <= 4


def test_short_trial_is_padded_and_long_one_cut():
    short = decode_one(SPEC, trial(20)).parts
    assert short.shape[0] == 1 and (short[0, :, 20:32] == 0).all()
    long = trial(2000)
    assert len(decode_one(SPEC, long).parts) == 4


def test_resampled_sine_keeps_its_frequency_and_shape():
    record = trial(640, 3, 160.0)
    time_s = np.arange(640) / 160.0
    record["eeg"]["signal_uv"] = np.tile(np.sin(2 * np.pi * 10 * time_s)[:, None] * 20, (1, 3))
    spec = SPEC.with_options(window_s=4.0)
    parts = decode_one(spec, record).parts
    joined = parts[:, :3, :32].swapaxes(0, 1).reshape(3, -1)[0]
    expected = np.sin(2 * np.pi * 10 * np.arange(len(joined)) / 64.0) * 2**0.5
    np.testing.assert_allclose(joined[16:-16], expected[16:-16], atol=0.05)


def test_bad_channels_and_unknown_electrodes_take_no_slot():
    clean = trial(channels=5)
    record = trial(channels=5)
    keep = [0, 2]
    record["eeg"]["signal_uv"][17, 1] = np.nan
    record["eeg"]["electrode_xyz"][3] = np.nan
    record["eeg"]["signal_uv"][:, 4] = 7.0
    for name in ("signal_uv", "electrode_xyz"):
        axis = 1 if name == "signal_uv" else 0
        clean["eeg"][name] = np.take(clean["eeg"][name], keep, axis=axis)
    got, expected = decode_one(SPEC, record).parts, decode_one(SPEC, clean).parts
    np.testing.assert_array_equal(got, expected)
    assert np.isfinite(got).all()


def test_infinite_sample_masks_its_channel():
    record = trial(channels=3)
    record["eeg"]["signal_uv"][0, 0] = np.inf
    record["eeg"]["signal_uv"][1, 0] = -np.inf
    assert decode_one(SPEC, record).parts[0, :, 35].sum() == 2


def test_too_many_channels_keep_those_at_the_motor_strip():
    record = trial(channels=21)
    xyz = record["eeg"]["electrode_xyz"]
    parts = decode_one(SPEC, record).parts
    c3_cz_c4 = np.array([[-0.7071, 0, 0.7071], [0, 0, 1], [0.7071, 0, 0.7071]])
    distance = np.linalg.norm(xyz[:, None] - c3_cz_c4, axis=-1).min(axis=1)
    nearest = np.sort(np.argsort(distance, kind="stable")[:6])
    np.testing.assert_allclose(parts[0, :, 32:35], xyz[nearest])


def test_a_wild_channel_does_not_move_the_scale():
    calm, wild = trial(channels=5), trial(channels=5)
    wild["eeg"]["signal_uv"][:, 2] *= 1000
    first, second = decode_one(SPEC, calm).parts, decode_one(SPEC, wild).parts
    ratio = first[:, 0, :32].std() / second[:, 0, :32].std()
    assert 0.8 < ratio < 1.25 and np.abs(second).max() <= eeg.CLIP


def test_missing():
    record = trial()
    record["eeg"]["signal_uv"] = np.zeros((0, 5), np.float32)
    assert_missing(SPEC, record)
    assert SPEC.features(record, SPEC.options).shape == (10,)
    assert_missing(SPEC, trial(channels=0))
    assert_missing(SPEC, {})


def test_illegal_trials():
    record = trial()
    for rate_hz, shown in ((0, "0.0"), (-160, "-160.0"), (np.nan, "nan"), (np.inf, "inf")):
        record["eeg"]["rate_hz"] = np.float32(rate_hz)
        for function in (SPEC.count, SPEC.features):
            with pytest.raises(DecodeError, match=f"{shown} Hz; accepted: above 0"):
                function(record, SPEC.options)
    record = trial()
    record["eeg"]["electrode_xyz"] = ring(4)
    with pytest.raises(DecodeError, match=r"\(4, 3\)"):
        SPEC.decode(record, SPEC.options, None)
    record = trial()
    unknown = np.full((5, 3), np.nan, np.float32)
    for changes in ({"electrode_xyz": unknown}, {"signal_uv": np.full((128, 5), np.nan)}):
        record = {"eeg": trial()["eeg"] | changes}
        with pytest.raises(DecodeError, match="has none"):
            SPEC.decode(record, SPEC.options, None)
        # What is looked at beside the parts is finite all the same.
        assert np.isfinite(SPEC.features(record, SPEC.options)).all()
        SPEC.preview(record, SPEC.options)


def test_illegal_options():
    with pytest.raises(UserError, match="at least one patch of 500"):
        SPEC.with_options(patch_len=500)
    with pytest.raises(UserError, match="rate_hz -1"):
        SPEC.with_options(rate_hz=-1.0)
    with pytest.raises(UserError, match="'gru'; accepted: conv, lstm"):
        SPEC.with_options(stem="gru")
    with pytest.raises(UserError, match="num_hidden 0"):
        SPEC.with_options(num_hidden=0)


def test_features_are_band_powers():
    record = trial(640, 3, 160.0)
    time_s = np.arange(640) / 160.0
    mu, beta = np.sin(2 * np.pi * 10 * time_s), np.sin(2 * np.pi * 20 * time_s)
    x = np.stack([8 * mu + 0.01 * beta, 0.01 * mu + 4 * beta, mu], axis=1).astype(np.float32)
    x[3, 2] = np.nan
    record["eeg"]["signal_uv"] = x
    got = SPEC.features(record, SPEC.options).reshape(2, 3)
    # The power of a sine of amplitude A is A^2 / 2.
    assert got[0, 0] == pytest.approx(np.log(32.0), abs=0.01)
    assert got[1, 1] == pytest.approx(np.log(8.0), abs=0.01)
    assert got[0, 1] < -5 and got[1, 0] < -5
    np.testing.assert_allclose(got[:, 2], got[:, :2].mean(axis=1), rtol=1e-5)


def test_preview():
    preview = SPEC.preview(trial(channels=21), SPEC.options)
    assert preview.values.shape == (128, 8) and preview.unit == "uV" and "E10" in preview.labels


# --------------------------------------------------------------------------- the stem


def make_stem(spec=SPEC):
    (stream,) = spec.streams
    return spec.make_tokenizer(stream, D_MODEL, spec.options, nnx.Rngs(0))


def test_lstm_tokenizer():
    check_tokenizer(LSTM, decode_one(LSTM, trial(seed=1)), decode_one(LSTM, trial(seed=2)))
    check_tokenizer(LSTM, decode_one(LSTM, trial(seed=1)), decode_one(LSTM, trial(40, 2, seed=2)))


def test_tokenizer():
    check_tokenizer(SPEC, decode_one(SPEC, trial(seed=1)), decode_one(SPEC, trial(seed=2)))
    check_tokenizer(SPEC, decode_one(SPEC, trial(seed=1)), decode_one(SPEC, trial(40, 2, seed=2)))


@pytest.mark.parametrize("spec", [SPEC, LSTM], ids=["conv", "lstm"])
def test_order_and_padding_of_channels_do_not_matter(spec):
    stem = make_stem(spec)
    parts = decode_one(SPEC, trial())
    before = run(stem, to_batch([parts], 4))
    order = np.array([3, 5, 0, 4, 2, 1])  # the padding slot moves too
    parts.parts[:] = parts.parts[:, order]
    np.testing.assert_allclose(run(stem, to_batch([parts], 4)), before, atol=1e-4)
    # What stands in a masked slot is ignored.
    hidden = parts.parts[..., 35] == 0
    parts.parts[..., :35][hidden] = 5.0
    np.testing.assert_allclose(run(stem, to_batch([parts], 4)), before, atol=1e-4)
    # Electrodes that swap places without their signals do change the tokens.
    parts.parts[:, [0, 2], 32:35] = parts.parts[:, [2, 0], 32:35]
    assert np.abs(run(stem, to_batch([parts], 4)) - before).max() > 1e-2


def test_tokens_do_not_depend_on_the_reference_electrode():
    stem = make_stem()
    parts = decode_one(SPEC, trial())
    before = run(stem, to_batch([parts], 4))
    common = np.random.default_rng(5).normal(size=(4, 1, 32)).astype(np.float32)
    parts.parts[:, :5, :32] += common
    np.testing.assert_allclose(run(stem, to_batch([parts], 4)), before, atol=2e-3)


def test_a_single_electrode_still_counts():
    one, two = (decode_one(SPEC, trial(channels=1, seed=s)) for s in (1, 2))
    stem = make_stem()
    first, second = (run(stem, to_batch([p], 4)) for p in (one, two))
    assert np.isfinite(first).all() and np.abs(first - second).max() > 1e-2


def test_bank_separates_mu_from_beta():
    bank = make_stem(eeg.SPEC).temporal
    time_s = np.arange(128) / 128.0
    power = []
    for frequency_hz in (10.0, 20.0):
        wave = np.sin(2 * np.pi * frequency_hz * time_s + 0.3).astype(np.float32)
        power.append(np.asarray(bank(jnp.asarray(wave).reshape(1, 1, 1, -1)))[0, 0, 0])
    centres_hz = np.array([4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 36, 40])
    assert centres_hz[power[0].argmax()] == 10 and centres_hz[power[1].argmax()] == 20
    assert power[0].max() > 5 * power[0][6] and power[1].max() > 5 * power[1][3]


def test_a_long_recording_is_read_in_whole_windows():
    record = trial(samples=128 * 3 + 40)
    assert eeg.num_windows(record, SPEC.options) == 3
    assert SPEC.count(record, SPEC.options) == {"eeg.trial": 4}
    signal_uv = record["eeg"]["signal_uv"]
    found = []
    for window in range(3):
        alone = trial()
        alone["eeg"]["signal_uv"] = signal_uv[128 * window : 128 * (window + 1)]
        parts = eeg.decode_window(record, SPEC.options, window)["eeg.trial"].parts
        np.testing.assert_allclose(parts, decode_one(SPEC, alone).parts, atol=1e-5)
        found.append(parts)
    drawn = {
        next(
            w
            for w, parts in enumerate(found)
            if np.array_equal(
                parts,
                SPEC.decode(record, SPEC.options, np.random.default_rng(seed))["eeg.trial"].parts,
            )
        )
        for seed in range(20)
    }
    assert drawn == {0, 1, 2}


def test_a_trial_of_less_than_two_windows_keeps_its_start():
    record = trial(samples=250)
    assert eeg.num_windows(record, SPEC.options) == 1
    rng = np.random.default_rng(0)
    first = decode_one(SPEC, record).parts
    np.testing.assert_array_equal(first, SPEC.decode(record, SPEC.options, rng)["eeg.trial"].parts)
