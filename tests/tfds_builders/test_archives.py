"""core/archives: what the standard library unpacks, and every kind of crafted archive refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.types import UserError
from tfds_builders.core.archives import Limits, unpack

FILES = {
    "a.txt": b"one",
    "b/c.bin": np.random.default_rng(0).bytes(70_000),
    "b/d/empty": b"",
    "b/zeros": b"\0" * 100_000,
}


def make_zip(files=FILES, method=zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("folder/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def make_tar(files=FILES, form=tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(kind: bytes, name="x", target="a.txt", size=0, **fields) -> bytes:
    """A tar with a file and one member of another kind."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **fields) as archive:
        first = tarfile.TarInfo("a.txt")
        archive.addfile(first)
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, size
        archive.addfile(info)
    return out.getvalue()


def put(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def read_back(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(tmp_path: Path, name: str, content: bytes, reason: str, **limits) -> None:
    path = put(tmp_path, name, content)
    into = tmp_path / "out" / "data"
    with pytest.raises(UserError, match=reason) as caught:
        unpack(path, into, Limits(**limits))
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())  # nothing half-unpacked, not even a scratch
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out"])  # nor outside


GOOD = {
    "a.zip": make_zip(),
    "stored.ZIP": make_zip(method=zipfile.ZIP_STORED),
    "b.zip": make_zip(method=zipfile.ZIP_BZIP2),
    "x.zip": make_zip(method=zipfile.ZIP_LZMA),
    "a.tar": make_tar(),
    "old.tar": make_tar(form=tarfile.GNU_FORMAT),
    "a.tar.gz": gzip.compress(make_tar()),
    "a.tgz": gzip.compress(make_tar()),
    "a.tar.bz2": bz2.compress(make_tar()),
    "a.tar.xz": lzma.compress(make_tar()),
    "parts.tar.gz": b"".join(
        gzip.compress(make_tar()[i : i + 9999]) for i in range(0, 190000, 9999)
    ),
    "padded.tgz": gzip.compress(make_tar()) + b"\0" * 2000,
}


@pytest.mark.parametrize("name", GOOD)
def test_archives_are_unpacked_whole(tmp_path, name):
    into = unpack(put(tmp_path, name, GOOD[name]), tmp_path / "new" / "data")
    assert read_back(into) == FILES
    assert (into / "folder").is_dir()
    assert [p.name for p in into.parent.iterdir()] == ["data"]
    modes = {stat.S_IMODE(p.stat().st_mode) for p in into.rglob("*") if p.is_file()}
    assert modes <= {0o644, 0o600, 0o640}  # never what the archive says


def test_long_names_of_both_dialects(tmp_path):
    files = {"/".join(["folder" * 12] * 4) + "/\u00e4.txt": b"x"}
    for i, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        path = put(tmp_path, f"{i}.tar", make_tar(files, form))
        assert read_back(unpack(path, tmp_path / f"out{i}")) == files


def test_a_gz_file(tmp_path):
    content = bytes(range(256)) * 5000
    into = unpack(put(tmp_path, "table.csv.gz", gzip.compress(content)), tmp_path / "out")
    assert read_back(into) == {"table.csv": content}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out.txt", "name that leads out"),
        ("b/../../out.txt", "name that leads out"),
        ("/tmp/out.txt", "absolute name"),
        ("C:/out.txt", "drive letter"),
        ("c:out.txt", "drive letter"),
        ("b\\out.txt", "backslash"),
        ("..\\out.txt", "backslash"),
        ("new\nline", "control character"),
        ("x" * 256, "has a name of 256 characters"),
        ("d/" * 70 + "x", "in 71 parts"),
        ("a.txt/x", "'a.txt' as a file and as a folder"),
        ("b", "the name 'b' twice"),
        ("folder", "the name 'folder' twice"),
        ("./a.txt", "the name './a.txt' twice"),
        ("b//c.bin", "twice"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path, make, name, reason):
    kind = {make_zip: "zip", make_tar: "tar"}[make]
    refused(tmp_path, f"bad.{kind}", make({**FILES, name: b"bad"}), reason)


def test_a_name_with_a_nul_byte(tmp_path):
    content = make_zip({"good_evil": b"x"}).replace(b"good_evil", b"good\0evil")
    refused(tmp_path, "bad.zip", content, "control character")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_in_a_zip(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    refused(tmp_path, "bad.zip", out.getvalue(), "the name 'a' twice")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_a_tar(tmp_path, kind):
    refused(tmp_path, "bad.tar", member(kind), "a link, device or sparse file")
    refused(tmp_path, "bad.tar", member(kind, target="/etc"), "a link, device or sparse file")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(tmp_path, kind):
    info = zipfile.ZipInfo("x")
    info.external_attr = (kind | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, "/etc")
    refused(tmp_path, "bad.zip", out.getvalue(), "a link or device")


def test_an_encrypted_zip(tmp_path):
    content = bytearray(make_zip({"a": b"x"}))
    central = content.rindex(b"PK\1\2")
    content[central + 8] |= 1
    refused(tmp_path, "bad.zip", bytes(content), "is encrypted")


def test_limits(tmp_path):
    for name, make in (("a.zip", make_zip), ("a.tar", make_tar)):
        folder = tmp_path / name[2:]
        folder.mkdir()
        many = {f"{i}": b"" for i in range(30)}
        refused(folder, name, make(many), "more than 20 members", max_members=20)
        refused(folder, name, make(), "more than 100000 bytes", max_bytes=100_000)


BOMB = b"\0" * 4_000_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.zip", make_zip({"x": BOMB})),
        ("bomb.tar.gz", gzip.compress(make_tar({"x": BOMB}))),
        ("bomb.tar.bz2", bz2.compress(make_tar({"x": BOMB}))),
        ("bomb.tar.xz", lzma.compress(make_tar({"x": BOMB}))),
        ("bomb.gz", gzip.compress(BOMB)),
    ],
)
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, monkeypatch, name, content):
    written = 0
    plain = Path.joinpath

    def counted(self, *parts):
        nonlocal written
        written += 1
        return plain(self, *parts)

    monkeypatch.setattr(Path, "joinpath", counted)
    refused(tmp_path, name, content, "unpacks to more than 300 times its size")
    assert name != "bomb.zip" or written == 0  # its headers say it: nothing was even opened


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    content = bytearray(make_zip({"x": BOMB}))
    size = len(BOMB).to_bytes(4, "little")
    assert content.count(size) == 2
    lying = bytes(content).replace(size, (3000).to_bytes(4, "little"))
    refused(tmp_path, "bad.zip", lying, "damaged|times its size")


