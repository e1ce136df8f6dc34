"""A curriculum over markets: harder ones where the account earns, easier ones where it loses.

    curriculum = AdvancedCurriculumLearning(CurriculumConfig(), seed=0)
    drawn = curriculum.generate_scenario(curriculum.get_difficulty_level())
    bars = simulate(drawn.model(instruments), ...)           # costs times drawn.cost_scale
    curriculum.update_curriculum({"portfolio_reward": [0.2, 0.1, ...]})     # one number per episode that ended

The level in [0, 1] follows what was measured alone, never how long a run has lasted. It decides which of document 002's
scenarios are drawn, how much of each one's volatility, noise, crashes and changed correlations is there, and what
trading costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import ConfigDict, Field, field_validator, model_validator

from troupe.config import Frozen
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.simulator import SCENARIOS, MarketModel, Scenario, scenario, stationary
from troupe.errors import DataError, did_you_mean

__all__ = [
    "EASIEST_FIRST", "PERFORMANCE", "AdvancedCurriculumLearning", "CurriculumConfig", "TrainingScenario",
]  # fmt: skip

PERFORMANCE = "portfolio_reward"
"""Under which name `update_curriculum` finds a number for each episode that ended."""

_WIDTH = 0.25
"""A scenario's difficulty lies at most this far below the level."""


def _stands_out(row: Scenario) -> float:
    """How far a regime's drift stands out by its end, up to a factor that all scenarios share."""
    return abs(row.trend) * math.sqrt(row.length) / math.hypot(row.volatility, row.noise)


EASIEST_FIRST = tuple(sorted(SCENARIOS, key=lambda name: -_stands_out(SCENARIOS[name])))
"""The scenarios by |trend| sqrt(length) / sqrt(volatility^2 + noise^2): what a regime moves prices by, against what
they wander in it. Where that is large a trend can be seen in time to earn from it; where it is small nobody can."""


class CurriculumConfig(Frozen):
    """When the level moves, and what it means. Numbers of document 002 where it has them."""

    model_config = ConfigDict(allow_inf_nan=False)

    start: float = Field(0.0, ge=0, le=1)
    """Level at the beginning."""
    step: float = Field(0.1, gt=0, le=1)
    """By how much the level rises or falls."""
    min_episodes: int = Field(100, ge=2)
    """Episodes that a decision needs."""
    window: int = Field(50, ge=1)
    """Updates whose episodes are looked at; more where they hold fewer than `min_episodes`."""
    threshold: float = 0.1
    """Mean performance at or above which the level rises."""
    lower: float = 0.0
    """Mean performance significantly below which it falls."""
    max_error: float = Field(0.05, gt=0)
    """Standard error of the mean up to which it rises."""
    z: float = Field(1.645, ge=0)
    """Standard errors by which a mean must lie below `lower`; 1.645 is a one-sided test at 5 %."""
    easiest_cost: float = Field(0.25, ge=0, le=1)
    """Factor on all costs at level 0; 1 at level 1."""
    scenarios: tuple[str, ...] = Field(EASIEST_FIRST, min_length=1)
    """Which ones may be drawn."""

    @field_validator("scenarios")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in SCENARIOS:
                raise ValueError(f"there is no scenario {name!r}{did_you_mean(name, SCENARIOS)}")
        if len(set(names)) < len(names):
            raise ValueError(f"{list(names)} names a scenario twice; write each once")
        return names

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if not self.lower < self.threshold:
            raise ValueError(f"lower={self.lower} must be below threshold={self.threshold}")
        return self


@dataclass(frozen=True, slots=True)
class TrainingScenario:
    """A market to train on, in numbers: means over its regimes, weighted by how long they last.

    Volatility, trend and noise are in units of each instrument's normal volatility of a bar, and those of document
    002's eight instruments; `model` is the market itself, for any instruments.
    """

    name: str
    difficulty: float
    cost_scale: float
    """Factor on spread, commission, impact and financing."""
    volatility: float
    """That all instruments feel."""
    trend: float
    """Size of the expected return of a bar, up or down."""
    noise: float
    """Volatility that each instrument has for itself, on top."""
    correlation: float
    """Mean of all pairs, without `noise`."""
    crash: float
    """Probability per bar that prices jump."""

    @classmethod
    def of(cls, name: str, difficulty: float, cost_scale: float = 1.0) -> Self:
        """Raises ConfigError for an unknown name or a difficulty outside [0, 1]."""
        model = scenario(name, difficulty)
        shares, regimes = stationary(model.transitions), model.regimes

        def mean(values: Sequence[float]) -> float:
            return float(shares @ np.asarray(values, dtype=np.float64))

        return cls(
            name,
            float(difficulty),
            float(cost_scale),
            volatility=mean([regime.volatility for regime in regimes]),
            trend=mean([float(np.abs(regime.drift).mean()) for regime in regimes]),
            noise=mean([regime.noise for regime in regimes]),
            correlation=mean([_pairs(model.correlation if r.correlation is None else r.correlation) for r in regimes]),
            crash=mean([regime.jump_rate for regime in regimes]),
        )

    def model(self, instruments: Sequence[Instrument] | None = None) -> MarketModel:
        """What `troupe.envs.market.simulator.simulate` draws from; of document 002's instruments unless others are
        given. Raises ConfigError for `sector_rotation` of one sector."""
        return scenario(self.name, self.difficulty, instruments)


