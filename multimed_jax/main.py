"""Trains and evaluates: `python -m multimed_jax.main --config configs/x.py --workdir DIR`.

Run again with the same flags it goes on from the last checkpoint. Exit codes: 0 finished, 75
stopped by a signal and saved, others are errors. Several processes, started by a launcher with the
same command (`environment`), are one run.
"""

from __future__ import annotations

import logging
from pathlib import Path

from absl import flags

from multimed_jax.command import (
    define_config_flag,
    resolve_config,
    run_command,
    use_compilation_cache,
)
from multimed_jax.preemption import stop_on_signals

_CONFIG = define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; made where it is missing.")


def main() -> int:
    """Reads the flags and trains."""
    config = resolve_config(_CONFIG.value)
    workdir = Path(_WORKDIR.value)
    with stop_on_signals() as stop:  # before JAX, which takes seconds to load
        use_compilation_cache()
        logging.getLogger("absl").setLevel(logging.WARNING)
        from multimed_jax.processes import run_facts, run_in_job

        def train() -> int:
            from multimed_jax.train import train_and_evaluate

            return train_and_evaluate(config, workdir, stop)

        return run_in_job(train, lambda: run_facts(config), workdir, stop)


if __name__ == "__main__":
    run_command(main, required=("config", "workdir"))
