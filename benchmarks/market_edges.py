"""Does PPO find an edge that is there, and none where there is none?

    python benchmarks/market_edges.py                    # planted and null markets, about 20 CPU-minutes
    python benchmarks/market_edges.py --only planted --seeds 5
    python benchmarks/market_edges.py --only null --seeds 20

One configuration for all of it. Planted: 256 paths of 1,000 bars to learn from, 64 others to trade; the optimum comes
from dynamic programming under the same costs, limits and fills (`troupe.envs.market.planted`), and trades the same 64
paths. A result more than three standard errors above it would be a leak. Null: the same signals say nothing; with and
without costs, at most 1 of 20 seeds may find an edge at 1 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from troupe.envs.market.build import Market, market_of
from troupe.envs.market.config import MarketConfig, MarketRules
from troupe.envs.market.core import MarketCore, MarketState
from troupe.envs.market.features import Normaliser
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.planted import PlantedMarket, PlantedOptimum, null_market, planted_market, planted_optimum
from troupe.envs.market.rewards import RewardRules
from troupe.maths.edge import edge_test
from troupe.maths.statistics import mean_interval
from troupe.models.config import ActorCriticConfig
from troupe.systems.trading.learning import PolicyStrategy, learn_to_trade
from troupe.training.config import PPOConfig

SHARE = 0.8
"""Of the optimum's Sharpe ratio that must be reached."""
ALPHA = 0.01
REWARD = RewardRules(kind="mean_variance", aversion=40)
PPO = PPOConfig(
    n_steps=64, batch_size=1024, n_epochs=6, gamma=0.9, gae_lambda=0.9, learning_rate=1e-3, schedule=("learning_rate",)
)
WARM_UP = 20

Traded = Callable[[MarketCore, MarketState], Any]


def market(planted: PlantedMarket, paths: int, bars: int, seed: int) -> Market:
    """Paths with the planted signal, or without an edge where beta is 0."""
    rules = MarketRules(
        transaction_cost=planted.cost, max_position_size=planted.limit, warmup_steps=WARM_UP, episode_length=200
    )
    config = MarketConfig(instruments=planted.instruments, features=("extra",), rules=rules)
    make = planted_market if planted.beta else null_market
    known = [Instrument(name, "planted", "USD", name) for name in planted.instruments]
    return market_of(make(bars, paths, np.random.default_rng(seed), planted), known, config)


def learned(planted: PlantedMarket, seed: int, *, paths: int, bars: int, steps: int) -> tuple[Traded, Normaliser]:
    """A policy that has learned on paths of its own."""
    market_seen = market(planted, paths, bars, 1000 + seed)
    normaliser = market_seen.fitted()
    net = learn_to_trade(
        market_seen.core(normaliser), REWARD, ActorCriticConfig(), PPO, total_timesteps=steps, n_envs=256, seed=seed
    )
    return PolicyStrategy(net), normaliser


def optimal(planted: PlantedMarket, optimum: PlantedOptimum, normaliser: Normaliser) -> Traded:
    """The policy of the dynamic programme, on the same observations."""

    def choose(core: MarketCore, state: MarketState) -> Any:
        signals = core.tape.features[state.row] * normaliser.std + normaliser.mean
        return optimum.policy(signals, core.weights(state)) / planted.limit

    return choose


def traded(strategy: Traded, normaliser: Normaliser, planted: PlantedMarket, *, paths: int, bars: int) -> np.ndarray:
    """Returns `[P, T]` on paths that nobody has learned from, one account each."""
    core = market(planted, paths, bars, 7).core(normaliser)
    state, gains = core.begin(core.tape.first + WARM_UP), []
    for _ in range(bars - WARM_UP - 1):
        state, outcome = core.step(state, strategy(core, state))
        gains.append(outcome.gain)
    return np.stack(gains, axis=1)


def ratio(returns: np.ndarray) -> float:
    """Sharpe ratio per bar over all paths."""
    return float(returns.mean() / returns.std())


def show_planted(arguments: argparse.Namespace) -> bool:
    planted = PlantedMarket()
    optimum = planted_optimum(planted)
    print(f"optimum by dynamic programming: Sharpe {optimum.sharpe:.4f} per bar, mean {optimum.mean:.3e}")
    shares: list[float] = []
    leaks = 0
    for seed in range(arguments.seeds or 5):
        began = time.process_time()
        policy, normaliser = learned(planted, seed, paths=arguments.paths, bars=arguments.bars, steps=arguments.steps)
        took = time.process_time() - began
        size = {"paths": 64, "bars": arguments.bars}
        ours, best = (
            traded(strategy, normaliser, planted, **size)
            for strategy in (policy, optimal(planted, optimum, normaliser))
        )
        share = ratio(ours) / ratio(best)
        gaps = np.array([ratio(a[None]) - ratio(b[None]) for a, b in zip(ours, best, strict=True)])
        error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
        above = float(gaps.mean()) / error
        leaks += above > 3
        shares.append(share)
        print(
            f"seed {seed}: Sharpe {ratio(ours):.4f} per bar, optimum {ratio(best):.4f} there: {100 * share:.1f} % "
            f"({above:+.1f} standard errors from it)   {took:.0f} CPU-s"
        )
    found = mean_interval(shares)
    print(f"share of the optimum: {100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]")
    return min(shares) >= SHARE and not leaks


def show_null(arguments: argparse.Namespace, cost: float) -> bool:
    planted = replace(PlantedMarket(), beta=0.0, cost=cost)
    seeds, found = arguments.seeds or 20, []
    for seed in range(seeds):
        policy, normaliser = learned(planted, seed, paths=arguments.paths, bars=arguments.bars, steps=arguments.steps)
        returns = traded(policy, normaliser, planted, paths=16, bars=arguments.bars)
        found.append(edge_test(returns.reshape(-1), ALPHA))
        print(f"cost {cost:g} seed {seed}: mean {found[-1].mean:+.2e} per bar, p = {found[-1].p_value:.3f}")
    significant = sum(test.significant for test in found)
    print(f"null market at cost {cost:g}: {significant} of {seeds} seeds have an edge at {ALPHA:g}")
    return significant <= max(1, seeds // 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("planted", "null"), default=None)
    parser.add_argument("--seeds", type=int, default=None, help="5 for planted, 20 for null unless given")
    parser.add_argument("--paths", type=int, default=256)
    parser.add_argument("--bars", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1_000_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    if arguments.only != "null":
        good &= show_planted(arguments)
    if arguments.only != "planted":
        good &= show_null(arguments, 0.0)
        good &= show_null(arguments, PlantedMarket().cost)
    print("as it should be" if good else "MISSED: see above")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
