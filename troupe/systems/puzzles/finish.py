"""After the last update: what was solved, examples, the report."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.monitoring.puzzles_report import write_puzzles_report
from troupe.stores.atomic import write_atomic
from troupe.systems.puzzles.evaluation import Outcome
from troupe.systems.puzzles.examples import examples

if TYPE_CHECKING:
    from troupe.systems.puzzles.trainer import PuzzleResult, PuzzleTrainer

__all__ = ["finish"]


def finish(trainer: PuzzleTrainer, result: PuzzleResult, outcome: Outcome, reasons: Sequence[str]) -> Path:
    """Writes held_out.json, examples.json, summary.json and the report, whose path it returns."""
    config, folder, data = trainer.config, result.folder, trainer.data
    tokens, _, identities = trainer.held_out
    known = identities if data.tasks else None
    shown = examples(config, trainer.average.module, data.held_out, outcome, (tokens, known))
    summary: dict[str, Any] = {
        "title": f"Puzzles: {config.data.name}, {config.net.kind}",
        "verdict": "improved" if result.improved else "not improved",
        "reasons": list(reasons),
        "control": config.data.shuffle_answers,
        "steps": result.steps,
        "exact": [asdict(interval) for interval in result.exact],
        "cells": list(result.cells),
        "gain": asdict(result.gain),
        "compare": config.trainer.compare,
        "comparison": None if result.comparison is None else asdict(result.comparison),
        "train_puzzles": len(data.train),
        "parameters": result.parameters,
        "block_parameters": result.block_parameters,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, {trainer.device.type.upper()}",
        "seed": config.seed,
        "parameter_hash": result.parameter_hash,
        "commands": _commands(folder, shown),
    }
    held_out = {"puzzles": data.held_out.digest(), "solved": outcome.solved.astype(int).tolist()}
    for name, record in (("held_out.json", held_out), ("examples.json", shown)):
        write_atomic(folder / name, json.dumps(record).encode())
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1).encode())
    return write_puzzles_report(folder, summary)


def _commands(folder: Path, shown: dict[str, Any]) -> list[str]:
    """The network at one of the puzzles that the page shows; puzzles of ARC do not say which task they are of."""
    if shown["kind"] == "arc":
        return []
    return [f'troupe solve {shlex.quote(str(folder))} "{" ".join(shown["puzzles"][0]["given"])}"']
