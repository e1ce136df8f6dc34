"""From a configuration to a market: bars, instruments, observations, the core.

market = load_market(MarketConfig(data=DataConfig(files={"EURUSD": "EURUSD_h1.csv"})))
core = market.core(Normaliser.fit(market.observations[0][:10_000]))
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from troupe.envs.market.alignment import fit_universe
from troupe.envs.market.bars import Bars
from troupe.envs.market.config import PLANTED_SCENARIOS, MarketConfig, MarketRules
from troupe.envs.market.core import MarketCore, idle_limits
from troupe.envs.market.features import FEATURES, Normaliser, instrument_features, market_feature_names, market_features
from troupe.envs.market.instruments import INSTRUMENTS, Instrument, conversion_rates, instrument
from troupe.envs.market.loading import BarFormat, ExtraSeries, load_bars
from troupe.envs.market.mixture import mixed_market
from troupe.envs.market.planted import PlantedMarket, null_market, planted_market
from troupe.envs.market.resampling import resample
from troupe.envs.market.rotation import RotationMarket, rotation_market
from troupe.envs.market.simulator import scenario, simulate
from troupe.envs.market.tape import early_opens, make_tape
from troupe.errors import ConfigError, did_you_mean

__all__ = ["Market", "load_market", "market_of", "observation_table"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Market:
    """Bars that are ready to be traded. `messages` say what did not fit and was left out."""

    bars: tuple[Bars, ...]  # one per path
    instruments: tuple[Instrument, ...]
    rules: MarketRules
    account: str
    observations: tuple[np.ndarray, ...]  # float64 [T, F] per path, before normalisation
    names: tuple[str, ...]  # of their columns
    messages: tuple[str, ...] = ()
    rates: tuple[np.ndarray, ...] | None = None  # `[T, M]` per path, where pairs that are not traded convert

    def core(self, normaliser: Normaliser, **changes: object) -> MarketCore:
        """The core over all paths, with observations on the scale of `normaliser`; `changes` to the rules."""
        rules = MarketRules.model_validate({**self.rules.model_dump(), **changes}) if changes else self.rules
        seen = [normaliser(table) for table in self.observations]
        tape = make_tape(self.bars, self.instruments, rules, seen, account=self.account, rates=self.rates)
        return MarketCore(tape, rules)

    def between(self, start: int, stop: int) -> Market:
        """The rows `start` to `stop` of every path. Observations stay what they were: they know what came before."""
        return replace(
            self, bars=tuple(bars.between(start, stop) for bars in self.bars),
            observations=tuple(table[start:stop] for table in self.observations),
            rates=None if self.rates is None else tuple(rates[start:stop] for rates in self.rates),
        )  # fmt: skip

    def fitted(self, stop: int | None = None) -> Normaliser:
        """A normaliser of the rows before `stop`."""
        return Normaliser.fit(np.concatenate([table[:stop] for table in self.observations]))


def load_market(config: MarketConfig) -> Market:
    """The market that a configuration describes. Raises ConfigError, DataError for what cannot be traded."""
    known = _instruments(config)
    if not config.data.files:
        return market_of(_simulated(config, known), known, config)
    unknown = [name for name in config.instruments if name not in config.data.files]
    data = config.data
    form = BarFormat(
        stamp=data.stamp, zone=data.zone, day_close=data.day_close, on_error=data.on_error, max_gap=data.max_gap,
        header=data.header, seconds=data.seconds,
    )  # fmt: skip
    extra = {
        column: ExtraSeries(
            path, lag=data.extra_lag, before=data.extra_before, zone=data.zone, day_close=data.day_close,
            on_error=data.on_error,
        )
        for column, path in data.extra.items()
    }  # fmt: skip
    bars = load_bars(dict(data.files), form, clock=data.clock, extra=extra or None)
    if data.resample is not None:
        bars = resample(bars, data.resample, zone=data.zone, day_close=data.day_close)
    rules = config.rules
    wanted = [name for name in config.instruments if name not in unknown]
    universe = fit_universe(
        bars, wanted, min_bars=data.min_bars, episode_length=rules.episode_length, warmup=rules.warmup_steps
    )
    messages = [f"{name} is left out: data.files has no file of it" for name in unknown] + list(universe.messages)
    for line in messages:
        log.warning(line)
    kept = universe.bars.instruments
    config = config.model_copy(
        update={"rules": rules.model_copy(update={"episode_length": universe.episode_length}), "instruments": kept}
    )
    chosen = [each for each in known if each.name in kept]
    chosen.sort(key=lambda each: kept.index(each.name))
    market = market_of([universe.bars], chosen, config)
    rates = _rates(bars, universe.bars, chosen, config.account)
    return replace(market, messages=(*messages, *market.messages), rates=(rates,))


def market_of(bars: Sequence[Bars], instruments: Sequence[Instrument], config: MarketConfig) -> Market:
    """A market of bars that are already there."""
    tables = [observation_table(path, config.features, config.rules.correlation_window) for path in bars]
    rules = config.rules
    late = np.logical_or.reduce([early_opens(path) & ~path.close_only for path in bars])
    messages = [
        f"{each.name} is filled at its closes: its bars open before others close, and decisions lie between"
        for each, is_late in zip(instruments, late, strict=True) if is_late
    ]  # fmt: skip
    for line in [*messages, *idle_limits(instruments, rules)]:
        log.warning(line)
    seen = tuple(table for table, _ in tables)
    return Market(tuple(bars), tuple(instruments), rules, config.account, seen, tables[0][1], tuple(messages))


def observation_table(bars: Bars, wanted: Sequence[str], window: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(float64 `[T, F]`, names): the chosen features, each causal. Raises ConfigError for a name that nobody knows."""
    shared = market_feature_names(bars.instruments)
    for name in wanted:
        if name not in ("instruments", "market", "extra", *FEATURES, *shared, *bars.extra_names):
            known = ["instruments", "market", "extra", *FEATURES, *shared, *bars.extra_names]
            raise ConfigError(f"features has {name!r}, which nobody computes{did_you_mean(name, known)}")
    own = [name for name in FEATURES if name in wanted or "instruments" in wanted]
    market = [name for name in shared if name in wanted or "market" in wanted]
    extra = [name for name in bars.extra_names if name in wanted or "extra" in wanted]
    columns: list[np.ndarray] = []
    names: list[str] = []
    if own:
        table = instrument_features(bars)[:, :, [list(FEATURES).index(name) for name in own]]
        columns.append(table.reshape(len(bars), -1))
        names += [f"{name}_{feature}" for name in bars.instruments for feature in own]
    if market:
        columns.append(market_features(bars, window)[:, [shared.index(name) for name in market]])
        names += market
    if extra:
        columns.append(bars.extra[:, [bars.extra_names.index(name) for name in extra]])
        names += extra
    if not columns:
        raise ConfigError("features is empty, or asks for extra columns that the bars do not have; name some")
    return np.concatenate(columns, axis=1), tuple(names)


