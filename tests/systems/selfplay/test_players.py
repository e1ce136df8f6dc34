from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import NetworkEvaluator
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToeBatch
from troupe.errors import ConfigError, MissingExtra
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import policy_value_net
from troupe.search.config import SearchConfig
from troupe.systems.selfplay import players
from troupe.systems.selfplay.chunks import play_chunk
from troupe.systems.selfplay.config import ActingConfig, GameConfig
from troupe.systems.selfplay.players import search_game


def without_numba(game: Any) -> Any:
    raise MissingExtra("numba", "accel", "a compiled game")


def test_a_named_game_is_compiled_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="compiled games need numba")
    config = GameConfig(name="tictactoe")
    assert hasattr(search_game(config), "step_function")
    given = TicTacToeBatch()
    assert search_game(config, given) is given
    assert isinstance(search_game(GameConfig(name="pig")), Pig)
    monkeypatch.setattr(players, "compiled_game", without_numba)
    assert isinstance(search_game(config), TicTacToeBatch)


def test_self_play_is_the_same_with_and_without_numba() -> None:
    pytest.importorskip("numba", reason="compiled games need numba")
    net = policy_value_net(PolicyValueConfig(kind="mlp", hidden=(8,)), (2, 3, 3), 9, seed=0)
    acting, search = ActingConfig(slots=3, opening_plies=2), SearchConfig(simulations=6)
    compiled, array = (
        play_chunk(game, NetworkEvaluator(net, runtime="torch", precision="fp32"), search, acting, 5, (1,))
        for game in (search_game(GameConfig(name="tictactoe")), TicTacToeBatch())
    )
    assert compiled.columns.keys() == array.columns.keys() and compiled.counts == array.counts
    for name, column in compiled.columns.items():
        np.testing.assert_array_equal(column, array.columns[name], name)
    np.testing.assert_array_equal(compiled.results, array.results)


def test_games_that_self_play_cannot_play_are_refused() -> None:
    class Alone(TicTacToeBatch):
        players = 1

    with pytest.raises(ConfigError, match="1 players"):
        search_game(GameConfig(name="tictactoe"), Alone())
