"""Risk measures against numbers worked by hand, and the errors that public code makes."""

from __future__ import annotations

import array_api_compat.numpy as xp
import numpy as np
import pytest

from troupe.envs.market.risk import correlation_exposure, draws_var, limited, parametric_var, sector_limited

ONES = np.ones(2)
TWINS = np.array([[[1e-4, 1e-4], [1e-4, 1e-4]]])  # perfectly correlated, 1 % each


def test_var_is_signed_and_sees_leverage():
    both, hedged, double = (
        parametric_var(xp, np.array([w]), TWINS, ONES, 1.645)[0] for w in ([0.5, 0.5], [0.5, -0.5], [1.0, 1.0])
    )
    assert both == pytest.approx(0.01645)
    assert hedged == pytest.approx(0.0, abs=1e-12)
    assert double == pytest.approx(2 * both)


def test_var_of_draws_is_a_quantile_of_losses():
    outcomes = np.arange(-50.0, 51.0)[None] / 1000
    assert draws_var(xp, outcomes, 0.95, 1.0)[0] == pytest.approx(-np.quantile(outcomes[0], 0.05))
    assert draws_var(xp, outcomes, 0.93, 2.0)[0] == pytest.approx(-2 * np.quantile(outcomes[0], 0.07))
    assert draws_var(xp, np.ones((1, 10)), 0.95, 1.0)[0] == 0.0


def test_correlation_exposure_can_pass_its_limit_and_a_hedge_lowers_it():
    same = np.ones((1, 2, 2))
    assert correlation_exposure(xp, np.array([[0.5, 0.5]]), same)[0] == pytest.approx(1.0)
    assert correlation_exposure(xp, np.array([[0.5, -0.5]]), same)[0] == pytest.approx(0.0)
    assert correlation_exposure(xp, np.array([[-0.5, -0.5]]), same)[0] == pytest.approx(1.0)
    assert correlation_exposure(xp, np.array([[0.3, 0.0]]), same)[0] == pytest.approx(0.3)
    weak = np.array([[[1.0, 0.2], [0.2, 1.0]]])
    assert correlation_exposure(xp, np.array([[0.5, 0.4]]), weak)[0] == pytest.approx(0.58)


def test_limited_shrinks_to_the_limit_and_says_where():
    weights, over = limited(xp, np.array([[0.6, 0.6], [0.1, 0.0]]), np.array([1.2, 0.1]), 0.6)
    assert weights == pytest.approx(np.array([[0.3, 0.3], [0.1, 0.0]]))
    assert over.tolist() == [True, False]


def test_a_sector_limit_counts_equity_and_leaves_other_sectors_alone():
    sectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    weights, over = sector_limited(xp, np.array([[0.6, -0.2, 0.3], [0.1, 0.1, 0.1]]), sectors, 0.4)
    assert weights == pytest.approx(np.array([[0.3, -0.1, 0.3], [0.1, 0.1, 0.1]]))
    assert over.tolist() == [True, False]
    assert sector_limited(xp, np.array([[0.1, 0.0, 0.0]]), sectors, 0.4)[1].tolist() == [False]
