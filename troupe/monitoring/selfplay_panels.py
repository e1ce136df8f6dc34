"""What the page of a self-play run shows of its metrics and its arena. A part without data is the sentence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from troupe.maths.ratings import Score
from troupe.monitoring.charts import Plot, Series, line_plot, number, ticks
from troupe.monitoring.panels import Panel, TimeSplit, points_of
from troupe.monitoring.run_folder import Found, Rows
from troupe.monitoring.verdict import Measured, measured

__all__ = [
    "Arena",
    "EloCurve",
    "Judged",
    "elo",
    "elo_curve",
    "essentials",
    "game_charts",
    "interval",
    "learning_charts",
    "opponents",
    "read_arena",
    "time_split",
    "told",
]

_CANDIDATE = "iteration {}"
_GAP = 9.0
"""Percent of the chart's height that one label beside it takes."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate at its gate. `difference` is its Elo against the incumbent; None: not measured."""

    iteration: int
    incumbent: str
    promoted: bool
    reasons: tuple[str, ...]
    difference: Measured | None
    scores: Mapping[str, Score]

    @property
    def name(self) -> str:
        return _CANDIDATE.format(self.iteration)


@dataclass(frozen=True, slots=True)
class Arena:
    """Every judgement in order, and Elo of everybody who was met: bounds of None are open."""

    judgements: tuple[Judged, ...]
    ratings: Mapping[str, Measured]

    @property
    def anchors(self) -> dict[str, Measured]:
        """Those who were met and are no candidates of this run."""
        judged = {judgement.name for judgement in self.judgements}
        return {name: rating for name, rating in self.ratings.items() if name not in judged}

    @property
    def zero(self) -> str | None:
        """Who stands at 0 Elo by definition."""
        return next((n for n, r in self.ratings.items() if (r.mean, r.low, r.high) == (0.0, 0.0, 0.0)), None)


def read_arena(record: Any) -> Arena:
    """From arena.json. Raises KeyError, TypeError, ValueError, DataError where it is none."""
    ratings = {
        str(name): Measured(float(mean), low, high, games)
        for name, (mean, low, high, games) in record["ratings"].items()
        if mean is not None
    }
    return Arena(tuple(_judged(judgement) for judgement in record["judgements"]), ratings)


def _judged(record: Mapping[str, Any]) -> Judged:
    decision = record["decision"]
    scores = {str(name): Score(**score) for name, score in record["scores"].items()}
    reasons = tuple(str(reason) for reason in decision["reasons"])
    gap = measured(decision["difference"])
    return Judged(int(record["iteration"]), str(record["incumbent"]), bool(decision["promote"]), reasons, gap, scores)


def elo(value: float | None, *, sign: bool = False) -> str:
    """`142`, with `sign` `+142`; `open` where there is no bound."""
    if value is None:
        return "open"
    told = f"{round(value):+,}" if sign else f"{round(value):,}"
    return told.replace("-", "\N{MINUS SIGN}")


def interval(found: Measured, *, sign: bool = False) -> str:
    return f"[{elo(found.low, sign=sign)}, {elo(found.high, sign=sign)}]"


# ---------------------------------------------------------------------------------------------- strength


@dataclass(frozen=True, slots=True)
class EloCurve:
    """The chart, and labels of the anchors' lines: (percent of its height, text, colour)."""

    chart: Plot
    marks: tuple[tuple[float, str, str], ...]


