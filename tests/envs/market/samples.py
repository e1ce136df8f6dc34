"""Small markets for tests: prices written by hand, or random ones with gaps between bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.config import MarketRules
from troupe.envs.market.core import MarketCore
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.tape import make_tape

FREE = {"warmup_steps": 0, "transaction_cost": 0.0, "max_position_size": 1.0}
"""Rules without costs, limits and warm-up."""


def plain(name: str, **changes: Any) -> Instrument:
    """An instrument in dollars without any cost."""
    options = {"sector": "equity", "quote": "USD", "base": name, "half_spread": 0.0, "margin": 0.05, **changes}
    return Instrument(name, **options)


def bars_of(closes: Any, opens: Any = None, *, spread: float = 0.0, names: Sequence[str] = (), **changes: Any) -> Bars:
    """Hourly bars from closes `[T, M]`; opens are the closes before unless given, highs and lows lie `spread` out."""
    closes = np.asarray(closes, dtype=np.float64)
    closes = closes[:, None] if closes.ndim == 1 else closes
    before = np.concatenate([closes[:1], closes[:-1]])
    opens = before if opens is None else np.asarray(opens, dtype=np.float64).reshape(closes.shape)
    t, m = closes.shape
    options = {
        "times": 1_400_000_400 + 3600 * np.arange(t),
        "volume": np.full((t, m), 1000.0),
        "traded": np.ones((t, m), dtype=bool),
        "close_only": np.zeros(m, dtype=bool),
        "high": np.maximum(opens, closes) * (1 + spread),
        "low": np.minimum(opens, closes) * (1 - spread),
        **changes,
    }
    names = tuple(names) or tuple("ABCDEFGH"[:m])
    return Bars(instruments=names, open=opens, close=closes, **options)


def random_bars(seed: int, t: int = 300, m: int = 3, **changes: Any) -> Bars:
    """Random walks with gaps, one percent a bar."""
    generator = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, (t, m)), axis=0))
    before = np.concatenate([closes[:1], closes[:-1]])
    opens = before * np.exp(generator.normal(0, 0.003, (t, m)))
    return bars_of(closes, opens, spread=0.004, **changes)


def core_of(bars: Bars | Sequence[Bars], instruments: Sequence[Instrument] | None = None, **rules: Any) -> MarketCore:
    first = bars if isinstance(bars, Bars) else bars[0]
    chosen = MarketRules(**{**FREE, **rules})
    known = [plain(name) for name in first.instruments] if instruments is None else instruments
    return MarketCore(make_tape(bars, known, chosen), chosen)


def run(core: MarketCore, actions: Any, start: int = 0) -> tuple[Any, list[Any]]:
    """One account through `actions` `[T, M]`: (last state, outcomes)."""
    state, outcomes = core.begin(np.array([start])), []
    for action in np.asarray(actions, dtype=np.float64):
        state, outcome = core.step(state, np.atleast_1d(action)[None])
        outcomes.append(outcome)
    return state, outcomes
