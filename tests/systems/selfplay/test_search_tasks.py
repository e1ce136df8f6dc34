"""Forced wins: the solver against plain minimax, replies that hold out longest, and the mixed generator."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.uniform_search import solved
from troupe.envs import make_game
from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.search.minimax import negamax
from troupe.systems.selfplay.search_tasks import (
    BOARDS,
    ForcedWinGame,
    MCTSSearchTaskGenerator,
    best_reply,
    fewest_moves,
)
from troupe.tasks.splits import disjoint
from troupe.testing import check_generator

GAMES = ("tictactoe", "connect_four")


def positions(name: str, rng: random.Random, n: int, plies: tuple[int, int]) -> list[tuple[int, int]]:
    game, found = make_game(name), []
    while len(found) < n:
        state, done = game.initial(), False
        for _ in range(rng.randint(*plies)):
            state, _, done, _ = game.step(state, rng.choice(game.legal(state)))
            if done:
                break
        if not done:
            found.append(state)
    return found


@pytest.mark.parametrize(
    ("name", "n", "plies", "most"), [("tictactoe", 300, (0, 7), 3), ("connect_four", 60, (8, 30), 2)]
)
def test_the_solver_agrees_with_minimax(name: str, n: int, plies: tuple[int, int], most: int) -> None:
    game, seen = make_game(name), set()
    for own, other in positions(name, random.Random(0), n, plies):
        # A win within k moves is one within 2k - 1 plies.
        values = [negamax(game, (own, other), 2 * moves - 1)[0] for moves in range(1, most + 1)]
        expected = next((moves for moves, value in enumerate(values, start=1) if value == 1), None)
        assert fewest_moves(name, own, other, most) == expected
        seen.add(expected)
    assert {1, 2, None} <= seen


def test_390_positions_of_tictactoe_are_won_but_for_symmetry() -> None:
    """Fewer than the tasks that a run holds out, so no preset draws them: there are 321, 51 and 18 classes."""
    game = make_game("tictactoe")
    seen, waiting = {game.initial()}, [game.initial()]
    while waiting:
        state = waiting.pop()
        for move in game.legal(state):
            after, _, done, _ = game.step(state, move)
            if not done and after not in seen:
                seen.add(after)
                waiting.append(after)
    classes: dict[int | None, set[int]] = {}
    for state in seen:
        classes.setdefault(fewest_moves("tictactoe", *state, 5), set()).add(game.canonical(state)[0])
    assert {moves: len(found) for moves, found in classes.items() if moves} == {1: 321, 2: 51, 3: 18}


@pytest.mark.parametrize("name", GAMES)
def test_only_right_first_moves_win_within_the_moves(name: str) -> None:
    """By trying every line of play against the replies inside the game."""
    game = ForcedWinGame(name)

    def wins(state: object, action: int) -> bool:
        after, reward, done, _ = game.step(state, action)  # type: ignore[arg-type]
        return reward == 1.0 if done else any(wins(after, action) for action in game.legal(after))

    rules = make_game(name)
    generator = MCTSSearchTaskGenerator((0.5, 0.5), seed=3, kinds=(name,))
    for task in generator.generate(8):
        state = game.begin(task.problem)
        for action in game.legal(state):
            after, reward, done, _ = rules.step((state.own, state.other), action)
            forced = reward == 1 if done else negamax(rules, after, 2 * state.left - 2)[0] == -1
            assert wins(state, action) == forced


def test_a_game_worked_by_hand() -> None:
    game = ForcedWinGame("tictactoe")
    # X has 0 and 8, O has 4 and 2, so that X must take 6, which makes two threats: 3 and 7.
    state = game.begin(Problem("t", "tictactoe", "", {"moves": [0, 4, 8, 2], "within": 2}))
    assert game.observe(state).tolist() == [2, 1, 3, 1, 3, 1, 1, 1, 2, 6]
    assert game.legal(state) == (1, 3, 5, 6, 7) and game.pointers == 9
    assert game.describe(state, 6) == "play 6; the reply is 3; moves left: 1"
    after, reward, done, _ = game.step(state, 6)
    assert (reward, done) == (0.0, False)
    ended, reward, done, _ = game.step(after, 7)
    assert (reward, done, game.answer(ended)) == (1.0, True, "6 7")
    lost, reward, done, _ = game.step(state, 1)  # O completes 2, 4, 6
    assert (reward, done, game.answer(lost)) == (0.0, True, None)


def test_two_open_ends_in_connect_four() -> None:
    game = ForcedWinGame("connect_four")
    state = game.initial()  # X has the bottom of columns 3 and 4
    assert game.pointers == 0 and game.actions == 7 and fewest_moves("connect_four", state.own, state.other, 4) == 2
    won = {a for a in game.legal(state) if any(game.step(game.step(state, a)[0], b)[1] for b in range(7))}
    assert {2, 5} <= won and 3 not in won


def test_a_side_that_can_complete_a_line_does() -> None:
    board = BOARDS["tictactoe"]
    own, other = 0b000000011, 0b000011000  # 0 and 1 against 3 and 4
    assert best_reply("tictactoe", own, other, 1) == 1 << 2
    assert board.action(best_reply("tictactoe", 0b001000000, other, 1)) == 5  # or 3, 4, 5 comes


@pytest.mark.parametrize("kind", GAMES)
def test_the_kind_keeps_its_promises(kind: str) -> None:
    check_generator(MCTSSearchTaskGenerator, kind, random.Random(0))


@pytest.mark.parametrize("kind", GAMES)
def test_a_worked_solution_is_right_and_a_corrupted_answer_makes_it_wrong(kind: str) -> None:
    generator = MCTSSearchTaskGenerator((0.0, 0.7), seed=1, kinds=(kind,))
    for task in generator.generate(25):
        assert generator.verify(task, task.solution) and not generator.verify(task, None)
        assert not generator.verify(generator.corrupted(task, random.Random(0)), task.solution)
        assert generator.verify(task, "\n " + task.solution.replace(" ", "\n ") + " ")
        for wrong in (f"{task.solution} 0", "9", "", "x", task.solution[2:], "1" * 5000, "\u0661"):
            assert not generator.verify(task, wrong)


@pytest.mark.parametrize(("kind", "middle"), [("tictactoe", 0.5), ("connect_four", 0.3)])
def test_difficulty_is_effort(kind: str, middle: float) -> None:
    rates = [solved(MCTSSearchTaskGenerator, kind, difficulty, n=24) for difficulty in (0.1, middle, 0.9)]
    assert rates[0] > 0.9 > rates[1] > rates[2] and rates[2] <= 0.3


def test_all_families_are_drawn_and_checked() -> None:
    generator = MCTSSearchTaskGenerator((0.1, 0.4), seed=0)
    tasks = generator.generate(60)
    assert {task.kind for task in tasks} == set(MCTSSearchTaskGenerator.KINDS)
    assert all(generator.verify(task, task.solution) for task in tasks)
    train, held_out = disjoint(MCTSSearchTaskGenerator((0.1, 0.4), seed=1), (100, 100))
    assert not {task.id for task in train} & {task.id for task in held_out}


def test_bad_input_is_one_sentence() -> None:
    game = ForcedWinGame("connect_four")
    for data, words in (
        ({"moves": [0] * 7, "within": 2}, "move 6 of connect_four is 0, which is not legal"),
        ({"moves": [0, 1, 0, 1, 0, 1, 0], "within": 2}, "move 6 of connect_four ends the game"),
        ({"moves": [], "within": 5}, "within as a number from 1 to 4"),
        ({"within": 2}, "write moves as a list"),
    ):
        with pytest.raises(DataError, match=words):
            game.begin(Problem("t", "connect_four", "", data))
    with pytest.raises(DataError, match="'chess' is no kind of search problem"):
        MCTSSearchTaskGenerator.game("chess")


def test_bad_replies_are_not_believed() -> None:
    """A submission names the winner's moves alone; the replies are found anew."""
    task = Task("t", "tictactoe", "", {"moves": [0, 4, 8, 2], "within": 2}, 0.5, "2")
    verify = MCTSSearchTaskGenerator.verify
    assert verify(task, "6 7") and not verify(task, "6 3") and not verify(task, "6 3 7")
    assert not verify(replace(task, answer="1"), "6 7")


@pytest.mark.parametrize(("name", "count"), [("tictactoe", 8), ("connect_four", 2)])
def test_positions_that_a_symmetry_leads_to_have_one_key(name: str, count: int) -> None:
    game, moves = make_game(name), {"tictactoe": [0, 1, 4], "connect_four": [0, 1, 1, 2]}[name]
    symmetries = [symmetry.actions for symmetry in game.symmetries()]
    keys, states = set(), set()
    for actions in symmetries:
        state = game.initial()
        for move in moves:
            state = game.step(state, list(actions).index(move))[0]
        states.add(state)
        keys.add(BOARDS[name].key(state))
    assert len(symmetries) == len(states) == count and len(keys) == 1
    assert BOARDS[name].key(game.step(game.initial(), moves[0])[0]) not in keys
