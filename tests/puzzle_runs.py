"""Tiny runs on puzzles for the tests: their configuration, and the command line that starts them."""

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
    "data.name": "sudoku", "data.size": 4, "data.givens": "[8, 14]", "data.train": 40, "data.held_out": 20,
    "net.kind": "trm", "net.trm.hidden": 16, "net.trm.layers": 1, "net.trm.rounds": 2, "net.trm.updates": 1,
    "net.trm.mlp_t": True, "net.trm.round_to": 16, "net.trm.prefix": 0,
    "learning.batch_size": 8, "learning.supervision_steps": 4, "learning.warmup_steps": 4, "learning.ema": 0.9,
    "learning.amp": "none",
    "trainer.steps": 24, "trainer.log_freq": 2, "trainer.test_freq": 6, "trainer.save_freq": 2,
    "trainer.logger": "[jsonl]",
}  # fmt: skip
"""The smallest run that does everything: every checkpoint finds puzzles in their midst."""

LEARNING = {
    "data.givens": "[11, 14]", "data.train": 300, "data.held_out": 60, "net.trm.hidden": 32, "net.trm.round_to": 32,
    "learning.batch_size": 64, "learning.lr": 3e-3, "learning.final_lr": 3e-3, "trainer.steps": 120,
    "trainer.log_freq": 40, "trainer.test_freq": 120, "trainer.save_freq": 120,
}  # fmt: skip
"""What TINY needs to solve puzzles, in a few seconds."""


def words(folder: Path, **changed: Any) -> list[str]:
    """Overrides of a run; `__` in a name stands for the dot, and None leaves a key out."""
    values = TINY | {"trainer.default_local_dir": folder} | {key.replace("__", "."): v for key, v in changed.items()}
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def start(folder: Path, **changed: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "troupe", "train", "puzzles", *words(folder, **changed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def remains(folder: Path) -> dict[str, Any]:
    """What a kill and a resume must not change: files by their bytes, checkpoints by the hashes of their files."""
    kept: dict[str, Any] = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "held_out.json")}
    for path in sorted(folder.glob("checkpoint_*")):
        manifest = json.loads((path / "manifest.json").read_text())
        kept[path.name] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return kept


def weights(out: str) -> str:
    found = re.search(r"weights: ([0-9a-f]+)", out)
    assert found is not None, out
    return found[1]
