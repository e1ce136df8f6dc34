"""`GameTrainer`: play, learn, judge, promote or keep; AlphaZero's iteration over one game."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.config import load
from troupe.engines.runtimes import choose
from troupe.errors import ConfigError
from troupe.maths.statistics import Interval
from troupe.models.policy_value import PolicyValueNet, policy_value_net
from troupe.protocols import BatchGame, Game, Symmetry
from troupe.search.search import kernels_of
from troupe.stores.atomic import write_atomic
from troupe.stores.opening import Stopwatch, open_run, spent
from troupe.stores.state import parameter_hash
from troupe.systems.selfplay import state
from troupe.systems.selfplay.chunks import Chunk
from troupe.systems.selfplay.config import ALIASES, GameConfig, SelfPlayConfig
from troupe.systems.selfplay.judging import Judge, Judgement, Ladder
from troupe.systems.selfplay.players import search_game
from troupe.systems.selfplay.pupil import Pupil, copied
from troupe.systems.selfplay.workers import Crew, GameDesk, arrays_of, chunk_sizes

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
        self.start = copied(self.net)
        self._begin()

    def _begin(self) -> None:
        """Everything as it stands before the first iteration."""
        self.net.load_state_dict(self.start)
        self.net.zero_grad(set_to_none=True)
        self.iteration = 0  # done
        self.pupil = Pupil(
            self.net, self.config.learning, iterations=self.config.trainer.iterations,
            seed=(self.config.seed, 2_000_003), symmetries=self.symmetries, layout=self._layout,
        )  # fmt: skip
        self.champion, self.champion_name = copied(self.net), UNTRAINED
        self.champions: dict[str, dict[str, Tensor]] = {}
        self.acting = copied(self.net)  # weights that play the iteration under way
        self.ladder = Ladder()

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
            self.pupil.replay.append(chunk.columns)
        metrics = self._played(chunks)
        metrics |= self.pupil.learn(sum(chunk.positions for chunk in chunks), self.iteration)
        learned = time.perf_counter()
        self.iteration += 1
        if self.iteration % self.config.arena.every == 0 or self.iteration == total:
            metrics |= self._judge()
        if not self.config.acting.ahead:
            self._order(self.iteration, total)
        ended = time.perf_counter()
        times = {"time/waited_s": played - began, "time/learn_s": learned - played, "time/judge_s": ended - learned}
        self.tracker.log_timing(times | self._watch.lap(self.crew.cpu_seconds), self.iteration)
        return metrics

    def _order(self, iteration: int, total: int) -> None:
        self.acting = {name: tensor.clone() for name, tensor in self.pupil.averaged.items()}
        if iteration < total:
            self._ask(iteration)

    def _ask(self, iteration: int) -> None:
        """The crew for the games of an iteration, played with the weights `acting`."""
        acting, arrays = self.config.acting, arrays_of(self.acting)
        sizes = chunk_sizes(acting.games, acting.chunk)
        self.crew.order(iteration, [(iteration, number, size, arrays) for number, size in enumerate(sizes)])

    def _played(self, chunks: Sequence[Chunk]) -> dict[str, float]:
        results = np.concatenate([chunk.results for chunk in chunks])
        lengths = np.concatenate([chunk.lengths for chunk in chunks])
        metrics = {
            "selfplay/games": float(len(results)),
            "selfplay/positions": float(lengths.sum()),
            "selfplay/length": float(lengths.mean()),
            "selfplay/first_player": float(results.mean()),
            "selfplay/draws": float((results == 0).mean()),
            "replay/size": float(len(self.pupil.replay)),
            "replay/added": float(self.pupil.replay.added),
        }
        for name in chunks[0].counts:
            metrics[f"selfplay/{name}"] = sum(chunk.counts[name] for chunk in chunks)
        return metrics

    # ------------------------------------------------------------------------------------------ judging

    def _judge(self) -> dict[str, float]:
        judge = Judge(self.config, self.start, self.net, self.given)
        judgement = judge.judge(self.iteration, self.pupil.averaged, self.champion_name, self.champion, self.champions)
        self.ladder.judgements.append(judgement)
        if judgement.decision.promote:
            self.champion_name = f"iteration {self.iteration}"
            self.champion = {name: tensor.clone() for name, tensor in self.pupil.averaged.items()}
            if "champions" in self.config.arena.anchors:
                self.champions[self.champion_name] = self.champion
        elif self.config.arena.after_rejection == "incumbent":
            self.pupil.roll_back(self.champion)
        metrics = {"arena/promoted": float(judgement.decision.promote)}
        metrics |= {f"arena/score/{name}": score.mean for name, score in judgement.scores.items()}
        ratings = self.ladder.ratings()
        metrics["arena/elo"] = ratings[f"iteration {self.iteration}"].mean
        self._write_arena()
        return metrics

    def _write_arena(self) -> None:
        ratings = {name: [r.mean, r.low, r.high, r.n] for name, r in self.ladder.ratings().items()}
        finite = {name: [v if np.isfinite(v) else None for v in values] for name, values in ratings.items()}
        record = {"judgements": [j.to_dict() for j in self.ladder.judgements], "ratings": finite}
        write_atomic(self.folder / "arena.json", json.dumps(_plain(record), indent=1).encode())

    # ------------------------------------------------------------------------------------------ start and resume

    def _open(self, opened: ExitStack) -> None:
        """The run folder, and the run as it stands in there. What must be closed is left to `opened`."""
        self._watch = Stopwatch()
        self.store, self.tracker = open_run(
            self.folder, self.config, SelfPlayConfig(), state.MAY_CHANGE, "arena/elo", opened
        )  # fmt: skip
        self._begin()  # an earlier call may have been stopped in the midst of its work
        state.restore(self)
        self.crew = Crew(self.config.acting.workers, partial(GameDesk, self.config, self.given))
        opened.callback(lambda: self.tracker.log_timing(self._watch.lap(self.crew.cpu_seconds), self.iteration))
        opened.callback(self.crew.close)
        if self.iteration < self.config.trainer.iterations:
            self._ask(self.iteration)

    def _result(self) -> SelfPlayResult:
        return SelfPlayResult(
            self.folder, self.iteration, self.champion_name, self.champion_name != UNTRAINED, self.ladder.ratings(),
            tuple(self.ladder.judgements), parameter_hash(self.net.state_dict()), *spent(self.folder),
        )  # fmt: skip


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
