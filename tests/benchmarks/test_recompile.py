"""The recompilation benchmark, on a few batches."""

from __future__ import annotations

import pytest

from benchmarks import recompile


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mixed_batches_compile_once(capsys):
    values = recompile.main(["--json", "--batches", "12"])
    assert capsys.readouterr().out.startswith('{"benchmark": "recompile"')
    assert values["batches"] == 12 and values["kinds"] > 6
    assert values["compilations"] == 1 and values["after_warm_up"] == 0 and values["met"]
