from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest

from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS, DocumentedScenario
from troupe.envs.market.instruments import instrument
from troupe.envs.market.mixture import draw_scenarios, mixed_market
from troupe.envs.market.simulator import SCENARIOS, scenario, simulate
from troupe.errors import ConfigError

FOREX = [instrument(name) for name in ("EURUSD", "GBPUSD")]


def test_the_configuration_knows_the_same_scenarios() -> None:
    assert get_args(DocumentedScenario) == tuple(SCENARIOS)


def test_every_scenario_and_every_difficulty_is_met_as_often() -> None:
    drawn = draw_scenarios(tuple(SCENARIOS), 0.6, 8_000, np.random.default_rng(0))
    counts = Counter(name for name, _ in drawn)
    assert set(counts) == set(SCENARIOS) and max(abs(n - 1_000) for n in counts.values()) < 4 * np.sqrt(1_000)
    levels = np.array([level for _, level in drawn])
    assert 0 <= levels.min() < 0.01 and 0.59 < levels.max() <= 0.6
    assert np.histogram(levels, 6, (0, 0.6))[0] == pytest.approx(8_000 / 6, abs=4 * np.sqrt(8_000 / 6))
    crises = [level for name, level in drawn if name == "crisis"]
    assert np.mean(crises) == pytest.approx(0.3, abs=4 * 0.6 / np.sqrt(12 * len(crises)))


def test_each_path_is_the_market_that_was_drawn_for_it() -> None:
    names = ("low_vol", "crisis", "trending")
    found = mixed_market(names, 1.0, 200, 6, np.random.default_rng(1), FOREX, 900)
    generator = np.random.default_rng(1)
    drawn = draw_scenarios(names, 1.0, 6, generator)
    assert len({name for name, _ in drawn}) > 1
    for bars, (name, level) in zip(found, drawn, strict=True):
        (expected,) = simulate(scenario(name, level, FOREX), 200, 1, generator, 900)
        assert bars.instruments == ("EURUSD", "GBPUSD") and (bars.times == expected.times).all()
        assert (bars.close == expected.close).all() and (bars.low == expected.low).all()


def test_a_policy_meets_quiet_markets_and_wild_ones() -> None:
    """Volatility at difficulty d is normal times 3^d in a crisis, so that the paths' own differ by more than chance."""
    wild = mixed_market(("crisis",), 1.0, 1_500, 30, np.random.default_rng(2), FOREX)
    quiet = mixed_market(("crisis",), 0.0, 1_500, 30, np.random.default_rng(2), FOREX)
    spread, usual = ([np.diff(np.log(b.close[:, 0])).std() for b in paths] for paths in (wild, quiet))
    assert max(spread) > 2 * min(spread) and np.std(np.log(spread)) > 2 * np.std(np.log(usual))


def test_equal_seeds_give_equal_bars_of_the_documented_instruments() -> None:
    one, two = (mixed_market(tuple(SCENARIOS), 0.5, 50, 3, np.random.default_rng(3)) for _ in range(2))
    assert one[0].instruments == DOCUMENTED_INSTRUMENTS
    assert all((a.close == b.close).all() for a, b in zip(one, two, strict=True))
    assert not (one[0].close == one[1].close).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ()}, "one or more different names"),
        ({"names": "crisis"}, "one or more different names"),
        ({"names": ("crisis", "crisis")}, "one or more different names"),
        ({"names": ("crisis", "crises")}, "there is no scenario 'crises'.*did you mean 'crisis'"),
        ({"names": ("crisis", "sector_rotation")}, "'sector_rotation' needs instruments of two or more sectors"),
        ({"difficulty": 1.5}, "difficulty=1.5 must lie between 0 and 1"),
        ({"paths": 0}, "paths=0"),
        ({"bars": 1}, "bars=1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_whatever_the_seed(changes: dict[str, Any], words: str) -> None:
    options = {"names": ("crisis",), "difficulty": 1.0, "bars": 20, "paths": 1, "instruments": FOREX, **changes}
    for seed in range(4):
        with pytest.raises(ConfigError, match=words):
            mixed_market(**options, generator=np.random.default_rng(seed))
