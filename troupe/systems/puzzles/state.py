"""What a run on puzzles must remember to continue exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from troupe.systems.puzzles.trainer import PuzzleTrainer

__all__ = ["MAY_CHANGE", "restore", "save"]

MAY_CHANGE = (
    "trainer.compare",
    "trainer.default_local_dir",
    "trainer.keep_last",
    "trainer.logger",
    "trainer.resume",
    "trainer.save_freq",
)
"""Keys that a continued run may set anew; with any other it would be another run."""


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
