"""Some of the final tasks, attempted before and after learning, with every step in words: for the report's readers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from torch import Tensor

from troupe.episode import Task
from troupe.stores.atomic import write_atomic
from troupe.systems.selfplay.verifiable.deploy import Solved, TaskSolver
from troupe.systems.selfplay.verifiable.trainer import UNTRAINED, TaskTrainer

__all__ = ["choose", "write_examples"]

TRIED, SHOWN = 8, 4
"""Tasks of each kind that are attempted once more, and how many of all of them are kept."""

Pair = tuple[Solved, Solved]


def write_examples(trainer: TaskTrainer) -> None:
    """examples.json in the run folder: what the untrained networks did, and what the champion did, or the last
    candidate where none was promoted. The searches are those of the final judgement, without exploration."""
    if trainer.champion_name == UNTRAINED:
        name, weights = "the last candidate, not promoted", {k: p.averaged for k, p in trainer.pupils.items()}
    else:
        name, weights = f"the champion, {trainer.champion_name}", trainer.champion
    tasks = [task for some in trainer.final_tasks.values() for task in some[:TRIED]]
    pairs = list(zip(_solved(trainer, trainer.start, tasks), _solved(trainer, weights, tasks), strict=True))
    record = [_record(pair, name) for pair in choose(pairs)]
    write_atomic(trainer.folder / "examples.json", json.dumps(record, indent=1).encode())


def _solved(trainer: TaskTrainer, weights: Mapping[str, Mapping[str, Tensor]], tasks: Sequence[Task]) -> list[Solved]:
    solver = TaskSolver(trainer.config, {kind: dict(own) for kind, own in weights.items()}, trainer.given)
    return solver.solve(tasks, trainer.config.seed)


def choose(pairs: Sequence[Pair]) -> list[Pair]:
    """At most `SHOWN`: tasks that are solved since, of one kind after the other, and one that was lost and one that
    still fails where there are any; then what is left."""
    fresh, lost, failed, solved = (
        _mixed(p for p in pairs if (p[0].success, p[1].success) == found)
        for found in ((False, True), (True, False), (False, False), (True, True))
    )
    others = [*lost[:1], *failed[:1]]
    gained = fresh[: SHOWN - len(others)]
    return [*gained, *others, *solved, *failed[1:]][:SHOWN]


def _mixed(pairs: Iterable[Pair]) -> list[Pair]:
    """The first of every kind, then the second of every kind, and so on."""
    by_kind: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_kind.setdefault(pair[0].task.kind, []).append(pair)
    return [pair for row in zip_longest(*by_kind.values()) for pair in row if pair is not None]


def _record(pair: Pair, name: str) -> dict[str, Any]:
    task = pair[0].task
    sides = [
        {"name": of, "success": one.success, "answer": one.answer, "steps": list(one.chain)}
        for of, one in zip(("untrained", name), pair, strict=True)
    ]
    return {"task_id": task.id, "kind": task.kind, "problem": task.prompt, "sides": sides}
