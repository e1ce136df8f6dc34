"""What a walk-forward evaluation found, as JSON: the file that the tear sheet and everybody else reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from troupe.envs.market.features import rolling_volatility, simple_returns
from troupe.maths.finance import sharpe
from troupe.maths.returns import drawdown_curve
from troupe.maths.statistics import Interval
from troupe.monitoring.tear_sheet import write_tear_sheet
from troupe.stores.atomic import write_atomic
from troupe.systems.trading.assessment import Assessment
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.trips import Trip, round_trips
from troupe.systems.trading.walkforward import LEARNED, WalkForwardResult

__all__ = ["TARGETS", "evaluation_record", "write_evaluation"]

TARGETS: Mapping[str, tuple[str, float]] = {
    "sharpe": ("> 2.0", 2.0),
    "max drawdown": ("< 15 %", 0.15),
    "win rate": ("> 60 %", 0.60),
    "var compliance": ("100 %", 1.0),
}
"""Document 002's targets: metric -> (as written, number). They are reported, never tuned to."""

_POINTS = 1000
_SHOWN = 200


def write_evaluation(result: WalkForwardResult, commands: Sequence[str], simulated: bool) -> Path:
    """Writes evaluation.json and the tear sheet into the run folder; returns the path of the page."""
    record = evaluation_record(result, commands, simulated)
    write_atomic(result.folder / "evaluation.json", json.dumps(record, allow_nan=False).encode())
    return write_tear_sheet(result.folder)


def evaluation_record(result: WalkForwardResult, commands: Sequence[str], simulated: bool) -> dict[str, Any]:
    """Everything a reader needs, in plain numbers; what is not defined is null."""
    market, learned, track = result.market, result.learned, result.tracks[LEARNED]
    bars, trips = market.bars[0], round_trips(track, 0)
    record = {
        "version": 1,
        "title": f"{', '.join(bars.instruments)}: out of sample",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": {
            "text": learned.verdict, "edge": learned.edge.significant, "p": learned.edge.p_value,
            "alpha": learned.edge.alpha,
        },
        "market": {
            "instruments": list(bars.instruments), "bars": len(bars), "first": _day(bars.times[0]),
            "last": _day(bars.times[-1]), "periods_per_year": bars.periods_per_year, "simulated": simulated,
            "messages": list(market.messages), "account": market.account, "capital": market.rules.initial_capital,
        },
        "years": learned.years,
        "detectable": learned.detectable,
        "trials": {"count": result.trials, "file": str(result.trials_file)},
        "folds": [
            {"number": fold.number, "train": _span(bars.times, fold.train), "test": _span(bars.times, fold.test)}
            for fold in result.folds
        ],
        "strategies": [_strategy(name, found) for name, found in result.assessments.items()],
        "series": _series(result.tracks),
        "trades": {
            "count": len(trips), "of": f"the policies of seed {result.first_seed}",
            "shown": [_trip(trip, track) for trip in trips[-_SHOWN:]],
            "histogram": [100 * trip.profit / track.capital for trip in trips],
        },
        "attribution": [
            {
                "instrument": name, "profit": float(track.profit[:, :, i].sum(1).mean()),
                "trades": sum(trip.instrument == name for trip in trips),
                "cost": float(track.charges[:, :, i].sum(1).mean()),
            }
            for i, name in enumerate(track.instruments)
        ],
        "regimes": _regimes(result),
        "limits": _limits(result),
        "cost_sweep": [
            {"factor": point.factor, "sharpe": asdict(point.sharpe), "annual": asdict(point.annual_return)}
            for point in result.costs
        ],
        "break_even": result.break_even,
        "monthly": _monthly(track),
        "drawdowns": _drawdowns(track),
        "targets": _targets(learned.metrics),
        "caveats": _caveats(result, simulated),
        "commands": list(commands),
    }  # fmt: skip
    plain: dict[str, Any] = _plain(record)
    return plain


def _strategy(name: str, found: Assessment) -> dict[str, Any]:
    return {
        "name": name, "learned": name == LEARNED, "seeds": found.seeds,
        "metrics": {key: asdict(value) for key, value in found.metrics.items()}, "p": found.edge.p_value,
        "edge": found.edge.significant, "significant": found.significant,
        "probabilistic": found.probabilistic, "deflated": found.deflated, "kupiec": found.kupiec,
        "ruined": found.ruined,
    }  # fmt: skip


def _series(tracks: Mapping[str, Track]) -> dict[str, Any]:
    times = tracks[LEARNED].times
    kept = np.unique(np.linspace(0, len(times) - 1, min(_POINTS, len(times))).round().astype(int))
    curves = {}
    for name, track in tracks.items():
        equity, mean = track.equity[:, 1:], track.returns.mean(0)
        held = track.weights.mean(0)
        curves[name] = {
            "equity": (track.capital * np.cumprod(1 + mean))[kept].tolist(),
            "drawdown": (-drawdown_curve(mean)[1:])[kept].tolist(),
            "gross": np.abs(track.weights).sum(2).mean(0)[kept].tolist(),
            "net": held.sum(1)[kept].tolist(),
        }
        if len(equity) > 1:
            curves[name] |= {"low": equity.min(0)[kept].tolist(), "high": equity.max(0)[kept].tolist()}
    return {"times": times[kept].tolist(), "curves": curves}


