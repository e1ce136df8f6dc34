"""Walk-forward evaluation: learn on what came before, trade what follows, stitch, and compare with simple strategies.

    found = WalkForward(WalkForwardConfig(...)).run()
    print(found.learned.verdict)

Only out-of-sample bars are reported. Policies of several seeds, baselines and the sweep over costs all trade in one
engine. Killed anywhere, the same command goes on: finished policies are kept, the one under way continues exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from troupe.config import load
from troupe.envs.market.build import Market, load_market
from troupe.envs.market.core import MarketCore
from troupe.envs.market.features import Normaliser
from troupe.errors import ConfigError, StorageError
from troupe.maths.edge import FEWEST_BARS
from troupe.maths.finance import cagr, sharpe
from troupe.maths.returns import is_ruined
from troupe.maths.statistics import Interval, mean_interval
from troupe.stores.atomic import write_atomic
from troupe.stores.run_config import make_run_folder, remember_config
from troupe.systems.trading.assessment import Assessment, assess, sharpe_per_bar
from troupe.systems.trading.backtest import Strategy, Track, backtest
from troupe.systems.trading.baselines import BASELINES, RandomMatched
from troupe.systems.trading.config import WalkForwardConfig
from troupe.systems.trading.folds import Fold, walk_forward
from troupe.systems.trading.learning import PolicyStrategy, learn_to_trade
from troupe.systems.trading.trials import Trials, bars_hash, config_hash, market_setting

__all__ = ["CostPoint", "WalkForward", "WalkForwardResult"]

Progress = Callable[[str, int, int, Mapping[str, float]], None]
LEARNED = "PPO"
_MAY_CHANGE = ("trainer.default_local_dir", "trainer.save_freq", "trainer.resume", "trainer.trials")


@dataclass(frozen=True)
class CostPoint:
    """The learned policies under costs times `factor`."""

    factor: float
    sharpe: Interval  # over seeds, annual; nan where it is not defined
    annual_return: Interval


@dataclass(frozen=True, eq=False)
class WalkForwardResult:
    """Everything out of sample."""

    folder: Path
    market: Market
    folds: tuple[Fold, ...]
    tracks: Mapping[str, Track]
    assessments: Mapping[str, Assessment]  # the learned strategy first
    costs: tuple[CostPoint, ...]
    trials: int
    trials_file: Path
    first_seed: int

    @property
    def learned(self) -> Assessment:
        return self.assessments[LEARNED]

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
    """One evaluation in one folder. `market` given in code takes the place of the one that the config describes.

    Raises ConfigError, DataError for what cannot be traded, before anything is learned.
    """

    def __init__(
        self,
        config: WalkForwardConfig | Mapping[str, Any] | None = None,
        *,
        market: Market | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = _as_config(config)
        torch.set_num_threads(self.config.trainer.threads)
        self.folder = Path(self.config.trainer.default_local_dir)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.market = load_market(self.config.market) if market is None else market
        if len(self.market.bars) != 1:
            raise ConfigError(
                f"walk-forward is for one history, and the market has {len(self.market.bars)} paths; write "
                "market.simulation.paths=1"
            )
        bars, folds = self.market.bars[0], self.config.folds
        self.folds = walk_forward(
            len(bars), folds.count, first=round(len(bars) * folds.first), purge=folds.purge, embargo=folds.embargo,
            rolling=folds.rolling,
        )  # fmt: skip
        tested = self.folds[-1].test[1] - self.folds[0].test[0]
        if tested < FEWEST_BARS:
            raise ConfigError(
                f"{tested} bars out of sample are too few, a test of an edge needs {FEWEST_BARS}; lower folds.first or "
                "give longer bars"
            )
        for fold in self.folds:  # what does not fit fails here, and not after hours
            self._learning(fold)
            self._trading(fold)

    def run(self) -> WalkForwardResult:
        """Learns what is still to be learned, trades, compares. Raises StorageError for a folder of another config."""
        trainer = self.config.trainer
        begun = (self.folder / "config.json").exists()
        make_run_folder(self.folder, "trainer.default_local_dir", begun=begun, resume=trainer.resume)
        remember_config(
            self.folder, self.config.model_dump(mode="json"), WalkForwardConfig().model_dump(mode="json"), _MAY_CHANGE
        )
        self._remember_market()
        policies = {fold: self._policies(fold) for fold in self.folds}
        scale = self.market.rules.cost_scale
        sweep = {factor: self._traded(policies, cost_scale=scale * factor) for factor in trainer.cost_sweep}
        tracks = {LEARNED: sweep[1.0]} | self._baselines(float(sweep[1.0].turnover.mean()))
        trials = self._count(tracks[LEARNED])
        return WalkForwardResult(
            self.folder, self.market, self.folds, tracks, self._assessed(tracks, trials),
            tuple(_cost_point(factor, track) for factor, track in sweep.items()), len(trials),
            self._trials_file, self.config.seed,
        )  # fmt: skip

    def _remember_market(self) -> None:
        """Policies that were learned on other bars must not trade these."""
        path = self.folder / "market.json"
        market = {"bars": bars_hash(self.market.bars[0]), "setting": config_hash(market_setting(self.market))}
        try:
            known = json.loads(path.read_text()) if path.exists() else market
        except ValueError as error:
            raise StorageError(f"{path} is no market of a run ({error}); restore it or use another folder") from error
        if known != market:
            raise StorageError(
                f"{self.folder} was begun with another market (bars, costs or features); use another folder"
            )
        write_atomic(path, json.dumps(market).encode())

    # ------------------------------------------------------------------------------------------ learning

    def _policies(self, fold: Fold) -> list[Strategy]:
        config, trainer = self.config, self.config.trainer
        learning = self._learning(fold)
        found: list[Strategy] = []
        for number in range(trainer.seeds):
            seed = config.seed + number
            done = (fold.number * trainer.seeds + number, len(self.folds) * trainer.seeds)
            net = learn_to_trade(
                learning, config.reward, config.net, config.ppo, total_timesteps=trainer.total_timesteps,
                n_envs=trainer.n_envs, seed=seed, folder=self.folder / f"fold_{fold.number}" / f"seed_{seed}",
                save_freq=trainer.save_freq, progress=self._report(fold, seed, *done),
            )  # fmt: skip
            found.append(PolicyStrategy(net))
        return found

    def _report(self, fold: Fold, seed: int, done: int, total: int) -> Callable[[int, int, dict[str, float]], None]:
        def report(rollout: int, rollouts: int, metrics: dict[str, float]) -> None:
            self.progress(f"fold {fold.number} seed {seed}", done * rollouts + rollout, total * rollouts, metrics)

        return report

    def _learning(self, fold: Fold) -> MarketCore:
        """The bars that are learned from, and nothing else."""
        past = self.market.between(*fold.train)
        return past.core(past.fitted())

    def _trading(self, fold: Fold, **changes: object) -> MarketCore:
        """All bars, seen through a normaliser of those that were learned from alone."""
        return self.market.core(self.market.between(*fold.train).fitted(), **changes)

    # ------------------------------------------------------------------------------------------ trading

    def _traded(self, policies: Mapping[Fold, Sequence[Strategy]], **changes: object) -> Track:
        """The stitched test stretches of every seed."""
        parts = []
        for fold, strategies in policies.items():
            core = self._trading(fold, **changes)
            tracks = [backtest(core, strategy, *fold.test) for strategy in strategies]
            parts.append(reduce(Track.beside, tracks))
        return reduce(Track.__add__, parts)

    def _baselines(self, turnover: float) -> dict[str, Track]:
        # They look at no observation, so any normaliser will do.
        table = self.market.observations[0]
        core = self.market.core(Normaliser.fit(table))
        start, stop = self.folds[0].test[0], self.folds[-1].test[1]
        made: dict[str, Track] = {name: backtest(core, make(), start, stop) for name, make in BASELINES.items()}
        generator = np.random.default_rng(np.random.SeedSequence([self.config.seed, 71]))
        seeds = self.config.trainer.seeds
        made["random, same turnover"] = backtest(core, RandomMatched(generator, turnover), start, stop, seeds)
        return made

    @property
    def _trials_file(self) -> Path:
        return Path(self.config.trainer.trials or self.folder.parent / "trials.jsonl")

    def _count(self, track: Track) -> np.ndarray:
        """Writes this evaluation down, and returns the Sharpe ratios per bar of all that were made on these bars."""
        settings = self.config.model_dump(mode="json", exclude={"trainer": set(_UNTRIED), "market": True})
        settings["market"] = market_setting(self.market)
        data = bars_hash(self.market.bars[0])
        trials = Trials(self._trials_file)
        trials.add(data, config_hash(settings), sharpe_per_bar(track.returns.mean(0)))
        return trials.sharpes(data)

    def _assessed(self, tracks: Mapping[str, Track], trials: np.ndarray) -> dict[str, Assessment]:
        rules, found = self.market.rules, {}
        for number, (name, track) in enumerate(tracks.items()):
            generator = np.random.default_rng(np.random.SeedSequence([self.config.seed, 72, number]))
            found[name] = assess(
                name, track, generator, trials=trials if name == LEARNED else None,
                var_limit=rules.max_portfolio_var, var_confidence=rules.var_confidence,
            )  # fmt: skip
        return found


_UNTRIED = ("default_local_dir", "save_freq", "resume", "trials", "threads", "cost_sweep")
"""Keys that make no other trial."""


def _cost_point(factor: float, track: Track) -> CostPoint:
    ratios = [float(sharpe(returns, track.periods_per_year)) for returns in track.returns]
    grown = [float(cagr(returns, track.periods_per_year)) for returns in track.returns]
    return CostPoint(factor, _mean_of_defined(ratios, is_ruined(track.returns)), mean_interval(grown))


def _mean_of_defined(ratios: list[float], lost: np.ndarray) -> Interval:
    """Over the seeds that have a Sharpe ratio; not defined (nan) where none has, or where one has `lost` everything."""
    defined = [] if lost.any() else [ratio for ratio in ratios if np.isfinite(ratio)]
    return mean_interval(defined) if defined else Interval(np.nan, -np.inf, np.inf, len(ratios))


def _as_config(config: Any) -> WalkForwardConfig:
    if isinstance(config, WalkForwardConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(WalkForwardConfig, preset=config or {}).config
    raise ConfigError(f"config must be a WalkForwardConfig or a mapping, found {type(config).__name__}")
