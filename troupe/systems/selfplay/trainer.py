"""`GameTrainer`: play, learn, judge, promote or keep; AlphaZero's iteration over one game."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.config import load
from troupe.engines.runtimes import bf16_supported, choose
from troupe.errors import ConfigError
from troupe.maths.statistics import Interval
from troupe.models.policy_value import PolicyValueNet, policy_value_net
from troupe.protocols import BatchGame, Game, Symmetry
from troupe.search.search import kernels_of
from troupe.stores.atomic import write_atomic
from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.run_config import make_run_folder
from troupe.stores.state import parameter_hash
from troupe.stores.tracking import Tracker
from troupe.systems.selfplay import state
from troupe.systems.selfplay.chunks import Chunk
from troupe.systems.selfplay.config import ALIASES, GameConfig, SelfPlayConfig
from troupe.systems.selfplay.judging import Judge, Judgement, Ladder
from troupe.systems.selfplay.learning import average
from troupe.systems.selfplay.players import search_game
from troupe.systems.selfplay.workers import Crew
from troupe.training.learner import Learner, adamw, cosine_with_warmup
from troupe.training.objectives import Meter, policy_value
from troupe.training.replay import ReplayWindow

__all__ = ["GameTrainer", "SelfPlayResult"]

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, Mapping[str, float]], None]
UNTRAINED = "untrained"
"""Name of the first incumbent: the network that the run starts from."""


@dataclass(frozen=True)
class SelfPlayResult:
    """What a run ended with. `promoted`: whether any candidate ever beat the incumbent.

    `seconds` and `cpu_seconds` (of trainer and workers) are sums over all processes that worked on the run: from the
    start of each one's `train()` to its end, or to the last iteration that it finished where it was killed. Iterations
    that were lost and done again count every time.
    """

    folder: Path
    iterations: int
    champion: str
    promoted: bool
    ratings: Mapping[str, Interval]
    judgements: Sequence[Judgement]
    parameter_hash: str
    seconds: float
    cpu_seconds: float


class GameTrainer:
    """Trains a policy-value network on a game by self-play (Silver et al. 2018; Danihelka et al. 2022).

    The folder `trainer.default_local_dir` holds the whole run, and a second call continues it. A `game` given in code
    takes the place of the one that the config names. Raises ConfigError for a game that cannot be searched or a network
    that cannot read it, MissingExtra where the runtime or the kernels are not installed.
    """

    def __init__(
        self,
        config: SelfPlayConfig | Mapping[str, Any] | None = None,
        *,
        game: Game | BatchGame | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = _as_config(config)
        self.given = game
        if game is not None:
            if type(game).__module__ == "__main__" and self.config.acting.workers:
                raise ConfigError(
                    f"the class {type(game).__name__} stands in the script that is run, where worker processes cannot "
                    "import it; put it into a module, or write acting.workers=0"
                )
            name = f"{type(game).__module__}:{type(game).__qualname__}"
            self.config = self.config.model_copy(update={"game": GameConfig(name=name)})
        torch.set_num_threads(self.config.trainer.threads)
        choose(self.config.acting.runtime, self.config.acting.precision, "cpu")  # fails here, and not in a worker
        kernels_of(self.config.search.kernels)  # likewise
        self.folder = Path(self.config.trainer.default_local_dir)
        self.game = search_game(self.config.game, game)
        assert self.game.actions is not None
        symmetries = getattr(self.game, "symmetries", None)
        self.symmetries: tuple[Symmetry, ...] = () if symmetries is None else tuple(symmetries())
        self.net: PolicyValueNet = policy_value_net(
            self.config.net, self.game.observation_shape, self.game.actions, seed=self.config.seed
        )
        self._layout = torch.channels_last if self.config.net.kind == "conv" else torch.contiguous_format
        self.net.to(memory_format=self._layout)  # type: ignore[call-overload]  # a quarter faster on the CPU
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.start = _copied(self.net)
        self._begin()

    def _begin(self) -> None:
        """Everything as it stands before the first iteration."""
        self.net.load_state_dict(self.start)
        self.net.zero_grad(set_to_none=True)
        self.iteration = 0  # done
        self.averaged = _copied(self.net)
        self.champion, self.champion_name = _copied(self.net), UNTRAINED
        self.champions: dict[str, dict[str, Tensor]] = {}
        self.acting = _copied(self.net)  # weights that play the iteration under way
        self.replay = ReplayWindow(self.config.learning.window)
        self.ladder = Ladder()
        self.learner = self._learner()

    # ------------------------------------------------------------------------------------------ the run

    def train(self) -> SelfPlayResult:
        """Runs to the last iteration, from wherever the run folder stands. Raises TrainingError, StorageError."""
        total = self.config.trainer.iterations
        with ExitStack() as opened:
            self._open(opened)
            while self.iteration < total:
                metrics = self._one_iteration(total)
                self.tracker.log(metrics, self.iteration)
                self.progress("selfplay", self.iteration, total, metrics)
                if self.iteration % self.config.trainer.save_freq == 0 or self.iteration == total:
                    state.save(self, metrics)
        return self._result()

    def _one_iteration(self, total: int) -> dict[str, float]:
        """Play -> learn -> judge -> promote or keep. One screen, as the textbook has it."""
        began = time.perf_counter()
        chunks = self.crew.gather(self.iteration)
        played = time.perf_counter()
        if self.config.acting.ahead:
            self._order(self.iteration + 1, total)  # before learning, so that both go on at once
        for chunk in chunks:
            self.replay.append(chunk.columns)
        metrics = self._played(chunks)
        metrics |= self._learn(sum(chunk.positions for chunk in chunks))
        learned = time.perf_counter()
        self.iteration += 1
        if self.iteration % self.config.arena.every == 0 or self.iteration == total:
            metrics |= self._judge()
        if not self.config.acting.ahead:
            self._order(self.iteration, total)
        ended = time.perf_counter()
        times = {"time/waited_s": played - began, "time/learn_s": learned - played, "time/judge_s": ended - learned}
        self.tracker.log_timing(times | self._spent(), self.iteration)
        return metrics

    def _order(self, iteration: int, total: int) -> None:
        self.acting = {name: tensor.clone() for name, tensor in self.averaged.items()}
        if iteration < total:
            self.crew.order(iteration, self.acting)

    def _played(self, chunks: Sequence[Chunk]) -> dict[str, float]:
        results = np.concatenate([chunk.results for chunk in chunks])
        lengths = np.concatenate([chunk.lengths for chunk in chunks])
        metrics = {
            "selfplay/games": float(len(results)),
            "selfplay/positions": float(lengths.sum()),
            "selfplay/length": float(lengths.mean()),
            "selfplay/first_player": float(results.mean()),
            "selfplay/draws": float((results == 0).mean()),
            "replay/size": float(len(self.replay)),
            "replay/added": float(self.replay.added),
        }
        for name in chunks[0].counts:
            metrics[f"selfplay/{name}"] = sum(chunk.counts[name] for chunk in chunks)
        return metrics

    # ------------------------------------------------------------------------------------------ learning

    def _learner(self) -> Learner:
        learning = self.config.learning
        group = adamw(
            dict(self.net.named_parameters()), lr=learning.lr, betas=(0.9, 0.999), weight_decay=learning.weight_decay,
            max_norm=learning.grad_clip, schedule=self._schedule,
        )  # fmt: skip
        half = learning.amp == "bf16" or (learning.amp == "auto" and bf16_supported())
        return Learner({"net": group}, amp="bf16" if half else None)

    def _schedule(self, step: int) -> float:
        """Linear warm-up by optimiser steps, then a cosine over the iterations: how many steps those will have
        depends on how long games last."""
        learning = self.config.learning
        floor = min(1.0, learning.final_lr / learning.lr)
        rise = min(1.0, (step + 1) / learning.warmup_steps) if learning.warmup_steps else 1.0
        return rise * cosine_with_warmup(0, self.config.trainer.iterations, floor)(self.iteration)

    def _learn(self, new: int) -> dict[str, float]:
        learning = self.config.learning
        if len(self.replay) < learning.first:
            return {"learn/steps": 0.0}
        steps = max(1, round(new * learning.reuse / learning.batch_size))
        generator = np.random.default_rng(np.random.SeedSequence([self.config.seed, 2_000_003, self.iteration]))
        meter, metrics = Meter(), {}
        self.net.train()
        for _ in range(steps):
            batch = self._batch(generator)
            closures = policy_value(self.net, batch, meter, value_weight=learning.value_weight)
            metrics = self.learner.update(closures)
            average(self.averaged, self.net, self.learner.groups["net"].steps, learning.ema)
        return {**{f"learn/{name}": value for name, value in (metrics | meter.means()).items()}, "learn/steps": steps}

    def _batch(self, generator: np.random.Generator) -> dict[str, Tensor]:
        rows = self.replay.draw(self.config.learning.batch_size, generator)
        if self.config.learning.symmetries and len(self.symmetries) > 1:
            rows = transformed(rows, self.symmetries, generator.integers(0, len(self.symmetries), len(rows["value"])))
        batch = {name: torch.from_numpy(column) for name, column in rows.items()}
        return {**batch, "observations": batch["observations"].contiguous(memory_format=self._layout)}

    # ------------------------------------------------------------------------------------------ judging

    def _judge(self) -> dict[str, float]:
        judge = Judge(self.config, self.start, self.net, self.given)
        judgement = judge.judge(self.iteration, self.averaged, self.champion_name, self.champion, self.champions)
        self.ladder.judgements.append(judgement)
        if judgement.decision.promote:
            self.champion_name = f"iteration {self.iteration}"
            self.champion = {name: tensor.clone() for name, tensor in self.averaged.items()}
            if "champions" in self.config.arena.anchors:
                self.champions[self.champion_name] = self.champion
        elif self.config.arena.after_rejection == "incumbent":
            self._roll_back()
        metrics = {"arena/promoted": float(judgement.decision.promote)}
        metrics |= {f"arena/score/{name}": score.mean for name, score in judgement.scores.items()}
        ratings = self.ladder.ratings()
        metrics["arena/elo"] = ratings[f"iteration {self.iteration}"].mean
        self._write_arena()
        return metrics

    def _roll_back(self) -> None:
        """The incumbent's weights, and an optimiser that knows nothing of the rejected steps."""
        self.net.load_state_dict(self.champion)
        self.averaged = {name: tensor.clone() for name, tensor in self.champion.items()}
        steps = self.learner.groups["net"].steps
        self.learner = self._learner()
        self.learner.groups["net"].steps = steps  # the schedule goes on

    def _write_arena(self) -> None:
        ratings = {name: [r.mean, r.low, r.high, r.n] for name, r in self.ladder.ratings().items()}
        finite = {name: [v if np.isfinite(v) else None for v in values] for name, values in ratings.items()}
        record = {"judgements": [j.to_dict() for j in self.ladder.judgements], "ratings": finite}
        write_atomic(self.folder / "arena.json", json.dumps(_plain(record), indent=1).encode())

    # ------------------------------------------------------------------------------------------ start and resume

    def _open(self, opened: ExitStack) -> None:
        """The run folder, and the run as it stands in there. What must be closed is left to `opened`."""
        trainer = self.config.trainer
        self._clock = time.perf_counter(), time.process_time()
        self.store = CheckpointStore(self.folder, keep_last=trainer.keep_last, metric="arena/elo")
        begun = self.store.latest() is not None
        make_run_folder(self.folder, "trainer.default_local_dir", begun=begun, resume=trainer.resume)
        state.remember(self.folder, self.config)
        tracker = Tracker(
            self.folder, trainer.logger, project=trainer.project_name, name=trainer.experiment_name,
            config=self.config.model_dump(mode="json"),
        )  # fmt: skip
        self.tracker = opened.enter_context(tracker)
        self._begin()  # an earlier call may have been stopped in the midst of its work
        state.restore(self)
        self.crew = Crew(self.config, self.given)
        opened.callback(lambda: tracker.log_timing(self._spent(), self.iteration))
        opened.callback(self.crew.close)
        if self.iteration < trainer.iterations:
            self.crew.order(self.iteration, self.acting)

    def _spent(self) -> dict[str, float]:
        """Seconds and CPU-seconds since the last call."""
        before = self._clock
        self._clock = time.perf_counter(), time.process_time() + self.crew.cpu_seconds
        return {"time/elapsed_s": self._clock[0] - before[0], "cpu/elapsed_s": self._clock[1] - before[1]}

    def _result(self) -> SelfPlayResult:
        return SelfPlayResult(
            self.folder, self.iteration, self.champion_name, self.champion_name != UNTRAINED, self.ladder.ratings(),
            tuple(self.ladder.judgements), parameter_hash(self.net.state_dict()), *state.spent(self.folder),
        )  # fmt: skip


def transformed(
    rows: Mapping[str, np.ndarray], symmetries: Sequence[Symmetry], which: np.ndarray
) -> dict[str, np.ndarray]:
    """Each row in the symmetry that `which` names."""
    cells, actions = np.stack([s.cells for s in symmetries]), np.stack([s.actions for s in symmetries])
    n, shape = len(which), rows["observations"].shape
    flat = np.take_along_axis(rows["observations"].reshape(n, -1), cells[which], 1)
    turned = {name: np.take_along_axis(rows[name], actions[which], 1) for name in ("legal", "policy")}
    return {**rows, **turned, "observations": flat.reshape(shape)}


def _copied(net: PolicyValueNet) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def _plain(record: Any) -> Any:
    """JSON has no infinities: an open bound is null."""
    if isinstance(record, dict):
        return {key: _plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [_plain(value) for value in record]
    return None if isinstance(record, float) and not np.isfinite(record) else record


def _as_config(config: Any) -> SelfPlayConfig:
    if isinstance(config, SelfPlayConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(SelfPlayConfig, preset=config or {}, aliases=ALIASES).config
    raise ConfigError(f"config must be a SelfPlayConfig or a mapping, found {type(config).__name__}")
