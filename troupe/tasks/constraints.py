"""Constraint satisfaction: sudoku (4x4, 6x6), n queens on a board with holes, and map colouring.

    sudoku     {"size": 4, "givens": [1, 0, ...]}                                         answer "1342..." cell by cell
    queens     {"size": 5, "closed": [3, 7]}                                              answer "2 4 1 3 5" row by row
    colouring  {"vertices": 4, "colours": 3, "edges": [[0, 1]], "fixed": {"0": 1}}        answer "1 2 3 1"

Each instance has exactly one solution, which a solver proved. One `TaskGame` serves all three: an action gives a
variable one of its values and strikes what that rules out elsewhere; a variable with no value left is a dead end and
pays 0, and the last variable pays 1. What the kinds add is a table: which values of which variables exclude which
others, and how a state looks as tokens. Nothing is ever filled in by force: to tell a forced value from a guess is
what there is to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem
from troupe.errors import DataError
from troupe.tasks.sudoku import BOXES, peers

__all__ = [
    "GAMES",
    "ConstraintGame",
    "ConstraintState",
    "Network",
    "colouring_network",
    "queens_network",
    "read_colouring",
    "solutions",
    "sudoku_network",
]

Effects = tuple[tuple[tuple[tuple[int, int], ...], ...], ...]
"""effects[variable][value] -> (other variable, values that remain for it as bits), only where some are struck."""


class Network(NamedTuple):
    """A constraint network. `variables` and `values` name places in the game: action = variable * K + value."""

    domains: tuple[int, ...]  # of each variable, values as bits; 0 for a variable that the instance does not have
    effects: Effects
    scenery: tuple[int, ...]  # what else the tokens show: the size, the closed cells, the edges

    def __hash__(self) -> int:  # tables are large: they follow from these
        return hash((self.domains, self.scenery))


class ConstraintState(NamedTuple):
    """`left` are the values that each variable may still take, as bits; `values` is -1 where it has none yet."""

    network: Network
    values: tuple[int, ...]
    left: tuple[int, ...]
    open: int  # variables without a value


@dataclass(frozen=True)
class ConstraintGame:
    """Action variable * `choices` + value assigns the value. `read` makes the network of a task's data, `show` writes a
    state's tokens, `write` a full assignment as text, `say` an assignment in words."""

    variables: int
    choices: int
    pointers: int
    observation_shape: tuple[int]
    vocabulary: int
    example: Mapping[str, Any]
    read: Callable[[Mapping[str, Any], str], Network]
    show: Callable[[ConstraintState, np.ndarray], None]
    write: Callable[[Sequence[int]], str]
    say: Callable[[Network, int, int], str]

    players = 1

    @property
    def actions(self) -> int:
        return self.variables * self.choices

    def initial(self) -> ConstraintState:
        return _first(self.read(self.example, "example"))

    def begin(self, problem: Problem) -> ConstraintState:
        state = _first(self.read(problem.data, problem.id))
        if not state.open or _stuck(state):
            raise DataError(f"{problem.id}: nothing is left to decide, or nothing can be; write another instance")
        return state

    def legal(self, state: ConstraintState) -> list[int]:
        found: list[int] = []
        for variable, (value, left) in enumerate(zip(state.values, state.left, strict=True)):
            if value < 0 and left:
                found += _actions(variable * self.choices, left)
        return found

    def step(self, state: ConstraintState, action: int) -> tuple[ConstraintState, float, bool, int]:
        variable, value = divmod(action, self.choices)
        if state.values[variable] >= 0 or not state.left[variable] >> value & 1:
            raise DataError(f"ConstraintGame.step: action {action} is not legal in {self.render(state)!r}")
        after = assigned(state, variable, value)
        if not after.open:
            return after, 1.0, True, 0
        return after, 0.0, _stuck(after), 0

    def observe(self, state: ConstraintState) -> np.ndarray:
        """float32 `[L]`; see the `show_` function of the kind."""
        tokens = np.zeros(self.observation_shape, np.float32)
        self.show(state, tokens)
        return tokens

    def key(self, state: ConstraintState) -> Any:
        return state.network.scenery, state.network.domains, state.values

    def answer(self, state: ConstraintState) -> str | None:
        return None if state.open else self.write(_held(state))

    def describe(self, state: ConstraintState, action: int) -> str:
        variable, value = divmod(action, self.choices)
        only = state.left[variable].bit_count() == 1
        return self.say(state.network, variable, value) + (", the only one left" if only else "")

    def render(self, state: ConstraintState) -> str:
        return " ".join("." if value < 0 else str(value + 1) for value in _held(state))


