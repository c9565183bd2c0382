"""A plan as JSON values and as a table."""

from __future__ import annotations

from typing import Any

from multimed_jax.planning.formula import flops_per_token, run_time_s, tokens_per_s
from multimed_jax.planning.measure import Measured
from multimed_jax.planning.setup import Planned

_MIB = 2**20
_PARTS = (
    "params",
    "moments",
    "average",
    "rest",
    "batch",
    "arguments",
    "gradients",
    "temporaries",
    "peak",
)


def plan_values(
    planned: Planned,
    measured: Measured,
    mesh: dict[str, int],
    rate: float | None,
    mfu: float | None,
    peak_tflops: float | None,
) -> dict[str, Any]:
    """All figures of a plan."""
    config, layout = planned.config, planned.layout
    devices = mesh["data"] * mesh["fsdp"] * mesh["tensor"]
    tokens_per_step = planned.tokens * layout.lanes
    model_flops = flops_per_token(config.model, planned.attended)
    if rate is None and mfu is not None and peak_tflops is not None:
        rate = tokens_per_s(mfu, peak_tflops, devices, model_flops)
    steps = config.num_steps
    return {
        "data": planned.data,
        "devices": devices,
        "mesh": mesh,
        "params": dict(measured.params) | {"all": sum(measured.params.values())},
        "batch": {
            "packs": layout.lanes,
            "rows": layout.rows,
            "row_width": layout.row_width,
            "segments": layout.segments,
            "tokens_per_step": round(tokens_per_step),
            "stream_budgets": dict(layout.stream_budgets),
            "slot_budgets": dict(layout.slot_budgets),
        },
        "fill": dict(planned.fill),
        "flops": {
            "model_per_token": model_flops,
            "compiled_per_token": measured.program.dot_flops * devices / tokens_per_step,
            "tokens_attended": planned.attended,
        },
        "state_bytes": dict(measured.state_bytes),
        "device_bytes": {name: measured.device_bytes[name] for name in _PARTS},
        "argument_excess": measured.argument_excess,
        "collectives": measured.program.traffic(),
        "gathered_bytes_theory": measured.gathered_theory,
        "kept_whole": dict(measured.whole),
        "uncounted_loops": measured.program.unknown_loops,
        "compile_s": measured.compile_s,
        "time": {
            "steps": steps,
            "tokens_per_s": rate,
            "seconds": None if rate is None else run_time_s(steps, tokens_per_step, rate),
        },
    }


def plan_table(values: dict[str, Any]) -> str:
    """The values for a person."""
    mesh = ", ".join(f"{axis}={n}" for axis, n in values["mesh"].items())
    batch, flops, time = values["batch"], values["flops"], values["time"]
    lines = [f"plan for {values['devices']} devices ({mesh})", f"data: {values['data']}", ""]
    lines.append(f"{'parameters':<30}{'number':>16}")
    lines += [f"  {name:<28}{n:>16,}" for name, n in values["params"].items()]
    lines += ["", f"{'a device holds':<30}{'MiB':>16}"]
    lines += [f"  {name:<28}{n / _MIB:>16,.2f}" for name, n in values["device_bytes"].items()]
    lines.append(
        f"  arguments over the even share of the state: {100 * values['argument_excess']:+.2f} %; "
        "gradients are among the temporaries"
    )
    lines += ["", f"{'collectives of a step':<30}{'number':>16}{'MiB a device':>16}"]
    for kind, entry in sorted(values["collectives"].items()):
        lines.append(f"  {kind:<28}{entry['count']:>16,}{entry['bytes'] / _MIB:>16,.2f}")
    if not values["collectives"]:
        lines.append("  none")
    if values["gathered_bytes_theory"]:
        theory = values["gathered_bytes_theory"] / _MIB
        lines.append(f"  {'all-gather, theory':<28}{'':>16}{theory:>16,.2f}")
    slots = batch["rows"] * batch["row_width"]
    lines += [
        "",
        f"batch: {batch['packs']} packs of {batch['rows']} rows x {batch['row_width']} tokens, "
        f"{batch['tokens_per_step']:,} useful tokens a step",
        f"{'of a pack':<30}{'slots':>16}{'fill':>16}",
        f"  {'tokens':<28}{slots:>16,}{values['fill']['token']:>16.3f}",
    ]
    for name, slots in batch["stream_budgets"].items():
        fill = values["fill"][f"stream/{name}"]
        lines.append(f"  {'stream ' + name:<28}{slots:>16,}{fill:>16.3f}")
    lines += [f"  {'task ' + name:<28}{n:>16,}" for name, n in batch["slot_budgets"].items()]
    lines += [
        "",
        f"{'FLOPs of a useful token':<30}{'MFLOP':>16}",
        f"  {'trunk, by formula':<28}{flops['model_per_token'] / 1e6:>16,.2f}",
        f"  {'compiled, with padding':<28}{flops['compiled_per_token'] / 1e6:>16,.2f}",
        "",
    ]
    if time["seconds"] is None:
        lines.append(f"{time['steps']:,} steps; time: give --rate, or --mfu and --peak_tflops")
    else:
        lines.append(
            f"{time['steps']:,} steps at {time['tokens_per_s']:,.0f} tokens a second: "
            f"{time['seconds']:,.1f} s ({time['seconds'] / 3600:,.2f} hours)"
        )
    return "\n".join(lines + warnings(values))


def warnings(values: dict[str, Any]) -> list[str]:
    """Sentences on what is not as it should be."""
    found = []
    kept = values["kept_whole"]
    # Moments and averages lie as their parameters: one sentence for all of them.
    for path in sorted((p for p in kept if p.startswith("params/")), key=lambda p: -kept[p]):
        leaf = path.removeprefix("params/")
        size = sum(n for other, n in kept.items() if other.endswith("/" + leaf))
        found.append(
            f"warning: {path} ({size / _MIB:.3f} MiB with moments) stays whole on every device: "
            f"fsdp={values['mesh']['fsdp']} divides none of its dimensions"
        )
    if values["uncounted_loops"]:
        found.append(
            f"warning: {values['uncounted_loops']} loops do not say how often they run; what is in "
            "them is counted once"
        )
    return found
