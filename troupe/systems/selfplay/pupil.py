"""`Pupil`: a policy-value network that learns from searched positions, with all that its learning depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from troupe.engines.runtimes import bf16_supported
from troupe.protocols import Symmetry
from troupe.systems.selfplay.config import LearningConfig
from troupe.systems.selfplay.learning import average
from troupe.training.learner import Learner, adamw, cosine_with_warmup
from troupe.training.objectives import Meter, policy_value
from troupe.training.replay import ReplayWindow

__all__ = ["Pupil", "copied", "transformed"]


def copied(net: nn.Module) -> dict[str, Tensor]:
    """A network's tensors as they are now."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


class Pupil:
    """A network, the average of its weights (which plays and is judged), its optimiser and its replay window.

    `net` maps observations `[n, ...]` to (logits `[n, A]`, values `[n]`). Minibatches depend on `seed`, the iteration
    and the window alone. `iterations` is the length of the run, over which the learning rate falls.
    """

    def __init__(
        self,
        net: nn.Module,
        learning: LearningConfig,
        *,
        iterations: int,
        seed: tuple[int, ...],
        symmetries: Sequence[Symmetry] = (),
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.net, self.learning = net, learning
        self._iterations, self._seed, self._symmetries, self._layout = iterations, seed, symmetries, layout
        self._iteration = 0
        self.averaged = copied(net)
        self.replay = ReplayWindow(learning.window)
        self.learner = self._learner()

    def _learner(self) -> Learner:
        learning = self.learning
        group = adamw(
            dict(self.net.named_parameters()), lr=learning.lr, betas=(0.9, 0.999), weight_decay=learning.weight_decay,
            max_norm=learning.grad_clip, schedule=self._schedule,
        )  # fmt: skip
        half = learning.amp == "bf16" or (learning.amp == "auto" and bf16_supported())
        return Learner({"net": group}, amp="bf16" if half else None)

    def _schedule(self, step: int) -> float:
        """Linear warm-up by optimiser steps, then a cosine over the iterations: how many steps those will have
        depends on how long games last."""
        learning = self.learning
        floor = min(1.0, learning.final_lr / learning.lr)
        rise = min(1.0, (step + 1) / learning.warmup_steps) if learning.warmup_steps else 1.0
        return rise * cosine_with_warmup(0, self._iterations, floor)(self._iteration)

    def learn(self, new: int, iteration: int) -> dict[str, float]:
        """The steps of an iteration that brought `new` positions: as many as `learning.reuse` asks for."""
        learning, self._iteration = self.learning, iteration
        if len(self.replay) < learning.first:
            return {"learn/steps": 0.0}
        steps = max(1, round(new * learning.reuse / learning.batch_size))
        generator = np.random.default_rng(np.random.SeedSequence([*self._seed, iteration]))
        meter, metrics = Meter(), {}
        self.net.train()
        for _ in range(steps):
            batch = self._batch(generator)
            closures = policy_value(self.net, batch, meter, value_weight=learning.value_weight)
            metrics = self.learner.update(closures)
            average(self.averaged, self.net, self.learner.groups["net"].steps, learning.ema)
        return {**{f"learn/{name}": value for name, value in (metrics | meter.means()).items()}, "learn/steps": steps}

    def _batch(self, generator: np.random.Generator) -> dict[str, Tensor]:
        rows = self.replay.draw(self.learning.batch_size, generator)
        if self.learning.symmetries and len(self._symmetries) > 1:
            rows = transformed(rows, self._symmetries, generator.integers(0, len(self._symmetries), len(rows["value"])))
        batch = {name: torch.from_numpy(column) for name, column in rows.items()}
        return {**batch, "observations": batch["observations"].contiguous(memory_format=self._layout)}

    def roll_back(self, weights: Mapping[str, Tensor]) -> None:
        """To these weights, with an optimiser that knows nothing of the rejected steps."""
        self.net.load_state_dict(weights)
        self.averaged = {name: tensor.clone() for name, tensor in weights.items()}
        steps = self.learner.groups["net"].steps
        self.learner = self._learner()
        self.learner.groups["net"].steps = steps  # the schedule goes on

    def state_dict(self) -> dict[str, Any]:
        """Without the tensors `net` and `averaged`."""
        return {"learner": self.learner.state_dict(), "replay": self.replay.state_dict()}

    def load_state_dict(
        self, net: Mapping[str, Tensor], averaged: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> None:
        """Raises DataError for a window that is torn."""
        self.net.load_state_dict(net)
        self.averaged = dict(averaged)
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])


def transformed(
    rows: Mapping[str, np.ndarray], symmetries: Sequence[Symmetry], which: np.ndarray
) -> dict[str, np.ndarray]:
    """Each row in the symmetry that `which` names."""
    cells, actions = np.stack([s.cells for s in symmetries]), np.stack([s.actions for s in symmetries])
    n, shape = len(which), rows["observations"].shape
    flat = np.take_along_axis(rows["observations"].reshape(n, -1), cells[which], 1)
    turned = {name: np.take_along_axis(rows[name], actions[which], 1) for name in ("legal", "policy")}
    return {**rows, **turned, "observations": flat.reshape(shape)}
