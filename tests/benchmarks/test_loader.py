"""The loader's benchmark: both sides see the same files, and figures are what they are called."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import image_set, loader
from benchmarks.loader_worker import input_wait
from multimed_jax.data.layout import make_layout
from multimed_jax.data.loader import TrainLoader
from multimed_jax.data.sizes import load_sizes
from multimed_jax.data.sources import namespaces, open_source

IMAGES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    image_set.write_images(folder / "images", IMAGES)
    image_set.build(folder / "images", folder / "data")
    return folder


def test_records_hold_the_bytes_of_the_files(folder):
    config = image_set.run_config(folder / "data", batch=4)
    source = open_source(config.data.sources[0], config.data_dir, image_set.SPLIT)
    assert len(source) == IMAGES
    for row in range(IMAGES):
        record = source[row]
        path = folder / "images" / record["sample_id"].decode()
        assert bytes(record["pathology"]["tiles"][0]) == path.read_bytes()


def test_files_are_of_both_kinds(folder):
    kinds = []
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as image:
            assert image.size == (image_set.SIDE, image_set.SIDE)
            kinds.append((image.format, image.mode))
    assert kinds == [("JPEG", "RGB"), ("PNG", "L")] * (IMAGES // 2)


@pytest.mark.parametrize("side", [image_set.SHOWN, image_set.SIDE])
def test_a_batch_holds_whole_images(folder, side):
    config = image_set.run_config(folder / "data", batch=4, threads=2, side=side)
    source = open_source(config.data.sources[0], config.data_dir, image_set.SPLIT)
    sizes = load_sizes(source, config.modalities, config.tasks, folder)
    tokens = (side // image_set.PATCH) ** 2
    assert set(sizes.tokens[:, 0].tolist()) == {tokens}
    layout = make_layout(config, [source], [sizes])
    spaces = {"breast": namespaces([source], "breast")}
    batches = TrainLoader(config, layout, [source], [sizes], spaces)
    batch = next(batches)
    batches.close()
    shown = batch.streams["pathology.tile"].segment > 0
    assert int((batch.record[..., 0] >= 0).sum()) == 4 and int(shown.sum()) == 4 * tokens


def test_rates_and_ratios_by_hand():
    steps = [{"wall_s": wall, "cpu_s": wall / 2} for wall in (2.0, 1.0, 4.0)]
    found = loader.figures({"images": 100}, steps)
    assert (found["images_per_s_best"], found["images_per_s_median"]) == (100.0, 50.0)
    assert (found["cpu_ms_an_image_best"], found["cpu_ms_an_image_median"]) == (5.0, 10.0)
    peer = loader.figures({"images": 100}, [{"wall_s": 2.0, "cpu_s": 1.5}])
    over = loader.ratios({"encoded": found, "torch": peer})["encoded/torch"]
    assert over == {
        "images_per_s_best": 2.0,
        "images_per_s_median": 1.0,
        "by_processor_time": 3.0,
    }
    assert loader.ratios({"encoded": found}) == {}


def test_the_waiting_of_a_run_is_read_from_its_log(tmp_path):
    rows = [
        {"step": step, "name": name, "value": value}
        for step, value in ((1, 9.0), (2, 0.01), (3, 0.03), (4, 0.02))
        for name in ("input_wait", "steps_per_s", "tokens_per_s")
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = input_wait(tmp_path)
    assert found["input_wait"] == 0.02 and found["input_wait_lines"] == 3


def test_a_peer_script_is_given_the_folder(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, sys\n"
        "assert sys.argv[2:] == ['--workers', '2', '--batch', '16'], sys.argv\n"
        "print('starting')\n"
        "print(json.dumps({'samples_per_s': 8.5}))\n"
    )
    found = loader.run_peer_script(str(script), tmp_path, 16, 2, 3)
    assert found == {"images_per_s_best": 8.5, "images_per_s_median": 8.5}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra bench")
def test_the_torch_side_decodes_the_same_files(folder):
    from benchmarks.torch_loader import SHOWN, ImageFolder

    data = ImageFolder(folder / "images")
    assert len(data) == IMAGES
    image, label = data[3]
    assert tuple(image.shape) == (SHOWN, SHOWN, 3) and label == 1
    assert -1.0 <= float(image.min()) and float(image.max()) <= 1.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command(capsys):
    words = "--json --images 16 --batch 4 --repeats 2 --train 5 --train_batch 4 --width 64"
    peer = importlib.util.find_spec("torch") is not None
    values = loader.main([*words.split(), "--layers", "1", *(["--peer", "torch"] if peer else [])])
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
    found = values["contestants"]
    assert {"encoded", "cached", "decoded", "whole"} <= set(found)
    assert all(one["images_per_s_best"] > 0 and one["images"] == 16 for one in found.values())
    assert 0 <= values["training"]["input_wait"] < 1
    assert ("encoded/torch" in values["ratios"]) == peer


def test_classes_are_equally_frequent(folder):
    config = image_set.run_config(folder / "data", batch=4)
    source = open_source(config.data.sources[0], config.data_dir, image_set.SPLIT)
    labels = [int(source[row]["targets"]["breast"]) for row in range(IMAGES)]
    assert np.bincount(labels).tolist() == [IMAGES // 2, IMAGES // 2]
