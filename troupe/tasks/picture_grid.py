"""A grid world that is seen as a picture: fetch the key, open the door, reach the goal.

    {"grid": ["S.#..", "..D.G", "K.#.."]}        answer "7" (moves that are needed), solution "DDURRRR"

A `TaskGame` whose observation is an image `[3, 16, 14]` of red, green and blue from 0 to 1: 7 x 7 cells of 2 x 2
pixels, and below them a bar with one lit pixel for each move that is left. Stepping on the key takes it, and with the
key the door is open. A shortest way, by breadth-first search over (cell, key), may be exceeded by 4 moves; who is
farther from the goal than the moves that are left, walls or no walls, has failed. Half is paid for the key, the rest at
the goal.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.grids import LETTERS, MOVES, distances
from troupe.tasks.splits import content_id

__all__ = ["SLACK", "PictureGame", "PictureState", "make_picture", "picture_task", "shortest_way", "solves_picture"]

SIDE, PIXELS = 7, 2
SLACK = 4
"""Moves more than a shortest way needs."""
KEY_SHARE = 0.5
"""Of the reward, for taking the key."""
LONGEST = PIXELS * PIXELS * SIDE
"""What the bar holds."""

# Red, green and blue of a cell's four pixels, row by row.
_BLACK, _GREY, _RED = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0)
_YELLOW, _GREEN, _BLUE = (1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.2, 1.0)
SPRITES = {
    ".": (_BLACK, _BLACK, _BLACK, _BLACK),
    "#": (_GREY, _GREY, _GREY, _GREY),
    "K": (_YELLOW, _BLACK, _BLACK, _YELLOW),
    "D": (_BLUE, _BLUE, _BLUE, _BLUE),
    "O": (_BLUE, _BLACK, _BLUE, _BLACK),  # the door, open
    "G": (_GREEN, _GREEN, _GREEN, _GREEN),
    "S": (_RED, _RED, _RED, _RED),
    "H": (_RED, _YELLOW, _RED, _RED),  # who holds the key
}


class Room(NamedTuple):
    """`marks` are the cells row by row, of . # K D and G."""

    width: int
    marks: str


class PictureState(NamedTuple):
    """`holds`: the key has been taken, and the door is open."""

    room: Room
    here: int
    holds: bool
    left: int
    moves: str
    done: bool = False


class PictureGame:
    """Four moves, up, down, left and right."""

    players = 1
    actions = len(MOVES)
    observation_shape = (3, (SIDE + 1) * PIXELS, SIDE * PIXELS)
    vocabulary = 0
    pointers = 0

    def initial(self) -> PictureState:
        return _first(("S.#..", "..D.G", "K.#.."), "initial")

    def begin(self, problem: Problem) -> PictureState:
        state = _first(_rows(problem.data, problem.id), problem.id)
        width, height = state.room.width, len(state.room.marks) // state.room.width
        if max(width, height) > SIDE or state.left > LONGEST:
            raise DataError(
                f"{problem.id}: a picture shows {SIDE} x {SIDE} cells and {LONGEST} moves; found {height} x {width} "
                f"and {state.left}"
            )
        return state

    def legal(self, state: PictureState) -> tuple[int, ...]:
        return _ways(state.room, state.holds)[0][state.here]

    def step(self, state: PictureState, action: int) -> tuple[PictureState, float, bool, int]:
        room, here, holds, left, moves, _ = state
        there = _ways(room, holds)[1][here][action]
        if there < 0:
            raise DataError(f"PictureGame.step: {LETTERS[action]} is blocked; take one of {self.legal(state)}")
        left -= 1
        mark = room.marks[there]
        takes, arrived = mark == "K" and not holds, mark == "G"
        reward = KEY_SHARE if takes else float(arrived) * (1 - KEY_SHARE if holds else 1.0)
        holds = holds or takes
        done = arrived or _least(room, there, holds) > left
        return PictureState(room, there, holds, left, moves + LETTERS[action], done), reward, done, 0

    def observe(self, state: PictureState) -> np.ndarray:
        """float32 `[3, 16, 14]`."""
        room, here, holds, left, _, _ = state
        picture = _background(room, holds).copy()
        row, column = divmod(here, room.width)
        row, column = row * PIXELS, column * PIXELS
        picture[:, row : row + PIXELS, column : column + PIXELS] = _PAINT["H" if holds else "S"]
        picture[:, SIDE * PIXELS :] = _BARS[left]
        return picture

    def key(self, state: PictureState) -> Any:
        return state[:4]

    def answer(self, state: PictureState) -> str | None:
        return state.moves if state.done and state.room.marks[state.here] == "G" else None

    def describe(self, state: PictureState, action: int) -> str:
        there = _ways(state.room, state.holds)[1][state.here][action]
        name, (row, column) = ("up", "down", "left", "right")[action], divmod(there, state.room.width)
        found = {"K": " and take the key", "D": ", through the door", "G": ", the goal"}
        what = "" if state.holds and state.room.marks[there] == "K" else found.get(state.room.marks[there], "")
        return f"go {name} to row {row}, column {column}{what}"

    def render(self, state: PictureState) -> str:
        marks = list(state.room.marks.replace("K", ".").replace("D", "O") if state.holds else state.room.marks)
        marks[state.here] = "H" if state.holds else "S"
        width = state.room.width
        lines = ["".join(marks[i : i + width]) for i in range(0, len(marks), width)]
        return "\n".join([*lines, f"{state.left} moves left"])