class AdvancedCurriculumLearning:
    """The level, what is measured at it, and the scenarios that are drawn at it, with a generator of its own.

    A change of level begins a new window: results in another market say nothing about this one.
    """

    def __init__(self, config: CurriculumConfig | None = None, *, seed: int = 0) -> None:
        self.config = config or CurriculumConfig()
        self.step = 0
        self._changes = [(0, self.config.start)]
        self._window: list[np.ndarray] = []
        self._generator = np.random.default_rng(seed)
        self._names = [name for name in EASIEST_FIRST if name in self.config.scenarios]

    @property
    def level(self) -> float:
        """The level now."""
        return self._changes[-1][1]

    def get_difficulty_level(self, training_step: int | None = None) -> float:
        """The level now, or that which held from the update at `training_step` on, in the steps of `update_curriculum`.
        Raises DataError for a step that is not reached: performance will decide."""
        if training_step is None:
            return self.level
        if not 0 <= training_step <= self.step:
            raise DataError(
                f"the difficulty at step {training_step} follows from performance that nobody has measured; the steps "
                f"known are 0 to {self.step}"
            )
        return next(level for step, level in reversed(self._changes) if step <= training_step)

    def allowed(self, level: float) -> tuple[str, ...]:
        """The scenarios that are drawn at a level: the two easiest at 0, all at 1, in equal steps between."""
        first = min(2, len(self._names))
        return tuple(self._names[: first + int(level * (len(self._names) - first) + 1e-9)])

    def generate_scenario(self, difficulty_level: float) -> TrainingScenario:
        """One of the allowed scenarios at random, its difficulty uniform in the quarter below the level. Each call
        draws anew. Raises DataError for a level outside [0, 1]."""
        if not 0.0 <= difficulty_level <= 1.0:
            raise DataError(f"a difficulty level of {difficulty_level} does not exist; write one between 0 and 1")
        names = self.allowed(difficulty_level)
        name = names[int(self._generator.integers(len(names)))]
        difficulty = self._generator.uniform(max(0.0, difficulty_level - _WIDTH), difficulty_level)
        easiest = self.config.easiest_cost
        return TrainingScenario.of(name, difficulty, easiest + (1.0 - easiest) * difficulty_level)

    def update_curriculum(
        self, performance_metrics: Mapping[str, float | Sequence[float] | np.ndarray], training_step: int | None = None
    ) -> float:
        """Takes the performance of the episodes that ended since the last call, and returns the level from here on.

        `performance_metrics[PERFORMANCE]` has one number per episode, none where none ended; a lone number is one
        episode's. The level rises by `step` where their mean is at or above `threshold` and its standard error at most
        `max_error`; it falls where the mean lies below `lower` by `z` standard errors. `training_step` is the caller's
        count, and rises; by default the calls are counted. Raises DataError where the metric is missing or no number,
        and for a step that does not rise.
        """
        episodes, step = self._episodes(performance_metrics), self._next(training_step)
        self.step = step
        self._window.append(episodes)
        self._forget()
        mean, error, count = self._measured()
        if count < self.config.min_episodes:
            return self.level
        if mean >= self.config.threshold and error <= self.config.max_error:
            self._move(self.config.step)
        elif mean + self.config.z * error < self.config.lower:
            self._move(-self.config.step)
        return self.level

    def metrics(self) -> dict[str, float]:
        """Level, episodes of the window, and their mean where there are any."""
        mean, _, count = self._measured()
        found = {"curriculum/level": self.level, "curriculum/episodes": float(count)}
        return found | ({"curriculum/performance": mean} if count else {})

    def state_dict(self) -> dict[str, Any]:
        """Step, changes of level, window and generator."""
        return {
            "step": self.step,
            "changes": [list(change) for change in self._changes],
            "window": [episodes.tolist() for episodes in self._window],
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the state was taken."""
        self.step = int(state["step"])
        self._changes = [(int(step), float(level)) for step, level in state["changes"]]
        self._window = [np.asarray(episodes, dtype=np.float64) for episodes in state["window"]]
        self._generator.bit_generator.state = state["generator"]

    def _episodes(self, metrics: Mapping[str, Any]) -> np.ndarray:
        name = PERFORMANCE
        if name not in metrics:
            raise DataError(
                f"the performance metrics lack {name!r}{did_you_mean(name, metrics)}; the curriculum reads it"
            )
        found = np.atleast_1d(np.asarray(metrics[name], dtype=np.float64))
        if found.ndim != 1 or not np.isfinite(found).all():
            raise DataError(
                f"{name!r} must hold one finite number for each episode that ended, found {metrics[name]!r}"
            )
        return found

    def _next(self, training_step: int | None) -> int:
        if training_step is not None and training_step <= self.step:
            raise DataError(f"the curriculum is at step {self.step} and is given step {training_step}; steps must rise")
        return self.step + 1 if training_step is None else int(training_step)

    def _forget(self) -> None:
        """Drops the oldest updates beyond the window, as long as the rest hold enough episodes."""
        kept = sum(map(len, self._window))
        while len(self._window) > self.config.window:
            oldest = len(self._window[0])
            if oldest and kept - oldest < self.config.min_episodes:
                break
            kept -= oldest
            del self._window[0]

    def _measured(self) -> tuple[float, float, int]:
        """Mean of the window, its standard error, and how many episodes that is."""
        found = np.concatenate(self._window) if self._window else np.empty(0)
        if len(found) < 2:
            return float(found.mean()) if len(found) else math.nan, math.inf, len(found)
        return float(found.mean()), float(found.std(ddof=1)) / math.sqrt(len(found)), len(found)

    def _move(self, by: float) -> None:
        level = round(min(max(self.level + by, 0.0), 1.0), 12)  # tenths add up to 1
        if level != self.level:
            self._changes.append((self.step, level))
            self._window = []


def _pairs(correlation: float | Sequence[Sequence[float]]) -> float:
    """Mean correlation of the pairs."""
    matrix = np.asarray(correlation, dtype=np.float64)
    return float(matrix if matrix.ndim == 0 else matrix[np.triu_indices(len(matrix), 1)].mean())
