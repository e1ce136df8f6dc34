"""Where an update's episodes come from: all at once, with groups that teach nothing replaced, or from a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from troupe.agents import AgentSpec
from troupe.engines.local import LocalEngine
from troupe.episode import Episode, Task
from troupe.errors import TrainingError
from troupe.protocols import Workflow
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.training.credit import trainable
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.training.stream import EpisodeStream, staleness

__all__ = ["Collected", "Collector", "has_signal"]


def has_signal(attempts: Sequence[Episode], agents: Sequence[str]) -> bool:
    """Whether some agent's attempts at one task were paid differently: nothing else tells group estimators apart.

    What nobody paid, and what is not trained on, tells nothing.
    """
    tried = [t for episode in trainable(attempts) for t in episode.trajectories if t.is_paid]
    return any(len({t.total_reward for t in tried if t.agent == agent}) > 1 for agent in agents)


@dataclass(frozen=True, slots=True)
class Collected:
    """Attempts of one update: those to learn from; those that were made and left out, with the reason in
    `metadata["left_out"]` (`no signal`, `not needed` or `stale`); and counts."""

    kept: list[Episode]
    left_out: list[Episode]
    counts: dict[str, float]


def _left_out(episodes: Sequence[Episode], why: str) -> list[Episode]:
    return [replace(episode, metadata={**episode.metadata, "left_out": why}) for episode in episodes]


class Collector:
    """Attempts at the training tasks, one update's worth at a time.

    Tasks come in an endless order that depends on the seed alone: permuted anew in every epoch, whole batches only.
    `cursor` is the place in it, and all that a checkpoint must hold.
    """

    def __init__(
        self,
        config: WorkflowRLConfig,
        tasks: Sequence[Task],
        make_workflow: Callable[[], Workflow],
        engine: LocalEngine,
    ) -> None:
        self.config, self.tasks, self.make_workflow, self.engine = config, list(tasks), make_workflow, engine
        self.batch_size = min(config.data.train_batch_size, len(self.tasks))
        self.cursor = 0
        self._stream: EpisodeStream | None = None

    @property
    def updates_per_epoch(self) -> int:
        return len(self.tasks) // self.batch_size

    def collect(
        self, update: int, specs: Mapping[str, AgentSpec], learning: Sequence[str], versions: Mapping[str, int]
    ) -> Collected:
        """`versions` are those of the policies that learn; staleness is counted against them."""
        if self.config.rollout.mode == "async":
            found = self._from_stream(specs, learning, versions)
        elif self.config.rollout.filter_groups:
            found = self._filtered(update, specs, learning)
        else:
            found = Collected(self._attempt(self._next(self.batch_size), update, 0, specs), [], {})
        ages = [staleness(episode, versions) for episode in found.kept]
        found.counts["rollout/staleness_mean"] = sum(ages) / max(1, len(ages))
        found.counts["rollout/staleness_max"] = float(max(ages, default=0))
        return found

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    # ------------------------------------------------------------------------------------------ at once

    def _filtered(self, update: int, specs: Mapping[str, AgentSpec], learning: Sequence[str]) -> Collected:
        """Rounds of attempts until enough groups have a signal. Where too few are found, those are all there are."""
        rollout = self.config.rollout
        kept: list[Episode] = []
        left_out: list[Episode] = []
        groups = attempted = 0
        for number in range(rollout.max_rounds):
            missing = self.batch_size - groups
            tasks = self._next(math.ceil(rollout.oversample * missing))
            episodes = self._attempt(tasks, update, number, specs)
            attempted += len(tasks)
            for i in range(0, len(episodes), rollout.n):
                attempts = episodes[i : i + rollout.n]
                if not has_signal(attempts, learning):
                    left_out += _left_out(attempts, "no signal")
                elif groups < self.batch_size:
                    kept += attempts
                    groups += 1
                else:
                    left_out += _left_out(attempts, "not needed")
            if groups == self.batch_size:
                break
        counts = {"rollout/groups_attempted": float(attempted), "rollout/groups_kept": float(groups)}
        return Collected(kept, left_out, counts | {"rollout/rounds": float(number + 1)})

    def _attempt(
        self, tasks: Sequence[Task], update: int, number: int, specs: Mapping[str, AgentSpec]
    ) -> list[Episode]:
        config = self.config
        jobs = [Job(task, rollout) for task in tasks for rollout in range(config.rollout.n)]
        again = f".{number}" if number else ""
        settings = RolloutSettings(
            key=(config.seed, f"{update}{again}" if again else update),
            purpose=f"update{update}{again}",
            parallel=config.workflow.n_parallel_tasks,
            timeout=config.workflow.timeout,
        )
        return run_episodes_sync(jobs, self.make_workflow, self.engine, specs, settings)

    def _next(self, count: int) -> list[Task]:
        return [self._at_cursor() for _ in range(count)]

    def _at_cursor(self) -> Task:
        whole = self.updates_per_epoch * self.batch_size
        epoch, place = divmod(self.cursor, whole)
        self.cursor += 1
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return self.tasks[int(torch.randperm(len(self.tasks), generator=generator)[place])]

    def _endless(self) -> Iterator[Task]:
        while True:
            yield self._at_cursor()

    # ------------------------------------------------------------------------------------------ from a stream

    def _from_stream(
        self, specs: Mapping[str, AgentSpec], learning: Sequence[str], versions: Mapping[str, int]
    ) -> Collected:
        """Groups as they are completed. Too old episodes are dropped (or counted, where they are weighted), and so are
        groups without a signal where groups are filtered; others take their place."""
        rollout = self.config.rollout
        weighted = rollout.stale == "weight"
        if self._stream is None:
            self._stream = self._open(specs)
        kept: list[Episode] = []
        left_out: list[Episode] = []
        counts = {"rollout/stale_dropped": 0.0, "rollout/stale_weighted": 0.0, "rollout/groups_without_signal": 0.0}
        groups = tried = 0
        while groups < self.batch_size:
            (attempts,) = self._stream.take(1)
            tried += 1
            if tried > 100 * self.batch_size:
                raise TrainingError(
                    f"of {tried} tasks only {groups} could be learned from; rollout.max_staleness="
                    f"{rollout.max_staleness} or rollout.filter_groups drops nearly all of them"
                )
            fresh = []
            for episode in attempts:
                if staleness(episode, versions) > rollout.max_staleness:
                    counts["rollout/stale_weighted" if weighted else "rollout/stale_dropped"] += 1
                    if not weighted:
                        left_out += _left_out([episode], "stale")
                        continue
                fresh.append(episode)
            if not fresh:
                continue
            if rollout.filter_groups and not has_signal(fresh, learning):
                counts["rollout/groups_without_signal"] += 1
                left_out += _left_out(fresh, "no signal")
                continue
            kept += fresh
            groups += 1
        return Collected(kept, left_out, counts)

    def _open(self, specs: Mapping[str, AgentSpec]) -> EpisodeStream:
        config = self.config
        settings = RolloutSettings(
            key=(config.seed, f"stream{self.cursor}"),
            purpose=f"stream{self.cursor}.",
            timeout=config.workflow.timeout,
        )
        wanted = math.ceil(config.rollout.oversample * self.batch_size)
        return EpisodeStream(
            self._endless(), config.rollout.n, self.make_workflow, self.engine, specs, settings,
            in_flight=max(1, min(wanted, config.workflow.n_parallel_tasks // config.rollout.n)),
        )  # fmt: skip
