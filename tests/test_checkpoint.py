"""A checkpoint is restored bit by bit, or not at all."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import multimed_jax.checkpoint as checkpoint
from multimed_jax.checkpoint import Checkpoints
from multimed_jax.types import TrainState, UserError

# Children import the package of this checkout, wherever the tests were started.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}

CURSOR = np.array([[0, 3], [2**40, 1]], np.int64)


def make_train_state(seed: int, width: int = 6, ema: bool = False) -> TrainState:
    """A small state with everything that is awkward to store."""
    rng = np.random.default_rng(seed)
    params = {
        "trunk": {"kernel": jnp.asarray(rng.normal(size=(8, width)), jnp.float32)},
        "heads": [jnp.asarray(rng.normal(size=(width,)), jnp.bfloat16)],
    }
    # Bit patterns that arithmetic would not keep: a NaN with a payload, -0, a denormal.
    odd = np.array([0x7FC00123, 0x80000000, 0x00000001], np.uint32).view(np.float32)
    model_state = {
        "odd": jnp.asarray(odd),
        "int8": jnp.asarray([-128, 127], jnp.int8),
        "uint8": jnp.asarray([0, 255], jnp.uint8),
        "flag": jnp.asarray([True, False]),
        "half": jnp.asarray([1.5], jnp.float16),
        "float8": jnp.asarray([0.5], jnp.float8_e4m3fn),
        "empty": jnp.zeros((0, 3), jnp.int32),
        "dropout": jax.random.split(jax.random.key(seed, impl="rbg"), 2),
    }
    tree = jax.tree.map(lambda p: p + 1, params)
    return TrainState(
        step=jnp.asarray(seed, jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optax.adamw(1e-3).init(tree),
        weighting_state=(),
        ema=tree if ema else None,
        rng=jax.random.key_data(jax.random.key(seed + 2**31)),
    )


def abstract(state, sharding=None):
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def bits(leaf) -> bytes:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def assert_same_bits(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert bits(left) == bits(right)


def restore(folder: Path, like=None, cursor=CURSOR):
    like = make_train_state(0) if like is None else like
    return Checkpoints(folder, 2).restore(abstract(like), cursor)


@pytest.fixture
def two_steps(tmp_path) -> Path:
    """Steps 10 and 20 of states 10 and 20."""
    checkpoints = Checkpoints(tmp_path, 2)
    for step in (10, 20):
        checkpoints.save(step, make_train_state(step), CURSOR + step)
    checkpoints.close()
    return tmp_path


# -------------------------------------------------------------------------- save, restore


@pytest.mark.parametrize("ema", [False, True])
def test_every_bit_comes_back(tmp_path, ema):
    state = make_train_state(7, ema=ema)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    assert checkpoints.latest() is None
    checkpoints.save(7, state, CURSOR)
    checkpoints.close()
    step, found, cursor = restore(tmp_path / "checkpoints", state)
    assert step == 7
    assert_same_bits(found, state)
    assert cursor.dtype == np.int64
    np.testing.assert_array_equal(cursor, CURSOR)


def test_save_returns_before_the_commit_and_counts_after_the_list(tmp_path, monkeypatch):
    may_list = threading.Event()
    hash_files = checkpoint.hash_files

    def slow_hash(folder):
        assert may_list.wait(60)
        return hash_files(folder)

    monkeypatch.setattr(checkpoint, "hash_files", slow_hash)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, make_train_state(1), CURSOR)  # a synchronous save would time out here
    assert checkpoints.latest() is None
    may_list.set()
    checkpoints.wait()
    assert checkpoints.latest() == 1
    listed = json.loads((tmp_path / "sha256" / "1.json").read_text())["files"]
    files = {p.relative_to(tmp_path / "1").as_posix() for p in (tmp_path / "1").rglob("*")}
    assert set(listed) == {name for name in files if (tmp_path / "1" / name).is_file()}


def test_the_saved_values_are_those_of_the_call(tmp_path):
    """The next step donates the buffers and the loader moves its cursor while the save runs."""
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    state = {"big": jnp.arange(2_000_000, dtype=jnp.float32)}
    cursor = CURSOR.copy()
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, state, cursor)
    like = abstract(state)
    jax.block_until_ready(overwrite(state["big"]))
    cursor[:] = -1
    checkpoints.close()
    _, found, stored = checkpoints.restore(like, cursor)
    np.testing.assert_array_equal(found["big"], np.arange(2_000_000, dtype=np.float32))
    np.testing.assert_array_equal(stored, CURSOR)


def test_eight_devices_to_two(tmp_path):
    devices = np.asarray(jax.devices())
    assert len(devices) == 8
    values = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    eight = NamedSharding(Mesh(devices.reshape(4, 2), ("a", "b")), PartitionSpec("a", "b"))
    two = NamedSharding(Mesh(devices[:2], ("a",)), PartitionSpec(None, "a"))
    state = {"w": jax.device_put(values, eight)}
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(3, state, CURSOR)
    _, found, _ = checkpoints.restore(abstract(state, two), CURSOR)
    assert found["w"].sharding == two
    assert [s.data.shape for s in found["w"].addressable_shards] == [(16, 4), (16, 4)]
    np.testing.assert_array_equal(found["w"], values)


def test_old_steps_go_with_their_lists_once_the_new_one_is_listed(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    for step in (1, 2, 3):
        checkpoints.save(step, {"w": jnp.ones(3)}, CURSOR)
    checkpoints.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "sha256"]
    assert sorted(p.name for p in (tmp_path / "sha256").iterdir()) == ["2.json", "3.json"]


def test_a_step_is_not_saved_behind_a_trusted_one(two_steps):
    with pytest.raises(ValueError, match="step 20 is saved after step 20"):
        Checkpoints(two_steps, 2).save(20, make_train_state(1), CURSOR)


def test_keep_has_a_lower_bound(tmp_path):
    with pytest.raises(UserError, match="keep is 0"):
        Checkpoints(tmp_path, 0)


def test_another_model_is_refused_by_the_name_of_its_array(two_steps):
    with pytest.raises(
        UserError, match=r"bfloat16\[6\] at state\.params\.heads\.0, .*bfloat16\[7\]"
    ):
        restore(two_steps, make_train_state(0, width=7))
    with pytest.raises(UserError, match=r"nothing at state\.ema"):
        restore(two_steps, make_train_state(0, ema=True))
    with pytest.raises(UserError, match=r"int64\[2,2\] at cursor.*int64\[4,2\]"):
        restore(two_steps, cursor=np.zeros((4, 2), np.int64))


# ------------------------------------------------------------------------------- damage


def largest_file(step: Path) -> Path:
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_bit(step: Path):
    path = largest_file(step)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0b100
    path.write_bytes(content)
    return f"{path.relative_to(step)} has other content"


def truncate(step: Path):
    path = largest_file(step)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    return f"{path.relative_to(step)} has {size - 1} bytes instead of {size}"


def remove(step: Path):
    path = largest_file(step)
    path.unlink()
    return f"{path.relative_to(step)} is missing"


def add(step: Path):
    (step / "state" / "stray").parent.mkdir(exist_ok=True)
    (step / "state" / "stray").write_text("x")
    return "state/stray was added"


def unlist(step: Path):
    (step.parent / "sha256" / f"{step.name}.json").unlink()
    return "it has no SHA-256 list"


def damage_list(step: Path):
    os.truncate(step.parent / "sha256" / f"{step.name}.json", 100)
    return "is damaged"


def newer_list(step: Path):
    path = step.parent / "sha256" / f"{step.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    return "has format 99"


DAMAGE = [flip_bit, truncate, remove, add, unlist, damage_list, newer_list]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_step_is_passed_over_by_name(two_steps, damage, caplog):
    said = damage(two_steps / "20")
    before = sorted(two_steps.rglob("*"))
    with caplog.at_level(logging.WARNING):
        step, found, cursor = restore(two_steps)
    assert step == 10
    assert_same_bits(found, make_train_state(10))
    np.testing.assert_array_equal(cursor, CURSOR + 10)
    assert "step 20 is rejected" in caplog.text and said in caplog.text
    assert sorted(two_steps.rglob("*")) == before  # a reader removes nothing


def test_every_flipped_bit_is_noticed(two_steps):
    """Forty flips over the data files, as many as Orbax alone lets through."""
    generator = random.Random(0)
    files = sorted(p for p in (two_steps / "20").rglob("*") if p.is_file() and p.stat().st_size)
    for _ in range(40):
        path = generator.choice(files)
        content = path.read_bytes()
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        assert Checkpoints(two_steps, 2)._newest_intact() == 10, (path, place, bit)
        path.write_bytes(content)
    assert Checkpoints(two_steps, 2)._newest_intact() == 20


def test_nothing_intact_is_an_error(two_steps):
    flip_bit(two_steps / "10")
    truncate(two_steps / "20")
    with pytest.raises(UserError, match="holds no intact checkpoint"):
        restore(two_steps)


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no intact checkpoint"):
        restore(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("damage", [flip_bit, unlist])
def test_the_run_goes_on_over_a_rejected_step(two_steps, damage):
    damage(two_steps / "20")
    (two_steps / "15.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(two_steps, 2)
    checkpoints.restore(abstract(make_train_state(0)), CURSOR)
    checkpoints.save(20, make_train_state(21), CURSOR)
    checkpoints.close()
    step, found, _ = restore(two_steps)
    assert step == 20
    assert_same_bits(found, make_train_state(21))
    assert sorted(p.name for p in two_steps.iterdir()) == ["10", "20", "sha256"]


# ------------------------------------------------------------------------ failing saves


def test_a_full_disk_shows_at_the_next_save_and_keeps_the_old_step(tmp_path):
    """A limit on file sizes makes writes fail as a full disk does."""
    state = {"w": jax.random.normal(jax.random.key(0), (200_000,))}
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, state, CURSOR)
    checkpoints.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        checkpoints.save(2, state, CURSOR)
        assert checkpoints._saving is not None
        checkpoints._saving.join()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(UserError, match=r"saving step 2 .* failed.*earlier steps are kept"):
        checkpoints.save(3, state, CURSOR)
    checkpoints.close()  # said once
    assert checkpoints.latest() == 1
    assert checkpoints.restore(abstract(state), CURSOR)[0] == 1
    checkpoints.save(3, state, CURSOR)
    checkpoints.close()
    assert checkpoints.latest() == 3


def test_an_error_of_the_thread_reaches_the_caller(tmp_path, monkeypatch):
    def broken(path, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", broken)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, {"w": jnp.ones(2)}, CURSOR)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.close()
    assert checkpoints.latest() is None


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Checkpoints(tmp_path / "file" / "checkpoints", 1).save(1, {"w": jnp.ones(2)}, CURSOR)


SAVE_FOREVER = """
import sys
import jax.numpy as jnp
import numpy as np
from pathlib import Path
from multimed_jax.checkpoint import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]), 2)
start = (checkpoints.latest() or 0) + 1
for step in range(start, 10_000):
    checkpoints.save(step, {"w": jnp.full((300_000,), step, jnp.float32)}, np.full((2, 2), step))
    print(step, checkpoints.latest() or 0, flush=True)
