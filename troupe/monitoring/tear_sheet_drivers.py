"""What the tear sheet shows of a policy's decisions: what was allocated, in which regimes, and which inputs moved it.

Attributions (`troupe.maths.attribution`) describe networks, not the market. An input with a large share is read, and
need not earn anything; inputs that move together share their part or leave it to one of them, as training had it; none
is a cause. The page says so above the bars.

`drivers` takes that part of evaluation.json as it stands in the file. Where it is damaged it raises DataError or what
Python raises, and `tear_sheet.py` makes a sentence of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from troupe.errors import DataError
from troupe.monitoring import tear_sheet_time as time
from troupe.monitoring.charts import Line, Plot
from troupe.monitoring.tear_sheet_numbers import NOT_DEFINED, plain, ratio, real, share, words
from troupe.monitoring.tear_sheet_panels import Amount, amounts
from troupe.monitoring.verdict import Measured, measured

__all__ = ["Agent", "Drivers", "Regimes", "drivers"]

_Place = Callable[[float], float]
"""From the number of a kept bar to its place in the drawing, per mille."""

_PARTS = ("agents", "allocation", "by_regime")
_STOPS = 150
"""Most dates that answer to the pointer."""
_NAMED = 8
"""Most outputs that are named."""
_FLOOR, _STRIP = 925.0, 955.0
"""Per mille of the drawing's height: where shares of 0 lie, and where the strip of regimes begins."""
_REGIMES: Mapping[str, str] = {"volatile": "mixed", "bull": "good", "bear": "bad", "neutral": "before"}
"""Colours of the regimes that have a name of their own; others take turns."""
_OTHERS = ("agent-4", "agent-6", "agent-5", "agent-7")


@dataclass(frozen=True, slots=True)
class Agent:
    """Whose decisions, what they are, and rows with bars. `rest` says what all other features have together; cells of
    `groups` are a share and, where `shuffled`, how much the score fell and its interval."""

    name: str
    outputs: str
    features: tuple[Amount, ...]
    rest: str
    groups: tuple[Amount, ...]
    shuffled: bool


@dataclass(frozen=True, slots=True)
class Regimes:
    """A table: names of the sectors, and rows (regime, texts)."""

    sectors: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Drivers:
    """What the section shows; a part that the record lacks is empty, an allocation without a point a sentence."""

    agents: tuple[Agent, ...]
    allocation: Plot | str
    regimes: Regimes


def drivers(part: Mapping[str, Any]) -> Drivers:
    """`agents`, `allocation` and `by_regime` are each optional: a single policy allocates nothing to anybody."""
    if not any(part.get(name) is not None for name in _PARTS):
        raise DataError(f"it holds none of {', '.join(_PARTS)}")
    allocated = part.get("allocation")
    names = [] if allocated is None else [words(name) for name in allocated["shares"]]
    colours = {name: f"agent-{i % 8}" for i, name in enumerate(names)}
    return Drivers(
        tuple(_agent(entry, colours) for entry in part.get("agents") or ()),
        "" if allocated is None else _allocation(allocated, colours),
        _regimes(part.get("by_regime") or ()),
    )


# ---------------------------------------------------------------------------------------------- features


def _agent(entry: Mapping[str, Any], colours: Mapping[str, str]) -> Agent:
    """In the colour that its sector has in the allocation; who allocates is drawn in ink, as the risk is."""
    name, named = words(entry["agent"]), [words(output) for output in entry.get("outputs") or ()]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    tone = colours.get(name, "ink" if colours else "agent-0")
    sizes = [(words(each["name"]), real(each["share"])) for each in entry.get("features") or ()]
    rest = 1.0 - _total(sizes, f"features of {name}")
    groups = entry.get("groups") or ()
    shuffled = any(each.get("fall") is not None for each in groups)
    return Agent(
        name,
        ", ".join(named[:_NAMED]) + more,
        tuple(amounts([(feature, (share(size),), size) for feature, size in _falling(sizes)], tone)),
        share(rest) if sizes and rest >= 5e-4 else "",
        tuple(amounts([_group(each, shuffled) for each in groups], tone)),
        shuffled,
    )


