"""Speed of the market core and of PPO on it, in environment steps per CPU-second, beside the peers, in one run.

    OMP_NUM_THREADS=1 python benchmarks/trading.py               # all of it
    OMP_NUM_THREADS=1 python benchmarks/trading.py step --accounts 64 256 1024 4096
    python benchmarks/trading.py step --device cuda              # the same core on torch tensors

One thread. `step`: raw steps of eight instruments with random actions, each limit set so that it really acts (the table
shows how often). FinRL's StockTradingEnv (eight stocks; `pip install --no-deps finrl pandas`) stands beside it; its
bookkeeping is share by share with one loop per account in Python and an observation of prices and indicators at every
step, ours computes features once for all rows, keeps fractional units, and adds risk limits that FinRL has not. So it
is no comparison of the same work; the column `observed` builds our observations, too. Spread and commission are paid
in all rows; where it says yen, USDJPY is among the eight and its profit is converted; impact and swap are in the last.
`ppo`: 256 steps, minibatches of 256, 10 epochs, 2 x 64 units, on the same market; stable-baselines3 steps the same
batched core through its own VecEnv, so that only the learners differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from troupe.envs.market.build import Market, load_market
from troupe.envs.market.config import BreakerLevel, MarketConfig, MarketRules, SimulationConfig
from troupe.envs.market.core import MarketCore
from troupe.envs.market.rewards import RewardRules
from troupe.envs.market.vector import MarketVector
from troupe.models.actor_critic import ActorCritic
from troupe.models.config import ActorCriticConfig
from troupe.training.collection import Collector
from troupe.training.config import PPOConfig
from troupe.training.ppo import ppo_learner, ppo_update

TARGET, RATIO, WIDE_RATIO = 4e6, 1.6, 3.0
COUNTED = {"max_position_size": 0.3, "warmup_steps": 100, "episode_length": 400}
DOLLARS = ("EURUSD", "GBPUSD", "AUDUSD", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30")
CASES: dict[str, dict[str, Any]] = {
    "no limits": {},
    "VaR and sectors": {"max_portfolio_var": 0.012, "max_sector_allocation": 0.5},
    "the same, yen": {"max_portfolio_var": 0.012, "max_sector_allocation": 0.5, "yen": True},
    "all limits, yen": {
        "yen": True,
        "max_portfolio_var": 0.012, "max_sector_allocation": 0.5, "max_leverage": 0.9,
        "max_correlation_exposure": 0.35, "stop_loss_pct": 0.01, "margin_call": 1.109,
        "breaker": (BreakerLevel(drawdown=0.01, bars=3),),
    },
}  # fmt: skip


def market(*, yen: bool = False, **rules: Any) -> Market:
    """A simulated crisis of document 002's eight instruments, or with AUDUSD in the place of USDJPY."""
    names = MarketConfig().instruments if yen else DOLLARS
    plain = {} if "margin_call" in rules else {"impact": 0.0, "swap_long": 0.0, "swap_short": 0.0}
    costs = {name: {"margin": 1.0, **plain} for name in names}
    return load_market(
        MarketConfig(
            instruments=names, costs=costs, features=("return", "std_20", "momentum_20", "rsi", "trend"),
            simulation=SimulationConfig(scenario="crisis", paths=8, bars=1500),
            rules=MarketRules(**{**COUNTED, **rules}),
        )
    )  # fmt: skip


def core_on(device: str, **rules: Any) -> MarketCore:
    found = market(**rules)
    core = found.core(found.fitted())
    return core if device == "numpy" else MarketCore(core.tape.to_torch(device), core.rules)


