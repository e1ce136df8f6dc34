"""Deduction: rules worked by hand, and proofs against a search over all sets of rules."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.deduction import (
    DeductionGame,
    closure,
    deduction_task,
    make_deduction,
    negated,
    proof,
    solves_deduction,
)

EXAMPLE = {"facts": ["A"], "rules": [[["A"], "B"], [["A"], "C"], [["B"], "not D"]], "ask": "D"}


def test_the_example_of_the_module() -> None:
    task = deduction_task(EXAMPLE, 0.0)
    assert (task.answer, task.solution, task.data["budget"]) == ("false", "1 3: false", 2)
    game = DeductionGame()
    state = game.begin(task.problem)
    assert game.legal(state) == [0, 1]  # rule 3 waits for B
    state, reward, done, _ = game.step(state, 0)
    assert (reward, done, game.legal(state)) == (0.0, False, [1, 2])
    assert game.describe(state, 2) == "rule 3: B, so not D"
    state, reward, done, _ = game.step(state, 2)
    assert (reward, done, game.answer(state)) == (1.0, True, "1 3: false")


def test_a_rule_beside_the_proof_costs_the_task() -> None:
    game = DeductionGame()
    state, _, _, _ = game.step(game.begin(deduction_task(EXAMPLE, 0.0).problem), 1)
    state, reward, done, _ = game.step(state, 0)
    assert (reward, done, game.answer(state)) == (0.0, True, None)


def test_tokens_say_what_is_known() -> None:
    game = DeductionGame(rules=4, atoms=8, longest=5)
    state = game.begin(deduction_task(EXAMPLE, 0.0).problem)
    # Literals in the order of their appearance: A 0, B 2, C 4, D 6, not D 7; token 1 + 2 literal + known.
    tokens = game.observe(state)
    assert tokens[:4].tolist() == [5, 9, 15, 0]  # conclusions B, C, not D
    assert tokens[4:8].tolist() == [2, 2, 5, 0]  # conditions A (known), A (known), B
    assert tokens[-2:].tolist() == [13, 1 + 4 * 8 + 2]  # asked: D; two firings left
    assert game.observe(game.step(state, 0)[0])[6] == 6  # now B is known


@pytest.mark.parametrize(
    "answer",
    [
        "false",
        "3: false",
        "3 1: false",
        "1 3: true",
        "1 2 3: false",
        "4: false",
        "1 3 false",
        "1, 3: false",
        "",
        "maybe",
        "1 " + "3" * 5000 + ": false",
        "1 \u0663: false",
    ],
)
def test_what_is_no_proof_is_refused(answer: str) -> None:
    assert not solves_deduction(deduction_task(EXAMPLE, 0.0), answer)


def test_a_corrupted_answer_makes_the_proof_wrong() -> None:
    task = deduction_task(EXAMPLE, 0.0)
    assert solves_deduction(task, task.solution) and solves_deduction(task, "\n1\n3:  false ")
    assert not solves_deduction(replace(task, answer="true"), task.solution)


def test_what_nobody_can_decide_is_unknown_once_everything_is_derived() -> None:
    task = deduction_task({**EXAMPLE, "ask": "E"}, 0.0)
    assert (task.answer, task.data["budget"]) == ("unknown", 3)
    assert solves_deduction(task, "1 2 3: unknown") and solves_deduction(task, "2 1 3: unknown")
    assert not solves_deduction(task, "1 3: unknown")
    assert not solves_deduction(task, "1 1 2 3: unknown")  # a rule more than the budget
    game = DeductionGame()
    state = game.begin(task.problem)
    for action in (0, 1, 2):
        assert game.answer(state) is None
        state, reward, done, _ = game.step(state, action)
    assert (reward, done, game.answer(state)) == (1.0, True, "1 2 3: unknown")


def test_generated_proofs_are_the_shortest() -> None:
    for seed in range(12):
        task = make_deduction(random.Random(seed), 0.4)
        rules = [(tuple(body), head) for body, head in task.data["rules"]]
        goal = task.data["ask"] if task.answer == "true" else negated(task.data["ask"])
        size = task.data["budget"]
        assert goal in closure(task.data["facts"], rules)
        assert not any(
            goal in closure(task.data["facts"], chosen) for n in range(size) for chosen in combinations(rules, n)
        )


def test_proofs_take_the_shorter_of_two_ways() -> None:
    rules = [(("A",), "B"), (("B",), "C"), (("C",), "D"), (("A",), "D")]
    assert proof(("A",), rules, "D") == [4]
    with pytest.raises(DataError, match="does not follow"):
        proof(("A",), rules, "E")


def test_errors() -> None:
    with pytest.raises(DataError, match="both follow"):
        deduction_task({"facts": ["A"], "rules": [[["A"], "not A"]], "ask": "A"}, 0.0)
    with pytest.raises(DataError, match="make DeductionGame larger"):
        DeductionGame(rules=2).begin(deduction_task(EXAMPLE, 0.0).problem)
    with pytest.raises(DataError, match="nothing to derive"):
        DeductionGame().begin(Problem("p", "deduction", "", {**EXAMPLE, "ask": "A", "budget": 1}))
    with pytest.raises(DataError, match=r"\[\[conditions\], conclusion\]"):
        solves_deduction(Task("t", "deduction", "", {**EXAMPLE, "rules": ["A"], "budget": 1}, answer="true"), "1: true")
    with pytest.raises(DataError, match="cannot fire"):
        DeductionGame().step(DeductionGame().initial(), 2)


def test_a_key_is_blind_to_names_and_order_alone() -> None:
    data = {"facts": ["A", "not B"], "rules": [[["A", "not B"], "C"], [["C"], "D"], [["A"], "E"]], "ask": "D"}
    rules = [[["S"], "V"], [["not R", "S"], "P"], [["P"], "Q"]]
    same = {"facts": ["not R", "S"], "rules": rules, "ask": "Q"}
    others = [{**data, "ask": "not D"}, {**data, "ask": "C"}, {**data, "ask": "E"}, {**data, "facts": ["A", "B"]}]
    others.append({**data, "rules": [*data["rules"][:2], [["not B"], "E"]]})
    keys = [deduction_task(each, 0.0).data["key"] for each in (data, same, *others)]
    assert keys[0] == keys[1] and len(set(keys)) == 1 + len(others)
