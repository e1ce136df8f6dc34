from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.test_report import Page
from tests.monitoring.test_report_browser import BROWSER, BROWSERS, console, probe_page
from tests.monitoring.test_tasks_report import HOSTILE, interval, tones
from troupe.errors import DataError
from troupe.monitoring.puzzles_panels import read_examples
from troupe.monitoring.puzzles_report import write_puzzles_report

SECTIONS = {"verdict", "steps", "compared", "examples", "learning", "configuration", "next"}
SOLUTION = ["1234", "3412", "2143", "4321"]
GIVEN = ["12..", "3..2", ".1.3", "4..1"]
WRONG = ["1234", "3412", "2133", "4221"]  # a 3 for a 4, and a 2 for a 3

Run = Callable[..., tuple[Path, dict[str, Any]]]


def against(ours: int, theirs: int, both: int, gap: tuple[float, float, float], p: float) -> dict[str, Any]:
    return {"ours": ours, "theirs": theirs, "both": both, "difference": interval(*gap, 40), "p": p}


def puzzles(kind: str = "sudoku") -> dict[str, Any]:
    steps = [{"step": 1, "cells": WRONG}, {"step": 8, "cells": SOLUTION}]
    solved = {"number": 3, "given": GIVEN, "solution": SOLUTION, "steps": steps}
    failed = solved | {"number": 5, "steps": [steps[0], {"step": 8, "cells": WRONG}]}
    return {"kind": kind, "boxes": [2, 2] if kind == "sudoku" else None, "puzzles": [solved, failed]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder as the trainer leaves it, and the summary of it."""

    def make(*, hostile: str = "", kind: str = "trm") -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(_row(i)) + "\n" for i in range(0, 200, 50)))
        (folder / "config.json").write_text(json.dumps(_config(hostile or "sudoku", kind)))
        shown = puzzles()
        if hostile:
            shown["puzzles"][0] |= {"given": [hostile[:4]] * 4}
        (folder / "examples.json").write_text(json.dumps(shown))
        exact = [interval(0.5, 0.352, 0.648, 40), interval(0.75, 0.598, 0.858, 40)]
        summary: dict[str, Any] = {
            "title": "Puzzles: sudoku, trm", "verdict": "improved", "exact": exact, "cells": [0.9, 0.95],
            "gain": against(28, 0, 2, (0.7, 0.558, 0.842), 7.5e-9), "compare": "runs/plain",
            "comparison": against(12, 2, 18, (0.25, 0.07, 0.43), 0.013), "control": False, "steps": 150,
            "train_puzzles": 1500, "parameters": 80_705, "seconds": 43.0, "cpu_seconds": 16.0, "machine": "2 cores",
            "seed": 7, "commands": ['troupe solve run "12.. 3..2 .1.3 4..1"'],
        }  # fmt: skip
        if hostile:
            summary |= dict.fromkeys(("title", "machine", "compare"), hostile) | {"commands": [hostile]}
        return folder, summary

    return make


def _row(i: int) -> dict[str, float]:
    held_out = {"eval/exact": 0.05 + i / 250, "eval/exact_low": 0.01 + i / 300, "eval/exact_high": 0.2 + i / 240}
    steps = {"eval/exact/1": 0.04 + i / 400, "eval/exact/2": 0.05 + i / 250, "eval/halt_right": 0.9}
    if i == 0:
        return {"step": 0, **held_out, **steps}
    learned = {"loss/answer": 50 / i, "loss/halt": 0.2, "cells": 0.8, "finished": 8.0, "grad_norm/net": 0.4}
    trained = {f"train/{name}": value for name, value in learned.items()}
    return {"step": i, **held_out, **steps, **trained, "train/exact": 0.3, "train/lr/net": 1e-3}


def _config(name: str, kind: str) -> dict[str, Any]:
    return {
        "data": {"name": name, "augment": True},
        "net": {"kind": kind, kind: {"hidden": 64}},
        "learning": {"batch_size": 128, "supervision_steps": 8, "halting": True, "loss": "stablemax", "lr": 1e-3,
                     "optimizer": "adam_atan2", "weight_decay": 0.1, "final_lr": 1e-3, "ema": 0.999},
        "trainer": {"steps": 150},
    }  # fmt: skip


def page(folder: Path, summary: dict[str, Any]) -> Page:
    return Page(write_puzzles_report(folder, summary).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " "))


# ---------------------------------------------------------------------------------------------- what it says


def test_a_run_that_improved_says_how_many_it_solves_before_after_and_beside_another(run: Run) -> None:
    shown = page(*run())
    assert shown.ids() >= SECTIONS and tones(shown) == ["verdict good"]
    assert "Solves 75.0 % of the held-out puzzles, 5.0 % before training" in shown.text
    assert "Having learned from 1,500 others, the network solves 75.0 % of 40 held-out puzzles in 2" in shown.text
    assert "+70.0 points [+55.8, +84.2], McNemar's p = 7.5e-09. After the first step it solves 50.0 %." in shown.text
    # The other one solves 2 alone and 18 with this one: 20 of 40.
    assert "The network of runs/plain solves 50.0 % of the same puzzles: +25.0 points [+7.0, +43.0]" in shown.text
    assert "runs/plain 50.0 % 12 2 18 8 +25.0 points [+7.0, +43.0] 0.013" in shown.text
    assert "before training 5.0 % 28 0 2 10 +70.0 points" in shown.text
    assert "Before training 5.0 % [1.0, 20.0] n = 40" in shown.text  # the interval is that of the metrics
    assert [attrs for _, attrs in shown.tags if attrs.get("class") == "absent"] == []
    assert "ot recorded" not in shown.text


def test_the_steps_are_charted_with_intervals_beside_those_before_training(run: Run) -> None:
    hovers = [json.loads(attrs["data-hover"] or "") for _, attrs in page(*run()).tags if attrs.get("data-hover")]
    assert [stop["t"] for stop in hovers[0]] == ["step 1", "step 2"]
    found = [[colour, name, told.replace("\N{NO-BREAK SPACE}", " ")] for colour, name, told in hovers[0][1]["v"]]
    assert found == [
        ["before", "before training", "5.0 %"],
        ["ink", "after training", "75.0 % [59.8 %, 85.8 %]"],
    ]


def test_wrong_cells_are_marked_and_counted(run: Run) -> None:
    shown = page(*run())
    assert "Puzzle 3 solved by later steps" in shown.text and "Puzzle 5 not solved" in shown.text
    assert shown.text.count("2 of 16 cells wrong") == 3 and shown.text.count("all right") == 1
    assert shown.text.count("solution") >= 1  # of the one that was not solved
    kinds = [(attrs.get("class") or "").split() for tag, attrs in shown.tags if tag == "i"]
    assert sum("wrong" in names for names in kinds) == 6
    # Of each grid 8 cells are given, in the puzzle as in every answer: three grids of the first and four of the second.
    assert sum("given" in names for names in kinds) == 7 * 8


def test_grids_have_their_edges_and_mazes_and_arc_their_own_cells() -> None:
    _, (first, _) = read_examples(puzzles())
    edges = [i for i, cell in enumerate(first.grids[0].cells) if "below" in cell.kind]
    assert edges == [4, 5, 6, 7] and "beside" in first.grids[0].cells[1].kind
    step = [{"step": 1, "cells": ["S*", "G#"]}]
    maze = {"number": 0, "given": ["S.", "G#"], "solution": ["S.", "G#"], "steps": step}
    _, (found,) = read_examples({"kind": "maze", "boxes": None, "puzzles": [maze]})
    assert [(c.letter, c.kind) for c in found.grids[1].cells] == [
        ("S", "end"), ("•", "way wrong"), ("G", "end"), ("", "wall"),
    ]  # fmt: skip
    # What a network writes outside the grid of a task is not asked for.
    step = [{"step": 1, "cells": ["3|", "75"]}]
    task = {"number": 0, "given": ["3|", "| "], "solution": ["3|", "| "], "steps": step}
    _, (found,) = read_examples({"kind": "arc", "boxes": None, "puzzles": [task]})
    assert found.grids[1].told == "1 of 3 cells wrong" and found.change == "not solved"
    assert [c.kind for c in found.grids[1].cells] == ["colour-3", "outside", "colour-7 wrong", "outside"]


def test_one_pass_has_no_supervision_steps(run: Run) -> None:
    folder, summary = run(kind="transformer")
    text = page(folder, summary | {"exact": summary["exact"][1:], "cells": [0.95]}).text
    assert "What it solves in one pass" in text and "in one pass, before training" in text
    assert "Loss of stopping" not in text and "Supervision steps" not in text and "After the first step" not in text


@pytest.mark.parametrize(
    ("changed", "headline", "tone"),
    [
        ({"gain": against(2, 1, 0, (0.025, -0.06, 0.11), 1.0), "comparison": None, "compare": None},
         "Nothing improved: no more puzzles solved than before training", "bad"),
        ({"comparison": against(2, 3, 10, (-0.025, -0.15, 0.1), 1.0)}, "Learned, but not shown to solve more", "mixed"),
        ({"control": True}, "Control: nothing improved, as it should be", "good"),
        ({"exact": None}, "No figures of the held-out puzzles", "bad"),
    ],
)  # fmt: skip
def test_a_run_that_did_not_improve_says_why(run: Run, changed: dict[str, Any], headline: str, tone: str) -> None:
    folder, summary = run()
    shown = page(folder, summary | {"verdict": "not improved"} | changed)
    assert headline in shown.text and tones(shown) == [f"verdict {tone}"]


def test_a_control_that_improved_is_bad(run: Run) -> None:
    folder, summary = run()
    shown = page(folder, summary | {"control": True})
    assert "A control improved" in shown.text and tones(shown) == ["verdict bad"]


def test_an_unknown_verdict_is_an_error(run: Run) -> None:
    folder, summary = run()
    with pytest.raises(DataError, match="must be 'improved' or 'not improved', found 'promoted'"):
        write_puzzles_report(folder, summary | {"verdict": "promoted"})
    assert not (folder / "report.html").exists()


# ---------------------------------------------------------------------------------------------- what is missing


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    shown = page(tmp_path, {"verdict": "not improved"})
    assert shown.ids() >= SECTIONS
    for name in ("metrics.jsonl", "config.json", "examples.json"):
        assert f"{name} is missing from the run folder" in shown.text
    for key in ("exact", "gain"):
        assert f"Not recorded: the summary holds no {key}." in shown.text
    assert "holds no share of right cells" in shown.text


@pytest.mark.parametrize(
    "damage",
    ["{", "[]", "{}", '{"kind": "chess", "boxes": null, "puzzles": []}',
     json.dumps(puzzles() | {"puzzles": [puzzles()["puzzles"][0] | {"given": ["12"]}]}),
     json.dumps(puzzles() | {"puzzles": [puzzles()["puzzles"][0] | {"steps": []}]}),
     json.dumps(puzzles() | {"puzzles": [puzzles()["puzzles"][0] | {"solution": SOLUTION[:3]}]})],
)  # fmt: skip
def test_damaged_examples_are_a_sentence(run: Run, damage: str) -> None:
    folder, summary = run()
    (folder / "examples.json").write_text(damage)
    assert "examples.json could not be read" in page(folder, summary).text


@pytest.mark.parametrize("key", ["exact", "gain", "comparison"])
@pytest.mark.parametrize("damage", [3, [3], {"ours": 3}])
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
    found, log = probe_page(write_puzzles_report(folder, summary), tmp_path / "profile", width)
    assert console(log) == []
    assert found == {"charts": 10, "flat": 0, "tips": 10, "window": width, "wide": 0, "switched": True, "open": 0}
