"""What the tear sheet shows of strategies, trades, markets and costs: charts, and rows that are ready to be printed.

Every function takes a part of evaluation.json as it stands in the file. Where it is damaged it raises DataError or what
Python raises, and `tear_sheet.py` makes a sentence of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from troupe.errors import DataError
from troupe.monitoring.charts import Plot, Series, line_plot, ticks
from troupe.monitoring.tear_sheet_numbers import NOT_DEFINED, bounds, day, minus, plain, real, share, told, words
from troupe.monitoring.verdict import Measured, measured

__all__ = ["Amount", "Forest", "Strategy", "Sweep", "Trades", "amounts", "forest", "strategies", "sweep", "trades"]


# ---------------------------------------------------------------------------------------------- strategies


@dataclass(frozen=True, slots=True)
class Strategy:
    """One strategy out of sample; `metrics` lack what is not defined."""

    name: str
    learned: bool
    seeds: int
    over: str  # what the runs differ in: seeds or histories
    metrics: Mapping[str, Measured]
    p: float | None
    edge: bool
    significant: int
    probabilistic: float | None
    deflated: float | None
    kupiec: float | None
    ruined: int


def strategies(part: Any) -> tuple[Strategy, ...]:
    """The learned ones first, otherwise in the order of the record."""
    return tuple(sorted((_strategy(entry) for entry in part), key=lambda found: not found.learned))


def _strategy(entry: Mapping[str, Any]) -> Strategy:
    found = {words(name): measured(value) for name, value in entry["metrics"].items()}
    return Strategy(
        words(entry["name"]), entry["learned"] is True, int(entry["seeds"]), words(entry.get("over") or "seeds"),
        {name: value for name, value in found.items() if value is not None}, real(entry.get("p")),
        entry.get("edge") is True, int(entry.get("significant") or 0), real(entry.get("probabilistic")),
        real(entry.get("deflated")), real(entry.get("kupiec")), int(entry.get("ruined") or 0),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Forest:
    """Sharpe ratios of all strategies on one scale, in percent along it: ticks (place, label), where 0 and the smallest
    detectable ratio lie, and (low, mean, high) of each strategy that has one."""

    ticks: tuple[tuple[float, str], ...]
    zero: float
    detectable: float | None
    rows: Mapping[str, tuple[float, float, float]]


def forest(found: Sequence[Strategy], detectable: float | None) -> Forest | None:
    """None where no strategy has a Sharpe ratio. Whiskers are cut at twice the largest of the ratios: the interval of
    two seeds would leave no room for anything else."""
    ratios = {each.name: each.metrics["sharpe"] for each in found if "sharpe" in each.metrics}
    if not ratios:
        return None
    reach = 2 * max(1.0, detectable or 0.0, *(abs(each.mean) for each in ratios.values()))
    ends = [bound for each in ratios.values() for bound in (each.low, each.high, each.mean) if bound is not None]
    kept = [min(max(bound, -reach), reach) for bound in (*ends, 0.0, detectable or 0.0)]
    scale = ticks(min(kept), max(max(kept), min(kept) + 0.1))

    def place(value: float) -> float:
        at = 100 * (value - scale[0]) / (scale[-1] - scale[0])
        return round(min(max(at, 0.0), 100.0), 2)

    def whisker(found: Measured) -> tuple[float, float, float]:
        low, high = scale[0] if found.low is None else found.low, scale[-1] if found.high is None else found.high
        return place(low), place(found.mean), place(high)

    rows = {name: whisker(each) for name, each in ratios.items()}
    marks = tuple((place(tick), minus(f"{tick:g}")) for tick in scale)
    return Forest(marks, place(0.0), None if detectable is None else place(detectable), rows)


# ---------------------------------------------------------------------------------------------- trades, markets, costs


@dataclass(frozen=True, slots=True)
class Trades:
    """Round trips: how many, whose, how their profits spread, and rows (instrument, side, opened, closed, bars, profit,
    tone)."""

    count: int
    of: str
    chart: Plot | str
    shown: tuple[tuple[str, ...], ...]


def trades(part: Any) -> Trades:
    """`part["of"]` (optional) says whose they are, where several seeds traded."""
    profits = [value for entry in part["histogram"] if (value := real(entry)) is not None]
    chart = _distribution(profits) if profits else "Distribution: no round trip was closed."
    of = words(part["of"]) if part.get("of") is not None else ""
    return Trades(int(part["count"]), of, chart, tuple(_trade(entry) for entry in part["shown"]))


def _trade(entry: Mapping[str, Any]) -> tuple[str, ...]:
    profit = real(entry["profit"])
    tone = "" if not profit else "good" if profit > 0 else "bad"
    ends = day(entry["opened"]), day(entry["closed"])
    text = NOT_DEFINED if profit is None else minus(f"{profit:+,.2f}")
    return (words(entry["instrument"]), words(entry["side"]), *ends, plain(real(entry["bars"])), text, tone)


def _distribution(profits: Sequence[float]) -> Plot:
    """Bars of equal width, divided at 0. The outermost hold what lies beyond, at most 1 % of the trips on each side."""
    ordered = sorted(profits)
    beyond = len(ordered) // 100
    low, high = min(ordered[beyond], 0.0), max(ordered[-1 - beyond], 0.0)
    width = ticks(0, (high - low) or 1.0, 24)[1]
    first, count = math.floor(low / width + 1e-9), math.ceil((high - low) / width) + 2
    bins = [0] * count
    for profit in ordered:
        bins[min(max(math.floor(profit / width + 1e-9) - first, 0), count - 1)] += 1
    while len(bins) > 1 and bins[-1] == 0:
        bins.pop()
    return _bars(bins, [(first + i) * width for i in range(len(bins))], width, ordered)


def _bars(bins: Sequence[int], edges: Sequence[float], width: float, profits: Sequence[float]) -> Plot:
    scale, each = ticks(0, max(bins), 3), 1000 / len(bins)
    won = sum(profit > 0 for profit in profits) / len(profits)
    colours = ["good" if edge > -width / 2 else "bad" for edge in edges]
    names = [minus(f"{edge:.4g} to {edge + width:.4g} %") for edge in edges]
    bars = tuple(
        {
            "x": round((i + 0.08) * each, 1),
            "y": round(1000 * (1 - n / scale[-1]), 1),
            "width": round(0.84 * each, 1),
            "height": round(1000 * n / scale[-1], 1),
            "colour": colour,
        }
        for i, (n, colour) in enumerate(zip(bins, colours, strict=True))
    )
    hover = tuple(
        {"p": round((i + 0.5) * each / 10, 2), "t": name, "v": [[colour, "round trips", f"{n:,}"]]}
        for i, (n, colour, name) in enumerate(zip(bins, colours, names, strict=True))
    )
    span = len(bins) * width
    marks = [t for t in ticks(edges[0], edges[0] + span, 5) if edges[0] - 1e-9 <= t <= edges[0] + 0.97 * span]
    middle = profits[len(profits) // 2]
    said = f"{share(won)} of them won; the one in the middle made {minus(f'{middle:.2g}')} % of the capital"
    return Plot(
        title="Profit per round trip", note=f"In percent of the capital, after costs. {said}.", lines=(), bars=bars,
        x_ticks=tuple((100 * (t - edges[0]) / span, minus(f"{t:g} %")) for t in marks),
        y_ticks=tuple((100 * t / scale[-1], f"{t:g}") for t in scale if t == int(t)), x_name="", legend=(), hover=hover,
        label=f"Profit per round trip: {len(profits):,} round trips; {said}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Amount:
    """A row with a bar from `left` of `width`, both in percent, in the colour of `tone`; `cells` are its texts."""

    name: str
    cells: tuple[str, ...]
    left: float
    width: float
    tone: str


def amounts(
    rows: Sequence[tuple[str, tuple[str, ...], float | None]], tone: str = "", whole: float = 0.0
) -> list[Amount]:
    """Rows (name, texts, size) with bars on one scale that holds 0 and `whole`; the tone follows the sign unless one is
    given."""
    sizes = [size for _, _, size in rows if size is not None]
    low, high = min([0.0, *sizes]), max([whole, *sizes])
    span = (high - low) or 1.0

    def bar(name: str, cells: tuple[str, ...], size: float | None) -> Amount:
        begin, end = sorted((0.0, size or 0.0))
        left, wide = 100 * (begin - low) / span, 100 * (end - begin) / span
        return Amount(name, cells, round(left, 2), round(wide, 2), tone or ("bad" if (size or 0) < 0 else "good"))

    return [bar(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The learned strategy under other costs: the chart, rows (factor, Sharpe, interval, annual return, interval), and
    what they say about the costs that it bears."""

    chart: Plot | str
    rows: tuple[tuple[str, ...], ...]
    sentence: str


