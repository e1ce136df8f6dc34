"""Contracts between the wings. Worlds, engines and training never import one another; they meet through these.

Plain Protocols: nothing inherits from them, and any object of the right shape will do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from troupe.episode import FinishReason, Message, Problem, Sampling, Task

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BatchEnv",
    "BatchGame",
    "ChatFormat",
    "Engine",
    "Evaluator",
    "Game",
    "Generation",
    "GenerationRequest",
    "Positions",
    "Proposal",
    "Proposer",
    "Reward",
    "RewardFn",
    "Symmetry",
    "TaskGame",
    "TaskGenerator",
    "Tool",
    "Workflow",
]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One call of one agent, as token ids.

    `key` identifies the call among all calls of a run: (run seed, update, task, rollout, agent, call). Sampling noise
    is a function of the key and the position alone, and a synchronous engine sorts a wave by it, so that neither
    the arrival order nor the number of workers can change what is sampled. `parent` names the earlier generation whose
    full sequence `prompt_ids` extends, so that an engine may continue its key-value cache. `messages` and `tools` say
    the same as `prompt_ids`, for engines that take no token ids.
    """

    policy: str
    prompt_ids: tuple[int, ...]  # the full prompt
    sampling: Sampling
    key: tuple[Any, ...]
    id: str = ""
    parent: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """What an engine answers. `logprobs[i]` belongs to `response_ids[i]`; None from an engine that has none."""

    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finish_reason: FinishReason
    policy_version: int = 0


@runtime_checkable
class ChatFormat(Protocol):
    """Messages to token ids and back, for one model family."""

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids of a whole conversation, ready for the assistant to speak."""

    def extend(
        self, before: Sequence[Message], response_ids: Sequence[int], after: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[int, ...] | None:
        """Token ids to append after `response_ids` so that the assistant may speak again.

        `before` ends just before the assistant's turn that `response_ids` are; `after` holds what followed it, and
        begins with that turn as a message. None where the template rewrites history: the caller starts a new row.
        """

    def decode(self, response_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of a response without its end-of-turn token, trimmed before the first complete stop string's end."""

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> dict[str, Any]:
        """The assistant message of a response text, in OpenAI's shape. A call that names no tool is for the first of
        the `tools` that were offered."""


