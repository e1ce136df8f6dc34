"""What a run of the three phases found, as evaluation.json and a tear sheet: the same page as any other evaluation's.

    trainer = HierarchyTrainer(config)
    page = write_hierarchy_evaluation(trainer, trainer.train(), ["troupe train trading"])

What the gates let through trades the whole test stretch without a break: of a history one account from its first bar to
the last, of simulated markets one account in each path. Equal allocation of the same specialists and simple strategies
trade the same bars under the same costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from troupe.envs.market.build import Market
from troupe.envs.market.core import MarketCore
from troupe.envs.market.team import META
from troupe.errors import ConfigError
from troupe.maths.edge import FEWEST_BARS
from troupe.systems.trading.backtest import Strategy, Track, episodes
from troupe.systems.trading.comparison import assessed, checked_sweep, cost_point, counted, rivals
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.drivers import Told, drivers, regimes_of
from troupe.systems.trading.folds import Fold
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.judging import strategy_of
from troupe.systems.trading.phase_metrics import PHASE_TARGETS
from troupe.systems.trading.pipeline import HierarchyTrainer, Traded, TradingResult
from troupe.systems.trading.record import against, write_evaluation
from troupe.systems.trading.trials import bars_hash, config_hash
from troupe.systems.trading.walkforward import WalkForwardResult

__all__ = ["COST_SWEEP", "NAME", "UNTRIED", "Evaluation", "deciding", "evaluate_hierarchy", "phase_rows", "tried",
           "write_hierarchy_evaluation"]  # fmt: skip

NAME = "hierarchy"
"""Of what is traded, among the strategies of a record."""

COST_SWEEP = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Factors on all costs."""

