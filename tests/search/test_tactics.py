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
from troupe.search.minimax import negamax

BOARD = TicTacToe()
CLAIRVOYANT = {
    "puct": (SearchConfig(algorithm="puct", simulations=25), 1.0),
    "puct, four leaves": (SearchConfig(algorithm="puct", simulations=50, fpu="parent", leaves=4), 1.0),
    "gumbel": (SearchConfig(simulations=200), 1.0),
    "gumbel, few simulations": (SearchConfig(simulations=16), 2.0),
}
"""Configuration, and how many times as likely as a bad move the evaluator's priors make a good one.

With uniform priors Gumbel needs more simulations: what it has not tried in an inner node it thinks as good as the mean
of what it has tried, so once the opponent's blunders were tried there first, his best reply may wait for long.
"""


@cache
def worth(state: State) -> float:
    """The exact value of tic-tac-toe to the player to move."""
    values = []
    for action in BOARD.legal(state):
        following, reward, done, _ = BOARD.step(state, action)
        values.append(reward if done else -worth(following))
    return max(values)


def chosen(name: str, states: list[State], player: int) -> list[int]:
    """What a search with exact values plays in these states, in which `player` is to move."""
    config, favour = CLAIRVOYANT[name]

    def weights(state: Any) -> list[float]:
        return [favour if action in best(plain(state)) else 1.0 for action in range(9)]

    evaluator = OracleEvaluator(lambda state: worth(plain(state)), weights)
    _, roots = searched(TicTacToeBatch(), config, [(state, player) for state in states], evaluator)
    return [int(edge) for edge in roots.edges]


def plain(row: Any) -> State:
    return int(row[0]), int(row[1])


@cache
def best(state: State) -> set[int]:
    """The actions of perfect play."""
    steps = {action: BOARD.step(state, action) for action in BOARD.legal(state)}
    values = {a: reward if done else -worth(following) for a, (following, reward, done, _) in steps.items()}
    return {action for action, value in values.items() if value == worth(state)}


@pytest.mark.parametrize("name", CLAIRVOYANT)
def test_whoever_knows_the_values_never_loses_to_random_play(name: str) -> None:
    generator, outcomes = np.random.default_rng(0), {-1.0: 0, 0.0: 0, 1.0: 0}
    for colour in (0, 1):
        games, player = [BOARD.initial()] * 500, 0
        while games:
            if player == colour:
                met = sorted(set(games))
                answers = dict(zip(met, chosen(name, met, player), strict=True))
                moves = [answers[state] for state in games]
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
@pytest.mark.parametrize("name", CLAIRVOYANT)
def test_no_line_of_play_beats_whoever_knows_the_values(name: str, colour: int) -> None:
    states, player = {BOARD.initial()}, 0
    met = 0
    while states:
        listed = sorted(states)
        if player == colour:
            pairs = list(zip(listed, chosen(name, listed, player), strict=True))
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
    game = ConnectFour() if name == "connect four" else BOARD

    def right(edge: int, state: Any, solutions: frozenset[int]) -> bool:
        return edge in solutions or (kind == "win in two" and -negamax(game, game.step(state, edge)[0], 4)[0] == 1)

    return [right(int(edge), state, solutions) for edge, (state, _, solutions) in zip(roots.edges, listed, strict=True)]


@pytest.mark.parametrize("algorithm", ["puct", "gumbel"])
@pytest.mark.parametrize("name", ["connect four", "tic-tac-toe"])
def test_whatever_can_be_forced_is_found(name: str, algorithm: Any) -> None:
    """Uniform priors, no values: a win is found with 16 simulations, the only defence with 200, a win in two moves with
    1,600, or a win in three instead."""
    for kind, simulations in (("win", 16), ("block", 200), ("win in two", 1600)):
        right = solved(name, kind, SearchConfig(algorithm=algorithm, simulations=simulations))
        assert len(right) >= 25 and all(right), f"{kind}: {len(right) - sum(right)} of {len(right)} not found"


@pytest.mark.parametrize("algorithm", ["puct", "gumbel"])
def test_fewer_simulations_do_not_suffice(algorithm: Any) -> None:
    """So the problems are problems: 8 simulations see no defence, and 50 no win in two moves, in most of them."""
    for kind, simulations in (("block", 8), ("win in two", 50)):
        right = solved("connect four", kind, SearchConfig(algorithm=algorithm, simulations=simulations))
        assert sum(right) < len(right) / 2
