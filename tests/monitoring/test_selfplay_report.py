from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from html import escape, unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.test_report import Page
from tests.monitoring.test_report_browser import BROWSER, BROWSERS, browse, console
from troupe.errors import DataError
from troupe.monitoring.selfplay_report import write_selfplay_report
from troupe.search.picture import TreeNode

SECTIONS = {"verdict", "strength", "gate", "matches", "learning", "games", "trees", "time", "configuration", "next"}
HOSTILE = "<script>console.error('escaped?')</script><img src=x onerror=console.error(1)>" + "9" * 300
TREE = TreeNode(
    "", 33, 0.5, None, 0, hidden=3,
    children=(TreeNode("4", 20, 1.0, 0.4, None, "ended"), TreeNode("3", 12, -0.2, 0.6, 1)),
)  # fmt: skip

Run = Callable[..., tuple[Path, dict[str, Any]]]


def judgement(
    iteration: int, incumbent: str, promote: bool, gap: tuple[float, float, float, int] | None, **scores: Any
) -> dict[str, Any]:
    found = None if gap is None else dict(zip(("mean", "low", "high", "n"), gap, strict=True))
    reason = f"the reason of {iteration}"
    cells = {name: dict(zip(("wins", "draws", "losses"), score, strict=True)) for name, score in scores.items()}
    decision = {"promote": promote, "reasons": [reason], "difference": found}
    return {"iteration": iteration, "incumbent": incumbent, "decision": decision, "scores": cells}