_RANDOM = 5
"""Random accounts on a single history."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """On the test stretch."""

    result: WalkForwardResult
    told: Told  # under the costs as they are


def write_hierarchy_evaluation(
    trainer: HierarchyTrainer,
    result: TradingResult,
    commands: Sequence[str],
    *,
    trials: Path | None = None,
    cost_sweep: Sequence[float] = COST_SWEEP,
    simulated: bool | None = None,
) -> Path:
    """Writes evaluation.json and the tear sheet into the run folder; returns the path of the page.

    `trials` counts everything ever tried on these bars; None takes trials.jsonl beside the run folder. `simulated` None
    takes markets that were drawn for simulated ones and a history for a real one. Raises ConfigError where the test
    stretch is too short for a test of an edge, StorageError.
    """
    found = evaluate_hierarchy(trainer, trials=trials, cost_sweep=cost_sweep)
    more = {"drivers": drivers([found.told]), "phases": phase_rows([result.phases])}
    drawn = not trainer.data.is_history if simulated is None else simulated
    return write_evaluation(found.result, commands, drawn, more)


def evaluate_hierarchy(
    trainer: HierarchyTrainer, *, trials: Path | None = None, cost_sweep: Sequence[float] = COST_SWEEP
) -> Evaluation:
    """What the gates let through, and everybody it is compared with, on the test stretch. Raises as
    `write_hierarchy_evaluation`."""
    data, config, traded = trainer.data, trainer.config, trainer.traded()
    market, rows = data.markets["test"], _rows(data)
    folder, scale = Path(config.trainer.output_dir), market.rules.cost_scale
    told = {
        factor: _told(data, traded, data.core("test", cost_scale=scale * factor), rows)
        for factor in checked_sweep(cost_sweep)
    }  # fmt: skip
    core, learned = data.core("test"), told[1.0].track
    tracks = {NAME: learned} | _equal(data, traded, core, rows)
    random = _RANDOM if len(market.bars) == 1 else 1
    tracks |= rivals(lambda strategy, count: _trade(core, strategy, rows, count), learned, random, config.seed)
    file = folder.parent / "trials.jsonl" if trials is None else trials
    sharpes = counted(file, _hash(market), tried(config), market, learned)
    result = WalkForwardResult(
        folder, market, market.between(0, rows[0] + 1) if data.is_history else data.markets["train"], rows,
        _folds(data, rows), tracks, assessed(tracks, NAME, sharpes, market, config.seed),
        tuple(cost_point(factor, each.track) for factor, each in told.items()), len(sharpes), file,
        "the hierarchy" if len(market.bars) == 1 else "the account of the first history", NAME,
    )  # fmt: skip
    return Evaluation(result, told[1.0])


def deciding(traded: Traded) -> tuple[str, ...]:
    """Agents whose word counts."""
    return (*((META,) if traded.mode == "team" else ()), *traded.active)


def tried(config: TradingConfig) -> dict[str, Any]:
    """What of a configuration makes another trial, besides the market."""
    return config.model_dump(mode="json", exclude={"trainer": set(UNTRIED), "communication": True, "market": True})


UNTRIED = (
    "processes", "save_freq", "keep_last", "logger", "project_name", "experiment_name", "output_dir", "log_dir",
    "resume", "threads",
)  # fmt: skip
"""Keys of the run that change no result."""


def _hash(market: Market) -> str:
    """Of the bars of all paths."""
    hashes = [bars_hash(bars) for bars in market.bars]
    return hashes[0] if len(hashes) == 1 else config_hash({"paths": hashes})


# ---------------------------------------------------------------------------------------------- trading


def _rows(data: TradingData) -> tuple[int, int]:
    """(first, stop) of the decisions of the test, in each path. Raises ConfigError for too few."""
    market = data.markets["test"]
    start = max(data.first["test"], market.rules.warmup_steps)
    stop = min(len(bars) for bars in market.bars) - 1
    if stop - start < FEWEST_BARS:
        wanted = "evaluation.test or longer bars" if data.is_history else "market.simulation.bars"
        raise ConfigError(
            f"the test has {max(0, stop - start)} bars, and a test of an edge needs {FEWEST_BARS}; write more {wanted}"
        )
    return start, stop


def _trade(core: MarketCore, strategy: Strategy, rows: tuple[int, int], count: int = 1) -> Track:
    """`count` accounts in each path, over the same bars of the clock."""
    starts = np.repeat(np.asarray(core.tape.first) + rows[0], count)
    track = episodes(core, strategy, starts, rows[1] - rows[0])
    return replace(track, times=track.times[0])


def _told(data: TradingData, traded: Traded, core: MarketCore, rows: tuple[int, int]) -> Told:
    strategy = strategy_of(data, traded.net, traded.mode, traded.active)
    track = _trade(core, strategy, rows)
    return Told(strategy, track, regimes_of(data.markets["test"], rows), deciding(traded))


def _equal(data: TradingData, traded: Traded, core: MarketCore, rows: tuple[int, int]) -> dict[str, Track]:
    """Equal allocation of the same specialists. Where that is what is traded, of all of them, those without an edge of
    their own included; nothing where these are the same."""
    everybody: HierarchyStrategy = strategy_of(data, traded.net, "equal", None)
    if traded.mode == "team":
        return {"equal allocation": _trade(core, everybody, rows)}
    if set(traded.active) == set(traded.net.names):
        return {}
    return {"equal allocation of all specialists": _trade(core, everybody, rows)}


def _folds(data: TradingData, rows: tuple[int, int]) -> tuple[Fold, ...]:
    """Of a history the one fold: what was learned from and judged by, and the test."""
    if not data.is_history:
        return ()
    return (Fold(0, (0, len(data.markets["validation"].bars[0])), rows),)


# ---------------------------------------------------------------------------------------------- phases


def phase_rows(runs: Sequence[Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each specialist of phase 1 and for each later phase: what its gate said, how many of the runs it let
    through, and document 002's targets of the phase beside what was measured on validation episodes, in the mean over
    the runs."""
    gathered: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for phases in runs:
        for number, found in sorted(phases.items()):
            for part, each in found["specialists"].items() if number == 1 else (("", found),):
                gathered.setdefault((number, part), []).append(each)
    return [_phase_row(*key, each) for key, each in sorted(gathered.items(), key=lambda pair: pair[0][0])]


def _phase_row(number: int, part: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    promoted = sum(bool(run["gate"]["promote"]) for run in runs)
    said = "; ".join(runs[0]["gate"]["reasons"]) if len(runs) == 1 else _together([run["gate"] for run in runs])
    measured = {name: _mean([_measured(run["metrics"], name) for run in runs]) for name in PHASE_TARGETS[number]}
    return {
        "phase": number, "part": part, "against": runs[0].get("against", "holding nothing"), "gate": said,
        "promoted": promoted, "runs": len(runs), "targets": against(PHASE_TARGETS[number], measured),
    }  # fmt: skip


def _together(gates: Sequence[Mapping[str, Any]]) -> str:
    gaps = [gate["difference"]["mean"] for gate in gates if gate["difference"] is not None]
    return f"difference {np.mean(gaps):+.3f} in the mean over {len(gaps)} runs" if gaps else "nothing was compared"


def _measured(metrics: Mapping[str, Any], name: str) -> float | None:
    if name == "var_compliance":
        found = metrics["risk_compliance"][name]
        return None if found is None else float(found)
    return None if metrics[name] is None else float(metrics[name]["mean"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
