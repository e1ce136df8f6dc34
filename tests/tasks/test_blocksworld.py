"""Blocksworld: moves by hand, shortest plans against breadth-first search, plans against the PDDL validator."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations, product

import pytest

from troupe.errors import DataError
from troupe.tasks.blocksworld import (
    ANY,
    BLOCKSWORLD,
    TABLE,
    BlocksGame,
    Towers,
    _shape,
    blocks_from_pddl,
    blocks_task,
    fewest_moves,
    make_blocks,
    pddl_of,
    solves_blocks,
)
from troupe.tasks.planning import shortest_plan
from troupe.tasks.splits import fingerprint

SUSSMAN = (TABLE, TABLE, 0), (1, 2, ANY)  # c on a; wanted: a on b on c


def reachable(under: Towers) -> dict[Towers, int]:
    """Every arrangement, and how many moves away it is: breadth first with the game's own moves."""
    game = BlocksGame()
    start = game.initial()._replace(names=tuple("abcd"[: len(under)]), goal=(ANY,) * len(under), under=under, left=99)
    distance, level, moves = {under: 0}, [start], 0
    while level:
        moves += 1
        after = [game.step(state, action)[0] for state in level for action in game.legal(state)]
        level = list({state.under: state for state in after if state.under not in distance}.values())
        distance |= {state.under: moves for state in level}
    return distance


def test_the_sussman_anomaly_needs_three_moves() -> None:
    task = blocks_task("abc", *SUSSMAN, 0.0)
    assert task.data["budget"] == 3 and task.answer == "(on a b) (on b c)"
    assert task.solution == "(unstack c a) (put-down c) (pick-up b) (stack b c) (pick-up a) (stack a b)"
    game = BlocksGame(most=3)
    state = game.begin(task.problem)
    # Onto the table is 3: block c may go onto b or the table, b onto c.
    assert game.legal(state) == [1 * 4 + 2, 2 * 4 + 1, 2 * 4 + 3]
    for action in (2 * 4 + 3, 1 * 4 + 2, 0 * 4 + 1):
        state, reward, done, _ = game.step(state, action)
    assert (reward, done, game.answer(state)) == (1.0, True, task.solution)
    assert game.describe(game.begin(task.problem), 6) == "move b onto c, where it belongs"


def test_moves_run_out() -> None:
    game = BlocksGame(most=3)
    state = game.begin(blocks_task("abc", *SUSSMAN, 0.0).problem)
    for action in (6, 1 * 4 + 3, 6):
        state, reward, done, _ = game.step(state, action)
    assert (reward, done, game.answer(state)) == (0.0, True, None)


def test_arrangements_are_as_many_as_known_and_a_star_finds_the_shortest_way() -> None:
    assert len(reachable((TABLE,) * 3)) == 13
    distances = reachable((1, 2, 3, TABLE))
    assert len(distances) == 73
    for goal, moves in distances.items():
        assert len(fewest_moves((1, 2, 3, TABLE), goal)) == moves


def test_a_move_is_two_steps_of_a_shortest_pddl_plan() -> None:
    for seed in range(5):
        task = make_blocks(random.Random(seed), 0.4)
        shortest = shortest_plan(BLOCKSWORLD, pddl_of(task.data))
        moves = fewest_moves(tuple(task.data["under"]), tuple(task.data["goal"]))
        assert len(shortest) == 2 * len(moves)
        assert blocks_from_pddl(pddl_of(task.data))[1:] == (tuple(task.data["under"]), tuple(task.data["goal"]))


def test_verdicts() -> None:
    task = blocks_task("abc", *SUSSMAN, 0.0)
    assert solves_blocks(task, task.solution)
    assert not solves_blocks(replace(task, answer="(on b a)"), task.solution)
    assert not solves_blocks(task, "(unstack c a) (put-down c) (unstack c a)")
    detour = "(unstack c a) (stack c b) (unstack c b) (put-down c) (pick-up b) (stack b c) (pick-up a) (stack a b)"
    assert not solves_blocks(task, detour)  # one move too many
    assert solves_blocks(blocks_task("abc", *SUSSMAN, 0.0, slack=1), detour)


def test_tokens() -> None:
    game = BlocksGame(most=3, longest=5)
    tokens = game.observe(game.begin(blocks_task("abc", *SUSSMAN, 0.0).problem)).tolist()
    assert tokens[:3] == [2, 2, 3]  # on the table, on the table, on block 0
    assert tokens[3:6] == [6 + 2 + 2, 6, 6]  # block 2 stands on a, nothing on b and c
    assert tokens[6:9] == [11 + 3, 11 + 4, 11 + 0]  # onto b, onto c, anywhere
    assert tokens[9] == 16 + 3  # moves left


def test_errors() -> None:
    with pytest.raises(DataError, match="no arrangement"):
        fewest_moves((TABLE, TABLE), (1, 0))
    with pytest.raises(DataError, match="holds from the start"):
        BlocksGame().begin(blocks_task("ab", (TABLE, 0), (TABLE, 0), 0.0).problem)
    with pytest.raises(DataError, match="stands on the table or alone"):
        blocks = {"blocks": ["a", "b"], "under": [1, 0], "goal": [-1, -1], "budget": 1}
        pddl_of(blocks)
    with pytest.raises(DataError, match="make BlocksGame larger"):
        BlocksGame(most=2).begin(blocks_task("abc", *SUSSMAN, 0.0).problem)


def renamed(places: Towers, order: list[int]) -> Towers:
    """Block b of `places` is order[b]."""
    found = [0] * len(order)
    for block, below in enumerate(places):
        found[order[block]] = order[below] if below >= 0 else below
    return tuple(found)


def test_a_key_is_blind_to_the_names_of_the_blocks_alone() -> None:
    rng = random.Random(3)
    for _ in range(30):
        task = make_blocks(rng, rng.random())
        under, goal = tuple(task.data["under"]), tuple(task.data["goal"])
        order = rng.sample(range(len(under)), len(under))
        other = blocks_task("tuvwxyz"[: len(under)], renamed(under, order), renamed(goal, order), 0.5)
        same = blocks_task(task.data["blocks"], under, goal, 0.5)
        assert other.data["key"] == same.data["key"] and fingerprint(other) == fingerprint(same)


def test_keys_of_all_pairs_of_four_blocks_are_their_classes_under_renaming() -> None:
    orders = [list(order) for order in permutations(range(4))]
    arrangements = list(reachable((TABLE,) * 4))
    pairs = list(product(arrangements, repeat=2))
    classes = {min((renamed(under, order), renamed(goal, order)) for order in orders) for under, goal in pairs}
    assert len({_shape(under, goal) for under, goal in pairs}) == len(classes)
    assert len({task.data["key"] for task in (blocks_task("abc", *SUSSMAN, 0.5, slack) for slack in (0, 1))}) == 2
