"""A small rotation market and a team that says something."""

from __future__ import annotations

import numpy as np
import torch

from troupe.envs.market.build import load_market
from troupe.envs.market.config import MarketConfig, MarketRules, SimulationConfig
from troupe.envs.market.core import MarketCore
from troupe.envs.market.team import Team
from troupe.models.config import TeamConfig
from troupe.models.team import TeamActorCritic


def rotation(seed: int = 0, **rules: object) -> tuple[MarketCore, tuple[str, ...], Team, TeamActorCritic]:
    """(core of one path of 400 bars, names of its columns, team, network with large heads)."""
    settings = {
        "transaction_cost": 0.001, "max_position_size": 1.0, "warmup_steps": 10, "episode_length": 300, **rules,
    }  # fmt: skip
    market = load_market(
        MarketConfig(
            features=("extra",), simulation=SimulationConfig(scenario="rotation", paths=1, bars=400, seed=seed),
            rules=MarketRules.model_validate(settings),
        )
    )  # fmt: skip
    core = market.core(market.fitted())
    team = Team.of(core, market.names)
    net = TeamActorCritic(
        TeamConfig(meta_hidden=(8,), specialist_hidden=(8,)), team.views, team.parts, seed=seed
    )  # fmt: skip
    draws = torch.Generator().manual_seed(seed)
    for agent in net.agents:
        net.module(agent).policy.linear.weight.data.normal_(generator=draws)
    return core, market.names, team, net


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)
