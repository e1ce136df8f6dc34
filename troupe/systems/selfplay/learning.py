"""From examples to gradients: rows of one family of worlds, and their losses as closures for the learner.

    policy    cross-entropy to the target policy               (troupe.training.objectives.policy_value)
    value     squared error to the verified value              (the same)
    negative  -log(1 - p(a)) for the actions of failed attempts: unlikelihood (Welleck et al. 2020, arXiv:1908.04319)

Each is the sum over a batch of weight times loss, divided by the number of its rows: twice the weight is twice the
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from troupe.errors import ConfigError
from troupe.models.policy_value import load_weights
from troupe.systems.selfplay.agents import Family, Forward, rows_of
from troupe.systems.selfplay.episodes import TrainingExample
from troupe.training.objectives import Meter, policy_value

__all__ = ["LEARNED", "Average", "Network", "average", "columns", "losses", "passes", "tensors"]

LEARNED = ("policy", "value", "negative")
"""Kinds of examples that a network learns from."""


@dataclass(frozen=True, slots=True)
class Network:
    """Two agents as one network: observations `[n, ...]`, or `[n, 1 + k, D + d]` in worlds of candidates, to (logits
    `[n, A or k]`, values `[n]`), on the CPU. What nobody gives is 0."""

    family: Family
    policy: Forward | None = None
    value: Forward | None = None

    def __call__(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        n, states, width = len(observations), observations, self.family.logits
        if self.family.actions is None:
            states, width = observations[:, 0], observations.shape[1] - 1
            observations = observations[:, 1:].reshape(n * width, -1)
        logits = torch.zeros(n, width) if self.policy is None else self.policy(observations).reshape(n, width).cpu()
        return logits, torch.zeros(n) if self.value is None else self.value(states).reshape(n).cpu()


# ---------------------------------------------------------------------------------------------- rows


def columns(family: Family, kind: str, examples: Sequence[TrainingExample]) -> dict[str, np.ndarray]:
    """Examples of one kind as rows for a window: observations `[n, ...]`, legal bool `[n, A]`, policy `[n, A]` (1 at
    the action of a negative example, 0 for a value), value `[n]`, weight `[n]`.

    Where states list their own candidates, rows are ragged: `candidates` holds an array `[k, d]` for each, `policy` one
    `[k]`, and there is no `legal`. Raises ConfigError where candidates have no encoding.
    """
    n = len(examples)
    found = {
        "observations": np.stack([example.state.numpy() for example in examples]).astype(np.float32),
        "value": np.array([float(e.target) if kind == "value" else 0.0 for e in examples], np.float32),
        "weight": np.array([example.weight for example in examples], np.float32),
    }
    if family.actions is not None:
        wide = torch.ones(family.actions, dtype=torch.bool)
        legal = [wide if kind == "value" else example.metadata["legal"] for example in examples]
        policy = [_target(example, family.actions) for example in examples]
        return {**found, "legal": torch.stack(legal).numpy(), "policy": torch.stack(policy).numpy()}
    if kind != "value" and not family.encoding:
        raise ConfigError(
            f"the world {family.name} has candidates and no encode(state, action); nothing can be learned"
        )
    candidates, policies = np.empty(n, dtype=object), np.empty(n, dtype=object)
    for i, example in enumerate(examples):
        codes = torch.zeros(0, family.encoding) if kind == "value" else example.metadata["candidates"]
        candidates[i], policies[i] = codes.numpy(), _target(example, len(codes)).numpy()
    return {**found, "candidates": candidates, "policy": policies}


def _target(example: TrainingExample, width: int) -> Tensor:
    if example.example_type == "policy":
        target: Tensor = example.target
        return target
    out = torch.zeros(width)
    if example.example_type == "negative":
        out[int(example.target)] = 1.0
    return out


def tensors(family: Family, rows: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Rows as `policy_value` takes them: observations, legal, policy, value, weight. Candidates are padded to the
    longest list, and stand behind their state in its observations."""
    if family.actions is not None:
        return {name: torch.from_numpy(column) for name, column in rows.items()}
    codes, policies = rows["candidates"], rows["policy"]
    width = max(1, *(len(code) for code in codes))
    blocks = [rows_of(family, state, code) for state, code in zip(rows["observations"], codes, strict=True)]
    return {
        "observations": torch.stack([pad(torch.from_numpy(b), (0, 0, 0, 1 + width - len(b))) for b in blocks]),
        "legal": torch.stack([torch.arange(width) < max(1, len(code)) for code in codes]),
        "policy": torch.stack([pad(torch.from_numpy(policy), (0, width - len(policy))) for policy in policies]),
        **{name: torch.from_numpy(rows[name]) for name in ("value", "weight")},
    }


