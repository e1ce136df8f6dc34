"""`troupe demo`, from random weights to the registry."""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.runs import SIZES, Launcher, finished_well
from troupe.cli.demo import GATED_KINDS, MODEL, demo
from troupe.stores.registry import ModelRegistry
from troupe.systems.workflow_rl import AgentTrainer
from troupe.systems.workflow_rl.trainer import TrainResult
from troupe.training.evaluation import Report, TaskScore

SMALL = [f"{key}={value}" for key, value in SIZES.items()] + [
    "data.train_size=30", "data.val_size=20", "data.train_batch_size=2", "rollout.n=2", "sft.steps=2",
    "sft.batch_size=2", "sft.save_freq=1", "trainer.total_steps=2", "trainer.test_freq=2", "trainer.save_freq=1",
    "trainer.logger=[jsonl]",
]  # fmt: skip


def report(name: str, solved: int, tasks: int = 40) -> Report:
    """One attempt at each task, the first `solved` of which succeed."""
    kinds = [GATED_KINDS[i % 2] for i in range(tasks)]
    return Report(name, tuple(TaskScore(f"t{i}", kind, int(i < solved), 1) for i, kind in enumerate(kinds)))


@pytest.fixture(scope="module")
def done(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, output) of a demo that has learned nothing; the folder must not be changed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    ended = launch(["demo", "--run-dir", folder, *SMALL])
    assert ended.code == 3, ended.err
    return folder, ended.out


# ---------------------------------------------------------------------------------------------- nothing improved


def test_nothing_improves_and_nothing_is_promoted(done: tuple[Path, str]) -> None:
    folder, out = done
    assert "The team did not improve; nothing was promoted." in out and "in production: math_team@1" in out
    registry = ModelRegistry(folder / "registry")
    assert registry.versions(MODEL) == [1, 2]
    assert registry.describe(f"{MODEL}@production")["version"] == 1
    assert registry.describe(f"{MODEL}@2")["lineage"]["parent"] == f"{MODEL}@1"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdict"] == "not promoted" and summary["registry"] == f"{MODEL}@1"
    assert "no improvement shown" in summary["reasons"][0] and summary["difference"]["n"] == 18
    assert [row["kind"] for row in summary["by_kind"] if row["gated"]] == ["linear", "word"]
    page = (folder / "report.html").read_text()
    assert "not promoted" in page and "</html>" in page
    assert "analyzer" in out and "before RL" in out and "after RL" in out


def test_the_commands_that_it_recommends_work(done: tuple[Path, str], launch: Launcher) -> None:
    folder, out = done
    recommended = re.findall(r"^  \.venv/bin/troupe (.*)$", out, re.MULTILINE)
    assert len(recommended) == 3
    assert "analyzer" in finished_well(launch(["ask", folder, "3x + 5 = 20"])).out
    assert recommended[0] == f'ask {folder} "3x + 5 = 20"'
    assert "pass@8" in finished_well(launch(recommended[1].split())).out
    assert finished_well(launch([*recommended[2].split(), "--print-config"])).out


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_registered_answers(done: tuple[Path, str], launch: Launcher, version: int) -> None:
    model = ModelRegistry(done[0] / "registry").resolve(f"{MODEL}@{version}")
    assert "analyzer" in finished_well(launch(["ask", model, "3x + 5 = 20"])).out


def test_again_after_its_end_it_trains_no_more(done: tuple[Path, str], launch: Launcher, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(done[0], tmp_path / "run"))
    first = json.loads((folder / "summary.json").read_text())
    episodes = (folder / "episodes.jsonl").read_bytes()
    ended = launch(["demo", "--run-dir", folder, *SMALL])
    assert ended.code == 3 and "supervised fine-tuning" not in ended.out
    second = json.loads((folder / "summary.json").read_text())
    for key in ("verdict", "reasons", "before", "after", "registry", "parameter_hash"):
        assert second[key] == first[key]
    assert (folder / "episodes.jsonl").read_bytes() == episodes
    assert ModelRegistry(folder / "registry").versions(MODEL) == [1, 2]