def elo_curve(found: Found[Arena]) -> EloCurve | str:
    """Elo of every judged iteration with its interval, and each anchor as a level line."""
    if found.value is None:
        return found.why_not
    arena = found.value
    rated = [(float(j.iteration), arena.ratings[j.name]) for j in arena.judgements if j.name in arena.ratings]
    if not rated:
        return "Not recorded: arena.json rates no iteration."
    anchors = sorted(arena.anchors.items(), key=lambda item: item[1].mean)
    bounds = [b for _, r in rated for b in (r.low, r.mean, r.high) if b is not None]
    bounds += [rating.mean for _, rating in anchors]
    low, high = min(bounds), max(max(bounds), min(bounds) + 20)
    scale = ticks(low, high)
    band = [(x, scale[0] if r.low is None else r.low, scale[-1] if r.high is None else r.high) for x, r in rated]
    ends = sorted({rated[0][0], rated[-1][0]})
    lines = [
        Series(name, f"agent-{i % 8}", [(x, rating.mean) for x in ends]) for i, (name, rating) in enumerate(anchors)
    ]
    curve = Series("candidates", "ink", [(x, rating.mean) for x, rating in rated], band, dots=True)
    chart = line_plot(
        "Elo of the judged iterations", [*lines, curve], note=_elo_note(arena), in_view=(low, high), x_name="iteration"
    )
    marks = [((r.mean - scale[0]) / (scale[-1] - scale[0]) * 100, f"{elo(r.mean)} {n}") for n, r in anchors]
    places = _apart([at for at, _ in marks])
    return EloCurve(
        replace(chart, hover=tuple(_elo_hover(stop, x, r, lines) for stop, (x, r) in _stops(chart, rated))),
        tuple((at, text, line.colour) for at, (_, text), line in zip(places, marks, lines, strict=True)),
    )


def _elo_note(arena: Arena) -> str:
    zero = f"{arena.zero} stands at 0. " if arena.zero else ""
    open_ = any(bound is None for r in arena.ratings.values() for bound in (r.low, r.high))
    ending = " A band that reaches the edge is open there: no game sets a bound." if open_ else ""
    return f"{zero}The band is the 95 % interval; 400 Elo are ten to one.{ending}"


def _stops(chart: Plot, rated: Sequence[tuple[float, Measured]]) -> list[tuple[dict[str, Any], tuple[float, Measured]]]:
    at = dict(rated)
    names = {f"iteration {x:g}": x for x in at}
    return [(stop, (names[stop["t"]], at[names[stop["t"]]])) for stop in chart.hover if stop["t"] in names]


def _elo_hover(stop: dict[str, Any], x: float, rating: Measured, lines: Sequence[Series]) -> dict[str, Any]:
    """The measured interval, where the chart only knows the edge that it drew an open one to."""
    said = f"{elo(rating.mean)} {interval(rating)}"
    return {**stop, "v": [["ink", "candidate", said], *([s.colour, s.name, elo(s.points[0][1])] for s in lines)]}


def _apart(places: Sequence[float]) -> list[float]:
    """Rising places, moved as little as it takes to stand `_GAP` apart, within 0 to 100 where there is room."""
    moved: list[float] = []
    for at in places:
        moved.append(at if not moved else max(at, moved[-1] + _GAP))
    ceiling = max(100.0, _GAP * (len(moved) - 1))
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - _GAP
    return [round(at, 2) for at in moved]


def opponents(arena: Arena) -> list[str]:
    """Columns of the table of matches: whoever was met while not the incumbent, in order of first meeting."""
    met = [name for j in arena.judgements for name in j.scores if name != j.incumbent]
    return list(dict.fromkeys(met))


# ---------------------------------------------------------------------------------------------- over iterations

_LEARNING = (
    ("Policy loss", "learn/policy/cross_entropy", "Cross-entropy with the search's policy, in nats."),
    ("Distance to the search", "learn/policy/kl", "KL divergence of the search's policy from the network's, in nats."),
    ("Value error", "learn/value/squared_error", "Mean squared error against the value target."),
    ("Gradient norm", "learn/grad_norm/net", "Before clipping, in the last step of the iteration."),
    ("Learning rate", "learn/lr/net", "In the last step of the iteration."),
    ("Optimiser steps", "learn/steps", "Per iteration; 0 while too few positions are there."),
)
_GAMES = (
    ("Game length", "selfplay/length", "Mean searched moves per game.", False),
    ("Draws", "selfplay/draws", "Share of games that nobody won.", True),
    ("First player", "selfplay/first_player", "Mean result of who moves first: 1 if every game is won.", False),
    ("Positions", "selfplay/positions", "New positions per iteration.", False),
    ("Replay window", "replay/size", "Positions that minibatches are drawn from.", False),
)


def learning_charts(found: Found[Rows]) -> list[Panel]:
    """Losses and what the optimiser did, over iterations."""
    if found.value is None:
        return [found.why_not]
    return [_chart(found.value, *spec, False) for spec in _LEARNING]


def game_charts(found: Found[Rows]) -> list[Panel]:
    """Statistics of the games, over iterations."""
    if found.value is None:
        return [found.why_not]
    return [*(_chart(found.value, *spec) for spec in _GAMES), _cached(found.value)]


