"""Tasks of the kinds `sudoku`, `queens` and `colouring`: random instances with one solution, and their verdicts.

Verdicts check the rules of the puzzle on the text that was submitted, and compare it with the task's answer, which is
unique; they use neither the game nor its tables.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.constraints import (
    PAIRS,
    Network,
    colouring_network,
    queens_network,
    read_colouring,
    solutions,
    sudoku_network,
)
from troupe.tasks.splits import content_id
from troupe.tasks.sudoku import generate_sudoku, is_solution

__all__ = [
    "colouring_params",
    "colouring_task",
    "corrupted_colouring",
    "corrupted_queens",
    "corrupted_sudoku",
    "make_colouring",
    "make_queens",
    "make_sudoku",
    "queens_params",
    "queens_task",
    "solves_colouring",
    "solves_queens",
    "solves_sudoku",
    "sudoku_params",
    "sudoku_task",
]


def _swapped(parts: list[str], rng: random.Random, joint: str) -> str:
    """The answer with one part put where another stands."""
    others = [i for i in range(len(parts)) if parts[i] != parts[0]]
    parts = list(parts)
    parts[rng.choice(others)] = parts[0]
    return joint.join(parts)


# ------------------------------------------------------------------------------------------- sudoku


def sudoku_params(difficulty: float) -> dict[str, int]:
    """4x4 with 3 to 9 empty cells, then 6x6 with 12 to 24."""
    if difficulty < 0.4:
        return {"size": 4, "empty": round(3 + 15 * difficulty)}
    return {"size": 6, "empty": round(12 + 20 * (difficulty - 0.4))}


def make_sudoku(rng: random.Random, difficulty: float) -> Task:
    size, empty = sudoku_params(difficulty).values()
    puzzle, _ = generate_sudoku(size, size * size - empty, np.random.default_rng(rng.getrandbits(64)))
    return sudoku_task({"size": size, "givens": puzzle}, difficulty)


def sudoku_task(data: Mapping[str, Any], difficulty: float) -> Task:
    """Raises DataError unless there is exactly one solution."""
    answer = "".join(str(value + 1) for value in _only(sudoku_network(data, "sudoku"), "sudoku"))
    size, givens = data["size"], data["givens"]
    rows = ["".join(map(str, givens[i : i + size])).replace("0", ".") for i in range(0, size * size, size)]
    prompt = (
        f"Complete this {size}x{size} sudoku (boxes are 2 rows by {2 if size == 4 else 3} columns):\n"
        + "\n".join(rows)
        + f"\nAnswer with its {size * size} digits, row by row, without spaces."
    )
    return Task(content_id("sudoku", prompt), "sudoku", prompt, data, difficulty, answer, answer)


def solves_sudoku(task: Task, answer: str) -> bool:
    digits = "".join(answer.split())
    if not re.fullmatch(r"[1-9]+", digits) or len(digits) != len(task.data["givens"]):
        return False
    return is_solution(task.data["givens"], [int(digit) for digit in digits]) and digits == task.answer


def corrupted_sudoku(task: Task, rng: random.Random) -> Any:
    return _swapped(list(task.answer), rng, "")


# ------------------------------------------------------------------------------------------- queens


def queens_params(difficulty: float) -> dict[str, Any]:
    """The size of the board, and how many cells are closed beyond those that make the solution unique, as a share."""
    return {"size": round(4 + 4 * difficulty), "extra": round(0.85 * (1 - difficulty), 3)}


def make_queens(rng: random.Random, difficulty: float) -> Task:
    """Cells outside one solution are closed, one by one, until no other is left."""
    params = queens_params(difficulty)
    size = params["size"]
    while True:
        chosen = _some_queens(rng, size)
        others = [cell for cell in range(size * size) if cell % size != chosen[cell // size]]
        rng.shuffle(others)
        closed = others[: int(params["extra"] * len(others))]
        rest = others[len(closed) :]
        while len(found := solutions(queens_network({"size": size, "closed": closed}, "queens"))) > 1:
            rival = next(solution for solution in found if list(solution) != chosen)
            closed.append(
                rng.choice([row * size + column for row, column in enumerate(rival) if column != chosen[row]])
            )
        if rest:
            return queens_task({"size": size, "closed": sorted(closed)}, difficulty)


def _some_queens(rng: random.Random, size: int) -> list[int]:
    """A solution of the empty board, by random restarts of a greedy placement."""
    while True:
        columns: list[int] = []
        for row in range(size):
            free = [c for c in range(size) if all(c != d and abs(c - d) != row - r for r, d in enumerate(columns))]
            if not free:
                break
            columns.append(rng.choice(free))
        if len(columns) == size:
            return columns


def queens_task(data: Mapping[str, Any], difficulty: float) -> Task:
    """Raises DataError unless there is exactly one solution."""
    answer = " ".join(str(column + 1) for column in _only(queens_network(data, "queens"), "queens"))
    size, closed = data["size"], set(data["closed"])
    rows = ["".join("#" if r * size + c in closed else "." for c in range(size)) for r in range(size)]
    prompt = (
        f"Place {size} queens on this {size}x{size} board so that none attacks another; # takes no queen:\n"
        + "\n".join(rows)
        + "\nAnswer with the column of each row's queen, from 1, separated by spaces."
    )
    return Task(content_id("queens", prompt), "queens", prompt, data, difficulty, answer, answer)


def solves_queens(task: Task, answer: str) -> bool:
    size, closed = task.data["size"], task.data["closed"]
    if not re.fullmatch(r"[0-9]{1,9}(\s+[0-9]{1,9})*", answer.strip()):
        return False
    columns = [int(column) - 1 for column in answer.split()]
    if len(columns) != size or not all(0 <= column < size for column in columns):
        return False
    if any(row * size + column in closed for row, column in enumerate(columns)):
        return False
    lines = (columns, [c + r for r, c in enumerate(columns)], [c - r for r, c in enumerate(columns)])
    return all(len(set(line)) == size for line in lines) and " ".join(answer.split()) == task.answer


def corrupted_queens(task: Task, rng: random.Random) -> Any:
    return _swapped(task.answer.split(), rng, " ")


# ------------------------------------------------------------------------------------------- colouring


def colouring_params(difficulty: float) -> dict[str, int]:
    return {"vertices": round(5 + 11 * difficulty), "colours": 3, "edges": round(6 + 26 * difficulty)}


def make_colouring(rng: random.Random, difficulty: float) -> Task:
    """A random graph coloured in advance; as few vertices keep their colours as leave only that colouring."""
    vertices, colours, count = colouring_params(difficulty).values()
    while True:
        hidden = [rng.randrange(colours) for _ in range(vertices)]
        pairs = [(a, b) for a, b in PAIRS if b < vertices and hidden[a] != hidden[b]]
        edges = sorted(rng.sample(pairs, min(len(pairs), count)))
        data = {"vertices": vertices, "colours": colours, "edges": [list(pair) for pair in edges]}
        fixed = _fewest_fixed(rng, data, hidden)
        if len(fixed) < vertices - 1:
            return colouring_task({**data, "fixed": fixed}, difficulty)


def _fewest_fixed(rng: random.Random, data: Mapping[str, Any], hidden: list[int]) -> dict[str, int]:
    """Vertices are fixed until one colouring is left, and let go again where that changes nothing."""
    fixed: dict[str, int] = {}
    while len(found := solutions(colouring_network({**data, "fixed": fixed}, "colouring"))) > 1:
        rival = next(solution for solution in found if list(solution) != hidden)
        vertex = rng.choice([v for v in range(data["vertices"]) if rival[v] != hidden[v]])
        fixed[str(vertex)] = hidden[vertex] + 1
    for name in list(fixed):
        others = {key: colour for key, colour in fixed.items() if key != name}
        if len(solutions(colouring_network({**data, "fixed": others}, "colouring"))) == 1:
            fixed = others
    return dict(sorted(fixed.items(), key=lambda entry: int(entry[0])))


def colouring_task(data: Mapping[str, Any], difficulty: float) -> Task:
    """Raises DataError unless there is exactly one solution."""
    answer = " ".join(str(colour + 1) for colour in _only(colouring_network(data, "colouring"), "colouring"))
    edges = ", ".join(f"{a + 1}-{b + 1}" for a, b in data["edges"])
    fixed = ", ".join(f"{int(vertex) + 1} has {colour}" for vertex, colour in data["fixed"].items())
    prompt = (
        f"Colour the vertices 1 to {data['vertices']} with colours 1 to {data['colours']} so that no edge joins two of "
        f"one colour. Edges: {edges}. Given: {fixed}. Answer with the colours in the order of the vertices, "
        "separated by spaces."
    )
    return Task(content_id("colouring", prompt), "colouring", prompt, data, difficulty, answer, answer)


def solves_colouring(task: Task, answer: str) -> bool:
    vertices, colours, edges, fixed = read_colouring(task.data, task.id)
    if not re.fullmatch(r"[0-9]{1,9}(\s+[0-9]{1,9})*", answer.strip()):
        return False
    given = [int(colour) for colour in answer.split()]
    if len(given) != vertices or not all(1 <= colour <= colours for colour in given):
        return False
    if any(given[vertex] != colour for vertex, colour in fixed.items()) or any(given[a] == given[b] for a, b in edges):
        return False
    return " ".join(answer.split()) == task.answer


def corrupted_colouring(task: Task, rng: random.Random) -> Any:
    return _swapped(task.answer.split(), rng, " ")


def _only(network: Network, what: str) -> tuple[int, ...]:
    found = solutions(network)
    if len(found) != 1:
        raise DataError(
            f"{what}: the instance has {'no' if not found else 'more than one'} solution; write another one"
        )
    return found[0]
