"""Worlds that are stepped: games. A new one is one file here and one line in `GAMES`; one of your own needs none, as
`package.module:Class` names it."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from troupe.errors import ConfigError, did_you_mean
from troupe.protocols import BatchGame, Game

__all__ = ["BATCH_GAMES", "GAMES", "make_batch_game", "make_game"]

GAMES: dict[str, tuple[str, str]] = {
    "connect_four": ("troupe.envs.connect_four", "ConnectFour"),
    "othello": ("troupe.envs.othello", "Othello"),
    "pig": ("troupe.envs.pig", "Pig"),
    "tictactoe": ("troupe.envs.tictactoe", "TicTacToe"),
}
"""Games in plain Python: (module, class)."""

BATCH_GAMES: dict[str, tuple[str, str]] = {
    "connect_four": ("troupe.envs.connect_four", "ConnectFourBatch"),
    "othello": ("troupe.envs.othello", "OthelloBatch"),
    "tictactoe": ("troupe.envs.tictactoe", "TicTacToeBatch"),
}
"""The same games on arrays. Their states are rows of `words` uint64 words, which `compiled_functions()` reads too."""


def make_game(name: str, **options: Any) -> Game:
    """The game of this name, or that of your own class: "package.module:Class". `options` go to its constructor.

    Raises ConfigError for a name that is not in `GAMES`, a class that cannot be found, an option that it does not have,
    and an object that lacks one of the verbs of `Game`.
    """
    game = _make(name, GAMES, options)
    _require(game, Game, name, "games")
    return game


def make_batch_game(name: str, **options: Any) -> BatchGame:
    """As `make_game`, from `BATCH_GAMES`."""
    game = _make(name, BATCH_GAMES, options)
    _require(game, BatchGame, name, "games on arrays")
    return game


def _make(name: str, known: dict[str, tuple[str, str]], options: dict[str, Any]) -> Any:
    if ":" in name:
        module, _, attribute = name.partition(":")
    elif name in known:
        module, attribute = known[name]
    else:
        raise ConfigError(f"unknown game {name!r}{did_you_mean(name, known)}; your own is written package.module:Class")
    factory = _find(module, attribute, name)
    accepted = inspect.signature(factory).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        for option in options:
            if option not in accepted:
                raise ConfigError(f"game {name!r} has no option {option!r}{did_you_mean(option, accepted)}")
    return factory(**options)


def _find(module: str, attribute: str, name: str) -> Any:
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise ConfigError(f"game {name!r}: there is no module {error.name!r} to import; check the spelling") from error
    if not callable(getattr(found, attribute, None)):
        classes = [word for word, value in vars(found).items() if inspect.isclass(value)]
        raise ConfigError(
            f"game {name!r}: module {module!r} has no class {attribute!r}{did_you_mean(attribute, classes)}"
        )
    return getattr(found, attribute)


def _require(game: Any, protocol: type, name: str, kind: str) -> None:
    members = [word for word in (*protocol.__annotations__, *vars(protocol)) if not word.startswith("_")]
    missing = [word for word in members if not hasattr(game, word)]
    if missing:
        raise ConfigError(f"game {name!r} lacks {', '.join(missing)}, which {kind} have; see troupe.protocols")
