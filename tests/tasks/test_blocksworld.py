"""Blocksworld: moves by hand, shortest plans against breadth-first search, plans against the PDDL validator."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from troupe.errors import DataError
from troupe.tasks.blocksworld import (
    ANY,
    BLOCKSWORLD,
    TABLE,
    BlocksGame,
    Towers,
    blocks_from_pddl,
    blocks_task,
    fewest_moves,
    make_blocks,
    pddl_of,
    solves_blocks,
)
from troupe.tasks.planning import shortest_plan

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
