"""What happened: tasks, messages, steps, trajectories and episodes.

These are values, not services: frozen, JSON-able and versioned. An episode of a two-agent team on one task:

    Episode(
        id="e0", task_id="linear-17", outcome=Outcome.SUCCESS, group="linear-17",
        trajectories=(
            Trajectory(agent="analyzer", reward=1.0, steps=(
                Step(id="analyzer/0", agent="analyzer", observation=[{"role": "user", "content": "3x + 5 = 20"}],
                     action={"role": "assistant", "content": "(20-5)/3"},
                     tokens=Tokens(prompt_ids=(3, 51, 9), response_ids=(40, 12, 1), logprobs=(-0.1, -0.3, -0.0),
                                   mask=(1, 1, 1), policy="team", policy_version=4,
                                   sampling=Sampling(max_tokens=16), finish_reason=FinishReason.STOP)),)),
            Trajectory(agent="verifier", reward=0.0, steps=(...,)),
        ),
    )

`Step.reward` is local and `Trajectory.reward` is the team's; they add (`Trajectory.returns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from troupe.errors import DataError

__all__ = [
    "FORMAT_VERSION",
    "Action",
    "Episode",
    "FinishReason",
    "MCTSTrace",
    "Message",
    "Outcome",
    "Problem",
    "Sampling",
    "State",
    "Step",
    "StopReason",
    "Task",
    "Tokens",
    "Trajectory",
    "message",
]

FORMAT_VERSION = 1
"""Version of the JSON form of an `Episode`; a reader refuses versions that it does not know."""

Message = Mapping[str, Any]
"""An OpenAI chat message: `role`, `content` and, where they apply, `tool_calls`, `tool_call_id`, `name`."""


def message(role: str, content: str, **extra: Any) -> dict[str, Any]:
    """A chat message in OpenAI's shape."""
    return {"role": role, "content": content, **extra}


class Outcome(StrEnum):
    """How an episode ended."""

    SUCCESS = "success"  # the reward function called the final answer right
    FAILURE = "failure"  # the team finished, and its answer is wrong
    TIMEOUT = "timeout"  # the wall-clock limit of one episode passed
    ERROR = "error"  # the workflow or its reward raised; `metadata["error"]` says what
    TRUNCATED = "truncated"  # a prompt or the whole conversation outgrew its limit


class StopReason(StrEnum):
    """Why an agent's trajectory ended."""

    DONE = "env_done"  # the agent finished its part
    MAX_TURNS = "max_turns_exceeded"  # the agent used all its turns
    PROMPT_TOO_LONG = "max_prompt_length_exceeded"  # the next prompt would not fit
    RESPONSE_TOO_LONG = "max_response_length_exceeded"  # the last response was cut off
    TIMEOUT = "timeout"  # the episode's wall-clock limit passed
    ERROR = "error"  # the workflow raised
    UNKNOWN = "unknown"  # the workflow did not say


class FinishReason(StrEnum):
    """Why one generation ended."""

    STOP = "stop"  # the model emitted its end-of-turn token
    STOP_STRING = "stop_string"  # a stop string was completed; sampled ids stay, the text is trimmed
    LENGTH = "length"  # max_tokens or the model's context ended it


@dataclass(frozen=True, slots=True)
class Problem:
    """What a workflow may see of a task: everything but the answer and the worked solution."""

    id: str
    kind: str
    prompt: str
    data: Mapping[str, Any] = field(default_factory=dict)
    difficulty: float = 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to solve. `answer` and `solution` are for rewards and demonstrations; they never reach a model."""

    id: str
    kind: str
    prompt: str
    data: Mapping[str, Any] = field(default_factory=dict)
    difficulty: float = 0.0
    answer: Any = None
    solution: Any = None

    @property
    def problem(self) -> Problem:
        """The view that a workflow runs on."""
        return Problem(self.id, self.kind, self.prompt, self.data, self.difficulty)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Task:
        return _build(cls, record, "task")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Top-p and top-k are absent by design: the log-probs of a trained policy are those of
    the distribution that was sampled from, and truncated distributions have no gradient outside their support."""

    max_tokens: int = 256
    temperature: float = 1.0  # 0 takes the most probable token
    stop: tuple[str, ...] = ()  # generation ends once one of them is complete


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token truth of one call. Ids are what the model saw and sampled; text is only a view of them.

    `prompt_ids` is the *new* suffix of the prompt: the full prompt is the parent step's full prompt, then the
    parent's response, then this suffix. `logprobs` and `mask` run along `response_ids`; log-probs are natural logs
    of the distribution sampled from (after temperature and vocabulary mask). Demonstrations have no log-probs.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    mask: tuple[int, ...]
    policy: str
    policy_version: int = 0
    sampling: Sampling = Sampling()
    finish_reason: FinishReason = FinishReason.STOP


