"""Document 001's `MCTSSearchTaskGenerator`: games to be won, optimisation and path finding, with exact verdicts.

A game as a task for one: a position of tic-tac-toe or Connect Four in which the player to move can force a win within
so many moves of theirs, and the other side, inside the game, always plays the reply that holds out longest.

    {"game": "connect_four", "moves": [3, 3, 2, 2], "within": 2}        answer "2", solution "1 4"

Who wins is found by exact search that looks no farther than these moves, on bitboards: a side that can complete a line
does; a side whose opponent could must fill that cell.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from troupe.envs import connect_four as four
from troupe.envs import tictactoe as three
from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.protocols import TaskGame
from troupe.tasks.search_problems import FAMILIES, Family, SearchProblemGenerator, draw, family
from troupe.tasks.splits import content_id

__all__ = [
    "BOARDS",
    "Board",
    "ForcedWinGame",
    "ForcedWinState",
    "MCTSSearchTaskGenerator",
    "best_reply",
    "fewest_moves",
]

WITHIN = 4
"""Moves of the winner at most."""

EMPTY, OWN, OTHER = 1, 2, 3
FIRST_LEFT = 4


@dataclass(frozen=True, slots=True)
class Board:
    """A game of lines on a bitboard. Cells are bits; `cells` are those of an observation, row by row from the top."""

    name: str
    game: Any
    cells: tuple[int, ...]
    columns: int
    playable: Callable[[int], int]  # taken -> the cells that may be taken next
    completing: Callable[[int, int], int]  # (own, taken) -> the free cells that complete a line of own
    action: Callable[[int], int]  # of a cell
    key: Callable[[tuple[int, int]], int]  # what keeps training and held-out positions apart


# ------------------------------------------------------------------------------------------------------------ boards

_COMPLETING = tuple(
    sum(bit for bit in three.BIT if not own & bit and three.WON[own | bit]) for own in range(three.BOARDS)
)


def _three_completing(own: int, taken: int) -> int:
    return _COMPLETING[own] & ~taken


def _four_playable(taken: int) -> int:
    return (taken + sum(four.BOTTOM)) & four.FULL


def _four_completing(own: int, taken: int) -> int:
    """The cells that three others of a line leave open: on top of three, or anywhere in the other directions."""
    found = own << 1 & own << 2 & own << 3
    for step in four.DIRECTIONS[1:]:
        above, below = own << step, own >> step
        pairs = above & own << 2 * step  # two cells on the one side
        found |= pairs & own << 3 * step | pairs & below
        pairs = below & own >> 2 * step
        found |= pairs & own >> 3 * step | pairs & above
    return found & four.FULL & ~taken


def _four_cells() -> tuple[int, ...]:
    rows = reversed(range(four.ROWS))
    return tuple(1 << four.HEIGHT * column + row for row in rows for column in range(four.COLUMNS))


BOARDS = {
    "tictactoe": Board(
        "tictactoe", three.TicTacToe(), three.BIT, 3, lambda taken: three.FULL & ~taken, _three_completing,
        lambda cell: cell.bit_length() - 1,
        lambda state: three.TicTacToe().canonical(state)[0],  # 390 won positions differ by more than a symmetry
    ),
    "connect_four": Board(
        "connect_four", four.ConnectFour(), _four_cells(), four.COLUMNS, _four_playable, _four_completing,
        lambda cell: (cell.bit_length() - 1) // four.HEIGHT,
        lambda state: four.ConnectFour().canonical(state)[0],
    ),
}  # fmt: skip


def _bits(cells: int) -> Iterator[int]:
    while cells:
        cell = cells & -cells
        yield cell
        cells ^= cell


# ------------------------------------------------------------------------------------------------------------ solving


def fewest_moves(name: str, own: int, other: int, most: int) -> int | None:
    """Moves of the player to move, `own`, that force a win whatever the other does; None where `most` do not."""
    return next((moves for moves in range(1, most + 1) if _wins(name, own, other, moves)), None)


@lru_cache(maxsize=1 << 18)
def _wins(name: str, own: int, other: int, moves: int) -> bool:
    """Whether `own`, to move, can force a line within so many moves of theirs."""
    board, taken = BOARDS[name], own | other
    playable = board.playable(taken)
    if board.completing(own, taken) & playable:
        return True
    if moves == 1:
        return False
    threats = board.completing(other, taken) & playable
    return any(_holds(board, own | cell, other, moves - 1) for cell in _bits(threats or playable))


def _holds(board: Board, own: int, other: int, moves: int) -> bool:
    """Whether `own`, who has just moved, wins within `moves` more against every reply."""
    taken = own | other
    playable = board.playable(taken)
    if not playable or board.completing(other, taken) & playable:
        return False
    # Any other reply than to fill a cell where a line is about to be completed loses at once.
    urgent = board.completing(own, taken) & playable
    return all(_wins(board.name, own, other | cell, moves) for cell in _bits(urgent or playable))


@lru_cache(maxsize=1 << 18)
def best_reply(name: str, own: int, other: int, moves: int) -> int:
    """The cell that the player to move, `own`, takes against one who has so many moves left to win: a line of their
    own first, then what holds out longest, a threat met rather than not, the lowest bit among equals."""
    board, taken = BOARDS[name], own | other
    playable = board.playable(taken)
    lines = board.completing(own, taken) & playable
    if lines:
        return lines & -lines
    lasting = {cell: fewest_moves(name, other, own | cell, moves) or moves + 1 for cell in _bits(playable)}
    threats = board.completing(other, taken)
    return max(lasting, key=lambda cell: (lasting[cell], cell & threats > 0, -cell))


# ------------------------------------------------------------------------------------------------------------ the game


class ForcedWinState(NamedTuple):
    """`own` is to move and has `left` moves to win; `moves` are their actions so far."""

    own: int
    other: int
    left: int
    moves: tuple[int, ...]
    won: bool = False


class ForcedWinGame:
    """Win within the moves that are left; the other side replies inside `step`."""

    players = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.actions = int(self.board.game.actions)
        self.observation_shape = (len(self.board.cells) + 1,)
        self.vocabulary = FIRST_LEFT + WITHIN + 1
        self.pointers = self.actions if self.actions == len(self.board.cells) else 0

    @property
    def board(self) -> Board:
        return BOARDS[self.name]

    def initial(self) -> ForcedWinState:
        own, other = _position(
            self.board, (3, 0, 4, 0) if self.board.name == "connect_four" else (0, 1, 3, 2), "initial"
        )
        return ForcedWinState(own, other, 2, ())

    def begin(self, problem: Problem) -> ForcedWinState:
        own, other, within = _read(self.board, problem.data, problem.id)
        return ForcedWinState(own, other, within, ())

    def legal(self, state: ForcedWinState) -> tuple[int, ...]:
        return self.board.game.legal((state.own, state.other))

    def step(self, state: ForcedWinState, action: int) -> tuple[ForcedWinState, float, bool, int]:
        own, other, left, moves, _ = state
        (other, own), reward, done, _ = self.board.game.step((own, other), action)
        left, moves = left - 1, (*moves, action)
        if done or not left:
            return ForcedWinState(own, other, left, moves, reward > 0), float(reward > 0), True, 0
        cell = best_reply(self.board.name, other, own, left)
        (own, other), _, done, _ = self.board.game.step((other, own), self.board.action(cell))
        return ForcedWinState(own, other, left, moves), 0.0, done, 0

    def observe(self, state: ForcedWinState) -> np.ndarray:
        """float32 `[cells + 1]`: free, own or the other's, row by row; the moves that are left."""
        return _tokens(self.name, state.own, state.other, state.left).copy()

    def key(self, state: ForcedWinState) -> Any:
        return state[:3]

    def answer(self, state: ForcedWinState) -> str | None:
        return " ".join(map(str, state.moves)) if state.won else None

    def describe(self, state: ForcedWinState, action: int) -> str:
        after, reward, done, _ = self.step(state, action)
        if done:
            return f"play {action}, {'which completes a line' if reward else 'and it is not won'}"
        reply = (after.other & ~state.other).bit_length()
        return f"play {action}; the reply is {self.board.action(1 << reply - 1)}; moves left: {after.left}"

    def render(self, state: ForcedWinState) -> str:
        return f"{_drawn(self.board, state.own, state.other)}\nto win within {state.left} moves"


