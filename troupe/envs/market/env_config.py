"""`env_config`: one flat mapping, as document 002 writes it, for a market and what an environment does with it.

    read_env_config({"instrument": "EURUSD", "transaction_cost": 0.003, "stop_loss_pct": 0.02}, "SpecialistEnv")

The keys are those of `MarketRules` (episode_length, max_portfolio_var, ...), those of `MarketConfig` (instruments,
data, simulation, features, costs, account), and `reward`. Without `data.files` the market is the simulated one that
`simulation` describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from pydantic import ConfigDict, Field, model_validator

from troupe.config.conditions import ignored
from troupe.config.problems import Problem
from troupe.config.tree import DEFAULT, defaults, merge, wrap
from troupe.config.validation import validate
from troupe.envs.market.build import load_market
from troupe.envs.market.config import (
    DOCUMENTED_INSTRUMENTS,
    DataConfig,
    MarketConfig,
    MarketRules,
    SimulationConfig,
    read_when,
    sources_read_when,
)
from troupe.envs.market.core import MarketCore
from troupe.envs.market.rewards import RewardRules, reward_read_when
from troupe.errors import ConfigError

__all__ = ["MarketEnvConfig", "core_of", "read_env_config"]


class MarketEnvConfig(MarketRules):
    """What an environment over a market depends on."""

    model_config = ConfigDict(allow_inf_nan=False)

    instrument: str | None = None
    """What is traded, where it is one."""
    instruments: tuple[str, ...] | None = None
    """What is traded; the document's eight unless given."""
    account: str = "USD"
    """The account's currency."""
    costs: dict[str, dict[str, float | str]] = Field(default_factory=dict)
    """Instrument -> costs that differ from the table's."""
    features: tuple[str, ...] = MarketConfig().features
    """What is observed."""
    data: DataConfig = DataConfig()
    simulation: SimulationConfig = SimulationConfig()
    reward: RewardRules = RewardRules()
    allocation_scale: float = Field(2.0, gt=0)
    """Largest logit of an allocation: with 3 sectors and 2.0 a sector gets between 1 % and 96 %."""
    gradient_coordination: bool = False
    """For whoever trains jointly; the environment itself does not change."""
    curriculum_learning: bool = False
    """The same."""

    read_when = (*read_when(""), *reward_read_when("reward"), *sources_read_when(""))

    @model_validator(mode="after")
    def _is_possible(self) -> MarketEnvConfig:
        if self.instrument is not None and self.instruments is not None:
            raise ValueError("instrument and instruments both say what is traded; keep one")
        needed = self.warmup_steps + self.episode_length + 1
        if not self.data.files and needed > self.simulation.bars:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} and episode_length={self.episode_length} need {needed} bars, and "
                f"simulation.bars={self.simulation.bars}; write shorter episodes or more bars"
            )
        return self

    @property
    def traded(self) -> tuple[str, ...]:
        if self.instrument is not None:
            return (self.instrument,)
        return DOCUMENTED_INSTRUMENTS if self.instruments is None else self.instruments

    @property
    def market(self) -> MarketConfig:
        """The same in the sections of `MarketConfig`."""
        return MarketConfig(
            instruments=self.traded, account=self.account, costs=self.costs, features=self.features, data=self.data,
            simulation=self.simulation,
            rules=MarketRules(**{name: getattr(self, name) for name in MarketRules.model_fields}),
        )  # fmt: skip


_READERS = {
    "allocation_scale": ("MetaControllerTrainingEnv", "JointTrainingEnv"),
    "gradient_coordination": ("JointTrainingEnv",),
    "curriculum_learning": ("JointTrainingEnv",),
}
"""Keys that not every environment reads, and which do."""


def read_env_config(env_config: Mapping[str, Any] | None, reader: str = "MarketEnv") -> MarketEnvConfig:
    """The config of the environment `reader`. Raises ConfigError with a line for each key that is unknown, out of
    range, or read by nothing."""
    if not isinstance(env_config, Mapping | None):
        raise ConfigError(f"env_config must be a mapping of keys to values, found {type(env_config).__name__}")
    given = {} if env_config is None else env_config
    problems = [
        Problem("env_config", (key,), f"is for {' and '.join(readers)}, and {reader} does not read it; leave it out")
        for key, readers in _READERS.items()
        if key in given and reader not in readers
    ]
    if "rules" in given:  # the section of MarketConfig
        problems.append(Problem("env_config", ("rules",), "is flat here; write its keys without the section"))
    tree = merge(defaults(MarketEnvConfig), wrap(given, "env_config"))
    config = validate(MarketEnvConfig, tree, problems)
    problems += ignored(MarketEnvConfig, tree, config, {DEFAULT}, problems)
    if config is None or problems:
        raise ConfigError("\n".join(dict.fromkeys(map(str, problems))))
    return config


_CORES: WeakValueDictionary[str, MarketCore] = WeakValueDictionary()


def core_of(config: MarketEnvConfig) -> MarketCore:
    """The core of the config's market, its observations normalised over all rows: whoever holds rows back makes cores
    with `Market.between` and `Market.fitted`.

    A core never changes, so environments that live at the same time and want the same market share one. Raises
    ConfigError, DataError for a market that cannot be traded.
    """
    market = config.market
    files = [Path(name) for name in (*market.data.files.values(), *market.data.extra.values())]
    stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]
    key = f"{market.model_dump_json()} {stamps}"
    core = _CORES.get(key)
    if core is None:
        loaded = load_market(market)
        _CORES[key] = core = loaded.core(loaded.fitted())
    return core
