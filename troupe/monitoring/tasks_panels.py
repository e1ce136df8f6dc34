"""What the page of a run on verifiable tasks shows of its figures. A part without data is the sentence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from troupe.errors import DataError
from troupe.monitoring.charts import Series, line_plot, number, ticks
from troupe.monitoring.examples import Change
from troupe.monitoring.panels import Panel, points_of
from troupe.monitoring.run_folder import Found, Rows
from troupe.monitoring.selfplay_panels import Judged, told
from troupe.monitoring.verdict import Measured, measured

__all__ = [
    "Attempted",
    "Example",
    "Final",
    "Forest",
    "KindScore",
    "difficulty_chart",
    "essentials",
    "forest",
    "kinds_in",
    "learning_charts",
    "loss_charts",
    "observations",
    "read_decisions",
    "read_examples",
    "read_final",
]

# ---------------------------------------------------------------------------------------------- final tasks


@dataclass(frozen=True, slots=True)
class KindScore:
    """Shares of some final tasks solved before and after, and their paired difference."""

    kind: str
    before: Measured
    after: Measured
    difference: Measured


@dataclass(frozen=True, slots=True)
class Final:
    """All final tasks, and kind by kind. `p` is McNemar's."""

    whole: KindScore
    kinds: tuple[KindScore, ...]
    p: float

    @property
    def n(self) -> int:
        return self.whole.difference.n or 0


def read_final(record: Any) -> Final:
    """From `final` of summary.json. Raises KeyError, TypeError, ValueError, DataError where it is none."""
    return Final(
        _score("all", record),
        tuple(_score(str(row["kind"]), row) for row in record["kinds"]),
        float(record["p"]),
    )


def _score(kind: str, record: Mapping[str, Any]) -> KindScore:
    before, after, difference = (measured(record[key]) for key in ("before", "after", "difference"))
    if before is None or after is None or difference is None:
        raise DataError(f"the final tasks of kind {kind!r} have no figures")
    return KindScore(kind, before, after, difference)


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of the forest: the score, and where its difference and the ends of its interval lie, per mille."""

    score: KindScore
    at: float
    low: float
    high: float

    @property
    def colour(self) -> str:
        low, high = self.score.difference.low, self.score.difference.high
        if low is not None and low > 0:
            return "good"
        return "bad" if high is not None and high < 0 else "before"


@dataclass(frozen=True, slots=True)
class Forest:
    """Differences with their intervals on one scale. Ticks are (per mille, label); `zero` is where nothing changed."""

    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float


def forest(final: Final) -> Forest:
    """All tasks first, then kind by kind. An interval without bounds is drawn as its mean."""
    scores = (final.whole, *final.kinds)
    ends = [b for s in scores for b in (s.difference.low, s.difference.mean, s.difference.high) if b is not None]
    scale = ticks(min(0.0, *ends), max(0.1, *ends), 3)

    def place(value: float | None, otherwise: float) -> float:
        found = otherwise if value is None else value
        return round(1000 * (found - scale[0]) / (scale[-1] - scale[0]), 1)

    marks = [(s, s.difference) for s in scores]
    labels = [f"{100 * tick:+.0f}".replace("-", "\N{MINUS SIGN}").replace("+0", "0") for tick in scale]
    return Forest(
        tuple(Mark(s, place(d.mean, 0.0), place(d.low, d.mean), place(d.high, d.mean)) for s, d in marks),
        tuple((place(tick, 0.0), label) for tick, label in zip(scale, labels, strict=True)),
        place(0.0, 0.0),
    )


# ---------------------------------------------------------------------------------------------- the gate


def read_decisions(record: Any) -> tuple[Judged, ...]:
    """From `decisions` of summary.json. Raises KeyError, TypeError, ValueError where they are none."""
    return tuple(
        Judged(
            int(iteration), str(incumbent), bool(decision["promote"]), tuple(map(str, decision["reasons"])),
            measured(decision["difference"]), {},
        )
        for iteration, incumbent, decision in record
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- over iterations

_LOSSES = (
    ("Policy loss", "learn/policy/cross_entropy", "Cross-entropy with the search's policy, in nats."),
    ("Distance to the search", "learn/policy/kl", "KL divergence of the search's policy from the network's, in nats."),
    ("Value error", "learn/value/squared_error", "Mean squared error against the value target."),
    ("Gradient norm", "learn/grad_norm/net", "Before clipping, in the last step of the iteration."),
    ("Learning rate", "learn/lr/net", "In the last step of the iteration."),
    ("Optimiser steps", "learn/steps", "Per iteration; 0 while too few positions are there."),
    ("Length of attempts", "length", "Mean steps per attempt."),
    ("Positions evaluated", "evaluated", "By the network, per iteration."),
    ("Replay window", "replay", "Positions that minibatches are drawn from."),
)
_TRAINED = "Share of each iteration's attempts, with exploration, on tasks drawn anew."
_GATED = "Share of the gate's held-out tasks that each candidate solves, without exploration."


def kinds_in(rows: Rows) -> list[str]:
    """The kinds that were attempted, from `<kind>/success`."""
    keys = (key for row in rows for key in row if key.endswith("/success") and key.count("/") == 1)
    return [kind for kind in dict.fromkeys(key.removesuffix("/success") for key in keys) if kind not in _TOTALS]


_TOTALS = ("tasks", "gate")


def learning_charts(found: Found[Rows]) -> list[Panel]:
    """Success in training and on the gate's tasks, kind by kind."""
    if found.value is None:
        return [found.why_not]
    rows, kinds = found.value, kinds_in(found.value)
    trained = {kind: f"{kind}/success" for kind in kinds} | {"all": "tasks/success"}
    gated = {kind: f"gate/{kind}" for kind in kinds} | {"all": "gate/success"}
    return [
        _lines(rows, "Success in training", trained, _TRAINED, share=True),
        _lines(rows, "Success on the gate's tasks", gated, _GATED, share=True, dots=True),
    ]


