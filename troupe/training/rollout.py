"""Episodes from a workflow and an engine.

Every episode runs as a coroutine under a semaphore and a time limit. One that raises, hangs or outgrows its limits is
recorded with its outcome and never stops its siblings; an engine that raises stops the run. What hangs in a thread, and
a reward that hangs, is left behind at the limit; a workflow that blocks the event loop itself cannot be stopped.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.agents import AgentSpec, PromptTooLong, Team, Wave
from troupe.episode import Episode, Outcome, StopReason, Task
from troupe.errors import CreditError, UserError
from troupe.handles import EpisodeHandle, TrajectoryHandle
from troupe.protocols import Engine, Workflow
from troupe.threads import in_thread, within

__all__ = ["Job", "RolloutSettings", "run_episodes", "run_episodes_sync", "run_one"]

PAYERS = 32
"""Episodes that are paid at the same time."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one task."""

    task: Task
    rollout: int = 0

    def id(self, purpose: str) -> str:
        return f"{purpose}/{self.task.id}/{self.rollout}"


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How episodes are run. `key` starts the noise key of every call: (run seed, update) or (run seed, purpose)."""

    key: tuple[Any, ...]
    purpose: str
    parallel: int = 1024
    timeout: float | None = None  # seconds to run, not counting the wait for its siblings, and to pay; never exact


async def run_episodes(
    jobs: Sequence[Job],
    make_workflow: Callable[[], Workflow],
    engine: Engine,
    agents: Mapping[str, AgentSpec],
    settings: RolloutSettings,
    *,
    pay: bool = True,
) -> list[Episode]:
    """Runs all jobs; episodes come back in the order of the jobs. `pay=False` runs without answers, as in deployment.

    The workflow sees `task.problem`; its `reward(task, episode)` pays afterwards, on the mutable handles, in a thread
    beside those of other episodes. Raises what the engine raised, and CreditError or another UserError of a workflow
    that does not fit its agents: those are failed programs, not failed episodes.
    """
    wave = Wave(engine)
    gate, payers = asyncio.Semaphore(settings.parallel), asyncio.Semaphore(PAYERS)

    async def one(job: Job) -> Episode:
        workflow = make_workflow()
        async with gate:  # not while it is paid: how long that takes must not decide who joins which wave
            handle = await _run(job, workflow, wave, agents, settings, pay=pay)
        async with payers:  # hidden tests take seconds
            await _reward_beside(job, workflow, handle, settings.timeout)
        episode = handle.freeze()
        if wave.failure is not None:
            raise wave.failure
        return episode

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(job)) for job in jobs]
    return [task.result() for task in tasks]


def run_episodes_sync(*args: Any, **kwargs: Any) -> list[Episode]:
    """`run_episodes` in an event loop of its own; the first error of a failed program is raised as it is."""
    try:
        return asyncio.run(run_episodes(*args, **kwargs))
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def run_one(
    job: Job,
    workflow: Workflow,
    wave: Wave,
    agents: Mapping[str, AgentSpec],
    settings: RolloutSettings,
) -> Episode:
    """One attempt among those of the wave. What fails inside is recorded in the episode."""
    handle = await _run(job, workflow, wave, agents, settings, pay=True)
    began = time.monotonic()
    try:  # at once: in a stream the order in which episodes end decides what comes next
        within(settings.timeout, _reward, job, workflow, handle)
    except TimeoutError:
        _unpaid(handle, settings.timeout)
    wave.excuse(time.monotonic() - began)
    return handle.freeze()


async def _run(
    job: Job,
    workflow: Workflow,
    wave: Wave,
    agents: Mapping[str, AgentSpec],
    settings: RolloutSettings,
    *,
    pay: bool,
) -> EpisodeHandle:
    key = (*settings.key, job.task.id, job.rollout)
    handle = EpisodeHandle(id=job.id(settings.purpose), task_id=job.task.id, group=f"{settings.purpose}/{job.task.id}")
    handle.metadata["kind"] = job.task.kind
    if not pay:
        handle.metadata["unpaid"] = True  # nobody knows whether it is right
    team = Team(agents, wave, handle, key)
    limit = asyncio.timeout(settings.timeout)
    wave.enter(handle.id, limit)
    try:
        async with limit:
            returned = await workflow.run(job.task.problem, team)
        _adopt(handle, returned)
    except Exception as found:
        error = _cause(found)
        if isinstance(error, UserError):
            raise error from None
        if isinstance(error, PromptTooLong):
            _fail(handle, Outcome.TRUNCATED, StopReason.PROMPT_TOO_LONG, str(error))
        elif isinstance(error, TimeoutError) and limit.expired():  # not a tool's own
            _fail(handle, Outcome.TIMEOUT, StopReason.TIMEOUT, f"longer than {settings.timeout} s")
        else:
            _fail(handle, Outcome.ERROR, StopReason.ERROR, _describe(error))
    finally:
        wave.leave(handle.id)
    return handle


def _reward(job: Job, workflow: Workflow, handle: EpisodeHandle) -> None:
    """Pays the episode, unless nobody knows the answer or it ended for no policy's fault."""
    if "unpaid" in handle.metadata or handle.outcome in (Outcome.TIMEOUT, Outcome.ERROR):
        return
    truncated = handle.outcome is Outcome.TRUNCATED
    try:
        workflow.reward(job.task, handle)
    except UserError:
        raise
    except Exception as error:
        _fail(handle, Outcome.ERROR, StopReason.ERROR, _describe(error))
    if truncated and handle.outcome is Outcome.FAILURE:
        handle.outcome = Outcome.TRUNCATED


