"""Walk-forward tables on real bars: fourteen daily instruments, and three hourly ones.

    TROUPE_DATA=... OMP_NUM_THREADS=1 python benchmarks/market_real.py            # both, about ten CPU-minutes
    TROUPE_DATA=... OMP_NUM_THREADS=1 python benchmarks/market_real.py hourly

One configuration, written down before the first run and not tuned: PPO with the defaults below, the costs of the
table of instruments, document 002's limits. Whatever comes out is printed; each run folder holds a tear sheet.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from troupe.config import load
from troupe.systems.trading.config import WalkForwardConfig
from troupe.systems.trading.record import write_evaluation
from troupe.systems.trading.walkforward import WalkForward, WalkForwardResult

DAILY = (
    "EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "USDCAD", "USDCHF", "EURJPY", "EURGBP", "XAUUSD", "WTIUSD", "SPX500",
    "NASDAQ_COMPOSITE", "US30", "VIX",
)  # fmt: skip
HOURLY = ("GBPUSD", "USDJPY", "XAUUSD")
LIMITS = {"max_portfolio_var": 0.02, "max_correlation_exposure": 0.7, "max_sector_allocation": 0.4}
FEATURES = ["return", "momentum_5", "momentum_20", "std_20", "trend", "rsi", "drawdown_100"]


def config(name: str, data: Path, out: Path, seeds: int, steps: int) -> WalkForwardConfig:
    """The configuration of the `daily` or the `hourly` table."""
    names = DAILY if name == "daily" else HOURLY
    files = {each: file_of(data, each, "d1" if name == "daily" else "h1") for each in names}
    episode = 250 if name == "daily" else 500
    layers: dict[str, Any] = {
        "market": {
            "instruments": list(names), "data": {"files": files}, "features": FEATURES,
            "rules": {**LIMITS, "episode_length": episode, "max_position_size": 0.1 if name == "daily" else 0.3},
        },
        "reward": {"kind": "mean_variance", "aversion": 10.0},
        "ppo": {"n_steps": 64, "batch_size": 1024, "n_epochs": 6, "gamma": 0.95, "schedule": ["learning_rate"]},
        "folds": {"count": 4},
        "trainer": {
            "total_timesteps": steps, "n_envs": 128, "seeds": seeds, "default_local_dir": str(out / name),
        },
    }  # fmt: skip
    return load(WalkForwardConfig, preset=layers).config


def file_of(data: Path, name: str, bars: str) -> str:
    """The file of an instrument's bars. Raises SystemExit where there is none."""
    found = sorted((data / "markets").glob(f"{name}_{bars}*.csv.gz"))
    if not found:
        raise SystemExit(f"there is no {name}_{bars}*.csv.gz in {data / 'markets'}")
    return str(found[0])


def show(name: str, result: WalkForwardResult) -> None:
    """The table in Markdown, as the lab book has it."""
    bars, learned = result.market.bars[0], result.learned
    print(f"\n{name}: {len(bars.instruments)} instruments, {len(bars)} bars, {learned.years:.2f} years out of sample")
    for message in result.market.messages:
        print(f"  {message}")
    print("| strategy | Sharpe (95 %) | return p. a. | max drawdown | turnover p. a. | cost p. a. | p of an edge |")
    print("|---|---|---|---|---|---|---|")
    for strategy, found in result.assessments.items():
        sharpe = found.metrics.get("sharpe")
        ratio = "-" if sharpe is None else f"{sharpe.mean:+.2f} [{sharpe.low:+.2f}, {sharpe.high:+.2f}]"
        cells = [
            ratio,
            *(f"{100 * found.metrics[key].mean:+.1f} %" for key in ("annual return", "max drawdown")),
            f"{found.metrics['turnover'].mean:.1f}",
            f"{100 * found.metrics['cost'].mean:.2f} %",
            f"{found.edge.p_value:.3f}",
        ]
        print(f"| {strategy} | {' | '.join(cells)} |")
    print(
        f"verdict: {learned.verdict}; {learned.significant} of {learned.seeds} seeds alone; smallest detectable annual "
        f"Sharpe {learned.detectable:.2f}; {result.trials} trial(s) on these bars; VaR compliance "
        f"{100 * learned.metrics['var compliance'].mean:.1f} %, Kupiec p = {learned.kupiec}"
    )
    sweep = ", ".join(f"{point.factor:g}x {point.sharpe.mean:+.2f}" for point in result.costs)
    print(f"Sharpe by cost: {sweep}; break-even factor {result.break_even}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=("daily", "hourly"), help="both unless given")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200_000)
    arguments = parser.parse_args()
    if "TROUPE_DATA" not in os.environ:
        raise SystemExit("TROUPE_DATA does not name the folder of data sets")
    for name in (arguments.table,) if arguments.table else ("daily", "hourly"):
        began = time.process_time()
        settings = config(name, Path(os.environ["TROUPE_DATA"]), arguments.out, arguments.seeds, arguments.steps)
        result = WalkForward(settings).run()
        page = write_evaluation(result, [f"python benchmarks/market_real.py {name}"], simulated=False)
        show(name, result)
        print(f"{time.process_time() - began:.0f} CPU-seconds; tear sheet: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