def loss_charts(found: Found[Rows]) -> list[Panel]:
    """Losses, what the optimiser did, and what was attempted, kind by kind."""
    if found.value is None:
        return [found.why_not]
    kinds = kinds_in(found.value)
    return [_lines(found.value, title, {k: f"{k}/{key}" for k in kinds}, note) for title, key, note in _LOSSES]


def difficulty_chart(metrics: Found[Rows], config: Found[Mapping[str, Any]]) -> Panel | None:
    """Where the curriculum stood; None for a run without one."""
    curriculum = (config.value or {}).get("curriculum")
    if not isinstance(curriculum, Mapping) or not curriculum.get("enabled") or metrics.value is None:
        return None
    keys = {kind: f"{kind}/difficulty" for kind in kinds_in(metrics.value)}
    note = "Middle of the window that training tasks are drawn from; it follows success."
    return _lines(metrics.value, "Difficulty", keys, note)


def _lines(
    rows: Rows, title: str, keys: Mapping[str, str], note: str, *, share: bool = False, dots: bool = False
) -> Panel:
    """One line a name; that of `all` is drawn last, in ink."""
    if len(keys) == 2:  # a single kind is all there is
        keys = {name: key for name, key in keys.items() if name != "all"}
    series = [
        Series(name, "ink" if name == "all" else f"agent-{i % 8}", points, dots=dots)
        for i, (name, key) in enumerate(keys.items())
        if (points := points_of(rows, key))
    ]
    if not series:
        return f"{title}: it was not recorded in metrics.jsonl."
    return line_plot(title, series, note=note, share=share, x_name="iteration")


def observations(found: Found[Rows], control: str) -> list[str]:
    """What a reader should know about the iterations, in sentences."""
    if found.value is None:
        return []
    rows, kinds = found.value, kinds_in(found.value)
    said = [_disputed(rows, kinds, control)]
    skipped = sum(row.get(f"{kind}/learn/skipped_updates") or 0 for row in rows for kind in kinds)
    if skipped:
        said.append(f"{skipped:,.0f} optimiser steps were skipped, because a gradient was not finite.")
    return said


