from __future__ import annotations

from typing import Any

import pytest

from troupe.errors import ConfigError
from troupe.training.curriculum import DifficultyWindow


def test_difficulty_follows_success() -> None:
    window = DifficultyWindow(0.2, 0.9, width=0.3, low=0.4, high=0.7, step=0.2)
    assert window.range == pytest.approx((0.2, 0.5))
    window.record(8, 10)
    assert window.range == pytest.approx((0.4, 0.7))
    window.record(7, 10)  # neither above nor below
    window.record(0, 0)
    assert window.range == pytest.approx((0.4, 0.7))
    for _ in range(5):
        window.record(10, 10)
    assert window.range == pytest.approx((0.6, 0.9))
    for _ in range(5):
        window.record(1, 10)
    assert window.range == pytest.approx((0.2, 0.5))


def test_a_window_as_wide_as_the_range_is_the_range() -> None:
    window = DifficultyWindow(0.3, 0.5, width=1.0)
    window.record(10, 10)
    assert window.range == (0.3, 0.5)


def test_state_round_trip() -> None:
    window, other = DifficultyWindow(0.0, 1.0), DifficultyWindow(0.0, 1.0)
    window.record(9, 10)
    other.load_state_dict(window.state_dict())
    assert other == window and other.range != DifficultyWindow(0.0, 1.0).range


@pytest.mark.parametrize("bad", [{"least": 0.5, "greatest": 0.1}, {"low": 0.7, "high": 0.4}, {"width": 0}, {"step": 0}])
def test_bounds_that_do_not_fit(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a curriculum cannot have"):
        DifficultyWindow(**{"least": 0.0, "greatest": 1.0, **bad})
