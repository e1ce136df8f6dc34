"""Document 004's example scripts: each is a command of `troupe` with the document's names, and nothing else."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runs import ROOT, SIZES
from tests.workflows.test_deepcoder import SIX
from troupe.stores.checkpoints import CheckpointStore
from troupe.tasks.datasets import DatasetRegistry

DATA = {
    "deepcoder": {"train": "deepcoder", "val": None},
    "deepresearch": {"train": "research", "val": None},
    "math_tool": {"train": "deepscaler_math", "val": "aime2024"},
    "search": {"train": "hotpotqa", "val": None},
    "swe": {"train": "R2E_Gym_Subset", "val": "SWE_Bench_Verified"},
}
DOCUMENTED = (
    "data.train_batch_size=16", "trainer.total_epochs=10", "actor_rollout_ref.actor.optim.lr=1e-5",
    "trainer.save_freq=1000",
)  # fmt: skip
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("**/*_*.py") if path.parent.name)
PREPARE = [script for script in SCRIPTS if "/prepare_" in script]


def call(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The exit code of a script that runs in this process."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code


def of_team(team: str, role: str) -> str:
    return f"examples/multi_agent/{team}/{role}_multi_agent_{team}.py"


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def competition(folder: Path) -> Path:
    """DeepScaleR and AIME rows, a folder each."""
    sums = [{"problem": f"Add {n} and {n}.", "answer": str(2 * n), "solution": ""} for n in range(12)]
    aime = [{"problem": f"Find {n}.", "answer": f"{n:03}", "year": "2024"} for n in range(3)]
    lines(folder / "deepscaler" / "rows.jsonl", *sums)
    return lines(folder / "aime" / "rows.jsonl", *aime).parents[1]


PAGE = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")


def test_the_documented_scripts_are_there() -> None:
    documented = re.findall(r"^\| `python (examples/[\w/]+\.py)", PAGE, re.MULTILINE)
    assert len(documented) == len(set(documented)) == 10 and set(documented) <= set(SCRIPTS)
    for team in DATA:
        assert {of_team(team, "train"), of_team(team, "run")} <= set(SCRIPTS)


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "examples/workflow_rl.py"])
def test_help(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(script, "--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "usage:" in shown and len(shown) > 200


@pytest.mark.parametrize("team", DATA)
def test_training_takes_the_documented_settings(
    team: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(of_team(team, "train"), "--print-config", *DOCUMENTED, monkeypatch=monkeypatch) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["workflow"]["name"] == team and shown["trainer"]["default_local_dir"] == f"logs/{team}"
    assert {key: shown["data"][key] for key in ("train", "val")} == DATA[team]
    trainer = {"total_epochs": 10, "save_freq": 1000, "total_steps": None}
    assert {key: shown["trainer"][key] for key in trainer} == trainer
    assert shown["data"]["train_batch_size"] == 16 and float(shown["optim"]["lr"]) == 1e-5


def test_without_its_data_set_training_says_what_to_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(of_team("math_tool", "train"), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there are no tasks called 'deepscaler_math'") and "troupe data prepare" in error
    assert list(tmp_path.iterdir()) == []


def test_running_asks_for_a_team(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = of_team("search", "run")
    assert call(script, monkeypatch=monkeypatch) == 2
    assert "--checkpoint" in capsys.readouterr().err
    for more in ((), ("--task", "Who?")):
        assert call(script, f"--checkpoint={tmp_path}", *more, monkeypatch=monkeypatch) == 2
        assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("script", PREPARE)
def test_preparing_names_a_folder_that_is_not_there(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(script, "--from", tmp_path / "nowhere", "--root", tmp_path / "data", monkeypatch=monkeypatch) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_preparing_stores_the_documented_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mbpp = [
        {
            "task_id": n,
            "text": f"Write a function that adds {n}.",
            "code": f"def add(x): return x+{n}",
            "test_list": [f"assert add({x}) == {x + n}" for x in range(3)],
        }
        for n in range(4)
    ]
    hotpot = [
        {
            "id": str(n),
            "question": f"Is passage {n} about {n}?",
            "answer": "yes",
            "supporting_facts": [[f"Passage {n}", 0]],
            "context": [[f"Passage {n}", [f"It is about {n}."]]],
        }
        for n in range(4)
    ]
    sources = {
        "deepcoder": lines(tmp_path / "mbpp.jsonl", *mbpp),
        "search": lines(tmp_path / "hotpot.jsonl", *hotpot),
        "math_tool": competition(tmp_path / "in"),
    }
    for script in PREPARE:
        source = sources.get(script.split("/")[1])
        if source is not None:
            given = ("--from", source, "--root", tmp_path / "data", "--held-out", "0.5")
            assert call(script, *given, monkeypatch=monkeypatch) == 0
    registry = DatasetRegistry(tmp_path / "data")
    assert registry.names() == ["aime2024", "deepcoder", "deepscaler_math", "hotpotqa"]
    assert len(registry.load_dataset("aime2024", "held_out")) == 3


@pytest.mark.parametrize("name", ["deepcoder", "R2E_Gym_Subset", "SWE_Bench_Verified", "deepscaler_math", "aime2024"])
def test_the_registry_takes_the_documented_names(name: str, tmp_path: Path) -> None:
    from troupe import MathProblemGenerator

    registry = DatasetRegistry(tmp_path)
    tasks = MathProblemGenerator(seed=0).generate(2)
    registry.register_dataset(name, tasks, "train")
    assert registry.load_dataset(name, "train") == tasks


def test_the_documented_metrics_are_the_coding_teams() -> None:
    """`tests/workflows/test_deepcoder.py` sees that its episodes have them."""
    assert set(re.findall(r"^\| `\w+` \| 004 \| `workflow/(\w+)` \|$", PAGE, re.MULTILINE)) == SIX


@pytest.mark.slow
def test_the_documented_session(tmp_path: Path) -> None:
    """Prepare, train, score on the test set, ask: as document 004 has it, with the smallest of models."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "160"}

    def run(script: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    prepared = run("examples/math_tool/prepare_math_data.py", "--from", competition(tmp_path / "in"))
    assert "data.train=deepscaler_math" in prepared and "troupe evaluate --data aime2024" in prepared
    tiny = [f"{key}={value}" for key, value in SIZES.items()]
    small = ("data.train_batch_size=5", "trainer.total_epochs=2", "data.max_response_length=8")
    trained = run(of_team("math_tool", "train"), *DOCUMENTED[2:], *small, *tiny)
    assert "run folder: logs/math_tool" in trained and CheckpointStore(tmp_path / "logs" / "math_tool").latest() == 4
    checkpoint = "--checkpoint=logs/math_tool/checkpoint_4"
    scored = run(of_team("math_tool", "run"), checkpoint, "-n", "2", "--data", "aime2024")
    assert re.search(r"│ aime +│ 3 ", scored)
    assert "answer:" in run(of_team("math_tool", "run"), checkpoint, "--task", "Add 2 and 3.")
    refused = subprocess.run(
        [sys.executable, str(ROOT / of_team("search", "run")), checkpoint],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert refused.returncode == 2 and "workflow 'math_tool', not 'search'" in refused.stderr


@pytest.mark.parametrize("number", [1, 2, 6, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4, 5, 7))])
def test_an_example_of_self_play_runs(number: int, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "examples" / "self_play.py"
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(number)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow), 3, 4])
def test_an_example_of_tasks_runs(number: int, tmp_path: Path) -> None:
    script = ROOT / "examples" / "tasks.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(number)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    if number == 2:
        before, after = map(float, re.findall(r"([\d.]+)% (?:untrained|champion)", done.stdout))
        assert after > before + 20
    if number == 4:
        assert float(re.findall(r"step 4: ([\d.]+)%", done.stdout)[0]) > 60


@pytest.mark.slow
def test_the_example_of_markets_tells_an_edge_from_none(tmp_path: Path) -> None:
    script = ROOT / "examples" / "markets.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    assert "planted: an edge at alpha 0.01" in done.stdout and "null: no edge at alpha 0.01" in done.stdout
