"""Geometry of the report's charts: numbers in, positions out. The template draws them.

Positions are per mille of the drawing area (x to the right, y downwards), which the page stretches to any width; strokes do not
scale and labels are ordinary text beside it, so a chart reads as well on a phone as on a screen. Colours are
names of CSS variables (`agent-0`, `ink`, `before`), so that both colour schemes share one drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    integers: bool = field(default=False)


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
    """`61.3 %` of a share."""
    return f"{100 * value:.1f} %"


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
    """Lines over updates. `share`: values are shares, labelled as percentages; `in_view`: values that the axis must show.

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
        legend=tuple((s.name, s.colour) for s in series if s.points and not s.faint),
        hover=tuple(_hover(series, xs, at_x, told, x_name)),
        label=_in_words(title, series, told, x_name),
    )


def histogram(chart: Histogram) -> Plot:
    """Shares of the values before and after, side by side: one pair of bars per value where there are few, else per bin.

    Raises ValueError where either side is empty.
    """
    if not chart.first or not chart.last:
        raise ValueError(f"the chart {chart.title!r} compares nothing")
    labels, first, last = _counts(chart)
    top = ticks(0, max(*first, *last), 3)[-1]
    width = 1000 / len(labels)
    bars = []
    for i in range(len(labels)):
        for k, shares in enumerate((first, last)):
            height = 1000 * shares[i] / top
            left = i * width + width * (0.14 + 0.37 * k)
            bars.append(
                {"x": round(left, 1), "y": round(1000 - height, 1), "width": round(width * 0.35, 1),
                 "height": round(height, 1), "colour": ("before", chart.colour)[k]}
            )  # fmt: skip
    every = max(1, math.ceil(len(labels) / 8))
    hover = [
        {"p": round((i + 0.5) * width / 10, 2), "t": labels[i],
         "v": [["before", chart.names[0], percent(first[i])], [chart.colour, chart.names[1], percent(last[i])]]}
        for i in range(len(labels))
    ]  # fmt: skip
    return Plot(
        title=chart.title,
        note=chart.note,
        lines=(),
        bars=tuple(bars),
        x_ticks=tuple(((i + 0.5) * width / 10, labels[i]) for i in range(0, len(labels), every)),
        y_ticks=tuple((100 * t / top, f"{100 * t:g} %") for t in ticks(0, top, 3)),
        legend=((chart.names[0], "before"), (chart.names[1], chart.colour)),
        hover=tuple(hover),
        label=f"{chart.title}: mean {number(_mean(chart.first))} in the {chart.names[0]}, "
        f"{number(_mean(chart.last))} in the {chart.names[1]}",
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
    return [t for t in ticks(xs[0], xs[-1], 5) if xs[0] <= t <= xs[-1] and t == int(t)]


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
    series: Sequence[Series], xs: Sequence[float], at_x: Callable[[float], float], told: Callable[[float], str], x_name: str
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
    ends = [
        f"{s.name} from {told(s.points[0][1])} at {x_name} {s.points[0][0]:g} to {told(s.points[-1][1])} at {s.points[-1][0]:g}"
        for s in series
        if s.points and not s.faint
    ]
    return f"{title}: {'; '.join(ends)}"


# ---------------------------------------------------------------------------------------------- histograms


def _counts(chart: Histogram) -> tuple[list[str], list[float], list[float]]:
    """Labels and the shares of both sides, in [0, 1]."""
    distinct = sorted({round(v, 3) for v in (*chart.first, *chart.last)})
    if len(distinct) <= 8:
        shares = [[sum(round(v, 3) == d for v in side) / len(side) for d in distinct] for side in (chart.first, chart.last)]
        return [f"{d:g}" for d in distinct], shares[0], shares[1]
    low, high = distinct[0], distinct[-1]
    width = max(1.0, math.ceil((high - low + 1) / 16)) if chart.integers else (high - low) / 16
    bins = int((high - low) // width) + 1 if chart.integers else 16
    placed = [[min(bins - 1, int((v - low) / width)) for v in side] for side in (chart.first, chart.last)]
    shares = [[side.count(i) / len(side) for i in range(bins)] for side in placed]
    return [_bin_label(low + i * width, width, chart.integers) for i in range(bins)], shares[0], shares[1]


def _bin_label(start: float, width: float, integers: bool) -> str:
    if integers:
        return f"{start:g}" if width == 1 else f"{start:g}-{start + width - 1:g}"
    return number(start + width / 2)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