@lru_cache(maxsize=65536)
def _actions(first: int, left: int) -> tuple[int, ...]:
    return tuple(first + value for value in range(left.bit_length()) if left >> value & 1)


def _held(state: ConstraintState) -> list[int]:
    """Values of the variables that the instance has."""
    return [value for value, domain in zip(state.values, state.network.domains, strict=True) if domain]


def _first(network: Network) -> ConstraintState:
    """Variables of one possible value have it from the start, and what that excludes is struck."""
    given = [v for v, domain in enumerate(network.domains) if domain.bit_count() == 1]
    count = sum(map(bool, network.domains))
    state = ConstraintState(network, (-1,) * len(network.domains), network.domains, count)
    for variable in given:
        value = network.domains[variable].bit_length() - 1
        if not state.left[variable] >> value & 1:
            raise DataError(f"two of the givens exclude one another (variable {variable}); correct the instance")
        state = assigned(state, variable, value)
    return state


def assigned(state: ConstraintState, variable: int, value: int) -> ConstraintState:
    """The state with one more variable assigned, what that excludes struck."""
    left = list(state.left)
    left[variable] = 1 << value
    for other, remain in state.network.effects[variable][value]:
        left[other] &= remain
    values = (*state.values[:variable], value, *state.values[variable + 1 :])
    return ConstraintState(state.network, values, tuple(left), state.open - 1)


def _stuck(state: ConstraintState) -> bool:
    return any(not left and domain for left, domain in zip(state.left, state.network.domains, strict=True))


def solutions(network: Network, limit: int = 2) -> list[tuple[int, ...]]:
    """Up to `limit` full assignments, depth first at the variable with the fewest values left."""
    found: list[tuple[int, ...]] = []
    waiting = [_first(network)]
    while waiting and len(found) < limit:
        state = waiting.pop()
        if _stuck(state):
            continue
        if not state.open:
            found.append(tuple(_held(state)))
            continue
        open_ = [v for v, value in enumerate(state.values) if value < 0 and state.network.domains[v]]
        variable = min(open_, key=lambda v: state.left[v].bit_count())
        waiting += [assigned(state, variable, value) for value in _actions(0, state.left[variable])]
    return found


# ------------------------------------------------------------------------------------------- sudoku

SIDE = 6
"""Cells are those of a 6x6 grid; a 4x4 sudoku is its upper left corner."""
SIZES = (4, 6)


