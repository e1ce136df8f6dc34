"""Problems that are found by searching: knapsacks, round trips, paths, the Game of 24, and rooms seen as pictures.

    generator = SearchProblemGenerator((0.2, 0.4), seed=0, kinds=("path",))
    (task,) = generator.generate(1)
    game = generator.game("path")
    game.begin(task.problem)

What is right is decided on the submitted text and the problem alone, by an exact solver or by replaying, never by the
game's own books. A new kind is one file beside this one and one line in `FAMILIES`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from troupe.episode import Task
from troupe.errors import DataError, did_you_mean
from troupe.protocols import TaskGame
from troupe.tasks.countdown import TwentyFourGame, make_twentyfour, solves_twentyfour, twentyfour_task
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.grids import PathGame, make_path, path_task, solves_path
from troupe.tasks.knapsack import KnapsackGame, knapsack_task, make_knapsack, solves_knapsack
from troupe.tasks.picture_grid import PictureGame, make_picture, picture_task, solves_picture
from troupe.tasks.tours import TourGame, make_tour, solves_tour, tour_task

__all__ = ["FAMILIES", "Family", "SearchProblemGenerator", "wrong_number"]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of problem: its game, what a difficulty means, how an instance is drawn and made a task, and who is
    right."""

    game: Callable[[], TaskGame]
    params: Callable[[float], dict[str, Any]]
    draw: Callable[..., tuple[dict[str, Any], str]]  # (rng, **params) -> (data, prompt)
    task: Callable[[dict[str, Any], str, float], Task]
    solves: Callable[[Task, str], bool]


def _between(low: float, high: float, difficulty: float) -> int:
    return round(low + (high - low) * difficulty)


def _knapsack(difficulty: float) -> dict[str, Any]:
    return {"items": _between(3, 12, difficulty), "spread": _between(6, 2, difficulty)}


def _tour(difficulty: float) -> dict[str, Any]:
    return {"cities": _between(4, 9, difficulty)}


def _path(difficulty: float) -> dict[str, Any]:
    least = _between(1, 12, difficulty)
    return {"side": 8, "walls": 0.1 + 0.25 * difficulty, "moves": (least, least + 1)}


def _twentyfour(difficulty: float) -> dict[str, Any]:
    count, likeliest = _between(2, 5, difficulty), 10.0 ** (-3.5 * difficulty)
    if count == 5:  # of what follows the first merge
        likeliest = 0.002
    targets = (10, 100) if count > 2 else (2, 100)
    return {"count": count, "targets": targets, "luck": (likeliest / 10, likeliest)}


def _picture(difficulty: float) -> dict[str, Any]:
    locked = difficulty >= 0.2
    least = _between(3, 18, (difficulty - 0.2) / 0.8) if locked else 1
    most = least + 1 if locked else _between(1, 6, difficulty)
    return {"locked": locked, "walls": 0.05 + 0.15 * difficulty, "moves": (least, most)}


FAMILIES: dict[str, Family] = {
    "knapsack": Family(KnapsackGame, _knapsack, make_knapsack, knapsack_task, solves_knapsack),
    "tour": Family(TourGame, _tour, make_tour, tour_task, solves_tour),
    "path": Family(PathGame, _path, make_path, path_task, solves_path),
    "twentyfour": Family(TwentyFourGame, _twentyfour, make_twentyfour, twentyfour_task, solves_twentyfour),
    "picture": Family(PictureGame, _picture, make_picture, picture_task, solves_picture),
}


class SearchProblemGenerator(BaseTaskGenerator):
    """Instances of `FAMILIES`, all with a solution; the harder, the more a search has to look at."""

    KINDS: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    DEFAULT_KINDS: ClassVar[tuple[str, ...]] = ("knapsack", "tour", "path", "twentyfour")

    def make(self, difficulty: float) -> Task:
        return draw(FAMILIES[self.draw_kind()], self.rng, difficulty)

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        """What a difficulty means for each kind."""
        return {kind: FAMILIES[kind].params(difficulty) for kind in self.kinds}

    @staticmethod
    def game(kind: str) -> TaskGame:
        """The game of all tasks of a kind. Raises DataError for another kind."""
        return family(kind, FAMILIES).game()

    @staticmethod
    def verify(task: Task, answer: str | None) -> bool:
        """Whether the submitted text solves the task. Raises DataError for another kind, or data that are broken."""
        return answer is not None and family(task.kind, FAMILIES).solves(task, answer)

    @staticmethod
    def corrupted(task: Task, rng: random.Random) -> Task:
        """The task with a wrong answer: what was right for it is now judged wrong."""
        return wrong_number(task, rng)


def draw(family: Family, rng: random.Random, difficulty: float) -> Task:
    """A task of a family at a difficulty."""
    data, prompt = family.draw(rng, **family.params(difficulty))
    return family.task(data, prompt, round(difficulty, 4))


def family(kind: str, families: Mapping[str, Family]) -> Family:
    """The family of a kind. Raises DataError for one that is not there."""
    if kind not in families:
        raise DataError(f"{kind!r} is no kind of search problem{did_you_mean(kind, families)}")
    return families[kind]


def wrong_number(task: Task, rng: random.Random) -> Task:
    """The task with another number as its answer, 1 to 3 away, written as the right one is."""
    whole, dot, places = str(task.answer).partition(".")
    return replace(task, answer=f"{int(whole) + rng.randint(1, 3)}{dot}{places}")