async def _reward_beside(job: Job, workflow: Workflow, handle: EpisodeHandle, timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await in_thread(_reward, job, workflow, handle)
    except TimeoutError:  # of ours: what a reward raises is dealt with in its thread
        _unpaid(handle, timeout)


def _unpaid(handle: EpisodeHandle, timeout: float | None) -> None:
    """The reward hangs: its episode teaches nothing, whatever was paid by then."""
    for trajectory in handle.trajectories:
        trajectory.reward = None
        for step in trajectory.steps:
            step.reward = None
    _fail(handle, Outcome.TIMEOUT, StopReason.TIMEOUT, f"its reward took longer than {timeout} s")


def _adopt(handle: EpisodeHandle, returned: Any) -> None:
    """A workflow returns nothing (its calls were recorded), its trajectories, or a mapping of metrics."""
    if returned is None:
        pass
    elif isinstance(returned, Mapping):
        handle.metrics.update(returned)
    elif isinstance(returned, Sequence) and all(isinstance(t, TrajectoryHandle) for t in returned):
        known = {id(t) for t in handle.trajectories}
        handle.trajectories += [t for t in returned if id(t) not in known]
    elif returned is not handle:
        raise CreditError(
            "a workflow's run() must return None, its trajectories or a mapping of metrics; "
            f"found {type(returned).__name__}"
        )
    if not any(t.steps for t in handle.trajectories):
        raise RuntimeError("the workflow ended without a single step: no agent was asked")


def _fail(handle: EpisodeHandle, outcome: Outcome, reason: StopReason, why: str) -> None:
    handle.outcome = outcome
    handle.metadata["error"] = why
    if handle.trajectories and handle.trajectories[-1].stop_reason in (StopReason.UNKNOWN, StopReason.DONE):
        handle.trajectories[-1].stop_reason = reason


def _cause(error: Exception) -> Exception:
    """What a task group's group of errors was about: a user's mistake before all, then a prompt that is too long."""
    if not isinstance(error, ExceptionGroup):
        return error
    causes = [_cause(part) for part in error.exceptions]
    return next((c for kind in (UserError, PromptTooLong, Exception) for c in causes if isinstance(c, kind)), error)


def _describe(error: Exception) -> str:
    """The error and the line that raised it: an episode's record must say why it failed."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
