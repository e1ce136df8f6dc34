"""`TaskTrainer`: attempt, learn, judge, promote or keep; expert iteration over tasks with exact verifiers.

    result = TaskTrainer({"tasks": {"family": "math"}}).train()
    result.improved, result.difference

Search finds better actions than the network alone, the network learns them, and searches on from there (Silver et al.
2018; Anthony et al. 2017, arXiv:1705.08439). Whether anything came of it is said by tasks that nobody has seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.config import load
from troupe.engines.runtimes import choose
from troupe.episode import Task
from troupe.errors import ConfigError
from troupe.search.search import kernels_of
from troupe.stores.opening import Stopwatch, open_run
from troupe.systems.selfplay.pupil import Pupil, copied
from troupe.systems.selfplay.verifiable import state
from troupe.systems.selfplay.verifiable.attempts import Attempts
from troupe.systems.selfplay.verifiable.config import ALIASES, VerifiableConfig
from troupe.systems.selfplay.verifiable.desk import TaskDesk, network, runtime_of
from troupe.systems.selfplay.verifiable.families import (
    corrupted,
    family_of,
    held_out,
    marks_of,
    training_tasks,
)
from troupe.systems.selfplay.verifiable.results import FinalResult, TaskResult, final_result
from troupe.systems.selfplay.workers import Crew, arrays_of, chunk_sizes
from troupe.tasks.splits import fingerprint
from troupe.training.curriculum import DifficultyWindow
from troupe.training.evaluation import Decision, Gate, Report, TaskScore

__all__ = ["TaskTrainer"]

Progress = Callable[[str, int, int, Mapping[str, float]], None]
Weights = dict[str, dict[str, Tensor]]
"""By kind, by the name of a tensor."""

UNTRAINED = "untrained"
"""Name of the first incumbent: the networks that the run starts from."""

_TRAIN, _LEARN, _GATE, _FINAL, _SHUFFLE, _CORRUPT = range(1, 7)
"""What a seed is for."""


class TaskTrainer:
    """Trains a network for each kind of a family of tasks.

    The folder `trainer.default_local_dir` holds the whole run, and a second call continues it. A `generator` class that
    is given in code takes the place of the family that the config names. Raises ConfigError for a family that cannot be
    searched or networks that cannot read it.
    """

    def __init__(
        self,
        config: VerifiableConfig | Mapping[str, Any] | None = None,
        *,
        generator: Any = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = _as_config(config)
        self.given = generator
        if generator is not None:
            hidden = generator.__module__ == "__main__" or "<locals>" in generator.__qualname__
            if hidden and self.config.acting.workers:
                raise ConfigError(
                    f"the class {generator.__name__} stands in the script that is run or in a function, where worker "
                    "processes cannot import it; put it into a module, or write acting.workers=0"
                )
            name = f"{generator.__module__}:{generator.__qualname__}"
            tasks = self.config.tasks.model_copy(update={"family": name})
            self.config = self.config.model_copy(update={"tasks": tasks})
        torch.set_num_threads(self.config.trainer.threads)
        kernels_of(self.config.search.kernels)  # fails here, and not in a worker
        self.folder = Path(self.config.trainer.default_local_dir)
        self.family = family_of(self.config.tasks, generator)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        acting, tasks = self.config.acting, self.config.tasks
        kinds = len(self.family.kinds)
        for key, size in (("acting.tasks", acting.tasks), ("tasks.gate", tasks.gate), ("tasks.final", tasks.final)):
            if size < kinds:
                raise ConfigError(f"{key}={size} is fewer than the {kinds} kinds of tasks; write {kinds} or more")
        sizes = (tasks.gate, tasks.final)
        self.gate_tasks, self.final_tasks = held_out(self.family, sizes, self.config.seed)
        self._reserved = marks_of([self.gate_tasks, self.final_tasks])
        self._games = {kind: self.family.game(kind) for kind in self.family.kinds}
        for game in self._games.values():  # fails here, and not in a worker after the folder was begun
            runtime = runtime_of(self.config, game)
            if game.vocabulary and runtime[0] != "torch":
                raise ConfigError(f"acting.runtime={runtime[0]} runs no networks of tokens; write torch, or auto")
            choose(*runtime, "cpu")
        self._begin()

    def _begin(self) -> None:
        """Everything as it stands before the first iteration."""
        config, curriculum = self.config, self.config.curriculum
        self.iteration = 0  # done
        self.pupils: dict[str, Pupil] = {}
        self.windows: dict[str, DifficultyWindow] = {}
        for place, (kind, game) in enumerate(self._games.items()):
            symmetries = getattr(game, "symmetries", tuple)
            self.pupils[kind] = Pupil(
                network(config, game, config.seed), config.learning, iterations=config.trainer.iterations,
                seed=(config.seed, _LEARN, place), symmetries=tuple(symmetries()),
            )  # fmt: skip
            least, greatest = self.family.range_of(kind)
            width = curriculum.width if curriculum.enabled else 1.0
            self.windows[kind] = DifficultyWindow(
                least, greatest, width, low=curriculum.low, high=curriculum.high, step=curriculum.step
            )
        self.start: Weights = {kind: copied(pupil.net) for kind, pupil in self.pupils.items()}
        self.champion: Weights = self._copies(self.start)
        self.champion_name = UNTRAINED
        self.acting: Weights = self._copies(self.start)  # that attempt the iteration under way
        self.ranges = {kind: window.range for kind, window in self.windows.items()}  # of its tasks
        self.incumbent: Report | None = None  # on the gate's tasks
        self.decisions: list[tuple[int, str, Decision]] = []  # iteration, incumbent, verdict

    # ------------------------------------------------------------------------------------------ the run

    def train(self) -> TaskResult:
        """Runs to the last iteration, from wherever the run folder stands. Raises TrainingError, StorageError."""
        total = self.config.trainer.iterations
        with ExitStack() as opened:
            self._open(opened)
            while self.iteration < total:
                metrics = self._one_iteration(total)
                self.tracker.log(metrics, self.iteration)
                self.progress("tasks", self.iteration, total, metrics)
                if self.iteration % self.config.trainer.save_freq == 0 or self.iteration == total:
                    state.save(self, metrics)
            final = self._final()
        return state.result(self, final)

    def _one_iteration(self, total: int) -> dict[str, float]:
        """Attempt -> learn -> judge -> promote or keep."""
        began = time.perf_counter()
        found = list(zip(self._jobs_kinds(), self.crew.gather(self.iteration), strict=True))
        waited = time.perf_counter()
        metrics = self._took(found)
        if self.config.acting.ahead:
            self._order(self.iteration + 1, total)  # before learning, so that both go on at once
        for kind, pupil in self.pupils.items():
            new = sum(attempts.chunk.positions for of, attempts in found if of == kind)
            metrics |= {f"{kind}/{name}": value for name, value in pupil.learn(new, self.iteration).items()}
        learned = time.perf_counter()
        self.iteration += 1
        if self.iteration % self.config.judge.every == 0 or self.iteration == total:
            metrics |= self._judge()
        if not self.config.acting.ahead:
            self._order(self.iteration, total)
        ended = time.perf_counter()
        times = {"time/waited_s": waited - began, "time/learn_s": learned - waited, "time/judge_s": ended - learned}
        self.tracker.log_timing(times | self._watch.lap(self.crew.cpu_seconds), self.iteration)
        return metrics

    def _took(self, found: Sequence[tuple[str, Attempts]]) -> dict[str, float]:
        """New positions into the windows of replay, success into those of difficulty."""
        metrics: dict[str, float] = {}
        for place, (kind, pupil) in enumerate(self.pupils.items()):
            own = [attempts for of, attempts in found if of == kind]
            for number, attempts in enumerate(own):
                pupil.replay.append(self._shown(attempts.chunk.columns, (place, number)))
            successes = np.concatenate([attempts.successes for attempts in own])
            if self.config.curriculum.enabled:
                self.windows[kind].record(int(successes.sum()), len(successes))
            lengths = np.concatenate([attempts.chunk.lengths for attempts in own])
            metrics |= {
                f"{kind}/success": float(successes.mean()),
                f"{kind}/length": float(lengths.mean()),
                f"{kind}/disputed": float(sum(attempts.disputed for attempts in own)),
                f"{kind}/difficulty": sum(self.ranges[kind]) / 2,
                f"{kind}/replay": float(len(pupil.replay)),
            }
            for name in own[0].chunk.counts:
                metrics[f"{kind}/{name}"] = sum(attempts.chunk.counts[name] for attempts in own)
        metrics["tasks/success"] = float(np.mean([metrics[f"{kind}/success"] for kind in self.pupils]))
        metrics["tasks/attempts"] = float(self.config.acting.tasks)
        return metrics

    def _shown(self, columns: Mapping[str, np.ndarray], key: tuple[int, int]) -> Mapping[str, np.ndarray]:
        """What the learner is shown; with tasks.control=permuted, nothing that belongs together."""
        if self.config.tasks.control != "permuted":
            return columns
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, _SHUFFLE, self.iteration, *key]))
        order = rng.permutation(len(columns["value"]))
        rows = zip(columns["policy"], columns["legal"], strict=True)
        policy = np.stack([_shuffled(policy, legal, rng) for policy, legal in rows])
        return {**columns, "observations": columns["observations"][order], "policy": policy}

    # ------------------------------------------------------------------------------------------ attempts

    def _order(self, iteration: int, total: int) -> None:
        self.acting = self._copies({kind: pupil.averaged for kind, pupil in self.pupils.items()})
        self.ranges = {kind: window.range for kind, window in self.windows.items()}
        if iteration < total:
            self._ask(iteration)

    def _parts(self) -> list[tuple[str, int, int, int]]:
        """(kind, its place, number, size) of the jobs of an iteration."""
        kinds, acting = self.family.kinds, self.config.acting
        return [
            (kind, place, number, size)
            for place, kind in enumerate(kinds)
            for number, size in enumerate(chunk_sizes(len(range(place, acting.tasks, len(kinds))), acting.chunk))
        ]

    def _jobs_kinds(self) -> list[str]:
        return [kind for kind, *_ in self._parts()]

    def _ask(self, iteration: int) -> None:
        """The crew for the attempts of an iteration, with the weights `acting` at tasks of `ranges`."""
        seed, arrays = self.config.seed, {kind: arrays_of(weights) for kind, weights in self.acting.items()}
        jobs = []
        for kind, place, number, size in self._parts():
            key = (seed, _TRAIN, iteration, place, number)
            tasks = training_tasks(self.family, kind, self.ranges[kind], size, key, self._reserved[kind])
            if self.config.tasks.control == "corrupted":
                tasks = corrupted(self.family, tasks, (seed, _CORRUPT, iteration, place, number))
            jobs.append((kind, tasks, key, arrays[kind], True))
        self.crew.order(iteration, jobs)

    def _attempted(self, tasks: Mapping[str, list[Task]], weights: Weights | None, purpose: int) -> dict[str, Attempts]:
        """Held-out tasks, without exploration; the same seeds whoever is judged. Without weights, nobody judges."""
        jobs = [
            (
                kind,
                some,
                (self.config.seed, purpose, place),
                None if weights is None else arrays_of(weights[kind]),
                False,
            )
            for place, (kind, some) in enumerate(tasks.items())
            if some
        ]
        self.crew.order(("held out", purpose), jobs)
        return dict(zip([job[0] for job in jobs], self.crew.gather(("held out", purpose)), strict=True))

    # ------------------------------------------------------------------------------------------ judging

    def _judge(self) -> dict[str, float]:
        averaged = {kind: pupil.averaged for kind, pupil in self.pupils.items()}
        candidate = self._report(f"iteration {self.iteration}", averaged)
        if self.incumbent is None:
            self.incumbent = self._report(self.champion_name, self.champion)
        decision = Gate(confidence=self.config.judge.confidence).decide(candidate, self.incumbent)
        self.decisions.append((self.iteration, self.champion_name, decision))
        if decision.promote:
            self.champion, self.champion_name = self._copies(averaged), candidate.name
            self.incumbent = candidate
        elif self.config.judge.after_rejection == "incumbent":
            for kind, pupil in self.pupils.items():
                pupil.roll_back(self.champion[kind])
        rates = {f"gate/{kind}": candidate.success([kind]).mean for kind in candidate.kinds()}
        return {"gate/success": candidate.success().mean, **rates, "gate/promoted": float(decision.promote)}

    def _report(self, name: str, weights: Weights) -> Report:
        found = self._attempted(self.gate_tasks, weights, _GATE)
        scores = [
            TaskScore(fingerprint(task), kind, int(success), 1)
            for kind, attempts in found.items()
            for task, success in zip(self.gate_tasks[kind], attempts.successes.tolist(), strict=True)
        ]
        return Report(name, tuple(scores))

    def _final(self) -> FinalResult:
        """The champion beside the untrained networks, on tasks that had no part in anything before."""
        known = state.known_final(self)
        if known is not None:
            return known
        before = self._attempted(self.final_tasks, self.start, _FINAL)
        after = before
        if self.champion_name != UNTRAINED:
            after = self._attempted(self.final_tasks, self.champion, _FINAL)
        uniform = self._attempted(self.final_tasks, None, _FINAL)
        final = final_result(self.final_tasks, before, after, uniform, self.config.judge.confidence)
        state.write_final(self, final)
        return final

    # ------------------------------------------------------------------------------------------ start and resume

    def _open(self, opened: ExitStack) -> None:
        """The run folder, and the run as it stands in there. What must be closed is left to `opened`."""
        self._watch = Stopwatch()
        self.store, self.tracker = open_run(
            self.folder, self.config, VerifiableConfig(), state.MAY_CHANGE, "gate/success", opened
        )  # fmt: skip
        self._begin()  # an earlier call may have been stopped in the midst of its work
        state.restore(self)
        self.crew = Crew(self.config.acting.workers, partial(TaskDesk, self.config, self.given))
        opened.callback(lambda: self.tracker.log_timing(self._watch.lap(self.crew.cpu_seconds), self.iteration))
        opened.callback(self.crew.close)
        if self.iteration < self.config.trainer.iterations:
            self._ask(self.iteration)

    @staticmethod
    def _copies(weights: Mapping[str, Mapping[str, Tensor]]) -> Weights:
        return {kind: {name: tensor.clone() for name, tensor in own.items()} for kind, own in weights.items()}


def _shuffled(policy: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same probabilities at other legal actions."""
    edges = np.flatnonzero(legal)
    out = policy.copy()
    out[edges] = policy[rng.permutation(edges)]
    return out


def _as_config(config: Any) -> VerifiableConfig:
    if isinstance(config, VerifiableConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(VerifiableConfig, preset=config or {}, aliases=ALIASES).config
    raise ConfigError(f"config must be a VerifiableConfig or a mapping, found {type(config).__name__}")
