from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.search.test_puct import KERNELS, assert_tree
from tests.search.textbook import Textbook, Wheel, Whimsical, whims
from troupe.engines.evaluator import OracleEvaluator, RolloutEvaluator, UniformEvaluator
from troupe.envs.pig import HOLD, ROLL, Pig, State
from troupe.search.config import SearchConfig
from troupe.search.minimax import negamax
from troupe.search.search import Search, run
from troupe.search.tree import CHANCE


def pig_values(game: Pig) -> dict[State, float]:
    """Chance of winning less that of losing, to the player to move, by value iteration over all states of Pig."""
    target = game.target
    values = {
        (own, other, turn, False, 0): 0.0
        for own in range(target)
        for other in range(target)
        for turn in range(target - own + 1)
    }

    def worth(step: tuple[State, float, bool, int]) -> float:
        state, reward, done, player = step
        return reward + (0.0 if done else (1 if player == 0 else -1) * values[(*state[:4], 0)])

    def best(state: State) -> float:
        rolled = game.step(state, ROLL)[0]
        roll = sum(p * worth(game.step(rolled, face)) for face, p in game.chance(rolled))
        return max(roll, worth(game.step(state, HOLD))) if state[2] else roll

    change = 1.0
    while change > 1e-12:
        new = {state: best(state) for state in values}
        change = max(abs(new[state] - values[state]) for state in values)
        values.update(new)
    return values


@cache
def solved_pig() -> tuple[Pig, dict[State, float]]:
    game = Pig(5, 4)
    return game, pig_values(game)


def search_of(game: Any, states: list[Any], simulations: int, evaluator: Any, **options: Any) -> tuple[Search, Any]:
    options = {"algorithm": "puct", "simulations": simulations} | options
    search = Search(game, SearchConfig(**options), slots=len(states), generator=np.random.default_rng(0), explore=False)
    search.place(np.arange(len(states)), states)
    return search, run(search, evaluator)


def test_root_values_approach_the_exact_ones() -> None:
    game, values = solved_pig()
    states = [(0, 0, 0, False, 0), (0, 3, 2, False, 1), (3, 2, 1, False, 0), (2, 2, 2, False, 1), (1, 4, 2, False, 0)]
    exact = np.array([values[(*state[:4], 0)] for state in states])
    errors = []
    for simulations in (30, 300, 2000):
        _, roots = search_of(game, states, simulations, UniformEvaluator())
        errors.append(np.abs(roots.value - exact).mean())
    assert errors[0] > 2 * errors[1] > 3 * errors[2]
    assert errors[2] < 0.06


def test_whoever_knows_the_values_holds_and_rolls_rightly() -> None:
    game, values = solved_pig()

    def worth(state: State) -> float:
        return values[(*state[:4], 0)]

    def gain(state: State, action: int) -> float:
        following, reward, done, player = game.step(state, action)
        if following[3]:
            return float(np.mean([gain(following, face) for face, _ in game.chance(following)]))
        return reward if done else (1 if player == state[4] else -1) * worth(following)

    states = [(*state[:4], player) for state in values for player in (0, 1) if state[2]]
    clear = [state for state in states if abs(gain(state, ROLL) - gain(state, HOLD)) > 0.1]
    assert len(clear) > 40
    for options in ({}, {"algorithm": "gumbel"}):
        _, roots = search_of(game, clear, 200, OracleEvaluator(worth), **options)
        assert roots.edges.tolist() == [ROLL if gain(state, ROLL) > gain(state, HOLD) else HOLD for state in clear]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("leaves", [1, 4])
def test_outcomes_come_as_often_as_they_should(kernels: Any, leaves: int) -> None:
    """n p_o within 1, at every chance node of the tree."""
    if kernels == "numba":
        pytest.importorskip("numba", reason="the compiled kernels need numba")
    for game in (Wheel(), Pig(20), Wheel(players=1)):
        search, _ = search_of(game, [game.initial()] * 2, 250, Whimsical(whims(1)), leaves=leaves, kernels=kernels)
        tree = search.tree
        slots, nodes = np.nonzero(tree.kind == CHANCE)
        n = tree.visits[slots, nodes]
        expected = n.sum(1, keepdims=True) * np.maximum(tree.prior[slots, nodes], 0)
        assert len(slots) > 15 and n.sum(1).max() > 50
        assert np.abs(n - expected).max() <= 1 + 1e-9
        assert (n.sum(1) == tree.node_visits[slots, nodes]).all()  # nobody evaluates a chance node