def stepper(core: MarketCore, accounts: int, observed: bool) -> tuple[Callable[[int], float], dict[str, float]]:
    """A function that takes k steps of all accounts and returns seconds per account's step, and a count of limits."""
    generator = np.random.default_rng(0)
    starts = core.starts[core.starts % 1500 < 700]
    rows = generator.choice(starts, accounts)
    size = (accounts, len(core.instruments))
    actions = [core.xp.asarray(generator.uniform(-1, 1, size), device=core.tape.close.device) for _ in range(16)]
    fired: dict[str, float] = {}

    def run(steps: int) -> float:
        clock = time.process_time if core.tape.close.device in ("cpu", torch.device("cpu")) else time.perf_counter
        state, began = core.begin(rows), clock()
        for k in range(steps):
            state, outcome = core.step(state, actions[k % 16])
            if observed:
                core.observe(state)
        if core.tape.close.device == torch.device("cuda"):
            torch.cuda.synchronize()
        took = (clock() - began) / (steps * accounts)
        for name, acted in outcome.fired.items():
            fired[name] = float(core.xp.count_nonzero(acted)) / accounts
        return took

    return run, fired


def show_steps(accounts: list[int], device: str, rounds: int) -> bool:
    good = True
    print(f"{'rules':18s} {'accounts':>8s} {'steps/CPU-s':>12s} {'observed':>12s}   limits that acted in the last step")
    for name, rules in CASES.items():
        core = core_on(device, **rules)
        for n in accounts:
            (bare, fired), (seen, _) = stepper(core, n, False), stepper(core, n, True)
            bare(20), seen(20)
            rate, watched = (1 / statistics.median(run(300) for _ in range(rounds)) for run in (bare, seen))
            shown = ", ".join(f"{limit} {100 * share:.1f} %" for limit, share in fired.items())
            print(f"{name:18s} {n:8d} {rate / 1e6:11.2f}M {watched / 1e6:11.2f}M   {shown}")
            if name == "VaR and sectors" and n == 1024 and device == "numpy":
                good &= rate >= TARGET
    idle = [limit for limit, share in _acted(core_on("numpy", **CASES["all limits, yen"])).items() if not share]
    print(f"limits that never acted in 300 steps: {', '.join(idle) or 'none'}")
    show_finrl(rounds)
    return good and not idle


def _acted(core: MarketCore) -> dict[str, int]:
    env = MarketVector(core, 256)
    generator = np.random.default_rng(1)
    env.reset(generator)
    for _ in range(300):
        _, _, terminated, truncated = env.step(generator.uniform(-1, 1, (256, 8)))
        env.reset(generator, terminated | truncated)
    return env.fired


# ------------------------------------------------------------------------------------------------ FinRL


def finrl_env() -> Any | None:
    """Its StockTradingEnv over eight stocks, from its file alone (the package imports brokers' clients)."""
    spec = importlib.util.find_spec("finrl")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "meta/env_stock_trading/env_stocktrading.py"
    loaded = importlib.util.spec_from_file_location("finrl_stock_env", path)
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    sys.modules["finrl_stock_env"] = module
    loaded.loader.exec_module(module)
    import pandas as pd

    generator, days, names = np.random.default_rng(0), 1500, [f"S{i}" for i in range(8)]
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, (days, 8)), 0))
    indicators = ["macd", "rsi_30", "cci_30", "dx_30"]
    frame = pd.DataFrame(
        [
            {"date": day, "tic": name, "close": closes[day, i], "turbulence": 0.0} | dict.fromkeys(indicators, 0.1)
            for day in range(days)
            for i, name in enumerate(names)
        ]
    )
    frame.index = frame["date"].factorize()[0]
    return module.StockTradingEnv(
        df=frame, stock_dim=8, hmax=100, initial_amount=1_000_000, num_stock_shares=[0] * 8, buy_cost_pct=[1e-3] * 8,
        sell_cost_pct=[1e-3] * 8, reward_scaling=1e-4, state_space=1 + 2 * 8 + 4 * 8, action_space=8,
        tech_indicator_list=indicators,
    )  # fmt: skip


def show_finrl(rounds: int) -> None:
    env = finrl_env()
    if env is None:
        print("FinRL StockTradingEnv: not installed (pip install --no-deps finrl pandas)")
        return
    generator, rates = np.random.default_rng(0), []
    for _ in range(rounds):
        env.reset()
        actions = generator.uniform(-1, 1, (1000, 8))
        began = time.process_time()
        for action in actions:
            env.step(action)
        rates.append(1000 / (time.process_time() - began))
    print(f"{'FinRL StockTradingEnv':18s} {1:5d} {statistics.median(rates):11.0f}    eight stocks, no risk limits")


