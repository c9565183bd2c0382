"""What a run would need, before it starts: `python -m multimed_jax.plan --config configs/x.py`.

    --devices N          devices to plan for, up to 512; they are simulated
    --mesh data=1,fsdp=N,tensor=1   instead of the config's; one axis may be -1
    --json FILE          writes all figures there as well
    --rate TOKENS        useful tokens a second, for the time of the run; or
    --mfu 0.4 --peak_tflops 989     the share of the peak of each device

Memory, operations and collectives are read from the compiled training step; nothing of it runs.
docs/plan.md says what each figure means. Exit code 1: the mesh or the config does not fit.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from multimed_jax.command import define_config_flag, resolve_config, run_command
from multimed_jax.config import RunConfig
from multimed_jax.planning.mesh_text import parse_mesh
from multimed_jax.types import UserError

MAX_DEVICES = 512
# Set in the process that compiles: its devices were asked for before JAX was loaded.
_CHILD = "MULTIMED_PLAN_DEVICES"

_CONFIG = define_config_flag()
_DEVICES = flags.DEFINE_integer("devices", 1, "Devices to plan for, simulated; at most 512.")
_MESH = flags.DEFINE_string("mesh", "", "data=A,fsdp=B,tensor=C instead of the config's mesh.")
_JSON = flags.DEFINE_string("json", "", "File that all figures are written to.")
_RATE = flags.DEFINE_float("rate", None, "Useful tokens a second of the whole run.")
_MFU = flags.DEFINE_float("mfu", None, "Share of the devices' peak that useful FLOPs reach.")
_PEAK = flags.DEFINE_float("peak_tflops", None, "Peak of one device in TFLOP/s, for --mfu.")


def main() -> int:
    """Starts itself again with as many simulated devices as are asked for, then plans."""
    devices = _DEVICES.value
    _check_flags(devices)
    if os.environ.get(_CHILD) == str(devices):
        return _plan(resolve_config(_CONFIG.value), devices)
    simulated = f"--xla_force_host_platform_device_count={devices}"
    given = os.environ.get("XLA_FLAGS", "")
    kept = [f for f in given.split() if "xla_force_host_platform_device_count" not in f]
    environment = {
        "XLA_FLAGS": " ".join([*kept, simulated]),
        "JAX_PLATFORMS": "cpu",
        _CHILD: str(devices),
    }
    command = [sys.executable, "-m", "multimed_jax.plan", *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


def _check_flags(devices: int) -> None:
    if not 1 <= devices <= MAX_DEVICES:
        raise UserError(f"--devices is {devices}; accepted: 1 to {MAX_DEVICES}")
    if (_MFU.value is None) != (_PEAK.value is None):
        raise UserError("--mfu and --peak_tflops go together; one of them is missing")
    for name in ("rate", "mfu", "peak_tflops"):
        value = flags.FLAGS[name].value
        if value is not None and not value > 0:
            raise UserError(f"--{name} is {value}; it must be above 0")


def _plan(config: RunConfig, devices: int) -> int:
    from multimed_jax.planning.measure import measure
    from multimed_jax.planning.setup import plan_data
    from multimed_jax.planning.table import plan_table, plan_values
    from multimed_jax.sharding import check_lanes, check_width, make_mesh

    if _MESH.value:
        config = dataclasses.replace(config, mesh=parse_mesh(_MESH.value))
    mesh = make_mesh(config.mesh)
    check_lanes(mesh, config.data.lanes, config.optim.accumulate)
    check_width(mesh, config.model)
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_data(config, Path(folder))
    found = measure(planned.config, planned.spec, planned.layout, mesh)
    axes = {name: int(size) for name, size in mesh.shape.items()}
    values = plan_values(planned, found, axes, _RATE.value, _MFU.value, _PEAK.value)
    assert values["devices"] == devices
    if _JSON.value:
        try:
            Path(_JSON.value).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {_JSON.value} cannot be written: {error.strerror}") from None
    print(plan_table(values))
    return 0


if __name__ == "__main__":
    run_command(main, required=("config",))