def _rates(loaded: Bars, kept: Bars, instruments: Sequence[Instrument], account: str) -> np.ndarray:
    """Conversion rates at the rows that were `kept`, from all that was loaded: pairs that are not traded, too, where
    they have begun by then."""
    rows = np.searchsorted(loaded.times, kept.times)
    begun = np.logical_or.reduce(loaded.traded[: rows[0] + 1])
    pairs = [name for name, has in zip(loaded.instruments, begun, strict=True) if has or name in kept.instruments]
    return conversion_rates(loaded.of(pairs), instruments, account)[rows]


def _instruments(config: MarketConfig) -> list[Instrument]:
    if not config.instruments or len(set(config.instruments)) < len(config.instruments):
        raise ConfigError("instruments must name one or more different ones")
    for name in config.costs:
        if name not in config.instruments:
            raise ConfigError(f"costs has {name!r}, which is not traded{did_you_mean(name, config.instruments)}")
    own = _planted_terms(config)
    found = []
    for name in config.instruments:
        changes: dict[str, object] = {key: _cost(name, key, value) for key, value in config.costs.get(name, {}).items()}
        kind = {"sector": "planted"} if own and name not in INSTRUMENTS else {}
        found.append(instrument(name, **{**own, **kind, **changes}))
    return found


def _planted_terms(config: MarketConfig) -> dict[str, object]:
    """What every instrument of a planted market has, whatever its name, so that the optimum is the one that is known:
    prices in the account's currency, and the cost of the trade alone."""
    scenario = config.simulation.scenario
    if config.data.files or scenario not in PLANTED_SCENARIOS:
        return {}
    cost = (RotationMarket() if scenario == "rotation" else PlantedMarket()).cost
    free = {"commission": 0.0, "impact": 0.0, "swap_long": 0.0, "swap_short": 0.0}
    return {"quote": config.account, "half_spread": cost, **free}


def _cost(name: str, key: str, value: float | str) -> float | str:
    """A field of an instrument; YAML reads 1e-4 as a word."""
    if key in ("sector", "quote", "base"):
        return str(value)
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"costs.{name}.{key}={value!r} is no number; write one such as 0.0001") from None


def _simulated(config: MarketConfig, known: Sequence[Instrument]) -> list[Bars]:
    chosen, generator = config.simulation, np.random.default_rng(config.simulation.seed)
    size, seconds = (chosen.bars, chosen.paths), chosen.bar_seconds
    if chosen.scenario == "planted":
        return planted_market(*size, generator, PlantedMarket(config.instruments), bar_seconds=seconds)
    if chosen.scenario == "null":
        return null_market(*size, generator, PlantedMarket(config.instruments), bar_seconds=seconds)
    if chosen.scenario == "rotation":
        market = RotationMarket(config.instruments, tuple(each.sector for each in known))
        return rotation_market(*size, generator, market, bar_seconds=seconds)
    if chosen.scenario == "mixed":
        return mixed_market(chosen.scenarios, chosen.difficulty, *size, generator, known, seconds)
    return simulate(scenario(chosen.scenario, chosen.difficulty, known), *size, generator, seconds)
