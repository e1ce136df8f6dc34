"""The report page of a run on verifiable tasks: one file, no network, verdict first.

    write_tasks_report(Path("runs/tasks"), summary)      # -> runs/tasks/report.html

It reads what the run left in its folder (config.json, metrics.jsonl, timing.jsonl, and examples.json where there is
one) and shares style, script and charts with the pages of the other systems. A part that is missing or damaged becomes
a sentence that says so. Whatever a user wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from troupe.monitoring import tasks_panels as panels
from troupe.monitoring.charts import number, percent
from troupe.monitoring.pages import duration, template
from troupe.monitoring.run_folder import part, read_part, read_run
from troupe.monitoring.selfplay_panels import Judged, time_split
from troupe.monitoring.tasks_panels import Final
from troupe.monitoring.verdict import Verdict, gap, improved, points
from troupe.stores.atomic import write_atomic

__all__ = ["render_tasks_report", "write_tasks_report"]

_LONG = 2000
"""Characters of one problem or answer that the page shows."""


def write_tasks_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `<folder>/report.html` whole or not at all, and returns its path.

    `summary` says what the caller knows: `title`, `verdict` ("improved" or "not improved"), `final` (the champion
    beside the untrained networks: `kinds`, `before`, `after`, `difference`, `p`), `decisions` (each an iteration, its
    incumbent, the decision), `champion`, `control`, `reasons`, `seconds`, `cpu_seconds`, `machine`, `seed`, `registry`
    and `commands`. Only `verdict` is required. examples.json is a list of tasks, each with `task_id`, `kind`, `problem`
    and two `sides` of `name`, `success`, `answer` and `steps`. Raises DataError for another verdict, StorageError where
    the page cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.html"
    write_atomic(path, render_tasks_report(folder, summary).encode("utf-8", errors="replace"))
    return path


def render_tasks_report(folder: Path, summary: Mapping[str, Any]) -> str:
    """The page as HTML."""
    run = read_run(folder)
    final = part(summary, "final", panels.read_final)
    decisions = part(summary, "decisions", panels.read_decisions)
    control = str(summary.get("control") or "none")
    filters: dict[str, Any] = {"percent": percent, "number": number, "points": points, "gap": gap, "cut": _cut}
    return template("tasks.html.j2", filters).render(
        title=summary.get("title") or "Report of a run on tasks",
        verdict=_verdict(summary, final.value, decisions.value or (), control),
        reasons=summary.get("reasons") or (),
        facts=_facts(run.metrics.value or (), summary),
        final=final,
        champion=_champion(summary),
        forest=panels.forest(final.value) if final.value else None,
        learning=panels.learning_charts(run.metrics),
        difficulty=panels.difficulty_chart(run.metrics, run.config),
        decisions=decisions,
        losses=panels.loss_charts(run.metrics),
        observations=panels.observations(run.metrics, control),
        examples=read_part(folder, "examples.json", panels.read_examples),
        time_split=time_split(run.timing, summary.get("seconds"), "waiting for attempts"),
        essentials=panels.essentials(run.config),
        commands=summary.get("commands") or (),
    )


# ---------------------------------------------------------------------------------------------- the verdict


def _verdict(summary: Mapping[str, Any], final: Final | None, judged: tuple[Judged, ...], control: str) -> Verdict:
    better = improved(summary)
    if final is None:
        sentence = "The final held-out tasks have no figures, so nothing can be said about improvement."
        return Verdict(better, "mixed" if better else "bad", "No figures of the final tasks", sentence)
    told = _sentence(summary, final)
    if control != "none":
        return _of_control(better, control, told)
    if better:
        difference = points(final.whole.difference.mean)
        return Verdict(True, "good", f"Improved by {difference} points on held-out tasks", told)
    return Verdict(False, "bad", _nothing(final, judged), told)


def _of_control(better: bool, control: str, told: str) -> Verdict:
    what = _CONTROLS.get(control, "nothing can be learned in it")
    said = f"This run is a control (tasks.control={control}): {what}, so it must not improve."
    if better:
        headline = "A control improved: its figures, and those of real runs, cannot be trusted"
        return Verdict(True, "bad", headline, f"{said} {told}")
    return Verdict(False, "good", "Control: nothing improved, as it should be", f"{said} {told}")


_CONTROLS = {
    "permuted": "the learner was shown each position's targets with the observation of another one",
    "corrupted": "the tasks that it trained on had wrong answers",
}


def _nothing(final: Final, judged: tuple[Judged, ...]) -> str:
    high = final.whole.difference.high
    if high is not None and high < 0:
        return "Nothing improved: the champion solves fewer of the final tasks"
    if any(judgement.promoted for judgement in judged):
        return "Nothing improved: the final tasks show no gain"
    return f"Nothing improved: {'no candidate passed the gate' if judged else 'no candidate was judged'}"


def _sentence(summary: Mapping[str, Any], final: Final) -> str:
    whole, champion = final.whole, _champion(summary)
    rates = f"Of {final.n:,} held-out tasks that had no part in the run the untrained networks solve "
    rates += percent(whole.before.mean)
    if champion == "untrained":
        return f"{rates}; no candidate took their place, so there is nothing to compare them with."
    low = whole.difference.low
    meaning = "the whole interval lies above zero" if low is not None and low > 0 else "this could be chance"
    if (whole.difference.high or 0) < 0:
        meaning = "the whole interval lies below zero, learning did harm"
    return (
        f"{rates}, the champion ({champion}) {percent(whole.after.mean)}, with the same search. On the same tasks that "
        f"is {gap(whole.difference)}, McNemar's p = {final.p:.2g}: {meaning}."
    )


def _champion(summary: Mapping[str, Any]) -> str:
    return str(summary.get("champion") or "not recorded")


def _facts(rows: tuple[Mapping[str, Any], ...], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, as (label, text)."""
    attempts = sum(row.get("tasks/attempts") or 0 for row in rows)
    return [
        ("Champion", _champion(summary)),
        ("Iterations", f"{rows[-1]['step']:,}" if rows else "not recorded"),
        ("Attempts", f"{attempts:,.0f}" if attempts else "not recorded"),
        ("Time", duration(summary.get("seconds"))),
        ("CPU time", duration(summary.get("cpu_seconds"))),
        ("Machine", str(summary.get("machine") or "not recorded")),
        ("Seed", str(summary["seed"]) if summary.get("seed") is not None else "not recorded"),
        ("Registry", str(summary.get("registry") or "not registered")),
    ]


def _cut(text: Any) -> str:
    text = str(text)
    return text if len(text) <= _LONG else f"{text[:_LONG]} … ({len(text) - _LONG:,} more characters in the run folder)"
