"""What a hierarchy learns from, is judged by, and is tested on: three stretches that never overlap.

    data = TradingData.of(config)
    core = data.core("train")            # observations on the scale of the training rows, everywhere

Simulated markets: three independent draws. A single history: its beginning, a stretch after it, and its end, with a gap
of one episode's warm-up between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from troupe.envs.market.build import Market, load_market
from troupe.envs.market.config import MarketConfig
from troupe.envs.market.core import MarketCore
from troupe.envs.market.features import Normaliser
from troupe.envs.market.team import Team
from troupe.errors import ConfigError
from troupe.maths.edge import FEWEST_BARS
from troupe.systems.trading.hierarchy_config import EpisodesConfig, TradingConfig
from troupe.systems.trading.trials import bars_hash, config_hash, market_setting

__all__ = ["Stretch", "TradingData"]

Stretch = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class TradingData:
    """Markets of the three stretches. `markets["test"]` of a history holds all its rows, of which `first["test"]` is
    the first to trade, so that features and risk estimates have their past."""

    markets: Mapping[Stretch, Market]
    first: Mapping[Stretch, int]  # row of each path at which trading may begin
    settings: EpisodesConfig
    scale: float  # largest logit of an allocation

    @classmethod
    def of(cls, config: TradingConfig, market: Market | None = None) -> TradingData:
        """`market` given in code takes the place of the configured one, and is split as a history where it has one
        path. Raises ConfigError, DataError for what cannot be traded or split."""
        given = load_market(config.market) if market is None else market
        if market is None and not config.market.data.files:
            return cls._drawn(config, given)
        if len(given.bars) != 1:
            raise ConfigError(f"a market given in code must have one path, found {len(given.bars)}")
        return cls._split(config, given)

    @classmethod
    def _drawn(cls, config: TradingConfig, train: Market) -> TradingData:
        paths = config.evaluation.paths
        held = {name: load_market(_drawn(config.market, paths, number)) for number, name in enumerate(_HELD, 1)}
        markets: dict[Stretch, Market] = {"train": train, **held}
        return cls(markets, dict.fromkeys(markets, 0), config.evaluation, config.allocation_scale)

    @classmethod
    def _split(cls, config: TradingConfig, market: Market) -> TradingData:
        chosen, rows = config.evaluation, len(market.bars[0])
        test = round(rows * (1 - chosen.test))
        validation = round(rows * (1 - chosen.test - chosen.validation))
        gap = market.rules.warmup_steps + 1
        needed = gap + market.rules.warmup_steps + market.rules.episode_length
        if validation - gap < needed:
            raise ConfigError(
                f"{rows} bars leave {validation - gap} to learn from, and episodes of "
                f"{market.rules.episode_length} bars need "
                f"{needed}; give longer bars, or write a shorter market.rules.episode_length"
            )
        markets: dict[Stretch, Market] = {
            "train": market.between(0, validation - gap), "validation": market.between(0, test - gap), "test": market,
        }  # fmt: skip
        return cls(markets, {"train": 0, "validation": validation, "test": test}, chosen, config.allocation_scale)

    @cached_property
    def normaliser(self) -> Normaliser:
        """Of the training rows alone."""
        return self.markets["train"].fitted()

    @cached_property
    def typical(self) -> float:
        return self.team(self.core("train")).typical

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What JSON can hold: hashes of bars and setting of each stretch, and where it begins."""
        return {
            name: {
                "bars": [bars_hash(bars) for bars in market.bars], "setting": config_hash(market_setting(market)),
                "first": self.first[name],
            }
            for name, market in self.markets.items()
        }  # fmt: skip

    def check_gates(self, fewest: int) -> None:
        """Raises ConfigError where the gates, which need `fewest` episodes, could never open."""
        rows, bars = self.episodes("validation")
        if len(rows) < fewest:
            raise ConfigError(
                f"{len(rows)} episodes of {bars} bars fit into the validation stretch, and a gate needs {fewest}; "
                "write a smaller evaluation.bars, or give longer bars"
            )

    def check_test(self) -> None:
        """Raises ConfigError where the test has too few episodes, or too short ones to tell an edge."""
        _, bars = self.episodes("test")
        if bars < FEWEST_BARS:
            raise ConfigError(f"evaluation.bars={bars} is too few for the test of an edge; write {FEWEST_BARS} or more")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that are observed."""
        return self.markets["train"].names

    @property
    def is_history(self) -> bool:
        return self.first["test"] > 0

    def core(self, stretch: Stretch, **changes: object) -> MarketCore:
        return self.markets[stretch].core(self.normaliser, **changes)

    def team(self, core: MarketCore, *, typical: float | None = None) -> Team:
        return Team.of(core, self.names, scale=self.scale, typical=typical)

    def episodes(self, stretch: Stretch, count: int | None = None) -> tuple[np.ndarray, int]:
        """(rows where episodes begin, their bars): without overlap, spread evenly over all paths. Raises ConfigError
        where fewer than two fit."""
        market = self.markets[stretch]
        bars = self.settings.bars or market.rules.episode_length
        lengths = [len(path) for path in market.bars]
        begins = np.cumsum(lengths) - lengths
        first = max(self.first[stretch], market.rules.warmup_steps)
        rows = [begin + np.arange(first, length - bars, bars) for begin, length in zip(begins, lengths, strict=True)]
        found = np.concatenate(rows)
        if len(found) < 2:
            raise ConfigError(
                f"fewer than two episodes of {bars} bars fit into the {stretch} stretch; write a smaller "
                "evaluation.bars"
            )
        wanted = min(len(found), self.settings.episodes if count is None else count)
        if wanted < 2:
            raise ConfigError(f"{count} episodes are too few, an interval needs two numbers; write 2 or more")
        return found[np.linspace(0, len(found) - 1, wanted).round().astype(np.int64)], bars


_HELD: tuple[Stretch, ...] = ("validation", "test")

_APART = 7_919
"""Between the seeds of stretches: a prime, so that runs of neighbouring seeds share no market."""


def _drawn(market: MarketConfig, paths: int, number: int) -> MarketConfig:
    simulation = market.simulation.model_copy(update={"seed": market.simulation.seed + number * _APART, "paths": paths})
    return market.model_copy(update={"simulation": simulation})
