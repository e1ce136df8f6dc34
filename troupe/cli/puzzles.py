"""`troupe train puzzles` and `troupe solve`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from troupe.cli.train import begin, preset_path
from troupe.config import Resolved, load
from troupe.systems.puzzles.config import ALIASES, PuzzleConfig

if TYPE_CHECKING:
    from troupe.systems.puzzles.trainer import PuzzleResult

__all__ = ["PRESETS", "resolve_puzzles", "solve", "train_puzzles"]

DEFAULT_PRESET = "sudoku4"
PRESETS = ("arc", "maze", "sudoku4", "sudoku6", "sudoku9")
"""Puzzles with a preset of their own, in `troupe/configs/puzzles/`."""

_SHORT = {"net": "net.kind", "data": "data.name"}


def resolve_puzzles(preset: str | None, files: Sequence[str], overrides: Sequence[str]) -> Resolved[PuzzleConfig]:
    """Preset, files and overrides in one. `net=KIND` and `data=NAME` are short for `net.kind=KIND` and
    `data.name=NAME`; the puzzles bring their preset along where no other is named, sudokus that of their size (4 where
    none is given)."""
    spelled = [_spelled(override) for override in overrides]
    path = None
    if preset is not None:
        path = preset_path(preset, "puzzles")
    elif not files:
        path = preset_path(_preset_of(dict(o.split("=", 1) for o in spelled if "=" in o)), "puzzles")
    return load(PuzzleConfig, preset=path, files=files, overrides=spelled, aliases=ALIASES)


def _spelled(override: str) -> str:
    key, equals, value = override.partition("=")
    return f"{_SHORT.get(key, key)}{equals}{value}"


def _preset_of(given: Mapping[str, str]) -> str:
    name = given.get("data.name", "sudoku")
    known = [f"{name}{given.get('data.size', given.get('size', ''))}", name]
    return next((preset for preset in known if preset in PRESETS), DEFAULT_PRESET)


def train_puzzles(arguments: argparse.Namespace) -> int:
    """Exit code 3 where the network solves no more than before training, or than the run that it is compared with."""
    resolved = resolve_puzzles(arguments.preset, arguments.config, arguments.overrides)
    console = begin(arguments, resolved)
    if console is None:
        return 0
    from troupe.systems.puzzles.trainer import PuzzleTrainer, reasons

    result = PuzzleTrainer(resolved.config, progress=_Lines(console)).train()
    _show(console, result)
    for sentence in reasons(result, resolved.config.trainer.compare):
        console.print(f"[bold]{sentence[0].upper()}{sentence[1:]}.[/bold]", soft_wrap=True)
    console.print(
        f"{result.parameters:,} parameters, {result.block_parameters:,} of them in blocks; {result.seconds:.0f} s, "
        f"{result.cpu_seconds:.0f} CPU-seconds in all processes of the run so far",
        soft_wrap=True,
    )
    last = (
        f"report: {result.folder / 'report.html'}   run folder: {result.folder}   weights: {result.parameter_hash[:16]}"
    )
    console.print(last, soft_wrap=True)
    return 0 if result.improved else 3


class _Lines:
    """A progress callback: a line every few seconds, and one for every evaluation."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._began = self._last = time.monotonic()

    def __call__(self, phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last < 5 and step < total and "eval/exact" not in metrics:
            return
        self._last = now
        parts = [
            f"{now - self._began:6.0f} s",
            f"step {step}/{total}",
            f"loss {metrics['train/loss/answer']:.3f}",
            f"{metrics['train/exact']:.1%} right in training",
        ]
        if "eval/exact" in metrics:
            parts.append(f"[bold]{metrics['eval/exact']:.1%} of held-out puzzles solved[/bold]")
        self._console.print("   ".join(parts), soft_wrap=True)


def _show(console: Any, result: PuzzleResult) -> None:
    from rich.table import Table

    table = Table("supervision step", "solved", "95 % interval", "cells right", title="Held-out puzzles")
    for step, (exact, cells) in enumerate(zip(result.exact, result.cells, strict=True), start=1):
        table.add_row(str(step), f"{exact.mean:.1%}", f"[{exact.low:.1%}, {exact.high:.1%}]", f"{cells:.1%}")
    table.caption = f"{result.exact[-1].n} puzzles, averaged weights"
    console.print(table)


def solve(arguments: argparse.Namespace) -> int:
    """Prints the network's answer. Exit code 3 where it contradicts what was given."""
    from troupe.systems.puzzles.solving import load_puzzle_solver

    found = load_puzzle_solver(arguments.run).solve(" ".join(arguments.puzzle))
    print(found.text)
    sure = "never sure" if found.stopped is None else f"sure after supervision step {found.stopped}"
    print(f"the network was {sure}{'' if found.keeps_givens else '; its answer contradicts the puzzle'}")
    return 0 if found.keeps_givens else 3
