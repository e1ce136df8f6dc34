from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from troupe.errors import DataError, StorageError
from troupe.monitoring.report import write_report

Run = Callable[..., tuple[Path, dict[str, Any]]]

SECTIONS = ("verdict", "scores", "learning", "credit", "distributions", "tasks", "diagnostics", "next")


class Page(HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.words.append(data)

    def ids(self) -> set[str | None]:
        return {attrs["id"] for _, attrs in self.tags if "id" in attrs}


def page(folder: Path, summary: dict[str, Any]) -> Page:
    return Page(write_report(folder, summary).read_text(encoding="utf-8"))


def test_a_promoted_run_has_every_section_and_no_sentence_of_absence(run: Run) -> None:
    folder, summary = run()
    shown = page(folder, summary)
    assert set(SECTIONS) <= shown.ids()
    assert "Promoted: the team improved" in shown.text
    assert "Not recorded" not in shown.text and "not recorded" not in shown.text
    assert [attrs for tag, attrs in shown.tags if attrs.get("class") == "absent"] == []
    for text in ("math@3", "12 min 34 s", "2 cores, 8 GB", "0.7 if right + 0.3 if faithful", "troupe ask math@3"):
        assert text in shown.text


def test_the_numbers_are_those_of_the_summary(run: Run) -> None:
    folder, summary = run()
    summary["before"] = {"mean": 0.125, "low": 0.05, "high": 0.281, "n": 32}
    summary["after"] = {"mean": 0.6875, "low": 0.514, "high": 0.82, "n": 32}
    summary["difference"] = {"mean": 0.5625, "low": 0.4, "high": 0.725, "n": 32}
    text = page(folder, summary).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Before training the team solved 12.5 % of 32 held-out tasks, after it 68.8 %." in text
    assert "+56.2 points [+40.0, +72.5]: the whole interval lies above zero." in text
    assert "[5.0, 28.1]" in text and "[51.4, 82.0]" in text


def test_the_page_loads_nothing_from_elsewhere(run: Run) -> None:
    folder, summary = run()
    shown = page(folder, summary)
    links = [v for tag, attrs in shown.tags for k, v in attrs.items() if k in ("src", "href") and v]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    html = (folder / "report.html").read_text()
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org)", html)
    assert len(html) < 400_000


def test_every_chart_is_drawn_and_says_what_it_shows(run: Run) -> None:
    folder, summary = run()
    charts = [attrs for tag, attrs in page(folder, summary).tags if attrs.get("class") == "chart"]
    labels = [str(attrs["aria-label"]) for attrs in charts]
    # 2 of held-out success, 3 + 3 + 3 per agent (reward, two histograms), 1 loss, 9 diagnostics
    assert len(charts) == 21
    for start in ("Held-out success:", "Reward of analyzer:", "Fine-tuning loss:", "Entropy:", "Zero advantage:"):
        assert any(label.startswith(start) for label in labels), start
    assert "Fine-tuning loss: moving average from 5.7" in " ".join(labels)


