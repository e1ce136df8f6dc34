"""Runs the arms of a benchmark, one process each, so that CPU-seconds are a run's own and a second call continues."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def options(description: str, arms: Sequence[str], folder: str) -> argparse.ArgumentParser:
    """What these benchmarks' command lines have in common; `--one ARM SEED` is how `in_processes` starts a run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(arms), choices=list(arms))
    parser.add_argument("--folder", type=Path, default=Path(folder))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    return parser


def in_processes(
    script: str, pairs: Sequence[tuple[str, int]], arguments: argparse.Namespace, extra: Sequence[str] = ()
) -> None:  # fmt: skip
    """`script --one ARM SEED --folder FOLDER` for each pair whose `FOLDER/ARM-SEED.json` does not exist yet, at most
    `arguments.jobs` at a time. Raises CalledProcessError for a run that failed."""

    def run(pair: tuple[str, int]) -> None:
        arm, seed = pair
        if not (arguments.folder / f"{arm}-{seed}.json").exists():
            command = [sys.executable, script, "--folder", str(arguments.folder), "--one", arm, str(seed), *extra]
            subprocess.run(command, check=True)

    arguments.folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, pairs))
