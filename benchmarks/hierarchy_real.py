"""The three phases on real bars: one run from end to end, and walk-forward with three seeds, for three portfolios.

    TROUPE_DATA=... OMP_NUM_THREADS=1 python benchmarks/hierarchy_real.py            # eight and intraday, some minutes
    TROUPE_DATA=... OMP_NUM_THREADS=1 python benchmarks/hierarchy_real.py daily      # fourteen instruments

`eight` is document 002's portfolio by the day, with the Nasdaq Composite for the Nasdaq 100; `intraday` what there is
of it within the day, in bars of four hours: three pairs and gold, so two sectors. One configuration for all, written
down before the first run and not tuned. Whatever comes out is printed; each run folder holds a tear sheet.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from market_real import DAILY, FEATURES, LIMITS, file_of

from troupe.config import load
from troupe.systems.trading.config import FoldsConfig
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.hierarchy_record import write_hierarchy_evaluation
from troupe.systems.trading.hierarchy_walkforward import HierarchyWalkForward
from troupe.systems.trading.pipeline import HierarchyTrainer

EIGHT = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NASDAQ_COMPOSITE", "US30")
INTRADAY = {"EURUSD": "h4", "GBPUSD": "h1", "USDJPY": "h1", "XAUUSD": "h1"}
BARS: dict[str, dict[str, str]] = {
    "eight": dict.fromkeys(EIGHT, "d1"), "intraday": INTRADAY, "daily": dict.fromkeys(DAILY, "d1"),
}  # fmt: skip
"""Portfolio -> instrument -> bars of its file."""

SWEEP = (0.0, 1.0, 2.0)


def config(portfolio: str, data: Path, folder: Path, steps: int, days: int) -> TradingConfig:
    """`steps` are those of each specialist and of the meta-controller; together they learn for twice as many. Episodes
    of daily bars have so many `days`: the gates need ten of them from a quarter of four years."""
    files = {name: file_of(data, name, bars) for name, bars in BARS[portfolio].items()}
    within_a_day = {"resample": 4 * 3600} if portfolio == "intraday" else {}
    layers: dict[str, Any] = {
        "market": {
            "instruments": list(files), "data": {"files": files, **within_a_day}, "features": [*FEATURES, "market"],
            "rules": {**LIMITS, "episode_length": 100, "warmup_steps": 20, "max_position_size": 0.3},
        },
        "reward": {"kind": "mean_variance", "aversion": 10.0},
        "ppo": {
            "n_steps": 64, "batch_size": 1024, "n_epochs": 6, "gamma": 0.95, "learning_rate": 1e-3,
            "schedule": ["learning_rate"],
        },
        "phase1": {"total_timesteps": steps}, "phase2": {"total_timesteps": steps},
        "phase3": {"total_timesteps": 2 * steps, "learning_rate": 3e-4},
        "evaluation": {"validation": 0.25, "bars": 60 if portfolio == "intraday" else days},
        "trainer": {"n_envs": 64, "output_dir": str(folder), "logger": ["jsonl"]},
    }  # fmt: skip
    return load(TradingConfig, preset=layers).config


def whole(settings: TradingConfig, command: str) -> Path:
    """One run from end to end; its page."""
    trainer = HierarchyTrainer(settings)
    for message in trainer.data.markets["test"].messages:
        print(f"  {message}")
    return write_hierarchy_evaluation(trainer, trainer.train(), [command], cost_sweep=SWEEP)


def walked(settings: TradingConfig, folds: int, seeds: int, processes: int, command: str) -> Path:
    """Walk-forward; its page."""
    evaluation = HierarchyWalkForward(
        settings, FoldsConfig(count=folds), seeds, cost_sweep=SWEEP, processes=processes
    )  # fmt: skip
    return evaluation.write(evaluation.run(), [command])


def show(title: str, page: Path) -> None:
    """The tables in Markdown, as the lab book has them."""
    record = json.loads((page.parent / "evaluation.json").read_text())
    learned = next(each for each in record["strategies"] if each["learned"])
    size = f"{len(record['market']['instruments'])} instruments, {record['market']['bars']} bars"
    print(f"\n{title}: {size}, {record['years']:.2f} years out of sample")
    print("| phase | let through | gate | Sharpe | max drawdown | win rate | VaR compliance |")
    print("|---|---|---|---|---|---|---|")
    for row in record["phases"]:
        name, through = f"{row['phase']} {row['part']}".strip(), f"{row['promoted']} of {row['runs']}"
        cells = [f"{each['measured']} ({each['target']})" for each in row["targets"]]
        cells = [name, through, row["gate"], *cells, *["no target"] * (4 - len(cells))]
        print(f"| {' | '.join(cells)} |")
    print("\n| target | document | measured out of sample | met |")
    print("|---|---|---|---|")
    for each in record["targets"]:
        print(f"| {each['metric']} | {each['target']} | {each['measured']} | {'yes' if each['met'] else 'no'} |")
    print("\n| strategy | Sharpe (95 %) | return p. a. | max drawdown | p of an edge |")
    print("|---|---|---|---|---|")
    for each in record["strategies"]:
        metrics = each["metrics"]
        print(f"| {each['name']} | {_ratio(metrics.get('sharpe'))} | {_percent(metrics.get('annual return'))} | "
              f"{_percent(metrics.get('max drawdown'))} | {each['p']:.3f} |")  # fmt: skip
    sweep = ", ".join(f"{point['factor']:g}x {_ratio(point['sharpe'])}" for point in record["cost_sweep"])
    print(
        f"verdict: {record['verdict']['text']}; {learned['significant']} of {learned['seeds']} runs alone; smallest "
        f"detectable annual Sharpe {record['detectable']:.2f}; {record['trials']['count']} trial(s) on these bars\n"
        f"Sharpe by cost: {sweep}; break-even factor {record['break_even']}\ntear sheet: {page}"
    )


def _ratio(found: Any) -> str:
    if found is None or found["mean"] is None:
        return "-"
    interval = "" if found["low"] is None else f" [{found['low']:+.2f}, {found['high']:+.2f}]"
    return f"{found['mean']:+.2f}{interval}"


def _percent(found: Any) -> str:
    return "-" if found is None else f"{100 * found['mean']:+.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portfolio", nargs="?", choices=tuple(BARS), help="eight and intraday unless given")
    parser.add_argument("--out", type=Path, default=Path("runs/hierarchy_real"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=80_000, help="per phase of the run from end to end")
    parser.add_argument("--fold-steps", type=int, default=30_000, help="the same of each fold and seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if "TROUPE_DATA" not in os.environ:
        raise SystemExit("TROUPE_DATA does not name the folder of data sets")
    data, began = Path(os.environ["TROUPE_DATA"]), time.perf_counter()
    for name in (arguments.portfolio,) if arguments.portfolio else ("eight", "intraday"):
        command = f"python benchmarks/hierarchy_real.py {name}"
        start = time.perf_counter()
        page = whole(config(name, data, arguments.out / f"{name}_whole", arguments.steps, days=20), command)
        show(f"{name}, end to end", page)
        half = time.perf_counter()
        settings = config(name, data, arguments.out / f"{name}_folds", arguments.fold_steps, days=10)
        page = walked(settings, arguments.folds, arguments.seeds, arguments.processes, command)
        show(f"{name}, walk-forward of {arguments.folds} folds and {arguments.seeds} seeds", page)
        print(f"{half - start:.0f} s end to end, {time.perf_counter() - half:.0f} s walk-forward")
    print(f"{time.perf_counter() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
