from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from troupe.errors import DataError
from troupe.maths.overfitting import backtest_overfitting


def test_overfitting_by_hand() -> None:
    # Two halves; each trial is good in one (mean 2) and bad in the other (mean -2): the winner always loses.
    good, bad = [1.0, 3.0], [-1.0, -3.0]
    found = backtest_overfitting([good + bad, bad + good], blocks=2)
    assert found.probability == 1 and found.loss_probability == 1
    assert found.in_sample == pytest.approx([math.sqrt(2)] * 2)
    assert found.out_of_sample == pytest.approx([-math.sqrt(2)] * 2)
    assert found.logits == pytest.approx([math.log(1 / 2)] * 2)  # rank 1 of 2: w = 1 / 3
    # The first is the better one in both.
    honest = backtest_overfitting([good + good, bad + bad], blocks=2)
    assert honest.probability == 0 and honest.logits == pytest.approx([math.log(2)] * 2)


@pytest.mark.oracle
def test_overfitting_from_its_definition() -> None:
    from scipy import stats

    returns = np.random.default_rng(0).normal(0, 0.01, (7, 62))
    blocks = np.split(returns[:, 2:], 6, axis=1)
    logits = []
    for half in combinations(range(6), 3):
        inside = np.concatenate([blocks[i] for i in half], axis=1)
        outside = np.concatenate([blocks[i] for i in range(6) if i not in half], axis=1)
        best = (inside.mean(axis=1) / inside.std(axis=1, ddof=1)).argmax()
        w = stats.rankdata(outside.mean(axis=1) / outside.std(axis=1, ddof=1))[best] / 8
        logits.append(math.log(w / (1 - w)))
    found = backtest_overfitting(returns, blocks=6)
    assert found.logits == pytest.approx(logits)
    assert found.probability == np.mean(np.array(logits) <= 0)


def test_noise_is_overfitted_half_of_the_time_and_an_edge_is_not() -> None:
    generator = np.random.default_rng(1)
    noise = [backtest_overfitting(generator.normal(0, 0.01, (20, 400)), blocks=8).probability for _ in range(60)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.1)
    trials = generator.normal(0, 0.01, (20, 1600))
    trials[4] += 0.002
    found = backtest_overfitting(trials)
    assert len(found.logits) == math.comb(16, 8)
    assert found.probability < 0.01 and found.loss_probability < 0.01


def test_trials_that_do_not_differ_are_no_choice() -> None:
    same = np.tile(np.random.default_rng(2).normal(0, 0.01, 80), (5, 1))
    found = backtest_overfitting(same, blocks=4)
    assert found.probability == 1 and (found.logits == 0).all()
    flat = backtest_overfitting(np.zeros((3, 80)), blocks=4)
    assert flat.probability == 1 and (flat.in_sample == 0).all()


def test_a_flat_trial_stands_between_gain_and_loss() -> None:
    noise = np.random.default_rng(3).normal(0, 0.001, 160)
    found = backtest_overfitting(np.stack([noise - 0.01, np.zeros(160), noise - 0.02]), blocks=4)
    assert found.probability == 0 and (found.out_of_sample == 0).all()


@pytest.mark.parametrize(
    ("shape", "blocks", "message"),
    [
        ((1, 100), 4, "2 or more trials"),
        ((100,), 4, "2 or more trials"),
        ((3, 100), 5, "even number"),
        ((3, 100), 0, "even number"),
        ((3, 100), 22, "even number"),
        ((3, 31), 16, "31 bars"),
    ],
)
def test_impossible_trials(shape: tuple[int, ...], blocks: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        backtest_overfitting(np.zeros(shape), blocks)