def _falling(sizes: Sequence[tuple[str, float | None]]) -> list[tuple[str, float | None]]:
    return sorted(sizes, key=lambda row: -(row[1] or 0.0))


def _total(sizes: Sequence[tuple[str, float | None]], whose: str) -> float:
    """Of shares; raises DataError where they are none."""
    total = math.fsum(_part(size, f"a share among the {whose:.60}") or 0.0 for _, size in sizes)
    if total > 1 + 1e-6:
        raise DataError(f"shares of the {whose:.60} sum to {total:.4g}, which is more than 1")
    return total


def _part(value: float | None, what: str) -> float | None:
    if value is not None and not -1e-6 <= value <= 1 + 1e-6:
        raise DataError(f"{what} is {value:.4g}, which is outside 0 to 1")
    return value


def _group(entry: Mapping[str, Any], shuffled: bool) -> tuple[str, tuple[str, ...], float | None]:
    """Groups may overlap, so that their shares need not sum to anything."""
    name, fall = words(entry["name"]), measured(entry.get("fall"))
    size = _part(real(entry.get("share")), f"the share of group {name:.60}")
    told = (NOT_DEFINED, "") if fall is None else (plain(fall.mean), _bounds(fall))
    return name, (share(size), *(told if shuffled else ())), size


def _bounds(found: Measured) -> str:
    """In the unit of the score, which may be small."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"[{plain(found.low)}, {plain(found.high)}]"


# ---------------------------------------------------------------------------------------------- allocation


@dataclass(frozen=True, slots=True)
class _Point:
    """One kept bar: its place on the axis, the shares in the order of the sectors, the risk appetite, the regime."""

    x: int
    shares: tuple[float, ...]
    risk: float | None
    regime: str | None


def _allocation(part: Mapping[str, Any], colours: Mapping[str, str]) -> Plot | str:
    """Shares of the risk as areas that stand on each other, the risk appetite as a line over them, regimes below."""
    axis = time._axis([real(moment) for moment in part["times"]])
    points = list(_points(axis.rows, part, list(colours)))
    if not points:
        return "Allocation over time: the record holds no point of it."
    last = max(1, len(axis.rows) - 1)

    def at(x: float) -> float:
        return round(1000 * x / last, 1)

    labels = _labels(points)
    risk = [(at(p.x), _height(p.risk)) for p in points if p.risk is not None]
    lines = [*_areas(points, colours, at), *([_line("risk appetite", "ink", risk)] if risk else [])]
    legend = [(line.name, line.colour) for line in lines] + [(f"regime: {name}", c) for name, c in labels.items()]
    says = " The strip below is the regime that was detected." if labels else ""
    return Plot(
        title="Allocation over time",
        note="Shares of the risk by sector, and the line is the appetite for it: how much of what is allowed was asked "
        f"for.{says}",
        lines=tuple(lines), bars=tuple(_strip(points, labels, at)), x_ticks=axis.ticks,
        y_ticks=tuple((100 - _height(i / 4) / 10, f"{25 * i} %") for i in range(5)), x_name="", legend=tuple(legend),
        hover=tuple(_stop(p, axis.names, colours, at) for p in points[:: math.ceil(len(points) / _STOPS)]),
        label=_in_words(points, list(colours), axis.names),
    )  # fmt: skip


def _points(rows: Sequence[int], part: Mapping[str, Any], sectors: Sequence[str]) -> Iterator[_Point]:
    """A bar of which a share is not defined has no place in a sum, and is left out."""
    count = len(part["times"])
    columns = {name: _column(part["shares"][name], count, f"shares of {name:.60}") for name in sectors}
    risk = _column(part["risk"], count, "risk") if part.get("risk") is not None else [None] * count
    regimes = part["regime"] if part.get("regime") is not None else [None] * count
    if len(regimes) != count:
        raise DataError(f"regime has {len(regimes)} points, and there are {count} times")
    for x, row in enumerate(rows):
        sizes = [(name, columns[name][row]) for name in sectors]
        _total(sizes, "sectors")
        found = tuple(size for _, size in sizes if size is not None)
        if len(found) == len(sectors):
            yield _Point(x, found, risk[row], None if regimes[row] is None else words(regimes[row]))


def _column(row: Any, count: int, what: str) -> list[float | None]:
    if len(row) != count:
        raise DataError(f"{what} has {len(row)} points, and there are {count} times")
    return [_part(real(value), what) for value in row]


def _height(value: float) -> float:
    return round(_FLOOR * (1 - value), 1)


def _line(name: str, colour: str, points: Sequence[tuple[float, float]], band: str = "") -> Line:
    return Line(name, colour, _path(points), band, False, tuple(points) if len(points) == 1 else ())


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _areas(points: Sequence[_Point], colours: Mapping[str, str], at: _Place) -> Iterator[Line]:
    """Each sector's area, from what is below it to where it ends; its line is the upper edge."""
    tops = [(0.0, *accumulate(p.shares)) for p in points]
    for i, (name, colour) in enumerate(colours.items()):
        upper = [(at(p.x), _height(top[i + 1])) for p, top in zip(points, tops, strict=True)]
        lower = [(at(p.x), _height(top[i])) for p, top in zip(points, tops, strict=True)]
        yield _line(name, colour, upper, _path([*upper, *reversed(lower)]) + "Z")


