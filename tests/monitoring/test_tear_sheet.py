"""The tear sheet of a made-up evaluation."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.made_up_evaluation import NAMES, START, Record, interval, made_up
from tests.monitoring.test_report import Page
from tests.monitoring.test_report_browser import BROWSER, BROWSERS, browse, console
from troupe.monitoring.tear_sheet import write_tear_sheet

HOSTILE = "<script>console.error('escaped?')</script><img src=x onerror=console.error(1)>" + "9" * 300
SECTIONS = {
    "verdict", "figures", "strategies", "curves", "months", "trades", "attribution", "regimes", "limits", "costs",
    "drivers", "folds", "targets", "caveats", "next",
}  # fmt: skip
PARTS = (
    "verdict", "market", "years", "detectable", "trials", "folds", "strategies", "series", "trades", "attribution",
    "regimes", "limits", "cost_sweep", "break_even", "monthly", "drawdowns", "drivers", "targets", "caveats",
    "commands", "title", "created",
)  # fmt: skip
OPTIONAL = {"drivers"}  # a record without it has no such section
READ = sorted(set(PARTS) - {"years", "detectable", "trials", "break_even", "title", "created", "verdict"})


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Page]:
    """Writes the record, makes the page and reads it."""

    def write(record: Any) -> Page:
        (tmp_path / "evaluation.json").write_text(record if isinstance(record, str) else json.dumps(record))
        path = write_tear_sheet(tmp_path)
        assert path == tmp_path / "report.html"
        return Page(path.read_text(encoding="utf-8"))

    return write


Written = Callable[[Any], Page]


def absent(shown: Page) -> int:
    return sum(attrs.get("class") == "absent" for _, attrs in shown.tags)


def hovers(shown: Page) -> list[Any]:
    return [json.loads(attrs["data-hover"] or "") for _, attrs in shown.tags if "data-hover" in attrs]


def spaced(shown: Page) -> str:
    return shown.text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


# ---------------------------------------------------------------------------------------------- what it says


def test_no_edge_stands_beside_what_the_record_could_have_shown(written: Written) -> None:
    shown = written(made_up())
    text = spaced(shown)
    assert shown.ids() >= SECTIONS and absent(shown) == 0
    assert any(attrs.get("class") == "verdict bad" for _, attrs in shown.tags)
    begin = text.index("No edge was shown No edge at alpha 0.01 (p = 0.27).")
    verdict = text[begin : text.index("Market recorded prices")]
    assert "3.97 years out of sample show an annual Sharpe ratio of 1.25 or more" in verdict
    assert "No edge shown is not the same as no edge there." in verdict
    assert "p-value 0.27 an edge from 0.01 downwards" in verdict
    assert "Sharpe ratio of PPO 0.41 [-0.69, 1.51]" in verdict
    assert "Smallest that could be shown 1.25 in 3.97 years" in verdict
    assert "Configurations tried 7 deflated Sharpe ratio 0.36" in verdict


def with_edge(**learned: Any) -> Record:
    record = made_up(50)
    record["verdict"] = {"text": "an edge at alpha 0.01 (p = 0.002)", "edge": True, "p": 0.002, "alpha": 0.01}
    record["strategies"][-1] |= {"edge": True, "deflated": 0.97, **learned}
    return record


@pytest.mark.parametrize(
    ("learned", "tone", "said"),
    [
        ({}, "good", "An edge at \N{GREEK SMALL LETTER ALPHA} = 0.01"),
        ({"deflated": None}, "good", "An edge at"),
        ({"deflated": 0.94}, "mixed", "with something against it"),
        ({"ruined": 2}, "mixed", "2 of 5 policies were ruined."),
    ],
)
def test_an_edge_is_said_with_what_speaks_against_it(written: Written, learned: Record, tone: str, said: str) -> None:
    shown = written(with_edge(**learned))
    assert said in shown.text and "3.97 years out of sample show" in shown.text
    assert any(attrs.get("class") == f"verdict {tone}" for _, attrs in shown.tags)


@pytest.mark.parametrize("change", [{"p": 0.02}, {"p": None}, {"edge": "yes"}, {"alpha": None}])
def test_an_edge_that_its_own_p_value_does_not_bear_out_is_none(written: Written, change: Record) -> None:
    record = with_edge()
    record["verdict"] |= change
    shown = written(record)
    assert any(attrs.get("class") == "verdict bad" for _, attrs in shown.tags)
    assert "An edge at \N{GREEK SMALL LETTER ALPHA}" not in shown.text


def test_a_simulated_market_stands_in_the_headline(written: Written) -> None:
    record = with_edge()
    record["market"]["simulated"] = True
    assert "An edge in a simulated market at" in written(record).text
    record["verdict"]["edge"] = False
    assert "No edge was shown in a simulated market" in written(record).text


def test_the_learned_strategy_comes_first_with_every_metric_and_interval(written: Written) -> None:
    text = spaced(written(made_up(50)))
    assert "PPO learned 5 seeds, 0 with an edge 0.41 [-0.69, 1.51] 3.3 % [-1.7, 8.3] 12.7 % [9.7, 15.7] 23.4" in text
    assert text.index("PPO learned") < text.index("random, same turnover 5 seeds") < text.index("cash 1 run")
    assert "Turnover per year 23.4 [21.2, 25.6]" in text and "Costs per year 1.2 % [1.1, 1.3]" in text
    assert "VaR forecast was right 0.31 p-value, Kupiec's test" in text
    assert "Seeds with an edge of their own 0 of 5 seeds" in text


def test_null_is_not_defined_and_one_run_has_no_interval(written: Written) -> None:
    record = made_up(50)
    record["strategies"][-1]["metrics"]["sharpe"] = interval(None)
    record["strategies"][-1] |= dict.fromkeys(("p", "probabilistic", "deflated", "kupiec"))
    record["attribution"][0] |= {"profit": None, "trades": None}
    record["regimes"][0]["sharpe"]["PPO"] = None
    record["cost_sweep"][0] |= {"sharpe": interval(None), "annual": interval(None)}
    record["trades"]["shown"][0]["profit"] = record["drawdowns"][0]["depth"] = None
    record["monthly"][0]["return"] = None
    record["detectable"] = record["verdict"]["p"] = None
    shown = written(record)
    text = spaced(shown)
    assert absent(shown) == 0
    assert "cash 1 run not defined 0.0 % 0.0 % 0 0.0 % not defined" in text
    assert "Sharpe ratio of PPO not defined" in text and "Smallest that could be shown not defined" in text
    for found in (
        "EURUSD not defined not defined 9,120", "calm, falling 16.7 % not defined", "not defined 2020-02-20",
        "0\N{MULTIPLICATION SIGN} not defined not defined", "2019 not defined",
    ):  # fmt: skip
        assert found in text, found
    assert "None" not in text and "nan" not in text.lower().replace("finance", "")


def test_curves_carry_dates_the_band_and_the_learned_strategy_first(written: Written) -> None:
    record = made_up(1000)
    shown = written(record)
    equity, drawdown, exposure = hovers(shown)[:3]
    curve = record["series"]["curves"]["PPO"]
    first = [100 * (curve[key][0] / 1e6 - 1) for key in ("equity", "low", "high")]
    assert equity[0]["t"] == "2019-01-03" and len(equity) <= 150
    assert [entry[1] for entry in equity[0]["v"]] == list(NAMES)[:1] + [n for n in NAMES if n != "PPO"]
    assert drawdown[0]["v"][0][:2] == ["ink", "PPO"] and [e[1] for e in exposure[0]["v"]] == ["net", "gross"]
    said = equity[0]["v"][0][2].replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
    assert said == f"{first[0]:.1f} % [{first[1]:.1f} %, {first[2]:.1f} %]"
    labels = [attrs["aria-label"] or "" for tag, attrs in shown.tags if tag == "svg" and "aria-label" in attrs]
    last = f"{100 * (curve['equity'][-1] / 1e6 - 1):.1f} %"
    day = "2021-09-28"  # 999 days after the first
    told = labels[0].replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
    assert told.startswith("Equity: PPO from ") and f"to {last} on {day}" in told


@pytest.mark.parametrize(
    ("step", "labels"),
    [
        (86_400 * 7, "2020 2024 2028"),
        (86_400, "Jul 2019 Jan 2020 Jul 2020 Jan 2021 Jul 2021"),
        (3600, "5 Jan"),
        (60, "2019-01-03 02:00"),
    ],
)
def test_dates_along_the_axis_fit_the_length_of_the_record(written: Written, step: int, labels: str) -> None:
    record = made_up(1000)
    record["series"]["times"] = [START + step * i for i in range(1000)]
    assert labels in written(record).text


def test_the_histogram_counts_every_trip_and_divides_at_zero(written: Written) -> None:
    record = made_up(50)
    record["trades"]["histogram"] = [-0.3, -0.1, -0.1, 0.0, 0.2, 0.2, 0.2, 0.9]
    shown = written(record)
    bars = next(stops for stops in hovers(shown) if stops[0]["v"][0][1] == "round trips")
    assert sum(int(stop["v"][0][2]) for stop in bars) == 8
    assert {stop["v"][0][0] for stop in bars if stop["t"].startswith("\N{MINUS SIGN}")} == {"bad"}
    assert {stop["v"][0][0] for stop in bars if not stop["t"].startswith("\N{MINUS SIGN}")} == {"good"}
    assert sum(int(stop["v"][0][2]) for stop in bars if stop["v"][0][0] == "bad") == 3
    assert "50.0 % of them won" in spaced(shown)


@pytest.mark.parametrize("values", [[0.0], [1.5], [-2.0, -2.0], [1e-9, 2e-9], [5.0] * 300])
def test_any_trips_make_a_histogram(written: Written, values: list[float]) -> None:
    record = made_up(50)
    record["trades"]["histogram"] = values
    bars = next(stops for stops in hovers(written(record)) if stops[0]["v"][0][1] == "round trips")
    assert sum(int(stop["v"][0][2]) for stop in bars) == len(values)


@pytest.mark.parametrize(
    ("annual", "break_even", "said"),
    [
        ([0.05, 0.01, -0.02], 1.33, "reaches zero at 1.33 times the costs"),
        ([-0.01, -0.02, -0.03], None, "It loses even without any costs"),
        ([0.05, 0.04, 0.03], None, "It still gains at 2 times the costs"),
        ([None, None, None], None, "No break-even cost can be given"),
    ],
)
def test_the_cost_sweep_says_what_costs_it_bears(
    written: Written, annual: list[float | None], break_even: float | None, said: str
) -> None:
    record = made_up(50) | {"break_even": break_even}
    record["cost_sweep"] = [
        {"factor": f, "sharpe": interval(0.1), "annual": interval(mean, 0.01)}
        for f, mean in zip((0.0, 1.0, 2.0), annual, strict=True)
    ]
    assert said in written(record).text


def test_months_compound_to_their_year_and_targets_are_met_or_missed(written: Written) -> None:
    record = made_up(50)
    record["monthly"] = [{"year": 2020, "month": m, "return": r} for m, r in ((1, 0.1), (3, -0.2))]
    text = spaced(written(record))
    assert "2020 10.0 -20.0 -12.0 %" in text  # 1.1 * 0.8 - 1
    assert "Sharpe ratio > 2.0 0.41 ✗ missed" in text and "Max drawdown < 15 % 12.7 % ✓ met" in text
    assert "-6.4 % 2022-09-01 2022-10-19 not recovered 85" in text
    assert "stop loss 0.05 41 1.0 %" in text and "breaker [0.05, 0.1, 0.15] never 0.0 %" in text


# ---------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    "gone", [PARTS[::2], PARTS[1::2], ("strategies",), ("break_even", "trials", "title", "created")]
)
def test_a_page_without_some_parts_says_so_and_keeps_the_others(written: Written, gone: tuple[str, ...]) -> None:
    record = made_up(30)
    for part in gone:
        del record[part]
    shown = written(record)
    assert shown.ids() >= SECTIONS - OPTIONAL and OPTIONAL & shown.ids() == OPTIONAL - set(gone)
    assert ("No edge was shown" in shown.text) == ("verdict" not in gone)
    said = {part for part in PARTS if f"Not recorded: evaluation.json holds no {part}." in shown.text}
    assert said == set(gone) & set(READ) - OPTIONAL
    assert absent(shown) == len(said) + ("strategies" in said)  # which holds the key figures too
    assert ("Configurations tried not recorded" in shown.text) == ("trials" in gone)


def test_a_record_of_its_version_alone_is_a_page_of_sentences(written: Written) -> None:
    shown = written({"version": 1})
    assert shown.ids() >= SECTIONS - OPTIONAL and "Not tested: nothing was shown" in shown.text
    assert "no edge is claimed without them" in shown.text
    assert hovers(shown) == [] and absent(shown) > 12


def test_empty_parts_are_sentences(written: Written) -> None:
    empty = {
        "folds": [], "strategies": [], "series": {"times": [], "curves": {}}, "attribution": [], "regimes": [],
        "trades": {"count": 0, "shown": [], "histogram": []}, "limits": [], "cost_sweep": [], "monthly": [],
        "drawdowns": [], "drivers": {"agents": []}, "targets": [], "caveats": [], "commands": [],
    }  # fmt: skip
    shown = written(made_up(5) | empty)
    assert shown.ids() >= SECTIONS and hovers(shown) == []
    for said in ("0 round trips", "No limit was set.", "No other costs were tried.", "series holds no curve"):
        assert said in shown.text


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", "null", '{"version": 2}', "{}", "\udc80", "[" * 100_000])
def test_a_damaged_file_is_one_sentence(written: Written, tmp_path: Path, damage: str) -> None:
    (tmp_path / "evaluation.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    shown = Page(write_tear_sheet(tmp_path).read_text(encoding="utf-8"))
    assert shown.text.count("could not be read") == 1
    assert "Nothing can be said about this strategy" in shown.text
    assert shown.ids() & SECTIONS == {"verdict"}


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    shown = Page(write_tear_sheet(tmp_path).read_text(encoding="utf-8"))
    assert "evaluation.json is missing from the run folder." in shown.text
    assert shown.ids() & SECTIONS == {"verdict"}


DAMAGES: list[Any] = [
    3,
    "x",
    [3],
    [{}],
    {"x": 3},
    [None],
    True,
    [[]],
    {"times": [1, 2], "curves": {"PPO": {"equity": [1]}}},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damaged_parts_are_sentences(written: Written, damage: Any) -> None:
    record = made_up(5)
    shown = written(record | dict.fromkeys(READ, damage))
    assert shown.ids() >= SECTIONS and "No edge was shown" in shown.text and hovers(shown) == []
    for part in READ:
        if part != "market" or not isinstance(damage, dict):  # where every field may be missing
            assert f"{part} of evaluation.json could not be read: " in shown.text, part


@pytest.mark.parametrize("damage", [*DAMAGES, {"p": "0.1", "alpha": []}])
def test_a_damaged_verdict_shows_nothing(written: Written, damage: Any) -> None:
    wrong = dict.fromkeys(("verdict", "years", "detectable", "trials", "title", "created"), damage)
    shown = written(made_up(5) | wrong)
    assert any(attrs.get("class") == "verdict bad" for _, attrs in shown.tags)
    assert "An edge" not in shown.text


def test_numbers_that_are_not_finite_are_not_defined(written: Written) -> None:
    text = json.dumps(made_up(5) | {"detectable": math.nan}).replace("41234.5", "Infinity").replace("9120.0", "1e999")
    shown = written(text)
    assert "EURUSD not defined 160 not defined" in shown.text
    assert "could not be read" not in shown.text


# ---------------------------------------------------------------------------------------------- safety and looks


def hostile(value: Any) -> Any:
    """The record with every text replaced, but for dates, sides and names of metrics."""
    if isinstance(value, dict):
        return {(HOSTILE + k if k in NAMES else k): hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\dT", value):
        return HOSTILE + value if value in NAMES else HOSTILE
    return value


def test_what_a_user_wrote_is_escaped_and_nothing_comes_from_the_network(written: Written) -> None:
    shown = written(hostile(made_up(100)))
    assert absent(shown) == 0
    assert [tag for tag, _ in shown.tags if tag in ("img", "iframe", "link", "object")] == ["link"]  # the empty icon
    assert sum(tag == "script" for tag, _ in shown.tags) == 1
    assert [key for _, attrs in shown.tags for key in attrs if key.startswith("on")] == []
    places = [attrs[key] or "" for _, attrs in shown.tags for key in ("src", "href", "xlink:href") if key in attrs]
    assert [place for place in places if not place.startswith(("#", "data:,"))] == []


def test_the_page_is_small(tmp_path: Path) -> None:
    record = made_up(1000)
    record["trades"] |= {"histogram": [random.Random(1).gauss(0, 1) for _ in range(20_000)], "count": 20_000}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    assert write_tear_sheet(tmp_path).stat().st_size < 500_000


def test_everything_that_scrolls_or_opens_is_reached_by_keyboard(written: Written) -> None:
    shown = written(made_up(30))
    regions = [attrs for _, attrs in shown.tags if "scroll" in (attrs.get("class") or "").split()]
    assert len(regions) >= 9 and all(a.get("tabindex") == "0" and a.get("aria-label") for a in regions)
    targets = {(attrs["href"] or "")[1:] for tag, attrs in shown.tags if tag == "a"}
    assert targets and targets <= shown.ids()


PROBE = """<script>
const found = { charts: 0, flat: 0, tips: 0, keys: 0, cut: [], over: [], window: innerWidth };
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
for (const chart of document.querySelectorAll("svg.chart")) {
  const box = chart.getBoundingClientRect();
  const shown = () => !tip.hidden && tip.textContent.length > 3;
  found.charts += 1;
  found.flat += box.width < 100 || box.height < 80 || !chart.querySelector("path.line, rect.bar");
  const area = chart.parentElement;
  area.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 5 }));
  found.tips += shown();
  area.dispatchEvent(new PointerEvent("pointerleave"));
  area.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  found.keys += shown() && area.tabIndex === 0;
  area.dispatchEvent(new Event("blur"));
  const spans = [...area.parentElement.querySelectorAll(".x span")].filter((span) => span.offsetWidth);
  const labels = spans.map((span) => span.getBoundingClientRect());
  labels.forEach((a, i) => {
    if (i && a.left < labels[i - 1].right + 2) found.over.push(area.parentElement.querySelector(".x").textContent);
    if (a.right > document.documentElement.clientWidth) found.over.push("beyond the edge");
  });
}
const boxes = ".numbers > div, .key > div, .facts > div, .fold, .agent, .plot, .absent, .command";
for (const box of document.querySelectorAll(boxes))
  if (box.scrollWidth > box.clientWidth + 1) found.cut.push(box.className + ": " + box.textContent.slice(0, 60));
