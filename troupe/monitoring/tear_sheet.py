"""The page of a walk-forward evaluation: one file, no network, verdict first.

    write_tear_sheet(Path("runs/market"))      # reads runs/market/evaluation.json, writes runs/market/report.html

Beside the verdict stands what may make it worth little: the smallest Sharpe ratio that a record of this length can
show, and how many configurations were tried on the same bars. A part of the record that is missing or damaged becomes a
sentence that says so, what is null is "not defined", and whatever a user wrote is escaped.

The tear sheets of quantstats show more of the returns themselves: rolling Sharpe and Sortino ratio, volatility and
beta, returns per year beside a benchmark, quantiles per period, and dozens of ratios, the probabilistic Sharpe ratio
among them. They are given returns only, so they know no round trips, costs, exposure, limits or seeds, and count no
trials: no intervals, no cost sweep, no deflated and no smallest detectable Sharpe ratio. Months and the worst drawdowns
are in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from troupe.errors import DataError, UserError
from troupe.monitoring import tear_sheet_panels as panels
from troupe.monitoring import tear_sheet_time as time
from troupe.monitoring.pages import template
from troupe.monitoring.run_folder import Found
from troupe.monitoring.tear_sheet_drivers import drivers
from troupe.monitoring.tear_sheet_numbers import bounds, day, minus, plain, probability, ratio, real, share, told, words
from troupe.monitoring.tear_sheet_panels import Strategy
from troupe.stores.atomic import write_atomic

__all__ = ["render_tear_sheet", "write_tear_sheet"]

T = TypeVar("T")

_NAME = "evaluation.json"
_VERSION = 1
_OBJECTS = ("market", "series", "trades", "drivers")
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, LookupError, OSError, RecursionError)
_SURE = 0.95
"""A deflated Sharpe ratio below this is no more than luck among the trials would give."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`tone` is `good` (an edge), `mixed` (one that something speaks against) or `bad`; it colours the page beside the
    words."""

    tone: str
    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure: its label, its value and what stands under it."""

    label: str
    text: str
    below: str = ""
    tone: str = ""


def write_tear_sheet(folder: Path) -> Path:
    """Writes `<folder>/report.html` whole or not at all from `<folder>/evaluation.json`, and returns its path.

    Raises StorageError where the page cannot be written.
    """
    path = Path(folder) / "report.html"
    write_atomic(path, render_tear_sheet(folder).encode("utf-8", errors="replace"))
    return path


def render_tear_sheet(folder: Path) -> str:
    """The page as HTML."""
    filters: dict[str, Callable[..., Any]] = {
        "bounds": bounds, "plain": plain, "probability": probability, "ratio": ratio, "share": share, "told": told,
    }  # fmt: skip
    page = template("tear_sheet.html.j2", filters, months=time.MONTHS)
    found = _record(Path(folder) / _NAME)
    if found.value is None:
        nothing = _Verdict("bad", "Nothing can be said about this strategy", (found.why_not,))
        return page.render(title="Tear sheet", verdict=nothing, record=False)
    return page.render(record=True, **_parts(found.value))


