from __future__ import annotations

from typing import Any

import numpy as np

from troupe.search.config import SearchConfig
from troupe.search.search import Search
from troupe.systems.selfplay.agents import AgentEvaluator, Family


class Doors:
    """One step through a door. What a door looks like depends on the house."""

    players, actions, observation_shape, encoding = 1, None, (1,), 1

    def __init__(self, house: float) -> None:
        self.house = house

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> tuple[str, ...]:
        return "left", "right"

    def step(self, state: int, action: str) -> tuple[int, float, bool, int]:
        return 1, 1.0, True, 0

    def observe(self, state: int) -> np.ndarray:
        return np.zeros(1, np.float32)

    def encode(self, state: int, action: str) -> np.ndarray:
        return np.array([self.house], np.float32)


class Watching:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def policy(self, rows: np.ndarray) -> np.ndarray:
        self.rows += rows[:, -1].tolist()
        return np.zeros((len(rows), 1))


def test_each_world_encodes_its_own_candidates() -> None:
    """Tasks of one family share an evaluator, and each of them shows its actions in its own way."""
    houses, agent = [Doors(1.0), Doors(2.0)], Watching()
    search = Search(houses[0], SearchConfig(simulations=2), slots=2, generator=np.random.default_rng(0))  # type: ignore[arg-type]
    search.world.assign(1, houses[1])  # type: ignore[attr-defined]
    search.place(np.array([0, 1]))
    wave = search.select()
    assert wave is not None
    AgentEvaluator(Family.of(houses[0]), agent, encode=houses[0].encode).evaluate(wave.positions)  # type: ignore[arg-type]
    assert agent.rows == [1.0, 1.0, 2.0, 2.0]
