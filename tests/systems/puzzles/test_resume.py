"""Killed anywhere and started again, a run on puzzles ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.puzzle_runs import remains, start, weights

HRM = {
    **{f"net__trm__{key}": None for key in ("hidden", "layers", "rounds", "updates", "mlp_t", "round_to", "prefix")},
    "net__kind": "hrm", "net__hrm__hidden": 16, "net__hrm__heads": 2, "net__hrm__h_layers": 1, "net__hrm__l_layers": 1,
    "net__hrm__round_to": 16,
}  # fmt: skip


def finished(folder: Path, **changed: Any) -> tuple[str, dict[str, Any]]:
    """(hash of the weights, what is left in the folder) of a run that came to its end."""
    process = start(folder, **changed)
    out, err = process.communicate(timeout=150)
    assert process.returncode in (0, 3), err
    return weights(out), remains(folder)


def killed(folder: Path, lines: int, **changed: Any) -> None:
    """Starts a run and kills it when its metrics have so many lines."""
    process = start(folder, **changed)
    path = folder / "metrics.jsonl"
    while process.poll() is None and (not path.exists() or len(path.read_bytes().splitlines()) < lines):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"


def test_kill_and_resume(tmp_path: Path) -> None:
    expected = finished(tmp_path / "whole")
    killed(tmp_path / "struck", 5)
    assert finished(tmp_path / "struck") == expected


MAZES = {"data__name": "maze", "data__size": 5, "data__givens": None}
NEVER_HALTING = {"learning__optimizer": "adamw", "learning__halting": False}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, HRM, MAZES, NEVER_HALTING, {"learning__amp": "bf16"}])
def test_kill_and_resume_elsewhere(tmp_path: Path, options: dict[str, Any]) -> None:
    expected = finished(tmp_path / "whole", **options)
    for lines in (1, 3, 8):
        killed(tmp_path / "struck", lines, **options)
    assert finished(tmp_path / "struck", **options) == expected