def _record(path: Path) -> Found[Mapping[str, Any]]:
    if not path.exists():
        return Found(None, f"Not recorded: {path.name} is missing from the run folder.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except _DAMAGE as error:
        return Found(None, f"{path.name} could not be read: {type(error).__name__}: {error}.")
    if not isinstance(record, Mapping):
        return Found(None, f"{path.name} could not be read: it must hold an object, found {type(record).__name__}.")
    if record.get("version") != _VERSION:
        version = f"{record.get('version')!r:.40}"
        return Found(None, f"{path.name} could not be read: this page reads version {_VERSION}, found {version}.")
    return Found(record)


def _parts(record: Mapping[str, Any]) -> dict[str, Any]:
    strategies = _part(record, "strategies", panels.strategies)
    learned = next((each for each in strategies.value or () if each.learned), None)
    detectable, capital = _number(record, "detectable"), _number(record, "market", "capital")
    return {
        "title": _text(record, "title") or "Tear sheet",
        "verdict": _verdict(record, learned, detectable),
        "numbers": _numbers(record, learned, detectable),
        "facts": _part(record, "market", lambda market: _facts(market, record)),
        "messages": _part(record, "market", lambda market: [words(text) for text in market.get("messages") or ()]),
        "learned": learned,
        "figures": _figures(learned) if learned else (),
        "strategies": strategies,
        "forest": panels.forest(strategies.value or (), detectable),
        "curves": _part(record, "series", lambda part: time.curves(part, learned.name if learned else None, capital)),
        "heat": _part(record, "monthly", time.heat),
        "drawdowns": _part(record, "drawdowns", time.drawdowns),
        "trades": _part(record, "trades", panels.trades),
        "attribution": _part(record, "attribution", _attribution),
        "regimes": _part(record, "regimes", lambda part: _regimes(part, strategies.value or ())),
        "limits": _part(record, "limits", _limits),
        "sweep": _part(record, "cost_sweep", lambda part: panels.sweep(part, record.get("break_even"))),
        "drivers": None if record.get("drivers") is None else _part(record, "drivers", drivers),
        "phases": None if record.get("phases") is None else _part(record, "phases", _phases),
        "folds": _part(record, "folds", time.folds),
        "targets": _part(record, "targets", _targets),
        "caveats": _part(record, "caveats", lambda part: [words(text) for text in part]),
        "commands": _part(record, "commands", lambda part: [words(text) for text in part]),
    }


def _part(record: Mapping[str, Any], key: str, parse: Callable[[Any], T]) -> Found[T]:
    if record.get(key) is None:
        return Found(None, f"Not recorded: {_NAME} holds no {key}.")
    kind = Mapping if key in _OBJECTS else list
    try:
        if not isinstance(record[key], kind):
            raise DataError(f"expected {'an object' if kind is Mapping else 'a list'}, found {record[key]!r:.60}")
        return Found(parse(record[key]))
    except UserError as error:
        return Found(None, f"{key} of {_NAME} could not be read: {error}.")
    except _DAMAGE as error:
        return Found(None, f"{key} of {_NAME} could not be read: {type(error).__name__}: {error}.")


def _number(record: Mapping[str, Any], *keys: str) -> float | None:
    """A number of the record; what is no number is not defined."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    try:
        return real(found)
    except (DataError, OverflowError):
        return None


def _text(record: Any, key: str) -> str | None:
    found = record.get(key) if isinstance(record, Mapping) else None
    return found if isinstance(found, str) else None


# ---------------------------------------------------------------------------------------------- the verdict


def _verdict(record: Mapping[str, Any], learned: Strategy | None, detectable: float | None) -> _Verdict:
    said = record.get("verdict")
    p, alpha = _number(record, "verdict", "p"), _number(record, "verdict", "alpha")
    where = " in a simulated market" if _simulated(record) else ""
    if not isinstance(said, Mapping) or p is None or alpha is None:
        sentence = f"{_NAME} holds no verdict with its p-value and alpha, and no edge is claimed without them."
        return _Verdict("bad", "Not tested: nothing was shown", (sentence, *_size(record, detectable)))
    text = _text(said, "text")
    told_by = [f"{_capital(text)}."] if text else []
    if said.get("edge") is not True or p > alpha:
        sentences = (*told_by, *_size(record, detectable), "No edge shown is not the same as no edge there.")
        return _Verdict("bad", f"No edge was shown{where}", sentences)
    against = _against(learned)
    headline = f"An edge{where} at \N{GREEK SMALL LETTER ALPHA} = {alpha:g}"
    headline += ", with something against it" if against else ""
    return _Verdict("mixed" if against else "good", headline, (*told_by, *against, *_size(record, detectable)))


def _simulated(record: Mapping[str, Any]) -> bool:
    market = record.get("market")
    return isinstance(market, Mapping) and market.get("simulated") is True


def _against(learned: Strategy | None) -> list[str]:
    """What speaks against an edge that a test has found."""
    if learned is None:
        return ["The learned strategy's own figures are not in the record."]
    found = []
    if learned.deflated is not None and learned.deflated < _SURE:
        found.append(
            f"Against the best of all configurations that were tried, the probability of a Sharpe ratio above luck is "
            f"{ratio(learned.deflated)} (deflated Sharpe ratio), below {_SURE}."
        )
    if learned.ruined:
        found.append(f"{learned.ruined} of {learned.seeds} policies were ruined.")
    return found


def _size(record: Mapping[str, Any], detectable: float | None) -> list[str]:
    """What so short a record can show."""
    years = _number(record, "years")
    if years is None or detectable is None:
        return ["How large an edge this record could have shown was not recorded."]
    return [
        f"{years:.2f} years out of sample show an annual Sharpe ratio of {ratio(detectable)} or more (power 0.8 at "
        "5\N{NO-BREAK SPACE}%); a smaller one would mostly go unseen."
    ]


def _numbers(record: Mapping[str, Any], learned: Strategy | None, detectable: float | None) -> list[_Figure]:
    """The four figures under the verdict."""
    alpha, years = _number(record, "verdict", "alpha"), _number(record, "years")
    count = _number(record, "trials", "count")
    measured = learned.metrics.get("sharpe") if learned else None
    limit = "" if alpha is None else f"an edge from {alpha:g} downwards"
    whose = f"Sharpe ratio of {learned.name}" if learned else "Sharpe ratio"
    deflated = f"deflated Sharpe ratio {ratio(learned.deflated if learned else None)}"
    return [
        _Figure("p-value", probability(_number(record, "verdict", "p")), limit),
        _Figure(whose, ratio(measured.mean if measured else None), bounds("sharpe", measured) if measured else ""),
        _Figure("Smallest that could be shown", ratio(detectable), "" if years is None else f"in {years:.2f} years"),
        _Figure("Configurations tried", "not recorded" if count is None else f"{count:,.0f}", deflated),
    ]


def _capital(text: str) -> str:
    return (text[:1].upper() + text[1:]).rstrip(".")


def _facts(market: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was traded, as (label, text)."""
    names = [words(name) for name in market.get("instruments") or ()]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    per_year, capital = real(market.get("periods_per_year")), real(market.get("capital"))
    paths = real(market.get("paths")) or 1
    created, file = _text(record, "created"), _text(record.get("trials"), "file")
    rows = [
        ("Market", "simulated" if market.get("simulated") is True else "recorded prices"),
        ("Instruments", ", ".join(names[:8]) + more),
        ("Bars", plain(real(market.get("bars"))) + (f" in each of {paths:,.0f} histories" if paths > 1 else "")),
        ("First bar", day(market["first"]) if market.get("first") else ""),
        ("Last bar", day(market["last"]) if market.get("last") else ""),
        ("Bars per year", "" if per_year is None else plain(per_year)),
        ("Capital", "" if capital is None else f"{capital:,.0f} {_text(market, 'account') or ''}"),
        ("Trials are counted in", file or ""),
        ("Evaluated", day(created) if created else ""),
    ]
    return [(label, text.strip() or "not recorded") for label, text in rows]


# ---------------------------------------------------------------------------------------------- rows

_LABELS = {
    "sharpe": "Sharpe ratio",
    "sharpe of the team": "Sharpe ratio of all seeds together",
    "sortino": "Sortino ratio",
    "calmar": "Calmar ratio",
    "trades": "Round trips",
    "turnover": "Turnover per year",
    "cost": "Costs per year",
    "var compliance": "VaR within its limit",
    "bar win rate": "Bars that gained",
    "win rate": "Round trips that gained",
}


def _figures(learned: Strategy) -> list[_Figure]:
    """The learned strategy's key figures: every metric with its interval, then what the tests say."""
    found = [
        _Figure(
            _LABELS.get(name, _capital(name)).replace("seeds", learned.over), told(name, each.mean), bounds(name, each)
        )
        for name, each in learned.metrics.items()
    ]
    runs = f"of {learned.seeds} {learned.over}" if learned.seeds != 1 else "of 1 run"
    return [
        *found,
        _Figure("Probability of a Sharpe ratio above 0", ratio(learned.probabilistic), "probabilistic Sharpe ratio"),
        _Figure("The same against the best trial", ratio(learned.deflated), "deflated Sharpe ratio"),
        _Figure("VaR forecast was right", probability(learned.kupiec), "p-value, Kupiec's test"),
        _Figure(f"{_capital(learned.over)} with an edge of their own", f"{learned.significant}", runs),
        _Figure("Ruined", f"{learned.ruined}", runs, "bad" if learned.ruined else ""),
    ]


def _attribution(part: Any) -> list[panels.Amount]:
    rows = []
    for entry in part:
        profit, cost = real(entry["profit"]), real(entry.get("cost"))
        cells = (plain(profit), plain(real(entry.get("trades"))), plain(cost))
        rows.append((words(entry["instrument"]), cells, profit))
    return panels.amounts(rows)


def _regimes(part: Any, strategies: tuple[Strategy, ...]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(names of the columns, rows of (regime, texts)): share of the bars, then the Sharpe ratio of each strategy."""
    order = [each.name for each in strategies]
    names = list(dict.fromkeys([*order, *(words(name) for entry in part for name in entry["sharpe"])]))
    names = [name for name in names if any(name in entry["sharpe"] for entry in part)]
    rows = [
        (words(e["name"]), [share(real(e["share"])), *(ratio(real(e["sharpe"].get(name))) for name in names)])
        for e in part
    ]
    return names, rows


def _limits(part: Any) -> list[panels.Amount]:
    rows = []
    for entry in part:
        fired, acted = real(entry["fired"]), real(entry["share"])
        cells = (words(entry["limit"]), plain(fired) if fired else "never" if fired == 0 else plain(None), share(acted))
        rows.append((words(entry["name"]).replace("_", " "), cells, acted))
    return panels.amounts(rows, "mixed", 1.0)


@dataclass(frozen=True, slots=True)
class _Phase:
    """One gate: whose, what it said, how many of the runs it let through, (target, measured, met) by metric."""

    name: str
    against: str
    said: str
    promoted: int
    runs: int
    targets: Mapping[str, tuple[str, str, bool]]

    @property
    def answer(self) -> str:
        if self.runs == 1:
            return "✓ let through" if self.promoted else "✗ held back"
        return f"{self.promoted} of {self.runs} let through"


def _phases(part: Any) -> tuple[list[str], list[_Phase]]:
    """(metrics of the targets in order, rows)."""
    rows = [
        _Phase(
            f"{e['phase']:d} {words(e.get('part') or '')}".strip(), words(e["against"]), words(e["gate"]),
            int(e["promoted"]), int(e["runs"]), {row[0]: row[1:] for row in _targets(e["targets"])},
        )
        for e in part
    ]  # fmt: skip
    return list(dict.fromkeys(name for row in rows for name in row.targets)), rows


def _targets(part: Any) -> list[tuple[str, str, str, bool]]:
    """(metric, target, measured, met). Only a plain true has met it."""
    return [
        (
            _LABELS.get(name := words(entry["metric"]).replace("_", " "), _capital(name)), words(entry["target"]),
            minus(words(entry["measured"])) if entry.get("measured") is not None else "not measured",
            entry.get("met") is True,
        )
        for entry in part
    ]  # fmt: skip
