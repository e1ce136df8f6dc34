"""How a market is traded; imports no NumPy.

The keys of document 002's `env_config` and `portfolio_risk` keep their names.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from troupe.config import Frozen, ReadWhen

__all__ = [
    "DOCUMENTED_INSTRUMENTS",
    "PLANTED_SCENARIOS",
    "BreakerLevel",
    "DataConfig",
    "DocumentedScenario",
    "MarketConfig",
    "MarketRules",
    "SimulationConfig",
    "read_when",
    "sources_read_when",
]

DOCUMENTED_INSTRUMENTS = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30")
"""The portfolio of document 002."""


class BreakerLevel(Frozen):
    """A rung of the circuit breaker."""

    drawdown: float = Field(gt=0, lt=1)
    """Loss since the day's first equity."""
    bars: int = Field(ge=1)
    """Bars for which positions stay closed."""


class MarketRules(Frozen):
    """Capital, costs, limits. Every limit acts on the target weights before an order is made; null turns it off."""

    model_config = ConfigDict(allow_inf_nan=False)

    episode_length: int = Field(1000, ge=1)
    """Bars of an episode; it is truncated there."""
    warmup_steps: int = Field(50, ge=0)
    """Bars at the beginning of a path on which no episode starts, so that features and risk estimates have history."""
    initial_capital: float = Field(100_000.0, gt=0)
    """In the account's currency."""
    ruin: float = Field(0.1, ge=0, lt=1)
    """Share of the initial capital at which an episode terminates."""

    transaction_cost: float | None = Field(None, ge=0, lt=1)
    """Relative cost of every trade in place of each instrument's spread and commission (never both)."""
    cost_scale: float = Field(1.0, ge=0)
    """Factor on all costs, for cost sweeps; swap that is received is none."""
    max_participation: float | None = Field(None, gt=0, le=1)
    """An order is filled up to this share of the bar's volume; null fills all. Needs volumes in units."""

    max_position_size: float = Field(0.1, gt=0)
    """Largest |weight| of an instrument; an action of 1 asks for it."""
    stop_loss_pct: float | None = Field(None, gt=0, lt=1)
    """Loss against the average entry price at which a position is closed, within the bar."""
    max_leverage: float | None = Field(None, gt=0)
    """Largest sum of |weights|."""
    max_sector_allocation: float | None = Field(None, gt=0)
    """Largest sum of |weights| in one sector, in multiples of equity."""
    max_correlation_exposure: float | None = Field(None, gt=0)
    """Largest correlation-weighted exposure s_i sum_j rho_ij w_j of any held instrument i (s_i its side): what moves
    together counts together, what hedges counts against it."""
    max_portfolio_var: float | None = Field(None, gt=0)
    """Largest one-day value at risk, as a share of equity."""
    var_confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the value at risk."""
    var_method: Literal["parametric", "historical", "monte_carlo"] = "parametric"
    """Normal with the rolling covariance; the window's own returns; or draws from a Student t of 5 degrees with that
    covariance."""
    var_draws: int = Field(1000, ge=100)
    """Of `monte_carlo`, the same for every bar (common random numbers)."""
    correlation_window: int = Field(100, ge=10)
    """Bars that covariance, correlation, historical VaR and the features of the market look back."""
    breaker: tuple[BreakerLevel, ...] = ()
    """Circuit breaker: positions are closed when the day's loss passes a level."""
    margin_call: float | None = Field(None, gt=0)
    """Equity below this multiple of the margin that the positions need closes them all."""

    @model_validator(mode="after")
    def _fits(self) -> MarketRules:
        levels = [level.drawdown for level in self.breaker]
        if sorted(set(levels)) != levels:
            raise ValueError("breaker levels must rise: write the smallest drawdown first")
        if self.max_leverage is not None and self.max_leverage < self.max_position_size:
            raise ValueError(
                f"max_leverage={self.max_leverage} is below max_position_size={self.max_position_size}: no single "
                "position could ever reach its size"
            )
        return self


class DataConfig(Frozen):
    """Files of bars; without any the market is simulated."""

    files: dict[str, str] = Field(default_factory=dict)
    """Instrument -> CSV or Parquet file, as `troupe.envs.market.loading.load_bars` reads it."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Column -> file of a macro or alternative series."""
    extra_lag: float = Field(0.0, ge=0)
    """Seconds after their stamps at which those values were published."""
    extra_before: float | None = None
    """What bars before the first of those values show; null makes them an error."""
    zone: str = "UTC"
    """Time zone of stamps without one."""
    stamp: Literal["open", "close"] = "open"
    """What an intraday stamp stands for."""
    day_close: str = "24:00"
    """When a daily bar is known."""
    header: tuple[str, ...] | None = None
    """Names of the columns of files that have no line of names."""
    seconds: int | None = Field(None, gt=0)
    """How long a bar lasts; null takes the median distance of two stamps."""
    on_error: Literal["raise", "drop"] = "raise"
    """Bad rows are an error, or dropped and counted."""
    max_gap: float | None = Field(None, gt=0)
    """Longest gap between bars in seconds; a longer one is an error."""
    clock: str = "union"
    """Bars of all instruments, or of one: union, intersection, or an instrument's name."""
    resample: int | None = Field(None, gt=0)
    """Put bars together to ones of so many seconds."""
    min_bars: int = Field(250, ge=2)
    """Instruments with less history in common are left out, with a message."""


