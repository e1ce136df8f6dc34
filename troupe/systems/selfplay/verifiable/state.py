"""What a run on verifiable tasks must remember to continue exactly, and what it ends with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from troupe.errors import DataError, StorageError
from troupe.stores.atomic import write_atomic
from troupe.stores.opening import spent
from troupe.stores.state import parameter_hash
from troupe.systems.selfplay.state import MAY_CHANGE
from troupe.systems.selfplay.verifiable.results import FinalResult, TaskResult
from troupe.training.evaluation import Decision, Report

if TYPE_CHECKING:
    from torch import Tensor

    from troupe.systems.selfplay.verifiable.trainer import TaskTrainer

__all__ = ["MAY_CHANGE", "known_final", "restore", "result", "save", "write_final"]


def save(run: TaskTrainer, metrics: Mapping[str, float]) -> None:
    """A checkpoint between two iterations. The attempts under way are not in it: they are made again from their seeds,
    with the weights `acting` at the same tasks."""
    tensors: dict[str, Mapping[str, Tensor]] = {}
    for kind, pupil in run.pupils.items():
        tensors |= {
            f"net.{kind}": pupil.net.state_dict(),
            f"averaged.{kind}": pupil.averaged,
            f"champion.{kind}": run.champion[kind],
            f"acting.{kind}": run.acting[kind],
        }
    stored: dict[str, Any] = {
        "iteration": run.iteration,
        "champion": run.champion_name,
        "pupils": {kind: pupil.state_dict() for kind, pupil in run.pupils.items()},
        "windows": {kind: window.state_dict() for kind, window in run.windows.items()},
        "ranges": {kind: list(found) for kind, found in run.ranges.items()},
        "incumbent": None if run.incumbent is None else run.incumbent.to_dict(),
        "decisions": [[iteration, name, decision.to_dict()] for iteration, name, decision in run.decisions],
        "tracker": run.tracker.offset,
    }
    scored = {name: value for name, value in metrics.items() if name == "gate/success"}
    run.store.save(run.iteration, tensors, stored, scored)


def restore(run: TaskTrainer) -> bool:
    """Continues from the latest checkpoint, and cuts the tracker's files back to it. False where there is none.

    Raises StorageError for a checkpoint whose windows cannot be used.
    """
    if run.store.latest() is None:
        run.tracker.truncate(0, 0)
        return False
    checkpoint = run.store.load("latest")
    stored, tensors = checkpoint.state, checkpoint.tensors
    try:
        for kind, pupil in run.pupils.items():
            pupil.load_state_dict(tensors[f"net.{kind}"], tensors[f"averaged.{kind}"], stored["pupils"][kind])
    except DataError as error:
        raise StorageError(f"{checkpoint.path}: {error}; choose an earlier checkpoint") from error
    run.champion = {kind: dict(tensors[f"champion.{kind}"]) for kind in run.pupils}
    run.acting = {kind: dict(tensors[f"acting.{kind}"]) for kind in run.pupils}
    for kind, window in run.windows.items():
        window.load_state_dict(stored["windows"][kind])
    run.ranges = {kind: (found[0], found[1]) for kind, found in stored["ranges"].items()}
    run.iteration, run.champion_name = stored["iteration"], stored["champion"]
    run.incumbent = None if stored["incumbent"] is None else Report.from_dict(stored["incumbent"])
    run.decisions = [(i, name, Decision.from_dict(record)) for i, name, record in stored["decisions"]]
    run.tracker.truncate(stored["tracker"], run.iteration)
    return True


def _champion_hash(run: TaskTrainer) -> str:
    return parameter_hash({f"{kind}.{name}": t for kind, own in run.champion.items() for name, t in own.items()})


def known_final(run: TaskTrainer) -> FinalResult | None:
    """What was measured already for this champion. Raises StorageError for a file that is damaged."""
    path = run.folder / "final.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        known = FinalResult.from_dict(record["result"])
        return known if record["champion_hash"] == _champion_hash(run) else None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({type(error).__name__}); remove it, to measure again") from error


def write_final(run: TaskTrainer, final: FinalResult) -> None:
    """final.json: the figures, and for which champion they hold."""
    record = {"champion": run.champion_name, "champion_hash": _champion_hash(run), "result": final.to_dict()}
    write_atomic(run.folder / "final.json", json.dumps(record, indent=1).encode())


def result(run: TaskTrainer, final: FinalResult) -> TaskResult:
    learned = {f"{kind}.{name}": t for kind, p in run.pupils.items() for name, t in p.net.state_dict().items()}
    return TaskResult(
        run.folder, run.iteration, run.champion_name, any(decision.promote for *_, decision in run.decisions),
        tuple(run.decisions), final, parameter_hash(learned), *spent(run.folder),
    )  # fmt: skip