class Payday:
    """Action 0 pays 0.25 for sure; action 1 spins: 1 with odds 3/4, -1 with odds 1/4. Then the other player, if any
    is there, is in the same place; then it is over. State (turns, spinning, player)."""

    actions = 2
    observation_shape = (1,)

    def __init__(self, players: int) -> None:
        self.players = players

    def initial(self) -> tuple[int, bool, int]:
        return 0, False, 0

    def to_play(self, state: tuple[int, bool, int]) -> int:
        return state[2]

    def legal(self, state: tuple[int, bool, int]) -> tuple[int, ...]:
        return () if state[1] else (0, 1)

    def chance(self, state: tuple[int, bool, int]) -> tuple[tuple[float, float], ...]:
        return ((1.0, 0.75), (-1.0, 0.25)) if state[1] else ()

    def step(self, state: Any, action: Any) -> tuple[tuple[int, bool, int], float, bool, int]:
        turns, spinning, player = state
        if not spinning and action == 1:
            return (turns, True, player), 0.0, False, player
        following = (player + 1) % self.players
        return (turns + 1, False, following), float(action) if spinning else 0.25, turns == 1, following

    def observe(self, state: Any) -> np.ndarray:
        return np.array(state[:1], np.float32)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("players", [1, 2])
def test_rewards_of_chance_belong_to_who_rolled(players: int, kernels: Any) -> None:
    # the last bettor: 0.25 for sure, or 3/4 - 1/4 = 0.5 by the spin; before him the same, plus or less 0.5
    if kernels == "numba":
        pytest.importorskip("numba", reason="the compiled kernels need numba")
    states = [(1, False, players - 1), (0, False, 0)]
    _, roots = search_of(Payday(players), states, 1500, UniformEvaluator(), kernels=kernels)
    assert roots.q[0] == pytest.approx([0.25, 0.5], abs=0.001)
    later = 0.5 if players == 1 else -0.5
    assert roots.q[1] == pytest.approx([0.25 + later, 0.5 + later], abs=0.08)  # a wrong sign is off by 0.5
    assert roots.edges.tolist() == [1, 1]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("algorithm", ["puct", "gumbel"])
@pytest.mark.parametrize("players", [1, 2])
def test_the_whole_tree_is_the_textbooks(players: int, algorithm: str, kernels: Any) -> None:
    if kernels == "numba":
        pytest.importorskip("numba", reason="the compiled kernels need numba")
    game, judge = Wheel(players=players), whims(11, reach=0.8)
    starts = [(0, 0, False, 0), (3, 0, False, 3 % players)]
    search, _ = search_of(game, starts, 60, Whimsical(judge), algorithm=algorithm, discount=0.8, kernels=kernels)
    for slot, state in enumerate(starts):
        book = Textbook(game, judge, discount=0.8)
        root = book.puct(state, state[3], 60) if algorithm == "puct" else book.gumbel(state, state[3], 60, 16)
        assert assert_tree(search, slot, root) == search.tree.size[slot] > 25


class Tolls:
    """One way: the gate takes 1, then a coin shows the short road, which pays 2, or the long one, which pays 4 and then
    8 by a second event that is certain. Both lead to the inn, where a player, the other one if there are two, takes 16
    and it is over."""

    actions = 1
    observation_shape = (1,)

    def __init__(self, players: int) -> None:
        self.players = players
        self.roads: dict[Any, tuple[str, float]] = {
            ("gate", 0): ("coin", 1.0), ("coin", "short"): ("inn", 2.0), ("coin", "long"): ("bridge", 4.0),
            ("bridge", "over"): ("inn", 8.0), ("inn", 0): ("end", 16.0),
        }  # fmt: skip
        self.events = {"coin": (("short", 0.5), ("long", 0.5)), "bridge": (("over", 1.0),)}

    def initial(self) -> str:
        return "gate"

    def to_play(self, state: str) -> int:
        return self.players - 1 if state in ("inn", "end") else 0

    def legal(self, state: str) -> tuple[int, ...]:
        return (0,)

    def chance(self, state: str) -> tuple[tuple[str, float], ...]:
        return self.events.get(state, ())

    def step(self, state: str, action: Any) -> tuple[str, float, bool, int]:
        following, reward = self.roads[state, action]
        return following, reward, following == "end", self.to_play(following)

    def observe(self, state: str) -> np.ndarray:
        return np.zeros(1, np.float32)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("algorithm", ["puct", "gumbel"])
