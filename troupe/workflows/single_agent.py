"""One agent in one environment, as a workflow: document 004's `agent_class` and `env_class`.

An environment is a game, a terminal, a simulated customer: it answers every action with an observation and a reward.
`AgentTrainer(agent_class=..., env_class=...)` makes the two into a team of one, so that what trains teams trains it.

    class Countdown:                                     class Player:
        def reset(self, task):                               def observe(self, observation):
            self.left = task.data["start"]                       return [message("user", observation)]
            return f"{self.left} left"
        def step(self, action):                              def act(self, text):
            self.left -= len(action)                             return text.strip()
            done = self.left <= 0
            return f"{self.left} left", float(self.left == 0), done, False, {}

What an environment pays is paid to the step that it answers. It sees the problem, never the answer: what a simulation
needs to know (a hidden word, a customer's wish) stands in `task.data`, which no model sees unless the environment shows
it. What only `task.answer` can decide, an environment pays in `final_reward(task)`, after the run.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from troupe.agents import Team
from troupe.episode import Message, Outcome, Problem, StopReason, Task
from troupe.errors import ConfigError
from troupe.handles import EpisodeHandle, StepHandle

__all__ = ["ChatAgent", "SingleAgentWorkflow", "TextEnv"]


class TextEnv(Protocol):
    """A world of texts, in Gymnasium's terms (Towers et al. 2024, arXiv:2407.17032). A new one is made per episode.

    Both methods may be coroutines. Where it also has `close()`, that is called at the end, and where it has
    `final_reward(task) -> float`, that pays the whole episode, after `close`. An `is_success` in the last step's info
    decides the outcome; without one an episode that ended by itself is a success where its rewards add up to more
    than 0.
    """

    def reset(self, task: Problem) -> Any:
        """The first observation. A `reset(task, seed)` gets a seed, one for all attempts at a task in one update."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
        """(observation, reward, terminated, truncated, info). Truncated: a limit ended it, the world did not."""
        ...


class ChatAgent(Protocol):
    """What an agent shows its model. A new one is made per episode; `act` may be left out: the action is then
    the text without blanks at its ends."""

    def observe(self, observation: Any) -> Sequence[Message]:
        """Messages to append to the conversation; those of the first observation begin it."""
        ...

    def act(self, text: str) -> Any:
        """The action that a model's text means."""


class SingleAgentWorkflow:
    """An agent acts until its environment ends the episode, or `max_steps` times; that is a truncation, too.

    `agent_args` and `env_args` are the arguments of the two classes. Raises ConfigError where classes or arguments do
    not fit.
    """

    agent_names = ("agent",)
    credit: Mapping[str, str] = {"agent": "what its environment pays, step by step"}

    def __init__(
        self,
        *,
        agent_class: Callable[..., Any],
        env_class: Callable[..., Any],
        agent_args: Mapping[str, Any] | None = None,
        env_args: Mapping[str, Any] | None = None,
        max_steps: int = 32,
    ) -> None:
        if max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1, found {max_steps}")
        self._make_agent = _maker("agent", agent_class, agent_args or {}, ("observe",))
        self._make_env = _maker("env", env_class, env_args or {}, ("reset", "step"))
        self.max_steps = max_steps
        self._env: Any = None
        self._pay: list[tuple[StepHandle, float]] = []
        self._terminated = False
        self._info: Mapping[str, Any] = {}

    # ------------------------------------------------------------------------------------------ the run

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        """One episode. Returns how many steps it took."""
        self._env = self._make_env()
        try:
            await self._play(self._env, self._make_agent(), problem, agents)
        finally:
            if hasattr(self._env, "close"):
                await _answered(self._env.close(), agents)
        if not self._terminated:
            agents.episode.of("agent")[-1].stop_reason = StopReason.MAX_TURNS
        return {"env_steps": float(len(self._pay))}

    async def _play(self, env: Any, agent: Any, problem: Problem, agents: Team) -> None:
        seeded = "seed" in inspect.signature(env.reset).parameters
        first = env.reset(problem, seed=_seed(agents)) if seeded else env.reset(problem)
        conversation: list[Message] = list(agent.observe(await _answered(first, agents)))
        act = getattr(agent, "act", str.strip)
        for _ in range(self.max_steps):
            reply = await agents.agent.chat(conversation)
            answered = await _answered(env.step(act(reply.text)), agents)
            observation, reward, self._terminated, truncated, self._info = _checked(answered, env)
            self._pay.append((reply.step, reward))
            if self._terminated or truncated:
                break
            conversation += [reply.message, *agent.observe(observation)]

    # ------------------------------------------------------------------------------------------ afterwards

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        """Pays each step what the environment paid for it, and the trajectory what it pays at the end."""
        for step, reward in self._pay:
            step.reward = reward
        final = getattr(self._env, "final_reward", None)
        total = sum(reward for _, reward in self._pay)
        if final is not None and episode.trajectories:
            episode.trajectories[-1].reward = paid = float(final(task))
            total += paid
        solved = bool(self._info.get("is_success", self._terminated and total > 0))
        episode.metrics |= {"return": total, "final_success": float(solved)}
        if solved:
            episode.outcome = Outcome.SUCCESS
        else:
            episode.outcome = Outcome.FAILURE if self._terminated else Outcome.TRUNCATED


def _maker(role: str, made: Callable[..., Any], arguments: Mapping[str, Any], methods: Sequence[str]) -> Any:
    """A function that makes a new agent or environment. Raises ConfigError before any episode runs."""
    name = getattr(made, "__name__", repr(made))
    try:
        inspect.signature(made).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{role}_args do not fit {role}_class {name}: {error}") from error
    missing = [method for method in methods if isinstance(made, type) and not hasattr(made, method)]
    if missing:
        raise ConfigError(f"{role}_class {name} has no method {missing[0]!r}; it needs {' and '.join(methods)}")
    return lambda: made(**arguments)


def _seed(agents: Team) -> int:
    """A function of the run's seed, the update and the task: `Team.key` without the number of the attempt."""
    return int.from_bytes(hashlib.blake2b(repr(agents.key[:-1]).encode(), digest_size=4).digest())


async def _answered(value: Any, agents: Team) -> Any:
    """What an environment answered, at once or as a coroutine."""
    return await agents.external(value) if inspect.isawaitable(value) else value


def _checked(answered: Any, env: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    if not isinstance(answered, tuple) or len(answered) != 5:
        raise ConfigError(
            f"{type(env).__name__}.step must return (observation, reward, terminated, truncated, info), found "
            f"{type(answered).__name__}{f' of {len(answered)}' if isinstance(answered, tuple) else ''}"
        )
    observation, reward, terminated, truncated, info = answered
    return observation, float(reward), bool(terminated), bool(truncated), dict(info)
