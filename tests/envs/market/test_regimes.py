from __future__ import annotations

import math

import numpy as np
import pytest

from tests.envs.market.walks import same_bits
from troupe.envs.market.regimes import REGIMES, detect_market_regime, regime_series
from troupe.errors import ConfigError, DataError

VOLATILE, BULL, BEAR, NEUTRAL = range(4)


def slowly(returns: np.ndarray, window: int, long: int, ratio: float, z: float) -> list[str]:
    """The definition, bar by bar."""
    labels = []
    for t in range(len(returns)):
        recent, usual = returns[max(t - window + 1, 0) : t + 1], returns[max(t - long + 1, 0) : t + 1]
        if len(recent) < window:
            labels.append("neutral")
        elif recent.std(ddof=1) > ratio * usual.std(ddof=1):
            labels.append("volatile")
        else:
            error = z * recent.std(ddof=1) / math.sqrt(window)
            labels.append("bull" if recent.mean() > error else "bear" if recent.mean() < -error else "neutral")
    return labels


def eventful(seed: int, bars: int = 900) -> np.ndarray:
    """Calm, rising, wild, falling."""
    generator = np.random.default_rng(seed)
    drift = np.repeat([0.0, 0.4, 0.0, -0.4], math.ceil(bars / 4))[:bars]
    scale = np.repeat([1.0, 1.0, 4.0, 1.0], math.ceil(bars / 4))[:bars]
    return 0.001 * (drift + scale * generator.standard_normal(bars))


def test_four_regimes_by_hand() -> None:
    options = {"window": 4, "long": 8, "ratio": 1.3, "z": 2.0}
    # mean 1, standard deviation 0.816, two standard errors 0.816
    assert detect_market_regime(np.array([0, 1, 2, 1]) * 0.01, **options) == "bull"
    assert detect_market_regime(np.array([0, -1, -2, -1]) * 0.01, **options) == "bear"
    assert detect_market_regime(np.array([0, 1, 2, -1]) * 0.01, **options) == "neutral"  # mean 0.5, errors 1.29
    assert detect_market_regime(np.array([0, 1, 2]) * 0.01, **options) == "neutral"  # too few bars
    # the last four bars have a variance of 20 / 3, all eight (the others are 0) of 20 / 7: 1.53 times the deviation
    wild = np.array([0, 0, 0, 0, 1, -3, 3, -1]) * 0.01
    assert detect_market_regime(wild, **{**options, "ratio": 1.52}) == "volatile"
    assert detect_market_regime(wild, **{**options, "ratio": 1.53}) == "neutral"


@pytest.mark.parametrize("options", [(50, 500, 1.5, 2.0), (5, 12, 1.2, 1.0), (20, 30, 1.1, 0.5)])
def test_a_record_is_labelled_as_defined(options: tuple[int, int, float, float]) -> None:
    names = dict(zip(("window", "long", "ratio", "z"), options, strict=True))
    returns = eventful(0)
    found = regime_series(returns, **names)
    assert found.dtype == np.int8 and found.shape == returns.shape
    assert [REGIMES[number] for number in found] == slowly(returns, *options)
    assert len(set(found.tolist())) == 4


def test_the_last_row_is_the_regime_now_however_long_the_record() -> None:
    returns = np.stack([eventful(1), eventful(2)], axis=1)
    series = regime_series(returns)
    for t in (10, 49, 50, 230, 499, 520, 640, 899):
        expected = tuple(REGIMES[number] for number in series[t])
        assert detect_market_regime(returns[: t + 1]) == expected
        assert detect_market_regime(returns[: t + 1, 0]) == expected[0]
    assert (series[:, 1] == regime_series(returns[:, 1])).all()


def test_the_future_changes_nothing() -> None:
    returns, generator = eventful(3), np.random.default_rng(4)
    whole = regime_series(returns)
    for t in (3, 60, 300, 500, 700, 899):
        other = returns.copy()
        other[t + 1 :] = generator.permutation(other[t + 1 :]) * 100
        assert same_bits(regime_series(other)[: t + 1], whole[: t + 1])
        assert same_bits(regime_series(returns[: t + 1]), whole[: t + 1])


def test_scale_changes_nothing_and_the_sign_turns_bulls_to_bears() -> None:
    returns = eventful(5)
    found = regime_series(returns)
    for scale in (0.01, 37.0):
        assert (regime_series(scale * returns) == found).all()
    assert (regime_series(-returns) == np.array([VOLATILE, BEAR, BULL, NEUTRAL])[found]).all()


def test_documented_thresholds_would_see_nothing_where_these_see_it() -> None:
    """Hourly bars of a currency: none has a deviation of 0.03 or a mean of 0.005."""
    returns = eventful(6)
    found = regime_series(returns)
    assert np.abs(returns).max() < 0.02
    rising, wild, falling = found[300:450], found[460:500], found[850:]
    assert (rising == BULL).mean() > 0.5 and (wild == VOLATILE).mean() > 0.9 and (falling == BEAR).mean() > 0.5


def test_a_market_without_drift_is_seldom_called_one_with() -> None:
    generator = np.random.default_rng(7)
    found = regime_series(0.01 * generator.standard_normal((2_000, 200)))[500:]
    share = np.bincount(found.ravel(), minlength=4) / found.size
    assert share[BULL] + share[BEAR] == pytest.approx(0.05, abs=0.015) and share[VOLATILE] < 0.001


def test_a_still_record() -> None:
    assert detect_market_regime(np.zeros(100)) == "neutral"
    assert detect_market_regime(np.full(100, 0.001)) == "bull"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 1}, "window=1, long=500"),
        ({"window": 50, "long": 50}, "window=50, long=50"),
        ({"ratio": 0.0}, "ratio=0.0 must be above 0"),
        ({"z": -1.0}, "z=-1.0"),
        ({"z": math.nan}, "z=nan"),
    ],
)
def test_thresholds_of_nothing(options: dict[str, float], words: str) -> None:
    for of in (regime_series, detect_market_regime):
        with pytest.raises(ConfigError, match=words):
            of(np.zeros(10), **options)


def test_returns_of_nothing() -> None:
    for of in (regime_series, detect_market_regime):
        for empty in (np.zeros(0), np.zeros((3, 0)), np.zeros((2, 2, 2)), 0.1):
            with pytest.raises(DataError, match="returns have shape"):
                of(empty)
        with pytest.raises(DataError, match=r"return \(1, 0\) is not finite"):
            of(np.array([[0.0, 0.1], [math.nan, 0.0]]))