@pytest.mark.parametrize(
    ("players", "expected"),
    # Gamma 1/2 and V(inn) = 3. The short road: 1 + 2 + 3/2 = 4.5; the long one: 1 + 4 + 8 + 3/2 = 14.5; then the inn's
    # own move: 1 + 2 + 16/2 = 11 and 1 + 12 + 16/2 = 21. With two players the inn is the other's: 1.5, 11.5, -5, 5.
    [(1, [4.5, 9.5, 10.0, 12.75]), (2, [1.5, 6.5, 8 / 3, 3.25])],
)
def test_the_discount_applies_once_per_decision(
    players: int, expected: list[float], algorithm: str, kernels: Any
) -> None:
    if kernels == "numba":
        pytest.importorskip("numba", reason="the compiled kernels need numba")
    judge = OracleEvaluator(lambda state: 3.0 if state == "inn" else 0.0)
    for simulations, mean in enumerate(expected, 1):
        options: Any = {"algorithm": algorithm, "discount": 0.5, "kernels": kernels}
        _, roots = search_of(Tolls(players), ["gate"], simulations, judge, **options)
        assert roots.q[0, 0] == pytest.approx(mean)


@pytest.mark.parametrize(("players", "returns"), [(1, {11.0, 21.0}), (2, {-5.0, 5.0})])
def test_rollouts_and_minimax_discount_alike(players: int, returns: set[float]) -> None:
    """1 + 2 + 16/2 or 1 + 4 + 8 + 16/2, one as likely as the other; the inn's 16/2 may be another player's."""
    game = Tolls(players)
    search = Search(game, SearchConfig(simulations=1), slots=40, generator=np.random.default_rng(0))
    search.place(np.arange(40))
    wave = search.select()
    assert wave is not None
    _, values = RolloutEvaluator(game, np.random.default_rng(1), discount=0.5).evaluate(wave.positions)
    assert set(values.tolist()) == returns
    assert negamax(game, "gate", 5, discount=0.5) == (sum(returns) / 2, (0,))
    assert negamax(game, "coin", 5, discount=0.5) == (sum(returns) / 2 - 1, ())


@pytest.mark.parametrize("reuse", [False, True])
def test_playing_rolls_and_says_what_the_mover_got(reuse: bool) -> None:
    game, slots = Payday(2), np.arange(400)
    search = Search(
        game, SearchConfig(algorithm="puct", simulations=20, reuse=reuse), slots=400, generator=np.random.default_rng(1)
    )
    search.place(slots)
    run(search, UniformEvaluator())
    played = search.play(slots, np.ones(400, int))
    assert set(played.reward.tolist()) == {1.0, -1.0}
    assert (played.reward == 1).mean() == pytest.approx(0.75, abs=0.07)
    assert (played.to_play == 1).all() and not played.done.any()
    assert search.states(slots) == [(1, False, 1)] * 400
    run(search, UniformEvaluator())
    played = search.play(slots, np.zeros(400, int))
    assert (played.reward == 0.25).all() and played.done.all()
    assert not len(search.finished())


def test_a_root_of_chance_is_rolled_when_it_is_placed() -> None:
    search = Search(Pig(9), SearchConfig(simulations=4), slots=60, generator=np.random.default_rng(2))
    search.place(np.arange(60), [(0, 0, 0, True, 1)] * 60)
    states = search.states(np.arange(60))
    assert {(state[2], state[4]) for state in states} == {(0, 0), *((face, 1) for face in range(2, 7))}
    assert (search.tree.to_play[:, 0] == [state[4] for state in states]).all()
    roots = run(search, UniformEvaluator())
    assert len(roots.slots) == 60 and roots.policy.shape == (60, 2)  # dice have six faces, players two actions


def test_chance_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from troupe.errors import DataError
    from troupe.search import search as module

    class Spinning(Payday):
        def step(self, state: Any, action: Any) -> Any:
            return (state[0] + 1, True, 0), 0.0, False, 0

    monkeypatch.setattr(module, "_BEFORE_END", 50)
    search = Search(Spinning(1), SearchConfig(simulations=4), slots=1, generator=np.random.default_rng(0))
    with pytest.raises(DataError, match="in a row"):
        search.place(np.arange(1), [(0, True, 0)])
