"""How the tear sheet reads and writes numbers: null is "not defined", and every metric has its unit."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from troupe.errors import DataError
from troupe.monitoring.charts import number, percent
from troupe.monitoring.verdict import Measured

__all__ = ["NOT_DEFINED", "bounds", "day", "minus", "plain", "probability", "ratio", "real", "share", "told", "words"]

NOT_DEFINED = "not defined"

_SHARES = {"annual return", "annual volatility", "max drawdown", "win rate", "bar win rate", "cost", "exposure",
           "var compliance"}  # fmt: skip
_COUNTS = {"trades", "turnover"}


def real(value: Any) -> float | None:
    """A number of the record; null, NaN and the infinities are not defined. Raises DataError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"expected a number or null, found {value!r:.60}")
    return float(value) if math.isfinite(value) else None


def words(value: Any) -> str:
    """A text of the record. Raises DataError for anything else."""
    if not isinstance(value, str):
        raise DataError(f"expected a text, found {value!r:.60}")
    return value


def minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def share(value: float | None) -> str:
    """`12.3 %`; a share under 0.1 % keeps its digits."""
    if value is None:
        return NOT_DEFINED
    small = 0 < abs(value) < 1e-3
    return minus(f"{number(100 * value)}\N{NO-BREAK SPACE}%" if small else percent(value))


def ratio(value: float | None) -> str:
    """`1.23`."""
    return NOT_DEFINED if value is None else minus(f"{value:,.2f}")


def plain(value: float | None) -> str:
    """`1,234` or `12.3`."""
    return NOT_DEFINED if value is None else minus(number(value))


def probability(value: float | None) -> str:
    """A p-value: `0.012`, `< 0.0001`."""
    if value is None:
        return NOT_DEFINED
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def told(metric: str, value: float | None) -> str:
    """In the unit of the metric; one that this page does not know is a ratio."""
    if metric in _COUNTS:
        return plain(value)
    return share(value) if metric in _SHARES else ratio(value)


def bounds(metric: str, found: Measured) -> str:
    """`[-0.31, 1.20]`; a single seed has none."""
    if found.low is None or found.high is None:
        return "no interval"
    low, high = (_bound(metric, bound, found.mean) for bound in (found.low, found.high))
    return f"[{low}, {high}]"


def _bound(metric: str, bound: float, mean: float) -> str:
    """As many digits as its mean has, and no unit."""
    if metric not in _SHARES or 0 < abs(mean) < 1e-3:
        return told(metric, bound).removesuffix("\N{NO-BREAK SPACE}%")
    return minus(f"{100 * bound:.1f}")


def day(text: Any) -> str:
    """`2024-03-01`, with the time of day where there is one."""
    moment = datetime.fromisoformat(words(text))
    return f"{moment:%Y-%m-%d %H:%M}" if (moment.hour, moment.minute) != (0, 0) else f"{moment:%Y-%m-%d}"
