"""Duplicates: what must be found, and what must not be taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.core.audit import (
    adopt_twins,
    copies_to_leave_out,
    correlation,
    count_within,
    find_duplicates,
    refuse_leaks,
)
from tfds_builders.core.images import perceptual_hash, read_image
from tfds_builders.core.records import array_audit, bytes_audit, text_audit


def audit_of(folder, name, content):
    write(folder / name, content)
    return read_image(folder / name).audit


def test_perceptual_hash_is_the_cosine_transform_of_scipy():
    fft = pytest.importorskip("scipy.fft")
    grey = smooth_image(3)
    pixels = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = fft.dctn(pixels, norm="ortho")[:8, :8].ravel()
    bits = "".join("1" if value > np.median(low[1:]) else "0" for value in low)
    assert perceptual_hash(grey) == int(bits, 2)


def test_copies_and_re_encoded_copies_are_found(tmp_path):
    original = smooth_image(1)
    keys = [
        audit_of(tmp_path, "0.jpg", jpeg(original)),
        audit_of(tmp_path, "1.jpg", jpeg(smooth_image(2))),
        audit_of(tmp_path, "2.jpg", jpeg(original)),
        audit_of(tmp_path, "3.jpg", jpeg(original, quality=40)),
        audit_of(tmp_path, "4.jpg", jpeg(original.resize((96, 80)))),
    ]
    found = {(d.first, d.second): d.exact for d in find_duplicates(keys)}
    assert found[(0, 2)] is True
    assert found[(0, 3)] is False
    assert (0, 4) in found
    assert not any(1 in pair for pair in found)


def test_the_same_hash_alone_is_no_duplicate(tmp_path):
    # A chequered pattern has no low frequencies: the hashes agree, the thumbnails do not.
    base = 50 + 0.6 * np.asarray(smooth_image(1, (128, 128)), np.float64)
    chequered = np.indices((32, 32)).sum(0) % 2 * 60.0 - 30
    textured = (base + chequered.repeat(4, 0).repeat(4, 1)).astype(np.uint8)
    a = audit_of(tmp_path, "a.jpg", jpeg(Image.fromarray(base.astype(np.uint8))))
    b = audit_of(tmp_path, "b.jpg", jpeg(Image.fromarray(textured)))
    assert a.perceptual is not None and b.perceptual is not None
    assert bin(a.perceptual ^ b.perceptual).count("1") <= 8
    assert correlation(a, b) < 0.99
    assert find_duplicates([a, b]) == []


def test_blank_images_never_look_the_same(tmp_path):
    black = audit_of(tmp_path, "a.jpg", jpeg(Image.new("L", (40, 40), 0)))
    grey = audit_of(tmp_path, "b.jpg", jpeg(Image.new("L", (40, 40), 90)))
    assert find_duplicates([black, grey]) == []


def test_more_images_than_one_block_of_rows(tmp_path):
    keys = [audit_of(tmp_path, f"{i}.jpg", jpeg(smooth_image(i))) for i in range(300)]
    keys.append(audit_of(tmp_path, "copy.jpg", jpeg(smooth_image(270), quality=50)))
    assert [(d.first, d.second) for d in find_duplicates(keys)] == [(270, 300)]


def test_text_is_compared_without_case_and_blanks():
    assert text_audit("A  Note\n") == text_audit("a note")
    assert text_audit("a note") != text_audit("another note")
    assert bytes_audit(b"A") != bytes_audit(b"a")


def test_arrays_differ_by_shape_and_dtype():
    values = np.arange(6, dtype=np.float32)
    assert array_audit(values) == array_audit(values.copy())
    assert array_audit(values) != array_audit(values.reshape(2, 3))
    assert array_audit(values) != array_audit(values.astype(np.float64))


def test_records_without_a_key_take_no_part():
    key = bytes_audit(b"x")
    assert [(d.first, d.second) for d in find_duplicates([None, key, None, key])] == [(1, 3)]


def test_leaks_are_listed_and_copies_within_a_split_counted():
    keys = [bytes_audit(b) for b in (b"a", b"b", b"a", b"b", b"c")]
    duplicates = find_duplicates(keys)
    names = ["r0", "r1", "r2", "r3", "r4"]
    splits = ["train", "test", "train", "validation", "test"]
    with pytest.raises(UserError, match=r"1 duplicate.*r1 \(test\) = r3 \(validation"):
        refuse_leaks(duplicates, names, splits)
    same = ["train", "test", "train", "test", "test"]
    refuse_leaks(duplicates, names, same)
    assert count_within(duplicates, same) == {"train": 1, "test": 1}


def test_a_copy_joins_the_twin_with_the_first_name_in_any_order():
    keys = [bytes_audit(b) for b in (b"a", b"b", b"a")]
    duplicates = find_duplicates(keys)
    groups = ["late", "other", "early"]
    assert adopt_twins(groups, duplicates, ["z", "y", "a"]) == ["early", "other", "early"]
    assert adopt_twins(groups, duplicates, ["a", "y", "z"]) == ["late", "other", "late"]


def test_left_out_copies_are_those_outside_the_test_set():
    keys = [bytes_audit(b) for b in (b"a", b"a", b"b", b"b", b"c", b"c")]
    splits = ["train", "test", "train", "validation", "train", "train"]
    assert copies_to_leave_out(find_duplicates(keys), splits) == {0, 2}
