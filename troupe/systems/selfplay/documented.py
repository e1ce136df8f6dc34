"""Document 001's trainer: play, extract, learn, compare with the incumbent, keep or roll back.

    trainer = SelfPlayTrainer(config={"games_per_iteration": 100, "mcts": {"num_simulations": 50}})
    for i in range(10):
        metrics = await trainer.iteration(i)

For one game at full speed `trainer.py` stands beside it; this one takes any tasks and agents.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch

from troupe.episode import Outcome, Task
from troupe.errors import TrainingError
from troupe.protocols import Symmetry
from troupe.stores.checkpoints import CheckpointStore
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.candidates import Candidates
from troupe.systems.selfplay.episodes import ExampleType, SelfPlayEpisode, TrainingExample
from troupe.systems.selfplay.extraction import TrainingDataExtractor
from troupe.systems.selfplay.generator import MakeWorld, SelfPlayEpisodeGenerator
from troupe.systems.selfplay.learning import LEARNED, Average, losses
from troupe.systems.selfplay.resources import resource_usage
from troupe.systems.selfplay.search_tasks import MCTSSearchTaskGenerator
from troupe.systems.selfplay.settings import trainer_settings
from troupe.systems.selfplay.sources import Sources
from troupe.systems.selfplay.window import ExampleWindow
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.programs import CodeGenerationTaskGenerator
from troupe.tasks.reasoning import MultiStepReasoningGenerator
from troupe.training.evaluation import Decision, Gate, Report

__all__ = ["SelfPlayTrainer"]

PLAY, JUDGE, LEARN = range(3)
"""Keys of the random streams."""

EASY = (0.0, 0.2)
"""Difficulties of the searched tasks that a trainer begins with, where successes need no network yet."""


class SelfPlayTrainer:
    """The loop of document 001, over any tasks that have worlds.

    `config` takes the keys of `settings.TrainerSettings`. Without agents there is one network per family of worlds.
    `task_generators` may be changed at any time: name -> an object with `generate(n)`. It begins with the document's
    four, `math`, `code`, `reasoning` and `mcts`, at easy tasks; `GameTaskGenerator` makes games that both sides learn.
    `worlds` as in `SelfPlayEpisodeGenerator`. Attributes: `data_extractor`, `episode_buffer` (the newest
    `max_buffer_size`, which `train` learns from), `current_iteration` (the next one), `best_model_metric` (the
    incumbent's success rate on the held-out tasks), `last_decision` of the gate.

    A run that is saved and loaded goes on as the one that was not interrupted, on the CPU and unless an episode runs
    into its time limit.

    A loop of one's own calls the parts of `iteration`: `run_self_play`, then `train` or any training of the agents,
    `evaluate_models`, and `_save_checkpoint` where the result is worth it. It rolls nothing back.
    """

    def __init__(
        self,
        hrm_agent: Any = None,
        trm_agent: Any = None,
        config: Mapping[str, Any] | None = None,
        device: str = "cpu",
        checkpoint_dir: str | Path = "./checkpoints/self_play",
        *,
        worlds: Mapping[str, MakeWorld] | None = None,
    ) -> None:
        agents = hrm_agent is not None or trm_agent is not None
        self.settings = settings = trainer_settings(config, agents=agents)
        self.hrm_agent, self.trm_agent, self.device, self.worlds = hrm_agent, trm_agent, device, worlds
        self.checkpoint_dir = Path(checkpoint_dir)
        generators: dict[str, Any] = {
            "math": MathProblemGenerator(seed=settings.seed, kinds=MathProblemGenerator.DEFAULT_KINDS),
            "code": CodeGenerationTaskGenerator(EASY, settings.seed, ("function",), languages=("python",)),
            "reasoning": MultiStepReasoningGenerator(EASY, settings.seed, MultiStepReasoningGenerator.DEFAULT_KINDS),
            "mcts": MCTSSearchTaskGenerator(EASY, settings.seed, MCTSSearchTaskGenerator.DEFAULT_KINDS),
        }
        self._sources = Sources(generators, settings.eval_games, settings.seed)
        self.data_extractor = TrainingDataExtractor(settings.success_weight, settings.failure_weight)
        self.episode_buffer: deque[SelfPlayEpisode] = deque(maxlen=settings.max_buffer_size)
        self.iteration_metrics: list[dict[str, Any]] = []
        self.current_iteration = 0
        self.best_model_metric = 0.0
        self.last_decision: Decision | None = None
        self.networks = Candidates(hrm_agent, trm_agent, settings, device)
        self._window = ExampleWindow()
        self._symmetries: dict[str, tuple[Symmetry, ...]] = {}
        self._packed: WeakKeyDictionary[SelfPlayEpisode, bytes] = WeakKeyDictionary()
        self._rounds = self._lessons = self._episodes = self._actions = self._bests = 0
        self._incumbent_report: Report | None = None

    @property
    def task_generators(self) -> dict[str, Any]:
        return self._sources.generators

    @task_generators.setter
    def task_generators(self, generators: Mapping[str, Any]) -> None:
        self._sources.generators = dict(generators)

    # ------------------------------------------------------------------------------------------ the loop

    async def iteration(self, i: int) -> dict[str, Any]:
        """One round of the loop; returns its metrics. Raises TrainingError where no episode could be played."""
        began = time.perf_counter()
        episodes = await self.run_self_play(self.settings.games_per_iteration)
        learned = await self.train(i=i)
        judged = await self.evaluate_models(self.settings.eval_games)
        promoted = self.last_decision is not None and self.last_decision.promote
        if not promoted:
            self.networks.roll_back()
        self.current_iteration = i + 1
        metrics = {
            "iteration": i,
            "timestamp": datetime.now(UTC).isoformat(),
            "num_episodes": len(episodes),
            "success_rate": _share(episodes, Outcome.SUCCESS),
            "timeout_rate": _share(episodes, Outcome.TIMEOUT),
            "error_rate": _share(episodes, Outcome.ERROR),
            "avg_episode_length": _mean(episode.episode_length for episode in episodes),
            **{f"num_{kind}_examples": self._window.counts().get(kind, 0) for kind in get_args(ExampleType)},
            **learned,
            **judged,
            "promoted": promoted,
            "held_out_overlap": self._sources.overlap,
            "elapsed_time": time.perf_counter() - began,
            "best_model_metric": self.best_model_metric,
        }
        self.iteration_metrics.append(metrics)
        self._save_checkpoint(i, best=promoted or not self._bests)
        return metrics

    async def run_self_play(self, num_games: int = 1000) -> list[SelfPlayEpisode]:
        """Episodes on the next `num_games` tasks, `parallel_batch_size` at once. They go into `episode_buffer`."""
        self._rounds += 1
        episodes = await self._play(self._sources.draw(num_games), (PLAY, self._rounds), explore=True)
        self.episode_buffer.extend(episodes)
        self._episodes += len(episodes)
        self._actions += sum(episode.episode_length for episode in episodes)
        return episodes

    async def _play(self, tasks: Sequence[Task], key: tuple[int, ...], *, explore: bool) -> list[SelfPlayEpisode]:
        """Every part ends before the next begins: who shares a batch then depends on no clock."""
        settings = self.settings
        agents = (self.hrm_agent, self.trm_agent)
        generator = SelfPlayEpisodeGenerator(
            *agents, settings.mcts, self.device, worlds=self.worlds, seed=(settings.seed, *key), explore=explore,
            networks=None if self.networks.given else self.networks.for_family, slots=settings.parallel_batch_size,
            threads=self.networks.given,  # our own networks take no time worth interrupting
        )  # fmt: skip
        episodes: list[SelfPlayEpisode] = []
        for begin in range(0, len(tasks), settings.parallel_batch_size):
            part = tasks[begin : begin + settings.parallel_batch_size]
            episodes += await generator.generate_episodes(part, settings.max_steps, settings.timeout)
        self._symmetries |= generator.symmetries
        if episodes and all(episode.outcome is Outcome.ERROR for episode in episodes):
            raise TrainingError(f"all {len(episodes)} episodes failed; the first with {episodes[0].metadata['error']}")
        return episodes

    async def train(
        self, training_data: Mapping[str, Sequence[TrainingExample]] | None = None, i: int | None = None
    ) -> dict[str, float]:
        """Gradient steps, `epochs` passes over the examples of the episodes in `episode_buffer`, or over
        `training_data` alone. Returns the mean losses (NaN where nothing had that loss) and the number of steps.

        The networks are left with the average of their weights over these steps (see `learning.average`). `i` seeds the
        minibatches; without it the calls are counted.
        """
        lesson, self._lessons = self._lessons if i is None else i, self._lessons + 1
        examples = self._window if training_data is None else ExampleWindow()
        if training_data is None:
            examples.follow(self.episode_buffer, self.data_extractor)
        else:
            examples.append(training_data)
        found: dict[str, list[float]] = {kind: [] for kind in LEARNED}
        averages: dict[tuple[str, ...], Average] = {}
        for place, name in enumerate(examples.families()):
            family = Family.named(name)
            modules = self.networks.learning(family)
            average = averages.setdefault(tuple(modules), Average(modules, self.settings.ema))
            rng = np.random.default_rng([self.settings.seed, LEARN, lesson, place])
            await self._learn(family, examples, average, rng, found)
        for average in averages.values():
            average.wear()
        updates = sum(average.steps for average in averages.values())
        return {**{f"{kind}_loss": _mean(values) for kind, values in found.items()}, "updates": float(updates)}

    async def _learn(
        self,
        family: Family,
        examples: ExampleWindow,
        average: Average,
        rng: np.random.Generator,
        found: Mapping[str, list[float]],
    ) -> None:
        """The steps on one family of worlds."""
        settings, network, learner = self.settings, self.networks.network(family), self.networks.learner(family)
        symmetries = self._symmetries if settings.symmetries else {}
        for _ in range(settings.epochs):
            for batch in examples.batches(family, settings.batch_size, rng, symmetries):
                closures = losses(network, batch)
                if not closures:
                    continue
                self.networks.train()
                with torch.random.fork_rng(devices=[]):  # for agents with dropout
                    torch.manual_seed(int(rng.integers(2**31)))
                    metrics = learner.update(closures)
                average.add()
                for kind, values in found.items():
                    if f"loss/{kind}" in metrics:
                        values.append(metrics[f"loss/{kind}"])
                await asyncio.sleep(0)

    async def evaluate_models(self, num_eval_games: int = 100) -> dict[str, float]:
        """Candidate against incumbent on the same held-out tasks with the same seeds, without exploration.

        The metrics are the candidate's; `incumbent_success_rate` stands beside them. Where `last_decision` is to
        promote, the candidate becomes the incumbent. `best_model_metric` is the success rate of whoever that is now.
        The networks are left as they are.
        """
        tasks = self._sources.held_out(num_eval_games)
        candidate = await self._report("candidate", tasks)
        marks = [task.id for task in tasks]
        if self._incumbent_report is None or [score.task for score in self._incumbent_report.scores] != marks:
            with self.networks.as_incumbent():
                self._incumbent_report = await self._report("incumbent", tasks)
        incumbent = self._incumbent_report
        self.last_decision = Gate(confidence=self.settings.confidence).decide(candidate, incumbent)
        if self.last_decision.promote:
            self.networks.promote()
            self._incumbent_report = candidate
        self.best_model_metric = self._incumbent_report.metrics["eval_success_rate"]
        return {**candidate.metrics, "incumbent_success_rate": incumbent.metrics["eval_success_rate"]}

    async def _report(self, name: str, tasks: Sequence[Task]) -> Report:
        episodes = await self._play(tasks, (JUDGE,), explore=False)
        metrics = {
            "eval_success_rate": _share(episodes, Outcome.SUCCESS),
            "eval_avg_reward": _mean(episode.total_reward for episode in episodes),
            "eval_avg_length": _mean(episode.episode_length for episode in episodes),
            "eval_avg_efficiency": _mean(episode.search_efficiency for episode in episodes),
        }
        return Report.of(name, tasks, [episode.to_episode() for episode in episodes], metrics)

    # ------------------------------------------------------------------------------------------ metrics

    def get_quality_metrics(self) -> dict[str, float]:
        """Over the iterations so far; NaN where there were too few to measure (a trend needs two). `success_rate_trend`
        is the slope of a straight line, per iteration."""
        rates = [float(metrics["success_rate"]) for metrics in self.iteration_metrics]
        trend = float(np.polyfit(np.arange(len(rates)), rates, 1)[0]) if len(rates) > 1 else math.nan
        return {
            "avg_success_rate": _mean(rates),
            "success_rate_std": float(np.std(rates)) if rates else math.nan,
            "success_rate_trend": trend,
            "avg_episode_length": self._actions / self._episodes if self._episodes else math.nan,
            "total_episodes_generated": self._episodes,
            "best_success_rate": max(rates, default=math.nan),
        }

    def get_resource_usage(self) -> dict[str, float]:
        """See `resources.resource_usage`."""
        return resource_usage()

    # ------------------------------------------------------------------------------------------ checkpoints

    def _save_checkpoint(self, i: int, best: bool = False) -> Path:
        """Writes `checkpoint_<i>`, which `iteration_<i>.pt` stands for; `best` makes it what `best_model.pt` stands
        for, until another one is. Earlier ones stay unless `keep_last` says otherwise."""
        self._bests += best
        metrics = {"best_model_metric": self.best_model_metric, **({"best": float(self._bests)} if best else {})}
        state = {
            "networks": self.networks.state(),
            "sources": self._sources.state(),
            "symmetries": {
                name: {"cells": np.stack([s.cells for s in found]), "actions": np.stack([s.actions for s in found])}
                for name, found in self._symmetries.items()
            },
            "buffer": self._stored_buffer(),
            "iteration_metrics": self.iteration_metrics,
            "counters": {
                "iteration": i + 1,
                "rounds": self._rounds,
                "lessons": self._lessons,
                "episodes": self._episodes,
                "actions": self._actions,
                "bests": self._bests,
            },
            "best_model_metric": self.best_model_metric,
            "last_decision": None if self.last_decision is None else self.last_decision.to_dict(),
        }
        return self._store().save(i, self.networks.tensors(), state, metrics)

    def _stored_buffer(self) -> dict[str, Any]:
        """As two arrays: a checkpoint cannot hold one for each array of each episode."""
        for episode in self.episode_buffer:
            if episode not in self._packed:
                self._packed[episode] = episode.to_bytes()
        stored = [self._packed[episode] for episode in self.episode_buffer]
        return {"bytes": np.frombuffer(b"".join(stored), np.uint8), "lengths": np.array([*map(len, stored)], np.int64)}

    def _load_buffer(self, stored: Mapping[str, np.ndarray]) -> None:
        content, ends = stored["bytes"].tobytes(), np.cumsum(stored["lengths"]).tolist()
        self.episode_buffer.clear()
        for begin, end in zip([0, *ends], ends, strict=False):
            episode = SelfPlayEpisode.from_bytes(content[begin:end])
            self._packed[episode] = content[begin:end]
            self.episode_buffer.append(episode)

    def load_checkpoint(self, path: str | Path) -> None:
        """Goes on from a checkpoint: `.../best_model.pt`, `.../iteration_<n>.pt`, a folder of one, or the folder of
        all, which stands for the latest. Raises StorageError where there is none."""
        path = Path(path)
        numbered = re.fullmatch(r"iteration_(\d+)(\.pt)?", path.name)
        if numbered and not path.exists():
            path = path.with_name(f"checkpoint_{numbered[1]}")
        checkpoint = self._store().load(path)
        state = checkpoint.state
        self.networks.load(checkpoint.tensors, state["networks"])
        self._sources.load(state["sources"])
        self._load_buffer(state["buffer"])
        self._symmetries = {
            name: tuple(map(Symmetry, found["cells"], found["actions"])) for name, found in state["symmetries"].items()
        }
        self.iteration_metrics = list(state["iteration_metrics"])
        counters = state["counters"]
        self.current_iteration, self._rounds = counters["iteration"], counters["rounds"]
        self._lessons = counters["lessons"]
        self._episodes, self._actions, self._bests = counters["episodes"], counters["actions"], counters["bests"]
        self.best_model_metric = state["best_model_metric"]
        self.last_decision = None if state["last_decision"] is None else Decision.from_dict(state["last_decision"])
        self._incumbent_report = None

    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.checkpoint_dir, keep_last=self.settings.keep_last or sys.maxsize, metric="best")


def _share(episodes: Sequence[SelfPlayEpisode], outcome: Outcome) -> float:
    return _mean(float(episode.outcome is outcome) for episode in episodes)


def _mean(values: Any) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan
