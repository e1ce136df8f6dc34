from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe
from troupe.errors import DataError
from troupe.search.config import SearchConfig
from troupe.search.picture import TreeNode, picture_of
from troupe.search.search import Search, run

PUCT = SearchConfig(algorithm="puct", simulations=200, kernels="numpy")
FORK = (0b000_010_001, 0b000_001_010)
"""Tic-tac-toe, X to move with stones on 0 and 4 (O has 1 and 3): 8 wins at once."""


def searched(game: Any, config: SearchConfig = PUCT, state: Any = None, slots: int = 1) -> Search:
    search = Search(game, config, slots=slots, generator=np.random.default_rng(0), explore=False)
    search.place(np.arange(slots), None if state is None else [state] * slots)
    run(search, UniformEvaluator())
    return search


def every(node: TreeNode) -> list[TreeNode]:
    return [node, *(below for child in node.children for below in every(child))]


class Lottery:
    """One player chooses twice: action a pays a / 10, and the game ends after the second choice."""

    players, actions, observation_shape = 1, None, (1,)

    def initial(self) -> tuple[str, ...]:
        return ()

    def legal(self, state: tuple[str, ...]) -> list[str]:
        return ["one", "three"]

    def step(self, state: tuple[str, ...], action: str) -> tuple[tuple[str, ...], float, bool, int]:
        return (*state, action), {"one": 0.1, "three": 0.3}[action], len(state) == 1, 0

    def observe(self, state: tuple[str, ...]) -> np.ndarray:
        return np.zeros(1, np.float32)


def test_the_winning_move_is_first_and_worth_1_to_who_plays_it() -> None:
    node = picture_of(searched(TicTacToe(), state=FORK), 0)
    assert (node.label, node.visits, node.prior, node.to_play, node.kind) == ("", 201, None, 0, "decision")
    assert node.state == "X O 2\nO X 5\n6 7 8\nX to move"
    best = node.children[0]
    assert (best.label, best.q, best.to_play, best.kind, best.children) == ("8", 1.0, None, "ended", ())
    assert best.prior == pytest.approx(1 / 5)
    assert best.state is not None and best.state.startswith("X O 2\nO X 5\n6 7 X")
    # The root's mean: every simulation's return, and the evaluation 0 of the root itself.
    everything = picture_of(searched(TicTacToe(), state=FORK), 0, width=9)
    assert sum(child.visits for child in everything.children) == 200
    assert node.q == pytest.approx(sum(child.visits * (child.q or 0.0) for child in everything.children) / 201)


def test_q_is_in_the_view_of_who_chose_the_move() -> None:
    # O to move, X threatens 8: whatever else O plays, X wins, and that is +1 for X, who chooses at the second ply.
    node = picture_of(searched(TicTacToe(), state=(0b000_001_010, 0b000_010_101)), 0, width=9)
    lost = next(child for child in node.children if child.label == "5")
    assert node.to_play == 1 and lost.to_play == 0
    assert lost.children[0].q == 1.0 and lost.children[0].kind == "ended"
    assert lost.q is not None and lost.q < 0


def test_q_of_one_player_is_the_mean_return_worked_by_hand() -> None:
    node = picture_of(searched(Lottery(), SearchConfig(algorithm="puct", simulations=400, kernels="numpy")), 0)
    assert node.children[0].label == "three" and node.children[0].children[0].label == "three"
    # Along three, three: 0.3 for the second choice alone, and up to 0.6 through the first.
    assert node.children[0].children[0].q == pytest.approx(0.3)
    first = node.children[0]
    below = sum(child.visits * (child.q or 0.0) for child in first.children)
    assert first.q == pytest.approx(0.3 + below / first.visits)  # the leaf's own evaluation is 0
    assert first.state is None and first.to_play == 0


def test_limits_keep_the_most_visited_and_count_the_rest() -> None:
    search = searched(ConnectFour())
    whole = picture_of(search, 0, depth=2, width=7)
    narrow = picture_of(search, 0, depth=1, width=3)
    assert [c.visits for c in whole.children] == sorted((c.visits for c in whole.children), reverse=True)
    assert narrow.children == tuple(
        TreeNode(c.label, c.visits, c.q, c.prior, c.to_play, c.kind, (), c.hidden + len(c.children), c.state)
        for c in whole.children[:3]
    )
    assert len(whole.children) == 7 and narrow.hidden == 4
    least = whole.children[3].visits
    kept = picture_of(search, 0, depth=1, width=7, least=least + 1)
    assert len(kept.children) == sum(c.visits > least for c in whole.children) < 7
    assert kept.hidden == 7 - len(kept.children)
    alone = picture_of(search, 0, depth=0)
    assert alone.children == () and alone.hidden == 7 and alone.visits == 201


