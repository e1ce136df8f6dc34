"""Walk-forward evaluation: learn on what came before, trade what follows, stitch, and compare with simple strategies.

    found = WalkForward(WalkForwardConfig(...)).run()
    print(found.learned.verdict)

Only out-of-sample bars are reported. Policies of several seeds, baselines and the sweep over costs all trade in one
engine. Killed anywhere, the same command goes on: finished policies are kept, the one under way continues exactly.
Who learns is an argument (`Plan` and `Learner`); unless said otherwise it is PPO.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from troupe.config import load
from troupe.envs.market.build import Market, load_market
from troupe.envs.market.config import MarketConfig
from troupe.envs.market.core import MarketCore
from troupe.envs.market.features import Normaliser
from troupe.errors import ConfigError, StorageError
from troupe.maths.edge import FEWEST_BARS
from troupe.stores.atomic import write_atomic
from troupe.stores.run_config import make_run_folder, remember_config
from troupe.systems.trading.assessment import Assessment
from troupe.systems.trading.backtest import Strategy, Track, backtest
from troupe.systems.trading.comparison import CostPoint, assessed, cost_point, counted, rivals
from troupe.systems.trading.config import FoldsConfig, WalkForwardConfig
from troupe.systems.trading.folds import Fold, walk_forward
from troupe.systems.trading.learning import PolicyStrategy, learn_to_trade
from troupe.systems.trading.trials import bars_hash, config_hash, market_setting

__all__ = ["Learner", "Plan", "WalkForward", "WalkForwardResult"]

Progress = Callable[[str, int, int, Mapping[str, float]], None]
Report = Callable[[int, int, Mapping[str, float]], None]
"""(done, of how many, metrics)."""


class Learner(Protocol):
    """Who learns, on `fold.train` alone."""

    def check(self, fold: Fold) -> None:
        """Raises ConfigError, DataError for what cannot be learned."""

    def normaliser(self, fold: Fold) -> Normaliser:
        """The scale on which its strategies see every bar."""

    def prepare(self, wanted: Sequence[tuple[Fold, int, Path]]) -> None:
        """Told beforehand of every (fold, seed, folder) that it will be called with."""

    def __call__(self, fold: Fold, seed: int, folder: Path, report: Report) -> Strategy:
        """Learns from wherever the folder stands."""


@dataclass(frozen=True)
class Plan:
    """What an evaluation needs to know, whoever learns."""

    name: str  # of the learned strategy
    folder: Path
    key: str  # of the configuration, that names the folder
    market: MarketConfig
    folds: FoldsConfig
    seed: int  # the first
    seeds: int
    cost_sweep: tuple[float, ...]
    trials: Path
    resume: Literal["auto", "never"]
    threads: int
    config: Mapping[str, Any]  # what config.json says
    defaults: Mapping[str, Any]  # of its keys
    may_change: tuple[str, ...]  # dotted keys that a continued run may set anew
    tried: Mapping[str, Any]  # what of the config makes another trial, besides the market

    def policy_folder(self, fold: Fold, seed: int) -> Path:
        """Where one policy learns."""
        return self.folder / f"fold_{fold.number}" / f"seed_{seed}"


@dataclass(frozen=True, eq=False)
class WalkForwardResult:
    """Everything out of sample."""

    folder: Path
    market: Market  # that was traded
    before: Market  # bars that were known before; of histories that are drawn anew, those that were learned from
    rows: tuple[int, int]  # (first, stop) of the decisions, in each path
    folds: tuple[Fold, ...]  # none where the market was drawn anew
    tracks: Mapping[str, Track]
    assessments: Mapping[str, Assessment]  # the learned strategy first
    costs: tuple[CostPoint, ...]
    trials: int
    trials_file: Path
    first: str  # who the learned strategy's first account is
    name: str = "PPO"  # of the learned strategy

    @property
    def learned(self) -> Assessment:
        return self.assessments[self.name]

    @property
    def track(self) -> Track:
        """The learned strategy's."""
        return self.tracks[self.name]

    @property
    def break_even(self) -> float | None:
        """Factor on the costs at which the learned policies' mean return crosses 0, between the points of the sweep;
        None where it does not."""
        points = sorted(self.costs, key=lambda point: point.factor)
        for one, two in pairwise(points):
            a, b = one.annual_return.mean, two.annual_return.mean
            if a > 0 >= b:
                return one.factor + (two.factor - one.factor) * a / (a - b)
        return None


