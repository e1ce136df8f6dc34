"""A hierarchy trades: shares of the risk for the sectors, an appetite for all of it, and a signal per instrument.

    envs = meta_vector(core, 8, specialists={"forex": trend, "commodities": trend, "equity": trend})
    envs = joint_vector(core, 8)

Legend: N accounts, S sectors, M instruments. The sectors are those of the core's instruments, in the order in which
they are first met: forex, commodities, equity for document 002's eight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.envs.market.core import MarketCore, MarketState
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.rewards import RewardRules
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, DataError, did_you_mean

__all__ = ["Allocator", "Specialist", "allocate", "joint_vector", "meta_vector", "sectors_of"]

Specialist = Callable[[MarketCore, MarketState, tuple[str, ...]], Any]
"""(core, state, the sector's instruments) -> signals `[N, their number]` in [-1, 1]."""


def sectors_of(instruments: Sequence[Instrument]) -> tuple[str, ...]:
    """Sectors in the order in which they are first met."""
    return tuple(dict.fromkeys(instrument.sector for instrument in instruments))


def allocate(xp: Any, allocation_logits: Any, risk: Any, signals: Any, sector_of: Any) -> Any:
    """Actions `[N, M]` of the core.

        share    = softmax(allocation_logits)                                      [N, S]
        action_i = clip(signal_i * risk * S * share[sector of i], -1, 1)

    so that equal shares at full risk pass the signals on as they are. `risk` `[N]` lies in [0, 1], `signals` are
    `[N, M]`, `sector_of` int `[M]` numbers the sectors.
    """
    weights = xp.exp(allocation_logits - xp.max(allocation_logits, axis=1, keepdims=True))
    shares = weights / xp.sum(weights, axis=1, keepdims=True)
    wanted = signals * (risk * shares.shape[1])[:, None] * xp.take(shares, sector_of, axis=1)
    return wanted.clip(-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Allocator:
    """Translates a hierarchy's actions to those of the core, for `MarketVector`: S logits in units of `scale`, then the
    risk appetite from -1 (none) to 1 (full), then the M signals unless `signals` finds them."""

    sectors: tuple[str, ...]
    sector_of: Any  # int64 [M]
    scale: float
    signals: Callable[[MarketCore, MarketState], Any] | None = None

    @property
    def size(self) -> int:
        """Numbers of an action."""
        return len(self.sectors) + 1 + (len(self.sector_of) if self.signals is None else 0)

    def __call__(self, core: MarketCore, state: MarketState, actions: Any) -> Any:
        """Raises DataError for actions of another shape."""
        xp, count = core.xp, len(self.sectors)
        if tuple(actions.shape) != (state.row.shape[0], self.size):
            raise DataError(f"actions have shape {tuple(actions.shape)}, not {(state.row.shape[0], self.size)}")
        actions = xp.astype(actions, xp.float64, copy=False).clip(-1.0, 1.0)
        signals = actions[:, count + 1 :] if self.signals is None else self.signals(core, state)
        return allocate(xp, self.scale * actions[:, :count], (actions[:, count] + 1) / 2, signals, self.sector_of)


def joint_vector(
    core: MarketCore, num_envs: int, reward: RewardRules | None = None, *, scale: float = 2.0, starts: Any = None
) -> MarketVector:
    """Environments whose actions are allocation, risk and every instrument's signal: S + 1 + M numbers."""
    return _vector(core, num_envs, reward, Allocator(*_sectors(core), scale), starts)


def meta_vector(
    core: MarketCore,
    num_envs: int,
    reward: RewardRules | None = None,
    *,
    specialists: Mapping[str, Specialist] | None = None,
    scale: float = 2.0,
    starts: Any = None,
) -> MarketVector:
    """Environments whose actions are allocation and risk, S + 1 numbers, over the signals of `specialists`, sector ->
    Specialist; without any, each instrument is wanted long. Raises ConfigError where their sectors are not those that
    are traded."""
    signals = _all_long if specialists is None else _spoken(core, dict(specialists))
    return _vector(core, num_envs, reward, Allocator(*_sectors(core), scale, signals), starts)


def _vector(core: MarketCore, num_envs: int, reward: Any, allocator: Allocator, starts: Any) -> MarketVector:
    return MarketVector(core, num_envs, reward, translate=allocator, actions=allocator.size, starts=starts)


def _sectors(core: MarketCore) -> tuple[tuple[str, ...], Any]:
    sectors = sectors_of(core.tape.instruments)
    places = np.array([sectors.index(each.sector) for each in core.tape.instruments])
    return sectors, core.xp.asarray(places, device=core.tape.close.device)


def _all_long(core: MarketCore, state: MarketState) -> Any:
    return core.xp.ones_like(state.book.units)


def _spoken(core: MarketCore, specialists: dict[str, Specialist]) -> Callable[[MarketCore, MarketState], Any]:
    """The signals of all specialists in the order of the instruments."""
    sectors = sectors_of(core.tape.instruments)
    for sector in specialists:
        if sector not in sectors:
            raise ConfigError(f"specialists has {sector!r}, which is no traded sector{did_you_mean(sector, sectors)}")
    if missing := [sector for sector in sectors if sector not in specialists]:
        raise ConfigError(f"specialists has none for {' and '.join(missing)}; give each traded sector one")
    members = {s: [i for i, each in enumerate(core.tape.instruments) if each.sector == s] for s in sectors}
    names = {sector: tuple(core.instruments[i] for i in places) for sector, places in members.items()}
    order = core.xp.asarray(np.argsort(np.concatenate(list(members.values()))), device=core.tape.close.device)

    def signals(core: MarketCore, state: MarketState) -> Any:
        said = [_said(core, state, sector, specialists[sector], names[sector]) for sector in sectors]
        return core.xp.take(core.xp.concat(said, axis=1), order, axis=1)

    return signals


def _said(core: MarketCore, state: MarketState, sector: str, specialist: Specialist, names: tuple[str, ...]) -> Any:
    """One specialist's signals, within [-1, 1]."""
    found, wanted = specialist(core, state, names), (state.row.shape[0], len(names))
    if tuple(found.shape) != wanted:
        raise DataError(f"the specialist of {sector} gave signals of shape {tuple(found.shape)}, not {wanted}")
    return core.xp.astype(found, core.xp.float64, copy=False).clip(-1.0, 1.0)
