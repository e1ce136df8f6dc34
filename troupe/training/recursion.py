"""Deep supervision of recursive networks: many small steps on one puzzle, each with a loss and an update of its own.

A slot holds one puzzle. Every update runs one *segment* of the network on all slots, learns from its answer, and goes
on from the carry, without gradients between segments (Wang et al. 2025, arXiv:2506.21734; Jolicoeur-Martineau 2025,
arXiv:2510.04871). A slot whose puzzle is finished takes the next one:

    fill(slots, fresh, net)                     # finished slots: new puzzles, initial carry
    learner.update(supervision(net, slots, ...))
    advance(slots, ...)                         # carry, steps, who has finished

The network is one of `troupe.models.hrm` and `troupe.models.trm`, or anything with the face of `Recursive`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["IGNORED", "Fresh", "MovingAverage", "Recursive", "Slots", "advance", "cell_losses", "fill", "least_steps",
           "solved", "supervision"]  # fmt: skip

IGNORED = -100
"""Label of a position that nobody asks about."""

HALT_WEIGHT = 0.5
"""Weight of each halting loss, against 1 for the answer; both papers' code."""

CellLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits `[n, L, V]`, labels int64 `[n, L]`, all of them valid) to losses `[n, L]`."""


class Recursive(Protocol):
    """What a network must offer to be trained here; it is an `nn.Module`, too."""

    def initial_carry(self, n: int) -> Any:
        """The state that n fresh puzzles begin with: a NamedTuple of tensors `[n, ...]`."""
        ...

    def __call__(self, carry: Any, tokens: Tensor, identities: Tensor | None = None) -> Any:
        """One segment: tokens int64 `[n, L]` to (detached carry, logits `[n, L, V]`, q_halt `[n]`, q_continue `[n]`).

        `identities` int64 `[n]`: which task each puzzle belongs to, where tasks have numbers. `q_continue` is None for
        a network with one halting logit, which stops above 0; with two it stops where q_halt is the larger.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fresh:
    """Puzzles for slots that have become free: tokens and labels int64 `[k, L]`, identities int64 `[k]`; `least` int64
    `[k]`: the steps that each takes at least."""

    tokens: Tensor
    labels: Tensor
    identities: Tensor
    least: Tensor


@dataclass
class Slots:
    """The puzzles under way. `steps` int64 `[n]`: segments done; `free` bool `[n]`: finished, to be replaced.
    `identified`: whether the network is told the puzzles' identities."""

    tokens: Tensor
    labels: Tensor
    identities: Tensor
    carry: Any
    steps: Tensor
    least: Tensor
    free: Tensor
    identified: bool = False
    segment: Any = None  # of the update under way

    @classmethod
    def empty(
        cls, net: Recursive, n: int, length: int, *, identified: bool = False, device: torch.device | str = "cpu"
    ) -> Slots:
        """Slots that are all free."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.int64, device=device)

        free = torch.ones(n, dtype=torch.bool, device=device)
        carry = _owned(net.initial_carry(n))
        return cls(zeros(n, length), zeros(n, length), zeros(n), carry, zeros(n), zeros(n), free, identified)

    def run(self, net: Recursive, carry: Any) -> Any:
        """One segment from this carry."""
        return net(carry, self.tokens, self.identities if self.identified else None)

    def state_dict(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens, "labels": self.labels, "identities": self.identities, "carry": list(self.carry),
            "steps": self.steps, "least": self.least, "free": self.free,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.tokens.device
        for name in ("tokens", "labels", "identities", "steps", "least", "free"):
            setattr(self, name, state[name].to(device))
        self.carry = type(self.carry)(*(tensor.to(device) for tensor in state["carry"]))


def fill(slots: Slots, fresh: Fresh, net: Recursive) -> None:
    """Puts one fresh puzzle into each free slot, in order, with the carry that a puzzle begins with."""
    where = slots.free.nonzero().squeeze(1)
    slots.tokens[where], slots.labels[where] = fresh.tokens, fresh.labels
    slots.identities[where], slots.least[where] = fresh.identities, fresh.least
    slots.steps[where] = 0
    if len(where):
        for old, new in zip(slots.carry, net.initial_carry(len(where)), strict=True):
            old[where] = new.to(old.dtype)
    slots.free = torch.zeros_like(slots.free)


# ---------------------------------------------------------------------------------------------- losses


def supervision(
    net: Recursive, slots: Slots, cell_loss: CellLoss, measured: dict[str, float], *, most: int, halting: bool
) -> list[Callable[[], dict[str, Tensor]]]:
    """The closure of one update, for `Learner.update`: one segment on all slots.

        answer    mean over puzzles of the mean cell loss over their labelled positions
        halt      0.5 BCE(q_halt, whether the answer is right in all positions)
        continue  0.5 BCE(q_continue, sigmoid(max(q_halt', q_continue'))), primes: of the segment after this one;
                  after `most` steps no choice is left, and the target is sigmoid(q_halt')

    The second halting loss is Q-learning with a bootstrapped target, for networks with two logits; with `halting` off,
    neither halting loss is there. The segment is left in `slots.segment`; means go to `measured`.
    """

    def closure() -> dict[str, Tensor]:
        slots.segment = segment = slots.run(net, slots.carry)
        asked = slots.labels != IGNORED
        cells = cell_loss(segment.logits, slots.labels.where(asked, 0)) * asked
        losses = {"answer": (cells.sum(1) / asked.sum(1).clamp(min=1)).mean()}
        right = solved(segment.logits, slots.labels)
        if halting and segment.q_halt is not None:
            losses["halt"] = HALT_WEIGHT * _bce(segment.q_halt, right.float())
            if segment.q_continue is not None:
                losses["continue"] = HALT_WEIGHT * _bce(segment.q_continue, _bootstrapped(net, slots, segment, most))
            measured["halt_right"] = ((segment.q_halt > 0) == right).float().mean().item()
        matches = (segment.logits.argmax(-1) == slots.labels) & asked
        measured["cells"] = (matches.sum() / asked.sum().clamp(min=1)).item()
        measured["exact"] = right.float().mean().item()
        return losses

    return [closure]


def solved(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the likeliest tokens are right wherever there is a label: `[n, L, V]` and `[n, L]` to bool `[n]`."""
    return ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(-1)


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits.float(), targets)


