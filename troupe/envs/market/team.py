"""A team trades: a meta-controller that allocates, and a specialist per sector that says what to hold.

    team = Team.of(core, market.names)
    envs = TeamVector(core, team, 64, RewardRules(kind="mean_variance"))
    observations, rewards, terminated, truncated = envs.step(actions)       # [N, O], [N, K], [N], [N]

Legend: N accounts, M instruments, S sectors, K = 1 + S agents: "meta", then the sectors in the order in which they are
first met. An observation `[N, O]` is the agents' views one after the other. Who sees what: a specialist the columns of
its own instruments, what is held of them, and the message of the bar before (its share of the risk and the appetite for
all of it); the meta-controller everything that belongs to no instrument, what the sectors hold and how they fared, and
its own last message. An action `[N, S + 1 + M]` is S logits, the risk appetite and the signals, sector by sector (see
`hierarchy.allocate`). What is sent at bar t is read at t + 1, so that all agents act at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from troupe.envs.market.core import MarketCore, MarketState, Outcome
from troupe.envs.market.features import FEATURES
from troupe.envs.market.hierarchy import allocate, sectors_of
from troupe.envs.market.rewards import Bar, RewardRules, RewardState, left_out, pay
from troupe.envs.market.vector import MarketVector, typical_square
from troupe.errors import ConfigError, DataError

__all__ = ["META", "Team", "TeamMemory", "TeamVector", "columns_of"]

META = "meta"

_DECAY = 0.02
"""Share of the newest bar in the specialists' records: they reach back about 50 bars."""


class TeamMemory(NamedTuple):
    """What the agents were told last and how the sectors fared, for N accounts."""

    shares: Any  # float64 [N, S]: of the risk, they sum to 1
    risk: Any  # float64 [N], in [0, 1]
    mean: Any  # float64 [N, S]: moving mean of the sector's gain per bar, as a share of equity
    square: Any  # float64 [N, S]: of its square
    wins: Any  # float64 [N, S]: moving share of bars with a gain, less that with a loss


class Said(NamedTuple):
    """A team's action, told apart."""

    shares: Any  # float64 [N, S]
    risk: Any  # float64 [N]
    signals: Any  # float64 [N, M], in the order of the core's instruments
    actions: Any  # float64 [N, M]: what the core is asked for


def columns_of(names: Sequence[str], instrument: str) -> list[int]:
    """Columns that belong to an instrument: its features, and an extra column `signal_<instrument>`."""
    own = {f"{instrument}_{feature}" for feature in FEATURES} | {f"signal_{instrument}"}
    return [place for place, name in enumerate(names) if name in own]


