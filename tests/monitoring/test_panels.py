from __future__ import annotations

from typing import Any

import pytest

from troupe.monitoring.charts import Plot
from troupe.monitoring.panels import agents_in, diagnostics, fine_tuning, observations, points_of, rewards, time_split
from troupe.monitoring.run_folder import Found


def rows(**columns: list[Any]) -> Found[Any]:
    """Rows numbered from 1; a None is left out. `__` stands for `/` in a key."""
    steps = range(1, 1 + len(next(iter(columns.values()))))
    named = {key.replace("__", "/"): values for key, values in columns.items()}
    return Found(tuple({"step": s} | {k: v[s - 1] for k, v in named.items() if v[s - 1] is not None} for s in steps))


def test_values_that_are_null_or_missing_are_gaps_not_zeros() -> None:
    found = ({"step": 1, "a": 1.0}, {"step": 2, "a": None}, {"step": 3}, {"step": 4, "a": 4.0})
    assert points_of(found, "a") == [(1.0, 1.0), (4.0, 4.0)]
    assert points_of(({"step": 1, "a": 3.0, "b": 4.0}, {"step": 2, "a": 3.0, "b": 0}), "a", "b") == [(1.0, 0.75)]


def test_agents_keep_their_names_even_with_slashes() -> None:
    found = (
        {"step": 1, "reward/solver/mean": 0, "reward/team/judge/mean": 0, "val/reward/x/mean": 0, "reward/y/std": 0},
    )
    assert agents_in(found) == ["solver", "team/judge"]


def test_rewards_of_all_agents_share_one_scale() -> None:
    plots = rewards(rows(reward__a__mean=[0.0, 0.1], reward__b__mean=[0.5, 0.9]), {"a": "agent-0", "b": "agent-1"})
    assert [plot.y_ticks for plot in plots if isinstance(plot, Plot)] == [plots[0].y_ticks] * 2  # type: ignore[union-attr]


def test_short_curves_are_drawn_raw_and_long_ones_get_an_average() -> None:
    short, long = (fine_tuning(rows(sft__nll=[5.0 - i / n for i in range(n)])) for n in (10, 100))
    assert isinstance(short, Plot) and isinstance(long, Plot)
    assert [(line.name, line.faint) for line in short.lines] == [("loss", False)]
    assert [(line.name, line.faint) for line in long.lines] == [("loss", True), ("moving average", False)]


def test_a_metric_that_was_not_recorded_is_a_sentence() -> None:
    panels = diagnostics(rows(actor__entropy=[1.0]), {})
    assert isinstance(panels[0], Plot)
    assert panels[1] == "Clipped tokens: actor/pg_clipfrac was not recorded."
    assert all(isinstance(panel, str) for panel in panels[1:])
    assert diagnostics(Found(None, "Gone."), {}) == ["Gone."]


def test_rows_without_signal_are_a_share_of_all_rows() -> None:
    panel = diagnostics(rows(rollout__rows=[400.0, 200.0], rollout__rows_without_signal=[100.0, 150.0]), {})[5]
    assert isinstance(panel, Plot)
    assert panel.label.replace("\N{NO-BREAK SPACE}", " ") == (
        "Rows without signal: left out from 25.0 % at update 1 to 75.0 % at 2"
    )


def test_observations_count_what_went_wrong() -> None:
    found = rows(
        reward__a__std=[0.0, 0.3, 0.0],
        actor__loss__policy=[0.1, None, 0.1],
        actor__skipped_updates=[0.0, 1.0, 2.0],
        rollout__forked_steps=[3.0, 0.0, 4.0],
        training__rollout_logprob_diff_max=[3.8e-6, None, None],
    )
    assert observations(found, ["a"]) == [
        "Sampled and recomputed log-probabilities differ by at most 3.8e-06 (update 1).",
        "Every reward of a was the same in 2 of 3 updates: it could not learn there.",
        "Nothing was learned in 1 of 3 updates, because all advantages were zero.",
        "2 optimiser steps were skipped, because a gradient was not finite.",
        "7 calls began a new row, because the chat template rewrites what came before.",
    ]
    assert observations(Found(None, "Gone."), ["a"]) == []


@pytest.mark.parametrize(
    ("total", "shares"), [(100.0, [0.6, 0.3, 0.1]), (50.0, [2 / 3, 1 / 3]), (None, [2 / 3, 1 / 3])]
)
def test_time_is_split_into_what_was_measured_and_the_rest(total: float | None, shares: list[float]) -> None:
    split = time_split(rows(time__rollout_s=[20.0, 40.0], time__update_s=[10.0, 20.0]), total)
    assert isinstance(split, list)
    assert [part.share for part in split] == pytest.approx(shares)


def test_time_that_was_not_measured_is_a_sentence() -> None:
    assert (
        time_split(rows(other=[1.0]), 10.0) == "Not recorded: timing.jsonl holds no time/rollout_s and time/update_s."
    )
