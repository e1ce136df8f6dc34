from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.market.walks import another_future, same_bits, walk
from troupe.envs.market.bars import Bars
from troupe.envs.market.features import (
    FEATURES,
    Normaliser,
    instrument_features,
    market_feature_names,
    market_features,
)
from troupe.errors import ConfigError, DataError

NAMES = tuple(FEATURES)


def feature(bars: Bars, name: str) -> np.ndarray:
    return instrument_features(bars)[:, :, NAMES.index(name)]


def closes(values: list[float]) -> Bars:
    close = np.array(values)[:, None]
    ones = np.ones(close.shape, dtype=bool)
    times = 3600 * np.arange(1, len(close) + 1)
    return Bars(("X",), times, close, close, close, close, np.zeros(close.shape), ones, np.ones(1, dtype=bool))


# --- what they are ----------------------------------------------------------------------------------------------


def test_there_are_the_documents_twenty() -> None:
    found = instrument_features(walk(0, 200, 3))
    assert found.shape == (200, 3, 20) and len(NAMES) == 20 and np.isfinite(found).all()


def test_features_against_their_definitions() -> None:
    """Row 180 of one instrument, written out with NumPy's own functions."""
    bars = walk(1, 200, 2)
    t, found = 180, dict(zip(NAMES, instrument_features(bars)[180, 1], strict=True))
    c, o, h, low, v = (getattr(bars, name)[:, 1] for name in ("close", "open", "high", "low", "volume"))
    r = np.concatenate([[0], c[1:] / c[:-1] - 1])
    last = slice(t - 19, t + 1)
    expected = {"return": r[t], "mean_5": r[t - 4 : t + 1].mean(), "mean_20": r[last].mean()}
    expected |= {"std_5": r[t - 4 : t + 1].std(ddof=1), "std_20": r[last].std(ddof=1)}
    expected |= {f"momentum_{k}": c[t] / c[t - k] - 1 for k in (5, 10, 20)}
    expected["volatility_ratio"] = expected["std_5"] / expected["std_20"]
    expected["trend"] = np.corrcoef(c[last], np.arange(20))[0, 1]
    usual = v[t - 20 : t].mean()
    expected["volume_ratio"] = (v[t] - usual) / (v[t] + usual)
    expected["range_position"] = 2 * (c[t] - low[last].min()) / (h[last].max() - low[last].min()) - 1
    gains, losses = np.maximum(r, 0)[t - 13 : t + 1].mean(), np.maximum(-r, 0)[t - 13 : t + 1].mean()
    expected["rsi"] = 2 * (100 - 100 / (1 + gains / losses)) / 100 - 1

    def average(values: np.ndarray, span: int) -> np.ndarray:
        weights = (1 - 2 / (span + 1)) ** np.arange(len(values))
        return np.array([values[: k + 1] @ weights[: k + 1][::-1] / weights[: k + 1].sum() for k in range(len(values))])

    macd = average(c, 12) - average(c, 26)
    scale = c[t] * expected["std_20"]
    expected |= {"macd": macd[t] / scale, "macd_signal": (macd - average(macd, 9))[t] / scale}
    expected["bollinger"] = (c[t] - c[last].mean()) / (2 * c[last].std())
    before = np.concatenate([c[:1], c[:-1]])
    true_range = (np.maximum(h, before) - np.minimum(low, before)) / c
    expected |= {"true_range": true_range[t - 13 : t + 1].mean(), "gap": o[t] / c[t - 1] - 1}
    expected["bar_position"] = 2 * (c[t] - low[t]) / (h[t] - low[t]) - 1 if h[t] > low[t] else 0.0
    expected["drawdown_100"] = c[t] / c[t - 99 : t + 1].max() - 1
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-8, abs=1e-12), name