class WalkForward:
    """One evaluation in one folder. `market` given in code takes the place of the one that the config describes. A
    `Plan` comes with its `learner`; with a configuration PPO learns.

    Raises ConfigError, DataError for what cannot be traded, before anything is learned.
    """

    def __init__(
        self,
        config: WalkForwardConfig | Mapping[str, Any] | Plan | None = None,
        *,
        market: Market | None = None,
        progress: Progress | None = None,
        learner: Learner | None = None,
    ) -> None:
        if isinstance(config, Plan) != (learner is not None):
            raise ConfigError("a Plan needs a learner, and a WalkForwardConfig has its own: PPO")
        settings = config if isinstance(config, Plan) else _as_config(config)
        self.plan = settings if isinstance(settings, Plan) else _plan(settings)
        torch.set_num_threads(self.plan.threads)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.market = load_market(self.plan.market) if market is None else market
        if len(self.market.bars) != 1:
            raise ConfigError(
                f"walk-forward is for one history, and the market has {len(self.market.bars)} paths; write "
                "market.simulation.paths=1"
            )
        if learner is None:
            assert isinstance(settings, WalkForwardConfig)
            learner = _PPO(settings, self.market)
        self.learner = learner
        bars, folds = self.market.bars[0], self.plan.folds
        self.folds = walk_forward(
            len(bars), folds.count, first=round(len(bars) * folds.first), purge=folds.purge, embargo=folds.embargo,
            rolling=folds.rolling,
        )  # fmt: skip
        start, stop = self.rows
        if stop - start < FEWEST_BARS:
            raise ConfigError(
                f"{stop - start} bars out of sample are too few, a test of an edge needs {FEWEST_BARS}; lower "
                "folds.first or give longer bars"
            )
        for fold in self.folds:  # what does not fit fails here, and not after hours
            self.learner.check(fold)
            self._trading(fold)

    @property
    def rows(self) -> tuple[int, int]:
        """(first, stop) of the decisions out of sample."""
        return self.folds[0].test[0], self.folds[-1].test[1]

    def run(self) -> WalkForwardResult:
        """Learns what is still to be learned, trades, compares. Raises StorageError for a folder of another config."""
        plan, market = self.plan, self.market
        begun = (plan.folder / "config.json").exists()
        make_run_folder(plan.folder, plan.key, begun=begun, resume=plan.resume)
        remember_config(plan.folder, plan.config, plan.defaults, plan.may_change)
        self._remember_market()
        seeds = range(plan.seed, plan.seed + plan.seeds)
        self.learner.prepare([(fold, seed, plan.policy_folder(fold, seed)) for fold in self.folds for seed in seeds])
        policies = {fold: self._policies(fold) for fold in self.folds}
        scale = market.rules.cost_scale
        sweep = {factor: self._traded(policies, cost_scale=scale * factor) for factor in plan.cost_sweep}
        learned, (start, stop) = sweep[1.0], self.rows
        core = market.core(market.fitted())  # baselines look at no observation, so any normaliser will do
        tracks = {plan.name: learned} | rivals(
            lambda strategy, accounts: backtest(core, strategy, start, stop, accounts), learned, plan.seeds, plan.seed
        )
        trials = counted(plan.trials, bars_hash(market.bars[0]), plan.tried, market, learned)
        return WalkForwardResult(
            plan.folder, market, market.between(0, start + 1), self.rows, self.folds, tracks,
            assessed(tracks, plan.name, trials, market, plan.seed),
            tuple(cost_point(factor, track) for factor, track in sweep.items()), len(trials), plan.trials,
            f"the policies of seed {plan.seed}", plan.name,
        )  # fmt: skip

    def _remember_market(self) -> None:
        """Policies that were learned on other bars must not trade these."""
        path = self.plan.folder / "market.json"
        market = {"bars": bars_hash(self.market.bars[0]), "setting": config_hash(market_setting(self.market))}
        try:
            known = json.loads(path.read_text()) if path.exists() else market
        except ValueError as error:
            raise StorageError(f"{path} is no market of a run ({error}); restore it or use another folder") from error
        if known != market:
            raise StorageError(
                f"{self.plan.folder} was begun with another market (bars, costs or features); use another folder"
            )
        write_atomic(path, json.dumps(market).encode())

    def _policies(self, fold: Fold) -> list[Strategy]:
        plan, found = self.plan, []
        for number in range(plan.seeds):
            seed = plan.seed + number
            done = (fold.number * plan.seeds + number, len(self.folds) * plan.seeds)
            found.append(self.learner(fold, seed, plan.policy_folder(fold, seed), self._report(fold, seed, *done)))
        return found

    def _report(self, fold: Fold, seed: int, done: int, total: int) -> Report:
        def report(step: int, steps: int, metrics: Mapping[str, float]) -> None:
            self.progress(f"fold {fold.number} seed {seed}", done * steps + step, total * steps, metrics)

        return report

    def _trading(self, fold: Fold, **changes: object) -> MarketCore:
        """All bars, on the scale of those that were learned from alone."""
        return self.market.core(self.learner.normaliser(fold), **changes)

    def _traded(self, policies: Mapping[Fold, Sequence[Strategy]], **changes: object) -> Track:
        """The stitched test stretches of every seed."""
        parts = []
        for fold, strategies in policies.items():
            core = self._trading(fold, **changes)
            tracks = [backtest(core, strategy, *fold.test) for strategy in strategies]
            parts.append(reduce(Track.beside, tracks))
        return reduce(Track.__add__, parts)


# ---------------------------------------------------------------------------------------------- PPO


@dataclass(frozen=True, eq=False)
class _PPO:
    """One policy over all instruments."""

    config: WalkForwardConfig
    market: Market

    def check(self, fold: Fold) -> None:
        self._core(fold)

    def normaliser(self, fold: Fold) -> Normaliser:
        return self.market.between(*fold.train).fitted()

    def prepare(self, wanted: Sequence[tuple[Fold, int, Path]]) -> None:
        """They learn one after the other."""

    def __call__(self, fold: Fold, seed: int, folder: Path, report: Report) -> Strategy:
        config, trainer = self.config, self.config.trainer
        net = learn_to_trade(
            self._core(fold), config.reward, config.net, config.ppo, total_timesteps=trainer.total_timesteps,
            n_envs=trainer.n_envs, seed=seed, folder=folder, save_freq=trainer.save_freq, progress=report,
        )  # fmt: skip
        return PolicyStrategy(net)

    def _core(self, fold: Fold) -> MarketCore:
        """The bars that are learned from, and nothing else."""
        return self.market.between(*fold.train).core(self.normaliser(fold))


def _plan(config: WalkForwardConfig) -> Plan:
    trainer, folder = config.trainer, Path(config.trainer.default_local_dir)
    return Plan(
        "PPO", folder, "trainer.default_local_dir", config.market, config.folds, config.seed, trainer.seeds,
        trainer.cost_sweep, Path(trainer.trials or folder.parent / "trials.jsonl"), trainer.resume, trainer.threads,
        config.model_dump(mode="json"), WalkForwardConfig().model_dump(mode="json"),
        ("trainer.default_local_dir", "trainer.save_freq", "trainer.resume", "trainer.trials"),
        config.model_dump(mode="json", exclude={"trainer": set(_UNTRIED), "market": True}),
    )  # fmt: skip


_UNTRIED = ("default_local_dir", "save_freq", "resume", "trials", "threads", "cost_sweep")
"""Keys that make no other trial."""


def _as_config(config: Any) -> WalkForwardConfig:
    if isinstance(config, WalkForwardConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(WalkForwardConfig, preset=config or {}).config
    raise ConfigError(f"config must be a WalkForwardConfig or a mapping, found {type(config).__name__}")
