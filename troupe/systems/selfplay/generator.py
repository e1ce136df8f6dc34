"""Document 001's episodes: attempts at tasks in which a search chooses every action.

    generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 100})
    episode = await generator.generate_episode(task, max_steps=20, timeout=60.0)

The answer of a task never enters its world: the search runs on the problem, and the answer that it gave is checked
afterwards. Calls that run at the same time share one search and one batch per family of worlds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from troupe.engines.evaluator import UniformEvaluator
from troupe.episode import Action, MCTSTrace, Outcome, State, Task
from troupe.errors import ConfigError, DataError, MissingExtra, TrainingError, did_you_mean
from troupe.protocols import Evaluator, Game, Proposer, Symmetry
from troupe.rewards.answers import answers_equal
from troupe.search.asynchronous import Found, Ticker, action_id, state_id
from troupe.systems.selfplay.agents import AgentEvaluator, Family
from troupe.systems.selfplay.answering import AnswerWorld
from troupe.systems.selfplay.episodes import SelfPlayEpisode
from troupe.systems.selfplay.games import PlayedOn, exact_value, game_world
from troupe.systems.selfplay.settings import search_config
from troupe.systems.selfplay.task_worlds import TASK_WORLDS, TaskWorld
from troupe.systems.selfplay.verifiable.attempts import RETURNS
from troupe.tasks.generator import as_task
from troupe.threads import in_thread

__all__ = ["WORLDS", "MakeWorld", "SelfPlayEpisodeGenerator", "answer_world"]

MakeWorld = Callable[[Task], Game]
"""The world of a task. One with `answer(state) -> str | None` is over once that is a text, which is checked against the
task's answer; another pays by the rewards of its steps. It must show nothing of `task.answer` and `task.solution`, and
`generate_episode` hands it a task that has neither. The verdict on a `TaskWorld` is that of its family."""

WORLDS: dict[str, MakeWorld] = {"game": game_world, **TASK_WORLDS}
"""By task type. Any other type that has an answer is propose-and-check, `answer_world`; so is a task of words alone,
without data, whatever its type."""


def answer_world(task: Task) -> AnswerWorld:
    """Quantities and words of the problem; see `answering.py`."""
    return AnswerWorld(task.prompt)


@dataclass
class _Attempt:
    """An episode while it happens. There is no world where the time was over before one was made."""

    task: Task
    index: int
    timeout: float
    left: float  # seconds of it
    world: Any = None
    initial: Any = None
    state: Any = None
    to_play: int = 0
    first: int = 0
    symmetries: str = ""
    actions: list[Action] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    traces: list[MCTSTrace] = field(default_factory=list)
    movers: list[int] = field(default_factory=list)
    legal: list[Any] = field(default_factory=list)
    policies: list[np.ndarray] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def answered(self) -> str | None:
        """What its world has been answered."""
        answer = getattr(self.world, "answer", None)
        return None if answer is None else answer(self.state)

    @property
    def over(self) -> bool:
        return self.done or self.answered is not None

    def see(self, found: Found | None = None) -> None:
        """Records the state that it stands in."""
        parent = self.states[-1].state_id if self.states else None
        raw = self.state._asdict() if hasattr(self.state, "_asdict") else self.state
        value, visits = (found.value, int(found.visits.sum()) + 1) if found is not None else (0.0, 0)
        seen = np.asarray(self.world.observe(self.state), np.float32)
        self.states.append(State(state_id(self.state), seen, raw, value, visits, parent))
        self.movers.append(self.to_play)


class SelfPlayEpisodeGenerator:
    """Makes episodes. Without agents priors are uniform and values 0, or 0.5 in tasks, which pay 0 to 1.

    `hrm_agent` gives the policy and `trm_agent` the value (see `agents.py`); an `hrm_agent` with `propose(states)`
    names the actions as well, in worlds of candidates. `mcts_config` takes the keys of `settings.MCTS_KEYS`. `worlds`
    adds to `WORLDS`. `networks(family)` gives an agent that is both, for each family of worlds, where no agents are
    given.
    `explore=False` plays the best that the search finds, without noise. Noise is keyed by `seed`, the number of the
    episode and the step. At most `slots` trees are searched at once. `threads=False` asks agents on the event loop,
    which is faster, and no time limit interrupts them there.

    Counters: episode_count, success_count, failure_count, timeout_count, error_count; `forward_calls()`. `symmetries`:
    those of the worlds so far, by the name that their episodes have.
    """

    def __init__(
        self,
        hrm_agent: Any = None,
        trm_agent: Any = None,
        mcts_config: Mapping[str, Any] | None = None,
        device: str = "cpu",
        *,
        worlds: Mapping[str, MakeWorld] | None = None,
        networks: Callable[[Family], Any] | None = None,
        seed: int | Sequence[int] = 0,
        explore: bool = True,
        slots: int = 64,
        threads: bool = True,
    ) -> None:
        if networks is not None and (hrm_agent is not None or trm_agent is not None):
            raise ConfigError("networks are for worlds without agents; leave them out, or hrm_agent and trm_agent")
        if hasattr(hrm_agent, "propose") and trm_agent is not None:
            raise ConfigError("an hrm_agent that proposes gives the values as well; leave trm_agent out")
        self.hrm_agent, self.trm_agent, self.device = hrm_agent, trm_agent, device
        self.config = search_config(mcts_config)
        self.worlds: dict[str, MakeWorld] = {**WORLDS, **(worlds or {})}
        self.explore = explore
        self.episode_count = self.success_count = self.failure_count = self.timeout_count = self.error_count = 0
        self.symmetries: dict[str, tuple[Symmetry, ...]] = {}
        self._networks, self._slots, self._threads = networks, slots, threads
        self._seed = tuple(seed) if isinstance(seed, Sequence) else (seed,)
        self._tickers: dict[Family, Ticker] = {}
        self._evaluators: list[AgentEvaluator] = []

    def forward_calls(self) -> dict[str, int]:
        """How often agents were called: {"policy": ..., "value": ...}."""
        return {
            "policy": sum(evaluator.policy_calls for evaluator in self._evaluators),
            "value": sum(evaluator.value_calls for evaluator in self._evaluators),
        }

    async def generate_episode(
        self, task: Task | Mapping[str, Any], max_steps: int = 50, timeout: float = 60.0
    ) -> SelfPlayEpisode:
        """One attempt. It ends as "success" or "failure", as "timeout" after `timeout` seconds, or as "error" with
        `metadata["error"]`; `max_steps` actions without an end are a failure whose `metadata["max_steps_reached"]` is
        true.

        World and verdict are made in threads, and agents asked in one, so the limit holds whatever they do; what was
        given up works on until it is done. A world's verbs share the event loop with the search, which waits for each
        of them. Raises DataError for a task that has no world or does not fit it, ConfigError for agents that do not,
        TrainingError for those whose answers are not finite, MissingExtra where a package is missing.
        """
        (episode,) = await self.generate_episodes([task], max_steps, timeout)
        return episode

    async def generate_episodes(
        self, tasks: Sequence[Task | Mapping[str, Any]], max_steps: int = 50, timeout: float = 60.0
    ) -> list[SelfPlayEpisode]:
        """One attempt at each task, all at once, each within its own time limit.

        All worlds are made before the first search begins, one after the other: who shares a batch then depends on no
        clock, as it may where `generate_episode` is called many times.
        """
        known = [as_task(task) for task in tasks]
        makers = [self._maker(task) for task in known]
        begun = [await self._begin(task, make, timeout) for task, make in zip(known, makers, strict=True)]
        return list(await asyncio.gather(*(self._finish(attempt, max_steps) for attempt in begun)))

    def _maker(self, task: Task) -> MakeWorld:
        make = self.worlds.get(task.kind)
        if make is TASK_WORLDS.get(task.kind) and not task.data and task.answer is not None:
            make = None
        elif make is None and task.answer is None:
            raise DataError(
                f"task {task.id!r} is of type {task.kind!r}, which has no world{did_you_mean(task.kind, self.worlds)}, "
                "and names no answer to check; pass worlds={type: ...}"
            )
        return make or answer_world

    async def _begin(self, task: Task, make: MakeWorld, timeout: float) -> _Attempt:
        """The attempt at its first state, or out of time before it has a world."""
        began = time.monotonic()
        attempt = _Attempt(task, self.episode_count, timeout, 0.0)
        self.episode_count += 1
        shown = Task(task.id, task.kind, task.prompt, task.data, task.difficulty)  # neither answer nor solution
        try:
            async with asyncio.timeout(timeout) as limit:
                attempt.world, attempt.initial, symmetries = await in_thread(_entered, make, shown)
        except TimeoutError:
            if not limit.expired():  # it is the world's own
                self._count(Outcome.ERROR)
                raise
            return attempt
        except Exception:
            self._count(Outcome.ERROR)
            raise
        attempt.state = attempt.initial
        attempt.to_play = attempt.first = getattr(attempt.world, "first_player", 0)
        attempt.symmetries = self._named(symmetries)
        attempt.left = timeout - (time.monotonic() - began)
        return attempt

    async def _finish(self, attempt: _Attempt, max_steps: int) -> SelfPlayEpisode:
        outcome, notes = Outcome.TIMEOUT, {"reason": f"longer than {attempt.timeout:g} s"}
        if attempt.world is not None:
            try:
                async with asyncio.timeout(attempt.left) as limit:
                    await self._play(attempt, max_steps)
                    outcome, notes, pay = await in_thread(_verdict, attempt)
                if pay:
                    attempt.rewards[-1] += pay
            except (ConfigError, MissingExtra, TrainingError):
                raise
            except Exception as error:  # a failed episode is data
                if not (isinstance(error, TimeoutError) and limit.expired()):
                    outcome, notes = Outcome.ERROR, {"error": _said(error)}
        self._count(outcome)
        return _episode(attempt, outcome, {"discount": self.config.discount, **notes})

    async def _play(self, attempt: _Attempt, max_steps: int) -> None:
        while not attempt.over and len(attempt.actions) < max_steps:
            found = await self._run_mcts_simulation(attempt)
            attempt.see(found)
            self._execute_action(attempt, found)
        attempt.see()

    async def _run_mcts_simulation(self, attempt: _Attempt) -> Found:
        """Searches from where an attempt stands."""
        step = len(attempt.actions)
        return await self._ticker(attempt.world).search(
            attempt.world, attempt.state, to_play=attempt.to_play, moves=step,
            generator=self._noise(attempt.index, step, 0), trace=True,
        )  # fmt: skip

    def _execute_action(self, attempt: _Attempt, found: Found) -> None:
        """Plays what a search chose, by the rules of the world, and rolls what chance decides then."""
        world, mover = attempt.world, attempt.to_play
        place = found.actions.index(found.action)
        encode = getattr(world, "encode", None)
        if world.actions is not None:
            attempt.legal.append(np.array(found.actions, np.int64))
        elif encode is not None:
            attempt.legal.append(np.stack([encode(attempt.state, action) for action in found.actions]))
        else:
            attempt.legal.append(None)
        attempt.policies.append(found.policy)
        attempt.chosen.append(place)
        name, share = action_id(found.action), float(found.policy[place])
        kind = name.split(" ", 1)[0] if isinstance(found.action, str) and name.startswith("answer ") else "act"
        told: dict[str, Any] = {"place": place, "player": mover}
        if isinstance(world, TaskWorld):
            told["says"] = world.says(attempt.state, found.action)
        attempt.actions.append(Action(name, kind, told, time.time(), share))
        assert found.trace is not None
        attempt.traces.append(found.trace)
        state, reward, done, to_play = world.step(attempt.state, found.action)
        total = reward if mover == attempt.first else -reward
        noise = self._noise(attempt.index, len(attempt.actions), 1)
        chance = getattr(world, "chance", lambda state: ())
        while not done and (pairs := chance(state)):
            roller = to_play
            outcome = noise.choice(len(pairs), p=[probability for _, probability in pairs])
            state, reward, done, to_play = world.step(state, pairs[outcome][0])
            total += reward if roller == attempt.first else -reward
        attempt.rewards.append(float(total))
        attempt.state, attempt.done, attempt.to_play = state, done, to_play

    def _named(self, symmetries: tuple[Symmetry, ...]) -> str:
        """A name by their content, under which they can be found; "" for none but the identity."""
        if len(symmetries) < 2:
            return ""
        parts = [part for one in symmetries for part in (one.cells, one.actions)]
        name = state_id(np.concatenate([np.asarray(part, np.int64).reshape(-1) for part in parts]))
        self.symmetries.setdefault(name, symmetries)
        return name

    def _count(self, outcome: Outcome) -> None:
        counter = f"{outcome.value}_count"
        setattr(self, counter, getattr(self, counter) + 1)

    # ------------------------------------------------------------------------------------------ searches

    def _noise(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, *key])

    def _ticker(self, world: Game) -> Ticker:
        """The one search for all worlds of this family."""
        family = Family.of(world)
        if family not in self._tickers:
            judge = self._judge(family, world)
            threads = self._threads and not isinstance(judge, UniformEvaluator)
            self._tickers[family] = Ticker(
                judge, self.config, slots=self._slots, generator=self._noise(), explore=self.explore, threads=threads,
                returns=RETURNS if isinstance(world, TaskWorld) else None,
            )  # fmt: skip
        return self._tickers[family]

    def _judge(self, family: Family, world: Game) -> Evaluator | Proposer:
        if hasattr(self.hrm_agent, "propose"):
            if family.actions is not None:
                raise ConfigError("hrm_agent proposes actions, and the world's are fixed; give it worlds of candidates")
            proposer: Proposer = self.hrm_agent
            return proposer
        policy, value = self.hrm_agent, self.trm_agent
        if self._networks is not None:
            policy = value = self._networks(family)
        if policy is None and value is None:
            return UniformEvaluator(sum(RETURNS) / 2 if isinstance(world, TaskWorld) else 0.0)
        evaluator = AgentEvaluator(family, policy, value, self.device, getattr(world, "encode", None))
        self._evaluators.append(evaluator)
        return evaluator


def _entered(make: MakeWorld, task: Task) -> tuple[Game, Any, tuple[Symmetry, ...]]:
    """(the world of a task, its first state, its symmetries)."""
    world = make(task)
    symmetries = getattr(world, "symmetries", None)
    found = tuple(symmetries()) if symmetries is not None and world.actions is not None else ()
    return world, world.initial(), found


def _verdict(attempt: _Attempt) -> tuple[Outcome, dict[str, Any], float]:
    """(the verdict, why, what an answer is paid); the only place that reads the task's answer. It changes nothing, as
    it may be given up."""
    if not attempt.over:
        reason = f"no end after {len(attempt.actions)} actions"
        return Outcome.FAILURE, {"max_steps_reached": True, "reason": reason}, 0.0
    answer, task = attempt.answered, attempt.task
    if answer is not None:
        unknowns = task.data.get("unknowns", ())
        right = task.answer is not None and answers_equal(answer, str(task.answer), unknowns=unknowns)
        return _outcome(right), {"answer": answer, "complete": True, "judged_by": "answer"}, float(right)
    result = sum(attempt.rewards)
    if isinstance(attempt.world, TaskWorld):
        return _verified(attempt.world, attempt, result)
    exact = exact_value(attempt.world) if isinstance(attempt.world, PlayedOn) else None
    reached = result > 0 if exact is None else result >= exact - 1e-9
    judge = {"judged_by": "win"} if exact is None else {"judged_by": "exact value", "exact_value": exact}
    return _outcome(reached), {"result": result, "complete": True, **judge}, 0.0


def _verified(world: TaskWorld, attempt: _Attempt, result: float) -> tuple[Outcome, dict[str, Any], float]:
    """The verdict of the task's family. An episode is worth what its world paid; where that is nothing, since only the
    answer decides, a success is worth 1, and it is an `answer` as in propose-and-check. What the world took for solved
    and the verdict does not is worth nothing."""
    submission = world.submission(attempt.state)
    right = world.solved(attempt.task, submission)
    notes = {"submission": submission, "result": result, "complete": True, "judged_by": "verifier"}
    if right and not result:
        return Outcome.SUCCESS, {**notes, "answer": submission}, 1.0
    return _outcome(right), notes, -result if result >= 1.0 and not right else 0.0


def _outcome(right: bool) -> Outcome:
    return Outcome.SUCCESS if right else Outcome.FAILURE


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _episode(attempt: _Attempt, outcome: Outcome, notes: dict[str, Any]) -> SelfPlayEpisode:
    metadata = {
        "index": attempt.index,
        "type": attempt.task.kind,
        "query": attempt.task.prompt,
        "difficulty": attempt.task.difficulty,
        "family": None if attempt.world is None else Family.of(attempt.world)._asdict(),
        "symmetries": attempt.symmetries,
        "to_play": attempt.movers,
        "legal": attempt.legal,
        "policies": attempt.policies,
        "chosen": attempt.chosen,
        "done": attempt.done,
        "complete": False,
        "max_steps_reached": False,
        **notes,
    }
    initial = attempt.states[0].raw_state if attempt.states else attempt.initial
    return SelfPlayEpisode(
        attempt.task.id, initial, attempt.actions, attempt.states, attempt.rewards, attempt.traces, outcome, metadata
    )
