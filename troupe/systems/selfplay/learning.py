"""From examples to gradients: batches of one family of worlds, and their losses as closures for the learner.

    policy    cross-entropy to the target policy               (troupe.training.objectives.policy_value)
    value     squared error to the verified value              (the same)
    negative  -log(1 - p(a)) for the actions of failed attempts: unlikelihood (Welleck et al. 2020, arXiv:1908.04319)

Each is a mean by weight over its batch; the negative term is divided by the batch's size, so that its weight counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from troupe.errors import ConfigError
from troupe.systems.selfplay.agents import Family, Forward, rows_of
from troupe.systems.selfplay.episodes import TrainingExample
from troupe.training.objectives import Meter, policy_value

__all__ = ["Network", "batches", "columns", "losses"]

LEARNED = ("policy", "value", "negative")


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


def batches(
    data: Mapping[str, Sequence[TrainingExample]], batch_size: int, generator: np.random.Generator
) -> Iterator[dict[str, list[TrainingExample]]]:
    """One pass: every example once, in random order. The kinds are cut into as many batches as the longest needs, so
    each batch has its share of all of them."""
    longest = max((len(data.get(kind, ())) for kind in LEARNED), default=0)
    count = -(-longest // batch_size)
    orders = {kind: generator.permutation(len(data.get(kind, ()))) for kind in LEARNED}
    parts = {kind: np.array_split(order, count) if count else [] for kind, order in orders.items()}
    for i in range(count):
        yield {kind: [data[kind][j] for j in parts[kind][i].tolist()] for kind in LEARNED if len(parts[kind][i])}


def columns(family: Family, kind: str, examples: Sequence[TrainingExample]) -> dict[str, Tensor]:
    """Examples of one kind as `policy_value` takes them: observations, legal, policy, value, weight. Candidates are
    padded to the longest list. Raises ConfigError where candidates have no encoding."""
    if family.actions is None:
        return _ragged(family, kind, examples)
    n, width = len(examples), family.actions
    legal = [e.metadata["legal"] if kind != "value" else torch.ones(width, dtype=torch.bool) for e in examples]
    policy = torch.stack([_target(e, width) for e in examples])
    observations = torch.stack([e.state for e in examples])
    return {"observations": observations, "legal": torch.stack(legal), "policy": policy, **_scalars(kind, examples, n)}


def _ragged(family: Family, kind: str, examples: Sequence[TrainingExample]) -> dict[str, Tensor]:
    codes = [[] if kind == "value" else list(e.metadata["candidates"].numpy()) for e in examples]
    if kind != "value" and not family.encoding:
        raise ConfigError(
            f"the world {family.name} has candidates and no encode(state, action); nothing can be learned"
        )
    width = max(1, *(len(code) for code in codes))
    rows = [torch.from_numpy(rows_of(family, e.state.numpy(), code)) for e, code in zip(examples, codes, strict=True)]
    observations = torch.stack([pad(row, (0, 0, 0, 1 + width - len(row))) for row in rows])
    legal = torch.stack([torch.arange(width) < max(1, len(code)) for code in codes])
    policy = torch.stack([_target(e, width) for e in examples])
    scalars = _scalars(kind, examples, len(examples))
    return {"observations": observations, "legal": legal, "policy": policy, **scalars}


def _target(example: TrainingExample, width: int) -> Tensor:
    """A policy `[width]`; for a negative example, 1 at its action; for a value, nothing."""
    if example.example_type == "policy":
        return pad(example.target, (0, width - len(example.target)))
    out = torch.zeros(width)
    if example.example_type == "negative":
        out[int(example.target)] = 1.0
    return out


def _scalars(kind: str, examples: Sequence[TrainingExample], n: int) -> dict[str, Tensor]:
    value = torch.stack([e.target for e in examples]) if kind == "value" else torch.zeros(n)
    return {"value": value, "weight": torch.tensor([e.weight for e in examples], dtype=torch.float32)}


def losses(
    network: Network, batch: Mapping[str, Sequence[TrainingExample]], meter: Meter
) -> list[Callable[[], dict[str, Tensor]]]:
    """Closures for `Learner.update`, one per kind of example that the network can learn from."""
    family, found = network.family, []
    if batch.get("policy") and network.policy is not None:
        net, rows = replace(network, value=None), columns(family, "policy", batch["policy"])
        found += [_only(closure, "policy") for closure in policy_value(net, rows, meter)]
    if batch.get("value") and network.value is not None:
        net, rows = replace(network, policy=None), columns(family, "value", batch["value"])
        found += [_only(closure, "value") for closure in policy_value(net, rows, Meter())]
    if batch.get("negative") and network.policy is not None:
        rows = columns(family, "negative", batch["negative"])
        found.append(_unlikelihood(replace(network, value=None), rows))
    return found


def _only(closure: Callable[[], dict[str, Tensor]], name: str) -> Callable[[], dict[str, Tensor]]:
    return lambda: {name: closure()[name]}


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