def test_extremes_by_hand() -> None:
    up, down = closes([1.01**k for k in range(60)]), closes([0.99**k for k in range(60)])
    for bars, sign in ((up, 1), (down, -1)):
        for name, size in (("rsi", 1), ("range_position", 1)):
            assert feature(bars, name)[-1, 0] == pytest.approx(sign * size, rel=1e-12)
        assert sign * feature(bars, "trend")[-1, 0] > 0.99 and sign * feature(bars, "bollinger")[-1, 0] > 0.75
    assert feature(up, "drawdown_100")[-1, 0] == 0 and feature(down, "drawdown_100")[-1, 0] == pytest.approx(
        0.99**59 - 1
    )
    assert feature(up, "volatility_ratio")[-1, 0] == 0  # it moves evenly


def test_short_histories_use_what_there_is() -> None:
    found = dict(zip(NAMES, instrument_features(closes([1.0, 1.1, 1.21]))[2, 0], strict=True))
    assert found["momentum_20"] == pytest.approx(0.21) and found["mean_20"] == pytest.approx(0.2 / 3)
    assert found["rsi"] == 1 and found["range_position"] == 1 and found["drawdown_100"] == 0
    # Closes over the last, 1/1.21 and 1/1.1 and 1, against 0, 1, 2: nearly a line.
    assert found["trend"] == pytest.approx(np.corrcoef([1.0, 1.1, 1.21], [0, 1, 2])[0, 1], rel=1e-9)


def test_what_stands_still_is_all_zeros() -> None:
    found = instrument_features(walk(2, 150, 3, still=1))
    assert (found[:, 2, [k for k, name in enumerate(NAMES) if name != "volume_ratio"]] == 0).all()
    assert (instrument_features(closes([5.0] * 150)) == 0).all()
    halted = instrument_features(closes([*np.linspace(1, 2, 50), *([2.0] * 300)]))[-1, 0]
    assert np.abs(halted).max() < 1e-9  # the averages of the MACD forget slowly, but nothing is divided by nothing


def test_no_feature_knows_the_price_level() -> None:
    bars = walk(3, 150, 3, holes=0)
    scale = np.array([2.0, 1024.0, 1 / 64])  # powers of two: not a bit of the prices changes but the exponent
    prices = {name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")}
    volume = bars.volume * 4096.0
    scaled = replace(bars, **prices, volume=volume)
    assert same_bits(instrument_features(scaled), instrument_features(bars))
    assert same_bits(market_features(scaled), market_features(bars))


def test_market_features_against_their_definitions() -> None:
    bars = walk(4, 200, 3)
    names = market_feature_names(bars.instruments)
    found = market_features(bars, window=60)
    assert found.shape == (200, len(names)) and np.isfinite(found).all()
    row = dict(zip(names, found[150], strict=True))
    r = np.concatenate([np.zeros((1, 3)), bars.close[1:] / bars.close[:-1] - 1])
    equal, last = r.mean(axis=1), slice(91, 151)
    wealth = np.cumprod(1 + equal)
    rho = np.corrcoef(r[last].T) * 60 / 63
    expected = {
        "market_return": equal[150], "market_std_20": equal[131:151].std(ddof=1), "market_std": equal[last].std(ddof=1),
        "market_drawdown": wealth[150] / wealth[last].max() - 1, "dispersion": r[150].std(),
        "mean_correlation": (rho[0, 1] + rho[0, 2] + rho[1, 2]) / 3,
        "correlation_A_B": rho[0, 1], "correlation_A_C": rho[0, 2], "correlation_B_C": rho[1, 2],
    }  # fmt: skip
    assert names[-3:] == ("correlation_A_B", "correlation_A_C", "correlation_B_C")
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-8, abs=1e-12), name
    clock = found[:, [names.index(name) for name in ("day_a", "day_b", "week_a", "week_b")]]
    assert (np.abs(clock) <= 1).all() and len(np.unique(clock[:168].round(9), axis=0)) == 168
    np.testing.assert_array_equal(clock[:32], clock[168:])  # a week later it is the same time
    assert row["day_a"] == pytest.approx(abs((151 % 24) / 24 * 4 - 2) - 1)  # bars close at 1, 2, ... from a midnight