@dataclass(frozen=True, eq=False)
class Team:
    """Who sees and does what over one core. Pure: accounts' states and memories come in and go out."""

    sectors: tuple[str, ...]
    members: Mapping[str, tuple[str, ...]]  # sector -> its instruments, in the core's order
    views: Mapping[str, slice]  # agent -> its part of an observation
    parts: Mapping[str, slice]  # agent -> its part of an action
    columns: Mapping[str, tuple[str, ...]]  # agent -> names of what it sees
    scale: float  # largest logit of an allocation
    typical: float  # squared gain of an ordinary bar, for records without history
    _order: Any  # int64 [O]: of everything there is, what the views take
    _factors: Any  # float32 [O]
    _back: Any  # int64 [M]: from the actions' order to the core's
    _sector_of: Any  # int64 [M]
    _sums: Any  # float64 [M, S]: 1 where the instrument is of the sector

    @classmethod
    def of(cls, core: MarketCore, names: Sequence[str], *, scale: float = 2.0, typical: float | None = None) -> Team:
        """`names` are those of the tape's features, in order; `typical` is that of the team which learned, where this
        one trades other bars. Raises ConfigError where a specialist would see nothing of what it trades."""
        tape, xp = core.tape, core.xp
        if len(names) != tape.features.shape[1]:
            raise ConfigError(f"the market has {tape.features.shape[1]} feature columns, and {len(names)} names")
        sectors = sectors_of(tape.instruments)
        members = {s: tuple(i.name for i in tape.instruments if i.sector == s) for s in sectors}
        owned = {name: columns_of(names, name) for name in core.instruments}
        for name, places in owned.items():
            if not places:
                raise ConfigError(
                    f"no column of the features belongs to {name}, so its specialist would trade blindly; write "
                    f"instruments, or single features of it, into market.features, or an extra column signal_{name}"
                )
        seen = _Seen(tuple(names), core.instruments, sectors)
        taken = {META: seen.of_meta(sorted(set(range(len(names))) - {c for each in owned.values() for c in each}))}
        taken |= {sector: seen.of_specialist(sector, members[sector], owned) for sector in sectors}
        order = np.concatenate(list(taken.values()))
        signals = [core.instruments.index(name) for sector in sectors for name in members[sector]]
        place = tape.close.device
        sector_of = np.array([sectors.index(each.sector) for each in tape.instruments])
        return cls(
            sectors, members, _slices({agent: len(each) for agent, each in taken.items()}),
            _slices({META: len(sectors) + 1, **{s: len(m) for s, m in members.items()}}),
            {agent: tuple(seen.names[i] for i in each) for agent, each in taken.items()}, scale,
            typical_square(core) if typical is None else typical,
            xp.asarray(order, device=place),
            xp.asarray(seen.factors(core.rules.max_position_size)[order], device=place),
            xp.asarray(np.argsort(signals), device=place), xp.asarray(sector_of, device=place),
            xp.asarray((sector_of[:, None] == np.arange(len(sectors))).astype(np.float64), device=place),
        )  # fmt: skip

    @property
    def agents(self) -> tuple[str, ...]:
        return (META, *self.sectors)

    @property
    def observation_size(self) -> int:
        return max(part.stop for part in self.views.values())

    @property
    def action_size(self) -> int:
        return max(part.stop for part in self.parts.values())

    def begin(self, core: MarketCore, accounts: Any) -> TeamMemory:
        """Equal shares at full risk, no record. `accounts` `[N]` gives type and place."""
        xp, count = core.xp, len(self.sectors)
        nothing = xp.zeros_like(accounts)[:, None] * self._sums[:1]
        return TeamMemory(
            nothing + 1.0 / count, xp.ones_like(accounts), nothing, nothing + self.typical / count, nothing
        )

    def observe(self, core: MarketCore, state: MarketState, memory: TeamMemory) -> Any:
        """float32 `[N, O]`."""
        xp, count = core.xp, len(core.instruments)
        base = core.observe(state)
        first = core.tape.features.shape[1]
        weights = xp.astype(base[:, first : first + count], xp.float64)
        deviation = (memory.square - memory.mean * memory.mean).clip(0.01 * self.typical / len(self.sectors)) ** 0.5
        told = xp.concat(
            [
                memory.shares * len(self.sectors) - 1.0, memory.risk[:, None] - 1.0,
                (memory.mean / deviation).clip(-3.0, 3.0), memory.wins, xp.abs(weights) @ self._sums,
                weights @ self._sums,
            ],
            axis=1,
        )  # fmt: skip
        everything = xp.concat([base, xp.astype(told, xp.float32)], axis=1)
        return xp.take(everything, self._order, axis=1) * self._factors

    def read(self, core: MarketCore, actions: Any) -> Said:
        """What actions `[N, S + 1 + M]` say. Raises DataError for another shape."""
        xp, count = core.xp, len(self.sectors)
        if actions.ndim != 2 or actions.shape[1] != self.action_size:
            raise DataError(f"actions have shape {tuple(actions.shape)}, not [N, {self.action_size}]")
        actions = xp.astype(actions, xp.float64, copy=False).clip(-1.0, 1.0)
        risk = (actions[:, count] + 1.0) / 2.0
        logits = self.scale * actions[:, :count]
        weights = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
        signals = xp.take(actions[:, count + 1 :], self._back, axis=1)
        wanted = allocate(xp, logits, risk, signals, self._sector_of)
        return Said(weights / xp.sum(weights, axis=1, keepdims=True), risk, signals, wanted)

    def sector_gains(self, outcome: Outcome, equity: Any) -> Any:
        """What each sector added to the equity `[N, S]`, as shares of the equity before; together the gain. The outcome
        must have been asked for in detail."""
        if outcome.profit is None:
            raise DataError("the sectors' gains need step(..., detail=True)")
        return outcome.profit @ self._sums / equity[:, None]

    def remember(self, core: MarketCore, memory: TeamMemory, said: Said, gains: Any) -> TeamMemory:
        """After a bar: what was said, and the records with its gains `[N, S]`."""
        xp = core.xp
        return TeamMemory(
            said.shares, said.risk, memory.mean + _DECAY * (gains - memory.mean),
            memory.square + _DECAY * (gains * gains - memory.square),
            memory.wins + _DECAY * (xp.sign(gains) - memory.wins),
        )  # fmt: skip