@lru_cache
def _sudoku_effects(size: int) -> Effects:
    place = [cell // size * SIDE + cell % size for cell in range(size * size)]
    table: list[tuple[tuple[tuple[int, int], ...], ...]] = [()] * (SIDE * SIDE)
    for cell, others in enumerate(peers(size)):
        table[place[cell]] = tuple(tuple((place[o], ~(1 << value)) for o in others) for value in range(size))
    return tuple(table)


def sudoku_network(data: Mapping[str, Any], where: str) -> Network:
    """Cells are variables, digits values. Raises DataError for another size than 4 and 6, or givens that do not fit."""
    size, givens = data.get("size"), data.get("givens")
    if size not in SIZES or not isinstance(givens, Sequence) or len(givens) != size * size:
        raise DataError(f"{where}: write size as 4 or 6 and givens as size * size digits, 0 for an empty cell")
    if not all(type(digit) is int and 0 <= digit <= size for digit in givens):
        raise DataError(f"{where}: givens hold something else than digits from 0 to {size}")
    domains = [0] * (SIDE * SIDE)
    for cell, digit in enumerate(givens):
        domains[cell // size * SIDE + cell % size] = 1 << (digit - 1) if digit else (1 << size) - 1
    return Network(tuple(domains), _sudoku_effects(size), (size,))


def show_sudoku(state: ConstraintState, tokens: np.ndarray) -> None:
    """36 cells, 0 outside the grid, 1 empty, digit + 1; then the size."""
    for cell, (value, domain) in enumerate(zip(state.values, state.network.domains, strict=True)):
        if domain:
            tokens[cell] = value + 2
    tokens[-1] = 8 + SIZES.index(state.network.scenery[0])


def _say_sudoku(network: Network, variable: int, value: int) -> str:
    tall, wide = BOXES[network.scenery[0]]
    row, column = divmod(variable, SIDE)
    box = row // tall * (network.scenery[0] // wide) + column // wide
    return f"row {row + 1}, column {column + 1}, box {box + 1}: {value + 1}"


# ------------------------------------------------------------------------------------------- queens

BOARD = 8


@lru_cache
def _queens_effects(size: int) -> Effects:
    full = (1 << BOARD) - 1
    return tuple(
        tuple(
            tuple(
                (other, full & ~sum(1 << c for c in {column, column + other - row, column - other + row} if c >= 0))
                for other in range(size)
                if other != row
            )
            for column in range(size)
        )
        for row in range(size)
    ) + ((),) * (BOARD - size)


def queens_network(data: Mapping[str, Any], where: str) -> Network:
    """Rows are variables, columns values; closed cells, numbered row by row, take no queen."""
    size, closed = data.get("size"), data.get("closed")
    if type(size) is not int or not 4 <= size <= BOARD or not isinstance(closed, Sequence):
        raise DataError(f"{where}: write size as 4 to {BOARD} and closed as a list of cells")
    if not all(type(cell) is int and 0 <= cell < size * size for cell in closed):
        raise DataError(f"{where}: closed holds something else than cells from 0 to {size * size - 1}")
    domains = [0] * BOARD
    for row in range(size):
        domains[row] = sum(1 << column for column in range(size) if row * size + column not in closed)
        if not domains[row]:
            raise DataError(f"{where}: row {row} is closed altogether; open a cell")
    return Network(tuple(domains), _queens_effects(size), (size,))


def show_queens(state: ConstraintState, tokens: np.ndarray) -> None:
    """64 cells: 0 outside the board, 1 free, 2 closed or attacked, 3 a queen."""
    size = state.network.scenery[0]
    for row in range(size):
        value, left = state.values[row], state.left[row]
        for column in range(size):
            free = value < 0 and left >> column & 1
            tokens[row * BOARD + column] = 3 if value == column else 1 if free else 2


# ------------------------------------------------------------------------------------------- colouring

VERTICES, COLOURS, EDGES = 16, 4, 40
PAIRS = tuple((a, b) for a in range(VERTICES) for b in range(a + 1, VERTICES))
FIRST_COUNT = 3 + COLOURS
FIRST_PAIR = FIRST_COUNT + COLOURS


def read_colouring(data: Mapping[str, Any], where: str) -> tuple[int, int, list[tuple[int, int]], dict[int, int]]:
    """(vertices, colours, edges as rising pairs, colours given, from 1). Raises DataError where something is amiss."""
    vertices, colours, edges, fixed = (data.get(name) for name in ("vertices", "colours", "edges", "fixed"))
    if type(vertices) is not int or type(colours) is not int or not isinstance(edges, Sequence) or fixed is None:
        raise DataError(f"{where}: write vertices and colours as numbers, edges as [[0, 1]] and fixed as {{vertex: 1}}")
    pairs = sorted({(min(pair), max(pair)) for pair in edges})
    given = {int(vertex): colour for vertex, colour in fixed.items()}
    if any(not 0 <= a < b < vertices for a, b in pairs):
        raise DataError(f"{where}: an edge joins something else than two of the vertices 0 to {vertices - 1}")
    if any(not (0 <= vertex < vertices and 1 <= colour <= colours) for vertex, colour in given.items()):
        raise DataError(f"{where}: fixed names something else than vertices with colours from 1 to {colours}")
    return vertices, colours, pairs, given


@lru_cache(maxsize=4096)
def _colouring_effects(vertices: int, edges: tuple[tuple[int, int], ...]) -> Effects:
    near: list[list[int]] = [[] for _ in range(VERTICES)]
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    return tuple(
        tuple(tuple((other, ~(1 << colour)) for other in near[vertex]) for colour in range(COLOURS))
        for vertex in range(vertices)
    ) + ((),) * (VERTICES - vertices)


def colouring_network(data: Mapping[str, Any], where: str) -> Network:
    """Vertices are variables, colours values."""
    vertices, colours, edges, fixed = read_colouring(data, where)
    if vertices > VERTICES or not 2 <= colours <= COLOURS or len(edges) > EDGES:
        raise DataError(f"{where}: the game holds {VERTICES} vertices, {EDGES} edges and 2 to {COLOURS} colours")
    domains = [1 << (fixed[v] - 1) if v in fixed else (1 << colours) - 1 for v in range(vertices)]
    scenery = (colours, *(PAIRS.index(pair) for pair in edges))
    return Network(
        tuple(domains + [0] * (VERTICES - vertices)), _colouring_effects(vertices, tuple(edges)), scenery
    )  # fmt: skip


def show_colouring(state: ConstraintState, tokens: np.ndarray) -> None:
    """16 vertices (0 none, 1 without a colour, colour + 1), the number of colours, and 40 edges, a token a pair."""
    for vertex, (value, domain) in enumerate(zip(state.values, state.network.domains, strict=True)):
        if domain:
            tokens[vertex] = value + 2
    colours, *edges = state.network.scenery
    tokens[VERTICES] = FIRST_COUNT + colours - 1
    for place, pair in enumerate(edges, start=VERTICES + 1):
        tokens[place] = FIRST_PAIR + pair


def _spaced(values: Sequence[int]) -> str:
    return " ".join(str(value + 1) for value in values)


GAMES = {
    "sudoku": ConstraintGame(
        SIDE * SIDE, SIDE, SIDE * SIDE, (SIDE * SIDE + 1,), 8 + len(SIZES),
        {"size": 4, "givens": [1, 0, 0, 4, 0, 4, 1, 0, 2, 0, 0, 3, 0, 3, 0, 0]},
        sudoku_network, show_sudoku, lambda values: "".join(str(value + 1) for value in values), _say_sudoku,
    ),
    "queens": ConstraintGame(
        BOARD, BOARD, BOARD * BOARD, (BOARD * BOARD,), 4, {"size": 4, "closed": [2]},
        queens_network, show_queens, _spaced, lambda _, row, column: f"row {row + 1}: column {column + 1}",
    ),
    "colouring": ConstraintGame(
        VERTICES, COLOURS, VERTICES, (VERTICES + 1 + EDGES,), FIRST_PAIR + len(PAIRS),
        {"vertices": 3, "colours": 3, "edges": [[0, 1], [0, 2], [1, 2]], "fixed": {"0": 1, "1": 2}},
        colouring_network, show_colouring, _spaced,
        lambda _, vertex, colour: f"vertex {vertex + 1}: colour {colour + 1}",
    ),
}  # fmt: skip
"""Kind -> its game."""