def sweep(part: Any, break_even: Any) -> Sweep:
    points = sorted((_point(entry) for entry in part), key=lambda point: point[0])
    drawn = [(factor, found) for factor, _, found in points if found is not None]
    chart: Plot | str = "Annual return under other costs: it is not defined anywhere."
    if drawn:
        band = [(f, e.low, e.high) for f, e in drawn if e.low is not None and e.high is not None]
        line = Series("annual return", "ink", [(f, e.mean) for f, e in drawn], band, dots=True)
        note = "The mean, and its 95 % interval as a band."
        plot = line_plot("Annual return", [line], note=note, share=True, x_name="costs \N{MULTIPLICATION SIGN}")
        chart = replace(plot, y_ticks=tuple((at, minus(label)) for at, label in plot.y_ticks))
    rows = tuple(
        (f"{factor:g}\N{MULTIPLICATION SIGN}", *_cells("sharpe", one), *_cells("annual return", two))
        for factor, one, two in points
    )
    return Sweep(chart, rows, _break_even(drawn, real(break_even)))


def _point(entry: Mapping[str, Any]) -> tuple[float, Measured | None, Measured | None]:
    factor = real(entry["factor"])
    if factor is None:
        raise DataError("a factor on the costs is null")
    return factor, measured(entry["sharpe"]), measured(entry["annual"])


def _cells(metric: str, found: Measured | None) -> tuple[str, str]:
    return (NOT_DEFINED, "") if found is None else (told(metric, found.mean), bounds(metric, found))


def _break_even(drawn: Sequence[tuple[float, Measured]], factor: float | None) -> str:
    if factor is not None:
        return f"The mean return reaches zero at {factor:.2f} times the costs that were assumed."
    if not drawn:
        return "No break-even cost can be given."
    (first, least), (last, most) = drawn[0], drawn[-1]
    if least.mean <= 0:
        free = "without any costs" if first == 0 else f"at {first:g} times the costs, the lowest that were tried"
        return f"It loses even {free}: there is no break-even."
    if most.mean > 0:
        return f"It still gains at {last:g} times the costs, the highest that were tried: the break-even lies beyond."
    return "The record gives no break-even cost."
