"""Joint training: what happens to a gradient where the meta-controller's and a specialist's objectives meet.

    coordination = GradientCoordinationSystem(dict(zip(names, learner.parameters())), ("meta", "forex", "equity"))
    learner.combine = coordination
    learner.update(closures)          # each gives {"meta": loss, "forex": loss, "equity": loss}
    coordination.metrics()            # {"coordination/cosine/forex": -0.12, "coordination/conflicts/forex": 0.61, ...}

Both objectives reach a specialist's encoder (`specialists.forex.towers.`): its own, and the meta-controller's through
the embedding. There their gradients are combined by PCGrad (Yu et al. 2020, arXiv:2001.06782), or, with
`projection=False`, added; everywhere else they are added.

Legend: P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError, DataError, TrainingError, did_you_mean
from troupe.maths.gradients import Combined, clip_by_global_norm, pcgrad

__all__ = ["GradientCoordinationSystem"]

_CHANGE = 1.5
_RANGE = (0.1, 10.0)


class GradientCoordinationSystem:
    """The `combine` of a Learner whose losses are named by `agents`, the first of which is the meta-controller.

    `parameters` are named in the order of `learner.parameters()`. `max_norm` clips each agent's whole gradient before
    they meet, so that an objective with large rewards does not drown the others (with fp16, whose gradients are scaled,
    leave it None). `seed` draws PCGrad's order, on which a pair of gradients does not depend. `target_kl` is that of
    `adaptive_learning_rates`. Raises ConfigError for names that do not fit the agents.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        agents: Sequence[str],
        *,
        projection: bool = True,
        max_norm: float | None = None,
        target_kl: float = 0.01,
        seed: int = 0,
    ) -> None:
        for name, value in (("max_norm", max_norm), ("target_kl", target_kl)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value} of the gradient coordination must be a number above 0")
        self.agents = tuple(agents)
        self.parameters = dict(parameters)
        _check_names(self.agents, self.parameters)
        self.projection, self.max_norm, self.target_kl = projection, max_norm, target_kl
        self.factors = dict.fromkeys(self.agents, 1.0)
        """On each agent's learning rate: `OptimizerGroup(..., schedule=lambda step: coordination.factors["forex"])`."""
        self._encoders = {
            agent: [i for i, name in enumerate(self.parameters) if name.startswith(_encoder(agent))]
            for agent in self.agents[1:]
        }
        self._shapes = [parameter.shape for parameter in self.parameters.values()]
        self._generator = torch.Generator().manual_seed(seed)
        self._begin()

    def __call__(self, gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """One gradient per parameter of those of each agent, P tensors each. Raises TrainingError where agents or
        tensors are missing, or too many."""
        self._expect(gradients, "gradients")
        given = {agent: self._clipped(agent, gradients[agent]) for agent in self.agents}
        total = _added(*given.values())
        for agent, places in self._encoders.items():
            pair = (self.agents[0], agent)
            met = pcgrad([[given[name][i] for i in places] for name in pair], self._generator)
            self._measure(agent, met)
            if self.projection and met.projections:
                others = [[gradient[i] for i in places] for name, gradient in given.items() if name not in pair]
                parts = _added(met.gradient, *others) if others else met.gradient
                for i, part in zip(places, parts, strict=True):
                    total[i] = part
        return total

    def metrics(self) -> dict[str, float]:
        """Of each encoder, over the updates since the last call: the mean cosine of the two gradients, and the share of
        updates in which it was negative. An update counts where both are finite and not 0; an encoder without one is
        left out."""
        found: dict[str, float] = {}
        for agent, (count, cosine, conflicts) in self._sums.items():
            if count:
                found[f"coordination/cosine/{agent}"] = cosine / count
                found[f"coordination/conflicts/{agent}"] = conflicts / count
        self._begin()
        return found

    # ------------------------------------------------------------------------------------------ documented methods

    def coordinate_updates(
        self, meta_gradients: Mapping[str, Tensor], specialist_gradients: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The same for gradients by parameter name; a name that an agent leaves out is a gradient of 0. Returns those
        that somebody gave, in the order of the parameters. Raises TrainingError for unknown agents and names, and for
        a gradient with another shape than its parameter."""
        given = {self.agents[0]: meta_gradients, **specialist_gradients}
        self._expect(given, "specialist_gradients")
        for agent, named in given.items():
            self._check_gradients(agent, named)
        rows = {
            agent: [torch.zeros_like(p) if (g := named.get(n)) is None else g for n, p in self.parameters.items()]
            for agent, named in given.items()
        }
        return {
            name: gradient
            for name, gradient in zip(self.parameters, self(rows), strict=True)
            if any(name in named for named in given.values())
        }

    def adaptive_learning_rates(self, performance_metrics: Mapping[str, Any]) -> dict[str, float]:
        """Each agent's factor on its learning rate, after this look at how far its policy moved.

            KL > 2 target: factor / 1.5        KL < target / 2: factor * 1.5        kept within 0.1 and 10

        The rule by which Schulman et al. (2017, section 4, arXiv:1707.06347) adapt a penalty, applied to the learning
        rate as Rudin et al. (2022, arXiv:2109.11978) do. `performance_metrics` is {"forex": {"approx_kl": 0.01}} or
        {"approx_kl/forex": 0.01}, what else it holds is not read, and an agent without a KL keeps its factor. Raises
        DataError where no agent has one, for an unknown agent, and for a KL that is not a number.
        """
        moved = self._moved(performance_metrics)
        for agent, kl in moved.items():
            change = 1 / _CHANGE if kl > 2 * self.target_kl else _CHANGE if kl < self.target_kl / 2 else 1.0
            self.factors[agent] = min(max(self.factors[agent] * change, _RANGE[0]), _RANGE[1])
        return dict(self.factors)

    @overload
    def gradient_clipping(self, gradients: Mapping[str, Tensor], max_norm: float = 1.0) -> dict[str, Tensor]: ...
    @overload
    def gradient_clipping(self, gradients: Sequence[Tensor], max_norm: float = 1.0) -> list[Tensor]: ...
    def gradient_clipping(self, gradients: Any, max_norm: float = 1.0) -> Any:
        """The gradients, scaled down together where their global norm is above `max_norm`; not the norm. Those given
        stay as they are. Raises ConfigError for a `max_norm` that is not above 0."""
        if not max_norm > 0:
            raise ConfigError(f"gradients cannot be clipped to the norm {max_norm}; write a number above 0")
        if isinstance(gradients, Mapping):
            return dict(zip(gradients, self.gradient_clipping(list(gradients.values()), max_norm), strict=True))
        return list(clip_by_global_norm(gradients, max_norm)[0])

    # ------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Generator, factors and what was measured since the last `metrics`."""
        return {
            "agents": list(self.agents),
            "generator": self._generator.get_state(),
            "factors": dict(self.factors),
            "sums": {agent: list(sums) for agent, sums in self._sums.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises TrainingError for the state of other agents."""
        if list(state["agents"]) != list(self.agents):
            raise TrainingError(f"the stored coordination is of {list(state['agents'])}, this one of {self.agents}")
        self._generator.set_state(state["generator"])
        self.factors.update(state["factors"])
        self._sums = {agent: list(sums) for agent, sums in state["sums"].items()}

    # ------------------------------------------------------------------------------------------ parts

    def _begin(self) -> None:
        """Of each specialist: updates that count, sum of cosines, conflicts."""
        self._sums = {agent: [0, 0.0, 0] for agent in self.agents[1:]}

    def _measure(self, agent: str, met: Combined) -> None:
        (meta, cosine), (_, own) = met.cosine.tolist()
        if meta > 0 and own > 0:  # the cosine with itself is 0 for a gradient of 0, and NaN for one that is infinite
            count, total, conflicts = self._sums[agent]
            self._sums[agent] = [count + 1, total + cosine, conflicts + (cosine < 0)]

    def _clipped(self, agent: str, gradient: Sequence[Tensor]) -> Sequence[Tensor]:
        if len(gradient) != len(self.parameters):
            raise TrainingError(
                f"the gradient of {agent!r} has {len(gradient)} tensors; the coordination was made for "
                f"{len(self.parameters)}, in the order of the learner's parameters"
            )
        if [tensor.shape for tensor in gradient] != self._shapes:  # a sum would spread a smaller one over all
            self._check_gradients(agent, dict(zip(self.parameters, gradient, strict=True)))
        return gradient if self.max_norm is None else self.gradient_clipping(gradient, self.max_norm)

    def _expect(self, given: Iterable[str], what: str) -> None:
        found = list(given)
        for agent in found:
            if agent not in self.agents:
                raise TrainingError(f"{what} name an agent {agent!r}{did_you_mean(agent, self.agents)}")
        if missing := [agent for agent in self.agents if agent not in found]:
            raise TrainingError(f"{what} lack {missing}: give one for each of {list(self.agents)}")

    def _check_gradients(self, agent: str, named: Mapping[str, Tensor]) -> None:
        for name, gradient in named.items():
            if name not in self.parameters:
                hint = did_you_mean(name, self.parameters)
                raise TrainingError(f"the gradients of {agent!r} name a parameter {name!r}{hint}")
            if gradient.shape != (wanted := self.parameters[name].shape):
                raise TrainingError(
                    f"the gradient of {agent!r} for {name!r} has shape {list(gradient.shape)}, the parameter "
                    f"{list(wanted)}: use the same module"
                )

    def _moved(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        found = {name.removeprefix("approx_kl/"): kl for name, kl in metrics.items() if name.startswith("approx_kl/")}
        found |= {
            n: each["approx_kl"] for n, each in metrics.items() if isinstance(each, Mapping) and "approx_kl" in each
        }
        if not found:
            raise DataError("no agent's 'approx_kl' is in the metrics; give {'approx_kl/forex': 0.01} or the like")
        for agent, kl in found.items():
            if agent not in self.agents:
                raise DataError(f"the metrics give the KL of an agent {agent!r}{did_you_mean(agent, self.agents)}")
            if not math.isfinite(kl):
                raise DataError(f"the KL of {agent!r} is {kl}; learning rates follow numbers only")
        return {agent: float(kl) for agent, kl in found.items()}


def _encoder(agent: str) -> str:
    return f"specialists.{agent}.towers."


def _added(first: Sequence[Tensor], second: Sequence[Tensor], *more: Sequence[Tensor]) -> list[Tensor]:
    """The plain sum, in new tensors."""
    total = list(torch._foreach_add(list(first), list(second)))
    for gradient in more:
        torch._foreach_add_(total, list(gradient))
    return total


def _check_names(agents: tuple[str, ...], parameters: Mapping[str, nn.Parameter]) -> None:
    if len(agents) < 2 or len(set(agents)) < len(agents):
        raise ConfigError(
            f"agents={list(agents)}: write the meta-controller and then one or more different specialists"
        )
    for name in parameters:
        owner = name.split(".")[1] if name.startswith("specialists.") else None
        if owner is not None and owner not in agents[1:]:
            raise ConfigError(f"parameter {name!r} is of a specialist {owner!r}{did_you_mean(owner, agents[1:])}")
    for agent in agents[1:]:
        if not any(name.startswith(_encoder(agent)) for name in parameters):
            raise ConfigError(
                f"no parameter of the encoder of {agent!r} is given: their names begin {_encoder(agent)!r}"
            )