def _labels(points: Sequence[_Point]) -> dict[str, str]:
    """Colours of the regimes that occur, those with a name of their own first."""
    present = list(dict.fromkeys(p.regime for p in points if p.regime is not None))
    others = [name for name in present if name not in _REGIMES]
    known = {name: colour for name, colour in _REGIMES.items() if name in present}
    return known | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}


def _strip(points: Sequence[_Point], colours: Mapping[str, str], at: _Place) -> Iterator[dict[str, Any]]:
    """One bar for each stretch of the same regime, from half a step before its first point to half a step after."""
    for regime, stretch in groupby(points, key=lambda p: p.regime):
        if regime is None:
            continue
        places = [p.x for p in stretch]
        left, right = max(0.0, at(places[0] - 0.5)), min(1000.0, at(places[-1] + 0.5))
        size = {"width": round(right - left, 1), "height": 1000 - _STRIP}
        yield {"x": left, "y": _STRIP, **size, "colour": colours[regime]}


def _stop(point: _Point, names: Sequence[str], colours: Mapping[str, str], at: _Place) -> dict[str, Any]:
    """From the top downwards, as they stand on each other."""
    shares = list(zip(colours.items(), point.shares, strict=True))
    values = [[colour, name, share(size)] for (name, colour), size in reversed(shares)]
    regime = "" if point.regime is None else f" \N{MIDDLE DOT} {point.regime}"
    told = [["ink", "risk appetite", share(point.risk)]] if point.risk is not None else []
    return {"p": round(at(point.x) / 10, 2), "t": names[point.x] + regime, "v": [*told, *values]}


def _in_words(points: Sequence[_Point], sectors: Sequence[str], names: Sequence[str]) -> str:
    rows: list[tuple[str, list[float]]] = [(name, [p.shares[i] for p in points]) for i, name in enumerate(sectors)]
    rows.append(("risk appetite", [p.risk for p in points if p.risk is not None]))
    said = [
        f"{name} {share(math.fsum(values) / len(values))} on average, at most {share(max(values))}"
        for name, values in rows
        if values
    ]
    return f"Allocation from {names[points[0].x]} to {names[points[-1].x]}: {'; '.join(said)}"


# ---------------------------------------------------------------------------------------------- regimes


def _regimes(part: Any) -> Regimes:
    sectors = tuple(dict.fromkeys(words(name) for entry in part for name in entry["shares"]))
    total = math.fsum(real(entry["bars"]) or 0.0 for entry in part)
    return Regimes(sectors, tuple((words(entry["regime"]), _cells(entry, sectors, total)) for entry in part))


def _cells(entry: Mapping[str, Any], sectors: Sequence[str], total: float) -> tuple[str, ...]:
    """Bars, their share of all, the mean share of each sector, the mean risk appetite, the Sharpe ratio."""
    bars = real(entry["bars"])
    return (
        plain(bars), share(None if bars is None or not total else bars / total),
        *(share(real(entry["shares"].get(name))) for name in sectors), share(real(entry.get("risk"))),
        ratio(real(entry.get("sharpe"))),
    )  # fmt: skip
