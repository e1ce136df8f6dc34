"""Pig, the game of one die: the smallest game whose search has to think about chance.

On a turn a player rolls as often as he likes and adds up what he rolls. A 1 ends the turn and wipes out its total;
holding banks it. Who first banks `target` points wins (Neller and Presser 2004, The UMAP Journal 25(1), solve it). The
first roll of a turn is not optional: players who hold with nothing would pass the die to and fro for ever.
"""

from __future__ import annotations

import numpy as np

from troupe.errors import ConfigError

__all__ = ["HOLD", "ROLL", "Pig", "State"]

ROLL, HOLD = 0, 1

State = tuple[int, int, int, bool, int]
"""(points of the player to move, the other's, the turn's total, is the die in the air, player to move)"""


class Pig:
    """A `Game` with chance: `roll` leads to a state in which nobody decides, whose outcomes are the die's faces."""

    players = 2
    actions = 2
    observation_shape = (3,)

    def __init__(self, target: int = 20, sides: int = 6) -> None:
        """Raises ConfigError for a target below 1 or a die of fewer than 2 sides."""
        if target < 1 or sides < 2:
            raise ConfigError(f"pig: target must be 1 or more and sides 2 or more, found {target} and {sides}")
        self.target, self.sides = target, sides
        self._outcomes = tuple((face, 1 / sides) for face in range(1, sides + 1))

    def initial(self) -> State:
        return 0, 0, 0, False, 0

    def to_play(self, state: State) -> int:
        return state[4]

    def legal(self, state: State) -> tuple[int, ...]:
        """Empty while the die is in the air."""
        if state[3]:
            return ()
        return (ROLL, HOLD) if state[2] else (ROLL,)

    def chance(self, state: State) -> tuple[tuple[int, float], ...]:
        return self._outcomes if state[3] else ()

    def step(self, state: State, action: int) -> tuple[State, float, bool, int]:
        """`action` is ROLL or HOLD, or the face that shows while the die is in the air."""
        own, other, turn, rolling, player = state
        if rolling:
            if action == 1:
                return (other, own, 0, False, 1 - player), 0.0, False, 1 - player
            # More than wins is no better than what wins: capped, the states are few.
            return (own, other, min(turn + int(action), self.target - own), False, player), 0.0, False, player
        if action == ROLL:
            return (own, other, turn, True, player), 0.0, False, player
        won = own + turn >= self.target
        return (other, own + turn, 0, False, 1 - player), float(won), won, 1 - player

    def observe(self, state: State) -> np.ndarray:
        """float32 `[3]`: own points, the other's and the turn's total, as shares of the target."""
        return np.array(state[:3], np.float32) / np.float32(self.target)

    def key(self, state: State) -> tuple[int, int, int, bool]:
        return state[:4]

    def render(self, state: State) -> str:
        own, other, turn, rolling, player = state
        points = (own, other) if player == 0 else (other, own)
        return f"{points[0]} : {points[1]}, player {player} has {turn} in hand{', the die is rolling' * rolling}"
