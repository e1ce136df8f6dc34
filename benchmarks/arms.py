"""Runs the arms of a benchmark, one process each, so that CPU-seconds are a run's own and a second call continues."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor


def in_processes(script: str, pairs: Sequence[tuple[str, int]], arguments: argparse.Namespace) -> None:
    """`script --one ARM SEED --folder FOLDER` for each pair whose `FOLDER/ARM-SEED.json` does not exist yet, at most
    `arguments.jobs` at a time. Raises CalledProcessError for a run that failed."""

    def run(pair: tuple[str, int]) -> None:
        arm, seed = pair
        if not (arguments.folder / f"{arm}-{seed}.json").exists():
            command = [sys.executable, script, "--folder", str(arguments.folder), "--one", arm, str(seed)]
            subprocess.run(command, check=True)

    arguments.folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, pairs))
