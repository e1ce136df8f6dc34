"""A record as a walk-forward evaluation writes it, made up: none of these figures was measured."""

from __future__ import annotations

import math
import random
from typing import Any

NAMES = (
    "PPO", "cash", "buy and hold", "1/N", "inverse volatility", "equal risk contribution", "momentum",
    "random, same turnover",
)  # fmt: skip
SECTORS, REGIMES = ("forex", "commodities", "equity"), ("volatile", "bull", "bear", "neutral")
START = 1_546_473_600  # 2019-01-03

Record = dict[str, Any]


def interval(mean: float | None, half: float | None = None, n: int = 5) -> dict[str, Any]:
    bounds = (None, None) if mean is None or half is None else (mean - half, mean + half)
    return {"mean": mean, "low": bounds[0], "high": bounds[1], "n": n}


def strategy(i: int, name: str, rng: random.Random) -> Record:
    learned, seeds = name == "PPO", 5 if name == "PPO" or name.startswith("random") else 1
    sharpe = 0.41 if learned else rng.gauss(0.1, 0.4)
    values = {
        "annual return": (0.08 * sharpe, 0.05), "annual volatility": (0.081, 0.004), "sharpe": (sharpe, 1.1),
        "sortino": (1.4 * sharpe, 1.5), "calmar": (0.5 * sharpe, 0.7), "max drawdown": (0.127, 0.03),
        "win rate": (0.513, 0.02), "bar win rate": (0.502, 0.004), "profit factor": (1.07, 0.08),
        "trades": (412.4, 37.0), "turnover": (23.4, 2.2), "cost": (0.0117, 0.001), "exposure": (0.731, 0.05),
        "var compliance": (0.9871, 0.003),
    }  # fmt: skip
    metrics = {k: interval(m, h if seeds > 1 or k == "sharpe" else None, seeds) for k, (m, h) in values.items()}
    if name == "cash":
        metrics = {k: interval(0.0, n=1) for k in ("annual return", "max drawdown", "turnover", "cost")}
        metrics["sharpe"] = interval(None)
    tests = {"p": 0.27 if learned else None if name == "cash" else 0.4, "edge": False, "significant": 0}
    chances = {"probabilistic": 0.74, "deflated": 0.36 if learned else None, "kupiec": 0.31 if learned else None}
    return {"name": name, "learned": learned, "seeds": seeds, "metrics": metrics, **tests, **chances, "ruined": 0}


def series(points: int, rng: random.Random) -> Record:
    curves: Record = {}
    for name in NAMES:
        equity, worst, value, peak = [], [], 1e6, 1e6
        for _ in range(points):
            value *= 1 + (0 if name == "cash" else rng.gauss(0.0002, 0.006))
            peak = max(peak, value)
            equity.append(value)
            worst.append(value / peak - 1)
        held = [0.7 + 0.2 * math.sin(i / 40) for i in range(points)]
        curves[name] = {"equity": equity, "drawdown": worst, "gross": held, "net": [0.6 * h - 0.2 for h in held]}
        if name == "PPO":
            curves[name] |= {"low": [0.95 * e for e in equity], "high": [1.06 * e for e in equity]}
    return {"times": [START + 86_400 * i for i in range(points)], "curves": curves}


def trip(i: int, profit: float) -> Record:
    ends = {"opened": f"2021-03-{1 + i % 20:02d}T00:00+00:00", "closed": f"2021-03-{4 + i % 20:02d}T16:30+00:00"}
    name, side = ("EURUSD", "GBPUSD", "GOLD")[i % 3], ("long", "short")[i % 2]
    return {"instrument": name, "side": side, **ends, "bars": 3, "profit": 1e4 * profit}


def fold(number: int) -> Record:
    begin = 2019 + number
    spans = {"train": ["2015-01-02T00:00+00:00", f"{begin - 1}-11-30T00:00+00:00"]}
    return {"number": number, **spans, "test": [f"{begin}-01-02T00:00+00:00", f"{begin}-12-30T00:00+00:00"]}


