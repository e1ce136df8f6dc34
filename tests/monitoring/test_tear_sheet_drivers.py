"""What drove the decisions, on the page and by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.made_up_evaluation import START, Record, interval, made_up
from tests.monitoring.test_report import Page
from troupe.errors import DataError
from troupe.monitoring.charts import Plot
from troupe.monitoring.tear_sheet import render_tear_sheet
from troupe.monitoring.tear_sheet_drivers import drivers


def spaced(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def page(folder: Path, found: Any) -> Page:
    (folder / "evaluation.json").write_text(json.dumps(made_up(30) | {"drivers": found}))
    return Page(render_tear_sheet(folder))


def allocation(shares: Mapping[str, list[Any]], **more: Any) -> Record:
    count = len(next(iter(shares.values())))
    return {"allocation": {"times": [START + 86_400 * i for i in range(count)], "shares": shares} | more}


def chart(shares: Mapping[str, list[Any]], **more: Any) -> Plot:
    found = drivers(allocation(shares, **more)).allocation
    assert isinstance(found, Plot)
    return found


# ---------------------------------------------------------------------------------------------- the section


def test_the_section_shows_what_the_record_holds(tmp_path: Path) -> None:
    shown = page(tmp_path, made_up(30)["drivers"])
    text = spaced(shown.text)
    assert "drivers" in shown.ids() and any(attrs.get("href") == "#drivers" for _, attrs in shown.tags)
    assert "decides allocation forex, allocation commodities, allocation equity, risk" in text
    # 0.31 (1 + 1/1.5 + 1/1.5^2 + ...): 31.0, 20.7, 13.8, 9.2, 6.1 %, which leave 19.2 %
    assert "market_std_20 31.0 % dispersion 20.7 % drawdown 13.8 % record_forex 9.2 %" in text
    assert "all others 19.2 %" in text
    assert "volatility 45.0 % 0.021 [0.017, 0.025]" in text and "hours 2.0 % not defined" in text
    assert "they are no causes. Inputs that move together stand in for each other" in text
    # 400, 310, 220 and 130 bars: 400 of 1060 are 37.7 %
    assert "volatile 400 37.7 % 33.3 % 33.3 % 33.3 % 60.0 %" in text
    assert "neutral 130 12.3 % 33.3 % 33.3 % 33.3 % 30.0 % not defined" in text


@pytest.mark.parametrize("missing", [True, False])
def test_a_record_without_drivers_has_no_section(tmp_path: Path, missing: bool) -> None:
    record = made_up(30) | {"drivers": None}
    if missing:
        del record["drivers"]
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    shown = Page(render_tear_sheet(tmp_path))
    assert "drivers" not in shown.ids() and "drove its decisions" not in shown.text
    assert not any(attrs.get("href") == "#drivers" for _, attrs in shown.tags) and "holds no drivers" not in shown.text


@pytest.mark.parametrize("kept", ["agents", "allocation", "by_regime"])
def test_each_part_can_stand_alone(tmp_path: Path, kept: str) -> None:
    shown = page(tmp_path, {kept: made_up(30)["drivers"][kept]})
    titles = {"agents": "Inputs that moved each agent", "allocation": "Allocation over time", "by_regime": "By regime"}
    for name, title in titles.items():
        assert (title in shown.text) == (name == kept), name
    assert "No input was weighed." not in shown.text and "could not be read" not in shown.text


# ---------------------------------------------------------------------------------------------- features


def test_features_fall_and_the_rest_is_what_they_leave() -> None:
    features = [{"name": "a", "share": 0.1}, {"name": "b", "share": 0.5}, {"name": "c", "share": None}]
    (found,) = drivers({"agents": [{"agent": "PPO", "outputs": ["EURUSD"], "features": features}]}).agents
    assert [row.name for row in found.features] == ["b", "a", "c"]
    assert [row.width for row in found.features] == [100.0, 20.0, 0.0]
    assert spaced(found.rest) == "40.0 %" and found.features[2].cells == ("not defined",)
    assert {row.tone for row in found.features} == {"agent-0"} and found.groups == ()


def test_features_that_are_all_there_is_leave_nothing() -> None:
    entry = {"agent": "PPO", "features": [{"name": "a", "share": 1.0 + 1e-9}]}
    assert drivers({"agents": [entry]}).agents[0].rest == ""


def test_an_agent_has_the_colour_of_its_sector_and_who_allocates_is_ink() -> None:
    names = ("meta", "equity", "forex")
    agents = [{"agent": name, "features": [{"name": "a", "share": 0.5}]} for name in names]
    found = drivers({"agents": agents} | allocation({"forex": [0.5], "equity": [0.5]}))
    assert [agent.features[0].tone for agent in found.agents] == ["ink", "agent-1", "agent-0"]


def test_many_outputs_are_counted() -> None:
    (found,) = drivers({"agents": [{"agent": "all", "outputs": [f"I{i}" for i in range(11)]}]}).agents
    assert found.outputs == "I0, I1, I2, I3, I4, I5, I6, I7 and 3 more" and found.features == ()


def test_groups_show_a_fall_only_where_columns_were_shuffled() -> None:
    shuffled = {"name": "b", "share": 0.9, "fall": interval(0.5)}
    plain, both = (
        drivers({"agents": [{"agent": "x", "groups": groups}]}).agents[0]
        for groups in ([{"name": "a", "share": 0.7}], [{"name": "a", "share": 0.7}, shuffled])
    )
    assert not plain.shuffled and len(plain.groups[0].cells) == 1
    assert both.shuffled and [row.cells[1:] for row in both.groups] == [("not defined", ""), ("0.5", "no interval")]


# ---------------------------------------------------------------------------------------------- allocation


def test_areas_stand_on_each_other_by_hand() -> None:
    # A share of 1 is at 0, one of 0 at 925 of 1000: 0.2 and 0.6 end at 740 and 370 from the top.
    found = chart({"forex": [0.2, 0.6], "equity": [0.8, 0.4]}, risk=[1.0, 0.5])
    forex, equity, risk = found.lines
    assert forex.path == "M0 740L1000 370" and forex.band == "M0 740L1000 370L1000 925L0 925Z"
    assert equity.path == "M0 0L1000 0" and equity.band == "M0 0L1000 0L1000 370L0 740Z"
    assert (risk.name, risk.colour, risk.path, risk.band) == ("risk appetite", "ink", "M0 0L1000 462.5", "")
    assert found.legend == (("forex", "agent-0"), ("equity", "agent-1"), ("risk appetite", "ink"))
    assert found.y_ticks[0] == (pytest.approx(7.5), "0 %") and found.y_ticks[-1] == (100.0, "100 %")


def test_under_the_pointer_are_the_shares_and_not_their_sums() -> None:
    found = chart({"forex": [0.2, 0.6], "equity": [0.8, 0.4]}, risk=[1.0, None], regime=["bull", None])
    first, last = found.hover
    assert first["t"] == "2019-01-03 \N{MIDDLE DOT} bull" and last["t"] == "2019-01-04"
    told = [[name, spaced(text)] for _, name, text in first["v"]]
    assert told == [["risk appetite", "100.0 %"], ["equity", "80.0 %"], ["forex", "20.0 %"]]
    assert [entry[1] for entry in last["v"]] == ["equity", "forex"] and (first["p"], last["p"]) == (0.0, 100.0)
    words = "forex 40.0 % on average, at most 60.0 %; equity 60.0 % on average, at most 80.0 %"
    assert spaced(found.label).startswith(f"Allocation from 2019-01-03 to 2019-01-04: {words}; risk appetite 100.0 %")


def test_the_strip_has_one_bar_for_each_stretch_of_a_regime() -> None:
    regimes = ["bull", "bull", None, "storm", "volatile", "volatile"]
    found = chart({"forex": [1.0] * 6}, regime=regimes)
    # Six bars lie 200 apart: a stretch reaches half a step, 100, beyond both its ends, but for the edges.
    places = [(bar["x"], bar["width"], bar["colour"]) for bar in found.bars]
    assert places == [(0.0, 300.0, "good"), (500.0, 200.0, "agent-4"), (700.0, 300.0, "mixed")]
    assert found.legend[1:] == (("regime: volatile", "mixed"), ("regime: bull", "good"), ("regime: storm", "agent-4"))
    assert all(bar["y"] + bar["height"] == 1000 and bar["y"] > 925 for bar in found.bars)


def test_a_bar_with_a_share_that_is_not_defined_is_left_out() -> None:
    found = chart({"forex": [0.2, None, 0.4], "equity": [0.8, 0.5, 0.6]})
    assert found.lines[0].path == "M0 740L1000 555" and len(found.hover) == 2
    assert drivers(allocation({"forex": [None]})).allocation == "Allocation over time: the record holds no point of it."


def test_one_bar_is_a_dot_and_many_are_thinned() -> None:
    assert chart({"forex": [0.5]}).lines[0].dots == ((0.0, 462.5),)
    found = chart({"forex": [0.5] * 3000}, regime=["bull"] * 3000)
    assert found.lines[0].path.count("L") < 500 and len(found.hover) <= 150
    assert [(bar["x"], bar["width"]) for bar in found.bars] == [(0.0, 1000.0)]


# ---------------------------------------------------------------------------------------------- damage

HALF = {"forex": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({}, "it holds none of agents, allocation, by_regime"),
        (allocation(HALF, risk=[0.1]), "risk has 1 points, and there are 2 times"),
        (allocation(HALF, regime=["bull"]), "regime has 1 points, and there are 2 times"),
        (allocation(HALF | {"equity": [0.5]}), "shares of equity has 1 points, and there are 2 times"),
        (allocation(HALF | {"equity": [0.5, 0.6]}), "shares of the sectors sum to 1.1, which is more than 1"),
        (allocation(HALF | {"equity": [0.5, -0.1]}), "shares of equity is -0.1, which is outside 0 to 1"),
        (allocation(HALF, risk=[0.1, 1.5]), "risk is 1.5, which is outside 0 to 1"),
        (allocation(HALF, regime=["bull", 3]), "expected a text, found 3"),
        ({"agents": [{"agent": "x", "features": [{"name": "a", "share": 0.7}] * 2}]}, "features of x sum to 1.4"),
        ({"agents": [{"agent": "x", "groups": [{"name": "a", "share": 1.2}]}]}, "the share of group a is 1.2"),
        ({"agents": [{"agent": 3}]}, "expected a text, found 3"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, part: Record, said: str) -> None:
    with pytest.raises(DataError, match=said):
        drivers(part)
    shown = page(tmp_path, part)
    assert "drivers of evaluation.json could not be read: " in shown.text and said in shown.text
    assert "drivers" in shown.ids() and "Allocation over time" not in shown.text
