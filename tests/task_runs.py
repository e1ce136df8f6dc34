"""Tiny runs on verifiable tasks for the tests, and the command line that starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.runs import ROOT

TINY = {
    "tasks.family": "tests.task_families:PurseGenerator", "tasks.kinds": "[coins, parity]",
    "tasks.gate": 20, "tasks.final": 20,
    "net.kind": "mlp", "net.hidden": 16, "net.layers": 1, "net.embedding": 4,
    "search.simulations": 8, "search.considered": 4,
    "acting.tasks": 32, "acting.chunk": 8, "acting.slots": 8, "acting.workers": 0, "acting.precision": "fp32",
    "learning.window": 100, "learning.first": 10, "learning.batch_size": 16, "learning.reuse": 2,
    "judge.every": 2, "trainer.iterations": 4, "trainer.save_freq": 1, "trainer.logger": "[jsonl]",
}  # fmt: skip
"""The smallest run that does everything: four iterations of two kinds in four jobs, and two judgements."""

LEARNING = {
    "tasks.gate": 80, "tasks.final": 100, "net.hidden": 64, "net.layers": 2, "net.embedding": 16,
    "acting.tasks": 256, "acting.chunk": 128, "acting.slots": 64,
    "learning.window": 4000, "learning.first": 100, "learning.batch_size": 64, "learning.reuse": 8,
    "judge.every": 10, "trainer.iterations": 20, "trainer.save_freq": 20,
}  # fmt: skip
"""What TINY needs to learn something, in a few seconds."""


def start(folder: Path, **changed: Any) -> subprocess.Popen[str]:
    """`troupe train tasks` as a process; `__` in a name stands for the dot."""
    values = TINY | {"trainer.default_local_dir": folder} | {key.replace("__", "."): v for key, v in changed.items()}
    words = [f"{key}={value}" for key, value in values.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "troupe", "train", "tasks", *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
