"""Markets as Gymnasium environments (Towers et al. 2024, arXiv:2407.17032), at document 002's three granularities.

    import troupe.envs.market.faces                  # registers troupe/Market-v0
    env = gymnasium.make("troupe/Market-v0", env_config={"instruments": ["EURUSD", "XAUUSD"], "max_leverage": 0.15})
    envs = gymnasium.make_vec("troupe/Market-v0", num_envs=8)
    env = JointTrainingEnv({"max_portfolio_var": 0.02, "curriculum_learning": True})
    envs = JointTrainingEnv.vector(256, {...})       # the same as arrays, for PPO: much faster than 256 Envs

"troupe.envs.market.faces:troupe/Market-v0" names the environment in Gymnasium's own syntax and needs no import before.
The keys of `env_config` stand in `troupe.envs.market.env_config`. Held-out bars, with a normaliser of the training rows
alone, come in through `market=`:

    MarketEnv(market=MarketVector(market.between(start, stop).core(market.fitted(start)), 1))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from troupe.envs.market.env_config import MarketEnvConfig, core_of, read_env_config
from troupe.envs.market.hierarchy import Specialist, joint_vector, meta_vector, sectors_of
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "ENV_ID",
    "JointTrainingEnv",
    "MarketEnv",
    "MarketVectorEnv",
    "MetaControllerTrainingEnv",
    "SpecialistEnv",
    "register_market",
]

ENV_ID = "troupe/Market-v0"

EnvMapping = Mapping[str, Any] | None


def register_market() -> None:
    """Tells Gymnasium about `troupe/Market-v0`; a second call changes nothing. Importing this module calls it."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, f"{__name__}:MarketEnv", vector_entry_point=f"{__name__}:MarketVectorEnv")


# ---------------------------------------------------------------------------------------------- one account


class MarketEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One account; an action is a weight in [-1, 1] per instrument, in units of `max_position_size`.

    `reset(seed=...)` repeats itself; without `options={"row": number of a bar}` the episode begins at a random bar.
    The infos hold `row`, `equity` and, after a step, `cost` and `turnover` as shares of the equity before, and in
    `fired` which limits acted. Raises ConfigError, DataError for a market that there is none of.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]  # nobody assigns it

    def __init__(self, env_config: EnvMapping = None, *, market: MarketVector | None = None) -> None:
        _only_one(env_config is not None, market)
        self.market = self.vector(1, env_config) if market is None else market
        if self.market.num_envs != 1:
            raise ConfigError(f"market has {self.market.num_envs} accounts, an Env one; make a MarketVectorEnv of it")
        self.instruments = self.market.core.instruments
        self.observation_space = self.market.single_observation_space
        self.action_space = self.market.single_action_space
        self._is_over = False

    @classmethod
    def vector(cls, num_envs: int, env_config: EnvMapping = None) -> MarketVector:
        """n accounts of this kind as arrays, a `troupe.protocols.BatchEnv`."""
        config = read_env_config(env_config, cls.__name__)
        return MarketVector(core_of(config), num_envs, config.reward)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Raises ConfigError for an option that there is none of, DataError for a row where no episode can begin."""
        super().reset(seed=seed)
        row = _options(self.market, options, ("row",)).get("row")
        observations = self.market.reset(self.np_random) if row is None else self.market.place(row)
        self._is_over = False
        state = self.market.state
        return observations[0], {"row": int(state.row[0]), "equity": float(state.equity[0])}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One bar. Raises DataError after the end of an episode, and for actions that `MarketCore.step` refuses."""
        if self._is_over:
            raise DataError("the episode is over; call reset before the next step")
        observations, rewards, terminated, truncated = self.market.step(np.asarray(action)[None])
        state, outcome = self.market.state, self.market.outcome
        assert outcome is not None
        info = {
            "row": int(state.row[0]), "equity": float(state.equity[0]), "cost": float(outcome.cost[0]),
            "turnover": float(outcome.turnover[0]),
            "fired": {name: bool(acted[0]) for name, acted in outcome.fired.items()},
        }  # fmt: skip
        self._is_over = bool(terminated[0] or truncated[0])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info


