"""The made source of `builder_scale --read`, and what is measured of its build."""

from __future__ import annotations

from benchmarks.builder_scale import build, make_films


def test_made_films_build(tmp_path):
    make_films(tmp_path / "films", 60, 32)
    make_films(tmp_path / "again", 60, 32)
    folder = tmp_path / "films"
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.jpeg"))
    assert len(paths) == 60
    for path in paths:
        assert (folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes()
    found = build(
        "kermany_chest_xray",
        "original",
        None,
        str(tmp_path / "data"),
        str(tmp_path / "films"),
    )
    assert found["records"] == 60 and found["beam_workers"] is None
    assert found["seconds"] > 0 and len(found["content_hash"]) == 64
