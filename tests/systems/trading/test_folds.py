"""Folds and trials."""

from __future__ import annotations

import pytest

from tests.envs.market.samples import random_bars
from troupe.errors import ConfigError, DataError
from troupe.systems.trading.folds import walk_forward
from troupe.systems.trading.trials import Trials, bars_hash, config_hash


def test_tests_follow_one_another_and_lie_behind_what_was_learned():
    folds = walk_forward(1000, 4, first=500, purge=1, embargo=20)
    assert [fold.test for fold in folds] == [(500, 624), (624, 748), (748, 872), (872, 999)]
    assert [fold.train for fold in folds] == [(0, 479), (0, 603), (0, 727), (0, 851)]
    assert all(fold.train[1] + 21 == fold.test[0] for fold in folds)
    assert [fold.train for fold in walk_forward(1000, 2, first=500, purge=1, rolling=100)] == [(399, 499), (648, 748)]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"folds": 0, "first": 500, "purge": 1}, "0 folds"),
        ({"folds": 600, "first": 500, "purge": 1}, "do not fit"),
        ({"folds": 2, "first": 500, "purge": 0}, "one bar later"),
        ({"folds": 2, "first": 20, "purge": 1, "embargo": 30}, "nothing is left"),
    ],
)
def test_folds_that_cannot_be(options, what):
    with pytest.raises(ConfigError, match=what):
        walk_forward(1000, **options)


def test_a_configuration_is_one_trial_however_often_it_runs(tmp_path):
    trials, bars = Trials(tmp_path / "deep" / "trials.jsonl"), random_bars(0, 50)
    data = bars_hash(bars)
    assert len(trials.sharpes(data)) == 0
    for config, ratio in (({"a": 1}, 0.1), ({"a": 2}, 0.2), ({"a": 1}, 0.3)):
        trials.add(data, config_hash(config), ratio)
    trials.add(bars_hash(random_bars(1, 50)), "x", 9.0)
    assert sorted(trials.sharpes(data).tolist()) == [0.2, 0.3]
    assert data == bars_hash(random_bars(0, 50)) != bars_hash(random_bars(1, 50))


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text('{"loss": 1}\n')
    with pytest.raises(DataError, match="no trial"):
        Trials(path).sharpes("x")
