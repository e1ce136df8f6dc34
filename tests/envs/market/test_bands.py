from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from troupe.envs.market import bands
from troupe.envs.market.bands import (
    Bands,
    Grid,
    best_bands,
    checked_positions,
    checked_refinement,
    earned,
    largest_change,
    position_grid,
    return_moments,
    sharpest,
    signal_grid,
)
from troupe.errors import ConfigError


def one_state(mean: float = 0.001, square: float = 1e-4) -> Grid:
    """Every bar is like the one before."""
    return Grid(np.ones(1), np.ones((1, 1)), np.linspace(-1, 1, 401), np.array([[mean]]), np.array([[square]]))


def two_states(mean: float = 0.002, square: float = 1e-4) -> Grid:
    """Up or down, drawn anew at every bar."""
    return Grid(
        np.full(2, 0.5), np.full((2, 2), 0.5), np.linspace(-1, 1, 801), np.array([[-mean], [mean]]),
        np.full((2, 1), square),
    )  # fmt: skip


def test_a_market_that_stays_as_it_is_is_held_at_its_mean_by_its_variance() -> None:
    """m / (lambda q) = 0.001 / (20 * 1e-4) = 0.5, reached once and kept, so that the cost plays no part."""
    grid = one_state()
    found = best_bands(grid, 0.01, 20.0, "it")
    assert found.lower == pytest.approx(0.5, abs=0.0026) and found.upper == pytest.approx(
        0.5, abs=0.0026
    )  # half a step
    figures = earned(grid, found, 0.01, "it")
    assert figures.mean == pytest.approx(0.5e-3, rel=0.01) and figures.square == pytest.approx(0.25e-4, rel=0.02)
    assert figures.std == pytest.approx(math.sqrt(figures.square - figures.mean**2))
    assert figures.sharpe == pytest.approx(0.001 / math.sqrt(1e-4 - 1e-6), rel=1e-3)
    assert figures.turnover == pytest.approx(0, abs=1e-9)


def test_states_that_change_at_once_are_traded_where_a_bar_pays_the_way_there_and_back() -> None:
    """Between -a and a: with odds 1/2 a bar turns the position, which costs 2 a c, so that an account earns a m - a c
    less lambda / 2 q a^2, the most at a = (m - c) / (lambda q) = 0.001 / 0.004."""
    free = best_bands(two_states(), 0.0, 40.0, "it")
    assert free.upper == pytest.approx([-0.5, 0.5], abs=1e-6) and free.lower == pytest.approx(free.upper)
    dear = best_bands(two_states(), 0.001, 40.0, "it")
    assert [dear.upper[0], dear.lower[1]] == pytest.approx([-0.25, 0.25], abs=0.003)
    figures = earned(two_states(), dear, 0.001, "it")
    assert figures.mean == pytest.approx(0.25 * (0.002 - 0.001), rel=0.01)
    assert figures.turnover == pytest.approx(0.25, rel=0.01) and figures.by_state.sum() == pytest.approx(figures.mean)
    nothing = best_bands(two_states(), 0.003, 40.0, "it")
    assert earned(two_states(), nothing, 0.003, "it").turnover == 0


def test_bands_are_better_than_their_neighbours() -> None:
    grid, cost, aversion = two_states(), 0.0007, 30.0
    best = best_bands(grid, cost, aversion, "it")

    def worth(lower: np.ndarray, upper: np.ndarray) -> float:
        figures = earned(grid, Bands(lower, upper, best.values), cost, "it")
        target = np.array([upper[0], lower[1]])  # every bar ends at one of these two
        return figures.mean - aversion / 2 * float((grid.shares * target**2 * grid.square[:, 0]).sum())

    reached = worth(best.lower, best.upper)
    for change in (-0.1, -0.05, 0.05, 0.1):
        shift = np.array([-change, change])
        assert worth(best.lower + shift, best.upper + shift) < reached


def test_the_signals_of_the_grid_are_an_autoregression() -> None:
    for persistence in (0.0, 0.9, 0.99):
        signals, shares, moves = signal_grid(persistence, 0.5)
        assert shares @ signals**2 == pytest.approx(1, abs=2e-5) and shares.sum() == pytest.approx(1)
        assert shares @ moves == pytest.approx(shares, abs=1e-6)
        middle = np.abs(signals) < 2
        assert (moves @ signals)[middle] == pytest.approx(persistence * signals[middle], abs=1e-4)


def test_moments_of_returns_by_quadrature() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    for beta, sigma, signal in ((0.01, 0.02, 1.5), (0.0, 0.3, -2.0), (0.05, 0.1, 3.0)):
        simple = np.exp(beta * signal - beta**2 / 2 - sigma**2 / 2 + sigma * nodes) - 1
        mean, square = return_moments(beta, sigma, np.array([signal]))
        assert mean[0, 0] == pytest.approx(weights @ simple, abs=1e-12)
        assert square[0, 0] == pytest.approx(weights @ simple**2, rel=1e-9)


def test_positions_reach_no_further_than_pays() -> None:
    mean, square = np.array([[0.001], [-0.002]]), np.full((2, 1), 1e-4)
    assert position_grid(mean, square, 40.0, 1.0, 5).tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert position_grid(mean, square, 1.0, 1.0, 3).tolist() == [-1, 0, 1]
    assert position_grid(0 * mean, square, 1.0, 2.0, 3).tolist() == [-2, 0, 2]


def test_the_smallest_risk_aversion_of_the_sharpest() -> None:
    assert sharpest([1.0, 2.0, 3.0, 4.0], [0.5, 0.9995, 1.0, 0.9]) == 2.0


def test_changes_are_relative_to_the_larger() -> None:
    one, other = (SimpleNamespace(mean=m, std=s, sharpe=r) for m, s, r in ((1.0, 0.0, 2.0), (0.9, 0.0, 2.2)))
    assert largest_change(one, other) == pytest.approx(0.1) and largest_change(one, one) == 0


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for aversion in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="risk_aversion"):
            checked_positions(21, aversion)
    for positions in (17, 23, 30):
        with pytest.raises(ConfigError, match=f"positions={positions}"):
            checked_positions(positions, None)
    assert checked_refinement(0.01, 21, "it") == 0.01
    with pytest.raises(ConfigError, match=r"half the points change the optimum of it by 2\.0%; write more"):
        checked_refinement(0.02, 21, "it")
    found = best_bands(two_states(), 0.001, 40.0, "it")
    monkeypatch.setattr(bands, "_SWEEPS", 1)
    with pytest.raises(ConfigError, match="no optimum of it was found in 1 sweeps; lower the cost, or let"):
        best_bands(two_states(), 0.001, 40.0, "it")
    with pytest.raises(ConfigError, match="positions in it do not settle in 1 bars"):
        earned(two_states(), found, 0.001, "it")