class Engine(Protocol):
    """Who answers. `exact_tokens` is True where sampled ids and their log-probs come back: only then can it train."""

    exact_tokens: bool

    def chat_format(self, policy: str) -> ChatFormat: ...

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Answers in the order of the requests. What it raises ends the run: an engine that fails is a failed
        program."""
        ...


class Tool(Protocol):
    """A function that an agent may call. Failures are answers that begin with 'error', never exceptions."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON schema of the arguments

    def __call__(self, **arguments: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward function pays: `reward` counts, `parts` explain it; field names as document 004's code has them."""

    reward: float
    is_correct: bool
    metadata: Mapping[str, Any]


class RewardFn(Protocol):
    """Pays an answer after the run. It sees the task with its answer; the workflow never does."""

    def __call__(self, task: Task, answer: str | None) -> Reward: ...


class Workflow(Protocol):
    """A team. `run` sees the problem without its answer; `reward` pays afterwards, on the same mutable handles."""

    @property
    def agent_names(self) -> tuple[str, ...]: ...

    @property
    def credit(self) -> Mapping[str, str]:
        """agent -> what it is paid for, in a sentence; printed in the credit table."""
        ...

    async def run(self, problem: Problem, agents: Any) -> Any: ...

    def reward(self, task: Task, episode: Any) -> None:
        """Called in a thread, beside those of other episodes; each episode has a workflow object of its own."""


class TaskGenerator(Protocol):
    """Makes tasks. The same seed gives the same tasks."""

    def generate(self, n: int) -> list[Task]: ...

    def __iter__(self) -> Iterator[Task]: ...


# ---------------------------------------------------------------------------------------------- games and their judges


@dataclass(frozen=True, slots=True)
class Symmetry:
    """One symmetry of a game, as two permutations.

    `observation.reshape(-1)[cells]` is the observation of the transformed position and `policy[actions]` its policy:
    both say for each place of the result where its number comes from.
    """

    cells: np.ndarray  # int [product of the observation's shape]
    actions: np.ndarray  # int [A]


@runtime_checkable
class Game(Protocol):
    """A world in plain Python. States are values: `step` returns a new one and leaves the old one alone.

    `players` is 1, or 2 whose rewards are opposite; player 0 moves first. `actions` is A where the actions of every
    state are the indices 0 to A - 1 (`fixed`), None where each state lists its own (`candidates`, hashable).

    Optional methods: `to_play(state)`, the player to move, which a search from a position in the middle of a game has
    to know; `key(state)`, hashable and equal for positions that look alike to the player to move, for the evaluation
    cache; `canonical(state) -> (key, k)`, the key of the position that symmetry k turns this one into;
    `symmetries()`, a sequence of `Symmetry` whose first is the identity; `chance(state)`, the (outcome, probability)
    pairs of a state in which nobody decides, such as a roll of dice (empty elsewhere), `step(state, outcome)` follows;
    `heuristic(state)` in (-1, 1), as the player to move sees it, for players that look a few moves ahead;
    `render(state)`, a text for people.
    """

    @property
    def players(self) -> int: ...

    @property
    def actions(self) -> int | None: ...

    @property
    def observation_shape(self) -> tuple[int, ...]: ...

    def initial(self) -> Any: ...

    def legal(self, state: Any) -> Sequence[Any]:
        """Actions that may be taken, in a fixed order; never empty before the end."""
        ...

    def step(self, state: Any, action: Any) -> tuple[Any, float, bool, int]:
        """(next state, reward, done, player to move next). The reward is that of the player who moved."""
        ...

    def observe(self, state: Any) -> np.ndarray:
        """float32 `observation_shape`, as the player to move sees it."""
        ...


@runtime_checkable
class TaskGame(Protocol):
    """A `Game` of one player and fixed actions that serves every task of a kind: its states carry their problem.

    Rewards are not negative, add up to at most 1 over an episode and are public: 1 for what can be seen to be solved, a
    share for what can be seen to be good, 0 where only the hidden answer decides. Every episode ends.

    `vocabulary` is V where observations `[L]` are token ids 0 to V - 1 (0 is padding), 0 where they are numbers or an
    image `[C, H, W]`. `pointers` is P where action p * K + j is the j-th of K at the token of position p < P, so that
    A = P * K; 0 where actions point at nothing.
    """

    @property
    def players(self) -> int: ...

    @property
    def actions(self) -> int: ...

    @property
    def observation_shape(self) -> tuple[int, ...]: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def pointers(self) -> int: ...

    def initial(self) -> Any:
        """The first state of a small example."""
        ...

    def begin(self, problem: Problem) -> Any:
        """The first state of a task. Raises DataError for a problem that this game cannot hold."""
        ...

    def answer(self, state: Any) -> str | None:
        """What a state that has ended submits for the verdict; None where there is nothing to submit."""
        ...

    def legal(self, state: Any) -> Sequence[int]: ...

    def step(self, state: Any, action: int) -> tuple[Any, float, bool, int]: ...

    def observe(self, state: Any) -> np.ndarray: ...

    def key(self, state: Any) -> Hashable: ...

    def describe(self, state: Any, action: int) -> str:
        """What the action does there, in a few words: a line of a reasoning chain."""
        ...


@runtime_checkable
class BatchGame(Protocol):
    """A game of fixed actions on arrays: the verbs of `Game`, for n states at once. Arguments are never changed.

    Optional: `keys(states)`, n hashable keys; `canonical(states) -> (keys, k [n])`; `symmetries()`.
    """

    @property
    def players(self) -> int: ...

    @property
    def actions(self) -> int: ...

    @property
    def observation_shape(self) -> tuple[int, ...]: ...

    def initial(self, n: int) -> np.ndarray:
        """`[n, ...]`, of one dtype and trailing shape for all states of the game."""
        ...

    def legal(self, states: np.ndarray) -> np.ndarray:
        """bool `[n, A]`."""
        ...

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(states, rewards float64 `[n]`, done bool `[n]`, to_play int8 `[n]`); rewards are those of who moved."""
        ...

    def observe(self, states: np.ndarray) -> np.ndarray:
        """float32 `[n, *observation_shape]`, as the player to move sees it."""
        ...


class Positions(Protocol):
    """n positions that wait for an evaluation. What costs something to make is made when it is asked for."""

    @property
    def legal(self) -> np.ndarray:
        """bool `[n, W]`: fixed actions, or the first places of `candidates`."""
        ...

    @property
    def to_play(self) -> np.ndarray:
        """int8 `[n]`."""
        ...

    def __len__(self) -> int: ...

    def observations(self) -> np.ndarray:
        """float32 `[n, *observation_shape]`."""
        ...

    def keys(self) -> tuple[Sequence[Hashable], np.ndarray | None] | None:
        """Keys, and which symmetry makes each position that of its key (None: none does). None: the game has no
        keys."""
        ...

    def symmetries(self) -> Sequence[Symmetry]:
        """Of the game; empty where it names none."""
        ...

    def states(self) -> Sequence[Any]:
        """The game's own states."""
        ...

    def candidates(self) -> Sequence[Sequence[Any]] | None:
        """Each state's actions, where the game has candidates; None where its actions are fixed."""
        ...

    def take(self, indices: np.ndarray) -> Positions: ...


class Evaluator(Protocol):
    """Who judges positions for a search. `evaluate` may be a coroutine function; the asynchronous driver awaits it."""

    def evaluate(
        self, positions: Positions
    ) -> tuple[np.ndarray, np.ndarray] | Awaitable[tuple[np.ndarray, np.ndarray]]:
        """(priors float `[n, W]`, values float `[n]`). Priors sum to 1 over the legal actions and are 0 elsewhere;
        values are the expected returns of the player to move."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """Actions worth trying in one state, how likely each is, and what the state is worth to the player to move."""

    actions: tuple[Any, ...]
    priors: tuple[float, ...]
    value: float


class Proposer(Protocol):
    """Who names the actions as well, as a language model does, where a game's candidates are too many to list."""

    def propose(self, states: Sequence[Any]) -> Sequence[Proposal] | Awaitable[Sequence[Proposal]]: ...


# ---------------------------------------------------------------------------------------------- worlds on arrays


@runtime_checkable
class BatchEnv(Protocol):
    """N environments on arrays (NumPy or torch), stepped together.

    `step` never begins an episode: where one ended, the observation is that of the state it ended in, and the caller
    resets there. The arrays that come back are new each time. Spaces are Gymnasium's or those of
    `troupe.models.actions`.

    Optional: `state_dict()`, all that a continuation depends on, as dicts, lists, numbers and arrays, and
    `load_state_dict(state)`, which returns the observations `[N, ...]` of where it then stands. With them a run that
    carries episodes from one rollout to the next resumes exactly.
    """

    @property
    def num_envs(self) -> int: ...

    @property
    def single_observation_space(self) -> Any: ...

    @property
    def single_action_space(self) -> Any: ...

    def reset(self, generator: np.random.Generator, where: Any | None = None) -> Any:
        """Begins an episode in each environment, or in those of `where` bool `[N]`; observations `[N, ...]` of all."""
        ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        """(observations `[N, ...]`, rewards `[N]`, terminated bool `[N]`, truncated bool `[N]`)."""
        ...