@pytest.mark.parametrize("place", ["answer", "title", "reason", "machine", "agent", "command", "kind", "metric"])
def test_what_people_and_models_wrote_is_escaped(run: Run, place: str) -> None:
    attack = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
    folder, summary = run(hostile=attack if place == "answer" else "16")
    if place == "title":
        summary["title"] = attack
    elif place == "reason":
        summary["reasons"] = [attack]
    elif place == "machine":
        summary["machine"] = attack
    elif place == "agent":
        summary["credit_table"][0]["agent"] = attack
    elif place == "command":
        summary["commands"] = [attack]
    elif place == "kind":
        summary["by_kind"][0]["kind"] = attack
    elif place == "metric":  # an agent's name reaches the hover data, which sits in an attribute
        rows = [{"step": u, f"reward/{attack}/mean": 0.5, f"advantage/{attack}/fraction_zero": 0.1} for u in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = page(folder, summary)
    assert attack in shown.text or (place == "metric" and f"Reward of {attack}" in shown.text)
    assert [tag for tag, _ in shown.tags].count("script") == 1
    assert [tag for tag, attrs in shown.tags if tag == "img" or "onerror" in attrs] == []
    hovers = [json.loads(str(attrs["data-hover"])) for _, attrs in shown.tags if "data-hover" in attrs]
    assert len(hovers) >= 4


@pytest.mark.parametrize(
    ("difference", "headline", "tone"),
    [
        ((0.01, -0.02, 0.04), "Not promoted: nothing improved", "bad"),
        ((-0.1, -0.2, -0.01), "Not promoted: the team got worse", "bad"),
        ((0.1, 0.02, 0.2), "Not promoted: better, but a check failed", "mixed"),
        (None, "Not promoted: the change was not measured", "bad"),
    ],
)
def test_a_refusal_says_why_and_wears_another_colour(
    run: Run, difference: tuple[float, float, float] | None, headline: str, tone: str
) -> None:
    folder, summary = run()
    gap = None if difference is None else dict(zip(("mean", "low", "high", "n"), (*difference, 24), strict=True))
    shown = page(folder, {**summary, "verdict": "not promoted", "difference": gap, "registry": None})
    assert headline in shown.text and "not registered" in shown.text
    assert any(attrs.get("class") == f"verdict {tone}" for _, attrs in shown.tags)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("metrics.jsonl", "Not recorded: metrics.jsonl is missing from the run folder."),
        ("timing.jsonl", "Not recorded: timing.jsonl is missing from the run folder."),
        ("sft/metrics.jsonl", "Not recorded: sft/metrics.jsonl is missing from the run folder."),
        ("episodes.jsonl", "Not recorded: episodes.jsonl is missing from the run folder."),
        ("val/episodes_0.jsonl", "val/episodes_0.jsonl, the episodes before training, is missing from the run folder."),
    ],
)
def test_a_missing_file_is_said_to_be_missing(run: Run, name: str, sentence: str) -> None:
    folder, summary = run()
    (folder / name).unlink()
    assert sentence in page(folder, summary).text


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "timing.jsonl", "sft/metrics.jsonl", "episodes.jsonl", "val/episodes_0.jsonl", "config.json"],
)
def test_a_damaged_file_never_stops_the_report(run: Run, name: str) -> None:
    folder, summary = run()
    (folder / name).write_text("nonsense\n" * 3)
    shown = page(folder, summary)
    assert "Promoted: the team improved" in shown.text
    assert name == "config.json" or "This could not be read: " in shown.text


def test_damaged_reports_never_stop_the_report(run: Run) -> None:
    folder, summary = run()
    (folder / "val" / "report_6.json").write_text('{"name": "update 6"}')
    assert "Held-out success. This could not be read: KeyError: 'scores'." in page(folder, summary).text


def test_an_empty_folder_and_a_bare_summary_give_a_page_that_invents_nothing(tmp_path: Path) -> None:
    shown = page(tmp_path, {"verdict": "not promoted"})
    assert "Success before and after training was not measured" in shown.text
    assert [attrs for _, attrs in shown.tags if attrs.get("class") == "chart"] == []
    assert sum(attrs.get("class") == "absent" for _, attrs in shown.tags) == 10
    assert not re.search(r"\d %", shown.text)


def test_the_tasks_are_shown_before_and_after_as_a_conversation(run: Run) -> None:
    folder, summary = run()
    shown = page(folder, summary)
    tasks = [attrs for tag, attrs in shown.tags if tag == "details" and attrs.get("class") == "task"]
    assert len(tasks) == 5
    told = shown.text[shown.text.index("The same tasks, before and after") :]
    assert told.index("newly solved Solve") < told.index("lost Solve") < told.index("failed both times Solve")
    assert "calculator (34+30)/4 → 64/4" in told
    assert "4*16-30-34 was not run" in told
    assert "after update 30" in told


def test_infinite_bounds_are_unknown_not_drawn(run: Run) -> None:
    folder, summary = run()
    alone = {"mean": 1.0, "low": float("-inf"), "high": float("inf"), "n": 1}
    shown = page(
        folder, {**summary, "after": alone, "by_kind": [{"kind": "x", "gated": True, "before": None, "after": alone}]}
    )
    assert "no interval" in shown.text and "not measured" in shown.text and "inf" not in shown.text.split()


def test_another_verdict_is_refused_before_anything_is_written(run: Run) -> None:
    folder, summary = run()
    with pytest.raises(
        DataError, match=r"must be 'promoted' or 'not promoted', found 'promote' \(did you mean 'promoted'"
    ):
        write_report(folder, {**summary, "verdict": "promote"})
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        write_report(tmp_path / "nowhere", {"verdict": "promoted"})


def test_writing_twice_gives_the_same_bytes(run: Run) -> None:
    folder, summary = run()
    first = write_report(folder, summary).read_bytes()
    assert write_report(folder, summary).read_bytes() == first
    assert [path.name for path in folder.glob(".*")] == []