class TeamVector(MarketVector):
    """N accounts of a team as a BatchEnv whose rewards are `[N, K]`, one per agent.

    The meta-controller is paid for the portfolio; a specialist for the difference that its sector made, the portfolio's
    reward less what it would have been with the sector's gain left out (difference rewards: Wolpert and Tumer 2002,
    Advances in Complex Systems 4:265): whoever raises its own raises the portfolio's, and is not paid for the others'
    luck.
    """

    def __init__(
        self, core: MarketCore, team: Team, num_envs: int, reward: RewardRules | None = None, *, starts: Any = None
    ) -> None:
        super().__init__(
            core, num_envs, reward, translate=lambda core, state, actions: actions, actions=team.action_size,
            starts=starts,
        )  # fmt: skip
        self.team, self.agents = team, team.agents
        self.said: Said | None = None  # the last step's
        others = 1.0 - np.eye(len(team.sectors))[:, None]
        self._others = core.xp.asarray(others, device=core.tape.close.device)
        self._memory: TeamMemory | None = None

    @property
    def single_observation_space(self) -> Any:
        from gymnasium.spaces import Box

        return Box(-np.inf, np.inf, (self.team.observation_size,), np.float32)

    @property
    def memory(self) -> TeamMemory:
        """Raises DataError before the first reset."""
        if self._memory is None:
            raise DataError("the market was not reset; call reset first")
        return self._memory

    def reset(self, generator: np.random.Generator, where: Any | None = None) -> Any:
        super().reset(generator, where)
        fresh = self.team.begin(self.core, self.state.equity)
        if where is None or self._memory is None:
            self._memory = fresh
        else:
            xp = self.core.xp
            where = xp.asarray(where, device=self.core.tape.close.device)
            self._memory = TeamMemory(
                *(
                    xp.where(where[:, None] if a.ndim > 1 else where, b, a)
                    for a, b in zip(self._memory, fresh, strict=True)
                )
            )
        return self._look()

    def place(self, rows: np.ndarray) -> Any:
        super().place(rows)
        self._memory = self.team.begin(self.core, self.state.equity)
        return self._look()

    def step(self, actions: Any, *, portfolio_only: bool = False) -> tuple[Any, Any, Any, Any]:
        """One bar; with `portfolio_only` the rewards are `[N]`, the meta-controller's."""
        core, team, before = self.core, self.team, self.state
        said = team.read(core, actions)
        self._state, outcome = core.step(before, said.actions, detail=True)
        gains = team.sector_gains(outcome, before.equity)
        bar = self._bar(before, outcome)._replace(gains=gains)
        if portfolio_only:
            rewards, self._moments = pay(core.xp, self.reward, self._rewarded, bar)
        else:
            rewards = self._pay(bar)
        self._memory = team.remember(core, self.memory, said, gains)
        self._count(outcome)
        self.said = said
        return self._look(), rewards, outcome.terminated, outcome.truncated

    @property
    def _rewarded(self) -> RewardState:
        assert self._moments is not None
        return self._moments

    def _pay(self, bar: Bar) -> Any:
        """`[N, K]`: the whole and what it would be without each sector are paid in one call."""
        xp, without = self.core.xp, left_out(bar, self._others)
        apart = ("gain",) if bar.costs is None else ("gain", "gains", "costs", "exposures")
        rows = {name: xp.concat([getattr(bar, name)[None], getattr(without, name)]) for name in apart}
        paid, moments = pay(xp, self.reward, self._rewarded, bar._replace(**rows))
        self._moments = RewardState(*(each[0] if each.ndim == 2 else each for each in moments))
        return xp.concat([paid[:1], paid[0] - paid[1:]]).T

    def _look(self) -> Any:
        return self.team.observe(self.core, self.state, self.memory)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"memory": dict(self.memory._asdict())}

    def load_state_dict(self, stored: Mapping[str, Any]) -> Any:
        super().load_state_dict(stored)
        self._memory = TeamMemory(**self._arrays(stored["memory"]))
        return self._look()


class _Seen:
    """Everything that there is to see, and where it stands: the core's observation, then what the team knows."""

    def __init__(self, names: tuple[str, ...], instruments: tuple[str, ...], sectors: tuple[str, ...]) -> None:
        held = [f"{kind}_{name}" for kind in ("weight", "profit") for name in instruments]
        told = [
            *(f"share_{s}" for s in sectors), "risk",
            *(f"{kind}_{s}" for kind in ("record", "wins", "gross", "net") for s in sectors),
        ]  # fmt: skip
        self.names = (*names, *held, "drawdown", *told)
        self._own = {name: place + len(names) for place, name in enumerate((*held, "drawdown", *told))}
        self._sectors = sectors

    def of_meta(self, columns: Sequence[int]) -> np.ndarray:
        told = ["risk", *(f"{kind}_{s}" for kind in ("share", "record", "wins", "gross", "net") for s in self._sectors)]
        return np.array([*columns, self._own["drawdown"], *(self._own[name] for name in told)])

    def of_specialist(
        self, sector: str, members: Sequence[str], owned: Mapping[str, Sequence[int]]
    ) -> np.ndarray:  # fmt: skip
        held = [self._own[f"{kind}_{name}"] for kind in ("weight", "profit") for name in members]
        told = [self._own[name] for name in ("drawdown", f"share_{sector}", "risk")]
        return np.array([*(column for name in members for column in owned[name]), *held, *told])

    def factors(self, largest: float) -> np.ndarray:
        """Weights are seen in units of the largest position."""
        sized = ("weight_", "profit_", "gross_", "net_")
        first = len(self.names) - len(self._own)
        factors = np.ones(len(self.names), dtype=np.float32)
        for place, name in enumerate(self.names[first:], first):
            if name.startswith(sized):
                factors[place] = 1.0 / largest
        return factors


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    stops = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(stop - size, stop) for (name, size), stop in zip(sizes.items(), stops, strict=True)}