JUDGEMENTS = [
    judgement(4, "untrained", True, (142.0, 93.0, 198.0, 80), random=(35, 2, 3), untrained=(45, 21, 14)),
    judgement(
        8, "iteration 4", False, (12.0, -11.0, 35.0, 120),
        random=(36, 2, 2), untrained=(29, 4, 7), **{"iteration 4": (45, 34, 41)},
    ),
]  # fmt: skip
RATINGS: dict[str, list[float | None]] = {
    "iteration 4": [355, 231, 479, 280],
    "random": [0, 0, 0, 80],
    "untrained": [201, 61, 341, 120],
    "iteration 8": [375, 250, None, 240],
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder as the trainer leaves it, and the caller's summary."""

    def make(*, judgements: Any = JUDGEMENTS, ratings: Any = RATINGS, hostile: str = "") -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        rows = [_row(i) for i in range(1, 9)]
        times = [{"step": i, "time/waited_s": 6.0, "time/learn_s": 3.0, "time/judge_s": 1.0} for i in range(1, 9)]
        for name, lines in (("metrics.jsonl", rows), ("timing.jsonl", times)):
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        arena = json.dumps({"judgements": judgements, "ratings": ratings})
        (folder / "arena.json").write_text(arena.replace("untrained", json.dumps(hostile)[1:-1] or "untrained"))
        (folder / "config.json").write_text(json.dumps(_config(hostile or "tictactoe")))
        tree = TREE.to_dict() | {"state": hostile or "X O"}
        tree["children"][0]["label"] = hostile or "4"
        trees = [{"title": hostile or "First move", "board": hostile or "X . .\n. O .", "tree": tree}]
        (folder / "trees.json").write_text(json.dumps(trees))
        said = {"title": "Tic-tac-toe", "verdict": "promoted", "champion": "iteration 4", "reasons": ["beat it"]}
        more = {"seconds": 100.0, "cpu_seconds": 61.0, "machine": "2 cores", "seed": 7, "registry": "ttt@1"}
        summary = {**said, **more, "commands": ["troupe play ttt@1"]}
        if hostile:
            summary |= dict.fromkeys(("title", "machine", "registry"), hostile)
            summary |= {"reasons": [hostile], "commands": [hostile]}
        return folder, summary

    return make


def _row(i: int) -> dict[str, float]:
    played = {
        "selfplay/games": 64,
        "selfplay/positions": 400 + i,
        "selfplay/length": 6 + i / 10,
        "selfplay/draws": 0.25,
    }
    played |= {
        "selfplay/first_player": 0.3,
        "selfplay/cache_hits": 900,
        "selfplay/evaluated": 100,
        "replay/size": 400 * i,
    }
    learned = {"learn/policy/cross_entropy": 2 / i, "learn/policy/kl": 0.2, "learn/value/squared_error": 0.8}
    return {"step": i, **played, **learned, "learn/lr/net": 1e-3, "learn/steps": 4, "learn/grad_norm/net": 1 / i}


def _config(game: str) -> dict[str, Any]:
    return {
        "game": {"name": game},
        "net": {"kind": "conv", "blocks": 2, "channels": 64},
        "search": {"algorithm": "gumbel", "simulations": 32},
        "acting": {"games": 64, "opening_plies": 2},
        "learning": {"batch_size": 512, "reuse": 4.0, "lr": 0.002, "final_lr": 1e-4, "window": 200_000},
        "arena": {"every": 4, "simulations": 64, "elo0": 0.0, "elo1": 50.0, "error": 0.05, "cap": 400,
                  "anchors": ["random", "untrained"], "anchor_games": 40, "after_rejection": "candidate"},
        "trainer": {"iterations": 8},
    }  # fmt: skip


def page(folder: Path, summary: dict[str, Any]) -> Page:
    return Page(write_selfplay_report(folder, summary).read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------- what it says


def test_a_promoted_run_says_who_by_how_much_and_over_how_many_games(run: Run) -> None:
    shown = page(*run())
    assert shown.ids() >= SECTIONS
    assert "Promoted: iteration 4 is the champion" in shown.text
    assert "Iteration 4 beat untrained by +142 Elo [+93, +198] over 80 games." in shown.text
    assert "Of 2 candidates the gate promoted 1 and refused the last, iteration 8." in shown.text
    assert "355 [231, 479] over 280 games; random is 0" in shown.text
    assert [attrs for _, attrs in shown.tags if attrs.get("class") == "absent"] == []
    assert "ot recorded" not in shown.text
    for text in ("1 min 40 s", "ttt@1", "512 games", "troupe play ttt@1", "2 blocks of 64 channels"):
        assert text in shown.text.replace("Games 512", "512 games")


def test_every_judgement_stands_with_its_scores_and_reasons(run: Run) -> None:
    text = page(*run()).text
    assert "iteration 8 refused +12 [\N{MINUS SIGN}11, +35] against iteration 4 the reason of 8" in text
    assert "iteration 4 promoted +142 [+93, +198] against untrained the reason of 4" in text
    # (45 + 34 / 2) / 120 = 51.7 %, (36 + 1) / 40 = 92.5 %, (29 + 2) / 40 = 77.5 %
    space = "\N{NO-BREAK SPACE}"
    found = text.replace(space, " ")
    assert "8 375 [250, open] 51.7 % iteration 4 45 / 34 / 41 92.5 % 36 / 2 / 2 77.5 % 29 / 4 / 7" in found


def test_the_curve_has_intervals_and_the_anchors_lie_level_with_their_labels(run: Run) -> None:
    shown = page(*run())
    hovers = [json.loads(attrs["data-hover"]) for _, attrs in shown.tags if attrs.get("data-hover")]
    last = hovers[0][-1]
    assert last["t"] == "iteration 8"
    assert last["v"] == [
        ["ink", "candidate", "375 [250, open]"],
        ["agent-0", "random", "0"],
        ["agent-1", "untrained", "201"],
    ]
    marks = [attrs["style"] or "" for _, attrs in shown.tags if attrs.get("class") == "mark"]
    # The axis runs from 0 to 600 in steps of 200; the open band may end at its edge.
    assert [float(m.split("bottom:")[1].rstrip("%")) for m in marks] == pytest.approx([0, 100 * 201 / 600], abs=0.01)
    assert "A band that reaches the edge is open there" in shown.text


def test_labels_of_equal_anchors_stand_apart(run: Run) -> None:
    ratings = {**RATINGS, **{f"anchor {i}": [200 + i / 10, 100, 300, 40] for i in range(4)}}
    marks = [a["style"] or "" for _, a in page(*run(ratings=ratings)).tags if a.get("class") == "mark"]
    places = sorted(float(m.split("bottom:")[1].rstrip("%")) for m in marks)
    assert len(places) == 6 and min(b - a for a, b in pairwise(places)) >= 8.99
    assert places[0] >= 0 and places[-1] <= 100


def test_time_is_split_by_what_the_trainer_did(run: Run) -> None:
    text = page(*run()).text.replace("\N{NO-BREAK SPACE}", " ")
    for part in ("waiting for games: 48 s, 48.0 %", "learning: 24 s, 24.0 %", "judging: 8 s, 8.0 %"):
        assert part in text
    assert "start-up and saving: 20 s, 20.0 %" in text


@pytest.mark.parametrize(
    ("gap", "headline", "tone"),
    [
        ((-3.0, -20.0, 14.0, 200), "Not promoted: nothing improved", "bad"),
        ((12.0, 1.0, 23.0, 200), "Not promoted: stronger, but not by enough for the gate", "mixed"),
        ((-30.0, -50.0, -10.0, 200), "Not promoted: the last candidate is weaker", "bad"),
        (None, "Not promoted: nothing improved", "bad"),
    ],
)
def test_a_run_that_was_not_promoted_says_so_plainly(run: Run, gap: Any, headline: str, tone: str) -> None:
    folder, summary = run(judgements=[judgement(8, "untrained", False, gap, untrained=(60, 80, 60))])
    shown = page(folder, summary | {"verdict": "not promoted", "champion": None})
    assert headline in shown.text
    assert any(attrs.get("class") == f"verdict {tone}" for _, attrs in shown.tags)
    assert "The last of 1 candidate, iteration 8, " in shown.text
    assert "Champion untrained" in shown.text


def test_a_promotion_that_the_arena_does_not_know_is_not_praised(run: Run) -> None:
    folder, summary = run(judgements=JUDGEMENTS[1:])
    shown = page(folder, summary)
    assert "Promoted: iteration 4, though no improvement was recorded" in shown.text
    assert any(attrs.get("class") == "verdict mixed" for _, attrs in shown.tags)


def test_an_unknown_verdict_is_an_error(run: Run) -> None:
    folder, summary = run()
    with pytest.raises(DataError, match="must be 'promoted' or 'not promoted'"):
        write_selfplay_report(folder, summary | {"verdict": "promotd"})
    assert not (folder / "report.html").exists()


# ---------------------------------------------------------------------------------------------- what is missing


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    shown = page(tmp_path, {"verdict": "not promoted"})
    assert shown.ids() >= SECTIONS
    assert "Not promoted: nothing was judged" in shown.text
    for name in ("arena.json", "metrics.jsonl", "timing.jsonl", "config.json", "trees.json"):
        assert f"{name} is missing from the run folder" in shown.text
    assert "No next commands were given." in shown.text


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"judgements": [{}], "ratings": {}}', '{"judgements": 3, "ratings": []}']
)
def test_a_damaged_arena_is_a_sentence(run: Run, damage: str) -> None:
    folder, summary = run()
    (folder / "arena.json").write_text(damage)
    assert "arena.json could not be read" in page(folder, summary).text


