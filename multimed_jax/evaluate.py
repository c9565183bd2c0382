"""Measures a trained run again: `python -m multimed_jax.evaluate --checkpoint RUN_FOLDER`.

Rebuilds the run from its manifest (a stored config is data: nothing of it is executed), restores
the last verified checkpoint and writes the rows that the run itself wrote.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from multimed_jax.command import EXIT_PREEMPTED, run_command, use_compilation_cache
from multimed_jax.preemption import Preempted, StopRequest, stop_on_signals

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Run folder of a trained model.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data are now, if they have moved.")


def main() -> int:
    """Reads the flags and evaluates."""
    workdir = Path(_CHECKPOINT.value)
    with stop_on_signals() as stop:  # before JAX, which takes seconds to load
        use_compilation_cache()
        from multimed_jax.processes import run_in_job
        from multimed_jax.versions import code_facts

        return run_in_job(lambda: _evaluate(workdir, stop), code_facts, workdir, stop)


def _evaluate(workdir: Path, stop: StopRequest) -> int:
    from multimed_jax.checkpoint import lock_workdir
    from multimed_jax.restore import restore_run
    from multimed_jax.train import evaluate_state, print_table

    run, state = restore_run(workdir, _DATA_DIR.value or None)
    with lock_workdir(workdir):
        try:
            rows = evaluate_state(run, state, stop)
        except Preempted:
            return EXIT_PREEMPTED
    print_table(rows)
    return 0


if __name__ == "__main__":
    run_command(main, required=("checkpoint",))
