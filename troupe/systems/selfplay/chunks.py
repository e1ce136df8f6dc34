"""A chunk: some games that one worker plays from one seed. What it gives depends on the seed and the weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.protocols import BatchGame, Evaluator, Game
from troupe.search.config import SearchConfig
from troupe.search.rule import TINY
from troupe.search.search import Roots, Search, run
from troupe.systems.selfplay.config import ActingConfig, PlayConfig
from troupe.systems.selfplay.openings import openings

__all__ = ["COLUMNS", "Chunk", "Line", "as_chunk", "play_chunk", "play_lines", "surprise_weights", "surprises"]

COLUMNS = ("observations", "legal", "policy", "value", "weight")
"""Of the replay window; one row per position that was searched. `weight` is that of its loss, 1 on average."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions in the order of games and moves, and how the games went."""

    columns: Mapping[str, np.ndarray]
    results: np.ndarray  # float64 [games]: player 0's return
    lengths: np.ndarray  # int64 [games]: moves searched
    counts: Mapping[str, float]  # simulations, network evaluations, cache hits

    @property
    def positions(self) -> int:
        return len(self.columns["value"])


@dataclass(slots=True)
class Line:
    """One game as it is played, or one attempt at a task: a row for every position that was searched."""

    number: int
    observations: list[np.ndarray] = field(default_factory=list)
    legal: list[np.ndarray] = field(default_factory=list)
    policy: list[np.ndarray] = field(default_factory=list)
    surprise: list[float] = field(default_factory=list)  # KL of the policy from the network's
    found: list[float] = field(default_factory=list)  # the search's own value
    players: list[int] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)  # what was played
    rewards: list[float] = field(default_factory=list)  # of each move, as its player sees it
    final: Any = None  # the state that it ended in


def play_chunk(
    game: Game | BatchGame,
    evaluator: Evaluator,
    search: SearchConfig,
    acting: ActingConfig,
    games: int,
    seed: tuple[int, ...],
) -> Chunk:
    """Plays `games` games against itself. Raises DataError for a game longer than `acting.max_moves`."""
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    slots = min(acting.slots, games)
    trees = Search(game, search, slots=slots, generator=generator)
    plies = generator.integers(0, acting.opening_plies + 1, games)
    lines = play_lines(trees, evaluator, *openings(game, plies, generator), acting.max_moves)
    return as_chunk(lines, search.discount, acting, trees, evaluator)


def play_lines(trees: Search, evaluator: Evaluator, states: Any, to_play: np.ndarray, longest: int) -> list[Line]:
    """Plays on from n states to the end, a line for each, in their order. A slot takes the next when its own ends.

    Raises DataError for a line longer than `longest` (`acting.max_moves`).
    """
    slots = min(trees.slots, len(to_play))
    lines: list[Line | None] = [None] * slots
    done: list[Line] = []
    waiting = iter(range(len(to_play)))
    _place(trees, np.arange(slots), lines, waiting, states, to_play)
    while any(line is not None for line in lines):
        roots = run(trees, evaluator)
        _note(trees, roots, lines)
        played = trees.play(roots.slots, roots.edges)
        for slot, edge, reward in zip(roots.slots.tolist(), roots.edges.tolist(), played.reward.tolist(), strict=True):
            line = lines[slot]
            assert line is not None
            line.edges.append(edge)
            line.rewards.append(reward)
            if len(line.rewards) > longest:
                raise DataError(
                    f"a game of {type(trees.world.game_of(slot)).__name__} is longer than acting.max_moves={longest}; "
                    "let `step` end it, or write a larger number"
                )
        over = roots.slots[played.done]
        finals = trees.states(over) if len(over) else ()
        for slot, final in zip(over.tolist(), finals, strict=True):
            line = _taken(lines, slot)
            line.final = final
            done.append(line)
        _place(trees, over, lines, waiting, states, to_play)
    return sorted(done, key=lambda line: line.number)