def _chart(rows: Rows, title: str, key: str, note: str, share: bool) -> Panel:
    points = points_of(rows, key)
    if not points:
        return f"{title}: {key} was not recorded."
    return line_plot(title, [Series(title.lower(), "ink", points)], note=note, share=share, x_name="iteration")


def _cached(rows: Rows) -> Panel:
    points = []
    for row in rows:
        hits, evaluated = (row.get(f"selfplay/{key}") for key in ("cache_hits", "evaluated"))
        if hits is not None and evaluated is not None and hits + evaluated > 0:
            points.append((float(row["step"]), float(hits) / float(hits + evaluated)))
    if not points:
        return "Remembered evaluations: selfplay/cache_hits and selfplay/evaluated were not recorded."
    note = "Share of evaluations that the cache answered."
    line = Series("remembered evaluations", "ink", points)
    return line_plot("Remembered evaluations", [line], note=note, share=True, x_name="iteration")


# ---------------------------------------------------------------------------------------------- time and configuration

_PARTS = (
    ("", "time/waited_s", "agent-0"),  # for what, the page says
    ("learning", "time/learn_s", "agent-1"),
    ("judging", "time/judge_s", "agent-2"),
)


def time_split(found: Found[Rows], total: float | None, waiting: str = "waiting for games") -> list[TimeSplit] | str:
    """Seconds of all iterations by what the trainer did; the rest of `total` is start-up and saving."""
    if found.value is None:
        return found.why_not
    parts = [(name or waiting, key, colour) for name, key, colour in _PARTS]
    named = [(name, sum(y for _, y in points_of(found.value, key)), colour) for name, key, colour in parts]
    counted = sum(seconds for _, seconds, _ in named)
    if counted <= 0:
        return f"Not recorded: timing.jsonl holds no {', '.join(key for _, key, _ in _PARTS)}."
    rest = (total or 0.0) - counted  # negative where the run was continued and `total` is only its last part
    if rest > 0:
        named.append(("start-up and saving", rest, "before"))
    whole = sum(seconds for _, seconds, _ in named)
    return [TimeSplit(name, seconds, seconds / whole, colour) for name, seconds, colour in named]


def essentials(found: Found[Mapping[str, Any]]) -> list[tuple[str, str]] | str:
    """What a reader of results must know of the configuration, as (label, text)."""
    if found.value is None:
        return found.why_not
    of = partial(told, found.value)
    return [
        ("Game", of("{}", "game.name")),
        ("Network", _network(found.value.get("net"))),
        ("Search", of("{}, {} simulations a move", "search.algorithm", "search.simulations")),
        ("Iterations", of("{} of {} games", "trainer.iterations", "acting.games")),
        ("Random opening", of("0 to {} moves", "acting.opening_plies")),
        ("Learning", of("batches of {}, each position {} times", "learning.batch_size", "learning.reuse")),
        ("Learning rate", of("{} to {}", "learning.lr", "learning.final_lr")),
        ("Replay window", of("{} positions", "learning.window")),
        ("Judged", of("every {} iterations, {} simulations a move", "arena.every", "arena.simulations")),
        ("Gate", of("SPRT of {} against {} Elo, error {}, at most {} games", "arena.elo0", "arena.elo1",
                    "arena.error", "arena.cap")),
        ("Anchors", of("{}, {} games each", "arena.anchors", "arena.anchor_games")),
        ("After a rejection", of("goes on from the {}", "arena.after_rejection")),
    ]  # fmt: skip


def told(config: Mapping[str, Any], text: str, *keys: str) -> str:
    """`text` with the values of dotted `keys` in its braces; `not recorded` where the config lacks one."""
    values = [_at(config, key) for key in keys]
    return "not recorded" if None in values else text.format(*(_plain(value) for value in values))


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if whole else number(value) if isinstance(value, float) else str(value)


def _network(net: Any) -> str:
    if not isinstance(net, Mapping) or "kind" not in net:
        return "not recorded"
    if net["kind"] == "mlp":
        return f"mlp, hidden layers of {_plain(net.get('hidden'))}"
    return f"{net['kind']}, {net.get('blocks')} blocks of {net.get('channels')} channels"
