"""Which puzzles are learned from and which are held out.

No held-out puzzle is a form of a training puzzle, nor of another held-out one: relabelled, reordered, turned or
mirrored it would still be the same puzzle (`sudokus.invariants`, `labyrinths.invariants`). ARC holds out the tests of
the tasks that it shows, as the benchmark does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from troupe.errors import DataError
from troupe.systems.puzzles import arc, labyrinths, sudokus
from troupe.systems.puzzles.config import PuzzleDataConfig
from troupe.training.recursion import IGNORED

__all__ = ["PuzzleData", "PuzzleSet", "puzzle_data"]

Pair = tuple[np.ndarray, np.ndarray]
Keys = Callable[[np.ndarray, np.ndarray], list[Hashable]]
"""(puzzles, solutions), `[k, L]`, to a key for each that all of its forms share."""

BATCH = 256
MAX_DRAWS = 2000
"""Draws in a row that may bring nothing new before the puzzles count as used up."""


@dataclass(frozen=True)
class PuzzleSet:
    """Puzzles and their answers, uint8 `[n, L]`; `tasks` int64 `[n]` where the puzzle alone does not say what is
    asked, and a network must know the task by its number."""

    puzzles: np.ndarray
    answers: np.ndarray
    tasks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.puzzles)

    def digest(self) -> str:
        """Equal for equal sets, in equal order."""
        parts = [self.puzzles.tobytes(), self.answers.tobytes()]
        return hashlib.sha256(b"".join(parts) + repr(self.puzzles.shape).encode()).hexdigest()


@dataclass(frozen=True)
class PuzzleData:
    """What a run learns from and is judged by. `form` draws random forms of `[k, L]` puzzles with their answers."""

    train: PuzzleSet
    held_out: PuzzleSet
    vocabulary: int
    length: int
    tasks: int = 0
    """How many task numbers there are; 0: puzzles speak for themselves."""
    form: Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair] | None = None

    def labels(self, answers: np.ndarray) -> np.ndarray:
        """int64; padding is not asked about."""
        return np.where(answers == 0, IGNORED, answers.astype(np.int64))


def puzzle_data(config: PuzzleDataConfig, seed: int) -> PuzzleData:
    """The puzzles of a config; the same seed gives the same. Raises DataError where there are too few."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    found = _BUILDERS[config.name](config, rng)
    if config.shuffle_answers:
        answers = found.train.answers[rng.permutation(len(found.train))]
        train = PuzzleSet(found.train.puzzles, answers, found.train.tasks)
        return PuzzleData(train, found.held_out, found.vocabulary, found.length, found.tasks, found.form)
    return found


# ---------------------------------------------------------------------------------------------- kinds


def _sudoku(config: PuzzleDataConfig, rng: np.random.Generator) -> PuzzleData:
    size = config.size or 9
    stream: Iterator[Pair]
    if config.file is not None:
        stream = iter(_shuffled(sudokus.read_sudokus(Path(config.file), size), rng))
    else:
        stream = sudokus.generated(size, config.givens or sudokus.GIVENS[size], rng)

    def keys(puzzles: np.ndarray, solutions: np.ndarray) -> list[Hashable]:
        return list(sudokus.invariants(puzzles, solutions, size).tolist())

    train, held_out = _apart(stream, config, keys)
    form = partial(_form_sudokus, size=size) if config.augment else None
    return PuzzleData(train, held_out, size + 2, size * size, form=form)


def _maze(config: PuzzleDataConfig, rng: np.random.Generator) -> PuzzleData:
    size = config.size or 9

    def keys(mazes: np.ndarray, answers: np.ndarray) -> list[Hashable]:
        return list(labyrinths.invariants(mazes, size))

    train, held_out = _apart(labyrinths.generated(size, rng), config, keys)
    form = partial(_form_mazes, size=size) if config.augment else None
    return PuzzleData(train, held_out, labyrinths.VOCABULARY, size * size, form=form)


