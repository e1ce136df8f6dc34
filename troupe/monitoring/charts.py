"""Geometry of the report's charts: numbers in, positions out. The template draws them.

Positions are per mille of the drawing area (x to the right, y downwards), which the page stretches to any width;
strokes do not scale and labels are ordinary text beside it, so a chart reads as well on a phone as on a screen. Colours
are names of CSS variables (`agent-0`, `ink`, `before`), so that both colour schemes share one drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Histogram", "Line", "Plot", "Series", "histogram", "line_plot", "number", "percent", "smooth", "ticks"]

Point = tuple[float, float]

_HOVERED = 400
"""Most positions that answer to the pointer: enough for a chart of a thousand pixels, and small on the wire."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `band` holds (x, low, high); a `faint` one is background for another and has no legend of its own."""

    name: str
    colour: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn series: SVG path data."""

    name: str
    colour: str
    path: str
    band: str
    faint: bool
    dots: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn chart. Ticks are (percent along the axis, label)."""

    title: str
    note: str
    lines: tuple[Line, ...]
    bars: tuple[dict[str, Any], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_name: str
    legend: tuple[tuple[str, str], ...]  # (name, colour)
    hover: tuple[dict[str, Any], ...]
    label: str  # the chart in words, for those who do not see it


@dataclass(frozen=True, slots=True)
class Histogram:
    """Two distributions to compare: values before and after."""

    title: str
    first: Sequence[float]
    last: Sequence[float]
    colour: str
    note: str = ""
    names: tuple[str, str] = ("first update", "last update")
    integers: bool = False


def number(value: float) -> str:
    """`0.123`, `12.3`, `1,234`, `3.8e-06`: three significant digits."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """`61.3 %` of a share, with a space that does not break."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that cover [low, high]."""
    span = high - low
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """Centred moving average over up to `window` points; the window shrinks at both ends, so that no end is bent."""
    out = []
    for i, (x, _) in enumerate(points):
        half = min(window // 2, i, len(points) - 1 - i)
        near = [y for _, y in points[i - half : i + half + 1]]
        out.append((x, sum(near) / len(near)))
    return out


def line_plot(
    title: str,
    series: Sequence[Series],
    *,
    note: str = "",
    share: bool = False,
    in_view: Sequence[float] = (0.0,),
    x_name: str = "update",
) -> Plot:
    """Lines over updates. `share`: values are shares, labelled as percentages; `in_view`: what the axis must show.

    Raises ValueError where no series has a point: an empty chart would say that nothing happened.
    """
    xs = sorted({x for s in series for x, _ in s.points})
    if not xs:
        raise ValueError(f"the chart {title!r} has no point")
    values = [y for s in series for _, y in s.points] + [y for s in series for b in s.band for y in b[1:]]
    y_ticks = _y_ticks([*values, *in_view])
    x_low, x_high = (xs[0], xs[-1]) if xs[-1] > xs[0] else (xs[0] - 1, xs[0] + 1)
    at_x, at_y = _scale(x_low, x_high, flip=False), _scale(y_ticks[0], y_ticks[-1], flip=True)
    told = percent if share else number
    return Plot(
        title=title,
        note=note,
        lines=tuple(_line(s, at_x, at_y) for s in series if s.points),
        bars=(),
        x_ticks=tuple((at_x(t) / 10, f"{t:g}") for t in _x_ticks(xs)),
        y_ticks=tuple((100 - at_y(t) / 10, f"{100 * t:g} %" if share else number(t)) for t in y_ticks),
        x_name=x_name,
        legend=tuple((s.name, s.colour) for s in series if s.points and not s.faint),
        hover=tuple(_hover(series, xs, at_x, told, x_name)),
        label=_in_words(title, series, told, x_name),
    )


def histogram(chart: Histogram) -> Plot:
    """Shares of the values before and after, side by side: a pair of bars per value where there are few, else per bin.

    Raises ValueError where either side is empty.
    """
    if not chart.first or not chart.last:
        raise ValueError(f"the chart {chart.title!r} compares nothing")
    bins = _bins(chart)
    y_ticks = ticks(0, max(max(b.first, b.last) for b in bins), 3)
    width = 1000 / len(bins)
    middles = [(i + 0.5) * width / 10 for i in range(len(bins))]
    every = math.ceil(len(bins) / 8)
    means = [number(sum(side) / len(side)) for side in (chart.first, chart.last)]
    return Plot(
        title=chart.title,
        note=chart.note,
        lines=(),
        bars=tuple(bar for at, b in zip(middles, bins, strict=True) for bar in _bars(b, at, width, y_ticks[-1], chart)),
        x_ticks=tuple((at, b.tick) for at, b in zip(middles, bins, strict=True))[::every],
        y_ticks=tuple((100 * t / y_ticks[-1], f"{100 * t:g} %") for t in y_ticks),
        x_name="",
        legend=((chart.names[0], "before"), (chart.names[1], chart.colour)),
        hover=tuple(_bin_hover(b, at, chart) for at, b in zip(middles, bins, strict=True)),
        label=f"{chart.title}: mean {means[0]} in the {chart.names[0]}, {means[1]} in the {chart.names[1]}",
    )


# ---------------------------------------------------------------------------------------------- lines


def _y_ticks(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = (0.0, 1.0) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    return ticks(low, high)


def _x_ticks(xs: Sequence[float]) -> list[float]:
    if len(xs) <= 6:
        return list(xs)
    return [t for t in ticks(xs[0], xs[-1], 6) if xs[0] <= t <= xs[-1] and t == int(t)]


def _scale(low: float, high: float, *, flip: bool) -> Callable[[float], float]:
    def place(value: float) -> float:
        share = (value - low) / (high - low)
        return round(1000 * (1 - share if flip else share), 1)

    return place


def _line(series: Series, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> Line:
    drawn = [(at_x(x), at_y(y)) for x, y in series.points]
    upper = [(at_x(x), at_y(high)) for x, _, high in series.band]
    lower = [(at_x(x), at_y(low)) for x, low, _ in reversed(series.band)]
    alone = len(drawn) == 1
    return Line(
        name=series.name,
        colour=series.colour,
        path=_path(drawn),
        band=_path(upper + lower) + "Z" if upper else "",
        faint=series.faint,
        dots=tuple(drawn) if series.dots or alone else (),
    )


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _hover(
    series: Sequence[Series],
    xs: Sequence[float],
    at_x: Callable[[float], float],
    told: Callable[[float], str],
    x_name: str,
) -> list[dict[str, Any]]:
    tables: list[tuple[Series, Mapping[float, float], Mapping[float, str]]] = [
        (s, dict(s.points), {x: f" [{told(low)}, {told(high)}]" for x, low, high in s.band}) for s in series
    ]
    return [
        {
            "p": round(at_x(x) / 10, 2),
            "t": f"{x_name} {x:g}",
            "v": [[s.colour, s.name, told(ys[x]) + bands.get(x, "")] for s, ys, bands in tables if x in ys],
        }
        for x in xs[:: math.ceil(len(xs) / _HOVERED)]
    ]


def _in_words(title: str, series: Sequence[Series], told: Callable[[float], str], x_name: str) -> str:
    ends = [(s.name, *s.points[0], *s.points[-1]) for s in series if s.points and not s.faint]
    said = [f"{name} from {told(a)} at {x_name} {x:g} to {told(b)} at {z:g}" for name, x, a, z, b in ends]
    return f"{title}: {'; '.join(said)}"


# ---------------------------------------------------------------------------------------------- histograms


@dataclass(frozen=True, slots=True)
class _Bin:
    """A value or a range of values, and its share of both sides."""

    tick: str
    name: str
    first: float
    last: float


def _bins(chart: Histogram) -> list[_Bin]:
    distinct = sorted({round(v, 3) for v in (*chart.first, *chart.last)})
    if len(distinct) <= 8:
        return [_Bin(f"{d:g}", f"{d:g}", *(_share(side, d, d) for side in (chart.first, chart.last))) for d in distinct]
    low, high = distinct[0], distinct[-1]
    width = float(math.ceil((high - low + 1) / 16)) if chart.integers else (high - low) / 16
    count = int((high - low) // width) + 1 if chart.integers else 16
    bins = []
    for i in range(count):
        start, end = low + i * width, low + (i + 1) * width
        last = end - 1 if chart.integers else high if i == count - 1 else math.nextafter(end, start)
        name = f"{start:g}" if start == last else f"{number(start)} to {number(last)}"
        bins.append(_Bin(number(start), name, *(_share(side, start, last) for side in (chart.first, chart.last))))
    return bins


def _share(values: Sequence[float], low: float, high: float) -> float:
    """Share of the values in [low, high], rounded as the bins are."""
    return sum(low <= round(value, 3) <= high for value in values) / len(values)


def _bars(found: _Bin, middle: float, width: float, top: float, chart: Histogram) -> list[dict[str, Any]]:
    wide = min(0.38 * width, 130)  # one value alone would otherwise fill the chart
    left = 10 * middle - 1.025 * wide
    return [
        {
            "x": round(left + k * 1.05 * wide, 1),
            "y": round(1000 * (1 - share / top), 1),
            "width": round(wide, 1),
            "height": round(1000 * share / top, 1),
            "colour": colour,
        }
        for k, (share, colour) in enumerate(((found.first, "before"), (found.last, chart.colour)))
    ]


def _bin_hover(found: _Bin, middle: float, chart: Histogram) -> dict[str, Any]:
    first = ["before", chart.names[0], percent(found.first)]
    return {"p": round(middle, 2), "t": found.name, "v": [first, [chart.colour, chart.names[1], percent(found.last)]]}
