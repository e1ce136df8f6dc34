"""The gate's decision in plain words. The words follow the measured interval, never the wish."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.errors import DataError, did_you_mean
from troupe.monitoring.charts import percent

__all__ = ["Measured", "Verdict", "gap", "improved", "measured", "points", "verdict"]


@dataclass(frozen=True, slots=True)
class Measured:
    """An interval for display, each as shares in [0, 1] or their differences; `low` and `high` None: not known."""

    mean: float
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`tone` is `good`, `mixed` (better, but refused) or `bad`; it colours the page beside the words."""

    promoted: bool
    tone: str
    headline: str
    sentence: str


def measured(record: Mapping[str, Any] | None) -> Measured | None:
    """An `Interval` as a dict; bounds that are missing or infinite (a single task) are not known. None stays None."""
    if record is None or record.get("mean") is None or not math.isfinite(record["mean"]):
        return None
    low, high = (_finite(record.get(key)) for key in ("low", "high"))
    return Measured(float(record["mean"]), low, high, record.get("n"))


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def points(value: float) -> str:
    """`+12.3` percentage points of a difference of shares."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def gap(found: Measured) -> str:
    """`+12.3 points [+4.0, +20.1]` of a difference of shares."""
    if found.low is None or found.high is None:
        return f"{points(found.mean)} points, without an interval"
    return f"{points(found.mean)} points [{points(found.low)}, {points(found.high)}]"


def improved(summary: Mapping[str, Any]) -> bool:
    """Of a run without a registry of its own. Raises DataError where `summary["verdict"]` is neither 'improved' nor
    'not improved'."""
    return _said(summary, ("improved", "not improved"))


def _said(summary: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether the verdict is the first of two words."""
    said = summary.get("verdict")
    if said not in words:
        hint = did_you_mean(str(said), words)
        raise DataError(f"summary['verdict'] must be {words[0]!r} or {words[1]!r}, found {said!r}{hint}")
    return bool(said == words[0])


def verdict(summary: Mapping[str, Any]) -> Verdict:
    """Raises DataError where `summary["verdict"]` is neither 'promoted' nor 'not promoted'."""
    promoted = _said(summary, ("promoted", "not promoted"))
    difference = measured(summary.get("difference"))
    outcome = _outcome(difference)
    tone = {"better": "good" if promoted else "mixed"}.get(outcome, "bad")
    return Verdict(promoted, tone, _headline(promoted, outcome), _sentence(summary, difference, outcome))


def _outcome(difference: Measured | None) -> str:
    if difference is None or difference.low is None or difference.high is None:
        return "unknown"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "unchanged"


def _headline(promoted: bool, outcome: str) -> str:
    if promoted:
        return "Promoted: the team improved" if outcome == "better" else "Promoted, though no improvement was shown"
    return {
        "better": "Not promoted: better, but a check failed",
        "unchanged": "Not promoted: nothing improved",
        "worse": "Not promoted: the team got worse",
        "unknown": "Not promoted: the change was not measured",
    }[outcome]


def _sentence(summary: Mapping[str, Any], difference: Measured | None, outcome: str) -> str:
    before, after = measured(summary.get("before")), measured(summary.get("after"))
    if before is None or after is None:
        return "Success before and after training was not measured, so nothing can be said about improvement."
    tasks = f" {after.n:,}" if after.n else ""
    rates = percent(before.mean), percent(after.mean)
    told = f"Before training the team solved {rates[0]} of{tasks} held-out tasks, after it {rates[1]}."
    if difference is None or outcome == "unknown":
        return f"{told} The difference came without an interval, so it could be chance."
    gap = f"{points(difference.mean)} points [{points(difference.low or 0)}, {points(difference.high or 0)}]"
    return f"{told} {_MEANING[outcome].format(gap=gap)}"


_MEANING = {
    "better": "On the same tasks that is {gap}: the whole interval lies above zero.",
    "worse": "On the same tasks that is {gap}: the whole interval lies below zero, training did harm.",
    "unchanged": "On the same tasks that is {gap}: the interval includes zero, so this could be chance.",
}
