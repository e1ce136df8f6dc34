"""Tiny workflow RL runs for the tests of the system and of the command line, and what two runs must have in common."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

SIZES = {
    "model.tiny.hidden_size": 32, "model.tiny.layers": 1, "model.tiny.heads": 2, "model.tiny.kv_heads": 1,
    "model.tiny.intermediate_size": 32, "model.tiny.max_positions": 512, "model.device": "cpu",
}  # fmt: skip
TINY = {
    **SIZES, "data.train_size": 30, "data.val_size": 8, "data.train_batch_size": 2, "data.max_response_length": 8,
    "rollout.n": 4, "algorithm.adv_estimator": "grpo", "optim.lr": 1e-3, "sft.steps": 6, "sft.save_freq": 2,
    "sft.batch_size": 4, "trainer.total_steps": 4, "trainer.save_freq": 1, "trainer.test_freq": 2,
    "trainer.logger": "[jsonl]",
}  # fmt: skip
"""The smallest run that does everything: six steps of SFT, four updates, three validations, five checkpoints."""


def overrides(folder: Path, **changed: Any) -> list[str]:
    """TINY with changes, as arguments of `troupe train workflow`; `__` in a name stands for the dot."""
    values = TINY | {"trainer.default_local_dir": folder} | {key.replace("__", "."): v for key, v in changed.items()}
    if "model.path" in values:  # which has a size of its own
        values = {key: value for key, value in values.items() if not key.startswith("model.tiny.")}
    return [f"{key}={value}" for key, value in values.items()]


def letters(folder: Path, **changed: Any) -> list[str]:
    """Arguments of a run of the team in `tests/letters.py`."""
    return ["train", "workflow", *overrides(folder, workflow__name="letters", **changed)]


def math_team(folder: Path, **changed: Any) -> list[str]:
    """Arguments of a run of the math team that gets far enough in SFT to answer and to call its calculator."""
    settings = {
        "workflow__args": "{max_refinement_iterations: 1, max_tool_calls: 2, prompts: compact}",
        "data__max_response_length": 24, "sft__steps": 60, "sft__save_freq": 30, "sft__lr": 0.02,
        "sft__warmup_steps": 5, "algorithm__entropy_coeff": 0.01, "trainer__save_freq": 2,
    }  # fmt: skip
    return ["train", "workflow", *overrides(folder, **settings | changed)]


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str
    cpu: float

    @property
    def complaint(self) -> str:
        """The sentence of a refusal: exit code 2, one line, no traceback."""
        assert self.code == 2, f"exit code {self.code}: {self.err[-2000:]}"
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.err.rstrip().endswith(lines[0]), self.err
        return lines[0]


class Launcher:
    """Starts `troupe` with arguments in a forked process (see `tests/launcher.py`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = count()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.launcher"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __call__(
        self,
        argv: Sequence[object],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        strike: Mapping[str, Any] | None = None,
    ) -> Ended:
        place = self._folder / str(next(self._number))
        place.mkdir()
        paths = {"out": str(place / "out"), "err": str(place / "err"), "cwd": str(cwd or place)}
        request = {"argv": list(map(str, argv)), "env": dict(env or {}), "strike": strike, **paths}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the launcher died; what it wrote to standard error says why"
        answer = json.loads(line)
        return Ended(answer["code"], (place / "out").read_text(), (place / "err").read_text(), answer["cpu"])

    def kill(
        self, argv: Sequence[object], phase: str, call: int, delay: float = 0.0, sig: int = signal.SIGKILL
    ) -> Ended:
        """Starts the command and sends a signal `delay` seconds after the `call`-th entry into a phase."""
        return self(argv, strike={"phase": phase, "call": call, "delay": delay, "signal": int(sig)})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def finished_well(ended: Ended) -> Ended:
    assert ended.code == 0, f"exit code {ended.code}: {ended.err[-3000:]}"
    return ended


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """`launch(["train", "workflow", ...])` runs the command in a process of its own."""
    launcher = Launcher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="session")
def reference(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of the team in `tests/letters.py`, which must not be changed."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    finished_well(launch(letters(folder)))
    return folder


@pytest.fixture(scope="session")
def finished(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the math team, which must not be changed. Sixty steps of SFT: its agents
    answer."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    finished_well(launch(math_team(folder)))
    return folder


# ---------------------------------------------------------------------------------------------- what a run ended with


def remains(folder: Path, *, checkpoints: Sequence[str] = ("best", "latest")) -> dict[str, Any]:
    """Everything in a run folder that a kill and a resume must not change, by name; files by their bytes."""
    from troupe.stores.checkpoints import CheckpointStore

    names = ["episodes.jsonl", "metrics.jsonl", "sft/metrics.jsonl", "config.json"]
    paths = (
        [folder / name for name in names] + sorted((folder / "val").iterdir()) + sorted((folder / "start").iterdir())
    )
    kept: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.exists()}
    del kept["config.json"]  # names the folder
    for place, which in ((folder, checkpoints), (folder / "sft", ("latest",))):
        if place.exists():
            store = CheckpointStore(place, metric="val/pass@1")
            for name in which:
                found = store.load(name)  # type: ignore[arg-type]
                manifest = json.loads((found.path / "manifest.json").read_text())
                kept[f"{place.name}/{name}" if place != folder else name] = (found.step, manifest["files"])
    return kept


def weights(ended: Ended) -> str:
    """The beginning of the parameter hash that `troupe train workflow` prints at its end."""
    found = re.search(r"weights: ([0-9a-f]+)", ended.out)
    assert found is not None, ended.out
    return found[1]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------------------------------------- disks


@contextmanager
def mounted(arguments: Sequence[str], folder: Path) -> Iterator[Path]:
    """A mount for the time of the block; the test is skipped where the user may not mount."""
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, size: str = "8m") -> Iterator[Path]:
    """A file system of its own in `folder`."""
    folder.mkdir(exist_ok=True)
    with mounted(["-t", "tmpfs", "-o", f"size={size}", "tmpfs"], folder):
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder, read-only also for root."""
    with mounted(["--bind", str(folder)], folder):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield folder
