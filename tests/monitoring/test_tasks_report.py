from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.test_report import Page
from tests.monitoring.test_report_browser import BROWSER, BROWSERS, console, probe_page
from troupe.errors import DataError
from troupe.monitoring.tasks_panels import forest, read_final
from troupe.monitoring.tasks_report import write_tasks_report

SECTIONS = {"verdict", "final", "examples", "learning", "gate", "losses", "time", "configuration", "next"}
HOSTILE = "<script>console.error('escaped?')</script><img src=x onerror=console.error(1)>" + "9" * 300

Run = Callable[..., tuple[Path, dict[str, Any]]]


def interval(mean: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "n": n}


def figures(gap: tuple[float, float, float] = (0.375, 0.25, 0.5)) -> dict[str, Any]:
    """Two kinds of 40 tasks; the second one changes by chance."""
    rows = [("sums", gap), ("roots", (0.05, -0.1, 0.2))]
    kinds = [
        {"kind": kind, "before": interval(0.4, 0.3, 0.5, 40), "after": interval(0.4 + own[0], 0.3, 0.9, 40),
         "difference": interval(*own, 40)}
        for kind, own in rows
    ]  # fmt: skip
    whole = {"before": interval(0.425, 0.323, 0.534, 80), "after": interval(0.425 + gap[0], 0.7, 0.873, 80)}
    return {**whole, "difference": interval(*gap, 80), "kinds": kinds, "p": 0.00012, "evaluated": 900}


