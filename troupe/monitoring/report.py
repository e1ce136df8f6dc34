"""The report page of a workflow RL run: one file, no network, verdict first.

    write_report(Path("runs/math"), summary)      # -> runs/math/report.html

The page holds its style, its script and its charts, follows the reader's light or dark scheme and fits a phone. The
charts are SVG drawn here: a chart library alone would be twenty times the size of the whole page. Whatever a user or a
model wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from troupe.monitoring import panels
from troupe.monitoring.charts import number, percent
from troupe.monitoring.examples import Example, choose, count_changes
from troupe.monitoring.pages import duration, template
from troupe.monitoring.run_folder import Found, RunFolder, TaskEpisodes, read_run
from troupe.monitoring.turns import parts, problem_text
from troupe.monitoring.verdict import measured, points, verdict
from troupe.stores.atomic import write_atomic

__all__ = ["render_report", "write_report"]

_LONG = 6000
"""Characters of one message that the page shows; the rest stays in the run folder."""


def write_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `<folder>/report.html` whole or not at all, and returns its path.

    `summary` says what only the caller knows: `title`, `verdict` ("promoted" or "not promoted"), `reasons`,
    `credit_table` (rows of `CreditRow` as dicts), `before`, `after` and `difference` (`Interval` as dicts, shares in
    [0, 1]), `by_kind` (`kind`, `gated`, `before`, `after`), `seconds`, `cpu_seconds`, `machine`, `seed`, `registry`
    ("name@version" or None) and `commands` (what to run next). Only `verdict` is required; what else is missing is said
    to be missing. Everything else comes from the run folder. Raises DataError for another verdict, StorageError where
    the page cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.html"
    write_atomic(path, render_report(read_run(folder), summary).encode("utf-8", errors="replace"))
    return path


def render_report(run: RunFolder, summary: Mapping[str, Any]) -> str:
    """The page as HTML."""
    colours = _colours(run, summary)
    filters = {"percent": percent, "points": points, "number": number, "shortened": _shortened}
    return template("report.html.j2", filters, colour_of=colours).render(
        title=summary.get("title") or "Training report",
        verdict=verdict(summary),
        reasons=summary.get("reasons") or (),
        before=measured(summary.get("before")),
        after=measured(summary.get("after")),
        difference=measured(summary.get("difference")),
        facts=_facts(run, summary),
        kinds=_kinds(summary.get("by_kind") or ()),
        held_out=panels.held_out(run),
        rewards=panels.rewards(run.metrics, colours),
        fine_tuning=panels.fine_tuning(run.sft),
        credit=summary.get("credit_table") or (),
        distributions=panels.distributions(run.updates, colours),
        tasks=_tasks(run.tasks),
        diagnostics=panels.diagnostics(run.metrics, colours),
        observations=panels.observations(run.metrics, list(colours)),
        time_split=panels.time_split(run.timing, summary.get("seconds")),
        commands=summary.get("commands") or (),
    )


def _colours(run: RunFolder, summary: Mapping[str, Any]) -> dict[str, str]:
    """Agent -> colour: in the order of the credit table, then those that only the metrics know."""
    names = [str(row["agent"]) for row in summary.get("credit_table") or ()]
    names += panels.agents_in(run.metrics.value or ())
    if run.tasks.value:
        names += [trajectory.agent for episode in run.tasks.value.after for trajectory in episode.trajectories]
    return {name: f"agent-{i % 8}" for i, name in enumerate(dict.fromkeys(names))}


def _facts(run: RunFolder, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, as (label, text)."""
    rows = run.metrics.value or ()
    facts = [
        ("Updates", f"{rows[-1]['step']:,}" if rows else "not recorded"),
        ("Time", duration(summary.get("seconds"))),
        ("CPU time", duration(summary.get("cpu_seconds"))),
        ("Machine", summary.get("machine") or "not recorded"),
        ("Seed", str(summary["seed"]) if summary.get("seed") is not None else "not recorded"),
        ("Registry", summary.get("registry") or "not registered"),
    ]
    config = run.config.value
    if config and isinstance(config.get("workflow"), Mapping) and config["workflow"].get("name"):
        facts.insert(0, ("Workflow", str(config["workflow"]["name"])))
    return facts


def _kinds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table of kinds, those that the gate counted first."""
    read = [
        {"kind": row["kind"], "gated": bool(row.get("gated")), "before": measured(row.get("before")),
         "after": measured(row.get("after"))}
        for row in rows
    ]  # fmt: skip
    return sorted(read, key=lambda row: not row["gated"])


def _tasks(found: Found[TaskEpisodes]) -> dict[str, Any] | str:
    """The examples, each with both conversations, or the sentence for their absence."""
    if found.value is None:
        return found.why_not
    tasks = found.value
    examples = choose(tasks.before, tasks.after)
    if not examples:
        return "The stored validation episodes before and after training share no task."
    return {
        "after_update": tasks.update,
        "counts": count_changes(tasks.before, tasks.after),
        "examples": [_shown(example) for example in examples],
    }


def _shown(example: Example) -> dict[str, Any]:
    sides = (("Before training", example.before), ("After training", example.after))
    return {
        "task_id": example.task_id,
        "change": example.change,
        "problem": problem_text(example.before) or problem_text(example.after) or example.task_id,
        "sides": [
            {"name": name, "outcome": str(episode.outcome), "answer": episode.metadata.get("answer"),
             "error": episode.metadata.get("error"), "parts": parts(episode)}
            for name, episode in sides
        ],
    }  # fmt: skip


def _shortened(text: Any) -> str:
    text = str(text)
    if len(text) <= _LONG:
        return text
    return f"{text[:_LONG]} … ({len(text) - _LONG:,} more characters in the run folder)"
