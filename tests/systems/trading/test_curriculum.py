"""A level that follows performance alone, and the markets that it stands for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from troupe.envs.market.instruments import instrument
from troupe.envs.market.simulator import SCENARIOS, simulate
from troupe.errors import ConfigError, DataError
from troupe.stores.state import join_state, split_state
from troupe.systems.trading.curriculum import (
    EASIEST_FIRST,
    AdvancedCurriculumLearning,
    CurriculumConfig,
    TrainingScenario,
)

EIGHT = [instrument(n) for n in ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30")]


def small(**changes: Any) -> AdvancedCurriculumLearning:
    keys = {"min_episodes": 4, "window": 3, "step": 0.25, "threshold": 1.0, "lower": 0.0, "max_error": 0.5, "z": 2.0}
    return AdvancedCurriculumLearning(CurriculumConfig(**{**keys, **changes}), seed=3)


def reward(*episodes: float) -> dict[str, list[float]]:
    return {"portfolio_reward": list(episodes)}


# ---------------------------------------------------------------------------------------------- the level


def test_the_level_rises_by_hand():
    # (0.8, 1.2, 1.6, 0.8): mean 1.1 >= 1, deviation sqrt(0.44 / 3) = 0.383, error 0.191 <= 0.5
    curriculum = small()
    assert curriculum.update_curriculum(reward(0.8, 1.2)) == 0.0  # two episodes decide nothing
    assert curriculum.metrics() == {
        "curriculum/level": 0.0, "curriculum/episodes": 2.0, "curriculum/performance": 1.0,
    }  # fmt: skip
    assert curriculum.update_curriculum(reward(1.6, 0.8)) == 0.25
    assert curriculum.metrics() == {"curriculum/level": 0.25, "curriculum/episodes": 0.0}


def test_a_mean_that_is_not_known_well_enough_raises_nothing():
    # (-3, 5, -3, 5.4): mean 1.1, deviation 4.737, error 2.37 > 0.5
    assert small().update_curriculum(reward(-3, 5, -3, 5.4)) == 0.0


def test_the_level_falls_where_the_mean_is_significantly_below_and_stays_between():
    curriculum = small(start=0.5)
    # mean -0.5, deviation 1, error 0.5: -0.5 + 2 * 0.5 >= 0
    assert curriculum.update_curriculum(reward(-1.5, 0.5, -1.0, 0.0)) == 0.5
    assert small(start=0.5).update_curriculum(reward(0.4, 0.5, 0.6, 0.7)) == 0.5  # neither good nor bad
    # mean -1, deviation sqrt(2 / 3), error 0.408: -1 + 0.816 < 0
    curriculum = small(start=0.5)
    assert curriculum.update_curriculum(reward(-2.0, 0.0, -1.0, -1.0)) == 0.25


def test_a_change_begins_a_new_window():
    curriculum = small()
    curriculum.update_curriculum(reward(2, 2, 2, 2))
    assert curriculum.update_curriculum(reward(2, 2, 2)) == 0.25  # the four before do not count any more
    assert curriculum.update_curriculum(reward(2)) == 0.5


def test_old_updates_are_forgotten_only_where_the_rest_is_enough():
    curriculum = small(window=2)
    for episodes in ((9, 9), (0.2, 0.3), ()):
        curriculum.update_curriculum(reward(*episodes))
    # The window of two updates holds two episodes, too few: the first update stays, and 9s would lift the mean ...
    assert curriculum.metrics()["curriculum/episodes"] == 4
    curriculum.update_curriculum(reward(0.2, 0.3))  # ... until four newer ones are there
    assert curriculum.metrics()["curriculum/performance"] == pytest.approx(0.25)
    idle = small(window=2)
    for _ in range(50):
        idle.update_curriculum(reward())
    assert len(idle.state_dict()["window"]) == 2


def test_the_level_stays_within_0_and_1_and_tenths_add_up():
    curriculum = small(step=0.1)
    levels = [curriculum.update_curriculum(reward(2, 2, 2, 2)) for _ in range(12)]
    assert levels == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0]
    assert small().update_curriculum(reward(-2, -2, -2, -2)) == 0.0


def test_no_step_count_moves_the_level_and_the_past_is_remembered():
    """A level that rises with time says nothing of what was learned."""
    curriculum = small()
    for step in range(100, 1000, 100):
        curriculum.update_curriculum(reward(0.5, 0.5, 0.5, 0.5), training_step=step)
    assert curriculum.get_difficulty_level() == 0.0
    curriculum.update_curriculum(reward(*[5.0] * 40), training_step=1000)
    curriculum.update_curriculum(reward(), training_step=1500)
    curriculum.update_curriculum(reward(*[5.0] * 4), training_step=2000)
    assert [curriculum.get_difficulty_level(s) for s in (0, 999, 1000, 1999, 2000)] == [0.0, 0.0, 0.25, 0.25, 0.5]
    for step in (2001, 10**9, -1):
        with pytest.raises(DataError, match=f"step {step} follows from performance that nobody has measured"):
            curriculum.get_difficulty_level(step)
    with pytest.raises(DataError, match="at step 2000 and is given step 2000"):
        curriculum.update_curriculum(reward(), training_step=2000)
    assert curriculum.update_curriculum(reward()) == 0.5 and curriculum.step == 2001


def test_the_documented_numbers_decide_by_default():
    # threshold 0.1 and error 0.05: 100 episodes of deviation 0.4 have an error of 0.04, those of 0.6 one of 0.06
    draws = np.random.default_rng(0).standard_normal(100)
    draws = (draws - draws.mean()) / draws.std(ddof=1)
    for spread, expected in ((0.4, 0.1), (0.6, 0.0)):
        assert AdvancedCurriculumLearning().update_curriculum({"portfolio_reward": 0.12 + spread * draws}) == expected
    assert AdvancedCurriculumLearning().update_curriculum({"portfolio_reward": 1 + 0.1 * draws[:99]}) == 0.0
    losing = AdvancedCurriculumLearning(CurriculumConfig(start=0.5))
    assert losing.update_curriculum({"portfolio_reward": -0.06 + 0.4 * draws}) == 0.5  # -0.06 + 1.645 * 0.04 > 0
    assert losing.update_curriculum({"portfolio_reward": -0.08 + 0.4 * draws}) == 0.4  # -0.07 + 1.645 * 0.028 < 0


# ---------------------------------------------------------------------------------------------- the markets


def test_scenarios_come_easiest_first_and_all_are_reachable():
    by_hand = {
        "trending": 0.8 * math.sqrt(120) / math.hypot(0.7, 0.2),
        "macro": 0.3 * math.sqrt(60) / math.hypot(1.8, 0.6),
    }
    assert by_hand["trending"] == pytest.approx(12.04, abs=0.01) and by_hand["macro"] == pytest.approx(1.225, abs=0.01)
    assert EASIEST_FIRST == (
        "trending", "low_vol", "sector_rotation", "high_vol", "crisis", "corr_breakdown", "macro", "ranging",
    )  # fmt: skip
    curriculum = small()
    sizes = [len(curriculum.allowed(level)) for level in (0.0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0)]
    assert sizes == [2, 3, 4, 5, 6, 7, 8]
    assert {curriculum.generate_scenario(1.0).name for _ in range(200)} == set(SCENARIOS)
    assert {curriculum.generate_scenario(0.0).name for _ in range(50)} == {"trending", "low_vol"}
    only = small(scenarios=("macro",))
    assert only.generate_scenario(0.0).name == only.generate_scenario(1.0).name == "macro"


def test_difficulty_is_uniform_below_the_level_and_costs_follow_the_level():
    curriculum = small()
    for level, low, cost in ((0.0, 0.0, 0.25), (0.1, 0.0, 0.325), (0.5, 0.25, 0.625), (1.0, 0.75, 1.0)):
        drawn = [curriculum.generate_scenario(level) for _ in range(150)]
        difficulties = np.array([each.difficulty for each in drawn])
        assert {each.cost_scale for each in drawn} == {cost}
        assert low <= difficulties.min() and difficulties.max() <= level
        spread = (level - low) / math.sqrt(12 * len(drawn))  # standard error of a uniform mean
        assert abs(difficulties.mean() - (low + level) / 2) <= 4 * spread
    assert small(easiest_cost=1.0).generate_scenario(0.0).cost_scale == 1.0


def test_a_scenario_says_what_its_market_is():
    easy, hard = TrainingScenario.of("crisis", 0.0, 0.25), TrainingScenario.of("crisis", 1.0)
    # At 0: normal volatility, trend 0.1 * 0.6 * 2, no noise, usual pairs (7 of 28 within a sector: 0.6, else 0.2).
    assert easy == TrainingScenario("crisis", 0.0, 0.25, 1.0, pytest.approx(0.12), 0.0, pytest.approx(0.3), 0.0)
    # At 1: a fall lasts 60 bars, a relief 30, so 2/3 and 1/3 of 3 and sqrt 3; correlations 0.85 and 0.3; jumps 0.02.
    assert hard.volatility == pytest.approx((2 * 3 + math.sqrt(3)) / 3)
    assert hard.correlation == pytest.approx((2 * 0.85 + 0.3) / 3) and hard.crash == pytest.approx(0.02 * 2 / 3)
    assert (hard.noise, hard.trend) == (pytest.approx(0.8), pytest.approx(0.06))
    pair = TrainingScenario.of("high_vol", 0.5).model(EIGHT[:2])
    assert pair.instruments == ("EURUSD", "GBPUSD") and pair.regimes[0].volatility == pytest.approx(math.sqrt(2))


def realised(level: float) -> dict[str, float]:
    """Of 30 drawn markets: volatility in units of normal ones, bars that jump, mean pair correlation, trend, cost."""
    curriculum, generator = small(), np.random.default_rng(5)
    rows = []
    for _ in range(30):
        drawn = curriculum.generate_scenario(level)
        bars = simulate(drawn.model(EIGHT), 600, 1, generator)[0]
        normal = np.asarray(drawn.model(EIGHT).volatility) / math.sqrt(bars.periods_per_year)
        moves = np.diff(np.log(bars.close), axis=0) / normal
        jumped = (np.abs(np.log(bars.open[1:] / bars.close[:-1])) > 1e-9).any(axis=1)
        pairs = np.corrcoef(moves.T)[np.triu_indices(8, 1)].mean()
        rows.append((moves.std(), jumped.mean(), pairs, drawn.trend, drawn.cost_scale))
    means, spread = np.mean(rows, axis=0), np.std(np.array(rows)[:, 2])
    names = ("volatility", "jumps", "correlation", "trend", "cost")
    return {**dict(zip(names, means.tolist(), strict=True)), "correlations": float(spread)}


def test_the_level_really_changes_volatility_crashes_correlation_trend_and_costs():
    """In the public code nothing reads what the curriculum says."""
    easy, hard = realised(0.0), realised(1.0)
    assert easy["volatility"] == pytest.approx(1.0, abs=0.15) and hard["volatility"] > 1.15 * easy["volatility"]
    assert easy["jumps"] == 0.0 and hard["jumps"] > 0.001
    assert hard["correlations"] > 1.5 * easy["correlations"]  # some markets couple, others come apart
    assert hard["trend"] < 0.6 * easy["trend"]
    assert (easy["cost"], hard["cost"]) == (0.25, pytest.approx(1.0))


# ---------------------------------------------------------------------------------------------- state and errors


def test_resume_is_exact():
    curriculum, results = small(), np.random.default_rng(1)

    def go(c: AdvancedCurriculumLearning, rewards: np.ndarray) -> list[Any]:
        return [(c.update_curriculum({"portfolio_reward": r}), c.generate_scenario(c.level)) for r in rewards]

    go(curriculum, 1.0 + results.standard_normal((21, 3)))
    tensors, encoded = split_state(curriculum.state_dict())
    again = small()
    again.load_state_dict(join_state(tensors, encoded))
    later = 0.5 + results.standard_normal((40, 3))
    assert go(again, later) == go(curriculum, later)
    assert again.state_dict() == curriculum.state_dict()
    assert len({again.get_difficulty_level(step) for step in range(62)}) > 1
    other = AdvancedCurriculumLearning(curriculum.config, seed=4)
    drawn = [[c.generate_scenario(1.0) for _ in range(5)] for c in (other, small(), small())]
    assert drawn[0] != drawn[1] == drawn[2]


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ({}, "lack 'portfolio_reward'"),
        ({"portfolio_rewards": [1.0]}, r"lack 'portfolio_reward' \(did you mean 'portfolio_rewards'\?\)"),
        ({"portfolio_reward": [1.0, math.nan]}, "one finite number for each episode"),
        ({"portfolio_reward": math.inf}, "one finite number for each episode"),
        ({"portfolio_reward": [[1.0]]}, "one finite number for each episode"),
    ],
)
def test_performance_that_is_none(metrics: dict[str, Any], what: str):
    curriculum = small()
    with pytest.raises(DataError, match=what):
        curriculum.update_curriculum(metrics)
    assert curriculum.step == 0


def test_levels_and_scenarios_that_do_not_exist():
    for level in (-0.1, 1.1, math.nan):
        with pytest.raises(DataError, match="does not exist; write one between 0 and 1"):
            small().generate_scenario(level)
    with pytest.raises(ConfigError, match=r"no scenario 'crises' \(did you mean 'crisis'\?\)"):
        TrainingScenario.of("crises", 0.5)
    with pytest.raises(ConfigError, match="two or more sectors"):
        TrainingScenario.of("sector_rotation", 0.5).model(EIGHT[:3])


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"scenarios": ("crises",)}, "did you mean 'crisis'"),
        ({"scenarios": ("crisis", "crisis")}, "names a scenario twice"),
        ({"scenarios": ()}, "at least 1 item"),
        ({"lower": 0.1}, "lower=0.1 must be below threshold=0.1"),
        ({"min_episodes": 1}, "greater than or equal to 2"),
        ({"threshold": math.nan}, "finite"),
        ({"stpe": 0.1}, "Extra inputs"),
    ],
)
def test_configurations_that_cannot_be(keys: dict[str, Any], what: str):
    with pytest.raises(ValidationError, match=what):
        CurriculumConfig(**keys)
