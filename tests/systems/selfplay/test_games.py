from __future__ import annotations

import numpy as np
import pytest

from troupe.envs import make_game
from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.search.minimax import negamax
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.answering import AnswerWorld
from troupe.systems.selfplay.games import GameTaskGenerator, PlayedOn, exact_value, game_world
from troupe.testing import check_game


def task(**data: object) -> Task:
    return Task("t", "game", "play", data=data)


def test_a_game_played_on_is_the_game() -> None:
    world = game_world(task(game="tictactoe", moves=[4, 0]))
    assert world.first_player == 0 and 4 not in world.legal(world.initial())
    assert world.key(world.initial()) == world.game.key(world.initial()) and not hasattr(world, "chance")
    check_game(PlayedOn(make_game("connect_four"), (3, 3)), np.random.default_rng(0), 3)


def test_the_exact_value() -> None:
    assert exact_value(game_world(task(game="tictactoe"))) == 0.0
    # X on 4 and 0, O on 1: X to move after O's next reply; 8 completes the diagonal unless O took it.
    won = game_world(task(game="tictactoe", moves=[4, 1, 0, 2]))
    assert exact_value(won) == 1.0 == negamax(won.game, won.initial(), 9)[0]
    assert exact_value(game_world(task(game="connect_four"))) is None  # too large
    assert exact_value(game_world(task(game="pig"))) is None  # chance


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "names none"),
        ({"game": "tictactoe", "move": [1]}, "did you mean 'moves'"),
        ({"game": "tictactoe", "moves": [1, 1]}, "move 1 of tictactoe is 1"),
        ({"game": "tictactoe", "moves": [0, 3, 1, 4, 2]}, "ends the game"),
        ({"game": "pig", "moves": [0]}, "chance decides"),
    ],
)
def test_tasks_that_cannot_be_played(data: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        game_world(task(**data))


def test_an_unknown_game() -> None:
    with pytest.raises(ConfigError, match="tictactoe"):
        game_world(task(game="tictactoo"))


def test_generated_positions_are_playable_and_seeded() -> None:
    tasks = GameTaskGenerator(seed=3).generate(30)
    assert tasks == GameTaskGenerator(seed=3).generate(30) and {t.kind for t in tasks} == {"game"}
    assert {len(t.data["moves"]) for t in tasks} == {0, 1, 2, 3, 4} and all(t.answer is None for t in tasks)
    hard, easy = (GameTaskGenerator((d, d), kinds=("connect_four",)).generate(3) for d in (1.0, 0.0))
    assert {len(t.data["moves"]) for t in hard} == {0} and {len(t.data["moves"]) for t in easy} == {4}
    for t in (*tasks, *easy):
        game_world(t)
    with pytest.raises(ConfigError, match="longest"):
        GameTaskGenerator(longest=-1)


class Ring:
    """Positions in a ring: one may go round for ever, or leave."""

    players, actions, observation_shape = 1, 2, (1,)

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> tuple[int, ...]:
        return (0, 1)

    def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
        return (state + 1) % 5, float(action), action == 1, 0

    def observe(self, state: int) -> np.ndarray:
        return np.array([state], np.float32)


def test_a_game_whose_positions_come_back_has_no_exact_value() -> None:
    assert exact_value(PlayedOn(Ring())) is None

    class Open(Ring):
        def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
            return state + 1, float(action), action == 1 or state == 4, 0

    assert exact_value(PlayedOn(Open())) == 1.0


def test_a_game_of_candidates_can_be_played_on() -> None:
    """It has encodings, and their length."""
    world = PlayedOn(AnswerWorld("Add 12 and 5"), ("12+5",))
    assert Family.of(world) == Family.of(world.game)
    assert world.encode(world.initial(), "17+5").shape == (world.encoding,)
    with pytest.raises(AttributeError):
        world.answer  # noqa: B018
