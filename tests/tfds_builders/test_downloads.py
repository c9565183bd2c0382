"""core/downloads against a server on this machine: wrong hashes, failures, redirects, breaks."""

from __future__ import annotations

import fcntl
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.core.toy_source import ToySource
from tests.tfds_builders.images import jpeg, smooth_image
from tests.tfds_builders.loopback import Site, ranged, send, serve
from tfds_builders.core.downloads import Download, Downloader

BODY = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def site():
    with serve() as running:
        yield running


def item(site: Site, body: bytes = BODY, name: str = "a.bin", **more) -> Download:
    return Download(f"{site.address}/{name}", hashlib.sha256(body).hexdigest(), name, **more)


class Fetcher:
    """A downloader whose pauses are kept instead of waited for."""

    def __init__(self, folder: Path, **settings) -> None:
        self.pauses: list[float] = []
        self.folder = folder
        self.fetch = Downloader(
            folder, http_on_loopback=True, timeout_s=0.5, sleep=self.pauses.append, **settings
        ).fetch

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


def test_a_file_is_fetched_once(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY)]
    get = Fetcher(tmp_path / "new")
    path = get.fetch(item(site))
    assert path.read_bytes() == BODY
    assert get.fetch(item(site)) == path
    assert len(site.asked) == 1
    path.write_bytes(b"of another time")
    assert get.fetch(item(site)).read_bytes() == BODY
    assert get.files() == {"a.bin": BODY}


def test_a_wrong_hash_leaves_nothing(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY[:-1] + b"!")]
    get = Fetcher(tmp_path)
    with pytest.raises(UserError, match=f"has the SHA-256 .*; accepted: {item(site).sha256}"):
        get.fetch(item(site))
    assert get.files() == {}
    assert len(site.asked) == 1 and get.pauses == []


def test_failures_that_may_pass_are_tried_again_with_longer_pauses(site, tmp_path):
    site.answers["/a.bin"] = [send(b"", 503), send(b"", 500), send(b"", 429), send(BODY)]
    get = Fetcher(tmp_path, pause_s=0.25)
    assert get.fetch(item(site)).read_bytes() == BODY
    assert get.pauses == [0.25, 0.5, 1.0]


def test_a_server_that_keeps_failing_ends_it(site, tmp_path):
    site.answers["/a.bin"] = [send(b"", 503)]
    get = Fetcher(tmp_path, max_tries=3)
    with pytest.raises(UserError, match="could not be fetched in 3 tries: the server answers 503"):
        get.fetch(item(site))
    assert len(site.asked) == 3 and "a.bin" not in get.files()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_no_failure_that_passes(site, tmp_path, status):
    site.answers["/a.bin"] = [send(b"", status)]
    with pytest.raises(UserError, match=f"answers {status}"):
        Fetcher(tmp_path).fetch(item(site))
    assert len(site.asked) == 1 and not (tmp_path / "a.bin").exists()


def test_a_short_body_is_continued_where_it_broke(site, tmp_path):
    site.answers["/a.bin"] = [ranged(BODY, cut_at=100_000), ranged(BODY, 50_000), ranged(BODY)]
    get = Fetcher(tmp_path)
    assert get.fetch(item(site)).read_bytes() == BODY
    assert [asked for _, asked in site.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert get.files() == {"a.bin": BODY}


def test_a_server_without_ranges_sends_all_of_it_again(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY, cut_at=100_000), send(BODY)]
    assert Fetcher(tmp_path).fetch(item(site)).read_bytes() == BODY


def test_a_body_that_is_always_short_ends_it_and_is_kept_out_of_sight(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY, cut_at=1000)]
    get = Fetcher(tmp_path, max_tries=3)
    with pytest.raises(UserError, match="the body has 1000 of 300000 bytes"):
        get.fetch(item(site))
    assert [name.endswith(".part") for name in get.files()] == [True]


def test_the_next_build_goes_on_from_the_part(site, tmp_path):
    site.answers["/a.bin"] = [ranged(BODY, 70_000), send(b"", 503)]
    with pytest.raises(UserError):
        Fetcher(tmp_path, max_tries=2).fetch(item(site))
    site.answers["/a.bin"] = [ranged(BODY)]
    assert Fetcher(tmp_path).fetch(item(site)).read_bytes() == BODY
    assert site.asked[-1] == ("/a.bin", "bytes=70000-")


@pytest.mark.parametrize("left", [b"x" * 1000, BODY + b"too much"])
def test_a_part_of_another_file_is_given_up(site, tmp_path, left):
    site.answers["/a.bin"] = [ranged(BODY)]
    wanted = item(site)
    (tmp_path / f"a.bin.{wanted.sha256[:16]}.part").write_bytes(left)
    assert Fetcher(tmp_path).fetch(wanted).read_bytes() == BODY


def test_another_range_than_asked_for_is_not_written(site, tmp_path):
    shifted = send(BODY[10:], 206, Content_Range=f"bytes 10-{len(BODY) - 1}/{len(BODY)}")
    site.answers["/a.bin"] = [ranged(BODY, 5000), shifted, ranged(BODY)]
    assert Fetcher(tmp_path).fetch(item(site)).read_bytes() == BODY