def _arc(config: PuzzleDataConfig, rng: np.random.Generator) -> PuzzleData:
    """Demonstrations of all tasks and of `forms` further forms of each; held out are the tests of the tasks as they
    stand. Tasks with a grid of more than `size` rows or columns are left out."""
    assert config.file is not None
    side = config.size or arc.LARGEST
    tasks = [task for task in arc.read_arc(Path(config.file)) if _largest(task) <= side]
    if not tasks:
        raise DataError(f"{config.file} has no task whose grids all fit into data.size={side}; choose a larger size")
    tasks = [tasks[i] for i in rng.permutation(len(tasks))[: config.train]]
    shown = [*tasks, *(arc.transformed(task, k, rng) for task in tasks for k in range(config.forms))]
    train = _task_set([task.train for task in shown], side)
    return PuzzleData(train, _task_set([t.test for t in tasks], side), arc.VOCABULARY, side * side, len(shown))


def _largest(task: arc.ArcTask) -> int:
    return max(max(grid.shape) for pair in (*task.train, *task.test) for grid in pair)


def _task_set(pairs: list[tuple[tuple[np.ndarray, np.ndarray], ...]], side: int) -> PuzzleSet:
    encoded = [arc.pairs_of(found, side) for found in pairs]
    numbers = np.repeat(np.arange(len(pairs)), [len(found) for found in pairs])
    return PuzzleSet(np.concatenate([e[0] for e in encoded]), np.concatenate([e[1] for e in encoded]), numbers)


_BUILDERS: dict[str, Callable[[PuzzleDataConfig, np.random.Generator], PuzzleData]] = {
    "arc": _arc,
    "maze": _maze,
    "sudoku": _sudoku,
}


def _form_sudokus(puzzles: np.ndarray, answers: np.ndarray, rng: np.random.Generator, *, size: int) -> Pair:
    return sudokus.forms(puzzles, answers, size, rng)


def _form_mazes(puzzles: np.ndarray, answers: np.ndarray, rng: np.random.Generator, *, size: int) -> Pair:
    return labyrinths.mirrored(puzzles, answers, size, rng)


# ---------------------------------------------------------------------------------------------- held out


def _apart(stream: Iterator[Pair], config: PuzzleDataConfig, keys: Keys) -> tuple[PuzzleSet, PuzzleSet]:
    """(training, held-out) set, no key in two puzzles of the held-out set nor in both; held-out puzzles are taken
    first, so that the size of the training set does not change them."""
    taken: set[Hashable] = set()
    fresh = _new(stream, keys, taken)
    held_out = list(islice(fresh, config.held_out))
    train = list(islice(fresh, config.train))
    if len(held_out) < config.held_out or len(train) < config.train:
        raise DataError(
            f"there are only {len(held_out) + len(train)} different puzzles for data.held_out={config.held_out} and "
            f"data.train={config.train}; write smaller numbers, or other data.size and data.givens"
        )
    return _stacked(train), _stacked(held_out)


def _new(stream: Iterator[Pair], keys: Keys, taken: set[Hashable]) -> Iterator[Pair]:
    """The puzzles of a stream whose key was not there before."""
    in_vain = 0
    while in_vain < MAX_DRAWS and (batch := list(islice(stream, BATCH))):
        both = _stacked(batch)
        for pair, key in zip(batch, keys(both.puzzles, both.answers), strict=True):
            in_vain += 1
            if key not in taken:
                taken.add(key)
                in_vain = 0
                yield pair


def _stacked(pairs: list[Pair]) -> PuzzleSet:
    return PuzzleSet(np.stack([puzzle for puzzle, _ in pairs]), np.stack([answer for _, answer in pairs]))


def _shuffled(pairs: Iterable[Pair], rng: np.random.Generator) -> list[Pair]:
    found = list(pairs)
    return [found[i] for i in rng.permutation(len(found))]