def drivers(points: int, rng: random.Random) -> Record:
    """Three sectors whose shares swing, regimes that last for a while, and what each agent reads."""
    weights = [[1.2 + math.sin(i / (30 + 20 * k) + k) + rng.gauss(0, 0.05) for i in range(points)] for k in range(3)]
    shares = {name: [w / sum(each) for w, *each in zip(weights[k], *weights, strict=True)]
              for k, name in enumerate(SECTORS)}  # fmt: skip
    regimes = [REGIMES[(i // 47 + i // 130) % 4] for i in range(points)]
    return {
        "agents": [
            {"agent": "meta", "outputs": [*(f"allocation {name}" for name in SECTORS), "risk"],
             "features": features(("market_std_20", "dispersion", "drawdown", "record_forex", "net_equity"), 0.31),
             "groups": [
                 {"name": "volatility", "share": 0.45, "fall": interval(0.021, 0.004, 20)},
                 {"name": "records of the specialists", "share": 0.2, "fall": interval(-0.0004, 0.001, 20)},
                 {"name": "hours", "share": 0.02, "fall": None},
             ]},
            {"agent": "forex", "outputs": ["EURUSD", "GBPUSD"],
             "features": features((*(f"EURUSD_momentum_{n}" for n in (5, 10, 20)), "GBPUSD_rsi", "share_forex"), 0.24),
             "groups": [{"name": "momentum", "share": 0.6}]},
            {"agent": "commodities", "outputs": ["GOLD"], "features": features(("GOLD_std_20", "GOLD_macd"), 0.4),
             "groups": []},
        ],
        "allocation": {
            "times": [START + 86_400 * i for i in range(points)], "shares": shares,
            "risk": [0.6 + 0.3 * math.sin(i / 55) for i in range(points)], "regime": regimes,
        },
        "by_regime": [
            {"regime": name, "bars": 400 - 90 * k, "shares": dict.fromkeys(SECTORS, 1 / 3), "risk": 0.6 - 0.1 * k,
             "sharpe": None if k == 3 else rng.gauss(0.3, 1)}
            for k, name in enumerate(REGIMES)
        ],
    }  # fmt: skip


def features(names: tuple[str, ...], largest: float) -> list[Record]:
    return [{"name": name, "share": largest / 1.5**k} for k, name in enumerate(names)]


def made_up(points: int = 1000) -> Record:
    rng = random.Random(0)
    profits = [rng.gauss(0.01, 0.4) for _ in range(412)] + [7.5, -6.2]
    return {
        "version": 1, "title": "EURUSD, GBPUSD, GOLD: out of sample", "created": "2024-02-03T04:05+00:00",
        "verdict": {"text": "no edge at alpha 0.01 (p = 0.27)", "edge": False, "p": 0.27, "alpha": 0.01},
        "market": {
            "instruments": ["EURUSD", "GBPUSD", "GOLD"], "bars": 2520, "first": "2015-01-02T00:00+00:00",
            "last": "2022-12-30T00:00+00:00", "periods_per_year": 252.0, "simulated": False,
            "messages": ["GOLD: 3 bars without a price were left out"], "account": "USD", "capital": 1e6,
        },
        "years": 3.97, "detectable": 1.25, "trials": {"count": 7, "file": "runs/trials.jsonl"},
        "folds": [fold(i) for i in range(4)],
        "strategies": [strategy(i, name, rng) for i, name in enumerate(reversed(NAMES))],
        "series": series(points, rng),
        "trades": {"count": 414, "shown": [trip(i, p) for i, p in enumerate(profits[-200:])], "histogram": profits},
        "attribution": [
            {"instrument": "EURUSD", "profit": 41_234.5, "trades": 160, "cost": 9_120.0},
            {"instrument": "GBPUSD", "profit": -12_020.0, "trades": 141, "cost": 8_877.0},
            {"instrument": "GOLD", "profit": 3_020.25, "trades": 113, "cost": None},
        ],
        "regimes": [
            {"name": f"{size}, {way}", "share": 1 / 6, "sharpe": {n: rng.gauss(0.2, 1) for n in NAMES}}
            for size in ("calm", "usual", "wild") for way in ("falling", "rising")
        ],
        "limits": [
            {"name": "stop_loss", "fired": 41, "share": 0.0102, "limit": "0.05"},
            {"name": "leverage", "fired": 820, "share": 0.205, "limit": "1.0"},
            {"name": "breaker", "fired": 0, "share": 0.0, "limit": "[0.05, 0.1, 0.15]"},
        ],
        "cost_sweep": [
            {"factor": f, "sharpe": interval(0.7 - 0.3 * f, 0.5), "annual": interval(0.055 - 0.022 * f, 0.04)}
            for f in (0.0, 0.5, 1.0, 2.0, 4.0)
        ],
        "break_even": 2.5,
        "monthly": [
            {"year": year, "month": month, "return": rng.gauss(0.003, 0.02)}
            for year in range(2019, 2023) for month in range(1, 13) if (year, month) > (2019, 2)
        ],
        "drawdowns": [
            {"depth": 0.127, "start": "2020-02-20T00:00+00:00", "trough": "2020-03-19T00:00+00:00",
             "end": "2020-08-11T00:00+00:00", "bars": 120},
            {"depth": 0.064, "start": "2022-09-01T00:00+00:00", "trough": "2022-10-19T00:00+00:00", "end": None,
             "bars": 85},
        ],
        "drivers": drivers(points, rng),
        "targets": [
            {"metric": "sharpe", "target": "> 2.0", "measured": "0.41", "met": False},
            {"metric": "max drawdown", "target": "< 15 %", "measured": "12.7 %", "met": True},
        ],
        "caveats": ["Each fold begins with a flat account."],
        "commands": ["troupe evaluate market --config market.yaml"],
    }  # fmt: skip
