"""N accounts as `troupe.protocols.BatchEnv`: random starts, rewards, restarts where somebody says so.

env = MarketVector(core, 256, RewardRules(kind="differential_sharpe"))
observations = env.reset(generator)
observations, rewards, terminated, truncated = env.step(actions)
observations = env.reset(generator, terminated | truncated)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from troupe.envs.market.core import MarketCore, MarketState, Outcome
from troupe.envs.market.ledger import Book
from troupe.envs.market.rewards import Bar, RewardRules, RewardState, begin_reward, pay
from troupe.errors import ConfigError, DataError

__all__ = ["MarketVector", "typical_square"]

Translate = Callable[[MarketCore, MarketState, Any], Any]
"""An agent's actions to those of the core, `[N, M]`: how an allocator trades through somebody else's signals."""


class MarketVector:
    """Episodes of a market core side by side. Each starts at a bar drawn from the rows that `core.starts` allows, so
    that N environments are N different stretches. `Outcome`s of the last step are kept in `outcome` for whoever
    watches; violations of limits are counted in `fired`. Raises ConfigError for a reward that the market cannot pay.
    """

    def __init__(
        self,
        core: MarketCore,
        num_envs: int,
        reward: RewardRules | None = None,
        *,
        translate: Translate | None = None,
        actions: int | None = None,
        starts: np.ndarray | None = None,
    ) -> None:
        if num_envs < 1:
            raise DataError(f"num_envs={num_envs}: write 1 or more")
        if (translate is None) != (actions is None):
            raise DataError("translate and actions belong together: what is translated, and how many numbers that are")
        self.core, self.num_envs = core, num_envs
        self.reward = RewardRules() if reward is None else reward
        self.starts = core.starts if starts is None else np.asarray(starts, dtype=np.int64)
        if not len(self.starts):
            raise DataError("no episode can start: the bars end within the warm-up")
        self.action_size = len(core.instruments) if actions is None else actions
        self.fired: dict[str, int] = {}
        self.steps = 0
        self.outcome: Outcome | None = None
        self._translate = translate
        self._typical = typical_square(core)
        self._sums = _sector_sums(core, self.reward)
        self._state: MarketState | None = None
        self._moments: RewardState | None = None

    @property
    def single_observation_space(self) -> Any:
        from gymnasium.spaces import Box

        return Box(-np.inf, np.inf, (self.core.observation_size,), np.float32)

    @property
    def single_action_space(self) -> Any:
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (self.action_size,), np.float32)

    @property
    def state(self) -> MarketState:
        """Of the accounts. Raises DataError before the first reset."""
        if self._state is None:
            raise DataError("the market was not reset; call reset first")
        return self._state

    def reset(self, generator: np.random.Generator, where: Any | None = None) -> Any:
        """Begins episodes at random bars in all places, or in those of `where` bool `[N]`; observations of all."""
        core = self.core
        places = np.arange(self.num_envs) if where is None else np.flatnonzero(_numpy(where))
        rows = np.full(self.num_envs, self.starts[0])
        rows[places] = self.starts[generator.integers(0, len(self.starts), len(places))]
        fresh = core.begin(rows)
        moments = begin_reward(core.xp, self._typical, fresh.equity)
        if where is None or self._state is None or self._moments is None:
            self._state, self._moments = fresh, moments
        else:
            where = core.xp.asarray(where, device=core.tape.close.device)
            self._state = core.merge(self._state, where, fresh)
            pairs = zip(moments, self._moments, strict=True)
            self._moments = RewardState(*(core.xp.where(where, new, old) for new, old in pairs))
        return core.observe(self._state)

    def place(self, rows: np.ndarray) -> Any:
        """Begins every account at the given row, for an evaluation; observations."""
        self._state = self.core.begin(rows)
        self._moments = begin_reward(self.core.xp, self._typical, self._state.equity)
        return self.core.observe(self._state)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        """One bar. Places whose episodes ended must be reset before the next step."""
        core, state = self.core, self.state
        if self._translate is not None:
            actions = self._translate(core, state, actions)
        self._state, outcome = core.step(state, actions, detail=self.reward.kind == "portfolio")
        assert self._moments is not None
        rewards, self._moments = pay(core.xp, self.reward, self._moments, self._bar(state, outcome))
        self._count(outcome)
        return core.observe(self._state), rewards, outcome.terminated, outcome.truncated

    def _bar(self, before: MarketState, outcome: Outcome) -> Bar:
        """What the reward looks at, and no more: the rest takes time."""
        if self.reward.kind != "portfolio":
            return Bar(outcome.gain)
        core, equity = self.core, before.equity[:, None]
        held = core.xp.abs(core.weights(self.state)) @ self._sums
        return Bar(
            outcome.gain, outcome.profit @ self._sums / equity, outcome.charges @ self._sums / equity, held,
            before.equity, before.peak, core.tape.periods_per_year,
        )  # fmt: skip

    def _count(self, outcome: Outcome) -> None:
        for name, acted in outcome.fired.items():
            self.fired[name] = self.fired.get(name, 0) + int(self.core.xp.count_nonzero(acted))
        self.steps += self.num_envs
        self.outcome = outcome

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        state = self.state
        assert self._moments is not None
        rest = {name: value for name, value in state._asdict().items() if name != "book"}
        return {
            "book": dict(state.book._asdict()), "rest": rest, "moments": dict(self._moments._asdict()),
            "fired": dict(self.fired), "steps": self.steps,
        }  # fmt: skip

    def load_state_dict(self, stored: Mapping[str, Any]) -> Any:
        """Continues from a stored state; its observations. Raises DataError where it is of another market."""
        rows = _numpy(stored["rest"]["row"])
        if len(rows) != self.num_envs or rows.max(initial=0) >= len(self.core.tape):
            raise DataError("the stored market state is of other bars or of another number of environments")
        self._state = MarketState(book=Book(**self._arrays(stored["book"])), **self._arrays(stored["rest"]))
        self._moments = RewardState(**self._arrays(stored["moments"]))
        self.fired, self.steps = dict(stored["fired"]), int(stored["steps"])
        return self.core.observe(self._state)

    def _arrays(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Where the market lies."""
        place = self.core.tape.close.device
        return {name: self.core.xp.asarray(_numpy(value), device=place) for name, value in stored.items()}


