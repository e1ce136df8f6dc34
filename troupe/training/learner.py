"""The gradient step. Every learner of the package passes through here: this file holds the only backward pass.

One update runs micro-batches, each a closure that returns named scalar losses already divided by the counts of the
*full* batch, so that their gradients add up to the full batch's whatever the cut. Language, boards and markets
differ in the closures, not in the step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError, TrainingError

__all__ = ["Learner", "OptimizerGroup", "adamw", "cosine_with_warmup", "flattened", "muon"]

Losses = Mapping[str, Tensor]
"""Named scalars, each normalised by the full batch; the update minimises their sum."""

Combiner = Callable[[Mapping[str, Sequence[Tensor]]], Sequence[Tensor]]
"""Gradients by loss name (each aligned with the parameters) to one gradient per parameter, as PCGrad does."""


@dataclass
class OptimizerGroup:
    """Parameters with an optimiser of their own.

    `period` k: the group steps at every k-th update, on the mean of the gradients since its last step. `schedule`
    maps the number of the group's steps to a factor on its learning rate. `max_norm` clips the group's global norm.
    `flat` is what the optimiser steps where the parameters lie in one piece of memory (`flattened`).
    """

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    period: int = 1
    max_norm: float | None = 1.0
    schedule: Callable[[int], float] | None = None
    steps: int = 0
    flat: nn.Parameter | None = None
    base_lr: float = field(init=False)

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ConfigError(f"an optimiser group needs a period of at least 1, found {self.period}")
        if not self.parameters:
            raise ConfigError("an optimiser group needs at least one parameter")
        self.base_lr = float(self.optimizer.param_groups[0]["lr"])

    @property
    def stepped(self) -> list[nn.Parameter]:
        """What the optimiser steps."""
        return list(self.parameters.values()) if self.flat is None else [self.flat]

    def gather(self) -> None:
        """Puts the gradients of a flat group's parameters into that of its one piece. Raises TrainingError where the
        parameters have left it, as `Module.to` makes them."""
        if self.flat is None:
            return
        members = list(self.parameters.values())
        if members[0].data_ptr() != self.flat.data_ptr():
            raise TrainingError("parameters were moved or flattened again since their optimiser was made; make it last")
        if any(p.grad is not None for p in members):
            pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
            found = torch.cat([piece.reshape(-1) for piece in pieces])
            self.flat.grad = found if self.flat.grad is None else self.flat.grad + found
            for p in members:
                p.grad = None


class Learner:
    """Accumulates, guards, clips and steps.

    `amp`: none, `bf16` or `fp16` (with loss scaling) autocast. `combine` replaces the plain sum of losses by a rule
    over their separate gradients. `reduce` is called with all parameters once gradients are complete, before clipping:
    the place for an all-reduce. After `patience` updates in a row with a non-finite gradient the run stops
    with TrainingError; a single one is skipped and counted.
    """

    def __init__(
        self,
        groups: Mapping[str, OptimizerGroup],
        *,
        amp: str | None = None,
        combine: Combiner | None = None,
        reduce: Callable[[Sequence[nn.Parameter]], None] | None = None,
        patience: int = 3,
    ) -> None:
        if amp not in (None, "bf16", "fp16"):
            raise ConfigError(f"amp={amp!r}: write null, 'bf16' or 'fp16'")
        if amp == "fp16" and any(group.period > 1 for group in groups.values()):
            raise ConfigError("amp=fp16 changes its loss scale while a slow group waits; write bf16, or period 1")
        self.groups = dict(groups)
        self.combine = combine
        self.reduce = reduce
        self.patience = patience
        self.updates = 0
        self.skipped = 0
        self._bad_in_a_row = 0
        self._amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp or "")
        first = next(iter(self.parameters()))
        self._device = first.device.type
        self._scaler = torch.amp.GradScaler(self._device, enabled=amp == "fp16")

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter once, in the order of the groups."""
        return [parameter for group in self.groups.values() for parameter in group.parameters.values()]

    def update(self, micro_batches: Iterable[Callable[[], Losses]]) -> dict[str, float]:
        """One update. Returns the losses summed over the micro-batches, gradient norms and learning rates.

        Raises TrainingError when the gradient was not finite `patience` times in a row.
        """
        totals: dict[str, float] = {}
        apart: dict[str, list[Tensor]] = {}
        for closure in micro_batches:
            with self.autocast():
                losses = closure()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + loss.item()
            if self.combine is None:
                self._accumulate(losses)
            else:
                self._accumulate_apart(losses, apart)
        if not totals:
            raise TrainingError("an update needs at least one micro-batch with a loss")
        metrics = {f"loss/{name}": total for name, total in totals.items()}
        if self.combine is not None:
            self._merge(apart)
        if self.reduce is not None:
            self.reduce(self.parameters())
        metrics |= self._step()
        self.updates += 1
        return metrics

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Where losses are computed in the learner's precision; `update` enters it by itself for its closures."""
        return contextlib.nullcontext() if self._amp is None else torch.autocast(self._device, self._amp)

    def _accumulate(self, losses: Losses) -> None:
        # Several roots are their sum, without the nodes that would add them up.
        torch.autograd.backward([self._scaler.scale(loss.float()) for loss in losses.values()])

    def _accumulate_apart(self, losses: Losses, apart: dict[str, list[Tensor]]) -> None:
        parameters = self.parameters()
        live = [parameter for parameter in parameters if parameter.requires_grad]  # adapters: only the active one
        for name, loss in losses.items():
            found = torch.autograd.grad(self._scaler.scale(loss), live, retain_graph=True, allow_unused=True)
            by_parameter = dict(zip(live, found, strict=True))
            gradients = [torch.zeros_like(p) if (g := by_parameter.get(p)) is None else g for p in parameters]
            apart[name] = [a + g for a, g in zip(apart[name], gradients, strict=True)] if name in apart else gradients

    def _merge(self, apart: Mapping[str, Sequence[Tensor]]) -> None:
        assert self.combine is not None
        for parameter, gradient in zip(self.parameters(), self.combine(apart), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _step(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        due = {n: g for n, g in self.groups.items() if (self.updates + 1) % g.period == 0}
        for group in due.values():
            group.gather()
            self._scaler.unscale_(group.optimizer)
            if group.period > 1:
                for parameter in group.stepped:
                    if parameter.grad is not None:
                        parameter.grad /= group.period
        norms = {name: _norm(group.stepped) for name, group in due.items()}
        finite = all(math.isfinite(norm) for norm in norms.values())
        for name, group in due.items():
            metrics[f"grad_norm/{name}"] = norms[name]
            lr = group.base_lr * (1.0 if group.schedule is None else group.schedule(group.steps))
            metrics[f"lr/{name}"] = lr
            for settings in group.optimizer.param_groups:
                settings["lr"] = lr
            if finite:
                if group.max_norm is not None:
                    _clip(group.stepped, group.max_norm, norms[name])
                self._scaler.step(group.optimizer)
                group.steps += 1
            for settings in group.optimizer.param_groups:
                for parameter in settings["params"]:
                    parameter.grad = None
        self._guard(finite)
        self._scaler.update()
        metrics["skipped_updates"] = float(self.skipped)
        return metrics

    def _guard(self, finite: bool) -> None:
        self._bad_in_a_row = 0 if finite else self._bad_in_a_row + 1
        self.skipped += not finite
        # Loss scaling finds its scale by overflowing, so fp16 is given more tries before it counts as broken.
        if self._bad_in_a_row >= self.patience * (8 if self._scaler.is_enabled() else 1):
            raise TrainingError(
                f"the gradient was not finite {self._bad_in_a_row} updates in a row (update {self.updates}); "
                "lower the learning rate, or look for NaN in the rewards and inputs"
            )

    # ------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs; pending gradients of slow groups included."""
        return {
            "updates": self.updates,
            "skipped": self.skipped,
            "bad_in_a_row": self._bad_in_a_row,
            "scaler": self._scaler.state_dict(),
            "groups": {
                name: {
                    "steps": group.steps,
                    "optimizer": group.optimizer.state_dict(),
                    "pending": {n: p.grad for n, p in group.parameters.items() if p.grad is not None},
                }
                for name, group in self.groups.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises TrainingError where the groups are not the stored ones."""
        if set(state["groups"]) != set(self.groups):
            raise TrainingError(
                f"the checkpoint has the optimiser groups {sorted(state['groups'])}, the config {sorted(self.groups)}"
            )
        self.updates, self.skipped = state["updates"], state["skipped"]
        self._bad_in_a_row = state["bad_in_a_row"]
        self._scaler.load_state_dict(dict(state["scaler"]))
        for name, group in self.groups.items():
            stored = state["groups"][name]
            group.steps = stored["steps"]
            group.optimizer.load_state_dict(stored["optimizer"])
            for parameter, moments in group.optimizer.state.items():
                for key, value in moments.items():  # fused kernels walk memory: moments must lie as their weights do
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        moments[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            for n in stored["pending"]:
                if n not in group.parameters:
                    raise TrainingError(
                        f"the checkpoint holds a gradient of {n!r}, which group {name!r} does not have; continue it "
                        "with the version that wrote it"
                    )
            for n, parameter in group.parameters.items():
                pending = stored["pending"].get(n)
                parameter.grad = None if pending is None else pending.to(parameter.device)


def _clip(parameters: Iterable[nn.Parameter], max_norm: float, norm: float) -> None:
    """Scales gradients of this global norm down to `max_norm`, as `torch.nn.utils.clip_grad_norm_` does; shorter ones
    stay as they are."""
    factor = max_norm / (norm + 1e-6)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if factor < 1.0 and gradients:
        torch._foreach_mul_(gradients, factor)


def _norm(parameters: Iterable[nn.Parameter]) -> float:
    """Global L2 norm of the gradients; 0 where there are none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0


def flattened(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """All parameters in one piece of memory, which they become views of: an optimiser of many small ones then has one
    call's work. Their names, and state_dicts, stay as they are."""
    members = list(parameters)
    flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in members]))
    pieces = flat.detach().split([p.numel() for p in members])
    for parameter, piece in zip(members, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return flat


def adamw(
    parameters: Mapping[str, nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    **options: Any,
) -> OptimizerGroup:
    """A group under AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), fused kernel; `options` as
    `OptimizerGroup`."""
    named = dict(parameters)
    optimizer = torch.optim.AdamW(list(named.values()), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
    return OptimizerGroup(named, optimizer, **options)


def muon(
    parameters: Mapping[str, nn.Parameter], *, lr: float, weight_decay: float, momentum: float = 0.95, **options: Any
) -> OptimizerGroup:
    """A group of matrices under Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    Momentum, orthogonalised: every direction of a matrix moves alike. The step is scaled to AdamW's size (Liu et al.
    2025, section 2.2, arXiv:2502.16982), so learning rates carry over. For hidden matrices only: embeddings, heads,
    biases and norms belong under AdamW. `options` as `OptimizerGroup`.
    """
    named = dict(parameters)
    optimizer = torch.optim.Muon(
        list(named.values()), lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
    )
    return OptimizerGroup(named, optimizer, **options)


def cosine_with_warmup(warmup: int, total: int, floor: float = 0.1) -> Callable[[int], float]:
    """Factor on the learning rate: linear over `warmup` steps, then a cosine from 1 down to `floor` at `total`."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total)))))

    return factor
