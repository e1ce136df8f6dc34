"""What a self-play run must remember to continue exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from troupe.errors import DataError, StorageError
from troupe.systems.selfplay.judging import Judgement

if TYPE_CHECKING:
    from troupe.systems.selfplay.trainer import GameTrainer

__all__ = ["MAY_CHANGE", "restore", "save"]

MAY_CHANGE = (
    "acting.workers",
    "trainer.default_local_dir",
    "trainer.keep_last",
    "trainer.logger",
    "trainer.resume",
    "trainer.save_freq",
)
"""Keys that a continued run may set anew; with any other it would be another run."""

_CHAMPION = "champion_"


def save(run: GameTrainer, metrics: Mapping[str, float]) -> None:
    """A checkpoint between two iterations. The games under way are not in it: they are played again from their seeds,
    with the weights `acting` that they had."""
    tensors = {
        "net": dict(run.net.state_dict()),
        "averaged": run.pupil.averaged,
        "champion": run.champion,
        "acting": run.acting,
        **{f"{_CHAMPION}{i}": weights for i, weights in enumerate(run.champions.values())},
    }
    stored: dict[str, Any] = {
        "iteration": run.iteration,
        "champion": run.champion_name,
        "champions": list(run.champions),
        **run.pupil.state_dict(),
        "judgements": [judgement.to_dict() for judgement in run.ladder.judgements],
        "tracker": run.tracker.offset,
    }
    scored = {name: value for name, value in metrics.items() if name.startswith("arena/elo")}
    run.store.save(run.iteration, tensors, stored, scored)


def restore(run: GameTrainer) -> bool:
    """Continues from the latest checkpoint, and cuts the tracker's files back to it. False where there is none.

    Raises StorageError for a checkpoint whose buffer cannot be used.
    """
    if run.store.latest() is None:
        run.tracker.truncate(0, 0)
        return False
    checkpoint = run.store.load("latest")
    stored = checkpoint.state
    try:
        run.pupil.load_state_dict(checkpoint.tensors["net"], checkpoint.tensors["averaged"], stored)
    except DataError as error:
        raise StorageError(f"{checkpoint.path}: {error}; choose an earlier checkpoint") from error
    run.champion, run.champion_name = dict(checkpoint.tensors["champion"]), stored["champion"]
    run.acting = dict(checkpoint.tensors["acting"])
    run.champions = {name: dict(checkpoint.tensors[f"{_CHAMPION}{i}"]) for i, name in enumerate(stored["champions"])}
    run.iteration = stored["iteration"]
    run.ladder.judgements = [Judgement.from_dict(record) for record in stored["judgements"]]
    run.tracker.truncate(stored["tracker"], run.iteration)
    return True
