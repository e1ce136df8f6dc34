"""Does the search play well? Whoever knows all values never loses; whoever knows nothing finds what can be forced."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.search.test_puct import positions, searched
from troupe.engines.evaluator import OracleEvaluator, UniformEvaluator
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.tictactoe import State, TicTacToe, TicTacToeBatch
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run

BOARD = TicTacToe()
CLAIRVOYANT = [
    SearchConfig(algorithm="puct", simulations=25),
    SearchConfig(algorithm="puct", simulations=25, fpu="parent", leaves=4),
    SearchConfig(algorithm="gumbel", simulations=16),
]
NAMES = ["puct", "puct, four leaves", "gumbel"]


@cache
def worth(state: State) -> float:
    """The exact value of tic-tac-toe to the player to move."""
    values = []
    for action in BOARD.legal(state):
        following, reward, done, _ = BOARD.step(state, action)
        values.append(reward if done else -worth(following))
    return max(values)


def chosen(config: SearchConfig, states: list[State], player: int) -> list[int]:
    """What a search with exact values plays in these states, in which `player` is to move."""
    _, roots = searched(TicTacToeBatch(), config, [(state, player) for state in states], OracleEvaluator(exact))
    return [int(edge) for edge in roots.edges]


def exact(state: Any) -> float:
    return worth((int(state[0]), int(state[1])))


@pytest.mark.parametrize("config", CLAIRVOYANT, ids=NAMES)
def test_whoever_knows_the_values_never_loses_to_random_play(config: SearchConfig) -> None:
    generator, outcomes = np.random.default_rng(0), {-1.0: 0, 0.0: 0, 1.0: 0}
    for colour in (0, 1):
        games, player = [BOARD.initial()] * 500, 0
        while games:
            if player == colour:
                moves = chosen(config, games, player)
            else:
                moves = [int(generator.choice(BOARD.legal(state))) for state in games]
            steps = [BOARD.step(state, move) for state, move in zip(games, moves, strict=True)]
            for _, reward, done, _ in steps:
                if done:
                    outcomes[reward if player == colour else -reward] += 1
            games, player = [state for state, _, done, _ in steps if not done], 1 - player
    assert sum(outcomes.values()) == 1000
    assert outcomes[-1.0] == 0
    assert outcomes[1.0] > 700  # and it takes what random play gives away


@pytest.mark.parametrize("colour", [0, 1])
@pytest.mark.parametrize("config", CLAIRVOYANT, ids=NAMES)
def test_no_line_of_play_beats_whoever_knows_the_values(config: SearchConfig, colour: int) -> None:
    states, player = {BOARD.initial()}, 0
    met = 0
    while states:
        listed = sorted(states)
        if player == colour:
            pairs = list(zip(listed, chosen(config, listed, player), strict=True))
            met += len(listed)
        else:
            pairs = [(state, action) for state in listed for action in BOARD.legal(state)]
        states = set()
        for state, action in pairs:
            following, reward, done, _ = BOARD.step(state, action)
            assert not (reward and player != colour), f"lost by {action} in {state}"
            if not done:
                states.add(following)
        player = 1 - player
    assert met > 50  # the opponent has tried many things


# --- knowing nothing --------------------------------------------------------------------------------------------


def wins(game: Any, state: Any) -> set[int]:
    """Actions that win at once."""
    return {action for action in game.legal(state) if game.step(state, action)[1] > 0}


def open_moves(game: Any, state: Any) -> dict[int, Any]:
    """Actions that do not end the game, and what they lead to."""
    steps = {action: game.step(state, action) for action in game.legal(state)}
    return {action: following for action, (following, _, done, _) in steps.items() if not done}


def wins_in_two(game: Any, state: Any) -> set[int]:
    """Actions after which every reply leaves a win at once; none where there is a win at once already."""
    if wins(game, state):
        return set()
    found = set()
    for action, following in open_moves(game, state).items():
        replies = open_moves(game, following)
        if len(replies) == len(game.legal(following)) and all(wins(game, reply) for reply in replies.values()):
            found.add(action)
    return found


def blocks(game: Any, state: Any) -> set[int]:
    """The one action that neither loses at once nor to a forced win in two; none where there is a choice, or a win."""
    if wins(game, state) or wins_in_two(game, state):
        return set()
    holding = {a for a, following in open_moves(game, state).items() if not wins(game, following)}
    safe = {a for a in holding if not wins_in_two(game, open_moves(game, state)[a])}
    return safe if len(holding) == len(safe) == 1 and len(game.legal(state)) > 1 else set()


@cache
def problems(name: str) -> dict[str, list[tuple[Any, int, frozenset[int]]]]:
    """Generated positions, each with the actions that solve it."""
    game, most, wanted = (ConnectFour(), 24, 40) if name == "connect four" else (BOARD, 5, 25)
    kinds: dict[str, Callable[[Any, Any], set[int]]] = {"win": wins, "block": blocks, "win in two": wins_in_two}
    found: dict[str, dict[Any, tuple[Any, int, frozenset[int]]]] = {kind: {} for kind in kinds}
    generator = np.random.default_rng(11)
    while min(len(listed) for listed in found.values()) < wanted:
        for state, player in positions(game, generator, 20, most):
            for kind, solutions in kinds.items():
                if len(found[kind]) < wanted and 0 < len(solved := solutions(game, state)) < len(game.legal(state)):
                    found[kind][state] = state, player, frozenset(solved)
    return {kind: list(listed.values()) for kind, listed in found.items()}


def solved(name: str, kind: str, config: SearchConfig) -> list[bool]:
    listed = problems(name)[kind]
    batch = ConnectFourBatch() if name == "connect four" else TicTacToeBatch()
    _, roots = searched(batch, config, [(state, player) for state, player, _ in listed], UniformEvaluator())
    return [int(edge) in right for edge, (_, _, right) in zip(roots.edges, listed, strict=True)]


ENOUGH = {("puct", "win"): 50, ("puct", "block"): 200, ("puct", "win in two"): 800}
"""Simulations."""