# ------------------------------------------------------------------------------------------------ PPO


def ours(core: MarketCore, n: int) -> Callable[[], float]:
    settings = PPOConfig()
    collector = Collector(
        MarketVector(core, n, RewardRules()), n_steps=settings.n_steps, gamma=settings.gamma,
        gae_lambda=settings.gae_lambda, seed=0,
    )  # fmt: skip
    net = ActorCritic(ActorCriticConfig(), collector.observation_shape, collector.space, seed=0)
    learner, generator = ppo_learner(net, settings, lambda: 1.0), torch.Generator().manual_seed(0)

    def step() -> float:
        began = time.process_time()
        ppo_update(net, collector.collect(net), learner, settings, generator=generator)
        return (time.process_time() - began) / (n * settings.n_steps)

    return step


def theirs(core: MarketCore, n: int) -> Callable[[], float] | None:
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.vec_env import VecEnv
    except ImportError:
        return None

    class Vector(VecEnv):
        """The same batched core, as stable-baselines3 steps environments."""

        def __init__(self) -> None:
            self.market, self.generator = MarketVector(core, n, RewardRules()), np.random.default_rng(0)
            super().__init__(n, self.market.single_observation_space, self.market.single_action_space)

        def reset(self) -> Any:
            return self.market.reset(self.generator)

        def step_async(self, actions: Any) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            observations, rewards, terminated, truncated = self.market.step(self.actions)
            done, infos = terminated | truncated, [{} for _ in range(n)]
            for i in np.flatnonzero(done):
                infos[i] = {"terminal_observation": observations[i], "TimeLimit.truncated": bool(truncated[i])}
            if done.any():
                observations = self.market.reset(self.generator, done)
            return observations, rewards.astype(np.float32), done, infos

        def close(self) -> None: ...

        def get_attr(self, name: str, indices: Any = None) -> list[Any]:
            return [None] * n

        def set_attr(self, name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
            return [None] * n

        def env_is_wrapped(self, wrapper: Any, indices: Any = None) -> list[bool]:
            return [False] * n

    model = PPO("MlpPolicy", Vector(), n_steps=256, batch_size=256, n_epochs=10, device="cpu", seed=0)

    def step() -> float:
        began = time.process_time()
        model.learn(256 * n, reset_num_timesteps=False)
        return (time.process_time() - began) / (256 * n)

    return step


def show_ppo(rounds: int) -> bool:
    core = core_on("numpy", **CASES["VaR and sectors"])
    peer = theirs(core, 8)
    if peer is None:
        print("stable-baselines3: not installed")
        return True
    small, wide = ours(core, 8), ours(core, 256)
    for warm in (peer, small, wide):
        warm()
    rows = [(peer(), small(), wide()) for _ in range(rounds)]
    theirs_rate, small_rate, wide_rate = (1 / statistics.median(row[k] for row in rows) for k in range(3))
    ratios = [statistics.median(row[0] / row[k] for row in rows) for k in (1, 2)]
    print(f"PPO, stable-baselines3, 8 accounts {theirs_rate:9.0f} steps/CPU-s")
    print(f"PPO, ours, 8 accounts              {small_rate:9.0f} steps/CPU-s   {ratios[0]:.2f}x (target {RATIO})")
    print(f"PPO, ours, 256 accounts            {wide_rate:9.0f} steps/CPU-s   {ratios[1]:.2f}x (target {WIDE_RATIO})")
    return ratios[0] >= RATIO and ratios[1] >= WIDE_RATIO


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("step", "ppo"), default=None)
    parser.add_argument("--accounts", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--device", default="numpy", help="numpy, or a device of torch: cpu, cuda")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    if arguments.part != "ppo":
        good &= show_steps(arguments.accounts, arguments.device, arguments.rounds)
    if arguments.part != "step":
        good &= show_ppo(arguments.rounds)
    print("targets met" if good else "MISSED: see above")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
