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
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from troupe.episode import Outcome, Task
from troupe.errors import TrainingError
from troupe.stores.checkpoints import CheckpointStore
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.candidates import Candidates
from troupe.systems.selfplay.episodes import SelfPlayEpisode, TrainingExample
from troupe.systems.selfplay.extraction import TrainingDataExtractor
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.systems.selfplay.generator import MakeWorld, SelfPlayEpisodeGenerator
from troupe.systems.selfplay.learning import LEARNED, batches, losses
from troupe.systems.selfplay.resources import resource_usage
from troupe.systems.selfplay.settings import trainer_settings
from troupe.systems.selfplay.sources import Sources
from troupe.tasks.math import MathProblemGenerator
from troupe.training.evaluation import Decision, Gate, Report
from troupe.training.objectives import Meter

__all__ = ["SelfPlayTrainer"]

PLAY, JUDGE, LEARN = range(3)
"""Keys of the random streams."""


class SelfPlayTrainer:
    """The loop of document 001, over any tasks that have worlds.

    `config` takes the keys of `settings.TrainerSettings`. Without agents there is one network per family of worlds.
    `task_generators` may be changed at any time: name -> an object with `generate(n)`. `worlds` as in
    `SelfPlayEpisodeGenerator`. Attributes: `data_extractor`, `episode_buffer`, `current_iteration` (the next one),
    `best_model_metric` (the incumbent's success rate on the held-out tasks), `last_decision` of the gate.

    A run that is saved and loaded goes on as the one that was not interrupted, on the CPU and unless an episode runs
    into its time limit.
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
        self.settings = settings = trainer_settings(config)
        self.hrm_agent, self.trm_agent, self.device, self.worlds = hrm_agent, trm_agent, device, worlds
        self.checkpoint_dir = Path(checkpoint_dir)
        generators = {
            "math": MathProblemGenerator(seed=settings.seed, kinds=MathProblemGenerator.DEFAULT_KINDS),
            "mcts": GameTaskGenerator(seed=settings.seed),
        }
        self._sources = Sources(dict(generators), settings.eval_games, settings.seed)
        self.data_extractor = TrainingDataExtractor(settings.success_weight, settings.failure_weight)
        self.episode_buffer: deque[SelfPlayEpisode] = deque(maxlen=settings.max_buffer_size)
        self.iteration_metrics: list[dict[str, Any]] = []
        self.current_iteration = 0
        self.best_model_metric = 0.0
        self.last_decision: Decision | None = None
        self.networks = Candidates(hrm_agent, trm_agent, settings, device)
        self._rounds = self._episodes = self._actions = self._bests = 0
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
        self.episode_buffer.extend(episodes)
        data = self.data_extractor.extract_examples(list(self.episode_buffer))
        learned = await self.train(data, i)
        judged = await self.evaluate_models(self.settings.eval_games)
        promoted = self._keep_or_roll_back(judged)
        self.current_iteration = i + 1
        metrics = {
            "iteration": i,
            "timestamp": datetime.now(UTC).isoformat(),
            "num_episodes": len(episodes),
            "success_rate": _share(episodes, Outcome.SUCCESS),
            "timeout_rate": _share(episodes, Outcome.TIMEOUT),
            "error_rate": _share(episodes, Outcome.ERROR),
            "avg_episode_length": _mean(episode.episode_length for episode in episodes),
            **{f"num_{kind}_examples": len(examples) for kind, examples in data.items()},
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
        """Episodes on the next `num_games` tasks, `parallel_batch_size` at once."""
        self._rounds += 1
        episodes = await self._play(self._sources.draw(num_games), (PLAY, self._rounds), explore=True)
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
            calls = [generator.generate_episode(task, settings.max_steps, settings.timeout) for task in part]
            episodes += await asyncio.gather(*calls)
        if episodes and all(episode.outcome is Outcome.ERROR for episode in episodes):
            raise TrainingError(f"all {len(episodes)} episodes failed; the first with {episodes[0].metadata['error']}")
        return episodes

    async def train(self, training_data: Mapping[str, Sequence[TrainingExample]], i: int) -> dict[str, float]:
        """Gradient steps on the examples, `epochs` times; returns the mean losses (NaN where nothing had that loss)."""
        sums: dict[str, float] = dict.fromkeys(LEARNED, 0.0)
        counts: dict[str, int] = dict.fromkeys(LEARNED, 0)
        updates, meter = 0, Meter()
        by_family = _by_family(training_data)
        for place, (name, data) in enumerate(sorted(by_family.items())):
            family = Family.named(name)
            network, learner = self.networks.network(family), self.networks.learner(family)
            rng = np.random.default_rng([self.settings.seed, LEARN, i, place])
            for _ in range(self.settings.epochs):
                for batch in batches(data, self.settings.batch_size, rng):
                    closures = losses(network, batch, meter)
                    if not closures:
                        continue
                    self.networks.train()
                    with torch.random.fork_rng(devices=[]):  # for agents with dropout
                        torch.manual_seed(int(rng.integers(2**31)))
                        found = learner.update(closures)
                    for kind in LEARNED:
                        if f"loss/{kind}" in found:
                            sums[kind] += found[f"loss/{kind}"]
                            counts[kind] += 1
                    updates += 1
                    await asyncio.sleep(0)
        means = {f"{kind}_loss": sums[kind] / counts[kind] if counts[kind] else math.nan for kind in LEARNED}
        return {**means, "updates": float(updates)}

    async def evaluate_models(self, num_eval_games: int = 100) -> dict[str, float]:
        """Candidate against incumbent on the same held-out tasks with the same seeds, without exploration.

        The metrics are the candidate's; `incumbent_success_rate` stands beside them, and `last_decision` says whether
        the candidate may take the incumbent's place. Nothing is changed here: `iteration` acts on it.
        """
        tasks = self._sources.held_out(num_eval_games)
        candidate = await self._report("candidate", tasks)
        marks = [task.id for task in tasks]
        if self._incumbent_report is None or [score.task for score in self._incumbent_report.scores] != marks:
            with self.networks.as_incumbent():
                self._incumbent_report = await self._report("incumbent", tasks)
        gate = Gate(confidence=self.settings.confidence)
        self.last_decision = gate.decide(candidate, self._incumbent_report)
        rate = self._incumbent_report.metrics["eval_success_rate"]
        return {**candidate.metrics, "incumbent_success_rate": rate}

    async def _report(self, name: str, tasks: Sequence[Task]) -> Report:
        episodes = await self._play(tasks, (JUDGE,), explore=False)
        metrics = {
            "eval_success_rate": _share(episodes, Outcome.SUCCESS),
            "eval_avg_reward": _mean(episode.total_reward for episode in episodes),
            "eval_avg_length": _mean(episode.episode_length for episode in episodes),
            "eval_avg_efficiency": _mean(episode.search_efficiency for episode in episodes),
        }
        return Report.of(name, tasks, [episode.to_episode() for episode in episodes], metrics)

    def _keep_or_roll_back(self, judged: Mapping[str, float]) -> bool:
        """Whether the candidate became the incumbent; if not, it is the old incumbent again."""
        promoted = self.last_decision is not None and self.last_decision.promote
        if promoted:
            self.networks.promote()
            self._incumbent_report = None
            self.best_model_metric = judged["eval_success_rate"]
        else:
            self.networks.roll_back()
            self.best_model_metric = judged["incumbent_success_rate"]
        return promoted

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
        """Writes `checkpoint_<i>`; `best` makes it what `best_model.pt` stands for, until another one is."""
        self._bests += best
        metrics = {"best_model_metric": self.best_model_metric, **({"best": float(self._bests)} if best else {})}
        state = {
            "networks": self.networks.state(),
            "sources": self._sources.state(),
            "buffer": [episode.to_state() for episode in self.episode_buffer],
            "iteration_metrics": self.iteration_metrics,
            "counters": {
                "iteration": i + 1,
                "rounds": self._rounds,
                "episodes": self._episodes,
                "actions": self._actions,
                "bests": self._bests,
            },
            "best_model_metric": self.best_model_metric,
        }
        return self._store().save(i, self.networks.tensors(), state, metrics)

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
        self.episode_buffer.clear()
        self.episode_buffer.extend(SelfPlayEpisode.from_state(row) for row in state["buffer"])
        self.iteration_metrics = list(state["iteration_metrics"])
        counters = state["counters"]
        self.current_iteration, self._rounds = counters["iteration"], counters["rounds"]
        self._episodes, self._actions, self._bests = counters["episodes"], counters["actions"], counters["bests"]
        self.best_model_metric = state["best_model_metric"]
        self._incumbent_report = None

    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.checkpoint_dir, keep_last=self.settings.keep_last, metric="best")


def _by_family(data: Mapping[str, Sequence[TrainingExample]]) -> dict[str, dict[str, list[TrainingExample]]]:
    found: dict[str, dict[str, list[TrainingExample]]] = {}
    for kind in LEARNED:
        for example in data.get(kind, ()):
            found.setdefault(example.metadata["family"], {}).setdefault(kind, []).append(example)
    return {name: {kind: kinds.get(kind, []) for kind in LEARNED} for name, kinds in found.items()}


def _share(episodes: Sequence[SelfPlayEpisode], outcome: Outcome) -> float:
    return _mean(float(episode.outcome is outcome) for episode in episodes)


def _mean(values: Any) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan
