"""What a collector can step: N environments side by side, whichever way they come.

    envs = GymnasiumEnvs.make("CartPole-v1", 8)     # any id that Gymnasium knows
    stepper(envs)                                   # the same face for these, a BatchEnv, and a Gymnasium VectorEnv

Vector environments differ in when a new episode begins after one has ended (Gymnasium's three autoreset modes). A
stepper hides that: `observations` are those to act on next, `final` those of the states in which episodes were cut off,
and `taken` is False where a step only began an episode, so that its action was never carried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from troupe.errors import ConfigError, DataError
from troupe.protocols import BatchEnv

__all__ = ["GymnasiumEnvs", "Stepped", "Stepper", "environments", "stepper"]

REPLAY_LIMIT = 200_000
"""Steps of an episode that are remembered for a resume; a longer one cannot be resumed exactly."""

_SEEDS = 2**31


class Stepped(NamedTuple):
    """What one step of N environments brought. Arrays are NumPy's, or torch's where the environment computes in it."""

    observations: Any  # [N, ...]: to act on next
    rewards: Any  # [N]
    terminated: Any  # bool [N]
    truncated: Any  # bool [N]
    final: Any | None  # [K, ...]: the states reached by the K truncated steps, where `observations` shows later ones
    taken: Any | None  # bool [N]: whether the action was carried out; None: all were


class Stepper(Protocol):
    """One face for environments that reset in different ways."""

    env: Any
    resumes: bool  # whether `state_dict` holds all that matters

    def reset(self, generator: np.random.Generator) -> Any: ...

    def step(self, actions: Any, generator: np.random.Generator) -> Stepped: ...

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


def stepper(env: Any) -> Stepper:
    """The stepper of a BatchEnv or of a Gymnasium VectorEnv. Raises ConfigError for anything else."""
    if _is_vector_env(env):
        mode = getattr(env.metadata.get("autoreset_mode"), "value", None)
        if mode not in _MODES:
            raise ConfigError(
                f"{env} does not say in metadata['autoreset_mode'] when it begins new episodes; write one of "
                "gymnasium.vector.AutoresetMode there"
            )
        return _MODES[mode](env)
    if isinstance(env, BatchEnv):
        return _ArrayStepper(env)
    raise ConfigError(
        f"a {type(env).__name__} cannot be collected from; give a BatchEnv or a gymnasium.vector.VectorEnv, such as "
        "gymnasium.make_vec makes them"
    )


def _is_vector_env(env: Any) -> bool:
    try:
        from gymnasium.vector import VectorEnv
    except ImportError:
        return False
    return isinstance(env, VectorEnv)


# ---------------------------------------------------------------------------------------------- steppers


class _ArrayStepper:
    """A BatchEnv: it is reset here, where episodes ended."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.resumes = hasattr(env, "state_dict") and hasattr(env, "load_state_dict")

    def reset(self, generator: np.random.Generator) -> Any:
        return self.env.reset(generator)

    def step(self, actions: Any, generator: np.random.Generator) -> Stepped:
        observations, rewards, terminated, truncated = self.env.step(actions)
        ended, final = terminated | truncated, None
        if ended.any():
            final = observations[truncated]
            observations = self.env.reset(generator, ended)
        return Stepped(observations, rewards, terminated, truncated, final, None)

    def state_dict(self) -> Any:
        return self.env.state_dict() if self.resumes else None

    def load_state_dict(self, state: Any) -> Any:
        return self.env.load_state_dict(state)


class _NoReset(_ArrayStepper):
    """A VectorEnv with AutoresetMode.DISABLED."""

    def __init__(self, env: Any) -> None:
        self.env, self.resumes = env, False

    def reset(self, generator: np.random.Generator) -> Any:
        return self.env.reset(seed=_seeds(generator, self.env.num_envs))[0]

    def step(self, actions: Any, generator: np.random.Generator) -> Stepped:
        observations, rewards, terminated, truncated, _ = self.env.step(actions)
        ended, final = terminated | truncated, None
        if ended.any():
            final = observations[truncated]
            seeds = _seeds(generator, self.env.num_envs)
            observations, _ = self.env.reset(seed=seeds, options={"reset_mask": ended})
        return Stepped(observations, rewards, terminated, truncated, final, None)


class _SameStep(_NoReset):
    """AutoresetMode.SAME_STEP: the last observation of an ended episode stands in the infos."""

    def step(self, actions: Any, generator: np.random.Generator) -> Stepped:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        final = None
        if truncated.any():
            final = np.stack([infos["final_obs"][i] for i in np.flatnonzero(truncated)])
        return Stepped(observations, rewards, terminated, truncated, final, None)


class _NextStep(_NoReset):
    """AutoresetMode.NEXT_STEP: the step after an episode's last one ignores its action and begins the next."""

    def reset(self, generator: np.random.Generator) -> Any:
        self._ended = np.zeros(self.env.num_envs, dtype=bool)
        return super().reset(generator)

    def step(self, actions: Any, generator: np.random.Generator) -> Stepped:
        observations, rewards, terminated, truncated, _ = self.env.step(actions)
        taken = ~self._ended
        self._ended = terminated | truncated
        return Stepped(observations, rewards, terminated, truncated, None, taken)


_MODES: dict[str, type[_NoReset]] = {"Disabled": _NoReset, "SameStep": _SameStep, "NextStep": _NextStep}


def _seeds(generator: np.random.Generator, n: int) -> list[int]:
    return generator.integers(_SEEDS, size=n).tolist()


# ---------------------------------------------------------------------------------------------- Gymnasium


class GymnasiumEnvs:
    """Gymnasium environments as a BatchEnv, stepped one after the other with little in between.

    Every episode has a seed of its own. A resume begins the open episodes again from their seeds and repeats the
    actions that were taken since, which is exact for environments that depend on seed and actions alone; whoever loads
    compares the observations. No object of an environment is stored.
    """

    def __init__(self, envs: Sequence[Any]) -> None:
        self.envs = list(envs)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self._observations = [None] * len(self.envs)
        self._seeds = [0] * len(self.envs)
        self._begun = [0] * len(self.envs)  # steps of `_actions` that are older than the episode
        self._actions: list[np.ndarray] = []

    @classmethod
    def make(cls, name: str, n: int, **arguments: Any) -> GymnasiumEnvs:
        """n environments of `gymnasium.make(name, **arguments)`. Raises ConfigError for a name or argument that
        Gymnasium does not take, MissingExtra where what the environment needs is not installed."""
        return cls([_made(name, arguments) for _ in range(n)])

    @property
    def num_envs(self) -> int:
        return len(self.envs)

    def reset(self, generator: np.random.Generator, where: np.ndarray | None = None) -> np.ndarray:
        for i in range(self.num_envs) if where is None else np.flatnonzero(where).tolist():
            self._seeds[i] = int(generator.integers(_SEEDS))
            self._begun[i] = len(self._actions)
            self._observations[i], _ = self.envs[i].reset(seed=self._seeds[i])
        if len(self._actions) > 4096:
            self._forget()
        return np.array(self._observations)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        self._actions.append(actions)
        found = [env.step(action) for env, action in zip(self.envs, actions, strict=True)]
        observations, rewards, terminated, truncated, _ = zip(*found, strict=True)
        self._observations[:] = observations
        return np.array(observations), np.array(rewards), np.array(terminated), np.array(truncated)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _forget(self) -> None:
        """Actions that no open episode needs."""
        done = max(min(self._begun), len(self._actions) - REPLAY_LIMIT)
        del self._actions[:done]
        self._begun = [max(0, begun - done) for begun in self._begun]

    def state_dict(self) -> dict[str, Any]:
        self._forget()
        actions = np.stack(self._actions) if self._actions else np.zeros((0, self.num_envs), dtype=np.int64)
        return {"seeds": list(self._seeds), "begun": list(self._begun), "actions": actions}

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Raises DataError where another number of environments was stored."""
        if len(state["seeds"]) != self.num_envs:
            raise DataError(f"the state is that of {len(state['seeds'])} environments, and there are {self.num_envs}")
        self._seeds, self._begun, self._actions = state["seeds"], state["begun"], list(state["actions"])
        for i, env in enumerate(self.envs):
            self._observations[i], _ = env.reset(seed=self._seeds[i])
            for actions in self._actions[self._begun[i] :]:
                self._observations[i], *_ = env.step(actions[i])
        return np.array(self._observations)


def environments(name: str, n: int, **arguments: Any) -> Any:
    """n environments of a Gymnasium id. Where the environment's class makes its own batch, by a classmethod
    `vector(num_envs, **arguments)` that returns a BatchEnv, that one is stepped: a single call for all of them.

    Raises as `GymnasiumEnvs.make`."""
    first = _made(name, arguments)
    vector = getattr(type(first.unwrapped), "vector", None)
    first.close()
    return GymnasiumEnvs.make(name, n, **arguments) if vector is None else vector(n, **arguments)


def _made(name: str, arguments: Mapping[str, Any]) -> Any:
    import gymnasium

    try:
        return gymnasium.make(name, disable_env_checker=True, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(f"the environment {name!r} needs a package that is not installed: {error}") from error
    except (gymnasium.error.Error, TypeError, ModuleNotFoundError) as error:
        raise ConfigError(f"Gymnasium does not make the environment {name!r}: {str(error).rstrip('.')}") from error
