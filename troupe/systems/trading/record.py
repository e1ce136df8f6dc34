"""What an evaluation found, as JSON: the file that the tear sheet and everybody else reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.features import rolling_volatility, simple_returns
from troupe.maths.finance import sharpe
from troupe.maths.returns import drawdown_curve
from troupe.monitoring.tear_sheet import write_tear_sheet
from troupe.stores.atomic import write_atomic
from troupe.systems.trading.assessment import Assessment
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.trips import Trip, round_trips
from troupe.systems.trading.walkforward import WalkForwardResult

__all__ = ["POINTS", "TARGETS", "against", "evaluation_record", "plain", "shown_rows", "write_evaluation"]

TARGETS: Mapping[str, tuple[str, float]] = {
    "sharpe": ("> 2.0", 2.0),
    "max drawdown": ("< 15 %", 0.15),
    "win rate": ("> 60 %", 0.60),
    "var compliance": ("100 %", 1.0),
}
"""Document 002's targets: metric -> (as written, number). They are reported, never tuned to."""

POINTS = 1000
"""Most points of a curve."""
_SHOWN = 200


def write_evaluation(
    result: WalkForwardResult, commands: Sequence[str], simulated: bool, more: Mapping[str, Any] | None = None
) -> Path:
    """Writes evaluation.json and the tear sheet into the run folder; returns the path of the page. `more` are further
    keys of the record."""
    record = evaluation_record(result, commands, simulated) | plain(more or {})
    write_atomic(result.folder / "evaluation.json", json.dumps(record, allow_nan=False).encode())
    return write_tear_sheet(result.folder)


def evaluation_record(result: WalkForwardResult, commands: Sequence[str], simulated: bool) -> dict[str, Any]:
    """Everything a reader needs, in plain numbers; what is not defined is null."""
    market, learned, track = result.market, result.learned, result.track
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
            "paths": len(market.bars),
        },
        "years": learned.years,
        "detectable": learned.detectable,
        "trials": {"count": result.trials, "file": str(result.trials_file)},
        "folds": [
            {"number": fold.number, "train": _span(bars.times, fold.train), "test": _span(bars.times, fold.test)}
            for fold in result.folds
        ],
        "strategies": [_strategy(found, result) for found in result.assessments.values()],
        "series": _series(result),
        "trades": {
            "count": len(trips), "of": result.first,
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
        "targets": against(TARGETS, {name: found.mean for name, found in learned.metrics.items()}),
        "caveats": _caveats(result, simulated),
        "commands": list(commands),
    }  # fmt: skip
    return dict(plain(record))


def _strategy(found: Assessment, result: WalkForwardResult) -> dict[str, Any]:
    return {
        "name": found.name, "learned": found.name == result.name, "seeds": found.seeds,
        "over": "seeds" if len(result.market.bars) == 1 else "histories",
        "metrics": {key: asdict(value) for key, value in found.metrics.items()}, "p": found.edge.p_value,
        "edge": found.edge.significant, "significant": found.significant,
        "probabilistic": found.probabilistic, "deflated": found.deflated, "kupiec": found.kupiec,
        "ruined": found.ruined,
    }  # fmt: skip


def shown_rows(count: int) -> np.ndarray:
    """At most `POINTS` of `count` rows, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(POINTS, count)).round().astype(int))


def _series(result: WalkForwardResult) -> dict[str, Any]:
    times = result.track.times
    kept = shown_rows(len(times))
    curves = {}
    for name, track in result.tracks.items():
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
    """Calm, usual and wild by volatility over the window against its thirds in the bars that were known before; rising
    or falling by the market's move over the window: both known at the decision. Of several histories the bars of one
    regime are put together."""
    window = result.market.rules.correlation_window
    known = np.concatenate([_volatility(bars, window) for bars in result.before.bars])
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    labels = np.stack([_regime(bars, window, low, high)[slice(*result.rows)] for bars in result.market.bars])
    found = []
    for name in np.unique(labels):
        here = labels == name
        if here.sum() < 20:
            continue
        ratios = {
            strategy: float(sharpe(_bars_of(track.returns, here), track.periods_per_year))
            for strategy, track in result.tracks.items()
        }
        found.append({"name": str(name), "share": float(here.mean()), "sharpe": ratios})
    return found


def _volatility(bars: Bars, window: int) -> np.ndarray:
    """Of all instruments in equal weights `[T]`."""
    return rolling_volatility(simple_returns(bars.close).mean(1)[:, None], window)[:, 0]


def _regime(bars: Bars, window: int, low: float, high: float) -> np.ndarray:
    """Names `[T]`."""
    wealth = np.cumprod(1 + simple_returns(bars.close).mean(1))
    moved = wealth / np.concatenate([np.full(min(window, len(wealth)), wealth[0]), wealth[:-window]]) - 1
    volatility = _volatility(bars, window)
    size = np.select([volatility < low, volatility > high], ["calm", "wild"], "usual")
    return np.array([f"{a}, {b}" for a, b in zip(size, np.where(moved >= 0, "rising", "falling"), strict=True)])


def _bars_of(returns: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Returns in a regime, of `here` `[P, T]`: means of all accounts where they trade one history, else each
    account's."""
    return returns.mean(0)[here[0]] if len(here) == 1 else returns[here]


def _limits(result: WalkForwardResult) -> list[dict[str, Any]]:
    track, rules = result.track, result.market.rules
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


def against(targets: Mapping[str, tuple[str, float]], measured: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Rows of a table of targets (metric -> as written, number): what was measured, and whether that meets it. What was
    not measured meets nothing."""
    found = []
    for name, (written, number) in targets.items():
        value = measured.get(name)
        if value is None:
            found.append({"metric": name, "target": written, "measured": "not measured", "met": False})
            continue
        above, below = written.startswith(">"), written.startswith("<")
        met = value > number if above else value < number if below else value >= number
        shown = f"{value:.2f}" if name == "sharpe" else f"{100 * value:.1f} %"
        found.append({"metric": name, "target": written, "measured": shown, "met": bool(met)})
    return found


def _caveats(result: WalkForwardResult, simulated: bool) -> list[str]:
    track, learned = result.track, result.learned
    begins = "Each fold begins with a flat account and ends" if result.folds else "Each account begins flat and ends"
    found = [
        f"{learned.years:.2f} years out of sample show an annual Sharpe ratio of {learned.detectable:.2f} or more with "
        "power 0.8 at 5 %; a smaller true one would mostly go unseen.",
        f"{begins} with its positions marked, not sold.",
        "No test holds its error rate against losses that are rarer than the record is long.",
    ]
    if simulated:
        found.append("The market is simulated: nothing here says anything about a real one.")
    if learned.seeds == 1 or len(result.market.bars) > 1:
        found.append("One seed learned: nothing here says how another one would have fared.")
    elif learned.seeds < 5:
        found.append(f"{learned.seeds} seeds: the intervals over seeds say little.")
    if not track.turnover.any():
        found.append("Nothing was traded: who stands still has no drawdown and no value at risk, which proves nothing.")
    if track.ruined.any():
        found.append(f"{int(track.ruined.sum())} of {len(track.ruined)} policies were ruined.")
    return found


def _span(times: np.ndarray, rows: tuple[int, int]) -> list[str]:
    return [_day(times[rows[0]]), _day(times[rows[1] - 1])]


def _day(seconds: Any) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat(timespec="minutes")


def plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is null."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