def _place(
    trees: Search, slots: np.ndarray, lines: list[Line | None], waiting: Any, states: Any, to_play: np.ndarray
) -> None:
    """The next games into free slots, as long as there are any."""
    pairs = list(zip(slots.tolist(), waiting, strict=False))
    for slot, number in pairs:
        lines[slot] = Line(number)
    if pairs:
        numbers = [number for _, number in pairs]
        chosen = states[numbers] if isinstance(states, np.ndarray) else [states[number] for number in numbers]
        trees.place(np.array([slot for slot, _ in pairs]), chosen, to_play[numbers])


def _taken(lines: list[Line | None], slot: int) -> Line:
    line, lines[slot] = lines[slot], None
    assert line is not None
    return line


def _note(trees: Search, roots: Roots, lines: list[Line | None]) -> None:
    positions = trees.root_positions(roots.slots)
    observations, surprise = positions.observations(), surprises(roots.policy, roots.prior)
    for i, slot in enumerate(roots.slots.tolist()):
        line = lines[slot]
        assert line is not None
        line.observations.append(observations[i])
        line.legal.append(positions.legal[i])
        line.policy.append(roots.policy[i].astype(np.float32))
        line.surprise.append(float(surprise[i]))
        line.found.append(float(roots.value[i]))
        line.players.append(int(positions.to_play[i]))


def surprises(policy: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """KL(policy || prior) of each row, `[n, A]` to `[n]`: how far the search moved the network's policy, before noise.

    A prior of exactly 0 counts as the least that a search gives a legal action."""
    ratio = np.log(np.maximum(policy, TINY)) - np.log(np.maximum(prior, TINY))
    return np.maximum((policy * ratio).sum(1), 0.0)  # rounding can leave a KL of 0 a little below


def surprise_weights(surprise: np.ndarray, share: float) -> np.ndarray:
    """Policy surprise weighting (Wu 2019, KataGo, arXiv:1902.10565, and its docs/KataGoMethods.md).

        w_i = (1 - share) + share KL_i / mean_j KL_j,    all 1 where every KL is 0

    Positions in which the search taught the network more are learned from more; the mean stays 1. KataGo writes such
    a position so many times on average; here its loss is multiplied, which has no luck in it. `[n]` to `[n]`.
    """
    mean = surprise.mean()
    return (1 - share) + share * surprise / mean if mean > 0 else np.ones(len(surprise))


def _returns(line: Line, discount: float) -> tuple[list[float], float]:
    """(the return from each move, as its player sees it; player 0's return from the first).

    The discount applies once per move: what chance decides and pays after one belongs to that move.
    """
    following, player, out = 0.0, 0, []
    for reward, mover in zip(reversed(line.rewards), reversed(line.players), strict=True):
        following = reward + discount * (following if mover == player else -following)
        player = mover
        out.append(following)
    return out[::-1], following if player == 0 else -following


def as_chunk(lines: list[Line], discount: float, acting: PlayConfig, trees: Search, evaluator: Evaluator) -> Chunk:
    """What lines teach: the value of a position is the return from it, mixed with what its search had found."""
    mix = acting.value_mix
    results: list[float] = []
    values: list[float] = []
    for line in lines:
        returns, result = _returns(line, discount)
        results.append(result)
        values.extend((1 - mix) * z + mix * q for z, q in zip(returns, line.found, strict=True))
    surprise = np.array([kl for line in lines for kl in line.surprise])
    columns = {
        "observations": np.stack([row for line in lines for row in line.observations]),
        "legal": np.stack([row for line in lines for row in line.legal]),
        "policy": np.stack([row for line in lines for row in line.policy]),
        "value": np.array(values, dtype=np.float32),
        "weight": surprise_weights(surprise, acting.surprise).astype(np.float32),
    }
    counts = {"simulations": float(trees.simulations)}
    counts |= {
        name: float(getattr(evaluator, name)) for name in ("evaluated", "cache_hits") if hasattr(evaluator, name)
    }
    return Chunk(columns, np.array(results), np.array([len(line.rewards) for line in lines]), counts)