def test_overlapping_members_of_a_zip(tmp_path):
    # Many central entries that point to one body: small file, huge total.
    one = make_zip({"x": b"\0" * 200_000})
    start = one.index(b"PK\1\2")
    central = one[start : one.index(b"PK\5\6")]
    entry = central[central.index(b"PK\1\2", 1) :]
    entries = b"".join(entry[:-1] + bytes([97 + i]) for i in range(26))
    first = central[: len(central) - len(entry)]
    end = one[one.index(b"PK\5\6") :]
    count = (27).to_bytes(2, "little")
    size = (len(first) + len(entries)).to_bytes(4, "little")
    end = end[:8] + count + count + size + end[16:]
    refused(tmp_path, "bad.zip", one[:start] + first + entries + end, "times its size")


def test_a_header_made_to_fill_memory(tmp_path):
    out = io.BytesIO()
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 6_000_000
    out.write(info.tobuf(tarfile.USTAR_FORMAT))
    out.write(np.random.default_rng(0).bytes(6_000_000))
    refused(tmp_path, "bad.tar", out.getvalue(), "a header of more than 4194304 bytes")


def test_sparse_files(tmp_path):
    files = {"GNUSparseFile.0/x": b"1\n0\n1\n" + b"\0" * 600}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("GNUSparseFile.0/x")
        info.size = len(files["GNUSparseFile.0/x"])
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "x",
            "GNU.sparse.realsize": str(1 << 40),
        }
        archive.addfile(info, io.BytesIO(files["GNUSparseFile.0/x"]))
    refused(tmp_path, "bad.tar", out.getvalue(), "sparse|damaged")


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


TAR = make_tar()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", make_zip()[:-30]),
        ("a.zip", flip(make_zip(), 20_000)),  # the checksum of b/c.bin
        ("a.zip", b""),
        ("a.zip", b"no zip at all"),
        ("a.tar", TAR[: 512 * 40]),  # within a file
        ("a.tar", TAR.rstrip(b"\0")),
        ("a.tar", flip(TAR, 512 * 3)),  # the second file's header: tarfile would stop in silence
        ("a.tar", b"no tar" * 500),
        ("a.tar", b""),
        ("a.tar.gz", gzip.compress(TAR)[:-9]),
        ("a.tar.gz", gzip.compress(TAR)[:30_000]),
        ("a.tar.gz", flip(gzip.compress(TAR), 30_000)),
        ("a.tar.gz", gzip.compress(TAR) + b"trailing rubbish"),
        ("a.tar.bz2", flip(bz2.compress(TAR), 30_000)),
        ("a.tar.bz2", bz2.compress(TAR)[:30_000]),
        ("a.tar.xz", flip(lzma.compress(TAR), 30_000)),
        ("a.tar.xz", lzma.compress(TAR)[:30_000]),
        ("a.gz", b"plain text"),
        ("a.gz", b""),
        ("a.gz", gzip.compress(b"x" * 1000)[:-4]),
    ],
)
def test_damaged_archives(tmp_path, name, content):
    refused(tmp_path, name, content, "is damaged")


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match="a.rar is no known archive; accepted: .zip, .tar"):
        unpack(tmp_path / "a.rar", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        unpack(put(tmp_path, "a.zip", make_zip()), tmp_path / "out")


def test_the_checksum_of_gzip_is_checked(tmp_path):
    body = gzip.compress(b"x" * 5000)
    wrong = body[:-8] + zlib.crc32(b"other").to_bytes(4, "little") + body[-4:]
    refused(tmp_path, "a.gz", wrong, "is damaged")
