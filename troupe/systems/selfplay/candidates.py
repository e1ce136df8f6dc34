"""The networks that learn and the ones they must beat: candidate and incumbent, with their optimisers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from troupe.errors import ConfigError, StorageError
from troupe.models.policy_value import load_weights, policy_value_net
from troupe.models.token_net import token_net
from troupe.systems.selfplay.agents import Family, forward_of, in_world
from troupe.systems.selfplay.learning import Network
from troupe.systems.selfplay.settings import TrainerSettings
from troupe.training.learner import Learner, adamw

__all__ = ["Candidates"]

Weights = dict[str, dict[str, Tensor]]
"""By the name of a network, by the name of a tensor."""


class Candidates:
    """The two agents that a trainer was given, or one network per family of worlds, built when it is first met: a
    `TokenNet` where observations are token ids, else a `PolicyValueNet`. `promote` makes what they are now the
    incumbent, `roll_back` makes them what the incumbent is, to the last bit of weights and optimisers.

    Raises ConfigError for agents that are no torch modules: they can play, but not learn.
    """

    def __init__(self, hrm_agent: Any, trm_agent: Any, settings: TrainerSettings, device: str) -> None:
        self.settings, self.device = settings, device
        agents = {"hrm": hrm_agent, "trm": trm_agent}
        self.modules: dict[str, nn.Module] = {}
        for name, agent in agents.items():
            if agent is not None and not isinstance(agent, nn.Module):
                raise ConfigError(f"{name}_agent is a {type(agent).__name__}; a trainer needs torch modules, to train")
            if agent is not None and all(agent is not other for other in self.modules.values()):
                self.modules[name] = agent.to(device)
        self._policy, self._value = hrm_agent, trm_agent
        self.given = bool(self.modules)
        self._learners: dict[str, Learner] = {}
        if self.given:
            self._learners["agents"] = self._learner(self.modules)
        self.incumbent: Weights = _weights(self.modules)
        self._incumbent_state = self._state()

    def for_family(self, family: Family) -> nn.Module:
        """The network of a family of worlds, untrained where it is new."""
        name = family.name
        if name not in self.modules:
            net = self._built(family)
            self.modules[name] = net.to(self.device)
            self._learners[name] = self._learner({name: net})
            self.incumbent[name] = _weights({name: net})[name]
            self._incumbent_state[name] = copy.deepcopy(self._learners[name].state_dict())
        return self.modules[name]

    def _built(self, family: Family) -> nn.Module:
        settings = self.settings
        if not family.vocabulary:
            return policy_value_net(settings.net, family.input_shape, family.logits, seed=settings.seed)
        config = settings.token_net
        if family.players == 2 and config.value_range == "unit":  # who wins takes 1, who loses -1
            config = config.model_copy(update={"value_range": "bounded"})
        return token_net(
            config, vocabulary=family.vocabulary, length=family.observation_shape[0],
            actions=family.logits, pointers=family.pointers, seed=settings.seed,
        )  # fmt: skip

    def network(self, family: Family) -> Network:
        """What learns from examples of a family."""
        if not self.given:
            net = self.for_family(family)
            return Network(family, forward_of(net, "policy", self.device), forward_of(net, "value", self.device))
        forwards: list[Callable[[Tensor], Tensor] | None] = [
            None if agent is None else forward_of(in_world(agent, family), what, self.device)
            for agent, what in ((self._policy, "policy"), (self._value, "value"))
        ]
        return Network(family, *forwards)

    def learning(self, family: Family) -> dict[str, nn.Module]:
        """The modules that learn from examples of a family, by name: both agents, or its own network."""
        return self.modules if self.given else {family.name: self.for_family(family)}

    def learner(self, family: Family) -> Learner:
        """Whose step moves them."""
        return self._learners["agents" if self.given else family.name]

    def train(self) -> None:
        """Into training mode; evaluators take them out of it."""
        for module in self.modules.values():
            module.train()

    def _learner(self, modules: Mapping[str, nn.Module]) -> Learner:
        lr, decay = self.settings.learning_rate, self.settings.weight_decay
        return Learner(
            {
                name: adamw(dict(module.named_parameters()), lr=lr, betas=(0.9, 0.999), weight_decay=decay)
                for name, module in modules.items()
            }
        )

    # ------------------------------------------------------------------------------------------ candidate, incumbent

    def promote(self) -> None:
        self.incumbent, self._incumbent_state = _weights(self.modules), self._state()

    def roll_back(self) -> None:
        self._wear(self.incumbent)
        self._restore(self._incumbent_state)

    @contextmanager
    def as_incumbent(self) -> Iterator[None]:
        """Inside, the networks have the incumbent's weights."""
        own = _weights(self.modules)
        self._wear(self.incumbent)
        try:
            yield
        finally:
            self._wear(own)

    def _wear(self, weights: Weights) -> None:
        for name, module in self.modules.items():
            load_weights(module, weights[name])

    def _state(self) -> dict[str, Any]:
        return {name: copy.deepcopy(learner.state_dict()) for name, learner in self._learners.items()}

    def _restore(self, states: Mapping[str, Any]) -> None:
        for name, learner in self._learners.items():
            learner.load_state_dict(copy.deepcopy(states[name]))  # an optimiser works on the tensors that it is given

    # ------------------------------------------------------------------------------------------ checkpoints

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Groups of a checkpoint: `candidate.<name>` and `incumbent.<name>`."""
        own = {f"candidate.{name}": tensors for name, tensors in _weights(self.modules).items()}
        return own | {f"incumbent.{name}": tensors for name, tensors in self.incumbent.items()}

    def state(self) -> dict[str, Any]:
        return {"names": list(self.modules), "learners": self._state(), "incumbent": self._incumbent_state}

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Its networks, and no others. Raises StorageError where the checkpoint is of other agents, ConfigError where a
        network has other shapes."""
        names: Iterable[str] = state["names"]
        if self.given and set(names) != set(self.modules):
            raise StorageError(f"the checkpoint holds {sorted(names)}, this trainer {sorted(self.modules)}; pass the "
                               "agents that it was saved with")  # fmt: skip
        if not self.given:
            if not set(names).isdisjoint({"hrm", "trm"}):
                raise StorageError(f"the checkpoint holds the agents {sorted(names)}; pass hrm_agent and trm_agent")
            self.modules.clear()
            self._learners.clear()
            for name in names:
                self.for_family(Family.named(name))
        for name in names:
            load_weights(self.modules[name], tensors[f"candidate.{name}"])
        self.incumbent = {name: dict(tensors[f"incumbent.{name}"]) for name in names}
        self._incumbent_state = dict(state["incumbent"])
        self._restore(state["learners"])


def _weights(modules: Mapping[str, nn.Module]) -> Weights:
    return {
        name: {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
        for name, module in modules.items()
    }