def _sprite(mark: str) -> np.ndarray:
    return np.array(SPRITES[mark], np.float32).T.reshape(3, PIXELS, PIXELS)


_PAINT = {mark: _sprite(mark) for mark in SPRITES}
_BARS = np.array(
    [np.repeat([np.arange(LONGEST) < left], 3, 0).reshape(3, PIXELS, SIDE * PIXELS) for left in range(LONGEST + 1)],
    np.float32,
)


@lru_cache(maxsize=8192)
def _background(room: Room, holds: bool) -> np.ndarray:
    """The picture without who walks there and without the bar; beyond a smaller room there are walls."""
    picture = np.empty(PictureGame.observation_shape, np.float32)
    height = len(room.marks) // room.width
    for row in range(SIDE):
        for column in range(SIDE):
            mark = room.marks[row * room.width + column] if row < height and column < room.width else "#"
            mark = {"K": ".", "D": "O"}.get(mark, mark) if holds else mark
            place = picture[:, row * PIXELS : (row + 1) * PIXELS, column * PIXELS : (column + 1) * PIXELS]
            place[:] = _PAINT[mark]
    return picture


@lru_cache(maxsize=8192)
def _ways(room: Room, holds: bool) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """(legal moves of each cell, the cell that each move leads to or -1)."""
    shut = "#" if holds else "#D"
    there: list[tuple[int, ...]] = []
    for cell in range(len(room.marks)):
        around = _around(room, cell)
        there.append(tuple(-1 if other < 0 or room.marks[other] in shut else other for other in around))
    return tuple(tuple(i for i, other in enumerate(row) if other >= 0) for row in there), tuple(there)


def _around(room: Room, cell: int) -> Iterator[int]:
    row, column = divmod(cell, room.width)
    for down, right in MOVES.values():
        r, c = row + down, column + right
        yield r * room.width + c if 0 <= r < len(room.marks) // room.width and 0 <= c < room.width else -1


@lru_cache(maxsize=65536)
def _least(room: Room, here: int, holds: bool) -> int:
    """Moves to the goal if nothing stood in between; by way of the key where the door is shut before the goal."""
    key, goal = room.marks.index("K"), room.marks.index("G")
    if holds or here in _open(room):
        return _apart(room, here, goal)
    return _apart(room, here, key) + _apart(room, key, goal)


@lru_cache(maxsize=8192)
def _open(room: Room) -> frozenset[int]:
    """The cells from which the goal can be reached without the key."""
    goal = room.marks.index("G")
    found, waiting = {goal}, [goal]
    while waiting:
        for other in _ways(room, False)[1][waiting.pop()]:
            if other >= 0 and other not in found:
                found.add(other)
                waiting.append(other)
    return frozenset(found)


