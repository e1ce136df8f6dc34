"""`PuzzleTrainer`: fill the slots, one supervision step, go on from the carry; now and then the held-out puzzles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.config import load
from troupe.engines.runtimes import bf16_supported
from troupe.errors import ConfigError
from troupe.maths.statistics import Interval
from troupe.models.recursion import block_parameters
from troupe.stores.opening import Stopwatch, open_run, spent
from troupe.stores.state import parameter_hash
from troupe.systems.puzzles import state
from troupe.systems.puzzles.config import ALIASES, PuzzleConfig
from troupe.systems.puzzles.data import PuzzleSet, puzzle_data
from troupe.systems.puzzles.evaluation import Comparison, Outcome, compare, evaluate, stored_outcome
from troupe.systems.puzzles.finish import finish
from troupe.systems.puzzles.networks import LOG_PROBABILITIES, network, optimizer_group
from troupe.training.learner import Learner
from troupe.training.recursion import (
    Fresh,
    MovingAverage,
    Slots,
    advance,
    cell_losses,
    fill,
    least_steps,
    supervision,
)

__all__ = ["PuzzleResult", "PuzzleTrainer"]

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class PuzzleResult:
    """What a run ended with, on held-out puzzles and with the averaged weights of the last step.

    `exact`: share of puzzles right in all cells after each supervision step, 95 % intervals; `cells`: share of right
    cells after each. `gain`: against the network before training; `comparison`: against the run of `trainer.compare`.
    `parameters` are all of them, `block_parameters` those without embeddings and heads. `seconds` and `cpu_seconds`
    are sums over all processes that worked on the run.
    """

    folder: Path
    steps: int
    exact: tuple[Interval, ...]
    cells: tuple[float, ...]
    gain: Comparison
    comparison: Comparison | None
    parameters: int
    block_parameters: int
    parameter_hash: str
    seconds: float
    cpu_seconds: float

    @property
    def improved(self) -> bool:
        """Whether it solves more than the network before training, and than the one that it was compared with."""
        return self.gain.better and (self.comparison is None or self.comparison.better)


class PuzzleTrainer:
    """Trains a recursive network, or the plain transformer that it is compared with, to solve puzzles.

    The folder `trainer.default_local_dir` holds the whole run, and a second call continues it. Raises ConfigError for
    a network that does not fit the puzzles or a device that is not there, DataError where there are too few puzzles, or
    where `trainer.compare` was judged by others.
    """

    def __init__(
        self, config: PuzzleConfig | Mapping[str, Any] | None = None, *, progress: Progress | None = None
    ) -> None:
        self.config = _as_config(config)
        trainer, learning = self.config.trainer, self.config.learning
        torch.set_num_threads(trainer.threads)
        if trainer.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.device=cuda, and torch sees no CUDA GPU; write trainer.device=cpu")
        self.device = torch.device(trainer.device)
        self.folder = Path(trainer.default_local_dir)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.data = puzzle_data(self.config.data, self.config.seed)
        self.held_out = self._tensors(self.data.held_out, slice(None))
        self._other = None if trainer.compare is None else self._stored(Path(trainer.compare))
        self.most = self.config.segments
        self.halting = learning.halting and self.config.net.kind != "transformer"
        self._loss = cell_losses(LOG_PROBABILITIES[learning.loss])
        self._begin()

    def _begin(self) -> None:
        """Everything as it stands before the first update."""
        learning, data = self.config.learning, self.data
        net = network(self.config, vocabulary=data.vocabulary, length=data.length, tasks=data.tasks)
        self.net = net.to(self.device)
        self.average = MovingAverage(self.net, learning.ema)
        half = learning.amp == "bf16" or (learning.amp == "auto" and bf16_supported(self.device.type))
        group = optimizer_group(self.net, learning, self.config.trainer.steps)
        self.learner = Learner({"net": group}, amp="bf16" if half else None)
        self.slots = Slots.empty(
            self.net, learning.batch_size, data.length, identified=data.tasks > 0, device=self.device
        )
        self.step = 0  # updates done
        self.drawn = 0  # puzzles
        self._ordered = -1, np.empty(0, np.int64)  # a pass, and its order of the training puzzles
        self.untrained: np.ndarray | None = None
        self.outcome: Outcome | None = None

    # ------------------------------------------------------------------------------------------ the run

    def train(self) -> PuzzleResult:
        """Runs to the last update, from wherever the run folder stands. Raises TrainingError, StorageError."""
        trainer = self.config.trainer
        with ExitStack() as opened:
            self._open(opened)
            while self.step < trainer.steps:
                metrics = self._some_updates(min(trainer.log_freq, trainer.steps - self.step))
                last = self.step == trainer.steps
                if last or self.step % trainer.test_freq == 0:
                    metrics |= self._evaluate()
                self.tracker.log(metrics, self.step)
                self.tracker.log_timing(self._watch.lap(), self.step)
                self.progress("puzzles", self.step, trainer.steps, metrics)
                if last or self.step % trainer.save_freq == 0:
                    state.save(self, metrics)
        return self._result()

    def _some_updates(self, count: int) -> dict[str, float]:
        """Means over so many updates."""
        rows = [self._one_update() for _ in range(count)]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    def _one_update(self) -> dict[str, float]:
        """Fill -> learn -> average -> go on."""
        measured: dict[str, float] = {}
        self.net.train()
        finished = int(self.slots.free.sum())
        fill(self.slots, self._fresh(finished), self.net)
        metrics = self.learner.update(
            supervision(self.net, self.slots, self._loss, measured, most=self.most, halting=self.halting)
        )
        self.step += 1
        self.average.update(self.net, self.step)
        advance(self.slots, most=self.most, halting=self.halting)
        found = {f"train/{name}": value for name, value in (metrics | measured).items()}
        return {**found, "train/finished": float(finished)}

    def _fresh(self, k: int) -> Fresh:
        """The next k training puzzles: every one once, in an order drawn for each pass, each in a form drawn anew."""
        seed, n = self.config.seed, len(self.data.train)
        generator = np.random.default_rng(np.random.SeedSequence([seed, 2, self.step]))
        rows = np.array([self._order(i // n)[i % n] for i in range(self.drawn, self.drawn + k)], np.int64)
        self.drawn += k
        least = least_steps(k, self.most, self.config.learning.exploration, generator)
        tokens, labels, identities = self._tensors(self.data.train, rows, generator)
        return Fresh(tokens, labels, identities, torch.from_numpy(least).to(self.device))

    def _order(self, epoch: int) -> np.ndarray:
        if self._ordered[0] != epoch:
            generator = np.random.default_rng(np.random.SeedSequence([self.config.seed, 3, epoch]))
            self._ordered = epoch, generator.permutation(len(self.data.train))
        return self._ordered[1]

    def _tensors(
        self, found: PuzzleSet, rows: Any, generator: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens, labels, identities); with a generator in random forms."""
        puzzles, answers = found.puzzles[rows], found.answers[rows]
        if generator is not None and self.data.form is not None:
            puzzles, answers = self.data.form(puzzles, answers, generator)
        tasks = np.zeros(len(puzzles), np.int64) if found.tasks is None else found.tasks[rows]
        columns = puzzles.astype(np.int64), self.data.labels(answers), tasks
        tokens, labels, identities = (torch.from_numpy(column).to(self.device) for column in columns)
        return tokens, labels, identities

    # ------------------------------------------------------------------------------------------ judging

    def _evaluate(self) -> dict[str, float]:
        tokens, labels, identities = self.held_out
        self.outcome = evaluate(
            self.average.module, tokens, labels, steps=self.most, identities=identities if self.data.tasks else None
        )
        return self.outcome.metrics()

    def _stored(self, other: Path) -> np.ndarray:
        """What the run of `trainer.compare` solved."""
        path = other / "held_out.json"
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"trainer.compare={str(other)!r} holds no finished run on puzzles ({error}); give the folder of one"
            ) from error
        return stored_outcome(record, self.data.held_out.digest(), str(other))

    # ------------------------------------------------------------------------------------------ start and end

    def _open(self, opened: ExitStack) -> None:
        """The run folder, and the run as it stands in there. What must be closed is left to `opened`."""
        self._watch = Stopwatch()
        self.store, self.tracker = open_run(
            self.folder, self.config, PuzzleConfig(), state.MAY_CHANGE, "eval/exact", opened
        )  # fmt: skip
        self._begin()  # an earlier call may have been stopped in the midst of its work
        if not state.restore(self):
            metrics = self._evaluate()
            assert self.outcome is not None
            self.untrained, self.outcome = self.outcome.solved, None
            self.tracker.log(metrics, 0)
        opened.callback(lambda: self.tracker.log_timing(self._watch.lap(), self.step))

    def _result(self) -> PuzzleResult:
        if self.outcome is None:  # the run was already over
            self._evaluate()
        assert self.outcome is not None and self.untrained is not None
        outcome = self.outcome
        result = PuzzleResult(
            self.folder, self.step, tuple(outcome.intervals()), tuple(outcome.cells.mean(1).tolist()),
            compare(outcome.solved, self.untrained),
            None if self._other is None else compare(outcome.solved, self._other),
            sum(p.numel() for p in self.net.parameters()), block_parameters(self.net),
            parameter_hash(self.average.module.state_dict()), *spent(self.folder),
        )  # fmt: skip
        finish(self, result, outcome, reasons(result, self.config.trainer.compare))
        return result


def reasons(result: PuzzleResult, other: str | None) -> list[str]:
    """One sentence against the untrained network, one against the run compared with."""
    found = [f"the network {result.gain.sentence('before training')}"]
    if result.comparison is not None:
        found.append(f"the network {result.comparison.sentence(str(other))}")
    return found


def _as_config(config: Any) -> PuzzleConfig:
    if isinstance(config, PuzzleConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(PuzzleConfig, preset=config or {}, aliases=ALIASES).config
    raise ConfigError(f"config must be a PuzzleConfig or a mapping, found {type(config).__name__}")
