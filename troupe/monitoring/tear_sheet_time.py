"""What the tear sheet shows over time: equity, drawdown, exposure, months, the worst drawdowns, the folds.

Every function takes a part of evaluation.json as it stands in the file. Where it is damaged it raises DataError or what
Python raises, and `tear_sheet.py` makes a sentence of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from troupe.errors import DataError
from troupe.monitoring.charts import Plot, Series, line_plot
from troupe.monitoring.tear_sheet_numbers import NOT_DEFINED, day, minus, plain, real, share, words

__all__ = ["MONTHS", "Curves", "Fold", "Heat", "curves", "drawdowns", "folds", "heat"]

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_POINTS = 500
"""Most points of one line: a chart is about a thousand pixels wide."""
_STOPS = 150
"""Most dates that answer to the pointer; seven strategies at each of them are most of the page."""


@dataclass(frozen=True, slots=True)
class Curves:
    """The three charts over time; a sentence where the record has nothing to draw."""

    equity: Plot | str
    drawdown: Plot | str
    exposure: Plot | str


@dataclass(frozen=True, slots=True)
class _Axis:
    """The kept rows, and the dates along them. Bars are drawn one beside the other, so that nights take no room."""

    rows: tuple[int, ...]
    names: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]


def curves(part: Any, learned: str | None, capital: float | None) -> Curves:
    """`learned` is the strategy with the band; its exposure is drawn. `capital` is where the equity began."""
    axis, found = _axis([real(time) for time in part["times"]]), part["curves"]
    lines = {words(name): {key: _checked(name, key, row, part) for key, row in c.items()} for name, c in found.items()}
    main = learned if learned in lines else next(iter(lines), None)
    if main is None or not axis.rows:
        return Curves(*["Not recorded: series holds no curve."] * 3)
    others = [(name, f"agent-{i % 8}") for i, name in enumerate(name for name in lines if name != main)]
    drawn = [*others, (main, "ink")]
    return Curves(
        _equity(axis, lines, drawn, capital), _drawdown(axis, lines, drawn), _exposure(axis, main, lines[main])
    )


def _checked(name: str, key: str, row: Any, part: Mapping[str, Any]) -> list[float | None]:
    if len(row) != len(part["times"]):
        raise DataError(f"{key} of {name!r:.60} has {len(row)} points, and there are {len(part['times'])} times")
    return [real(value) for value in row]


def _equity(
    axis: _Axis, lines: Mapping[str, Any], drawn: Sequence[tuple[str, str]], capital: float | None
) -> Plot | str:
    start = capital or next((v for name, _ in reversed(drawn) for v in lines[name].get("equity", ()) if v), 1.0)
    gains = {
        name: {key: _points(axis, [v if v is None else v / start - 1 for v in row]) for key, row in line.items()}
        for name, line in lines.items()
    }
    series = [Series(name, colour, gains[name].get("equity", ())) for name, colour in drawn]
    low, high = (dict(gains[series[-1].name].get(key, ())) for key in ("low", "high"))
    if low and high:
        series[-1] = replace(series[-1], band=[(x, low[x], high[x]) for x in sorted(low.keys() & high.keys())])
    band = " The band runs from the lowest to the highest run." if series[-1].band else ""
    return _over_time("Equity", f"Gain on the capital, after costs.{band}", series, axis)


def _drawdown(axis: _Axis, lines: Mapping[str, Any], drawn: Sequence[tuple[str, str]]) -> Plot | str:
    series = []
    for name, colour in drawn:
        below = [None if value is None else -abs(value) for value in lines[name].get("drawdown", ())]
        series.append(Series(name, colour, _points(axis, below)))
    return _over_time("Drawdown", "Loss since the highest equity so far.", series, axis)


def _exposure(axis: _Axis, name: str, line: Mapping[str, Any]) -> Plot | str:
    series = [
        Series("gross", "agent-0", _points(axis, line.get("gross"))),
        Series("net", "ink", _points(axis, line.get("net"))),
    ]
    note = f"Positions of {name}, as a share of the equity: all of them, and long less short."
    return _over_time("Exposure", note, series, axis)


def _points(axis: _Axis, row: Sequence[float | None] | None) -> list[tuple[float, float]]:
    found = [(float(x), row[at]) for x, at in enumerate(axis.rows)] if row else []
    return [(x, value) for x, value in found if value is not None]


def _over_time(title: str, note: str, series: Sequence[Series], axis: _Axis) -> Plot | str:
    """The last series is drawn on top and named first."""
    present = [each for each in series if each.points]
    if not present:
        return f"{title}: series holds no point of it."
    chart = line_plot(title, present, note=note, share=True, x_name="bar")
    stops = chart.hover[:: math.ceil(len(chart.hover) / _STOPS)]
    return replace(
        chart,
        x_ticks=axis.ticks,
        y_ticks=tuple((at, minus(label)) for at, label in chart.y_ticks),
        x_name="",
        legend=(chart.legend[-1], *chart.legend[:-1]),
        hover=tuple(_dated(stop, axis) for stop in stops),
        label=f"{title}: " + "; ".join(_in_words(each, axis) for each in reversed(present)),
    )


def _dated(stop: Mapping[str, Any], axis: _Axis) -> dict[str, Any]:
    values = [[colour, name, minus(text)] for colour, name, text in stop["v"]]
    return {**stop, "t": axis.names[int(stop["t"].removeprefix("bar "))], "v": [*values[-1:], *values[:-1]]}


def _in_words(series: Series, axis: _Axis) -> str:
    (x, first), (z, last) = series.points[0], series.points[-1]
    return f"{series.name} from {share(first)} on {axis.names[int(x)]} to {share(last)} on {axis.names[int(z)]}"


def _axis(times: Sequence[float | None]) -> _Axis:
    if None in times:
        raise DataError("a time is null")
    rows = list(range(0, len(times), max(1, math.ceil(len(times) / _POINTS))))
    if rows and rows[-1] != len(times) - 1:
        rows[-1] = len(times) - 1
    moments = [datetime.fromtimestamp(times[row] or 0, UTC) for row in rows]
    daily = all((moment.hour, moment.minute) == (moments[0].hour, moments[0].minute) for moment in moments)
    names = tuple(f"{moment:%Y-%m-%d}" if daily else f"{moment:%Y-%m-%d %H:%M}" for moment in moments)
    return _Axis(tuple(rows), names, _date_ticks(moments, names))


def _date_ticks(moments: Sequence[datetime], names: Sequence[str]) -> tuple[tuple[float, str], ...]:
    """Where a year, half-year, quarter, month or day begins: the coarsest that gives three labels, and at most five."""
    last = max(1, len(moments) - 1)
    months = [f"{MONTHS[m.month - 1]} {m.year}" for m in moments]
    spans: list[list[tuple[Any, str]]] = [
        [(m.year, f"{m.year}") for m in moments],
        *([((m.year, (m.month - 1) // n), text) for m, text in zip(moments, months, strict=True)] for n in (6, 3, 1)),
        [(m.date(), f"{m.day} {MONTHS[m.month - 1]}") for m in moments],
    ]
    for span in spans:
        changes = [i for i in range(1, len(span)) if span[i][0] != span[i - 1][0]]
        places = [i for i in changes if 4 <= 100 * i / last <= 95]
        if len(places) >= 3:
            return tuple((100 * i / last, span[i][1]) for i in places[:: math.ceil(len(places) / 5)])
    if len(names) < 2:
        return tuple((50.0, name) for name in names)
    return tuple((100 * i / last, names[i]) for i in (round(0.12 * last), round(0.75 * last)))


@dataclass(frozen=True, slots=True)
class Heat:
    """One year of monthly returns: (text, tone, percent of the tone's colour) for each month, and the year's."""

    year: int
    months: tuple[tuple[str, str, int], ...]
    total: str


def heat(part: Any) -> list[Heat]:
    """A month that the record lacks is empty; a year with one that is not defined has no total."""
    found: dict[int, dict[int, float | None]] = {}
    for entry in part:
        year, month = entry["year"], entry["month"]
        if not isinstance(year, int) or month not in range(1, 13) or month in found.get(year, {}):
            raise DataError(f"year {year!r:.20}, month {month!r:.20} is no month or stands there twice")
        found.setdefault(year, {})[month] = real(entry["return"])
    largest = max((abs(v) for months in found.values() for v in months.values() if v is not None), default=0.0)
    return [
        Heat(year, tuple(_cell(months, month, largest) for month in range(1, 13)), _total(list(months.values())))
        for year, months in sorted(found.items(), reverse=True)
    ]


def _cell(months: Mapping[int, float | None], month: int, largest: float) -> tuple[str, str, int]:
    value = months.get(month)
    if value is None:
        return (NOT_DEFINED if month in months else "", "line", 0)
    strength = round(45 * math.sqrt(abs(value) / largest)) if largest else 0
    return minus(f"{100 * value:.1f}"), "good" if value >= 0 else "bad", strength


def _total(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return share(math.prod(1 + value for value in known) - 1 if len(known) == len(values) else None)


def drawdowns(part: Any) -> list[tuple[str, ...]]:
    """(depth, begin, trough, end, bars), as they stand."""
    return [
        (
            share(None if (depth := real(entry["depth"])) is None else -abs(depth)), day(entry["start"]),
            day(entry["trough"]), "not recovered" if entry.get("end") is None else day(entry["end"]),
            plain(real(entry["bars"])),
        )
        for entry in part
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fold:
    """What was learned from and what was traded: dates, and (left, width) of both on one line, in percent."""

    number: int
    train: tuple[str, str]
    test: tuple[str, str]
    learned: tuple[float, float]
    traded: tuple[float, float]


_Span = tuple[datetime, datetime]


def folds(part: Any) -> list[Fold]:
    spans = [(int(entry["number"]), _span(entry["train"]), _span(entry["test"])) for entry in part]
    ends = [moment for _, train, test in spans for moment in (*train, *test)]
    if not ends:
        return []
    begin, whole = min(ends), (max(ends) - min(ends)).total_seconds() or 1.0

    def place(span: _Span) -> tuple[float, float]:
        left, wide = (span[0] - begin).total_seconds(), (span[1] - span[0]).total_seconds()
        return round(100 * left / whole, 2), round(100 * wide / whole, 2)

    return [Fold(number, _dates(train), _dates(test), place(train), place(test)) for number, train, test in spans]


def _span(ends: Any) -> _Span:
    first, last = ends
    return datetime.fromisoformat(first), datetime.fromisoformat(last)


def _dates(span: _Span) -> tuple[str, str]:
    return day(span[0].isoformat()), day(span[1].isoformat())