def _apart(room: Room, a: int, b: int) -> int:
    return abs(a // room.width - b // room.width) + abs(a % room.width - b % room.width)


@lru_cache(maxsize=65536)
def shortest_way(room: Room, start: int) -> str | None:
    """A shortest way to the goal as letters, by breadth-first search over (cell, key); None where there is none."""
    first = (start, False)
    came: dict[tuple[int, bool], str] = {first: ""}
    waiting = deque([first])
    while waiting:
        cell, holds = waiting.popleft()
        moves = came[cell, holds]
        if room.marks[cell] == "G":
            return moves
        for letter, other in zip(LETTERS, _ways(room, holds)[1][cell], strict=True):
            after = (other, holds or room.marks[other] == "K")
            if other >= 0 and after not in came:
                came[after] = moves + letter
                waiting.append(after)
    return None


def _first(rows: Sequence[str], where: str) -> PictureState:
    text = "".join(rows)
    room, start = Room(len(rows[0]), text.replace("S", ".")), text.index("S")
    way = shortest_way(room, start)
    if not way:
        raise DataError(f"{where}: no way leads from S to G, by way of K if need be; open a wall")
    return PictureState(room, start, False, len(way) + SLACK, "")


def make_picture(rng: random.Random, locked: bool, walls: float, moves: tuple[int, int]) -> tuple[dict[str, Any], str]:
    """(data, prompt) of a room that a wall with a door cuts in two: start and key before it, and the goal as well
    unless it is `locked` away.

    A share `walls` of the other cells is closed; a shortest way has one of the numbers of moves. What has no such way
    is drawn again.
    """
    while True:
        marks, before, beyond = _two_rooms(rng, walls)
        if not before or not beyond:
            continue
        goal = rng.choice(beyond if locked else before)
        near = distances(SIDE, "".join(marks), goal)
        keys = [cell for cell in before if cell != goal and (not locked or 0 < near[cell] < moves[1])]
        if not keys:
            continue
        key = rng.choice(keys)
        marks[goal], marks[key] = "G", "K"
        far = _needed("".join(marks), key, goal, locked)
        starts = [cell for cell in before if marks[cell] == "." and moves[0] <= far[cell] <= moves[1]]
        if starts:
            break
    marks[rng.choice(starts)] = "S"
    rows = ["".join(marks[i : i + SIDE]) for i in range(0, SIDE * SIDE, SIDE)]
    return {"grid": rows}, "Go from S to G by U, D, L and R; the key K opens the door D.\n" + "\n".join(rows)


def _needed(marks: str, key: int, goal: int, locked: bool) -> list[int]:
    """Moves that are needed from each cell before the wall; -1 where there is no way."""
    shut = marks.replace("D", "#")
    if not locked:
        return list(distances(SIDE, shut, goal))
    rest = distances(SIDE, marks, goal)[key]
    return [-1 if rest < 0 or far < 0 else far + rest for far in distances(SIDE, shut, key)]


def _two_rooms(rng: random.Random, walls: float) -> tuple[list[str], list[int], list[int]]:
    """(marks, free cells before the wall, free cells beyond it): a line of walls with a door, turned any way."""
    line, door = rng.randint(2, SIDE - 3), rng.randrange(SIDE)
    marks = ["#" if rng.random() < walls else "." for _ in range(SIDE * SIDE)]
    upright, swapped = rng.random() < 0.5, rng.random() < 0.5
    depth = [cell % SIDE if upright else cell // SIDE for cell in range(SIDE * SIDE)]
    for cell in range(SIDE * SIDE):
        if depth[cell] == line:
            marks[cell] = "#"
    marks[door * SIDE + line if upright else line * SIDE + door] = "D"
    sides: tuple[list[int], list[int]] = ([], [])
    for cell, mark in enumerate(marks):
        if mark == ".":
            sides[(depth[cell] > line) != swapped].append(cell)
    return marks, *sides


def picture_task(data: Mapping[str, Any], prompt: str, difficulty: float) -> Task:
    """The task of a room. Raises DataError where no way leads to the goal."""
    rows = _rows(data, "picture")
    state = _first(rows, "picture")
    way = shortest_way(state.room, state.here)
    key = f"{len(rows)} rows {'/'.join(rows)}|"
    data = {**data, "key": key}
    return Task(content_id("picture", key), "picture", prompt, data, difficulty, str(state.left - SLACK), way)


def solves_picture(task: Task, answer: str) -> bool:
    """Whether the moves, replayed in the room, lead from S to G, through the door only after K, in at most 4 more than
    are needed."""
    rows = _rows(task.data, task.id)
    row, column = next((r, line.index("S")) for r, line in enumerate(rows) if "S" in line)
    holds = False
    for number, letter in enumerate(answer):
        if letter not in MOVES or (number and rows[row][column] == "G"):
            return False
        row, column = row + MOVES[letter][0], column + MOVES[letter][1]
        if not (0 <= row < len(rows) and 0 <= column < len(rows[0])):
            return False
        if rows[row][column] == "#" or (rows[row][column] == "D" and not holds):
            return False
        holds = holds or rows[row][column] == "K"
    needed = _first(rows, task.id).left - SLACK
    return rows[row][column] == "G" and len(answer) <= needed + SLACK and str(needed) == task.answer


def _rows(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    rows = data.get("grid")
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, str) for row in rows):
        raise DataError(f"{where}: grid is {rows!r}; write a list of rows of S, K, D, G, . and #")
    text = "".join(rows)
    once = all(text.count(mark) == 1 for mark in "SKG")
    if len({len(row) for row in rows}) != 1 or not once or set(text) - set("SKDG.#"):
        raise DataError(
            f"{where}: write rows of one length of . # and D, with one S, one K and one G; found {list(rows)}"
        )
    return tuple(rows)
