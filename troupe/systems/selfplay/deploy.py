"""A trained player out of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from troupe.engines.evaluator import NetworkEvaluator
from troupe.errors import ConfigError, StorageError
from troupe.models.policy_value import load_weights, policy_value_net
from troupe.protocols import BatchGame, Game
from troupe.search.config import SearchConfig
from troupe.stores.checkpoints import Checkpoint, CheckpointStore, resolve
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.players import SearchPlayer, match_game, search_game

__all__ = ["TrainedPlayer", "load_player", "read_checkpoint"]

M = TypeVar("M", bound=BaseModel)

WHICH = ("champion", "averaged", "untrained")
"""Weights that a run folder holds: of the incumbent, of the last iteration, and those that it began with."""


class TrainedPlayer(SearchPlayer):
    """A `SearchPlayer` that knows where it comes from."""

    def __init__(
        self, config: SelfPlayConfig, game: Game, evaluator: NetworkEvaluator, search: SearchConfig, source: str
    ) -> None:
        super().__init__(game, evaluator, search)
        self.run_config = config
        self.source = source


def load_player(
    folder: str | Path,
    *,
    simulations: int | None = None,
    which: str = "champion",
    algorithm: str | None = None,
    leaves: int = 1,
    game: Game | BatchGame | None = None,
) -> TrainedPlayer:
    """The player of a run (or checkpoint) folder.

    `which` of its networks plays, with `simulations` per move (default: those of its matches). A `game` that was given
    in code, and whose class cannot be imported, is given again. Raises StorageError for a folder that holds no run,
    ConfigError for other arguments that it has not.
    """
    if which not in WHICH:
        raise ConfigError(f"a run has no weights {which!r}; write {', '.join(WHICH)}")
    if simulations is not None and simulations < 1:
        raise ConfigError(f"a search needs 1 or more simulations, not {simulations}")
    path = Path(folder)
    checkpoint, config = read_checkpoint(path, SelfPlayConfig)
    searched = search_game(config.game, game)
    assert searched.actions is not None
    net = policy_value_net(config.net, searched.observation_shape, searched.actions, seed=config.seed).eval()
    if which != "untrained":
        load_weights(net, checkpoint.tensors[which])
    changes: dict[str, Any] = {"simulations": simulations or config.arena.simulations, "reuse": False, "leaves": leaves}
    if algorithm is not None:
        changes["algorithm"] = algorithm
    search = SearchConfig.model_validate({**config.search.model_dump(), **changes})
    acting = config.acting
    evaluator = NetworkEvaluator(net, precision=acting.precision, runtime=acting.runtime, cache=acting.cache)
    name = checkpoint.state["champion"] if which == "champion" else which
    return TrainedPlayer(config, match_game(config.game, game), evaluator, search, f"{path}: {name}")


def read_checkpoint(path: str | Path, model: type[M]) -> tuple[Checkpoint, M]:
    """The checkpoint that a path means, and the config of its run. Raises StorageError where either is missing."""
    where = resolve(path)
    checkpoint = CheckpointStore(where.parent).load(where)
    for folder in (where, where.parent):
        if (folder / "config.json").exists():
            return checkpoint, model.model_validate(json.loads((folder / "config.json").read_text()))
    raise StorageError(f"{where.parent} has no config.json; give the folder of a self-play run")
