"""Training and held-out sets that share nothing, not even a near-duplicate.

A fingerprint stands for what a task asks. Word problems that differ only in the names of people and things have one
fingerprint, and so do questions that differ only in case, spacing or punctuation; sets are kept apart by fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.protocols import TaskGenerator

__all__ = ["content_id", "disjoint", "fingerprint", "shape_of", "split"]

MAX_DRAWS = 500
"""Draws in a row that may bring nothing new before `disjoint` concludes that the generator has no more tasks."""


def content_id(kind: str, text: str) -> str:
    """`linear-1f3a08c2b7d4`: the kind and a hash of the text, blind to case, spacing and closing punctuation."""
    normal = re.sub(r"\s+", " ", text.casefold()).strip(" .?!")
    return f"{kind}-{hashlib.sha256(f'{kind}|{normal}'.encode()).hexdigest()[:12]}"


def fingerprint(task: Task) -> str:
    """What a task asks, as a short string. `data["key"]` speaks for the task where its generator wrote one (a word
    problem's operation and numbers, without names); otherwise the prompt does, and the fingerprint is the task's id."""
    return content_id(task.kind, str(task.data.get("key", task.prompt)))


def shape_of(labels: Mapping[str, str], arrows: Iterable[tuple[str, str, str]]) -> str:
    """A name of a graph that does not depend on what its nodes are called or in which order they come.

    `labels` has the nodes and what tells them apart from the start; an arrow is (from, its label, to). Colours are
    refined by those of the neighbours (Weisfeiler & Leman 1968), and once more from each node that still has an equal.
    Equal graphs always have one name; unequal ones share a name only where that is not enough to tell them apart.
    """
    around: dict[str, list[tuple[str, str]]] = {node: [] for node in labels}
    for source, label, target in arrows:
        around[source].append((f">{label}", target))
        around[target].append((f"<{label}", source))
    colours = _refined(labels, around)
    alike = [node for node, colour in colours.items() if list(colours.values()).count(colour) > 1]
    singled = sorted(
        str(_certificate(labels, around, _refined({**labels, node: f"{labels[node]}!"}, around))) for node in alike
    )
    text = f"{_certificate(labels, around, colours)}|{singled}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


_Around = Mapping[str, Sequence[tuple[str, str]]]


def _refined(labels: Mapping[str, str], around: _Around) -> dict[str, int]:
    """Colours that neighbours do not split any further, numbered by the order of what they stand for."""
    colours, number = _ranked(labels), 0
    while len(set(colours.values())) > number:
        number = len(set(colours.values()))
        colours = _ranked({node: (colour, _seen(around[node], colours)) for node, colour in colours.items()})
    return colours


def _seen(near: Sequence[tuple[str, str]], colours: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted((label, colours[other]) for label, other in near)


def _ranked(marks: Mapping[str, Any]) -> dict[str, int]:
    rank: list[Any] = []
    for mark in sorted(marks.values()):
        if not rank or rank[-1] != mark:
            rank.append(mark)
    return {node: bisect_left(rank, mark) for node, mark in marks.items()}


def _certificate(labels: Mapping[str, str], around: _Around, colours: Mapping[str, int]) -> list[Any]:
    return sorted((colours[node], labels[node], _seen(around[node], colours)) for node in labels)


def split(tasks: Iterable[Task], fractions: Sequence[float], seed: int = 0) -> list[list[Task]]:
    """One list per fraction, in the tasks' order, no fingerprint in two of them.

    The first is for training and keeps repeated tasks; the others hold each fingerprint once. The assignment depends on
    the seed and the set of fingerprints alone, not on the order of `tasks`. Raises DataError unless the fractions are
    positive and sum to at most 1; what they leave out is in no list.
    """
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise DataError(f"fractions are {tuple(fractions)!r}; write positive numbers that sum to at most 1")
    tasks = list(tasks)
    marks = sorted({fingerprint(task) for task in tasks}, key=lambda mark: _keyed(mark, seed))
    home, start, total = {}, 0, 0.0
    for part, fraction in enumerate(fractions):
        total += fraction
        end = round(total * len(marks))
        home.update(dict.fromkeys(marks[start:end], part))
        start = end
    parts: list[list[Task]] = [[] for _ in fractions]
    for task in tasks:
        mark = fingerprint(task)
        if mark in home:
            # A held-out fingerprint is used up by its first task.
            parts[home[mark] if home[mark] == 0 else home.pop(mark)].append(task)
    return parts


def _keyed(mark: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}|{mark}".encode()).hexdigest()


def disjoint(generator: TaskGenerator, sizes: Sequence[int]) -> list[list[Task]]:
    """Lists of the given sizes from one generator, no fingerprint in two: `train, test = disjoint(g, (4000, 200))`.

    The first is for training and may repeat tasks; the others hold each fingerprint once, and are drawn first so that
    the size of the training set does not change them. Raises DataError where the generator has too few different tasks.
    """
    if not sizes or min(sizes) < 0:
        raise DataError(f"sizes are {tuple(sizes)!r}; write one number of tasks for each set")
    taken: set[str] = set()
    held_out = [_fresh(generator, size, taken, unique=True) for size in sizes[1:]]
    return [_fresh(generator, sizes[0], taken, unique=False), *held_out]


def _fresh(generator: TaskGenerator, size: int, taken: set[str], *, unique: bool) -> list[Task]:
    """`size` tasks outside `taken`; unique ones are added to it."""
    found: list[Task] = []
    rejected = 0
    while len(found) < size:
        for task in generator.generate(size - len(found)):
            mark = fingerprint(task)
            if mark in taken:
                rejected += 1
                continue
            found.append(task)
            rejected = 0
            if unique:
                taken.add(mark)
        if rejected > MAX_DRAWS:
            raise DataError(
                f"the generator brought nothing new in {rejected} draws, {len(found)} of {size} tasks found; "
                "ask for fewer tasks or widen difficulty_range"
            )
    return found
