"""What a run on puzzles must remember to continue exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.stores import run_config
from troupe.stores.jsonl import JsonLines
from troupe.systems.puzzles.config import PuzzleConfig

if TYPE_CHECKING:
    from troupe.systems.puzzles.trainer import PuzzleTrainer

__all__ = ["remember", "restore", "save", "spent"]

_MAY_CHANGE = (
    "trainer.compare",
    "trainer.default_local_dir",
    "trainer.keep_last",
    "trainer.logger",
    "trainer.resume",
    "trainer.save_freq",
)
"""Keys that a continued run may set anew; with any other it would be another run."""


def remember(folder: Path, config: PuzzleConfig) -> None:
    """config.json; StorageError for a folder that was begun with another config."""
    run_config.remember_config(
        folder, config.model_dump(mode="json"), PuzzleConfig().model_dump(mode="json"), _MAY_CHANGE
    )


def save(run: PuzzleTrainer, metrics: Mapping[str, float]) -> None:
    """A checkpoint between two updates, with the puzzles under way."""
    stored: dict[str, Any] = {
        "step": run.step,
        "drawn": run.drawn,
        "slots": run.slots.state_dict(),
        "learner": run.learner.state_dict(),
        "untrained": None if run.untrained is None else run.untrained.astype(int).tolist(),
        "tracker": run.tracker.offset,
    }
    scored = {name: value for name, value in metrics.items() if name in ("eval/exact", "eval/cells")}
    tensors = {"net": dict(run.net.state_dict()), "averaged": dict(run.average.module.state_dict())}
    run.store.save(run.step, tensors, stored, scored)


def restore(run: PuzzleTrainer) -> bool:
    """Continues from the latest checkpoint, and cuts the tracker's files back to it. False where there is none."""
    import numpy as np

    if run.store.latest() is None:
        run.tracker.truncate(0, 0)
        return False
    checkpoint = run.store.load("latest")
    stored = checkpoint.state
    run.net.load_state_dict(checkpoint.tensors["net"])
    run.average.module.load_state_dict(checkpoint.tensors["averaged"])
    run.learner.load_state_dict(stored["learner"])
    run.slots.load_state_dict(stored["slots"])
    run.step, run.drawn = stored["step"], stored["drawn"]
    run.untrained = None if stored["untrained"] is None else np.array(stored["untrained"], bool)
    run.tracker.truncate(stored["tracker"], run.step)
    return True


def spent(folder: Path) -> tuple[float, float]:
    """(seconds, CPU-seconds) of all processes that worked on the run so far, by its timing.jsonl: nothing that depends
    on the clock may stand in a checkpoint."""
    lines = JsonLines(folder / "timing.jsonl", mode="r")
    try:
        rows = [row for _, row in lines.records()]
    finally:
        lines.close()
    seconds, cpu = (sum(row.get(f"{kind}/elapsed_s", 0.0) for row in rows) for kind in ("time", "cpu"))
    return seconds, cpu