@pytest.mark.parametrize("phase, call", [("sft", 2), ("rollout", 1)])
def test_interrupted_it_continues(
    done: tuple[Path, str], launch: Launcher, tmp_path: Path, phase: str, call: int
) -> None:
    command = ["demo", "--run-dir", tmp_path / "run", *SMALL]
    assert launch.kill(command, phase, call, random.Random(phase).uniform(0, 0.01)).code == -signal.SIGKILL
    assert launch(command).code == 3
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (done[0], tmp_path / "run")]
    assert summaries[0]["parameter_hash"] == summaries[1]["parameter_hash"]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (done[0] / "metrics.jsonl").read_bytes()


def test_the_negative_control_is_announced_and_configured(launch: Launcher, tmp_path: Path) -> None:
    ended = launch(["demo", "--run-dir", tmp_path / "run", "--shuffle-answers", "--seed", "3", *SMALL])
    assert ended.code == 3 and "Negative control" in ended.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["shuffle_answers"] is True and config["seed"] == 3


def test_without_a_before_there_is_nothing_to_compare(launch: Launcher, tmp_path: Path) -> None:
    ended = launch(["demo", "--run-dir", tmp_path / "run", *SMALL, "trainer.val_before_train=false"])
    assert "keep trainer.val_before_train and trainer.test_freq on" in ended.complaint


# ---------------------------------------------------------------------------------------------- something improved


@pytest.fixture
def improved(done: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished demo whose reports say that 30 of 40 tasks are solved where 10 were."""
    folder = Path(shutil.copytree(done[0], tmp_path / "run"))
    shutil.rmtree(folder / "registry")
    result = TrainResult(folder, 2, "0" * 64, {0: report("update 0", 10), 2: report("update 2", 30)})
    monkeypatch.setattr(AgentTrainer, "train", lambda self: result)
    return folder


def arguments(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(run_dir=str(folder), seed=0, shuffle_answers=False, overrides=SMALL)


def test_an_improvement_is_promoted(improved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(arguments(improved)) == 0
    assert "The team improved and was promoted" in capsys.readouterr().out
    registry = ModelRegistry(improved / "registry")
    assert registry.describe(f"{MODEL}@production")["version"] == 2
    assert registry.describe(f"{MODEL}@2")["lineage"]["metrics"] == {"val/pass@1": 0.75}
    summary = json.loads((improved / "summary.json").read_text())
    assert summary["verdict"] == "promoted" and summary["difference"]["mean"] == 0.5
    assert registry.rollback(MODEL) == f"{MODEL}@1"  # the incumbent is there to go back to
    assert demo(arguments(improved)) == 0
    assert registry.describe(f"{MODEL}@production")["version"] == 1  # and a rollback is not undone by a second look


@pytest.mark.parametrize("place", range(4))
def test_a_decision_that_was_interrupted_is_carried_out(
    improved: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Register, promote, register, promote: cut before any of the four, the next run does what is left."""
    left = place

    def until(method: Any) -> Any:
        def maybe(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return method(*args, **kwargs)

        return maybe

    with monkeypatch.context() as patched:
        for name in ("register", "promote"):
            patched.setattr(ModelRegistry, name, until(getattr(ModelRegistry, name)))
        with pytest.raises(KeyboardInterrupt):
            demo(arguments(improved))
    assert demo(arguments(improved)) == 0
    registry = ModelRegistry(improved / "registry")
    assert registry.versions(MODEL) == [1, 2] and registry.describe(f"{MODEL}@production")["version"] == 2


# ---------------------------------------------------------------------------------------------- it learns


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_team_learns(launch: Launcher, tmp_path: Path) -> None:
    """The real demo with half of its updates solves at least 15 points more of the gated tasks, and is promoted."""
    ended = launch(["demo", "--run-dir", tmp_path / "run", "trainer.total_steps=20"])
    assert ended.code == 0, ended.out[-2000:] + ended.err[-2000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["difference"]["mean"] >= 0.15 and summary["difference"]["low"] > 0
    assert ModelRegistry(tmp_path / "run" / "registry").describe(f"{MODEL}@production")["version"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_can_be_learned_from_permuted_answers(launch: Launcher, tmp_path: Path) -> None:
    ended = launch(["demo", "--run-dir", tmp_path / "run", "--shuffle-answers", "trainer.total_steps=20"])
    assert ended.code == 3, ended.out[-2000:] + ended.err[-2000:]
    registry = ModelRegistry(tmp_path / "run" / "registry")
    assert registry.describe(f"{MODEL}@production")["version"] == 1
