from __future__ import annotations

import sys
from pathlib import Path

import pytest

from troupe.envs import BATCH_GAMES, GAMES, make_batch_game, make_game
from troupe.envs.connect_four import ConnectFour
from troupe.errors import ConfigError
from troupe.protocols import BatchGame, Game

OWN = """
class Countdown:
    players, actions, observation_shape = 1, 1, (1,)
    def __init__(self, start=3): self.start = start
    def initial(self): return self.start
    def legal(self, state): return (0,)
    def step(self, state, action): return state - 1, 0.0, state == 1, 0
    def observe(self, state): raise NotImplementedError
class Deaf:
    players, actions, observation_shape = 1, 1, (1,)
    def initial(self): return 0
    def legal(self, state): return (0,)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_games.py").write_text(OWN)
    (tmp_path / "my_broken_game.py").write_text("import no_such_package_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_games", raising=False)
    return "my_games"


@pytest.mark.parametrize("name", sorted(GAMES))
def test_every_name_makes_a_game(name: str) -> None:
    assert isinstance(make_game(name), Game)


@pytest.mark.parametrize("name", sorted(BATCH_GAMES))
def test_every_batch_name_makes_the_same_game_on_arrays(name: str) -> None:
    batch, game = make_batch_game(name), make_game(name)
    assert isinstance(batch, BatchGame)
    for what in ("players", "actions", "observation_shape"):
        assert getattr(batch, what) == getattr(game, what)


def test_options_reach_the_game() -> None:
    assert make_game("pig", target=30, sides=4).target == 30  # type: ignore[attr-defined]


def test_a_typo_is_guessed() -> None:
    with pytest.raises(ConfigError, match=r"unknown game 'conect_four' \(did you mean 'connect_four'\?\)"):
        make_game("conect_four")
    with pytest.raises(ConfigError, match=r"known: connect_four, othello, tictactoe"):
        make_batch_game("pig")
    with pytest.raises(ConfigError, match=r"game 'pig' has no option 'targt' \(did you mean 'target'\?\)"):
        make_game("pig", targt=3)
    with pytest.raises(ConfigError, match="has no option 'size'"):
        make_game("tictactoe", size=4)


def test_a_class_of_ones_own_is_imported(own: str) -> None:
    assert make_game(f"{own}:Countdown", start=5).initial() == 5
    assert isinstance(make_game("troupe.envs.connect_four:ConnectFour"), ConnectFour)


def test_what_cannot_be_imported_says_why(own: str) -> None:
    with pytest.raises(ConfigError, match="no module 'my_gams'"):
        make_game("my_gams:Countdown")
    with pytest.raises(ConfigError, match=r"no class 'CountDown' \(did you mean 'Countdown'\?\)"):
        make_game(f"{own}:CountDown")
    with pytest.raises(ConfigError, match="lacks step, observe"):
        make_game(f"{own}:Deaf")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        make_game("my_broken_game:Game")
