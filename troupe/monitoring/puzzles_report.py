"""The report page of a run on puzzles: one file, no network, verdict first.

    write_puzzles_report(Path("runs/sudoku4"), summary)      # -> runs/sudoku4/report.html

It reads what the run left in its folder (config.json, metrics.jsonl, and examples.json where there is one) and shares
style, script and charts with the pages of the other systems. A part that is missing or damaged becomes a sentence that
says so. Whatever a user wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from troupe.monitoring import puzzles_panels as panels
from troupe.monitoring.charts import number, percent
from troupe.monitoring.pages import duration, template
from troupe.monitoring.puzzles_panels import Comparison
from troupe.monitoring.run_folder import Found, RunFolder, part, read_part, read_run
from troupe.monitoring.verdict import Measured, Verdict, gap, improved, points
from troupe.stores.atomic import write_atomic

__all__ = ["render_puzzles_report", "write_puzzles_report"]

Steps = tuple[Measured, ...]


def write_puzzles_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `<folder>/report.html` whole or not at all, and returns its path.

    `summary` says what the caller knows: `title`, `verdict` ("improved" or "not improved"), `exact` (an interval for
    each supervision step), `cells` (the share of right cells after each), `gain` and `comparison` (`ours`, `theirs`,
    `both`, `difference`, `p`; against the untrained network, and against the run `compare`), `control`, `steps`,
    `train_puzzles`, `parameters`, `seconds`, `cpu_seconds`, `machine`, `seed` and `commands`. Only `verdict` is
    required. examples.json holds `kind`, `boxes` and `puzzles`, each with `number`, `given`, `solution` and `steps`.
    Raises DataError for another verdict, StorageError where the page cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.html"
    write_atomic(path, render_puzzles_report(folder, summary).encode("utf-8", errors="replace"))
    return path


def render_puzzles_report(folder: Path, summary: Mapping[str, Any]) -> str:
    """The page as HTML."""
    run = read_run(folder)
    rows = run.metrics.value or ()
    steps = part(summary, "exact", panels.read_steps)
    gain = part(summary, "gain", lambda record: panels.read_comparison(record, "before training"))
    other = _other(summary)
    comparisons = [found.value for found in (gain, other) if found.value is not None]
    filters: dict[str, Any] = {"percent": percent, "number": number, "points": points, "gap": gap}
    return template("puzzles.html.j2", filters).render(
        title=summary.get("title") or "Report of a run on puzzles",
        verdict=_verdict(summary, steps.value, gain.value, other.value),
        reasons=(),
        before=panels.before_training(rows, gain.value) if gain.value else None,
        after=steps.value[-1] if steps.value else None,
        gain=gain.value,
        comparisons=comparisons,
        not_compared=[found.why_not for found in (gain, other) if found.why_not],
        facts=_facts(summary),
        one_pass=steps.value is not None and len(steps.value) == 1,
        steps=panels.step_charts(steps, summary.get("cells"), rows),
        examples=read_part(folder, "examples.json", panels.read_examples),
        solved=panels.solved_chart(run.metrics),
        learning=panels.learning_charts(run.metrics, halting=_halting(run)),
        essentials=panels.essentials(run.config),
        commands=summary.get("commands") or (),
    )


def _other(summary: Mapping[str, Any]) -> Found[Comparison]:
    """The run that this one is compared with; nothing, and no sentence, where there is none."""
    if not summary.get("compare"):
        return Found(None)
    return part(summary, "comparison", lambda record: panels.read_comparison(record, str(summary["compare"])))


def _halting(run: RunFolder) -> bool:
    config = run.config.value or {}
    net, learning = config.get("net"), config.get("learning")
    plain = isinstance(net, Mapping) and net.get("kind") == "transformer"
    return not plain and not (isinstance(learning, Mapping) and learning.get("halting") is False)


# ---------------------------------------------------------------------------------------------- the verdict


def _verdict(
    summary: Mapping[str, Any], steps: Steps | None, gain: Comparison | None, other: Comparison | None
) -> Verdict:
    better = improved(summary)
    if steps is None or gain is None:
        sentence = "The held-out puzzles have no figures, so nothing can be said about improvement."
        return Verdict(better, "mixed" if better else "bad", "No figures of the held-out puzzles", sentence)
    told = _sentence(summary, steps, gain, other)
    if summary.get("control"):
        return _of_control(better, told)
    if better:
        headline = f"Solves {percent(steps[-1].mean)} of the held-out puzzles, {percent(gain.share)} before training"
        return Verdict(True, "good", headline, told)
    learned = (gain.difference.low or 0.0) > 0 and other is not None
    if learned:
        return Verdict(False, "mixed", "Learned, but not shown to solve more than the run it is compared with", told)
    return Verdict(False, "bad", "Nothing improved: no more puzzles solved than before training", told)


def _of_control(better: bool, told: str) -> Verdict:
    said = (
        "This run is a control (data.shuffle_answers): its puzzles had one another's answers, so it must not improve."
    )
    if better:
        headline = "A control improved: its figures, and those of real runs, cannot be trusted"
        return Verdict(True, "bad", headline, f"{said} {told}")
    return Verdict(False, "good", "Control: nothing improved, as it should be", f"{said} {told}")


def _sentence(summary: Mapping[str, Any], steps: Steps, gain: Comparison, other: Comparison | None) -> str:
    taught = summary.get("train_puzzles")
    learned = f"Having learned from {taught:,} others, the" if isinstance(taught, int) else "The"
    count = f"{len(steps)} supervision steps" if len(steps) > 1 else "one pass"
    told = (
        f"{learned} network solves {percent(steps[-1].mean)} of {gain.n:,} held-out puzzles in {count}, before "
        f"training it solved {percent(gain.share)}: {gap(gain.difference)}, McNemar's p = {gain.p:.2g}."
    )
    if len(steps) > 1:
        told += f" After the first step it solves {percent(steps[0].mean)}."
    if other is not None:
        told += (
            f" The network of {other.other} solves {percent(other.share)} of the same puzzles: "
            f"{gap(other.difference)}, p = {other.p:.2g}."
        )
    return told


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, as (label, text)."""

    def count(key: str) -> str:
        return f"{summary[key]:,}" if isinstance(summary.get(key), int) else "not recorded"

    return [
        ("Updates", count("steps")),
        ("Training puzzles", count("train_puzzles")),
        ("Parameters", count("parameters")),
        ("Time", duration(summary.get("seconds"))),
        ("CPU time", duration(summary.get("cpu_seconds"))),
        ("Machine", str(summary.get("machine") or "not recorded")),
        ("Seed", str(summary["seed"]) if summary.get("seed") is not None else "not recorded"),
    ]