def test_a_market_of_one_has_no_pairs() -> None:
    found = market_features(walk(5, 120, 1))
    assert found.shape[1] == len(market_feature_names("A")) and (found[:, -1] == 0).all()


# --- no look-ahead ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 198), st.integers(1, 4))
def test_cutting_or_changing_the_future_changes_no_bit(seed: int, row: int, m: int) -> None:
    bars = walk(seed, 200, m)
    cut, other = bars.between(0, row + 1), another_future(bars, row, seed + 1)
    for of in (instrument_features, market_features):
        whole = of(bars)
        assert same_bits(of(cut), whole[: row + 1])
        assert same_bits(of(other)[: row + 1], whole[: row + 1])
        assert not same_bits(of(other), whole)  # or the future was not another


# --- the normaliser ---------------------------------------------------------------------------------------------


def test_normaliser_by_hand() -> None:
    rows = np.array([[1.0, 5.0], [3.0, 5.0]])
    fitted = Normaliser.fit(rows, tail=0, limit=2)
    assert fitted.mean.tolist() == [2, 5] and fitted.std.tolist() == [1, 1]  # what does not vary keeps 1
    assert fitted(np.array([[4.5, 6.0], [1.5, 5.0]])).tolist() == [[2, 1], [-0.5, 0]]
    assert fitted(np.array([1.0, 5.0])).tolist() == [-1, 0]


def test_one_crash_does_not_set_the_scale() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (1000, 1))
    rows[500] = -1000
    assert Normaliser.fit(rows, tail=0).std[0] > 30
    assert Normaliser.fit(rows).std[0] == pytest.approx(1, abs=0.1)
    assert Normaliser.fit(rows)(rows).min() == -5


def test_only_the_rows_of_training_are_seen() -> None:
    features = instrument_features(walk(6, 200, 2))
    changed = features.copy()
    changed[120:] += 100
    first, second = Normaliser.fit(features[:120]), Normaliser.fit(changed[:120])
    assert same_bits(first.mean, second.mean) and same_bits(first.std, second.std)
    assert same_bits(first(features)[:120], second(changed)[:120]) and first.mean.shape == (2, 20)


def test_state_is_json_and_exact() -> None:
    features = instrument_features(walk(7, 200, 2))
    fitted = Normaliser.fit(features)
    again = Normaliser.from_state(json.loads(json.dumps(fitted.state())))
    assert same_bits(again(features), fitted(features)) and again.limit == fitted.limit


def test_what_cannot_be_normalised() -> None:
    rows = np.zeros((4, 3))
    with pytest.raises(DataError, match="two or more rows of finite"):
        Normaliser.fit(rows[:1])
    with pytest.raises(DataError, match="two or more rows of finite"):
        Normaliser.fit(np.full((4, 3), np.nan))
    with pytest.raises(ConfigError, match=r"tail=0\.5"):
        Normaliser.fit(rows, tail=0.5)
    fitted = Normaliser.fit(rows)
    with pytest.raises(DataError, match=r"rows of shape \(2,\), the normaliser \(3,\)"):
        fitted(np.zeros((4, 2)))
    for state in ({}, {"mean": [0], "std": [0], "limit": 5}, {"mean": [0, 1], "std": [1], "limit": 5}, {"mean": ["x"]}):
        with pytest.raises(DataError, match="state of"):
            Normaliser.from_state(state)


# --- speed ------------------------------------------------------------------------------------------------------


def test_features_of_27000_bars_of_three_instruments_take_a_second_at_most() -> None:
    bars = walk(8, 3000, 3)
    columns = {
        name: np.tile(getattr(bars, name), (9, 1)) for name in ("open", "high", "low", "close", "volume", "traded")
    }
    bars = replace(bars, times=3600 * np.arange(1, 27_001), extra=np.zeros((27_000, 0)), **columns)
    start = time.process_time()
    assert instrument_features(bars).shape == (27_000, 3, 20) and len(market_features(bars)) == 27_000
    assert time.process_time() - start < 1.0  # 0.1 s when written