@torch.no_grad()
def _bootstrapped(net: Recursive, slots: Slots, segment: Any, most: int) -> Tensor:
    following = slots.run(net, segment.carry)
    halt, proceed = following.q_halt.float(), following.q_continue.float()
    return torch.sigmoid(torch.where(slots.steps + 1 >= most, halt, torch.maximum(halt, proceed)))


def advance(slots: Slots, *, most: int, halting: bool) -> None:
    """After an update: on to the carry of its segment. Free become the slots whose puzzle has had `most` steps, and
    those that the network wants to leave (q_halt > 0, or > q_continue) after at least `least` of them."""
    segment = slots.segment
    slots.carry = _owned(segment.carry)
    slots.steps = slots.steps + 1
    slots.free = slots.steps >= most
    if halting and segment.q_halt is not None:
        bar = 0.0 if segment.q_continue is None else segment.q_continue.detach()
        slots.free = slots.free | ((segment.q_halt.detach() > bar) & (slots.steps >= slots.least))
    slots.segment = None


def least_steps(n: int, most: int, exploration: float, generator: np.random.Generator) -> np.ndarray:
    """The steps that fresh puzzles take at least: 1, but uniform over 2..most with probability `exploration`, so that
    the network also sees what more thought would have brought. int64 `[n]`."""
    explored = generator.random(n) < exploration
    return np.where(explored & (most > 1), generator.integers(min(2, most), most + 1, n), 1)


def _owned(carry: Any) -> Any:
    """A carry whose rows can be written: initial carries may be views of one row."""
    return type(carry)(*(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in carry))


# ---------------------------------------------------------------------------------------------- averaged weights


class MovingAverage:
    """A copy of a module whose weights are an exponential moving average of the module's.

        a <- d a + (1 - d) w,    d = min(decay, (1 + steps) / (10 + steps))

    The decay rises from 0.18 at the first step, so that the average forgets where it began. With decay 0 it is the
    weights themselves. Tensors of whole numbers are taken as they are.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module: Any = copy.deepcopy(module).eval().requires_grad_(False)  # of the module's own type

    @torch.no_grad()
    def update(self, module: nn.Module, steps: int) -> None:
        """Moves on to the weights after step number `steps`, counted from 1."""
        decay = min(self.decay, (1 + steps) / (10 + steps)) if self.decay else 0.0
        weights, tensors = module.state_dict(), self.module.state_dict()
        moving = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([tensors[name] for name in moving], [weights[name] for name in moving], 1 - decay)
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                tensor.copy_(weights[name])


def cell_losses(log_probs: Callable[[Tensor], Tensor]) -> CellLoss:
    """Negative log-likelihood under a map from logits to log-probabilities over the last axis."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return -log_probs(logits).gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    return loss
