"""The report's charts and observations, from rows of metrics. A chart without data is the sentence that says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.episode import Episode
from troupe.errors import DataError
from troupe.monitoring.charts import Histogram, Plot, Series, histogram, line_plot, number, percent, smooth
from troupe.monitoring.run_folder import Found, Rows, RunFolder, UpdateEpisodes
from troupe.training.evaluation import Report

__all__ = [
    "TimeSplit",
    "agents_in",
    "diagnostics",
    "distributions",
    "fine_tuning",
    "held_out",
    "observations",
    "rewards",
    "time_split",
]

Panel = Plot | str
Points = list[tuple[float, float]]

_SMOOTH_FROM = 24
"""Fewer points than this are drawn as they are."""


def points_of(rows: Rows, key: str, divided_by: str | None = None) -> Points:
    """(step, value) of the rows with a finite value (NaN is stored as null), as a share of another key if asked."""
    found = []
    for row in rows:
        value = row.get(key)
        scale = 1.0 if divided_by is None else row.get(divided_by)
        if value is not None and scale:
            found.append((float(row["step"]), float(value) / float(scale)))
    return found


def agents_in(rows: Rows) -> list[str]:
    """The agents that were paid, from `reward/<agent>/mean`."""
    return list(dict.fromkeys(_middle(rows, "reward/", "/mean")))


def _middle(rows: Rows, start: str, end: str) -> Iterable[str]:
    for row in rows:
        for key in row:
            if key.startswith(start) and key.endswith(end) and len(key) > len(start) + len(end):
                yield key[len(start) : len(key) - len(end)]


# ---------------------------------------------------------------------------------------------- learning


def held_out(run: RunFolder) -> list[Panel]:
    """Success on the held-out tasks after some updates, all together and per kind."""
    if run.reports.value is None:
        return [f"Held-out success. {run.reports.why_not}"]
    return _held_out(run.reports.value, run.metrics.value or ())


def rewards(found: Found[Rows], colours: Mapping[str, str]) -> list[Panel]:
    """The learning curve of each agent."""
    if found.value is None:
        return [f"Reward of each agent. {found.why_not}"]
    return _rewards(found.value, colours)


def _held_out(reports: Mapping[int, Report], rows: Rows) -> list[Panel]:
    try:
        total = _success(reports, "held-out tasks", "ink", None)
        kinds = sorted({kind for report in reports.values() for kind in report.kinds()})
        by_kind = [_success(reports, kind, f"agent-{(i + 3) % 8}", kind) for i, kind in enumerate(kinds)]
    except DataError as error:
        return [f"Held-out success. This could not be computed: {error}."]
    sampled = Series("training tasks (sampled)", "before", points_of(rows, "workflow/final_success"))
    note = "Share of tasks solved; the band is the 95 % interval."
    whole = line_plot("Held-out success", [sampled, total], note=note, share=True)
    if len(kinds) < 2:
        return [whole]
    return [whole, line_plot("Held-out success by kind", by_kind, note=note, share=True)]


def _success(reports: Mapping[int, Report], name: str, colour: str, kind: str | None) -> Series:
    chosen = {u: r for u, r in sorted(reports.items()) if kind is None or kind in r.kinds()}
    intervals = {u: report.success(None if kind is None else [kind]) for u, report in chosen.items()}
    return Series(
        name,
        colour,
        [(float(u), i.mean) for u, i in intervals.items()],
        # A single task has an infinite interval: nothing to draw beyond the axis.
        [(float(u), max(0.0, i.low), min(1.0, i.high)) for u, i in intervals.items()],
        dots=True,
    )


def _rewards(rows: Rows, colours: Mapping[str, str]) -> list[Panel]:
    """One chart per agent on one common scale, so that they can be compared."""
    found = {agent: points_of(rows, f"reward/{agent}/mean") for agent in agents_in(rows)}
    values = [y for points in found.values() for _, y in points]
    if not values:
        return ["Reward of each agent: metrics.jsonl holds no reward/<agent>/mean."]
    in_view = (0.0, min(values), max(values))
    return [
        line_plot(
            f"Reward of {agent}", _with_average(agent, colours[agent], points), in_view=in_view,
            note="Mean per trajectory in each update" + (", with its moving average." if _is_long(points) else "."),
        )
        for agent, points in found.items()
        if points
    ]  # fmt: skip


def _is_long(points: Sequence[Any]) -> bool:
    return len(points) >= _SMOOTH_FROM


def _with_average(name: str, colour: str, points: Points) -> list[Series]:
    if not _is_long(points):
        return [Series(name, colour, points)]
    average = smooth(points, max(3, len(points) // 10))
    return [Series(name, colour, points, faint=True), Series("moving average", colour, average)]


def fine_tuning(sft: Found[Rows]) -> Panel:
    """The loss of supervised fine-tuning."""
    if sft.value is None:
        return sft.why_not
    points = points_of(sft.value, "sft/nll")
    if not points:
        return "Not recorded: sft/metrics.jsonl holds no sft/nll."
    note = "Negative log-likelihood per token of the demonstrations, in nats."
    return line_plot("Fine-tuning loss", _with_average("loss", "ink", points), note=note, x_name="step")


# ---------------------------------------------------------------------------------------------- distributions


def distributions(found: Found[UpdateEpisodes], colours: Mapping[str, str]) -> dict[str, list[Panel]] | str:
    """Histograms of reward and response length per agent, the first update against the last."""
    if found.value is None:
        return found.why_not
    updates = found.value
    if updates.first_update == updates.last_update:
        return "Only one update was recorded, so there is nothing to compare it with."
    names = f"update {updates.first_update}", f"update {updates.last_update}"
    panels: dict[str, list[Panel]] = {"reward": [], "length": []}
    for agent, colour in colours.items():
        first, last = _rewards_paid(updates.first, agent), _rewards_paid(updates.last, agent)
        if first and last:
            title = f"Reward of {agent}"
            panels["reward"].append(histogram(Histogram(title, first, last, colour, _compared(first, last), names)))
        first, last = _lengths(updates.first, agent), _lengths(updates.last, agent)
        if first and last:
            title, note = f"Response length of {agent}", _compared(first, last, " tokens")
            panels["length"].append(histogram(Histogram(title, first, last, colour, note, names, integers=True)))
    return panels


def _rewards_paid(episodes: Sequence[Episode], agent: str) -> list[float]:
    paid = [t for e in episodes for t in e.of(agent) if t.reward is not None or t.has_step_rewards]
    return [trajectory.total_reward for trajectory in paid]


def _lengths(episodes: Sequence[Episode], agent: str) -> list[float]:
    return [float(len(s.tokens.response_ids)) for e in episodes for t in e.of(agent) for s in t.steps if s.tokens]


def _compared(first: Sequence[float], last: Sequence[float], unit: str = "") -> str:
    means = [sum(side) / len(side) for side in (first, last)]
    return f"Mean {number(means[0])} → {number(means[1])}{unit}"


# ---------------------------------------------------------------------------------------------- diagnostics


def diagnostics(found: Found[Rows], colours: Mapping[str, str]) -> list[Panel]:
    """Small charts of what the optimiser saw; a metric that was not recorded has a sentence in place of its chart."""
    if found.value is None:
        return [found.why_not]
    rows = found.value
    policies = list(dict.fromkeys(_middle(rows, "actor/grad_norm/", "")))
    return [
        _one(rows, "Entropy", "actor/entropy", "Nats per token; a fall to zero means that exploration has ended."),
        _one(rows, "Clipped tokens", "actor/pg_clipfrac", "Share of tokens with a ratio out of bounds.", share=True),
        _one(rows, "Policy change", "actor/ppo_kl", "KL divergence from the sampling policy, in nats per token."),
        _several(rows, "Gradient norm", {p: f"actor/grad_norm/{p}" for p in policies}, {}, "Before clipping."),
        _several(
            rows, "Zero advantage", {a: f"advantage/{a}/fraction_zero" for a in colours}, colours,
            "Share of tokens that teach nothing, because their whole group was paid alike.", share=True,
        ),
        _rows_without_signal(rows),
        _several(
            rows, "Response length", {a: f"response_length/{a}/mean" for a in colours}, colours,
            "Mean tokens per response.",
        ),
        _several(
            rows, "Episodes that broke", {o: f"episode/outcome/{o}" for o in ("truncated", "timeout", "error")},
            {"truncated": "agent-1", "timeout": "agent-5", "error": "agent-4"},
            "Share of each update's episodes.", share=True,
        ),
        _several(
            rows, "Tasks solved by", {o: f"batch/solve_{o}" for o in ("all", "partial", "none")},
            {"all": "agent-2", "partial": "agent-0", "none": "before"},
            "All, some or none of their attempts: only mixed groups teach.", share=True,
        ),
    ]  # fmt: skip


def _one(rows: Rows, title: str, key: str, note: str, *, share: bool = False) -> Panel:
    points = points_of(rows, key)
    if not points:
        return f"{title}: {key} was not recorded."
    return line_plot(title, _with_average(title.lower(), "ink", points), note=note, share=share)


def _several(
    rows: Rows, title: str, keys: Mapping[str, str], colours: Mapping[str, str], note: str, *, share: bool = False
) -> Panel:
    series = [
        Series(name, colours.get(name, "ink" if len(keys) == 1 else f"agent-{(i + 3) % 8}"), points)
        for i, (name, key) in enumerate(keys.items())
        if (points := points_of(rows, key))
    ]
    if not series:
        return f"{title}: it was not recorded in metrics.jsonl."
    return line_plot(title, series, note=note, share=share)


def _rows_without_signal(rows: Rows) -> Panel:
    points = points_of(rows, "rollout/rows_without_signal", "rollout/rows")
    if not points:
        return "Rows without signal: not recorded; with a critic or a penalty every row has one."
    note = "Share of rows left out, because all their advantages are zero."
    return line_plot("Rows without signal", _with_average("left out", "ink", points), note=note, share=True)


def observations(found: Found[Rows], agents: Sequence[str]) -> list[str]:
    """What a reader should know about the updates, in sentences."""
    if found.value is None:
        return []
    rows = [row for row in found.value if any(key.startswith("reward/") for key in row)]
    said = [_mismatch(rows)]
    for agent in agents:
        constant = sum(row.get(f"reward/{agent}/std") == 0 for row in rows)
        if constant:
            said.append(
                f"Every reward of {agent} was the same in {constant} of {len(rows)} updates: it could not learn there."
            )
    idle = sum("actor/loss/policy" not in row for row in rows)
    if idle:
        said.append(f"Nothing was learned in {idle} of {len(rows)} updates, because all advantages were zero.")
    skipped = max((row.get("actor/skipped_updates") or 0 for row in rows), default=0)
    if skipped:
        said.append(f"{skipped:.0f} optimiser steps were skipped, because a gradient was not finite.")
    forks = sum(row.get("rollout/forked_steps") or 0 for row in rows)
    if forks:
        said.append(f"{forks:,.0f} calls began a new row, because the chat template rewrites what came before.")
    return said


def _mismatch(rows: Sequence[Mapping[str, Any]]) -> str:
    gaps = [
        (row["training/rollout_logprob_diff_max"], row["step"])
        for row in rows
        if row.get("training/rollout_logprob_diff_max") is not None
    ]
    if not gaps:
        return "Sampled and recomputed log-probabilities were not compared in this run."
    gap, step = max(gaps)
    return f"Sampled and recomputed log-probabilities differ by at most {number(gap)} (update {step})."


# ---------------------------------------------------------------------------------------------- time


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """One part of the run's wall-clock time."""

    name: str
    seconds: float
    share: float
    colour: str

    @property
    def told(self) -> str:
        return f"{self.seconds:,.0f} s, {percent(self.share)}"


def time_split(found: Found[Rows], total: float | None) -> list[TimeSplit] | str:
    """Rollout and update time of all updates; the rest of `total` is start-up, fine-tuning and validation."""
    if found.value is None:
        return found.why_not
    rollout, update = (sum(y for _, y in points_of(found.value, f"time/{k}_s")) for k in ("rollout", "update"))
    if rollout + update <= 0:
        return "Not recorded: timing.jsonl holds no time/rollout_s and time/update_s."
    named = [("rollout", rollout, "agent-0"), ("update", update, "agent-1")]
    rest = (total or 0.0) - rollout - update  # negative where the run was continued and `total` is only its last part
    if rest > 0:
        named.append(("start-up, fine-tuning, validation, saving", rest, "before"))
    whole = sum(seconds for _, seconds, _ in named)
    return [TimeSplit(name, seconds, seconds / whole, colour) for name, seconds, colour in named]