DocumentedScenario = Literal[
    "low_vol", "trending", "ranging", "high_vol", "crisis", "corr_breakdown", "sector_rotation", "macro"
]
"""The simulated markets of document 002."""

PLANTED_SCENARIOS = ("planted", "null", "rotation")
"""Markets whose optimum is known; they have no difficulty, and costs of their own."""


class SimulationConfig(Frozen):
    """A simulated market."""

    scenario: DocumentedScenario | Literal["mixed", "planted", "null", "rotation"] = "trending"
    """One of document 002's, or `mixed`, one of them drawn for each path (`troupe.envs.market.mixture`); or a market
    with a planted edge, or one without any (`troupe.envs.market.planted`), or one whose edge moves from sector to
    sector (`troupe.envs.market.rotation`)."""
    scenarios: tuple[DocumentedScenario, ...] = Field(get_args(DocumentedScenario), min_length=1)
    """Which ones are drawn from where the scenario is `mixed`."""
    difficulty: float = Field(1.0, ge=0, le=1)
    """Of the document's scenarios; the largest one that is drawn where the scenario is `mixed`."""
    paths: int = Field(16, ge=1)
    """Independent histories."""
    bars: int = Field(2000, ge=10)
    """Of each."""
    bar_seconds: int = Field(3600, ge=1)
    """Length of a bar."""
    seed: int = Field(0, ge=0)
    """Of the draw."""

    @model_validator(mode="after")
    def _fits(self) -> SimulationConfig:
        if len(set(self.scenarios)) < len(self.scenarios):
            raise ValueError("scenarios must be different: each is drawn with equal odds; write each name once")
        return self


class MarketConfig(Frozen):
    """A market: where its bars come from, what an agent sees of them, and the rules."""

    instruments: tuple[str, ...] = DOCUMENTED_INSTRUMENTS
    """What is traded."""
    account: str = "USD"
    """The account's currency."""
    costs: dict[str, dict[str, float | str]] = Field(default_factory=dict)
    """Instrument -> fields of `troupe.envs.market.instruments.Instrument` that differ from the table: half_spread,
    commission, impact, daily_value, swap_long, swap_short, margin; one of your own needs its sector and quote."""
    features: tuple[str, ...] = ("instruments", "market", "extra")
    """What an agent sees: all features of the instruments, of the market, extra columns; or single ones by name."""
    data: DataConfig = DataConfig()
    simulation: SimulationConfig = SimulationConfig()
    rules: MarketRules = MarketRules()


def sources_read_when(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of a market at the dotted `prefix` depend on where its bars come from."""

    def market(config: Any) -> Any:
        for name in prefix.split(".") if prefix else ():
            config = getattr(config, name)
        return config

    def key(name: str) -> str:
        return f"{prefix}.{name}" if prefix else name

    return (
        ReadWhen(
            tuple(key(f"data.{name}") for name in DataConfig.model_fields if name != "files"),
            lambda config: bool(market(config).data.files),
            f"is for {key('data.files')}; write the files, or leave it out",
        ),
        ReadWhen(
            (key("data.extra_lag"), key("data.extra_before")),
            lambda config: bool(market(config).data.extra) or not market(config).data.files,
            f"is for {key('data.extra')}; write a file there, too, or leave it out",
        ),
        ReadWhen(
            (key("simulation"),),
            lambda config: not market(config).data.files,
            f"is for a market without {key('data.files')}; leave one of the two out",
        ),
        ReadWhen(
            (key("simulation.difficulty"),),
            lambda config: market(config).simulation.scenario not in PLANTED_SCENARIOS,
            "is for the document's scenarios; leave it out",
        ),
        ReadWhen(
            (key("simulation.scenarios"),),
            lambda config: market(config).simulation.scenario == "mixed",
            f"is for {key('simulation.scenario')}=mixed; write that, or leave it out",
        ),
    )


def read_when(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of rules at the dotted `prefix` depend on others (see `troupe.config.ReadWhen`)."""

    def rules(config: object) -> MarketRules:
        for name in prefix.split(".") if prefix else ():
            config = getattr(config, name)
        assert isinstance(config, MarketRules)
        return config

    def key(name: str) -> str:
        return f"{prefix}.{name}" if prefix else name

    return (
        ReadWhen(
            (key("var_confidence"), key("var_method")),
            lambda config: rules(config).max_portfolio_var is not None,
            f"is for {key('max_portfolio_var')}; write that, too, or leave it out",
        ),
        ReadWhen(
            (key("var_draws"),),
            lambda config: rules(config).max_portfolio_var is not None and rules(config).var_method == "monte_carlo",
            f"is for {key('var_method')}=monte_carlo; write that, or leave it out",
        ),
    )
