"""Finding a shortest path on a grid with walls, and a reader of public instances.

    {"grid": ["S..#", "##..", "...G"]}        answer "5" (moves), solution "RRDDR"

A `TaskGame`: four moves, up, down, left and right, and exactly as many of them as a shortest path needs (breadth-first
search counts them); who stands farther from the goal than the moves that are left, walls or no walls, has failed. A
path that arrives is therefore a shortest one, and pays 1.

`read_mapf_grids` reads the benchmark instances of libMultiRobotPlanning (Hönig, MIT licence): each agent alone is a
task.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.rows import locate, objects
from troupe.tasks.splits import content_id

__all__ = ["MOVES", "PathGame", "PathState", "distances", "make_path", "path_task", "read_mapf_grids", "solves_path"]

MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
"""Letter -> (rows down, columns right), in the order of the actions."""
LETTERS = "".join(MOVES)

OPEN, WALL, HERE, GOAL = 1, 2, 3, 4
FIRST_LEFT = 5
"""Token of no move left; one more for each that is."""

Neighbours = tuple[tuple[int, ...], ...]


class PathState(NamedTuple):
    """Cells are numbered row by row. `cells` are "." and "#"; `left` is how many moves may still be made."""

    width: int
    cells: str
    goal: int
    here: int
    left: int
    moves: str
    done: bool = False


class PathGame:
    """Grids of up to `side` x `side` cells with shortest paths of up to `longest` moves."""

    players = 1
    actions = len(MOVES)
    pointers = 0

    def __init__(self, side: int = 8, longest: int = 40) -> None:
        self.side, self.longest = side, longest
        self.observation_shape = (side * side + 1,)
        self.vocabulary = FIRST_LEFT + longest + 1

    def initial(self) -> PathState:
        return _first(("S..#", "##..", "...G"), "initial")

    def begin(self, problem: Problem) -> PathState:
        rows = _rows(problem.data, problem.id)
        if max(len(rows), len(rows[0])) > self.side:
            raise DataError(
                f"{problem.id}: the grid has {len(rows)} x {len(rows[0])} cells, more than {self.side} a side"
            )
        state = _first(rows, problem.id)
        if state.left > self.longest:
            raise DataError(f"{problem.id}: the shortest path has {state.left} moves; this game holds {self.longest}")
        return state

    def legal(self, state: PathState) -> tuple[int, ...]:
        return _ways(state.width, state.cells)[0][state.here]

    def step(self, state: PathState, action: int) -> tuple[PathState, float, bool, int]:
        width, cells, goal, here, left, moves, _ = state
        there = _ways(width, cells)[1][here][action]
        if there < 0:
            raise DataError(f"PathGame.step: {LETTERS[action]} runs into a wall; take one of {self.legal(state)}")
        left -= 1
        arrived = there == goal
        rows, columns = divmod(there, width)
        away = abs(rows - goal // width) + abs(columns - goal % width)
        done = arrived or away > left
        after = PathState(width, cells, goal, there, left, moves + LETTERS[action], done)
        return after, float(arrived), done, 0

    def observe(self, state: PathState) -> np.ndarray:
        """float32 `[side * side + 1]`: the cells row by row, padding beyond the grid; the moves that are left."""
        tokens = _background(state.width, state.cells, self.side).copy()
        places = _places(state.width, len(state.cells), self.side)
        tokens[places[state.goal]] = GOAL
        tokens[places[state.here]] = HERE
        tokens[-1] = FIRST_LEFT + state.left
        return tokens

    def key(self, state: PathState) -> Any:
        return state[:5]

    def answer(self, state: PathState) -> str | None:
        return state.moves if state.done and state.here == state.goal else None

    def describe(self, state: PathState, action: int) -> str:
        row, column = divmod(_ways(state.width, state.cells)[1][state.here][action], state.width)
        name = ("up", "down", "left", "right")[action]
        return f"go {name} to row {row}, column {column}; {state.left - 1} moves are left"

    def render(self, state: PathState) -> str:
        marks = list(state.cells)
        marks[state.goal], marks[state.here] = "G", "S"
        lines = ["".join(marks[i : i + state.width]) for i in range(0, len(marks), state.width)]
        return "\n".join([*lines, f"{state.left} moves left"])


@lru_cache(maxsize=4096)
def _ways(width: int, cells: str) -> tuple[Neighbours, Neighbours]:
    """(legal moves of each cell, the cell that each move leads to or -1)."""
    height = len(cells) // width
    there: list[tuple[int, ...]] = []
    for cell in range(len(cells)):
        row, column = divmod(cell, width)
        steps = [(row + down, column + right) for down, right in MOVES.values()]
        inside = [r * width + c if 0 <= r < height and 0 <= c < width else -1 for r, c in steps]
        there.append(tuple(other if other >= 0 and cells[other] != "#" else -1 for other in inside))
    return tuple(tuple(i for i, other in enumerate(row) if other >= 0) for row in there), tuple(there)


@lru_cache(maxsize=4096)
def _background(width: int, cells: str, side: int) -> np.ndarray:
    tokens = np.zeros(side * side + 1, np.float32)
    for cell, place in enumerate(_places(width, len(cells), side)):
        tokens[place] = WALL if cells[cell] == "#" else OPEN
    return tokens


@lru_cache(maxsize=64)
def _places(width: int, cells: int, side: int) -> tuple[int, ...]:
    """Where each cell of the grid stands among the tokens."""
    return tuple(cell // width * side + cell % width for cell in range(cells))


@lru_cache(maxsize=65536)
def distances(width: int, cells: str, goal: int) -> tuple[int, ...]:
    """Moves from each cell to the goal by breadth-first search; -1 where no path leads."""
    there = _ways(width, cells)[1]
    far = [-1] * len(cells)
    far[goal] = 0
    waiting = deque([goal])
    while waiting:
        cell = waiting.popleft()
        for other in there[cell]:
            if other >= 0 and far[other] < 0:
                far[other] = far[cell] + 1
                waiting.append(other)
    return tuple(far)


def _first(rows: Sequence[str], where: str) -> PathState:
    text = "".join(rows)
    width, start, goal = len(rows[0]), text.index("S"), text.index("G")
    cells = text.replace("S", ".").replace("G", ".")
    shortest = distances(width, cells, goal)[start]
    if shortest < 1:
        raise DataError(f"{where}: no path leads from S to G; open a wall")
    return PathState(width, cells, goal, start, shortest, "")


def make_path(rng: random.Random, side: int, walls: float, moves: tuple[int, int]) -> tuple[dict[str, Any], str]:
    """(data, prompt) of a random grid in which a share `walls` of the cells is closed and the shortest path from S to G
    has one of the numbers of moves; grids that have no such pair are drawn again."""
    while True:
        cells = "".join("#" if rng.random() < walls else "." for _ in range(side * side))
        free = [cell for cell, mark in enumerate(cells) if mark == "."]
        goal = rng.choice(free) if free else 0
        far = distances(side, cells, goal)
        starts = [cell for cell in free if moves[0] <= far[cell] <= moves[1]]
        if starts:
            break
    return _instance(side, cells, rng.choice(starts), goal)


def _instance(width: int, cells: str, start: int, goal: int) -> tuple[dict[str, Any], str]:
    marks = list(cells)
    marks[start], marks[goal] = "S", "G"
    rows = ["".join(marks[i : i + width]) for i in range(0, len(marks), width)]
    drawn = "\n".join(rows)
    return {
        "grid": rows
    }, f"Go from S to G in as few moves as possible, by U, D, L and R and round the walls #.\n{drawn}"


def path_task(data: Mapping[str, Any], prompt: str, difficulty: float, kind: str = "path") -> Task:
    """The task of a grid. Raises DataError where no path leads to the goal."""
    rows = _rows(data, kind)
    state = _first(rows, kind)
    key = f"{len(rows)} rows {'/'.join(rows)}|"
    solution = _shortest(state)
    return Task(content_id(kind, key), kind, prompt, {**data, "key": key}, difficulty, str(state.left), solution)


def _shortest(state: PathState) -> str:
    far, there = distances(state.width, state.cells, state.goal), _ways(state.width, state.cells)[1]
    cell, moves = state.here, ""
    while cell != state.goal:
        action = next(i for i, other in enumerate(there[cell]) if other >= 0 and far[other] == far[cell] - 1)
        cell, moves = there[cell][action], moves + LETTERS[action]
    return moves


def solves_path(task: Task, answer: str) -> bool:
    """Whether the moves, replayed on the grid, lead from S to G round the walls and are as few as can be."""
    rows = _rows(task.data, task.id)
    row, column = next((r, line.index("S")) for r, line in enumerate(rows) if "S" in line)
    answer = answer.strip()
    for letter in answer:
        if letter not in MOVES:
            return False
        row, column = row + MOVES[letter][0], column + MOVES[letter][1]
        if not (0 <= row < len(rows) and 0 <= column < len(rows[0])) or rows[row][column] == "#":
            return False
    shortest = _first(rows, task.id).left
    return rows[row][column] == "G" and len(answer) == shortest and str(shortest) == task.answer


def _rows(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    rows = data.get("grid")
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, str) for row in rows):
        raise DataError(f"{where}: grid is {rows!r}; write a list of rows of S, G, . and #")
    text = "".join(rows)
    if len({len(row) for row in rows}) != 1 or text.count("S") != 1 or text.count("G") != 1 or set(text) - set("SG.#"):
        raise DataError(f"{where}: write rows of one length of . and #, with one S and one G; found {list(rows)}")
    return tuple(rows)


# ------------------------------------------------------------------------------------------- public instances


def read_mapf_grids(path: str | Path, side: int = 8) -> list[Task]:
    """Tasks of kind `path`: each agent's way to its goal alone, on the grids of at most `side` x `side` cells.

    `path` is `instances.jsonl.gz` or its folder; a line is {"id", "dimensions": [x, y], "obstacles": [[x, y], ...],
    "agents": [{"name", "start", "goal"}, ...]}. Agents who stand at their goal, or cannot reach it, are left out, and
    so is what repeats. The difficulty is the number of moves over 2 * side, 1 at most. Raises DataError for a line of
    another shape.
    """
    found: dict[str, Task] = {}
    for where, row in objects(locate(path, "instances.jsonl.gz", "instances.jsonl"), "mapf_grids"):
        for task in _agents(row, where, side):
            found.setdefault(task.id, task)
    return list(found.values())


def _agents(row: Mapping[str, Any], where: str, side: int) -> Iterator[Task]:
    try:
        width, height = row["dimensions"]
        walls = {y * width + x for x, y in row["obstacles"]}
        ends = [(agent["start"], agent["goal"]) for agent in row["agents"]]
        pairs = [(start[1] * width + start[0], goal[1] * width + goal[0]) for start, goal in ends]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{where}: no instance with dimensions, obstacles and agents ({error!r}); fetch it again"
        ) from error
    if max(width, height) > side:
        return
    cells = "".join("#" if cell in walls else "." for cell in range(width * height))
    for start, goal in pairs:
        if not (0 <= start < len(cells) and 0 <= goal < len(cells)) or {start, goal} & walls:
            raise DataError(f"{where}: an agent starts or ends in a wall or outside the grid; fetch the file again")
        moves = distances(width, cells, goal)[start]
        if moves > 0:
            yield path_task(*_instance(width, cells, start, goal), round(min(moves / (2 * side), 1.0), 4))
