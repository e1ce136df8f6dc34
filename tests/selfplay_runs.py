"""Tiny self-play runs for the tests: the command line that starts them, and what two runs must have in common."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.runs import ROOT

TINY = {
    "game": "tictactoe", "net.kind": "mlp", "net.hidden": "[16]", "search.simulations": 8, "search.considered": 4,
    "acting.games": 24, "acting.chunk": 12, "acting.slots": 8, "acting.workers": 0, "acting.opening_plies": 2,
    "acting.runtime": "torch", "acting.precision": "fp32",
    "learning.window": 200, "learning.first": 50, "learning.batch_size": 32, "learning.reuse": 2,
    "arena.every": 2, "arena.simulations": 8, "arena.cap": 20, "arena.anchor_games": 4, "arena.opening_plies": 2,
    "arena.anchors": "[random, untrained, champions]",
    "trainer.iterations": 4, "trainer.save_freq": 1, "trainer.logger": "[jsonl]",
}  # fmt: skip
"""The smallest run that does everything: four iterations of two chunks, two judgements, four checkpoints."""

LEARNING = {
    "net.hidden": "[64, 64]", "search.simulations": 16, "acting.games": 128, "acting.chunk": 128, "acting.slots": 64,
    "learning.window": 4000, "learning.reuse": 4, "learning.first": 300, "learning.batch_size": 128,
    "arena.every": 12, "arena.cap": 200, "arena.anchors": "[random, untrained]",
    "trainer.iterations": 12, "trainer.save_freq": 12,
}  # fmt: skip
"""What TINY needs to become better than the network that it began with, in a few seconds."""


def command(folder: Path, **changed: Any) -> list[str]:
    """A whole command line; `__` in a name stands for the dot, and None leaves a key out."""
    values = TINY | {"trainer.default_local_dir": folder} | {key.replace("__", "."): v for key, v in changed.items()}
    words = [f"{key}={value}" for key, value in values.items() if value is not None]
    return [sys.executable, "-m", "troupe", "train", "selfplay", *words]


def start(folder: Path, **changed: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.Popen(
        command(folder, **changed), cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=150)
    return process.returncode, out, err


def remains(folder: Path) -> dict[str, Any]:
    """What a kill and a resume must not change: files by their bytes, checkpoints by the hashes of their files."""
    kept: dict[str, Any] = {}
    for name in ("metrics.jsonl", "arena.json"):
        kept[name] = (folder / name).read_bytes()
    for path in sorted(folder.glob("checkpoint_*")):
        manifest = json.loads((path / "manifest.json").read_text())
        kept[path.name] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return kept


def weights(out: str) -> str:
    found = re.search(r"weights: ([0-9a-f]+)", out)
    assert found is not None, out
    return found[1]
