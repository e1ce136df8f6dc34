from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troupe.errors import DataError
from troupe.training.replay import ReplayWindow


def columns(first: int, n: int) -> dict[str, np.ndarray]:
    numbers = np.arange(first, first + n)
    return {"x": numbers.astype(np.float32), "pair": np.stack([numbers, -numbers], axis=1)}


@given(st.integers(1, 12), st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_it_holds_the_newest_rows_in_order(capacity: int, sizes: list[int]) -> None:
    window, said = ReplayWindow(capacity), 0
    for n in sizes:
        window.append(columns(said, n))
        said += n
    newest = np.arange(max(0, said - capacity), said)
    assert len(window) == len(newest) and window.added == said
    rows = window.rows(np.arange(len(window)))
    assert rows["x"].tolist() == newest.tolist()
    assert rows["pair"].tolist() == [[i, -i] for i in newest]


def test_a_window_that_was_stored_draws_the_same_rows() -> None:
    window, again = ReplayWindow(10), ReplayWindow(10)
    window.append(columns(0, 7))
    window.append(columns(7, 8))  # has wrapped round
    again.load_state_dict(window.state_dict())
    drawn = [w.draw(50, np.random.default_rng(3)) for w in (window, again)]
    assert drawn[0]["x"].tolist() == drawn[1]["x"].tolist()
    for w in (window, again):
        w.append(columns(15, 4))
    drawn = [w.draw(50, np.random.default_rng(4)) for w in (window, again)]
    assert drawn[0]["pair"].tolist() == drawn[1]["pair"].tolist()
    assert again.added == window.added == 19


def test_draws_are_uniform_over_the_window() -> None:
    window = ReplayWindow(4)
    window.append(columns(0, 6))
    counts = np.bincount(window.draw(8000, np.random.default_rng(0))["x"].astype(int), minlength=6)
    assert counts[:2].sum() == 0 and counts[2:].min() > 1800


def nan_column(state: dict) -> None:
    state["columns"]["x"][1] = np.nan


def ragged(state: dict) -> None:
    state["columns"]["x"] = state["columns"]["x"][:-1]


def too_few_added(state: dict) -> None:
    state["added"] = 1


@pytest.mark.parametrize("damage", [nan_column, ragged, too_few_added])
def test_a_corrupt_buffer_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    window = ReplayWindow(10)
    window.append(columns(0, 5))
    state = window.state_dict()
    damage(state)
    with pytest.raises(DataError) as refused:
        ReplayWindow(10).load_state_dict(state)
    assert "replay window" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": np.zeros(2, np.float32)},
        {"x": np.zeros(2, np.float64), "pair": np.zeros((2, 2), np.int64)},
        {"x": np.zeros(2, np.float32), "pair": np.zeros((2, 3), np.int64)},
    ],
)
def test_rows_that_do_not_fit_are_refused(wrong: dict[str, np.ndarray]) -> None:
    window = ReplayWindow(10)
    window.append(columns(0, 5))
    with pytest.raises(DataError, match="column"):
        window.append(wrong)
    assert len(window) == 5


def test_nothing_can_be_drawn_from_nothing() -> None:
    with pytest.raises(DataError, match="empty"):
        ReplayWindow(3).draw(1, np.random.default_rng(0))
