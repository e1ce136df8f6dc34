from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.search.textbook import Heaps, Ledges, Wheel
from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.othello import Othello, OthelloBatch
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe, TicTacToeBatch
from troupe.errors import DataError
from troupe.search import worlds
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.search.worlds import BatchWorld, GamePositions, PythonWorld, is_batch, world_of

ZERO = np.zeros(1, np.int64)


def grown(game: Any, slots: int = 3, nodes: int = 4) -> Any:
    world = world_of(game)
    world.resize(slots, nodes)
    world.place(np.arange(slots), None)
    return world


def test_which_world() -> None:
    assert is_batch(ConnectFourBatch()) and not is_batch(ConnectFour())
    assert isinstance(world_of(ConnectFourBatch()), BatchWorld)
    assert isinstance(world_of(ConnectFour()), PythonWorld)


@pytest.mark.parametrize(
    ("plain", "batch"),
    [(TicTacToe(), TicTacToeBatch()), (ConnectFour(), ConnectFourBatch()), (Othello(), OthelloBatch())],
    ids=["tic-tac-toe", "connect four", "othello"],
)
def test_both_worlds_say_the_same(plain: Any, batch: Any) -> None:
    worlds = grown(plain, 6, 9), grown(batch, 6, 9)
    generator = np.random.default_rng(0)
    slots = np.arange(6)
    for node in range(8):
        at = np.full(len(slots), node)
        masks = [world.legal(slots, at) for world in worlds]
        assert (masks[0] == masks[1]).all()
        assert (worlds[0].observations(slots, at) == worlds[1].observations(slots, at)).all()
        first, second = (world.keys(slots, at) for world in worlds)
        assert list(first[0]) == list(second[0]) and (first[1] == second[1]).all()
        assert [tuple(row) for row in worlds[1].states(slots, at).tolist()] == worlds[0].states(slots, at)
        edges = np.array([generator.choice(np.flatnonzero(mask)) for mask in masks[0]])
        one, two = (world.step(slots, at, edges, at + 1) for world in worlds)
        assert (one.reward == two.reward).all() and (one.done == two.done).all() and (one.to_play == two.to_play).all()
        assert (one.legal[~one.done] == two.legal[~one.done]).all()
        slots, at = slots[~one.done], at[~one.done]
        if not len(slots):
            break
    assert worlds[0].symmetries == worlds[1].symmetries