@lru_cache(maxsize=1 << 16)
def _tokens(name: str, own: int, other: int, left: int) -> np.ndarray:
    cells = [OWN if own & cell else OTHER if other & cell else EMPTY for cell in BOARDS[name].cells]
    return np.array([*cells, FIRST_LEFT + left], np.float32)


def _drawn(board: Board, own: int, other: int) -> str:
    """Rows of X (to move), O and dots."""
    marks = "".join("X" if own & cell else "O" if other & cell else "." for cell in board.cells)
    return "\n".join(marks[i : i + board.columns] for i in range(0, len(marks), board.columns))


def _position(board: Board, moves: Sequence[int], where: str) -> tuple[int, int]:
    state = board.game.initial()
    for number, move in enumerate(moves):
        if move not in board.game.legal(state):
            raise DataError(f"{where}: move {number} of {board.name} is {move!r}, which is not legal there")
        state, _, done, _ = board.game.step(state, move)
        if done:
            raise DataError(f"{where}: move {number} of {board.name} ends the game; leave something to play")
    return state


def _read(board: Board, data: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    moves, within = data.get("moves"), data.get("within")
    if not isinstance(moves, Sequence) or type(within) is not int or not 1 <= within <= WITHIN:
        raise DataError(f"{where}: write moves as a list of actions and within as a number from 1 to {WITHIN}")
    return (*_position(board, moves, where), within)


# ------------------------------------------------------------------------------------------------------------ tasks


def _draw(
    name: str, rng: random.Random, within: int, plies: tuple[int, int], easy: float, careful: bool
) -> tuple[dict[str, Any], str]:
    """(data, prompt) of a position after random moves in which exactly `within` moves force a win, and at most a share
    `easy` of the first moves, or one, does; others are drawn again."""
    board = BOARDS[name]
    while True:
        moves = _random_line(board, rng, rng.randint(*plies), careful)
        if moves is None:
            continue
        own, other = _position(board, moves, name)
        if fewest_moves(name, own, other, within) == within and _share(board, own, other, within) <= easy:
            break
    prompt = f"You are X and move. Win within {within} of your moves against the best replies."
    return {"game": name, "moves": moves, "within": within}, f"{prompt}\n{_drawn(board, own, other)}"


def _random_line(board: Board, rng: random.Random, length: int, careful: bool) -> list[int] | None:
    """Random moves, those of `careful` sides such that no line can be completed that could be met; None where they end
    the game, or such a line can be completed all the same. Careful sides leave more wins that take several moves."""
    state, moves = board.game.initial(), []
    for _ in range(length):
        own, other = state
        taken = own | other
        playable = board.playable(taken)
        if careful and board.completing(own, taken) & playable:
            return None
        threats = board.completing(other, taken) & playable if careful else 0
        moves.append(board.action(rng.choice(list(_bits(threats or playable)))))
        state, _, done, _ = board.game.step(state, moves[-1])
        if done:
            return None
    return moves


def _share(board: Board, own: int, other: int, within: int) -> float:
    """Of the first moves, those that win within so many, the first not counted."""
    cells = list(_bits(board.playable(own | other)))
    winning = len(_winning(board, own, other, within))
    return 0.0 if winning == 1 else winning / len(cells)


def _winning(board: Board, own: int, other: int, within: int) -> list[int]:
    taken = own | other
    lines = board.completing(own, taken)
    return [
        cell
        for cell in _bits(board.playable(taken))
        if cell & lines or (within > 1 and _holds(board, own | cell, other, within - 1))
    ]


def _task(name: str, data: dict[str, Any], prompt: str, difficulty: float) -> Task:
    """The task of a position. Raises DataError where it is not won within its moves."""
    board = BOARDS[name]
    own, other, within = _read(board, data, name)
    key = f"{board.key((own, other))} within {within}"
    state, game, done = ForcedWinState(own, other, within, ()), ForcedWinGame(name), False
    while not done:
        winning = _winning(board, state.own, state.other, state.left)
        if not winning:
            raise DataError(f"{name}: no win can be forced within {within} moves; write more, or another position")
        state, _, done, _ = game.step(state, board.action(winning[0]))
    fewest = fewest_moves(name, own, other, within)
    return Task(content_id(name, key), name, prompt, {**data, "key": key}, difficulty, str(fewest), game.answer(state))


def _solves(task: Task, answer: str) -> bool:
    """Whether the moves, replayed against the best replies by the rules of the game itself, complete a line in time."""
    board = BOARDS[task.kind]
    own, other, within = _read(board, task.data, task.id)
    if not re.fullmatch(r"(0|[1-9][0-9]{0,8})(\s+(0|[1-9][0-9]{0,8}))*", answer.strip()):
        return False
    if str(fewest_moves(task.kind, own, other, within)) != task.answer:
        return False
    moves = [int(move) for move in answer.split()]
    state = (own, other)
    for left, move in zip(range(within - 1, -1, -1), moves, strict=False):
        if move not in board.game.legal(state):
            return False
        state, reward, done, _ = board.game.step(state, move)
        if done or not left:
            return reward > 0 and len(moves) == within - left
        state, _, done, _ = board.game.step(state, board.action(best_reply(task.kind, *state, left)))
        if done:
            return False
    return False


def _family(name: str, params: Callable[[float], dict[str, Any]]) -> Family:
    return Family(
        lambda: ForcedWinGame(name),
        params,
        lambda rng, **drawn: _draw(name, rng, **drawn),
        lambda data, prompt, difficulty: _task(name, data, prompt, difficulty),
        _solves,
    )


def _tictactoe(difficulty: float) -> dict[str, Any]:
    within = 1 + round(2 * difficulty)
    return {
        "within": within,
        "plies": ((4, 7), (2, 5), (1, 4))[within - 1],
        "easy": 1.0 - 0.7 * difficulty,
        "careful": False,
    }


def _connect_four(difficulty: float) -> dict[str, Any]:
    within = 1 + round((WITHIN - 1) * difficulty)
    return {"within": within, "plies": (14, 26), "easy": 1.0 - 0.8 * difficulty, "careful": within > 1}


GAME_FAMILIES = {"tictactoe": _family("tictactoe", _tictactoe), "connect_four": _family("connect_four", _connect_four)}
ALL_FAMILIES = {**GAME_FAMILIES, **FAMILIES}


class MCTSSearchTaskGenerator(SearchProblemGenerator):
    """Forced wins beside the problems of `SearchProblemGenerator`."""

    KINDS: ClassVar[tuple[str, ...]] = tuple(ALL_FAMILIES)
    DEFAULT_KINDS: ClassVar[tuple[str, ...]] = ("tictactoe", "connect_four", "knapsack", "tour", "path")
    SEARCHED: ClassVar[tuple[str, ...]] = (*DEFAULT_KINDS, "twentyfour")

    def make(self, difficulty: float) -> Task:
        return draw(ALL_FAMILIES[self.draw_kind()], self.rng, difficulty)

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        return {kind: ALL_FAMILIES[kind].params(difficulty) for kind in self.kinds}

    @staticmethod
    def game(kind: str) -> TaskGame:
        """The game of all tasks of a kind. Raises DataError for another kind."""
        return family(kind, ALL_FAMILIES).game()

    @staticmethod
    def verify(task: Task, answer: str | None) -> bool:
        """Whether the submitted text solves the task. Raises DataError for another kind, or data that are broken."""
        return answer is not None and family(task.kind, ALL_FAMILIES).solves(task, answer)