def passes(
    sizes: Mapping[str, int], batch_size: int, generator: np.random.Generator
) -> Iterator[dict[str, np.ndarray]]:
    """One pass over so many rows of each kind: every row once, in random order, as {kind: which rows}. The kinds are
    cut into as many batches as the longest needs, so each batch has its share of all of them."""
    count = -(-max(sizes.values(), default=0) // batch_size)
    parts = {kind: np.array_split(generator.permutation(n), count) if count else [] for kind, n in sizes.items()}
    for i in range(count):
        yield {kind: cut[i] for kind, cut in parts.items() if len(cut[i])}


# ---------------------------------------------------------------------------------------------- losses


def losses(network: Network, batch: Mapping[str, Mapping[str, Tensor]]) -> list[Callable[[], dict[str, Tensor]]]:
    """Closures for `Learner.update`, one per kind of rows that the network can learn from."""
    found = []
    if "policy" in batch and network.policy is not None:
        found.append(_weighted(replace(network, value=None), batch["policy"], "policy"))
    if "value" in batch and network.value is not None:
        found.append(_weighted(replace(network, policy=None), batch["value"], "value"))
    if "negative" in batch and network.policy is not None:
        found.append(_unlikelihood(replace(network, value=None), batch["negative"]))
    return found


def _weighted(network: Network, rows: Mapping[str, Tensor], name: str) -> Callable[[], dict[str, Tensor]]:
    """One term of `policy_value`, whose means by weight forget how large the weights are."""
    (closure,) = policy_value(network, rows, Meter())
    size = rows["weight"].mean()
    return lambda: {name: closure()[name] * size}


def _unlikelihood(network: Network, rows: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """sum_i w_i * -log(1 - p_i(a_i)) / n. An action that is the only legal one cannot become less likely: no loss."""

    def closure() -> dict[str, Tensor]:
        logits, _ = network(rows["observations"])
        kept = logits.float().masked_fill(~rows["legal"], -torch.inf)
        others = kept.masked_fill(rows["policy"] > 0, -torch.inf)
        free = rows["legal"].sum(-1) > 1
        # log(1 - p) is the log-share of the other actions, which stays exact where p is almost 1.
        share = torch.logsumexp(others[free], -1) - torch.logsumexp(kept[free], -1)
        return {"negative": -(share * rows["weight"][free]).sum() / len(free) + 0.0 * logits.sum()}

    return closure


# ---------------------------------------------------------------------------------------------- averaged weights


@torch.no_grad()
def average(averaged: Mapping[str, Tensor], module: nn.Module, steps: int, ema: float) -> None:
    """Moves an average of a module's tensors on to the weights of its step number `steps`, from 1.

        a <- d a + (1 - d) w,    d = min(ema, (1 + steps) / (10 + steps))

    The decay rises from 0.18, so that the average forgets where it began. Counters are taken as they are; with ema 0
    so is everything.
    """
    decay = min(ema, (1 + steps) / (10 + steps))
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and decay:
            averaged[name].lerp_(tensor, 1 - decay)
        else:
            averaged[name].copy_(tensor)


class Average:
    """The average of some modules' weights over the steps of one `train()`, as `average` has it."""

    def __init__(self, modules: Mapping[str, nn.Module], ema: float) -> None:
        self.modules, self.ema, self.steps = dict(modules), ema, 0
        self._averaged = {
            name: {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
            for name, module in modules.items()
        }

    def add(self) -> None:
        """After an optimiser step."""
        self.steps += 1
        for name, module in self.modules.items():
            average(self._averaged[name], module, self.steps, self.ema)

    def wear(self) -> None:
        """The modules take the average for their weights."""
        for name, module in self.modules.items():
            load_weights(module, self._averaged[name])