def _disputed(rows: Rows, kinds: Sequence[str], control: str) -> str:
    counts = {kind: sum(row.get(f"{kind}/disputed") or 0 for row in rows) for kind in kinds}
    attempts = sum(row.get("tasks/attempts") or 0 for row in rows)
    if not any(counts.values()):
        return f"Task and verifier agreed in all {attempts:,.0f} attempts: nothing that looked solved was judged wrong."
    named = ", ".join(f"{kind} {count:,.0f}" for kind, count in counts.items() if count)
    why = " That is what this control is for: its tasks have wrong answers." if control == "corrupted" else ""
    return (
        f"{sum(counts.values()):,.0f} of {attempts:,.0f} attempts were disputed ({named}): they looked solved and the "
        f"verifier judged them wrong. Nothing was learned from them.{why}"
    )


# ---------------------------------------------------------------------------------------------- examples


@dataclass(frozen=True, slots=True)
class Attempted:
    """What one network did with a task."""

    name: str
    success: bool
    answer: str | None
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One task, attempted by two networks."""

    task_id: str
    kind: str
    problem: str
    sides: tuple[Attempted, Attempted]

    @property
    def change(self) -> Change:
        before, after = (side.success for side in self.sides)
        if before:
            return "solved both times" if after else "lost"
        return "newly solved" if after else "failed both times"


def read_examples(record: Any) -> list[Example]:
    """From examples.json. Raises KeyError, TypeError, ValueError, DataError where it is none."""
    if not isinstance(record, list):
        raise DataError(f"it must be a list of tasks, found {type(record).__name__}")
    return [_example(entry) for entry in record]


def _example(entry: Mapping[str, Any]) -> Example:
    before, after = (_attempted(side) for side in entry["sides"])
    return Example(str(entry["task_id"]), str(entry["kind"]), str(entry["problem"]), (before, after))


def _attempted(side: Mapping[str, Any]) -> Attempted:
    answer = side["answer"]
    steps = side["steps"]
    if not isinstance(steps, list):
        raise DataError(f"steps must be a list of texts, found {type(steps).__name__}")
    told_answer = None if answer is None else str(answer)
    return Attempted(str(side["name"]), bool(side["success"]), told_answer, tuple(map(str, steps)))


# ---------------------------------------------------------------------------------------------- configuration


def essentials(found: Found[Mapping[str, Any]]) -> list[tuple[str, str]] | str:
    """What a reader of results must know of the configuration, as (label, text)."""
    if found.value is None:
        return found.why_not
    of = partial(told, found.value)
    tasks = found.value.get("tasks")
    rows = [
        ("Family", of("{}", "tasks.family")),
        ("Difficulty", _difficulty(tasks.get("difficulty") if isinstance(tasks, Mapping) else None)),
        ("Network", _network(found.value)),
        ("Search", of("{}, {} simulations a step", "search.algorithm", "search.simulations")),
        ("Iterations", of("{} of {} tasks", "trainer.iterations", "acting.tasks")),
        ("Learning", of("batches of {}, each position {} times", "learning.batch_size", "learning.reuse")),
        ("Learning rate", of("{} to {}", "learning.lr", "learning.final_lr")),
        ("Replay window", of("{} positions", "learning.window")),
        ("Judged", of("every {} iterations on {} tasks", "judge.every", "tasks.gate")),
        ("Final tasks", of("{}, apart from all others", "tasks.final")),
        ("After a rejection", of("goes on from the {}", "judge.after_rejection")),
        ("Control", of("{}", "tasks.control")),
    ]  # fmt: skip
    return rows


def _difficulty(ranges: Any) -> str:
    if not isinstance(ranges, Mapping):
        return "not recorded"
    named = [f"{kind} {number(low)} to {number(high)}" for kind, (low, high) in ranges.items()]
    return ", ".join(named) or "0 to 1"


def _network(config: Mapping[str, Any]) -> str:
    if told(config, "{}", "tasks.family") == "picture":
        return told(config, "{}", "image_net.kind")
    policy = told(config, "{}, hidden size {}", "net.kind", "net.hidden")
    if config.get("value_net") is None:
        return policy
    return f"{policy}; values: {told(config, '{}, hidden size {}', 'value_net.kind', 'value_net.hidden')}"