const shade = () => getComputedStyle(document.body).backgroundColor;
const before = shade();
document.getElementById("scheme").click();
found.switched = before !== shade();
parent.document.body.setAttribute("data-found", JSON.stringify(found));
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason=f"no browser found: none of {', '.join(BROWSERS)} is on the PATH")
@pytest.mark.parametrize("change", [dict, hostile])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_is_cut_off_or_scrolls_sideways(tmp_path: Path, width: int, change: Any) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(change(made_up(400))))
    html = write_tear_sheet(tmp_path).read_text()
    probe = tmp_path / "probe.html"
    inner = escape(html.replace("</body>", PROBE))  # in a frame: headless windows are never as narrow as a phone
    probe.write_text(
        f'<!doctype html><iframe width="{width}" height="900" srcdoc="{inner}" style="border: 0"></iframe>'
    )
    dom, log = browse(probe, tmp_path / f"profile{os.getpid()}")
    match = re.search(r'data-found="([^"]*)"', dom)
    assert console(log) == []
    assert match, "the probe did not finish"
    assert json.loads(unescape(match[1])) == {
        "charts": 6, "flat": 0, "tips": 6, "keys": 6, "cut": [], "over": [], "window": width, "wide": 0,
        "switched": True,
    }  # fmt: skip