"""


@pytest.mark.slow  # every kill needs a process that has loaded jax
def test_kill_9_in_a_save_keeps_a_whole_step(tmp_path):
    generator = random.Random(1)
    like = {"w": jnp.zeros((300_000,), jnp.float32)}
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        lines += process.stdout.read().splitlines()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        finished = int(lines[-1].split()[1])  # listed at the time of the last line
        step, found, cursor = Checkpoints(tmp_path, 2).restore(abstract(like), CURSOR)
        assert step >= finished > 0
        np.testing.assert_array_equal(found["w"], np.full((300_000,), step, np.float32))
        np.testing.assert_array_equal(cursor, np.full((2, 2), step))


TWO_PROCESSES = """
import sys
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pathlib import Path

index, address, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
jax.distributed.initialize(address, num_processes=2, process_id=index)
from multimed_jax.checkpoint import Checkpoints

def put(values):
    return jax.make_array_from_callback(values.shape, sharding, lambda i: values[i])

sharding = NamedSharding(Mesh(np.asarray(jax.devices()), ("a",)), PartitionSpec("a"))
cursor = np.arange(4).reshape(2, 2)
checkpoints = Checkpoints(folder, 2)
for step in (1, 2):
    checkpoints.save(step, {"w": put(np.arange(16.0, dtype=np.float32) * step)}, cursor)
checkpoints.wait()
jax.experimental.multihost_utils.sync_global_devices("saved")
if index == 0:
    (folder / "2" / "stray").write_text("x")
like = {"w": jax.ShapeDtypeStruct((16,), np.float32, sharding=sharding)}
step, found, _ = checkpoints.restore(like, cursor)
assert step == 1, step
for shard in found["w"].addressable_shards:
    assert (np.asarray(shard.data) == np.arange(16.0)[shard.index]).all()
checkpoints.save(2, found, cursor)
checkpoints.close()
print("process", index, "agrees on", step)
"""


@pytest.mark.slow  # two processes that load jax
def test_two_processes_agree_on_the_step(tmp_path):
    import portpicker  # of grain

    address = f"localhost:{portpicker.pick_unused_port()}"
    environment = ENVIRONMENT | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(index), address, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for index, output in enumerate(outputs):
        assert f"process {index} agrees on 1" in output, output
    assert sorted(p.name for p in (tmp_path / "sha256").iterdir()) == ["1.json", "2.json"]