@dataclass(frozen=True, slots=True)
class Step:
    """One decision of one agent."""

    id: str
    agent: str
    parent: str | None = None
    observation: Any = None  # messages, an array as nested lists, or the id of a state
    action: Any = None  # a message, an index, a vector
    reward: float | None = None  # local to this step; None: the step was not paid on its own
    done: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One agent's steps in one episode, and what the agent was paid for them together."""

    agent: str
    steps: tuple[Step, ...] = ()
    reward: float | None = None
    stop_reason: StopReason = StopReason.UNKNOWN

    def returns(self, gamma: float = 1.0) -> tuple[float, ...]:
        """G_t = sum_{k>=t} gamma^(k-t) r_k + terminal trajectory reward, one per step."""
        running, out = 0.0, []
        for step in reversed(self.steps):
            running = (step.reward or 0.0) + gamma * running
            out.append(running + (self.reward or 0.0))
        return tuple(reversed(out))

    @property
    def total_reward(self) -> float:
        """Sum of the step rewards plus the trajectory's own."""
        return sum(step.reward or 0.0 for step in self.steps) + (self.reward or 0.0)

    @property
    def is_paid(self) -> bool:
        """Whether anybody said what it is worth, be it nothing."""
        return self.reward is not None or self.has_step_rewards

    @property
    def has_step_rewards(self) -> bool:
        return any(step.reward is not None for step in self.steps)


@dataclass(frozen=True, slots=True)
class Episode:
    """One run of a team on one task."""

    id: str
    task_id: str
    trajectories: tuple[Trajectory, ...] = ()
    outcome: Outcome = Outcome.FAILURE
    metrics: Mapping[str, float] = field(default_factory=dict)
    group: str = ""  # episodes with the same group attempted the same task under the same policies
    seed: int = 0
    version: int = FORMAT_VERSION
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        """Every step of every trajectory."""
        for trajectory in self.trajectories:
            yield from trajectory.steps

    def of(self, agent: str) -> tuple[Trajectory, ...]:
        """The trajectories of one agent."""
        return tuple(t for t in self.trajectories if t.agent == agent)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` gives back an equal episode."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Episode:
        """Raises DataError for a missing or unknown field, or a format version from the future."""
        if not isinstance(record, Mapping):
            raise DataError(f"an episode must be a JSON object, found {type(record).__name__}")
        version = record.get("version")
        if version != FORMAT_VERSION:
            raise DataError(f"episode format version {version!r} is not known; this release reads {FORMAT_VERSION}")
        return _build(
            cls,
            record,
            "episode",
            outcome=Outcome,
            trajectories=lambda rows: tuple(_trajectory(row) for row in rows),
        )


# ------------------------------------------------------------------------- what a search decided (document 001)


@dataclass(frozen=True, slots=True)
class Action:
    """One action of an episode of self-play."""

    action_id: str
    action_type: str
    parameters: Mapping[str, Any]
    timestamp: float  # seconds since the epoch
    confidence: float = 0.0  # its share in the policy that the search arrived at


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One state of an episode of self-play."""

    state_id: str
    representation: Any  # the observation: an array, or nested lists where it was read from JSON
    raw_state: Any  # the world's own state
    value_estimate: float = 0.0  # the search's, as the player to move sees it; 0 where nobody searched
    visit_count: int = 0
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class MCTSTrace:
    """The search that chose one action."""

    root_state_id: str
    num_simulations: int
    visit_counts: Mapping[str, int]  # by action_id
    q_values: Mapping[str, float]  # by action_id
    prior_probs: Mapping[str, float]  # by action_id, before any noise
    selected_action: str
    tree_depth: int
    search_time: float  # seconds
    value_estimates: Mapping[str, float]  # by state_id: the evaluator's


def _trajectory(record: Mapping[str, Any]) -> Trajectory:
    return _build(
        Trajectory,
        record,
        "trajectory",
        stop_reason=StopReason,
        steps=lambda rows: tuple(_build(Step, row, "step", tokens=_tokens) for row in rows),
    )


def _tokens(record: Mapping[str, Any] | None) -> Tokens | None:
    if record is None:
        return None
    return _build(
        Tokens,
        record,
        "tokens",
        prompt_ids=tuple,
        response_ids=tuple,
        logprobs=lambda values: None if values is None else tuple(values),
        mask=tuple,
        finish_reason=FinishReason,
        sampling=lambda row: _build(Sampling, row, "sampling", stop=tuple),
    )


def _build(cls: Any, record: Mapping[str, Any], what: str, **convert: Any) -> Any:
    """The dataclass `cls` from `record`, its fields passed through `convert`; a wrong shape is a DataError."""
    if not isinstance(record, Mapping):
        raise DataError(f"{what} must be a JSON object, found {type(record).__name__}")
    names: Sequence[str] = [f.name for f in fields(cls)]
    unknown = set(record) - set(names)
    if unknown:
        raise DataError(f"{what} has the unknown field {sorted(unknown)[0]!r}; known fields: {', '.join(names)}")
    try:
        return cls(**{key: convert[key](value) if key in convert else value for key, value in record.items()})
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{what} cannot be read: {error}") from error
