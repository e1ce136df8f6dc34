"""Walk-forward evaluation of a hierarchy on one history: the three phases learn anew before every test stretch.

    evaluation = HierarchyWalkForward(config, FoldsConfig(count=4), seeds=3)
    result = evaluation.run()
    page = evaluation.write(result, ["python my_evaluation.py"])

In each fold and with each seed the phases learn on `fold.train` alone; its end, a share of evaluation.validation, is
for their gates. What these let through trades `fold.test`: nothing, where they let nothing through. Everything else is
that of `WalkForward`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from troupe.envs.market.build import Market, load_market
from troupe.envs.market.features import Normaliser
from troupe.errors import ConfigError
from troupe.systems.trading.backtest import Strategy, backtest
from troupe.systems.trading.comparison import checked_sweep
from troupe.systems.trading.config import FoldsConfig
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.drivers import Told, drivers, regimes_of
from troupe.systems.trading.folds import Fold
from troupe.systems.trading.hierarchy_config import EpisodesConfig, TradingConfig
from troupe.systems.trading.hierarchy_record import COST_SWEEP, NAME, UNTRIED, deciding, phase_rows, tried
from troupe.systems.trading.phase import Workspace, as_trading_config, gate_of
from troupe.systems.trading.pipeline import PHASES, HierarchyTrainer, Traded
from troupe.systems.trading.processes import learning_processes
from troupe.systems.trading.record import write_evaluation
from troupe.systems.trading.walkforward import Plan, Progress, Report, WalkForward, WalkForwardResult

__all__ = ["HierarchyWalkForward", "fold_data"]


class HierarchyWalkForward:
    """One evaluation in `config.trainer.output_dir`. `market` given in code takes the place of the one that the config
    describes.

    `seeds` from `config.seed` on learn in each fold, `processes` of them at the same time (one where the market is
    given in code, which no other process can read). `cost_sweep` are factors on all costs. `trials` counts everything
    ever tried on these bars; None takes trials.jsonl beside the run folder. Raises ConfigError, DataError for what
    cannot be learned, judged or traded, before anything is learned.
    """

    def __init__(
        self,
        config: TradingConfig | Mapping[str, Any] | None = None,
        folds: FoldsConfig | None = None,
        seeds: int = 3,
        *,
        cost_sweep: Sequence[float] = COST_SWEEP,
        trials: Path | None = None,
        processes: int = 1,
        market: Market | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = as_trading_config(config)
        _check(self.config, seeds, processes)
        chosen = FoldsConfig() if folds is None else folds
        self.plan = _plan(self.config, chosen, seeds, checked_sweep(cost_sweep), trials)
        self.market = load_market(self.config.market) if market is None else market
        self._phases = _Phases(self.config, self.market, processes if market is None else 1)
        self._evaluation = WalkForward(self.plan, market=self.market, progress=progress, learner=self._phases)

    @property
    def folds(self) -> tuple[Fold, ...]:
        return self._evaluation.folds

    def run(self) -> WalkForwardResult:
        """Learns what is still to be learned, trades, compares. Raises StorageError for a folder of another config,
        and what learning raises."""
        return self._evaluation.run()

    def write(self, result: WalkForwardResult, commands: Sequence[str], *, simulated: bool = False) -> Path:
        """Writes evaluation.json and the tear sheet of what `run` found; returns the path of the page. What drove the
        decisions is told of the first seed, the phases of all runs together."""
        seeds = range(self.plan.seed, self.plan.seed + self.plan.seeds)
        runs = [self._phases.results(self.plan.policy_folder(fold, seed)) for fold in self.folds for seed in seeds]
        more = {"drivers": drivers([self._told(fold) for fold in self.folds]), "phases": phase_rows(runs)}
        return write_evaluation(result, commands, simulated, more)

    def _told(self, fold: Fold) -> Told:
        """The first seed once more, under the costs as they are: a strategy remembers its last backtest alone."""
        trainer = self._phases.trainer(fold, self.plan.seed, self.plan.policy_folder(fold, self.plan.seed))
        traded = trainer.traded()
        strategy = trainer.strategy(traded)
        core = self.market.core(self._phases.normaliser(fold))
        return Told(
            strategy, backtest(core, strategy, *fold.test), regimes_of(self.market, fold.test), deciding(traded)
        )


def fold_data(market: Market, fold: Fold, config: TradingConfig) -> TradingData:
    """What the phases of one fold learn from and are judged by, within `fold.train`, and what they trade. Raises
    ConfigError where that is too short."""
    begin, end = fold.train
    rules, held = market.rules, round((end - begin) * config.evaluation.validation)
    first = end - held
    stop = first - rules.warmup_steps - 1
    needed = 2 * rules.warmup_steps + 1 + rules.episode_length
    if stop - begin < needed:
        raise ConfigError(
            f"fold {fold.number} leaves {max(0, stop - begin)} bars to learn from, and episodes of "
            f"{rules.episode_length} need {needed}; give longer bars, or write a shorter market.rules.episode_length"
        )
    return TradingData(
        {
            "train": market.between(begin, stop), "validation": market.between(begin, end),
            "test": market.between(0, fold.test[1] + 1),
        },
        {"train": 0, "validation": first - begin, "test": fold.test[0]}, config.evaluation, config.allocation_scale,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- learning


@dataclass(eq=False)
class _Phases:
    """The three phases as a `Learner`."""

    config: TradingConfig
    market: Market
    processes: int = 1
    _data: dict[Fold, TradingData] = field(default_factory=dict)

    def data(self, fold: Fold) -> TradingData:
        if fold not in self._data:
            self._data[fold] = fold_data(self.market, fold, self.config)
        return self._data[fold]

    def check(self, fold: Fold) -> None:
        """A gate that cannot open would let a whole evaluation learn for nothing."""
        data, needed = self.data(fold), gate_of(self.config).min_tasks
        rows, bars = data.episodes("validation")
        if len(rows) < needed:
            raise ConfigError(
                f"fold {fold.number}: the gates have {len(rows)} episodes of {bars} bars, and need {needed}; write a "
                "smaller evaluation.bars, or a larger evaluation.validation"
            )
        data.team(data.core("train"))

    def normaliser(self, fold: Fold) -> Normaliser:
        return self.data(fold).normaliser

    def prepare(self, wanted: Sequence[tuple[Fold, int, Path]]) -> None:
        """Several learn at the same time; they are only read afterwards. Raises TrainingError where a process dies."""
        waiting = [each for each in wanted if len(self.results(each[2])) < len(PHASES)]
        if min(self.processes, len(waiting)) < 2:
            return
        settings = self.config.model_dump(mode="json")
        with learning_processes(self.processes) as pool:
            for future in as_completed([pool.submit(_learn_alone, settings, *each) for each in waiting]):
                future.result()

    def __call__(self, fold: Fold, seed: int, folder: Path, report: Report) -> Strategy:
        trainer = self.trainer(fold, seed, folder, report)
        traded: Traded = trainer.learn()
        return trainer.strategy(traded)

    def trainer(self, fold: Fold, seed: int, folder: Path, report: Report | None = None) -> HierarchyTrainer:
        """The phases of one fold and seed."""
        trainer = self.config.trainer
        logs = None if trainer.log_dir is None else str(Path(trainer.log_dir) / folder.parent.name / folder.name)
        own = trainer.model_copy(update={"output_dir": str(folder), "log_dir": logs, "resume": "auto"})
        config = self.config.model_copy(update={"seed": seed, "trainer": own})
        data = self.data(fold)
        progress = None if report is None else _whole(config, data.team(data.core("train")).sectors, report)
        return HierarchyTrainer(config, data=data, progress=progress)

    def results(self, folder: Path) -> dict[int, dict[str, Any]]:
        """Of the phases that have ended there."""
        found = Workspace(folder, folder, self.config)
        return {number: found.read_results(number) for number in PHASES if found.results(number).exists()}


def _learn_alone(settings: Mapping[str, Any], fold: Fold, seed: int, folder: Path) -> None:
    """In a process of its own; what it learned is in the folder."""
    config = TradingConfig.model_validate(settings)
    _Phases(config, load_market(config.market)).trainer(fold, seed, folder).learn()


def _whole(config: TradingConfig, sectors: Sequence[str], report: Report) -> Progress:
    """Progress of the phases as steps of one run."""
    rollout = config.ppo.n_steps * config.trainer.n_envs
    wanted = {f"phase 1 {sector}": config.phase1 for sector in sectors}
    wanted |= {"phase 2": config.phase2, "phase 3": config.phase3}
    steps = {name: rollout * math.ceil(phase.total_timesteps / rollout) for name, phase in wanted.items()}
    names = list(steps)

    def progress(name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        before = sum(steps[other] for other in names[: names.index(name)])
        report(before + step, sum(steps.values()), metrics)

    return progress


# ---------------------------------------------------------------------------------------------- the plan


def _check(config: TradingConfig, seeds: int, processes: int) -> None:
    for name, value in (("seeds", seeds), ("processes", processes)):
        if value < 1:
            raise ConfigError(f"{name}={value} must be 1 or more")
    if config.evaluation.test != EpisodesConfig().test:
        raise ConfigError("evaluation.test is for a single run; here the folds say what is traded, so leave it out")


def _plan(config: TradingConfig, folds: FoldsConfig, seeds: int, sweep: tuple[float, ...], trials: Path | None) -> Plan:
    folder, own = Path(config.trainer.output_dir), {"folds": folds.model_dump(mode="json"), "seeds": seeds}
    stored = {**config.model_dump(mode="json"), **own, "cost_sweep": list(sweep)}
    usual = {"folds": FoldsConfig().model_dump(mode="json"), "cost_sweep": list(COST_SWEEP)}
    return Plan(
        NAME, folder, "trainer.output_dir", config.market, folds, config.seed, seeds, sweep,
        folder.parent / "trials.jsonl" if trials is None else trials, config.trainer.resume, config.trainer.threads,
        stored, {**TradingConfig().model_dump(mode="json"), **usual},
        tuple(f"trainer.{key}" for key in UNTRIED), {**tried(config), **own},
    )  # fmt: skip