def decision(promote: bool, gap: tuple[float, float, float] | None, reason: str) -> dict[str, Any]:
    return {"promote": promote, "reasons": [reason], "difference": None if gap is None else interval(*gap, 80)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder as the trainer leaves it, and the summary that `finish` gives."""

    def make(*, hostile: str = "", disputed: float = 0.0, curriculum: bool = False) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        kinds = [hostile or "sums", "roots"]
        times = [{"step": i, "time/waited_s": 6.0, "time/learn_s": 3.0, "time/judge_s": 1.0} for i in range(1, 9)]
        for name, lines in (
            ("metrics.jsonl", [_row(i, kinds, disputed) for i in range(1, 9)]),
            ("timing.jsonl", times),
        ):
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "config.json").write_text(json.dumps(_config(hostile or "math", curriculum)))
        (folder / "examples.json").write_text(json.dumps([_example(hostile)]))
        judged = [[4, "untrained", decision(True, (0.3, 0.2, 0.4), "improved")],
                  [8, "iteration 4", decision(False, (0.0, -0.05, 0.05), "no improvement shown")]]  # fmt: skip
        said = {"title": "Tasks: math", "verdict": "improved", "champion": "iteration 4", "reasons": ["improved"]}
        more = {"seconds": 100.0, "cpu_seconds": 61.0, "machine": "2 cores", "seed": 7, "registry": "math@1"}
        summary = {**said, **more, "final": figures(), "decisions": judged, "control": "none", "commands": ["python"]}
        if hostile:
            summary |= dict.fromkeys(("title", "machine", "registry", "champion"), hostile)
            summary |= {"reasons": [hostile], "commands": [hostile]}
            summary["final"]["kinds"][0]["kind"] = hostile
            judged[0][1:] = [hostile, decision(True, None, hostile)]
        return folder, summary

    return make


def _row(i: int, kinds: list[str], disputed: float) -> dict[str, float]:
    row: dict[str, float] = {"step": i, "tasks/attempts": 64, "tasks/success": 0.5 + i / 20}
    for kind in kinds:
        learned = {"policy/cross_entropy": 2 / i, "policy/kl": 0.2, "value/squared_error": 0.2, "grad_norm/net": 1 / i}
        row |= {f"{kind}/learn/{name}": value for name, value in learned.items()}
        row |= {f"{kind}/learn/lr/net": 1e-3, f"{kind}/learn/steps": 4, f"{kind}/success": 0.5 + i / 20}
        row |= {f"{kind}/length": 5.5, f"{kind}/evaluated": 900, f"{kind}/replay": 400 * i, f"{kind}/difficulty": 0.5}
        row[f"{kind}/disputed"] = disputed if kind == "roots" else 0.0
        if i % 4 == 0:
            row |= {f"gate/{kind}": 0.7, "gate/success": 0.7}
    return row


def _config(family: str, curriculum: bool) -> dict[str, Any]:
    return {
        "tasks": {"family": family, "difficulty": {"sums": [0.4, 0.55]}, "gate": 80, "final": 80, "control": "none"},
        "net": {"kind": "mlp", "hidden": 128}, "value_net": None,
        "search": {"algorithm": "gumbel", "simulations": 16},
        "acting": {"tasks": 64},
        "learning": {"batch_size": 128, "reuse": 4.0, "lr": 0.002, "final_lr": 1e-4, "window": 20_000},
        "curriculum": {"enabled": curriculum},
        "judge": {"every": 4, "after_rejection": "candidate"},
        "trainer": {"iterations": 8},
    }  # fmt: skip


def _example(hostile: str) -> dict[str, Any]:
    failed = {"name": "untrained", "success": False, "answer": None, "steps": ["swap 3 and 4"] * 42}
    solved = {"name": "the champion", "success": True, "answer": hostile or "7", "steps": [hostile or "work out 3 + 4"]}
    task = {"task_id": "sums-1", "kind": hostile or "sums", "problem": hostile or "Work out 3 + 4"}
    return {**task, "sides": [failed, solved]}


def page(folder: Path, summary: dict[str, Any]) -> Page:
    return Page(write_tasks_report(folder, summary).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " "))


def tones(shown: Page) -> list[str]:
    return [tone for _, attrs in shown.tags if (tone := attrs.get("class") or "").startswith("verdict ")]


# ---------------------------------------------------------------------------------------------- what it says


def test_a_run_that_improved_says_by_how_much_on_which_tasks(run: Run) -> None:
    shown = page(*run())
    assert shown.ids() >= SECTIONS
    assert "Improved by +37.5 points on held-out tasks" in shown.text and tones(shown) == ["verdict good"]
    assert "the untrained networks solve 42.5 %, the champion (iteration 4) 80.0 %" in shown.text
    assert "+37.5 points [+25.0, +50.0], McNemar's p = 0.00012: the whole interval lies above zero." in shown.text
    assert "sums 40 tasks 40.0 % [30.0, 50.0] 77.5 % [30.0, 90.0] +37.5 [+25.0, +50.0]" in shown.text
    assert "iteration 8 refused +0.0 points [\N{MINUS SIGN}5.0, +5.0] against iteration 4 no improvement" in shown.text
    assert [attrs for _, attrs in shown.tags if attrs.get("class") == "absent"] == []
    assert "ot recorded" not in shown.text
    for text in ("1 min 40 s", "math@1", "Attempts 512", "mlp, hidden size 128", "waiting for attempts: 48 s, 48.0 %"):
        assert text in shown.text
    assert "sums 0.4 to 0.55" in shown.text


def test_the_forest_stands_on_one_scale() -> None:
    drawn = forest(read_final(figures()))
    # The lowest bound is -10 points and the highest 50: the scale goes from -20 to 60 in steps of 20.
    assert [label for _, label in drawn.ticks] == ["\N{MINUS SIGN}20", "0", "+20", "+40", "+60"]
    assert drawn.zero == 250.0
    whole, sums, roots = drawn.marks
    assert (whole.low, whole.at, whole.high) == pytest.approx((562.5, 718.8, 875.0), abs=0.05)
    assert (roots.low, roots.at, roots.high) == pytest.approx((125.0, 312.5, 500.0), abs=0.05)
    assert [mark.colour for mark in (whole, sums, roots)] == ["good", "good", "before"]


def test_a_task_stands_with_both_chains_of_steps(run: Run) -> None:
    text = page(*run()).text
    assert "newly solved Work out 3 + 4 sums" in text
    assert text.count("swap 3 and 4") == 40 and "… and 2 more steps." in text
    assert "It ended with nothing to submit." in text and "the champion solved work out 3 + 4 Answer: 7" in text


@pytest.mark.parametrize(
    ("changed", "headline", "tone"),
    [
        ({"final": figures((0.02, -0.05, 0.09))}, "Nothing improved: the final tasks show no gain", "bad"),
        ({"final": figures((-0.2, -0.3, -0.1))}, "the champion solves fewer of the final tasks", "bad"),
        ({"decisions": [[8, "untrained", decision(False, None, "no")]], "champion": "untrained"},
         "Nothing improved: no candidate passed the gate", "bad"),
        ({"decisions": [], "champion": "untrained"}, "Nothing improved: no candidate was judged", "bad"),
        ({"control": "permuted"}, "Control: nothing improved, as it should be", "good"),
        ({"final": None}, "No figures of the final tasks", "bad"),
    ],
)  # fmt: skip
def test_a_run_that_did_not_improve_says_why(run: Run, changed: dict[str, Any], headline: str, tone: str) -> None:
    folder, summary = run()
    shown = page(folder, summary | {"verdict": "not improved"} | changed)
    assert headline in shown.text and tones(shown) == [f"verdict {tone}"]
    assert "· not improved" in Path(folder / "report.html").read_text()


def test_a_control_says_that_it_is_one_and_is_bad_where_it_improved(run: Run) -> None:
    folder, summary = run()
    shown = page(folder, summary | {"control": "corrupted"})
    assert tones(shown) == ["verdict bad"] and "A control improved" in shown.text
    assert "tasks.control=corrupted): the tasks that it trained on had wrong answers" in shown.text


def test_disputed_attempts_and_the_curriculum_are_shown_where_there_are_any(run: Run) -> None:
    plain = page(*run()).text
    assert "Task and verifier agreed in all 512 attempts" in plain and "Difficulty Middle of the window" not in plain
    folder, summary = run(disputed=3.0, curriculum=True)
    text = page(folder, summary | {"control": "corrupted"}).text
    assert "24 of 512 attempts were disputed (roots 24)" in text and "its tasks have wrong answers" in text
    assert "Difficulty Middle of the window" in text


def test_an_unknown_verdict_is_an_error(run: Run) -> None:
    folder, summary = run()
    with pytest.raises(
        DataError, match=r"must be 'improved' or 'not improved', found 'improve'.*did you mean 'improved'"
    ):
        write_tasks_report(folder, summary | {"verdict": "improve"})
    assert not (folder / "report.html").exists()


# ---------------------------------------------------------------------------------------------- what is missing


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    shown = page(tmp_path, {"verdict": "not improved"})
    assert shown.ids() >= SECTIONS
    for name in ("metrics.jsonl", "timing.jsonl", "config.json", "examples.json"):
        assert f"{name} is missing from the run folder" in shown.text
    for key in ("final", "decisions"):
        assert f"Not recorded: the summary holds no {key}." in shown.text


@pytest.mark.parametrize("damage", ["{", "{}", "[3]", '[{"task_id": "x"}]', '[{"sides": []}]'])
def test_damaged_examples_are_a_sentence(run: Run, damage: str) -> None:
    folder, summary = run()
    (folder / "examples.json").write_text(damage)
    assert "examples.json could not be read" in page(folder, summary).text


@pytest.mark.parametrize("key", ["final", "decisions"])
@pytest.mark.parametrize("damage", [3, [3], {"kinds": 3}, {"before": {}}])
def test_a_damaged_summary_is_a_sentence(run: Run, key: str, damage: Any) -> None:
    folder, summary = run()
    assert f"{key} of the summary could not be read" in page(folder, summary | {key: damage}).text


# ---------------------------------------------------------------------------------------------- safety and looks


def test_what_a_user_wrote_is_escaped(run: Run) -> None:
    shown = page(*run(hostile=HOSTILE))
    assert [tag for tag, _ in shown.tags if tag in ("img", "iframe", "link", "object")] == ["link"]  # the empty icon
    assert sum(tag == "script" for tag, _ in shown.tags) == 1


@pytest.mark.skipif(BROWSER is None, reason=f"no browser found: none of {', '.join(BROWSERS)} is on the PATH")
@pytest.mark.parametrize(("width", "hostile"), [(1280, ""), (390, ""), (390, HOSTILE)])
def test_in_a_browser_charts_are_drawn_and_nothing_scrolls_sideways(
    run: Run, tmp_path: Path, width: int, hostile: str
) -> None:
    folder, summary = run(hostile=hostile)
    found, log = probe_page(write_tasks_report(folder, summary), tmp_path / "profile", width)
    assert console(log) == []
    assert found == {"charts": 11, "flat": 0, "tips": 11, "window": width, "wide": 0, "switched": True, "open": 1}
