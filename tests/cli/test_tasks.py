from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.task_runs import TINY
from troupe.cli import main


def words(folder: Path, **changed: Any) -> list[str]:
    values = TINY | {"trainer.default_local_dir": folder} | {key.replace("__", "."): v for key, v in changed.items()}
    return ["train", "tasks", *(f"{key}={value}" for key, value in values.items())]


def test_a_run_that_shows_nothing_says_so_and_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path / "run", trainer__iterations=1)) == 3
    out = capsys.readouterr().out
    assert "Nothing improved" in out and "iteration 1 against untrained" in out
    assert "Final held-out tasks" in out and "coins" in out
    assert f"report: {tmp_path / 'run' / 'report.html'}" in out and (tmp_path / "run" / "report.html").exists()


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tasks", "family=mathh"]) == 2
    assert "did you mean 'math'" in capsys.readouterr().err
    assert main(words(tmp_path / "run", net__kind="mpl")) == 2
    assert "net.kind" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["code", "math", "picture", "reasoning", "search"])
def test_presets_can_be_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tasks", f"family={name}", "--print-config"]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(("name", "kinds"), [("code", 3), ("math", 4), ("reasoning", 5), ("search", 5)])
def test_a_tenth_of_every_preset_improves(
    name: str, kinds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a tenth of the length 120 final tasks may already show it; every kind is attempted, and figures are there."""
    folder = tmp_path / "run"
    less = ["acting.tasks=90", "acting.chunk=30", "trainer.iterations=2", "judge.every=2"] if name == "code" else []
    words = ["acting.workers=0", f"trainer.default_local_dir={folder}", *less]  # every attempt at code is compiled
    code = main(["train", "tasks", f"family={name}", "--tenth", *words])
    final = json.loads((folder / "final.json").read_text())["result"]
    assert code == (0 if min(final["difference"]["low"], final["over_uniform"]["low"]) > 0 else 3)
    assert len(final["kinds"]) == kinds and final["difference"]["n"] == 120 and final["evaluated"] > 100
    assert 0.2 < final["before"]["mean"] < 0.75
    assert final["difference"]["mean"] > -0.05