@pytest.mark.parametrize("damage", ["{}", "[3]", '[{"title": "x"}]', '[{"title": "x", "tree": {"label": 3}}]'])
def test_damaged_trees_are_a_sentence(run: Run, damage: str) -> None:
    folder, summary = run()
    (folder / "trees.json").write_text(damage)
    assert "trees.json could not be read" in page(folder, summary).text


def test_metrics_and_settings_that_were_not_recorded_are_named(run: Run) -> None:
    folder, summary = run(judgements=[], ratings={})
    (folder / "metrics.jsonl").write_text('{"step": 1, "selfplay/length": 5.5}\n')
    (folder / "config.json").write_text("{}")
    text = page(folder, summary | {"verdict": "not promoted"}).text
    for key in ("learn/policy/kl", "learn/lr/net", "selfplay/draws", "selfplay/cache_hits"):
        assert key in text
    assert "Network not recorded" in text and "arena.json rates no iteration" in text
    assert "Nothing was judged" in text


# ---------------------------------------------------------------------------------------------- safety and looks


def test_what_a_user_wrote_is_escaped_and_nothing_comes_from_the_network(run: Run) -> None:
    folder, summary = run(hostile=HOSTILE)
    shown = page(folder, summary)
    assert [tag for tag, _ in shown.tags if tag in ("img", "iframe", "link", "object")] == ["link"]  # the empty icon
    assert sum(tag == "script" for tag, _ in shown.tags) == 1
    places = [attrs[key] or "" for _, attrs in shown.tags for key in ("src", "href", "xlink:href") if key in attrs]
    assert [place for place in places if not place.startswith(("#", "data:,"))] == []


