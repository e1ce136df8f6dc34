"""A trained hierarchy as a strategy: what the meta-controller and the specialists do at each bar, without exploring.

strategy = HierarchyStrategy(net, data.names, typical=data.typical, mode="team")
track = backtest(core, strategy, start, stop)
strategy.shares, strategy.risk                     # what was allocated [A, T, S], [A, T]
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch

from troupe.envs.market.core import MarketCore, MarketState, Outcome
from troupe.envs.market.team import META, Said, Team, TeamMemory
from troupe.errors import DataError
from troupe.models.team import TeamActorCritic
from troupe.systems.trading.seats import equal_allocation
from troupe.training.collection import as_inputs

__all__ = ["HierarchyStrategy", "Mode"]

Mode = Literal["team", "equal"]


class HierarchyStrategy:
    """The likeliest actions of a team, as a `Strategy`. `mode` "team": the meta-controller allocates; "equal": equal
    shares at full risk. Sectors that are not among `active` hold nothing. What was observed, said and gained is kept
    for whoever asks: one of these watches one backtest at a time.
    """

    def __init__(
        self,
        net: TeamActorCritic,
        names: Sequence[str],
        *,
        typical: float,
        scale: float = 2.0,
        mode: Mode = "team",
        active: Collection[str] | None = None,
    ) -> None:
        self.net, self.names, self.mode = net, tuple(names), mode
        self._typical, self._scale = typical, scale
        self._active = set(net.names if active is None else active)
        self._team: Team | None = None
        self._core: MarketCore | None = None
        self._memory: TeamMemory | None = None
        self._said: list[Said] = []
        self._gains: list[np.ndarray] = []
        self._observed: list[np.ndarray] = []

    @property
    def team(self) -> Team:
        """Raises DataError before it has traded."""
        if self._team is None:
            raise DataError("the hierarchy has not traded yet")
        return self._team

    def begin(self, core: MarketCore, accounts: int) -> None:
        if core is not self._core:
            self._core, self._team = core, Team.of(core, self.names, scale=self._scale, typical=self._typical)
        self._memory = None
        self._said, self._gains, self._observed = [], [], []

    @torch.no_grad()
    def __call__(self, core: MarketCore, state: MarketState) -> Any:
        team = self.team
        if self._memory is None:
            self._memory = team.begin(core, state.equity)
        observations = team.observe(core, state, self._memory)
        actions = self.net.likeliest(as_inputs(observations)).clamp(-1.0, 1.0).double().numpy()
        if self.mode == "equal":
            actions[:, team.parts[META]] = equal_allocation(len(team.sectors))
        for sector in team.sectors:
            if sector not in self._active:
                actions[:, team.parts[sector]] = 0.0
        said = team.read(core, actions)
        self._said.append(said)
        self._observed.append(observations)
        return said.actions

    def after(self, state: MarketState, outcome: Outcome) -> None:
        """Remembers what a bar brought to the accounts that stood at `state`."""
        assert self._memory is not None and self._core is not None
        gains = self.team.sector_gains(outcome, state.equity)
        self._gains.append(gains)
        self._memory = self.team.remember(self._core, self._memory, self._said[-1], gains)

    @property
    def shares(self) -> np.ndarray:
        """float64 `[A, T, S]`; 0 of a sector that does not trade."""
        trades = np.array([sector in self._active for sector in self.team.sectors])
        return np.stack([said.shares for said in self._said], axis=1) * trades

    @property
    def risk(self) -> np.ndarray:
        """float64 `[A, T]`; 0 where no sector trades."""
        return np.stack([said.risk for said in self._said], axis=1) * bool(self._active)

    @property
    def signals(self) -> np.ndarray:
        """float64 `[A, T, M]`, in the order of the core's instruments."""
        return np.stack([said.signals for said in self._said], axis=1)

    @property
    def sector_gains(self) -> np.ndarray:
        """float64 `[A, T, S]`, shares of the equity before each bar."""
        return np.stack(self._gains, axis=1)

    @property
    def observed(self) -> np.ndarray:
        """float32 `[A, T, O]`."""
        return np.stack(self._observed, axis=1)
