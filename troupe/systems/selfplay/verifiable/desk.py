"""What one process needs to attempt tasks: a game, a network and an evaluator for each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from troupe.episode import Task
from troupe.protocols import TaskGame
from troupe.systems.selfplay.verifiable.attempts import RETURNS, Attempts, attempt
from troupe.systems.selfplay.verifiable.config import VerifiableConfig
from troupe.systems.selfplay.verifiable.families import family_of

if TYPE_CHECKING:
    from torch import nn

    from troupe.engines.evaluator import NetworkEvaluator

__all__ = ["TaskDesk", "network", "runtime_of"]


def network(config: VerifiableConfig, game: TaskGame, seed: int) -> nn.Module:
    """The untrained network of a kind. Raises ConfigError for sizes that do not fit the game."""
    from troupe.models.policy_value import policy_value_net
    from troupe.models.token_net import PolicyAndValue, token_net

    if not game.vocabulary:
        return policy_value_net(config.image_net, game.observation_shape, game.actions, seed=seed)
    sizes: dict[str, Any] = {
        "vocabulary": game.vocabulary, "length": game.observation_shape[0], "actions": game.actions,
        "pointers": game.pointers,
    }  # fmt: skip
    net = token_net(config.net, **sizes, seed=seed)
    if config.value_net is None:
        return net
    return PolicyAndValue(net, token_net(config.value_net, **sizes, seed=seed + 1))


def runtime_of(config: VerifiableConfig, game: TaskGame) -> tuple[Any, Any]:
    """(runtime, precision) of a kind's networks: only torch runs networks of tokens, and bf16 makes blocks of attention
    faster, but not the rest."""
    runtime, precision = config.acting.runtime, config.acting.precision
    if not game.vocabulary:
        return runtime, precision
    precise = precision == "auto" and config.net.kind not in ("transformer", "mixer")
    return "torch" if runtime == "auto" else runtime, "fp32" if precise else precision


@dataclass(slots=True)
class _Kind:
    game: TaskGame
    net: nn.Module
    evaluator: NetworkEvaluator


@dataclass(slots=True)
class TaskDesk:
    """Attempts tasks for a trainer. A `generator` class given in code stands in a module that a process can import."""

    config: VerifiableConfig
    generator: Any = None
    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def play(
        self,
        kind: str,
        tasks: Sequence[Task],
        seed: tuple[int, ...],
        arrays: Mapping[str, np.ndarray] | None,
        explore: bool,
    ) -> Attempts:
        """Attempts at tasks of a kind with these weights; without any, by a search that no network guides. Its root is
        sampled with Gumbel noise, since ties would always fall to the first action."""
        import torch

        from troupe.engines.evaluator import UniformEvaluator
        from troupe.models.policy_value import load_weights

        family = family_of(self.config.tasks, self.generator)
        own = self._kinds.get(kind) or self._kinds.setdefault(kind, self._made(family.game(kind)))
        evaluator: Any = UniformEvaluator(sum(RETURNS) / 2)
        if arrays is not None:
            evaluator = own.evaluator
            load_weights(own.net, {name: torch.from_numpy(array) for name, array in arrays.items()})
            evaluator.refresh(own.net)
            evaluator.calls = evaluator.evaluated = evaluator.cache_hits = 0
        config = self.config
        return attempt(
            family, own.game, evaluator, config.search, config.acting, tasks, seed, explore=explore or arrays is None,
            distrust=explore and config.tasks.control == "corrupted",
        )  # fmt: skip

    def _made(self, game: TaskGame) -> _Kind:
        from troupe.engines.evaluator import NetworkEvaluator

        config, acting = self.config, self.config.acting
        net = network(config, game, config.seed).eval()
        runtime, precision = runtime_of(config, game)
        evaluator = NetworkEvaluator(net, precision=precision, runtime=runtime, cache=acting.cache)  # type: ignore[arg-type]
        return _Kind(game, net, evaluator)