@pytest.mark.parametrize("most", [0, 3, 4096])
def test_masks_are_remembered_only_so_long(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand random steps of Othello, whose lists of legal actions hardly ever come back."""
    monkeypatch.setattr(worlds, "_REMEMBERED", most)
    game, generator = Othello(), np.random.default_rng(0)
    world, slots = grown(game, 40, 2), np.arange(40)
    zeros = np.zeros(40, np.int64)
    for _ in range(25):
        legal = world.legal(slots, zeros)
        edges = np.array([generator.choice(np.flatnonzero(row)) for row in legal])
        arrivals = world.step(slots, zeros, edges, zeros + 1)
        assert not arrivals.done.any()
        assert [np.flatnonzero(row).tolist() for row in arrivals.legal] == [
            sorted(game.legal(state)) for state in world.states(slots, zeros + 1)
        ]
        for slot in range(40):
            world.renumber(slot, np.array([1]))
        assert len(world._masks) == len(world._seen) + 1 <= most + 41


def test_candidates_are_named_edges_and_the_width_grows() -> None:
    world = grown(Heaps())
    assert world.width == 5  # (0, 1), (0, 2), (1, 1), (1, 2), (2, 1)
    assert world.candidates(ZERO, ZERO) == [[(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)]]
    assert world.action_of(0, 0, 3) == (1, 2) and world.edge_of(0, 0, (1, 2)) == 3
    arrivals = world.step(ZERO, ZERO, np.array([3]), np.array([1]))
    assert world.states(ZERO, np.array([1])) == [(2, 1, 1, 0)]  # took two, moves once more
    assert arrivals.to_play.tolist() == [0] and arrivals.legal.tolist() == [[True] * 4 + [False]]
    assert world.candidates(ZERO, np.array([1])) == [[(0, 1), (0, 2), (1, 1), (2, 1)]]
    with pytest.raises(DataError, match=r"the action \(1, 2\) is not legal here; legal"):
        world.edge_of(0, 1, (1, 2))
    assert grown(TicTacToe()).candidates(ZERO, ZERO) is None


def test_outcomes_are_named_edges() -> None:
    world = grown(Pig(20))
    arrivals = world.step(ZERO, ZERO, ZERO, np.array([1]))
    assert arrivals.chance.tolist() == [True] and not arrivals.legal.any()
    assert world.outcomes(0, 1) == [1 / 6] * 6
    arrivals = world.step(ZERO, np.array([1]), np.array([4]), np.array([2]))
    assert world.states(ZERO, np.array([2])) == [(0, 0, 5, False, 0)]  # edge 4 is the face 5
    assert arrivals.chance.tolist() == [False] and arrivals.legal.tolist() == [[True, True]]
    assert world.action_of(0, 1, 4) == 5


@pytest.mark.parametrize("game", [TicTacToe(), TicTacToeBatch()])
def test_edges_of_actions(game: Any) -> None:
    world = grown(game)
    world.step(ZERO, ZERO, np.array([4]), np.array([1]))
    assert world.edge_of(0, 1, 3) == 3 and world.action_of(0, 1, 3) == 3
    for odd in (4, 9, -1, "a", 2.5):
        with pytest.raises(DataError, match="is not legal here"):
            world.edge_of(0, 1, odd)


@pytest.mark.parametrize("game", [TicTacToe(), TicTacToeBatch()])
def test_states_stay_when_there_is_more_room_and_move_when_renumbered(game: Any) -> None:
    world = grown(game)
    for node, edge in ((1, 0), (2, 1), (3, 2)):
        world.step(ZERO, np.array([node - 1]), np.array([edge]), np.array([node]))
    every = [tuple(int(x) for x in world.states(ZERO, np.array([node]))[0]) for node in range(4)]
    world.resize(5, 9)
    world.renumber(0, np.array([2, 3]))
    assert [tuple(int(x) for x in world.states(ZERO, np.array([node]))[0]) for node in (0, 1)] == every[2:]
    world.place(np.array([4]), None)
    world.resize(2, 2)  # for a second search: never less room than there was
    assert tuple(int(x) for x in world.states(ZERO, np.array([1]))[0]) == every[3]
    world.place(np.array([4]), None)


def test_positions_can_be_taken_apart() -> None:
    world = grown(TicTacToe())
    slots, nodes = np.arange(3), np.zeros(3, np.int64)
    positions = GamePositions(world, slots, nodes, world.legal(slots, nodes), np.zeros(3, np.int8))
    part = positions.take(np.array([2, 0]))
    assert len(positions) == 3 and len(part) == 2 and part.slots.tolist() == [2, 0]
    assert part.observations().shape == (2, 2, 3, 3) and len(part.symmetries()) == 8
    assert len(part.keys()[0]) == 2 and part.states() == [(0, 0)] * 2 and part.candidates() is None  # type: ignore[index]


# --- who moves in states that are given -------------------------------------------------------------------------


def test_the_game_says_who_moves_in_given_states() -> None:
    """O is to move and wins at once; taken for X, his win would count against him."""
    search = Search(
        TicTacToe(), SearchConfig(algorithm="puct", simulations=30), slots=1, generator=rng(), explore=False
    )
    search.place(np.arange(1), [(0b11, 0b110001000)])  # O has cells 0 and 1, X cells 3, 7 and 8
    assert search.tree.to_play[0, 0] == 1
    assert run(search, UniformEvaluator()).edges.tolist() == [2]


def test_states_of_an_array_game_need_their_player() -> None:
    search = Search(TicTacToeBatch(), SearchConfig(simulations=4), slots=1, generator=rng())
    with pytest.raises(DataError, match="pass to_play="):
        search.place(np.arange(1), [(1, 2)])
    search.place(np.arange(1), [(1, 2)], np.array([0]))
    Search(Ledges(), SearchConfig(simulations=4), slots=1, generator=rng()).place(np.arange(1), [(2, 1)])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- games of one's own, slot by slot ---------------------------------------------------------------------------


def test_slots_with_games_of_their_own() -> None:
    world = PythonWorld(Ledges(4, 2))
    search = Search(world, SearchConfig(algorithm="puct", simulations=40), slots=3, generator=rng(), explore=False)
    world.assign(1, Ledges(5, 6))
    search.place(np.arange(3))
    together = run(search, UniformEvaluator())
    alone = [lonely(game) for game in (Ledges(4, 2), Ledges(5, 6), Ledges(4, 2))]
    assert together.visits.shape == (3, 6)
    for row, visits in zip(together.visits, alone, strict=True):
        assert row[: len(visits)].tolist() == visits.tolist() and not row[len(visits) :].any()


def lonely(game: Any) -> np.ndarray:
    search = Search(game, SearchConfig(algorithm="puct", simulations=40), slots=1, generator=rng(), explore=False)
    search.place(np.arange(1))
    return run(search, UniformEvaluator()).visits[0]


def test_a_slot_forgets_the_names_of_the_game_it_had() -> None:
    class Listed(Ledges):
        def legal(self, state: Any) -> list[Any]:
            return [f"way {action}" for action in Ledges(4, 2).legal(state)]

        def step(self, state: Any, action: Any) -> Any:
            return super().step(state, int(action[-1]))

    listed = Listed(4, 2)
    listed.actions = None  # type: ignore[assignment]
    world = PythonWorld(listed)
    search = Search(world, SearchConfig(algorithm="puct", simulations=40), slots=2, generator=rng(), explore=False)
    search.place(np.arange(2))
    first = run(search, UniformEvaluator())
    assert world.action_of(0, 0, 1) == "way 1"
    world.assign(1, Ledges(4, 2))
    search.place(np.arange(2))
    second = run(search, UniformEvaluator())
    assert (first.visits == second.visits).all()
    assert world.action_of(1, 0, 1) == 1


def test_games_that_do_not_fit_beside_one_another() -> None:
    world = PythonWorld(Ledges())
    world.resize(1, 1)
    with pytest.raises(DataError, match=r"TicTacToe has 2 players .* have 1"):
        world.assign(0, TicTacToe())


# --- games that are wrong ---------------------------------------------------------------------------------------


class Odd(TicTacToe):
    """Tic-tac-toe until a stone lies in cell 4; then `legal` gives something else."""

    def __init__(self, legal: Any) -> None:
        self.odd = legal

    def legal(self, state: Any) -> Any:
        return self.odd if (state[0] | state[1]) & 16 else super().legal(state)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0, 9], r"Odd\.legal gave the action 9 in the state \(0, 16\); actions are the numbers 0 to 8"),
        ([-1, 3], r"Odd\.legal gave the action -1 "),
        ([], r"Odd\.legal gave no action in the unfinished state \(0, 16\)"),
        ([0.0, 1.0], r"Odd\.legal gave the action 0\.0 "),
        (np.array([0.5]), r"Odd\.legal gave the action .*0\.5"),
        (["a"], r"Odd\.legal gave the action 'a' "),
        ([0, None], r"Odd\.legal gave the action None "),
        ([0, (1, 2)], r"Odd\.legal gave the action \(1, 2\) "),
        ([(0, 1)], r"Odd\.legal gave the action \(0, 1\) "),
        ([True] * 3 + [False] * 6, r"Odd\.legal gave the action True "),
        (np.array([True, False]), r"Odd\.legal gave the action .*True"),
    ],
    ids=str,
)
def test_legal_actions_that_are_none(given: Any, message: str) -> None:
    search = Search(Odd(given), SearchConfig(simulations=20), slots=2, generator=rng())
    search.place(np.arange(2))
    with pytest.raises(DataError, match=message):
        run(search, UniformEvaluator())


def test_an_index_out_of_range_is_seen_beside_a_game_with_more_actions() -> None:
    class Wrong(Ledges):
        def legal(self, state: Any) -> list[int]:
            return [0, 3]

    world = PythonWorld(Ledges(4, 6))
    world.resize(2, 3)
    world.assign(1, Wrong(4, 2))
    with pytest.raises(DataError, match=r"Wrong\.legal gave the action 3 .* 0 to 1"):
        world.place(np.arange(2), None)


@pytest.mark.parametrize("player", [2, -1])
def test_a_player_who_is_none(player: int) -> None:
    class Third(TicTacToe):
        def step(self, state: Any, action: int) -> Any:
            return (*super().step(state, action)[:3], player)

    search = Search(Third(), SearchConfig(simulations=4), slots=1, generator=rng())
    search.place(np.arange(1))
    with pytest.raises(DataError, match=rf"Third\.step named player {player} as next, and the game has 2"):
        run(search, UniformEvaluator())


@pytest.mark.parametrize("make", [TicTacToe, TicTacToeBatch])
def test_three_players(make: Callable[[], Any]) -> None:
    game = make()
    game.players = 3
    with pytest.raises(DataError, match=r"TicTacToe\w* has 3 players; a search is for one player, or for two"):
        Search(game, SearchConfig(), slots=1, generator=rng())


def test_chance_is_for_plain_python() -> None:
    with pytest.raises(DataError, match="chance is for games in plain Python"):
        grown(TicTacToeBatch()).outcomes(0, 0)
    assert world_of(Wheel()).players == 2
