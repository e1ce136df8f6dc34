"""What phases are judged by, against numbers worked by hand and cases whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.systems.trading.teams import rotation
from troupe.maths.finance import sharpe
from troupe.systems.trading.backtest import episodes
from troupe.systems.trading.baselines import cash
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.judging import decide
from troupe.systems.trading.phase_metrics import episode_sharpes, portfolio_metrics, specialist_metrics, team_metrics
from troupe.training.evaluation import Gate

ROWS = np.array([20, 100, 180, 260])


def played(mode: str = "team", active: tuple[str, ...] | None = None, **rules: object):
    core, names, team, net = rotation(**rules)
    strategy = HierarchyStrategy(net, names, typical=team.typical, mode=mode, active=active)  # type: ignore[arg-type]
    return episodes(core, strategy, ROWS, 60), strategy


def test_sharpe_ratios_of_episodes() -> None:
    track, _ = played()
    np.testing.assert_allclose(episode_sharpes(track), sharpe(track.returns, track.periods_per_year))
    flat = replace(track, returns=np.concatenate([track.returns[:2], np.zeros((2, 60))]))
    assert episode_sharpes(flat)[2:].tolist() == [0.0, 0.0]
    returns = track.returns.copy()
    returns[1, 5] = -1.0  # lost everything
    lost = episode_sharpes(replace(track, returns=returns))
    assert np.isfinite(lost).all() and lost[1] < 0


def test_a_gate_refuses_whoever_was_ruined() -> None:
    """A Sharpe ratio hides it: one episode of four that lost everything, the others splendid."""
    track, _ = played()
    splendid = np.abs(track.returns) + 0.001
    rich = replace(track, returns=np.repeat(splendid, 3, axis=0), ruined=np.zeros(12, dtype=bool))
    assert decide(Gate(), rich).promote
    ruined = np.arange(12) == 5
    refused = decide(Gate(), replace(rich, ruined=ruined))
    assert not refused.promote and refused.reasons == ("ruined in 1 of 12 episodes",)


def test_metrics_of_a_specialist_are_of_what_it_trades() -> None:
    track, _ = played("equal", ("commodities",))
    found = specialist_metrics(track)
    assert set(found["instruments"]) == {"XAUUSD", "WTIUSD"}
    assert found["sharpe"]["n"] == 4 and found["sharpe"]["low"] < found["sharpe"]["mean"] < found["sharpe"]["high"]
    core = rotation()[0]
    idle = specialist_metrics(episodes(core, cash, ROWS, 60))
    assert idle["instruments"] == {} and idle["sharpe"]["mean"] == 0.0 and idle["win_rate"] is None


def test_risk_compliance_counts_what_happened() -> None:
    track, strategy = played(max_portfolio_var=0.02, max_leverage=2.0)
    equal, even = played("equal", max_portfolio_var=0.02, max_leverage=2.0)
    found = team_metrics(track, strategy, equal, even.sector_gains, var_limit=0.02)["risk_compliance"]
    assert found["var_compliance"] == 1.0 and found["limits"]["var"] == track.fired["var"].mean() > 0
    assert 0 <= found["var_breaches"] < 1 and found["var_breaches_expected"] == pytest.approx(0.05)
    without = team_metrics(track, strategy, equal, even.sector_gains, var_limit=None)["risk_compliance"]
    assert without["var_compliance"] is None


def test_allocation_is_efficient_where_capital_goes_to_what_earns() -> None:
    """Shares that follow the gains exactly have rank correlation 1, those that run against them -1."""
    track, strategy = played()
    equal, even = played("equal")
    alone = np.zeros_like(even.sector_gains)
    alone[:, :, 0] = even.sector_gains[:, :, 0]  # the other two earn nothing
    for sign in (1.0, -1.0):
        told = np.exp(sign * 200 * alone)
        fake = _With(strategy, told / told.sum(2, keepdims=True))
        found = team_metrics(track, fake, equal, alone, var_limit=None)["allocation_efficiency"]
        assert found["information_coefficient"]["mean"] == pytest.approx(sign / 3)
    gap = episode_sharpes(track) - episode_sharpes(equal)
    assert found["sharpe_gain"]["mean"] == pytest.approx(gap.mean())


def test_utilization_and_coordination() -> None:
    track, strategy = played("equal")
    found = team_metrics(track, strategy, track, strategy.sector_gains, var_limit=None)
    used = found["specialist_utilization"]
    assert used["effective_specialists"]["mean"] == pytest.approx(1.0) and used["risk_appetite"]["mean"] == 1.0
    assert all(each["mean"] == pytest.approx(1 / 3) for each in used["share"].values())
    quality = found["coordination_quality"]
    assert 0 < quality["diversification"]["mean"] < 1 and -1 < quality["correlation"]["mean"] < 1
    bars = sum(each["bars"] for each in found["robustness"]["regimes"].values())
    assert bars == 4 * (60 - 2)


def test_a_portfolio_that_does_nothing_is_said_to_do_nothing() -> None:
    core = rotation()[0]
    found = portfolio_metrics(episodes(core, cash, ROWS, 30))
    assert found["sharpe"]["mean"] == 0.0 and found["max_drawdown"]["mean"] == 0.0
    assert found["win_rate"] is None and found["turnover_per_bar"]["mean"] == 0.0


class _With:
    """A strategy that said other shares."""

    def __init__(self, strategy: HierarchyStrategy, shares: np.ndarray) -> None:
        self._strategy, self.shares = strategy, shares

    def __getattr__(self, name: str) -> object:
        return getattr(self._strategy, name)