class SpecialistEnv(MarketEnv):
    """Phase 1: one `instrument`, or the `instruments` of one specialist; a weight for each. Raises ConfigError where
    neither is written."""

    @classmethod
    def vector(cls, num_envs: int, env_config: EnvMapping = None) -> MarketVector:
        config = read_env_config(env_config, cls.__name__)
        if config.instrument is None and config.instruments is None:
            raise ConfigError("env_config: instrument: is required; write what the specialist trades, such as EURUSD")
        return MarketVector(core_of(config), num_envs, config.reward)


class MetaControllerTrainingEnv(MarketEnv):
    """Phase 2: S logits of an allocation and a risk appetite (see `hierarchy.allocate`), over the signals of
    `specialists`, sector -> Specialist; without any every instrument is wanted long. `sectors` names the logits."""

    def __init__(self, env_config: EnvMapping = None, specialists: Mapping[str, Specialist] | None = None) -> None:
        super().__init__(market=self.vector(1, env_config, specialists))
        self.sectors = sectors_of(self.market.core.tape.instruments)

    @classmethod
    def vector(
        cls, num_envs: int, env_config: EnvMapping = None, specialists: Mapping[str, Specialist] | None = None
    ) -> MarketVector:
        config = read_env_config(env_config, cls.__name__)
        return meta_vector(
            core_of(config), num_envs, config.reward, specialists=specialists, scale=config.allocation_scale
        )


class JointTrainingEnv(MarketEnv):
    """Phase 3: S logits, a risk appetite and a signal per instrument. `gradient_coordination` and `curriculum_learning`
    are what `env_config` asked of whoever trains."""

    def __init__(self, env_config: EnvMapping = None) -> None:
        super().__init__(market=self.vector(1, env_config))
        config = self.read(env_config)
        self.gradient_coordination = config.gradient_coordination
        self.curriculum_learning = config.curriculum_learning
        self.sectors = sectors_of(self.market.core.tape.instruments)

    @classmethod
    def read(cls, env_config: EnvMapping = None) -> MarketEnvConfig:
        """The config, for a trainer of `vector`."""
        return read_env_config(env_config, cls.__name__)

    @classmethod
    def vector(cls, num_envs: int, env_config: EnvMapping = None) -> MarketVector:
        config = cls.read(env_config)
        return joint_vector(core_of(config), num_envs, config.reward, scale=config.allocation_scale)


# ---------------------------------------------------------------------------------------------- many accounts


class MarketVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N accounts; any kind through `market`, as in `MarketVectorEnv(market=JointTrainingEnv.vector(8, {...}))`.

    As Gymnasium's own vectors by default, the step after an episode's last one ignores its action and begins the next
    (AutoresetMode.NEXT_STEP). One generator draws all starts: `seed` is a number or a list of N. Options: `row`, a bar
    or `[N]`, or `reset_mask`, bool `[N]`. Infos are those of `MarketEnv` as arrays, with Gymnasium's masks.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP,
    }  # fmt: skip

    def __init__(
        self, num_envs: int | None = None, env_config: EnvMapping = None, *, market: MarketVector | None = None
    ) -> None:
        _only_one(num_envs is not None or env_config is not None, market)
        self.market = MarketEnv.vector(1 if num_envs is None else num_envs, env_config) if market is None else market
        self.num_envs = self.market.num_envs
        self.instruments = self.market.core.instruments
        self.single_observation_space = self.market.single_observation_space
        self.single_action_space = self.market.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None  # type: ignore[override]
    ) -> tuple[np.ndarray, dict[str, Any]]:  # fmt: skip
        """Raises ConfigError for an option or a list of seeds that does not fit, DataError for a row where no episode
        can begin."""
        self._seed(seed)
        chosen = _options(self.market, options, ("row", "reset_mask"))
        if len(chosen) == 2:
            raise ConfigError("options has row and reset_mask; a row begins all accounts, so write one of the two")
        where = chosen.get("reset_mask", np.ones(self.num_envs, dtype=bool))
        if "row" in chosen:
            observations = self.market.place(chosen["row"])
        else:
            observations = self.market.reset(self.np_random, where if "reset_mask" in chosen else None)
        self._ended = self._ended & ~where
        return observations, self._standing(where)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:  # fmt: skip
        """One bar. Raises DataError for actions that `MarketCore.step` refuses."""
        if not self._ended.any():
            observations, rewards, terminated, truncated = self.market.step(np.asarray(actions))
        else:
            observations, rewards, terminated, truncated = self._step_around(np.asarray(actions), self._ended)
        infos = self._infos(~self._ended)
        self._ended = terminated | truncated
        return observations, rewards, terminated, truncated, infos

    def _step_around(self, actions: np.ndarray, ended: np.ndarray) -> tuple[np.ndarray, ...]:
        """One bar for those whose episodes go on, a beginning for those that `ended`: these stand anywhere in the bar
        that is taken, and what it does to them is undone."""
        market = self.market
        market.reset(np.random.default_rng(0), ended)
        if actions.ndim == 2:
            actions = np.where(ended[:, None], 0.0, actions)
        _, rewards, terminated, truncated = market.step(actions)
        assert market.outcome is not None
        for name, acted in market.outcome.fired.items():
            market.fired[name] -= int(np.count_nonzero(acted & ended))
        market.steps -= int(np.count_nonzero(ended))
        observations = market.reset(self.np_random, ended)
        return observations, np.where(ended, 0.0, rewards), terminated & ~ended, truncated & ~ended

    def _seed(self, seed: int | list[int] | None) -> None:
        if seed is None or isinstance(seed, int | np.integer):
            super().reset(seed=None if seed is None else int(seed))
        elif len(seed) == self.num_envs and all(isinstance(each, int | np.integer) for each in seed):
            self.np_random = np.random.default_rng(list(map(int, seed)))
        else:
            raise ConfigError(f"seed must be one integer, or a list of num_envs={self.num_envs} integers")

    def _standing(self, where: np.ndarray) -> dict[str, Any]:
        state = self.market.state  # a copy of it, as a reader may write on what it gets
        return {"row": state.row.copy(), "_row": where.copy(), "equity": state.equity.copy(), "_equity": where.copy()}

    def _infos(self, moved: np.ndarray) -> dict[str, Any]:
        """Where accounts stand, and what the bar brought those that `moved`."""
        outcome = self.market.outcome
        assert outcome is not None
        infos = self._standing(np.ones(self.num_envs, dtype=bool))
        infos |= {"cost": np.where(moved, outcome.cost, 0.0), "_cost": moved.copy()}
        infos |= {"turnover": np.where(moved, outcome.turnover, 0.0), "_turnover": moved.copy()}
        fired = {name: acted & moved for name, acted in outcome.fired.items()}
        infos |= {"fired": fired | {f"_{name}": moved.copy() for name in fired}, "_fired": moved.copy()}
        return infos


def _only_one(is_described: bool, market: MarketVector | None) -> None:
    if market is None:
        return
    if is_described:
        raise ConfigError("market brings its accounts and rules along; leave num_envs and env_config out")
    if not isinstance(market.core.tape.close, np.ndarray):
        raise ConfigError("Gymnasium's faces trade NumPy arrays; for tensors step the MarketVector itself")


def _options(market: MarketVector, options: Mapping[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """The options of a reset as arrays."""
    found: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if name not in known:
            raise ConfigError(f"reset has no option {name!r}{did_you_mean(name, known)}; it has {' and '.join(known)}")
        array, kind, meant = np.asarray(value), *_OPTIONS[name]
        if not np.issubdtype(array.dtype, kind) or array.shape not in ((), (market.num_envs,)):
            raise ConfigError(f"options['{name}'] must be {meant}, or one of them per account")
        found[name] = np.broadcast_to(array, (market.num_envs,))
    rows, last = found.get("row"), len(market.core.tape) - 1
    if rows is not None and ((rows < 0) | (rows > last)).any():
        raise DataError(f"options['row'] must lie between 0 and {last}, the rows of the market")
    return found


_OPTIONS: dict[str, tuple[type, str]] = {"row": (np.integer, "an integer"), "reset_mask": (np.bool_, "true or false")}


register_market()
