from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from troupe.errors import ConfigError
from troupe.models.config import HRMConfig, TRMConfig
from troupe.models.recursive_agents import RecursiveAgent, create_hrm_agent, create_trm_agent
from troupe.search.config import SearchConfig
from troupe.search.search import Search
from troupe.systems.selfplay.agents import AgentEvaluator, Family
from troupe.systems.selfplay.documented import SelfPlayTrainer
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator

TINY = {"heads": 2, "patch": 6, "max_actions": 9}
HRM = HRMConfig.model_validate(
    {"h_dim": 16, "l_dim": 8, "num_h_layers": 1, "num_l_layers": 1, "max_outer_steps": 2, **TINY}
)
TRM = TRMConfig.model_validate(
    {"latent_dim": 16, "hidden_dim": 16, "num_recursions": 2, "layers": 1, "rounds": 1, "updates": 1, **TINY}
)


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


# --- agents of many worlds -----------------------------------------------------------------------------------------


def pair() -> tuple[RecursiveAgent, RecursiveAgent]:
    return create_hrm_agent(HRM, "cpu"), create_trm_agent(TRM, "cpu")


def test_both_agents_are_asked_in_the_documents_example() -> None:
    """hrm_agent for the policy, trm_agent for the value, and neither is passed over in silence."""
    hrm, trm = pair()
    generator = SelfPlayEpisodeGenerator(hrm, trm, {"num_simulations": 8, "c_puct": 1.25}, device="cpu")
    (task,) = GameTaskGenerator(seed=1).generate(1)
    episode = asyncio.run(generator.generate_episode(task))
    assert episode.mcts_traces
    calls = generator.forward_calls()
    assert calls["policy"] >= 8 and calls["value"] >= 8


def test_an_agent_that_is_both_is_asked_once() -> None:
    hrm, _ = pair()
    evaluator = AgentEvaluator(Family(2, (2, 3, 3), 9), hrm, hrm)
    assert evaluator.policy is evaluator.value
    rows = np.zeros((3, 2, 3, 3), np.float32)
    with torch.inference_mode():
        logits, values = evaluator._forward(rows, rows)
        expected = hrm.eval()(torch.from_numpy(rows), 9)
    assert logits is not None
    np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(values, expected[1].numpy(), atol=1e-6)


def test_an_agent_without_queries_enough_is_refused() -> None:
    with pytest.raises(ConfigError, match="write max_actions: 10"):
        AgentEvaluator(Family(2, (2, 3, 3), 10), pair()[0])


def test_a_trainer_moves_both(tmp_path: Path) -> None:
    hrm, trm = pair()
    before = [{k: v.clone() for k, v in agent.state_dict().items()} for agent in (hrm, trm)]
    config = {"games_per_iteration": 6, "batch_size": 16, "parallel_batch_size": 6, "eval_games": 10, "epochs": 1,
              "mcts": {"num_simulations": 4}, "learning_rate": 0.01}  # fmt: skip

    async def run() -> dict[str, Any]:
        made = SelfPlayTrainer(hrm, trm, config, checkpoint_dir=tmp_path)
        made.task_generators = {"mcts": GameTaskGenerator(seed=1)}
        data = made.data_extractor.extract_examples(await made.run_self_play(6))
        return await made.train(data, 0)

    metrics = asyncio.run(run())
    assert metrics["policy_loss"] > 0 and metrics["value_loss"] > 0
    for agent, old, still in ((hrm, before[0], ("worth", "halt")), (trm, before[1], ("ask", "queries"))):
        for name, tensor in agent.state_dict().items():
            fixed = name.startswith((*still, "core.begin"))
            assert torch.equal(tensor, old[name]) == fixed, name
