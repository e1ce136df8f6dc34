"""Causal graphs: interventions worked by hand, and every value against substitution in any order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from troupe.errors import DataError
from troupe.tasks.causal import CausalGame, causal_task, make_causal, solves_causal

EXAMPLE = {
    "variables": [
        ["A", "constant", [], 1],
        ["B", "add", ["A"], 2],
        ["C", "add", ["B"], 1],
        ["D", "sum", ["A", "C"], 0],
    ],
    "do": ["B", 0],
    "ask": "D",
    "budget": 3,
}


def test_an_intervention_by_hand() -> None:
    # Nobody intervenes: B = 1 + 2 = 3, C = 4, D = 1 + 4 = 0 modulo 5. do(B=0): C = 1, D = 1 + 1 = 2.
    task = causal_task(EXAMPLE, 0.0)
    assert (task.answer, task.solution) == ("2", "do B=0; C=1; D=2")
    game = CausalGame()
    state = game.begin(task.problem)
    assert game.legal(state) == [2, 3, 5, 7]  # A is known; C and D wait for causes, but anything can be set
    assert game.describe(state, 2) == "B = A + 2 = 3" and game.describe(state, 3) == "set B to 0, whatever its causes"
    for action in (3, 4, 6):
        state, reward, done, _ = game.step(state, action)
    assert (reward, done, game.answer(state)) == (1.0, True, "do B=0; C=1; D=2")
    assert solves_causal(task, "\n do  B=0;C=1 ;\nD = 2\n")


def test_who_forgets_the_intervention_gets_another_value() -> None:
    game = CausalGame()
    task = causal_task(EXAMPLE, 0.0)
    state = game.begin(task.problem)
    for action in (2, 4, 6):
        state, reward, done, _ = game.step(state, action)
    assert (reward, done, game.answer(state)) == (0.0, True, "B=3; C=4; D=0")
    assert not solves_causal(task, "B=3; C=4; D=0")


def test_setting_another_variable_does_not_count() -> None:
    game = CausalGame()
    state, _, _, _ = game.step(game.begin(causal_task(EXAMPLE, 0.0).problem), 5)  # C := 0
    state, reward, done, _ = game.step(state, 6)
    assert (reward, done, game.answer(state)) == (0.0, True, "do C=0; D=1")


def test_steps_run_out() -> None:
    game = CausalGame()
    state = game.begin(causal_task({**EXAMPLE, "ask": "C", "budget": 2}, 0.0).problem)
    state, _, done, _ = game.step(state, 3)
    state, reward, done, _ = game.step(state, 7)  # D := 0, which nobody asked for
    assert (reward, done, game.answer(state)) == (0.0, True, None)


@pytest.mark.parametrize(
    "answer",
    ["2", "D=2", "do B=0; D=2", "do B=0; C=1; D=3", "do B=1; C=2; D=3", "do B=0; C=1", "C=1; do B=0; D=2", "", "yes",
     "do B=0; C=1; A=1; D=2", "do B=0; do C=1; D=2", "do B=0; C=1; D=2; D=2",
     "do B=0; C=1; D=" + "2" * 5000, "do B=0; C=1; D=\u0662"],
)  # fmt: skip
def test_what_is_not_derived_is_refused(answer: str) -> None:
    assert not solves_causal(causal_task(EXAMPLE, 0.0), answer)


def test_generated_answers_are_those_of_substitution() -> None:
    functions = {
        "add": lambda n, a: (a + n) % 5, "sum": lambda n, a, b: (a + b) % 5, "difference": lambda n, a, b: (a - b) % 5,
        "product": lambda n, a, b: a * b % 5, "largest": lambda n, a, b: max(a, b),
        "smallest": lambda n, a, b: min(a, b),
        "constant": lambda n: n,
    }  # fmt: skip
    for seed in range(40):
        task = make_causal(random.Random(seed), seed / 40)
        results = []
        for start in ({}, dict([task.data["do"]])):
            values: dict[str, int] = dict(start)
            while len(values) < len(task.data["variables"]):
                for name, mechanism, parents, number in task.data["variables"]:
                    if name not in values and all(parent in values for parent in parents):
                        values[name] = functions[mechanism](number, *(values[p] for p in parents))  # type: ignore[operator]
            results.append(str(values[task.data["ask"]]))
        assert results[1] == task.answer and results[0] != task.answer
        assert solves_causal(task, task.solution)
        assert not solves_causal(replace(task, answer=results[0]), task.solution)


def test_tokens_show_who_was_set() -> None:
    game = CausalGame(most=4)
    first = game.begin(causal_task(EXAMPLE, 0.0).problem)
    assert game.observe(first)[:4].tolist() == [1 + 2, 1 + 11, 1, 1 + 22]  # A is 1; B is X; C; D is Y
    by_setting, by_computing = game.step(first, 3)[0], game.step(first, 2)[0]
    assert game.observe(by_setting)[1] == 1 + 11 + 1 + 0 + 5  # set to 0
    assert game.observe(by_computing)[1] == 1 + 11 + 1 + 3  # computed: 3


def test_errors() -> None:
    circle = [["A", "add", ["B"], 1], ["B", "add", ["A"], 1]]
    with pytest.raises(DataError, match="causes itself"):
        causal_task({"variables": circle, "do": ["A", 0], "ask": "B", "budget": 2}, 0.0)
    with pytest.raises(DataError, match="does not depend"):
        causal_task({**EXAMPLE, "ask": "A"}, 0.0)
    with pytest.raises(DataError, match="is not a variable"):
        causal_task({**EXAMPLE, "ask": "Z"}, 0.0)
    with pytest.raises(DataError, match="make CausalGame larger"):
        CausalGame(most=3).begin(causal_task(EXAMPLE, 0.0).problem)


def test_a_key_is_blind_to_names_and_order_alone() -> None:
    key = causal_task(EXAMPLE, 0.0).data["key"]
    sum_ = ["W", "sum", ["Y", "Z"], 0]  # A, B, C and D are Z, X, Y and W, in another order
    rows = [sum_, ["Y", "add", ["X"], 1], ["Z", "constant", [], 1], ["X", "add", ["Z"], 2]]
    assert causal_task({"variables": rows, "do": ["X", 0], "ask": "W", "budget": 3}, 0.5).data["key"] == key
    others = [
        {**EXAMPLE, "do": ["B", 1]},
        {**EXAMPLE, "ask": "C"},
        {**EXAMPLE, "budget": 4},
        {**EXAMPLE, "do": ["C", 0]},
    ]
    first = EXAMPLE["variables"][:3]
    for parents in (["A", "C"], ["C", "A"]):  # the sides of a difference are not alike
        others.append({**EXAMPLE, "variables": [*first, ["D", "difference", parents, 0]]})
    assert len({key, *(causal_task(data, 0.0).data["key"] for data in others)}) == 7