def _numpy(array: Any) -> np.ndarray:
    """Wherever it lies."""
    return array.cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)


def _sector_sums(core: MarketCore, reward: RewardRules) -> Any:
    """float64 `[M, S]`: 1 where the instrument is of the sector."""
    named = [instrument.sector for instrument in core.tape.instruments]
    sectors = list(dict.fromkeys(named))
    weight = reward.diversification_bonus_weight
    if reward.kind == "portfolio" and weight and len(sectors) == 1:
        raise ConfigError(
            f"reward.diversification_bonus_weight={weight} needs two sectors or more, and all that is traded is of "
            f"{sectors[0]}; write 0"
        )
    table = [[float(sector == each) for each in sectors] for sector in named]
    return core.xp.asarray(np.array(table), device=core.tape.close.device)


def typical_square(core: MarketCore) -> float:
    """Mean squared return of equal positions of the largest size, up to the first rows where episodes start and at
    least 50 bars of each path: a scale for moving moments, taken from what lies before."""
    tape, squares = core.tape, []
    for first, last in zip(tape.first, tape.last, strict=True):
        stop = min(last + 1, first + max(50, core.rules.warmup_steps))
        closes = _numpy(tape.close[first:stop])
        returns = (closes[1:] / closes[:-1] - 1.0).mean(1) * core.rules.max_position_size
        squares.append(float((returns**2).mean()))
    return max(float(np.mean(squares)), 1e-12)
