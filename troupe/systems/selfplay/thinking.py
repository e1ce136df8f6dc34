"""What a trained player sees in one position: its search, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.errors import ConfigError
from troupe.search.picture import TreeNode, picture_of
from troupe.search.search import Search, run
from troupe.systems.selfplay.players import SearchPlayer

__all__ = ["Thought", "think"]


@dataclass(frozen=True, slots=True)
class Thought:
    """One search. `value` is that of the player to move."""

    board: str
    action: Any
    value: float
    tree: TreeNode


def think(player: SearchPlayer, moves: Sequence[int], *, depth: int = 3, width: int = 4) -> Thought:
    """Searches the position after `moves`; where chance decides, a move is one of its outcomes, and what it decides at
    the end is rolled. Raises ConfigError for a move that cannot be made there."""
    game = player.game
    state, mover = game.initial(), 0
    chance = getattr(game, "chance", None)
    for number, move in enumerate(moves, start=1):
        pairs = () if chance is None else chance(state)
        legal = [outcome for outcome, _ in pairs] or list(game.legal(state))
        if move not in legal:
            raise ConfigError(f"move {number} is {move}, which is not legal there; legal: {legal}")
        state, _, done, mover = game.step(state, move)
        if done:
            raise ConfigError(f"the game is over after move {number}; give fewer moves")
    search = Search(game, player.config, slots=1, generator=np.random.default_rng(0), explore=False)
    search.place(np.array([0]), [state], np.array([mover], dtype=np.int8))
    roots = run(search, player.evaluator)
    render = getattr(game, "render", str)
    return Thought(
        render(state),
        search.world.action_of(0, 0, int(roots.edges[0])),
        float(roots.value[0]),
        picture_of(search, 0, depth=depth, width=width),
    )
