"""Which tasks a run trains on, and which are held out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from troupe.episode import Task
from troupe.errors import DataError, did_you_mean
from troupe.systems.workflow_rl.config import DataConfig
from troupe.tasks import GENERATORS
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.splits import disjoint, fingerprint

Split = Literal["train", "held_out"]

__all__ = ["load_tasks", "permuted", "practised", "without_overlong"]


def load_tasks(config: DataConfig, seed: int) -> tuple[list[Task], list[Task]]:
    """(training tasks, held-out tasks), no task in both and none twice.

    Raises DataError for an empty or unknown data set.
    """
    if config.val is None or config.val == config.train:
        train, val = _load(config.train, config, seed, ("train", "held_out"))
    else:
        (train,), (val,) = _load(config.train, config, seed, ("train",)), _load(config.val, config, seed, ("held_out",))
        held = {task.id for task in val}
        train = [task for task in train if task.id not in held]
    train = list({task.id: task for task in train}.values())
    if not train or not val:
        raise DataError(
            f"data.train={config.train!r} gives {len(train)} training and {len(val)} held-out tasks; both are needed"
        )
    return train, val


def _load(name: str, config: DataConfig, seed: int, splits: Sequence[Split]) -> list[list[Task]]:
    """The splits that are asked for; a data set need not have the others."""
    if name in GENERATORS:
        generated = dict(zip(("train", "held_out"), _generated(GENERATORS[name], config, seed), strict=True))
        return [generated[split] for split in splits]
    registry = DatasetRegistry(Path(config.root))
    if name not in registry.names():
        raise DataError(
            f"there are no tasks called {name!r} (data.train, data.val): not under data.root={config.root!r}"
            f"{did_you_mean(name, [*GENERATORS, *registry.names()])}; prepare them with `troupe data prepare`"
        )
    rng = random.Random(seed)
    parts = []
    for split in splits:
        rows = registry.load_dataset(name, split)
        parts.append(rng.sample(rows, min(config.train_size if split == "train" else config.val_size, len(rows))))
    return parts


def _generated(generator: type[BaseTaskGenerator], config: DataConfig, seed: int) -> tuple[list[Task], list[Task]]:
    """Generated problems. The held-out set has each kind's exact share, so that a gate over some kinds has a known
    size. The order in which the config names the kinds changes nothing: a stored config may have another."""
    known = generator.KINDS
    chosen = config.kinds or dict.fromkeys(generator.DEFAULT_KINDS or known, 1.0)
    place = {kind: known.index(kind) if kind in known else len(known) for kind in chosen}  # the generator refuses those
    kinds = {kind: chosen[kind] for kind in sorted(chosen, key=place.__getitem__)}
    val: list[Task] = []
    for kind, weight in kinds.items():
        size = round(config.val_size * weight / sum(kinds.values()))
        val += disjoint(generator(config.difficulty, seed * 1009 + place[kind] + 1, (kind,)), (0, size))[1]
    if not kinds:  # a generator of one kind
        val = disjoint(generator(config.difficulty, seed * 1009 + 1), (0, config.val_size))[1]
    held = {fingerprint(task) for task in val}
    stream = iter(generator(config.difficulty, seed, tuple(kinds), tuple(kinds.values())))
    train: dict[str, Task] = {}
    for _ in range(50 * config.train_size):  # a narrow difficulty has fewer problems than were asked for
        task = next(stream)
        if fingerprint(task) not in held:
            train[task.id] = task
        if len(train) == config.train_size:
            break
    return list(train.values()), val


def without_overlong(tasks: Sequence[Task], tokenizer: Any, limit: int) -> list[Task]:
    """The tasks whose problem alone has at most `limit` tokens."""
    return [task for task in tasks if len(tokenizer.encode(task.prompt, add_special_tokens=False)) <= limit]


def practised(tasks: Sequence[Task], config: DataConfig, seed: int) -> list[Task]:
    """What RL trains on: the training tasks, or a negative control made of them. Demonstrations stay as they are, so
    that a control starts where the run starts that it is compared with."""
    practice = list(tasks)
    if config.shuffle_answers:
        practice = permuted(practice, "answer", seed)
    if config.shuffle_prompts:
        practice = permuted(practice, "prompt", seed + 1)
    return practice


def permuted(tasks: Sequence[Task], field: Literal["answer", "prompt"], seed: int) -> list[Task]:
    """Every task gets this field of the next one of its kind in a shuffled order."""
    rng = random.Random(seed)
    by_kind: dict[str, list[int]] = {}
    for i, task in enumerate(tasks):
        by_kind.setdefault(task.kind, []).append(i)
    values = [getattr(task, field) for task in tasks]
    for members in by_kind.values():
        rng.shuffle(members)
        for i, j in zip(members, members[1:] + members[:1], strict=True):
            values[i] = getattr(tasks[j], field)
    return [replace(task, **{field: value}) for task, value in zip(tasks, values, strict=True)]
