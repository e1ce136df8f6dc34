"""Environments to a Batch: vectorised collection for policies that act at every step.

    collector = Collector(GymnasiumEnvs.make("CartPole-v1", 8), n_steps=256, gamma=0.99, gae_lambda=0.95, seed=0)
    net = ActorCritic(ActorCriticConfig(), collector.observation_shape, collector.space, seed=0)
    batch = collector.collect(net)  # [8, 256], advantages and returns included

Legend: N environments (rows of the batch), T steps. `terminated` and `truncated` stay apart: an episode that was cut
off is worth the value of the state it reached, before any reset; one that ended is worth nothing more. Episodes go on
from one rollout to the next, so that they may be longer than T.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from troupe.batch import Batch
from troupe.errors import ConfigError, DataError
from troupe.maths.advantages import gae
from troupe.models.actions import Box, Discrete, Space, space_of
from troupe.training.normalization import ObservationScale, ReturnScale
from troupe.training.vector_envs import Stepped, stepper

__all__ = ["Acting", "Collector", "Episodes", "as_inputs", "play_episodes"]

log = logging.getLogger(__name__)


class Acting(Protocol):
    """Who is collected from; `ActorCritic` is one."""

    def act(self, observations: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """(actions `[n]` or `[n, A]`, log-probs `[n]`, values `[n]`); without a generator the likeliest actions.
        Log-probs and values of K agents that act together are `[n, K]`."""
        ...

    def values(self, observations: Tensor) -> Tensor:
        """`[n]` or `[n, K]`."""
        ...


class Episodes(NamedTuple):
    """Episodes that ended: undiscounted returns (rewards as the environment pays them) and lengths."""

    returns: np.ndarray  # float64 [E]
    lengths: np.ndarray  # int64 [E]


@dataclass(frozen=True)
class _Moment:
    """One step of all environments."""

    inputs: Tensor
    acted: tuple[Tensor, Tensor, Tensor]
    stepped: Stepped
    final: Tensor | None


class Collector:
    """Steps environments with a policy and returns rollouts of `n_steps` steps each.

    `envs` is a BatchEnv or a Gymnasium VectorEnv with any autoreset mode; no transition that crosses a reset enters the
    batch. All randomness follows from `seed`. `carry=False` begins every rollout with new episodes: those that are open
    at its end are cut there, and bootstrapped.

    A resume from `state_dict` is exact where the environments can be brought back to where they stood, which is checked
    bit by bit; otherwise it warns and begins new episodes. With `carry=False` it is exact for every seeded environment.
    Raises ConfigError for spaces that no network here takes.
    """

    def __init__(
        self,
        envs: Any,
        *,
        n_steps: int,
        gamma: float,
        gae_lambda: float,
        seed: int,
        carry: bool = True,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._stepper = stepper(envs)
        self.n_steps, self.gamma, self.gae_lambda, self.carry = n_steps, gamma, gae_lambda, carry
        self.device = torch.device(device)
        self.space: Space = space_of(envs.single_action_space)
        self.observation_shape, self._encode = _reader(envs.single_observation_space)
        self._decode = _writer(self.space, envs.single_action_space, self.device)
        self.observation_scale = (
            ObservationScale(self.observation_shape, device=self.device) if normalize_observations else None
        )
        self.return_scale = ReturnScale(envs.num_envs, gamma, device=self.device) if normalize_rewards else None
        draws, noise = np.random.SeedSequence(seed).spawn(2)
        self._draws = np.random.default_rng(draws)
        self._noise = torch.Generator(self.device).manual_seed(int(noise.generate_state(1, np.uint64)[0] >> 1))
        self._open = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=np.int64)  # returns, lengths so far
        self._observations: Any = None
        self._inputs: Tensor | None = None

    @property
    def num_envs(self) -> int:
        return self._stepper.env.num_envs

    def collect(self, net: Acting) -> Batch:
        """Batch `[N, T]`: `inputs["observations"]`, `actions`, `old_logprobs`, `values`, `rewards`, `terminated`,
        `truncated`, `mask`, `advantages` (GAE) and `returns` (advantages + values); `metadata["episodes"]` holds the
        Episodes that ended. Where an environment pays K agents, `[N, K]`, what is theirs is `[N, T, K]`, and the
        episodes' returns are the first agent's. Raises DataError for observations or rewards that are not finite."""
        if self._inputs is None or not self.carry:
            self._begin()
        moments = [self._step(net) for _ in range(self.n_steps)]
        assert self._inputs is not None
        return self._batch(net, moments, net.values(self._inputs))

    def _begin(self) -> None:
        self._observations = self._stepper.reset(self._draws)
        self._inputs = self._read(self._observations, learn=True)
        self._open = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.int64)

    def _step(self, net: Acting) -> _Moment:
        inputs = self._inputs
        assert inputs is not None
        acted = net.act(inputs, self._noise)
        actions = self._decode(acted[0], not isinstance(self._observations, Tensor))
        stepped = self._stepper.step(actions, self._draws)
        self._observations = stepped.observations
        self._inputs = self._read(stepped.observations, learn=True)
        some = stepped.final is not None and len(stepped.final) > 0
        return _Moment(inputs, acted, stepped, self._read(stepped.final, learn=False) if some else None)

    def _read(self, observations: Any, *, learn: bool) -> Tensor:
        tensor = as_inputs(self._encode(observations), self.device)
        total = tensor.sum().item()  # cheaper than looking at each; an overflow is looked into
        if total - total != 0 and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"the environment {_name(self._stepper.env)} gave an observation that is NaN or infinite")
        scale = self.observation_scale
        return tensor if scale is None else scale(tensor, learn=learn)

    # ------------------------------------------------------------------------------------------ the batch

    def _batch(self, net: Acting, moments: list[_Moment], last: Tensor) -> Batch:
        steps = [moment.stepped for moment in moments]
        paid = self._stack([step.rewards for step in steps]).double()
        terminated = self._stack([step.terminated for step in steps])
        truncated = self._stack([step.truncated for step in steps]) & ~terminated
        ended = terminated | truncated
        if not bool(torch.isfinite(paid).all()):
            raise DataError(f"the environment {_name(self._stepper.env)} gave a reward that is NaN or infinite")
        taken = None if steps[0].taken is None else self._stack([step.taken for step in steps])
        episodes = self._episodes(paid if paid.ndim == 2 else paid[:, :, 0], ended, taken)
        rewards = paid.float() if self.return_scale is None else self.return_scale(paid, ended)
        actions, logprobs, values = (torch.stack(column) for column in zip(*(m.acted for m in moments), strict=True))
        if values.shape != rewards.shape:
            raise DataError(
                f"the environment {_name(self._stepper.env)} pays {list(rewards.shape[2:])} agents per place, and the "
                f"network judges {list(values.shape[2:])}"
            )
        following = torch.cat([values[1:], last[None]])
        self._bootstrap(net, moments, following)
        # Every column of these views is one step of all environments, and lies in one piece of memory.
        cut, over = truncated.float(), terminated.float()
        advantages = self._advantages(rewards, values, following, over, cut)
        values = values.transpose(0, 1)
        return Batch(
            inputs={"observations": torch.stack([m.inputs for m in moments]).transpose(0, 1)},
            columns={
                "actions": actions.transpose(0, 1),
                "old_logprobs": logprobs.transpose(0, 1),
                "values": values,
                "rewards": rewards.transpose(0, 1),
                "terminated": over.T,
                "truncated": cut.T,
                "mask": torch.ones_like(over.T) if taken is None else taken.float().T,
                "advantages": advantages,
                "returns": advantages + values,
            },
            metadata={"episodes": episodes},
        )

    def _advantages(self, rewards: Tensor, values: Tensor, following: Tensor, over: Tensor, cut: Tensor) -> Tensor:
        """`[N, T]` or `[N, T, K]` of `[T, N]` or `[T, N, K]`: every agent of every environment is a row of GAE."""
        rows = [column.reshape(len(column), -1).T for column in (rewards, values, following)]
        agents = rewards[0, 0].numel()
        ends = [(end if agents == 1 else end.repeat_interleave(agents, 1)).T for end in (over, cut)]
        advantages = gae(*rows, *ends, gamma=self.gamma, lam=self.gae_lambda)
        return advantages.T.reshape(rewards.shape).transpose(0, 1)

    def _stack(self, rows: list[Any]) -> Tensor:
        if isinstance(rows[0], Tensor):
            return torch.stack(rows)
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def _bootstrap(self, net: Acting, moments: list[_Moment], following: Tensor) -> None:
        """Where an episode was cut off, what follows is worth the value of the state that it had reached."""
        cut = [(t, moment.final) for t, moment in enumerate(moments) if moment.final is not None]
        if not cut:
            return
        worth = net.values(torch.cat([final for _, final in cut]))
        rows = torch.cat([torch.as_tensor(moments[t].stepped.truncated, device=self.device).nonzero() for t, _ in cut])
        columns = torch.cat([torch.full((len(final),), t, device=self.device) for t, final in cut])
        following[columns, rows[:, 0]] = worth

    def _episodes(self, paid: Tensor, ended: Tensor, taken: Tensor | None) -> Episodes:
        """Returns and lengths of what ended, and what the open episodes have so far."""
        returns, lengths = self._open
        rewards, ends = paid.cpu().numpy(), ended.cpu().numpy()
        counted = np.ones(ends.shape, dtype=np.int64) if taken is None else taken.cpu().numpy().astype(np.int64)
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0, dtype=np.int64))]
        begun = 0  # the step after the last one with an end
        for t in np.flatnonzero(ends.any(1)).tolist():
            returns = returns + rewards[begun : t + 1].sum(0)
            lengths = lengths + counted[begun : t + 1].sum(0)
            over, begun = ends[t], t + 1
            found.append((returns[over], lengths[over]))
            returns, lengths = np.where(over, 0.0, returns), np.where(over, 0, lengths)
        self._open = returns + rewards[begun:].sum(0), lengths + counted[begun:].sum(0)
        return Episodes(np.concatenate([r for r, _ in found]), np.concatenate([n for _, n in found]))

    def enter(self, envs: Any) -> None:
        """Goes on in other environments with the same spaces; the episodes that are open are left where they stand.
        Raises ConfigError where they differ in what is seen or done, or in number."""
        shape, encode = _reader(envs.single_observation_space)
        if (shape, space_of(envs.single_action_space), envs.num_envs) != (
            self.observation_shape, self.space, self.num_envs,
        ):  # fmt: skip
            raise ConfigError("the other environments have other spaces, or are more or fewer: no run can go on there")
        self._stepper, self._encode = stepper(envs), encode
        self._decode = _writer(self.space, envs.single_action_space, self.device)
        self._inputs = None

    # ------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next rollout depends on."""
        return {
            "draws": self._draws.bit_generator.state,
            "noise": self._noise.get_state(),
            "observation_scale": self.observation_scale and self.observation_scale.moments.state_dict(),
            "return_scale": self.return_scale and self.return_scale.state_dict(),
            "open": None if self._inputs is None or not self.carry else self._open_state(),
        }

    def _open_state(self) -> dict[str, Any]:
        observations = self._observations
        plain = observations.cpu().numpy() if isinstance(observations, Tensor) else np.asarray(observations)
        return {
            "observations": plain,
            "inputs": self._inputs,
            "returns": self._open[0],
            "lengths": self._open[1],
            "envs": self._stepper.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ConfigError where the stored run scaled something that this one does not, or the other way round."""
        self._draws.bit_generator.state = state["draws"]
        self._noise.set_state(state["noise"])
        for name, scale in (("observation_scale", self.observation_scale), ("return_scale", self.return_scale)):
            if (scale is None) != (state[name] is None):
                raise ConfigError(f"the stored run has {'no ' if state[name] is None else ''}{name}, and this one not")
        if self.observation_scale is not None:
            self.observation_scale.moments.load_state_dict(state["observation_scale"])
        if self.return_scale is not None:
            self.return_scale.load_state_dict(state["return_scale"])
        self._inputs = None
        if state["open"] is not None and self.carry:
            self._reopen(state["open"])

    def _reopen(self, stored: Mapping[str, Any]) -> None:
        if not self._stepper.resumes:
            log.warning(
                "the environment %s cannot be resumed exactly, since it cannot say where it stands: the open episodes "
                "are begun anew (rollouts that carry no episodes on would be exact)",
                _name(self._stepper.env),
            )
            return
        observations = self._stepper.load_state_dict(stored["envs"])
        plain = observations.cpu().numpy() if isinstance(observations, Tensor) else np.asarray(observations)
        if plain.shape != stored["observations"].shape or plain.tobytes() != stored["observations"].tobytes():
            log.warning(
                "the environment %s cannot be resumed exactly: brought back to where it stood, it shows another "
                "observation; the open episodes are begun anew",
                _name(self._stepper.env),
            )
            return
        self._observations, self._inputs = observations, stored["inputs"].to(self.device, copy=True)
        self._open = stored["returns"].copy(), stored["lengths"].copy()


# ---------------------------------------------------------------------------------------------- evaluation


def play_episodes(
    net: Acting,
    envs: Any,
    count: int,
    *,
    seed: int,
    scale: ObservationScale | None = None,
    deterministic: bool = True,
    max_steps: int = 100_000,
    device: torch.device | str = "cpu",
) -> Episodes:
    """`count` whole episodes, the same number in each environment but for the rest, so that short ones do not crowd out
    long ones. Raises DataError where an episode is not over after `max_steps` steps."""
    return _Evaluation(net, envs, seed, scale, deterministic, device).play(count, max_steps)


class _Evaluation:
    def __init__(
        self, net: Acting, envs: Any, seed: int, scale: ObservationScale | None, deterministic: bool, device: Any
    ) -> None:
        self.net, self.stepper, self.scale, self.device = net, stepper(envs), scale, device
        self._encode = _reader(envs.single_observation_space)[1]
        self._decode = _writer(space_of(envs.single_action_space), envs.single_action_space, device)
        self._draws = np.random.default_rng(seed)
        self._noise = None if deterministic else torch.Generator(device).manual_seed(seed)

    def play(self, count: int, max_steps: int) -> Episodes:
        n = self.stepper.env.num_envs
        wanted = np.full(n, count // n) + (np.arange(n) < count % n)
        done, returns, lengths = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64)
        found: list[tuple[float, int]] = []
        observations = self.stepper.reset(self._draws)
        while (done < wanted).any():
            drawn = self.net.act(self._read(observations), self._noise)[0]
            actions = self._decode(drawn, not isinstance(observations, Tensor))
            stepped = self.stepper.step(actions, self._draws)
            observations = stepped.observations
            rewards, ended, taken = (
                _numpy(column) for column in (stepped.rewards, stepped.terminated | stepped.truncated, stepped.taken)
            )
            returns, lengths = returns + rewards, lengths + (1 if taken is None else taken)
            for i in np.flatnonzero(ended & (done < wanted)).tolist():
                found.append((float(returns[i]), int(lengths[i])))
            done, returns, lengths = done + ended, np.where(ended, 0.0, returns), np.where(ended, 0, lengths)
            if int(lengths.max()) >= max_steps:
                raise DataError(
                    f"an episode of {_name(self.stepper.env)} is not over after {max_steps} steps; give the "
                    "environment a time limit"
                )
        return Episodes(np.array([r for r, _ in found]), np.array([n for _, n in found]))

    def _read(self, observations: Any) -> Tensor:
        tensor = as_inputs(self._encode(observations), self.device)
        return tensor if self.scale is None else self.scale(tensor)


# ---------------------------------------------------------------------------------------------- spaces


def as_inputs(observations: Any, device: torch.device | str = "cpu") -> Tensor:
    """float32 on the device. NumPy arrays are copied: products of matrices round by where in memory their rows lie, so
    that a run which goes on from a checkpoint would otherwise end one bit beside the one that was left alone."""
    if isinstance(observations, np.ndarray):
        return torch.tensor(observations, dtype=torch.float32, device=device)
    return torch.as_tensor(observations, dtype=torch.float32, device=device)


def _numpy(column: Any) -> Any:
    return column.cpu().numpy() if isinstance(column, Tensor) else column


def _name(env: Any) -> str:
    first = getattr(env, "envs", [env])[0]
    spec = getattr(first, "spec", None)
    return repr(spec.id) if spec is not None else type(first).__name__


def _reader(space: Any) -> tuple[tuple[int, ...], Callable[[Any], Any]]:
    """(shape of a network's observations, world's observations `[n, ...]` -> numbers `[n, *shape]`)."""
    kind = type(space).__name__
    if kind in ("Box", "MultiBinary"):
        shape = tuple(int(size) for size in space.shape) or (1,)
        return shape, lambda observations: observations.reshape(-1, *shape)
    if kind == "Discrete":
        table = np.eye(int(space.n), dtype=np.float32)
        return (int(space.n),), lambda observations: table[np.asarray(observations) - space.start]
    advice = (
        "gymnasium.wrappers.FlattenObservation makes a Box of it" if kind in ("Dict", "Tuple", "MultiDiscrete") else ""
    )
    raise ConfigError(
        f"observations of the space {kind} cannot be read by a network here; they may be Box, Discrete or MultiBinary"
        + (f" ({advice})" if advice else "")
    )


def _writer(space: Space, theirs: Any, device: torch.device | str) -> Callable[[Tensor, bool], Any]:
    """(network's actions, whether the world computes in NumPy) -> the world's. Continuous actions are clipped to the
    bounds here: the log-probs are those of what was drawn."""
    dtype = getattr(theirs, "dtype", None)
    edit: Callable[[Tensor], Tensor] = lambda actions: actions  # noqa: E731
    if isinstance(space, Discrete) and space.start:
        edit = lambda actions: actions + space.start  # noqa: E731
    elif isinstance(space, Box):
        low, high = (torch.tensor(bound, dtype=torch.float32, device=device) for bound in (space.low, space.high))
        edit = lambda actions: actions.clamp(low, high).reshape(-1, *space.shape)  # noqa: E731

    def written(actions: Tensor, numpy: bool) -> Any:
        changed = edit(actions)
        if not numpy:
            return changed
        array = changed.cpu().numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    return written