def test_a_silent_server_counts_as_lost(site, tmp_path):
    held = []

    def silent(handler):
        held.append(handler)
        handler.rfile.read(1)  # until the other side gives up

    site.answers["/a.bin"] = [silent, send(BODY)]
    get = Fetcher(tmp_path)
    assert get.fetch(item(site)).read_bytes() == BODY
    assert len(get.pauses) == 1 and held


def test_redirects_are_followed_and_counted(site, tmp_path):
    for hop in range(5):
        site.answers[f"/{hop}"] = [send(b"", 302, Location=f"/{hop + 1}")]
    site.answers["/5"] = [send(BODY)]
    site.answers["/a.bin"] = [send(b"", 307, Location=f"{site.address}/1")]
    assert Fetcher(tmp_path).fetch(item(site)).read_bytes() == BODY
    site.answers["/b.bin"] = [send(b"", 301, Location="/b.bin")]
    with pytest.raises(UserError, match="redirects more than 5 times"):
        Fetcher(tmp_path).fetch(item(site, name="b.bin"))
    assert not (tmp_path / "b.bin").exists()


@pytest.mark.parametrize(
    "target", ["http://example.org/a?signature=1", "file:///etc/passwd", "ftp://example.org/a"]
)
def test_redirects_off_https_are_refused(site, tmp_path, target):
    site.answers["/a.bin"] = [send(b"", 302, Location=target)]
    with pytest.raises(UserError, match="redirects to .*; accepted: https") as caught:
        Fetcher(tmp_path).fetch(item(site))
    assert "signature" not in str(caught.value)
    assert len(site.asked) == 1


def test_only_https(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY)]
    for address in (site.address, "file:///etc", "ftp://example.org", "http://example.org"):
        plain = Download(f"{address}/a.bin", "0" * 64, "a.bin")
        with pytest.raises(UserError, match="accepted: https"):
            Downloader(tmp_path).fetch(plain)
    assert site.asked == []


def test_an_endless_body_is_cut(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY)]
    with pytest.raises(UserError, match="sends more than 1000 bytes"):
        Fetcher(tmp_path).fetch(item(site, max_bytes=1000))
    assert not (tmp_path / "a.bin").exists()


def test_two_processes_do_not_write_one_part(site, tmp_path):
    site.answers["/a.bin"] = [send(BODY)]
    wanted = item(site)
    with (tmp_path / f"a.bin.{wanted.sha256[:16]}.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is being fetched by another process"):
            Fetcher(tmp_path).fetch(wanted)


@pytest.mark.parametrize("name", ["../a", "a/b", "", "..", "a\\b"])
def test_names_are_plain_and_hashes_whole(name):
    with pytest.raises(ValueError, match="no plain file name"):
        Download("https://example.org/a", "0" * 64, name)
    with pytest.raises(ValueError, match="64 hex digits"):
        Download("https://example.org/a", "0" * 63, "a")


def test_a_builder_fetches_unpacks_and_builds(site, tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(12):
            archive.writestr(f"train-p{i:02d}-{i}.jpg", jpeg(smooth_image(i)))
    body = content.getvalue()
    site.answers["/toy.zip"] = [send(body)]

    class Published(ToySource, skip_registration=True):
        NEEDS_MANUAL_DIR = False
        DOWNLOADS = (item(site, body, "toy.zip", unpack_to="toy"),)

        def make_downloader(self, folder):
            return Downloader(folder, http_on_loopback=True)

        def read_source(self, manual_dir, quarantine):
            assert manual_dir == self.download_dir
            return super().read_source(manual_dir / "toy", quarantine)

    builder = Published(data_dir=tmp_path / "data")
    builder.download_and_prepare()
    built = tfds.builder_from_directory(builder.data_dir)
    assert sum(split.num_examples for split in built.info.splits.values()) == 12
    folder = builder.download_dir
    assert sorted(path.name for path in folder.iterdir()) == ["toy", "toy.sha256", "toy.zip"]
    # Built again: nothing is asked for, and a half-unpacked folder is not taken for whole.
    (folder / "toy.sha256").unlink()
    (folder / "toy" / "train-p00-0.jpg").unlink()
    again = Published(data_dir=tmp_path / "again")
    again.download_and_prepare(download_dir=builder.download_dir.parent)
    assert len(site.asked) == 1
    assert sum(s.num_examples for s in again.info.splits.values()) == 12


def test_instructions_are_shown_where_nothing_is_found(tmp_path):
    class ByHand(ToySource, skip_registration=True):
        MANUAL_INSTRUCTIONS = "sign in at example.org and unpack toy.zip"

    (tmp_path / "empty").mkdir()
    for folder in (None, tmp_path / "none", tmp_path / "empty"):
        config = tfds.download.DownloadConfig(manual_dir=folder and str(folder))
        with pytest.raises(UserError, match="to obtain it: sign in at example.org and unpack"):
            ByHand(data_dir=tmp_path / "data").download_and_prepare(download_config=config)
