"""What drove a hierarchy's decisions, for evaluation.json: what was allocated and when, and which inputs mattered.

    told = Told(strategy, track, regimes_of(market, rows), ("meta", "forex"))      # after a backtest by `strategy`
    record["drivers"] = drivers([told])

What attributions do not say stands in `troupe.maths.attribution`.

Legend: A accounts, T bars, P paths, S sectors, n rows, D outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.envs.market.build import Market
from troupe.envs.market.regimes import REGIMES, regime_series
from troupe.envs.market.rolling import simple_returns
from troupe.envs.market.team import META
from troupe.maths.attribution import column_shares, integrated_gradients
from troupe.systems.trading.assessment import sharpe_per_bar
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.record import shown_rows

__all__ = ["Told", "drivers", "regimes_of"]

_ROWS = 256
"""Most bars at which decisions are attributed to inputs."""
_SHOWN = 10
"""Features that are listed of each agent."""
_FEWEST = 20
"""Bars of a regime below which no Sharpe ratio is given."""


@dataclass(frozen=True, eq=False)
class Told:
    """A stretch that was traded."""

    strategy: HierarchyStrategy  # as it stands after it
    track: Track
    regimes: np.ndarray  # int8 [A, T]: numbers of REGIMES, known at the decisions
    deciding: Collection[str]  # agents that were listened to

    @property
    def listened(self) -> np.ndarray:
        """Which sectors were: bool `[S]`."""
        return np.array([sector in self.deciding for sector in self.strategy.team.sectors])


def regimes_of(market: Market, rows: tuple[int, int]) -> np.ndarray:
    """Of the equal-weight market at the decisions of the rows (first, stop), in each path: int8 `[P, T]`. Bars before
    the first one count."""
    return np.stack([regime_series(simple_returns(b.close).mean(1))[slice(*rows)] for b in market.bars])


def drivers(parts: Sequence[Told]) -> dict[str, Any]:
    """Of stretches that follow one another, traded by hierarchies with the same sectors and inputs. The allocation
    over time is that of the first account; everything else is of all. A sector that is not listened to has no share,
    and without any there is no appetite for risk."""
    shares = np.concatenate([part.strategy.shares * part.listened for part in parts], axis=1)
    risk = np.concatenate([part.strategy.risk * part.listened.any() for part in parts], axis=1)
    regimes = np.concatenate([part.regimes for part in parts], axis=1)
    returns = np.concatenate([part.track.returns for part in parts], axis=1)
    times = np.concatenate([part.track.times for part in parts])
    sectors, kept = parts[0].strategy.team.sectors, shown_rows(len(times))
    return {
        "agents": _agents(parts),
        "allocation": {
            "times": times[kept].tolist(), "shares": {s: shares[0, kept, k].tolist() for k, s in enumerate(sectors)},
            "risk": risk[0, kept].tolist(), "regime": [REGIMES[number] for number in regimes[0, kept]],
        },
        "by_regime": [
            {
                "regime": name, "bars": int(here.sum()), "risk": float(risk[here].mean()),
                "shares": {sector: float(shares[..., k][here].mean()) for k, sector in enumerate(sectors)},
                "sharpe": _sharpe(returns[here], parts[0].track.periods_per_year),
            }
            for number, name in enumerate(REGIMES) if (here := regimes == number).any()
        ],
    }  # fmt: skip


def _sharpe(bars: np.ndarray, per_year: float) -> float | None:
    """Per year, of bars of one regime put together; None of too few, or of ones without spread."""
    return sharpe_per_bar(bars) * per_year**0.5 if len(bars) >= _FEWEST and np.ptp(bars) > 0 else None


# ---------------------------------------------------------------------------------------------- inputs


def _agents(parts: Sequence[Told]) -> list[dict[str, Any]]:
    """Of every agent that decided anything, in the mean over the stretches in which it did."""
    found = []
    for agent in parts[0].strategy.team.agents:
        each = [_shares(part, agent) for part in parts if agent in part.deciding]
        if each:
            names = list(each[0])
            mean = np.mean([[shares[name] for name in names] for shares in each], axis=0)
            order = np.argsort(-mean, kind="stable")[:_SHOWN]
            found.append(
                {
                    "agent": agent, "outputs": _outputs(parts[0].strategy, agent),
                    "features": [{"name": names[i], "share": float(mean[i])} for i in order],
                    "groups": _groups(dict(zip(names, mean.tolist(), strict=True))),
                }
            )  # fmt: skip
    return found


_GROUPS = {
    "embeddings": ("embedding ",), "holdings": ("weight_", "profit_", "gross_", "net_", "drawdown"),
    "messages": ("share_", "risk"), "records": ("record_", "wins_"),
}  # fmt: skip
"""Beginnings of what a team tells its agents besides the market (see `troupe.envs.market.team`)."""


def _groups(shares: dict[str, float]) -> list[dict[str, Any]]:
    """What an agent reads, by where that comes from: shares of inputs add up."""
    found: dict[str, float] = {}
    for name, share in shares.items():
        group = next((g for g, begins in _GROUPS.items() if name.startswith(begins)), "market")
        found[group] = found.get(group, 0.0) + share
    return [{"name": name, "share": min(1.0, share)} for name, share in sorted(found.items(), key=lambda g: -g[1])]


def _outputs(strategy: HierarchyStrategy, agent: str) -> list[str]:
    team = strategy.team
    if agent == META:
        return [*(f"allocation {sector}" for sector in team.sectors), "risk"]
    return list(team.members[agent])


def _shares(part: Told, agent: str) -> dict[str, float]:
    """Shares of an agent's inputs in what moves the means of its actions, before they are clipped, on bars spread over
    all accounts; the baseline is the mean of what it observed. An embedding counts as one input: the attributions of
    its numbers add up."""
    strategy = part.strategy
    observed = strategy.observed
    every = torch.as_tensor(observed.reshape(-1, observed.shape[-1]))
    inputs = _inputs(strategy, every, agent)
    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(_ROWS, len(inputs))).round().astype(int))
    net = strategy.net.module(agent)
    found = integrated_gradients(lambda x: net(x)[0], inputs[chosen], inputs.mean(0))
    columns = strategy.team.columns[agent]
    whole = {name: found[..., place] for place, name in enumerate(columns)}
    if agent == META:
        embeddings = found[..., len(columns) :].unflatten(-1, (len(strategy.net.names), -1)).sum(-1)
        whole |= {f"embedding {name}": embeddings[..., place] for place, name in enumerate(strategy.net.names)}
    shares = column_shares(torch.stack(list(whole.values()), dim=-1))
    return dict(zip(whole, shares.tolist(), strict=True))


@torch.no_grad()
def _inputs(strategy: HierarchyStrategy, observed: Tensor, agent: str) -> Tensor:
    """What an agent's network reads `[n, I]`."""
    own = strategy.net.view(observed, agent)
    return own if agent != META else torch.cat([own, strategy.net.embeddings(observed)], dim=-1)
