"""The report page of a self-play run: one file, no network, verdict first.

    write_selfplay_report(Path("runs/selfplay"), summary)      # -> runs/selfplay/report.html

It reads what the run left in its folder (config.json, metrics.jsonl, timing.jsonl, arena.json, and trees.json where
there is one) and shares style, script and charts with the page of a workflow run. A part that is missing or damaged
becomes a sentence that says so. Whatever a user wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from troupe.errors import DataError
from troupe.monitoring import selfplay_panels as panels
from troupe.monitoring.charts import number, percent
from troupe.monitoring.pages import duration, template
from troupe.monitoring.run_folder import read_part, read_run
from troupe.monitoring.selfplay_panels import Arena, Judged, elo, interval
from troupe.monitoring.tree_picture import tree_svg, tree_text
from troupe.monitoring.verdict import Measured, Verdict, verdict
from troupe.search.picture import TreeNode
from troupe.stores.atomic import write_atomic

__all__ = ["render_selfplay_report", "write_selfplay_report"]


@dataclass(frozen=True, slots=True)
class _Picture:
    """One search tree on the page."""

    title: str
    board: str
    node: TreeNode

    @property
    def svg(self) -> Any:
        from markupsafe import Markup

        return Markup(tree_svg(self.node, title=self.title, heading=False))  # which escapes what it is given

    @property
    def text(self) -> str:
        return tree_text(self.node)


@dataclass(frozen=True, slots=True)
class _Figure:
    """One large figure under the verdict: Elo, or a text."""

    label: str
    found: Measured | None = None
    is_gain: bool = False
    text: str = ""
    after: str = ""


def write_selfplay_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `<folder>/report.html` whole or not at all, and returns its path.

    `summary` says what only the caller knows: `title`, `verdict` ("promoted" or "not promoted"), `reasons`, `champion`,
    `seconds`, `cpu_seconds`, `machine`, `seed`, `registry` ("name@version" or None) and `commands` (what to run next).
    Only `verdict` is required. trees.json is a list of `{"title": ..., "board": text, "tree": TreeNode.to_dict()}`.
    Raises DataError for another verdict, StorageError where the page cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.html"
    write_atomic(path, render_selfplay_report(folder, summary).encode("utf-8", errors="replace"))
    return path


def render_selfplay_report(folder: Path, summary: Mapping[str, Any]) -> str:
    """The page as HTML."""
    run = read_run(folder)
    arena = read_part(folder, "arena.json", panels.read_arena)
    filters: dict[str, Any] = {"percent": percent, "number": number, "elo": elo, "interval": interval}
    return template("selfplay.html.j2", filters).render(
        title=summary.get("title") or "Self-play report",
        verdict=_verdict(summary, arena.value),
        reasons=summary.get("reasons") or (),
        numbers=_numbers(summary, arena.value),
        facts=_facts(run.metrics.value or (), summary),
        elo_curve=panels.elo_curve(arena),
        arena=arena.value,
        no_arena=arena.why_not,
        opponents=panels.opponents(arena.value) if arena.value else (),
        learning=panels.learning_charts(run.metrics),
        games=panels.game_charts(run.metrics),
        time_split=panels.time_split(run.timing, summary.get("seconds")),
        essentials=panels.essentials(run.config),
        trees=read_part(folder, "trees.json", _pictures),
        commands=summary.get("commands") or (),
    )


def _pictures(record: Any) -> list[_Picture]:
    if not isinstance(record, list):
        raise DataError(f"it must be a list of trees, found {type(record).__name__}")
    return [
        _Picture(str(entry["title"]), str(entry.get("board") or ""), TreeNode.from_dict(entry["tree"]))
        for entry in record
    ]


# ---------------------------------------------------------------------------------------------- the verdict


def _verdict(summary: Mapping[str, Any], arena: Arena | None) -> Verdict:
    promoted = verdict({"verdict": summary.get("verdict")}).promoted
    judged = arena.judgements if arena else ()
    if promoted:
        return _promoted(_champion(summary, arena), _deciding(summary, arena), judged)
    if not judged:
        sentence = "No candidate was judged, so nothing can be said about improvement."
        return Verdict(False, "bad", "Not promoted: nothing was judged", sentence)
    last = judged[-1]
    told = f"The last of {_count(len(judged), 'candidate')}, {last.name}, {_gap(last)}."
    if last.difference is not None and (last.difference.low or 0) > 0:
        return Verdict(False, "mixed", "Not promoted: stronger, but not by enough for the gate", told)
    weaker = last.difference is not None and last.difference.high is not None and last.difference.high < 0
    headline = "Not promoted: the last candidate is weaker" if weaker else "Not promoted: nothing improved"
    return Verdict(False, "bad", headline, told)


def _promoted(champion: str, deciding: Judged | None, judged: tuple[Judged, ...]) -> Verdict:
    if deciding is None:
        sentence = "arena.json records no promotion, so it cannot be said by how much it is stronger."
        return Verdict(True, "mixed", f"Promoted: {champion}, though no improvement was recorded", sentence)
    gap = deciding.difference
    shown = gap is not None and gap.low is not None and gap.low > 0
    count = sum(judgement.promoted for judgement in judged)
    told = f"{_capital(deciding.name)} {_gap(deciding)}. "
    told += f"Of {_count(len(judged), 'candidate')} the gate promoted {count}"
    told += "." if judged[-1].promoted else f" and refused the last, {judged[-1].name}."
    headline = f"Promoted: {champion} is the champion"
    return Verdict(True, "good" if shown else "mixed", headline, told)


def _champion(summary: Mapping[str, Any], arena: Arena | None) -> str:
    """Who the caller says it is, or the last that was promoted, or the first incumbent."""
    if summary.get("champion"):
        return str(summary["champion"])
    judged = arena.judgements if arena else ()
    promoted = [judgement.name for judgement in judged if judgement.promoted]
    return promoted[-1] if promoted else judged[0].incumbent if judged else "not recorded"


def _deciding(summary: Mapping[str, Any], arena: Arena | None) -> Judged | None:
    """The judgement that made the champion."""
    champion = _champion(summary, arena)
    found = [j for j in (arena.judgements if arena else ()) if j.promoted and j.name == champion]
    return found[-1] if found else None


def _gap(judged: Judged) -> str:
    gap = judged.difference
    if gap is None:
        return f"was not measured against {judged.incumbent}"
    games = f" over {_count(gap.n, 'game')}" if gap.n else ""
    size = f"{elo(gap.mean, sign=True)} Elo {interval(gap, sign=True)}{games}"
    return f"beat {judged.incumbent} by {size}" if judged.promoted else f"met {judged.incumbent}: {size}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _numbers(summary: Mapping[str, Any], arena: Arena | None) -> list[_Figure]:
    """The three figures under the verdict: who, by how much, how strong."""
    champion = _champion(summary, arena)
    judged = _deciding(summary, arena) or (arena.judgements[-1] if arena and arena.judgements else None)
    rating = arena.ratings.get(champion) if arena else None
    zero = f"{arena.zero} is 0" if arena and arena.zero else ""
    against = f"{_capital(judged.name)} against {judged.incumbent}" if judged else "Against the incumbent"
    return [
        _Figure("Champion", text=champion),
        _Figure(against, judged.difference if judged else None, is_gain=True),
        _Figure("Elo of the champion", rating, after=zero),
    ]


def _facts(rows: tuple[Mapping[str, Any], ...], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, as (label, text)."""
    games = sum(row.get("selfplay/games") or 0 for row in rows)
    return [
        ("Iterations", f"{rows[-1]['step']:,}" if rows else "not recorded"),
        ("Games", f"{games:,.0f}" if games else "not recorded"),
        ("Time", duration(summary.get("seconds"))),
        ("CPU time", duration(summary.get("cpu_seconds"))),
        ("Machine", str(summary.get("machine") or "not recorded")),
        ("Seed", str(summary["seed"]) if summary.get("seed") is not None else "not recorded"),
        ("Registry", str(summary.get("registry") or "not registered")),
    ]
