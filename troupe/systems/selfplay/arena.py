"""Matches: paired openings, both colours, draws counted as half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.maths.ratings import Pairs, Score
from troupe.protocols import Game
from troupe.systems.selfplay.openings import Opening, different_openings, rolled
from troupe.systems.selfplay.players import Player

__all__ = ["Match", "play_match", "play_openings", "play_until"]

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
    """Up to `pairs` different openings of `plies` random moves, each played twice with the sides swapped, all side by
    side; fewer where the game has fewer (`different_openings`). The score counts what was played."""
    return play_openings(game, ours, theirs, different_openings(game, pairs, plies, generator), generator)


def play_openings(
    game: Game, ours: Player, theirs: Player, openings: Sequence[Opening], generator: np.random.Generator
) -> Match:
    """Each opening twice, with the sides swapped, all side by side; `generator` rolls what chance decides in them."""
    if game.players != 2:
        raise DataError(f"a match is for two players, and {type(game).__name__} has {game.players}")
    starts = [opening for opening in openings for _ in range(2)]
    sides = [side for _ in openings for side in (0, 1)]  # which player of the game is ours
    results = _play(game, ours, theirs, starts, sides, generator)
    outcome = [1.0 if result > 0 else 0.5 if result == 0 else 0.0 for result in results]
    points = tuple(outcome[i] + outcome[i + 1] for i in range(0, len(outcome), 2))
    return Match(points, Score(outcome.count(1.0), outcome.count(0.5), outcome.count(0.0)))


def play_until(
    match: Callable[[int, Sequence[Opening]], Match],
    openings: Sequence[Opening],
    finished: Callable[[Match], bool],
    *,
    size: int = 20,
) -> Match:
    """Adds `match(part, the next openings)`, `size` of them at a time, until `finished` or all are played."""
    total = Match((), Score(0, 0, 0))
    for part, begin in enumerate(range(0, len(openings), size)):
        total = total + match(part, openings[begin : begin + size])
        if finished(total):
            break
    return total


def _play(
    game: Game,
    ours: Player,
    theirs: Player,
    starts: Sequence[Opening],
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
