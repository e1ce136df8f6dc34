"""Killed at any moment and started again, a run ends as if nothing had happened: the same weights, the same files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT, Launcher, finished_well, letters, lines_of, math_team, remains

CALLS = {"sft": 6, "sft_checkpoint": 3, "rollout": 4, "episodes": 4, "update": 4, "validation": 3, "checkpoint": 5}
"""Phase -> how often a run of four updates enters it."""

SECONDS = {"sft": 0.01, "rollout": 0.08, "update": 0.03, "validation": 0.05}
"""Phase -> about how long it takes; 0.01 otherwise."""

MODES: dict[str, dict[str, Any]] = {
    "critic": {"algorithm__adv_estimator": "gae", "rollout__n": 1, "data__train_batch_size": 6},
    "lora": {"policies__weights": "lora"},
    "a model per agent": {"policies__weights": "separate"},
    "one agent at a time": {"policies__mode": "separate"},
    "one adapter at a time": {"policies__mode": "separate", "policies__weights": "lora"},
    "one agent is frozen": {"policies__train": "[editor]"},
    "KL to the start": {"algorithm__kl_beta": 0.1},
    "running baselines": {"algorithm__adv_estimator": "rae"},
    "several minibatches": {"algorithm__ppo_epochs": 2, "algorithm__mini_batch_size": 8, "optim__warmup_steps": 5},
    "Muon": {"sft__optimizer": "muon", "sft__lr": 0.01},
    "half precision": {"model__dtype": "bfloat16"},
    "mixed precision": {"trainer__use_amp": "true"},
    "loss scaling": {"trainer__use_amp": "true", "trainer__amp_dtype": "fp16"},
    "recomputed activations": {"model__gradient_checkpointing": "true", "trainer__gradient_accumulation_steps": 2},
    "KL in the reward": {"algorithm__kl_beta": 0.1, "algorithm__kl_in": "reward"},
    "importance weights": {"algorithm__importance": "sequence"},
    "dynamic sampling": {"rollout__filter_groups": "true", "rollout__oversample": 1.5},
    "an algorithm per agent": {"algorithm__agents": "{editor: {adv_estimator: rae, loss: cispo}}"},
    "rare checkpoints": {"trainer__save_freq": 3, "trainer__val_before_train": "false"},
}


def differences(left: Path, right: Path) -> list[str]:
    """Names of what is not the same in two run folders."""
    ours, theirs = remains(left), remains(right)
    return [name for name in ours | theirs if ours.get(name) != theirs.get(name)]


def killed_and_resumed(launch: Launcher, argv: list[str], phase: str, call: int, delay: float) -> None:
    assert launch.kill(argv, phase, call, delay).code == -signal.SIGKILL
    finished_well(launch(argv))


def test_the_runs_that_are_compared_here_learn(reference: Path) -> None:
    """Otherwise two runs would end alike whatever was lost."""
    updates = [row for row in lines_of(reference / "metrics.jsonl") if "actor/grad_norm/team" in row]
    assert [row["step"] for row in updates] == [1, 2, 3, 4]
    assert all(row["actor/grad_norm/team"] > 0.1 for row in updates)
    outcomes = {episode["outcome"] for episode in lines_of(reference / "episodes.jsonl")}
    assert outcomes == {"success", "failure"}
    kept = remains(reference)
    assert {"episodes.jsonl", "metrics.jsonl", "sft/metrics.jsonl", "val/report_4.json", "best", "latest"} <= set(kept)
    assert kept["latest"][0] == 4


@pytest.mark.parametrize("phase", ["sft", "sft_checkpoint", "rollout", "update", "validation", "checkpoint"])
def test_kill_in_each_phase(launch: Launcher, reference: Path, tmp_path: Path, phase: str) -> None:
    rng = random.Random(phase)
    delay = rng.uniform(0, SECONDS.get(phase, 0.01))
    killed_and_resumed(launch, letters(tmp_path / "run"), phase, CALLS[phase] // 2 + 1, delay)
    assert differences(reference, tmp_path / "run") == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_kill_at_twenty_random_moments(launch: Launcher, reference: Path, tmp_path: Path, seed: int) -> None:
    """One to three kills; a later one may come too late."""
    rng, argv = random.Random(seed), letters(tmp_path / "run")
    codes = []
    for _ in range(rng.randint(1, 3)):
        phase = rng.choice(list(CALLS))
        codes.append(launch.kill(argv, phase, rng.randint(1, CALLS[phase] - 1), rng.uniform(0, 0.03)).code)
    assert codes[0] == -signal.SIGKILL
    finished_well(launch(argv))
    assert differences(reference, tmp_path / "run") == []


@pytest.mark.parametrize("mode", MODES)
def test_kill_in_each_mode(launch: Launcher, tmp_path: Path, mode: str) -> None:
    whole, cut = (letters(tmp_path / name, **MODES[mode]) for name in ("whole", "cut"))
    finished_well(launch(whole))
    phase = "sft" if mode == "Muon" else random.Random(mode).choice(["rollout", "update"])
    killed_and_resumed(launch, cut, phase, 4, 0.0)  # in the second phase of mode=separate
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.parametrize("phase", ["rollout", "update"])
def test_kill_without_a_barrier(launch: Launcher, tmp_path: Path, phase: str) -> None:
    """What is under way at a checkpoint begins anew, so only the books are exact: no update and no episode twice."""
    argv = letters(tmp_path, rollout__mode="async", rollout__max_staleness=2)
    killed_and_resumed(launch, argv, phase, 3, 0.0)
    updates = [row["step"] for row in lines_of(tmp_path / "metrics.jsonl") if "actor/entropy" in row]
    assert updates == [1, 2, 3, 4]
    names = [episode["id"] for episode in lines_of(tmp_path / "episodes.jsonl")]
    assert len(names) == len(set(names)) >= 4 * 2 * 4


def test_the_whole_command_in_processes_of_its_own(finished: Path, tmp_path: Path) -> None:
    """`python -m troupe train workflow`, killed after its first rollout; each process hashes strings its own way."""
    argv = [sys.executable, "-m", "troupe", *math_team(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | {"PYTHONHASHSEED": "1"}
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    episodes = tmp_path / "run" / "episodes.jsonl"
    while process.poll() is None and not (episodes.exists() and episodes.stat().st_size):
        time.sleep(0.005)
    time.sleep(random.Random(0).uniform(0, 0.1))
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode() if process.stderr else ""
    done = subprocess.run(argv, cwd=ROOT, env=environment | {"PYTHONHASHSEED": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert differences(finished, tmp_path / "run") == []


@pytest.mark.parametrize("phase", ["sft", "rollout", "checkpoint"])
def test_ctrl_c(launch: Launcher, reference: Path, tmp_path: Path, phase: str) -> None:
    stopped = launch.kill(letters(tmp_path / "run"), phase, 2, 0.002, signal.SIGINT)
    assert stopped.code == 130 and "Traceback" not in stopped.err
    assert "the same command continues" in stopped.err
    finished_well(launch(letters(tmp_path / "run")))
    assert differences(reference, tmp_path / "run") == []


def test_a_finished_run_goes_on_to_a_larger_budget(launch: Launcher, reference: Path, tmp_path: Path) -> None:
    finished_well(launch(letters(tmp_path / "run", trainer__total_steps=2)))
    finished_well(launch(letters(tmp_path / "run")))
    assert differences(reference, tmp_path / "run") == []


def test_a_finished_run_is_left_as_it_is(launch: Launcher, tmp_path: Path) -> None:
    small = {"trainer__total_steps": 1, "sft__steps": 0}
    finished_well(launch(letters(tmp_path / "run", **small)))
    before = remains(tmp_path / "run")
    finished_well(launch(letters(tmp_path / "run", **small)))
    assert remains(tmp_path / "run") == before


@pytest.mark.parametrize("phase", ["sft", "episodes"])
def test_torn_last_lines(launch: Launcher, reference: Path, tmp_path: Path, phase: str) -> None:
    """They are set aside and reported, and the run goes on to the same end."""
    run = tmp_path / "run"
    names = ["sft/metrics.jsonl"] if phase == "sft" else ["episodes.jsonl", "metrics.jsonl"]
    assert launch.kill(letters(run), phase, 3).code == -signal.SIGKILL
    for name in names:
        with (run / name).open("ab") as file:
            file.write(b'{"step": 3, "half')
    resumed = finished_well(launch(letters(run)))
    for name in names:
        assert f"{run / name}: the last line was torn" in resumed.err
        assert (run / f"{name}.torn-1").read_bytes() == b'{"step": 3, "half'
    assert differences(reference, run) == []
