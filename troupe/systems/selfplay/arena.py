"""Matches: paired openings, both colours, draws counted as half."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.maths.ratings import Pairs, Score
from troupe.protocols import Game
from troupe.systems.selfplay.openings import openings, rolled
from troupe.systems.selfplay.players import Player

__all__ = ["Match", "play_match", "play_until"]

_ENDLESS = 10_000
"""Moves after which a game counts as one that never ends."""


@dataclass(frozen=True, slots=True)
class Match:
    """What the first player scored: points of each pair (two games of one opening, colours swapped), single games."""

    points: tuple[float, ...]
    score: Score

    @property
    def pairs(self) -> Pairs:
        return Pairs.of(self.points)

    def __add__(self, other: Match) -> Match:
        ours, theirs = self.score, other.score
        score = Score(ours.wins + theirs.wins, ours.draws + theirs.draws, ours.losses + theirs.losses)
        return Match(self.points + other.points, score)


def play_match(
    game: Game, ours: Player, theirs: Player, pairs: int, plies: int, generator: np.random.Generator
) -> Match:
    """`pairs` openings of `plies` random moves, each played twice with the sides swapped, all side by side.

    Deterministic players meet each opening once more for nothing, so openings are drawn until they differ, as far as
    the game has so many.
    """
    if game.players != 2:
        raise DataError(f"a match is for two players, and {type(game).__name__} has {game.players}")
    states, to_play = _different(game, pairs, plies, generator)
    starts = [(state, int(player)) for state, player in zip(states, to_play, strict=True) for _ in range(2)]
    sides = [side for _ in range(pairs) for side in (0, 1)]  # which player of the game is ours
    results = _play(game, ours, theirs, starts, sides, generator)
    outcome = [1.0 if result > 0 else 0.5 if result == 0 else 0.0 for result in results]
    points = tuple(outcome[i] + outcome[i + 1] for i in range(0, len(outcome), 2))
    return Match(points, Score(outcome.count(1.0), outcome.count(0.5), outcome.count(0.0)))


def play_until(
    match: Callable[[int, int], Match], cap: int, finished: Callable[[Match], bool], *, first: int = 20
) -> Match:
    """Adds `match(part, pairs)` until `finished` or `cap` games."""
    total: Match | None = None
    for part, pairs in enumerate(_parts(cap // 2, first)):
        found = match(part, pairs)
        total = found if total is None else total + found
        if finished(total):
            break
    assert total is not None
    return total


def _parts(pairs: int, first: int) -> Iterator[int]:
    while pairs > 0:
        part = min(pairs, first)
        yield part
        pairs -= part


def _different(game: Game, n: int, plies: int, generator: np.random.Generator) -> tuple[list[Any], list[int]]:
    key = getattr(game, "key", None) or (lambda state: state)
    found: dict[Any, tuple[Any, int]] = {}
    spare: list[tuple[Any, int]] = []
    for _ in range(20):
        states, to_play = openings(game, np.full(n, plies), generator)
        for state, player in zip(states, to_play.tolist(), strict=True):
            found.setdefault(key(state), (state, player))
            spare.append((state, player))
        if len(found) >= n:
            break
    chosen = [*found.values(), *spare][:n]
    return [state for state, _ in chosen], [player for _, player in chosen]


def _play(
    game: Game,
    ours: Player,
    theirs: Player,
    starts: Sequence[tuple[Any, int]],
    sides: Sequence[int],
    generator: np.random.Generator,
) -> list[float]:
    """Our return of each game."""
    lines = [[state, player, 0.0, False] for state, player in starts]
    for line, side in zip(lines, sides, strict=True):
        _roll(game, line, side, generator)
    for _ in range(_ENDLESS):
        live = [i for i, line in enumerate(lines) if not line[3]]
        if not live:
            return [line[2] for line in lines]
        for player, mine in ((ours, True), (theirs, False)):
            turn = [i for i in live if not lines[i][3] and (lines[i][1] == sides[i]) == mine]
            if turn:
                actions = player.choose([lines[i][0] for i in turn], [lines[i][1] for i in turn])
                for i, action in zip(turn, actions, strict=True):
                    _take(game, lines[i], action, sides[i])
                    _roll(game, lines[i], sides[i], generator)
    raise DataError(f"a game of {type(game).__name__} did not end in {_ENDLESS} moves; let `step` end it")


def _take(game: Game, line: list[Any], action: Any, side: int) -> None:
    state, mover, total, _ = line
    after, reward, done, player = game.step(state, action)
    line[:] = [after, player, total + (reward if mover == side else -reward), done]


def _roll(game: Game, line: list[Any], side: int, generator: np.random.Generator) -> None:
    state, mover, total, done = line
    after, player, over, gained = rolled(game, state, mover, done, generator)
    line[:] = [after, player, total + (gained if mover == side else -gained), over]