PROBE = """<script>
const found = { charts: 0, flat: 0, tips: 0, trees: 0, overlaps: 0, cut: 0, window: innerWidth };
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
for (const chart of document.querySelectorAll("svg.chart")) {
  const box = chart.getBoundingClientRect();
  found.charts += 1;
  found.flat += box.width < 100 || box.height < 80 || !chart.querySelector("path.line");
  const area = chart.parentElement;
  area.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 5 }));
  found.tips += !document.getElementById("tip").hidden && document.getElementById("tip").textContent.length > 3;
  area.dispatchEvent(new PointerEvent("pointerleave"));
}
for (const tree of document.querySelectorAll("svg.search-tree")) {
  found.trees += 1;
  const whole = tree.getBoundingClientRect();
  const boxes = [...tree.querySelectorAll("text")].map((text) => text.getBoundingClientRect());
  boxes.forEach((a, i) => {
    found.cut += a.left < whole.left || a.right > whole.right || a.bottom > whole.bottom;
    for (const b of boxes.slice(0, i)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      found.overlaps += wide > 0.5 && high > 3;
    }
  });
}
for (const figure of document.querySelectorAll(".figures > div")) found.cut += figure.scrollWidth > figure.clientWidth;
const shade = () => getComputedStyle(document.querySelector(".search-tree .under")).fill;
const before = shade();
document.getElementById("scheme").click();
found.switched = before !== shade();
parent.document.body.setAttribute("data-found", JSON.stringify(found));
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason=f"no browser found: none of {', '.join(BROWSERS)} is on the PATH")
@pytest.mark.parametrize("hostile", ["", HOSTILE])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_overlaps_or_scrolls_sideways(run: Run, tmp_path: Path, width: int, hostile: str) -> None:
    folder, summary = run(hostile=hostile)
    html = write_selfplay_report(folder, summary).read_text()
    probe = folder / "probe.html"
    inner = escape(html.replace("</body>", PROBE))  # in a frame: headless windows are never as narrow as a phone
    frame = f'<!doctype html><iframe width="{width}" height="900" srcdoc="{inner}" style="border: 0"></iframe>'
    probe.write_text(frame)
    dom, log = browse(probe, tmp_path / f"profile{os.getpid()}")
    match = re.search(r'data-found="([^"]*)"', dom)
    assert console(log) == []
    assert match, "the probe did not finish"
    assert json.loads(unescape(match[1])) == {
        "charts": 13, "flat": 0, "tips": 13, "trees": 1, "overlaps": 0, "cut": 0, "window": width, "wide": 0,
        "switched": True,
    }  # fmt: skip