def test_chance_nodes_show_their_outcomes_with_their_probabilities() -> None:
    node = picture_of(searched(Pig(target=6)), 0, depth=2, width=6)
    assert [child.label for child in node.children] == ["0"]
    rolled = node.children[0]
    assert (rolled.kind, rolled.to_play) == ("chance", None)
    assert sorted(child.label for child in rolled.children) == ["1", "2", "3", "4", "5", "6"]
    assert all(child.prior == pytest.approx(1 / 6) for child in rolled.children)
    assert rolled.state == "0 : 0, player 0 has 0 in hand, the die is rolling"


def test_a_game_on_arrays_is_rendered_by_what_it_is_given() -> None:
    search = searched(ConnectFourBatch())
    assert all(node.state is None for node in every(picture_of(search, 0)))
    plain = ConnectFour()
    shown = picture_of(search, 0, render=lambda row: plain.render((int(row[0]), int(row[1]))))
    assert shown.state == plain.render(plain.initial())
    assert shown.children[0].state != shown.state


def test_a_kept_subtree_is_a_picture_of_its_own() -> None:
    search = searched(ConnectFour(), SearchConfig(algorithm="puct", simulations=60, reuse=True, kernels="numpy"))
    before = picture_of(search, 0, depth=2, width=7)
    search.play(np.array([0]), np.array([int(before.children[0].label)]))
    after = picture_of(search, 0, depth=1, width=7)
    assert [(c.label, c.visits, c.q) for c in after.children] == [
        (c.label, c.visits, c.q) for c in before.children[0].children
    ]
    assert after.to_play == 1 and after.prior is None


def test_a_picture_changes_nothing_and_survives_json() -> None:
    search = searched(TicTacToe(), SearchConfig(simulations=64, kernels="numpy"), slots=2)
    before = [array.copy() for array in search.tree]
    state = search.generator.bit_generator.state
    node = picture_of(search, 1)
    assert all(np.array_equal(a, b) for a, b in zip(before, search.tree, strict=True))
    assert search.generator.bit_generator.state == state
    assert len(every(node)) > 10
    assert TreeNode.from_dict(json.loads(json.dumps(node.to_dict(), allow_nan=False))) == node


@pytest.mark.parametrize(
    ("slot", "limits", "message"),
    [
        (2, {}, "there is no slot 2"),
        (-1, {}, "there is no slot -1"),
        (0, {"width": 0}, "width=0"),
        (0, {"depth": -1}, "depth=-1"),
        (0, {"least": 0}, "least=0"),
    ],
)
def test_what_shows_nothing_is_refused(slot: int, limits: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        picture_of(searched(TicTacToe(), slots=2), slot, **limits)


def test_a_search_that_did_not_run_has_no_picture() -> None:
    search = Search(TicTacToe(), PUCT, slots=1, generator=np.random.default_rng(0))
    search.place(np.array([0]))
    with pytest.raises(DataError, match="has not been evaluated"):
        picture_of(search, 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"visits": "many"}, r"tree\.visits is 'many'"),
        ({"visits": True}, r"tree\.visits is True"),
        ({"visits": -1}, r"tree\.visits is -1"),
        ({"q": float("nan")}, r"tree\.q is nan"),
        ({"kind": "oak"}, "tree.kind is 'oak'"),
        ({"children": {}}, "children must be a list"),
        ({"children": ["leaf"]}, r"tree\.children\[0\] must be an object"),
        ({"children": [{}]}, r"tree\.children\[0\] lacks 'label'"),
    ],
)
def test_damaged_records_are_refused_with_their_place(damage: dict[str, Any], message: str) -> None:
    record = TreeNode("", 1, 0.0, None, 0).to_dict()
    with pytest.raises(DataError, match=message):
        TreeNode.from_dict(record | damage)