def _trip(trip: Trip, track: Track) -> dict[str, Any]:
    return {
        "instrument": trip.instrument, "side": trip.side, "opened": _day(track.times[trip.opened]),
        "closed": _day(track.times[trip.closed]), "bars": trip.closed - trip.opened, "profit": trip.profit,
    }  # fmt: skip


def _regimes(result: WalkForwardResult) -> list[dict[str, Any]]:
    """Calm, usual and wild by volatility over the window against its thirds up to the first test bar, rising or falling
    by the market's move over the window: both known at the decision."""
    market, bars = result.market, result.market.bars[0]
    window = market.rules.correlation_window
    equal = simple_returns(bars.close).mean(1)
    volatility = rolling_volatility(equal[:, None], window)[:, 0]
    wealth = np.cumprod(1 + equal)
    moved = wealth / np.concatenate([np.full(min(window, len(wealth)), wealth[0]), wealth[:-window]]) - 1
    start, stop = result.folds[0].test[0], result.folds[-1].test[1]
    low, high = np.quantile(volatility[: start + 1], [1 / 3, 2 / 3])
    rows = slice(start, stop)
    size = np.select([volatility[rows] < low, volatility[rows] > high], ["calm", "wild"], "usual")
    trend = np.where(moved[rows] >= 0, "rising", "falling")
    found = []
    for name in sorted({f"{a}, {b}" for a, b in zip(size, trend, strict=True)}):
        here = np.array([f"{a}, {b}" == name for a, b in zip(size, trend, strict=True)])
        if here.sum() < 20:
            continue
        ratios = {
            strategy: float(sharpe(track.returns.mean(0)[here], track.periods_per_year))
            for strategy, track in result.tracks.items()
        }
        found.append({"name": name, "share": float(here.mean()), "sharpe": ratios})
    return found


def _limits(result: WalkForwardResult) -> list[dict[str, Any]]:
    track, rules = result.tracks[LEARNED], result.market.rules
    written = {
        "sector": rules.max_sector_allocation, "leverage": rules.max_leverage, "var": rules.max_portfolio_var,
        "correlation": rules.max_correlation_exposure, "stop_loss": rules.stop_loss_pct,
        "margin_call": rules.margin_call, "breaker": [level.drawdown for level in rules.breaker],
    }  # fmt: skip
    return [
        {"name": name, "fired": int(acted.sum()), "share": float(acted.mean()), "limit": str(written[name])}
        for name, acted in track.fired.items()
    ]


def _monthly(track: Track) -> list[dict[str, Any]]:
    months = (track.times - 1).astype("datetime64[s]").astype("datetime64[M]")
    starts = np.flatnonzero(np.diff(months.astype(int), prepend=-1))
    growth = np.multiply.reduceat(1 + track.returns.mean(0), starts) - 1
    return [
        {"year": int(str(month)[:4]), "month": int(str(month)[5:7]), "return": float(gained)}
        for month, gained in zip(months[starts], growth, strict=True)
    ]


def _drawdowns(track: Track, count: int = 5) -> list[dict[str, Any]]:
    """The deepest stretches below a former peak."""
    below = drawdown_curve(track.returns.mean(0))
    under = below > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], under, [False]]).astype(int)))
    found: list[dict[str, Any]] = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        trough = begin + int(below[begin:end].argmax())
        closed = end < len(below)
        found.append(
            {
                "depth": float(below[trough]), "start": _day(track.times[max(0, begin - 1)]),
                "trough": _day(track.times[trough - 1]), "end": _day(track.times[end - 1]) if closed else None,
                "bars": int(end - begin),
            }
        )  # fmt: skip
    return sorted(found, key=lambda each: -each["depth"])[:count]


def _targets(metrics: Mapping[str, Interval]) -> list[dict[str, Any]]:
    found = []
    for name, (written, number) in TARGETS.items():
        if name not in metrics:
            found.append({"metric": name, "target": written, "measured": "not measured", "met": False})
            continue
        mean = metrics[name].mean
        met = mean > number if written.startswith(">") else mean < number if written.startswith("<") else mean >= number
        shown = f"{mean:.2f}" if name == "sharpe" else f"{100 * mean:.1f} %"
        found.append({"metric": name, "target": written, "measured": shown, "met": bool(met)})
    return found


def _caveats(result: WalkForwardResult, simulated: bool) -> list[str]:
    track, learned = result.tracks[LEARNED], result.learned
    found = [
        f"{learned.years:.2f} years out of sample show an annual Sharpe ratio of {learned.detectable:.2f} or more with "
        "power 0.8 at 5 %; a smaller true one would mostly go unseen.",
        "Each fold begins with a flat account and ends with its positions marked, not sold.",
        "No test holds its error rate against losses that are rarer than the record is long.",
    ]
    if simulated:
        found.append("The market is simulated: nothing here says anything about a real one.")
    if learned.seeds < 5:
        found.append(f"{learned.seeds} seeds: the intervals over seeds say little.")
    if track.ruined.any():
        found.append(f"{int(track.ruined.sum())} of {len(track.ruined)} policies were ruined.")
    return found


def _span(times: np.ndarray, rows: tuple[int, int]) -> list[str]:
    return [_day(times[rows[0]]), _day(times[rows[1] - 1])]


def _day(seconds: Any) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat(timespec="minutes")


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
