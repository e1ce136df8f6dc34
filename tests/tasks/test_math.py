"""Generated problems: solvable by their plans, checked by substitution, unsolvable by echo."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.maths.expressions import evaluate, render
from troupe.protocols import TaskGenerator
from troupe.tasks import GENERATORS
from troupe.tasks.math import _CANONICAL, KINDS, SEARCHED, SHORT, MathProblemGenerator, check_answer
from troupe.tasks.rewriting import frozen
from troupe.tasks.splits import disjoint, fingerprint

TASKS = MathProblemGenerator(seed=1).generate(1500)


def linear() -> Task:
    solution = {"plan": ["(20-5)/3"], "check": ["3*{0}+5-20"]}
    return Task("l", "linear", "Solve 3x + 5 = 20", {"unknowns": ["x"]}, 0.5, "5", solution)


def quadratic() -> Task:
    solution = {"plan": ["(5-1)/2", "(5+1)/2"], "check": ["{0}^2-5*{0}+6", "{1}^2-5*{1}+6"]}
    return Task("q", "quadratic", "Solve x^2 - 5x + 6 = 0", {"unknowns": ["x"]}, 0.5, "2, 3", solution)


def test_it_is_the_registered_generator() -> None:
    generator: TaskGenerator = GENERATORS["math"]()
    assert [task.kind in KINDS for task in generator.generate(3)] == [True] * 3


def test_the_same_seed_gives_the_same_tasks() -> None:
    assert MathProblemGenerator(seed=1).generate(50) == TASKS[:50] != MathProblemGenerator(seed=2).generate(50)


def test_tasks_survive_json() -> None:
    assert [Task.from_dict(json.loads(json.dumps(task.to_dict()))) for task in TASKS[:50]] == TASKS[:50]


def test_plans_compute_the_answers_and_checks_confirm_them() -> None:
    for task in TASKS:
        components = task.answer.split(", ")
        assert [render(evaluate(expression)) for expression in task.solution["plan"]] == components
        assert check_answer(task, components)


def test_wrong_answers_fail_the_checks() -> None:
    for task in TASKS:
        components = task.answer.split(", ")
        for index, component in enumerate(components):
            wrong = [*components[:index], str(int(component) + 1), *components[index + 1 :]]
            assert not check_answer(task, wrong), (task.prompt, wrong)


def test_prompts_hold_positive_numbers_and_never_end_with_the_answer() -> None:
    for task in TASKS:
        numbers = re.findall(r"[0-9]+", re.sub(r"x\^2|= 0", "", task.prompt))
        assert "0" not in numbers and "--" not in task.prompt and "+ -" not in task.prompt
        if task.kind in ("linear", "word"):
            assert int(task.answer) >= 0 and numbers[-1] != task.answer
        assert not {"answer", "solution", "plan"} & set(task.data)


def test_ranges_at_difficulty_one_half() -> None:
    tasks = MathProblemGenerator((0.5, 0.5), seed=3).generate(2000)
    for task in tasks:
        numbers = [int(n) for n in re.findall(r"[0-9]+", task.prompt)]
        if task.kind == "linear":
            a, b, _ = numbers
            assert 2 <= a <= 9 and 2 <= int(task.answer) <= 30 and 2 <= b <= 61
    assert max(int(t.answer) for t in tasks if t.kind == "linear") == 30


def test_harder_problems_have_larger_numbers() -> None:
    easy, hard = (MathProblemGenerator((d, d), 0, ("linear",)).generate(300) for d in (0.0, 1.0))
    assert max(int(t.answer) for t in easy) <= 15 < 40 < max(int(t.answer) for t in hard)


def test_weights_choose_the_kinds() -> None:
    generator = MathProblemGenerator(seed=1, kinds=("linear", "word"), weights=(3, 1))
    counts = Counter(task.kind for task in generator.generate(2000))
    assert set(counts) == {"linear", "word"} and 0.7 < counts["linear"] / 2000 < 0.8


def test_bad_kinds_and_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        MathProblemGenerator(kinds=("liner",))
    for weights in [(1,), (1, -1), (0, 0)]:
        with pytest.raises(ConfigError, match="weights"):
            MathProblemGenerator(kinds=("linear", "word"), weights=weights)


@pytest.mark.parametrize(
    ("components", "right"),
    [
        (["5"], True),
        (["5.0"], True),
        (["10/2"], True),
        (["6"], False),
        (["5", "5"], False),
        ([], False),
        (["five"], False),
        (["1/0"], False),
        ([""], False),
        (["5 or 6"], False),
        (["5)*(0"], False),
        (["9" * 1000], False),
    ],
)
def test_check_linear(components: list[str], right: bool) -> None:
    assert check_answer(linear(), components) is right


@pytest.mark.parametrize(
    ("components", "right"),
    [(["2", "3"], True), (["3", "2"], True), (["2", "2"], False), (["2"], False), (["2", "3", "3"], False)],
)
def test_check_quadratic_takes_roots_in_any_order_but_not_twice(components: list[str], right: bool) -> None:
    assert check_answer(quadratic(), components) is right


def test_check_system_keeps_the_order_of_the_unknowns() -> None:
    task = MathProblemGenerator((0.5, 0.5), seed=4, kinds=("system",)).generate(1)[0]
    x, y = task.answer.split(", ")
    assert check_answer(task, [x, y]) and not check_answer(task, [y, x])
    same = replace(task, solution={"plan": ["3", "3"], "check": ["{0}+{1}-6", "{0}-{1}"]})
    assert check_answer(same, ["3", "3"])


def test_irrational_roots_are_checked_exactly() -> None:
    task = replace(quadratic(), solution={"plan": ["", ""], "check": ["{0}^2-2", "{1}^2-2"]})
    assert check_answer(task, ["-sqrt(2)", "sqrt(2)"])
    assert not check_answer(task, ["-1.41421356", "1.41421356"])


def test_a_task_without_checks_says_so() -> None:
    with pytest.raises(DataError, match="task l has no"):
        check_answer(replace(linear(), solution=None), ["5"])


# ------------------------------------------------------------------------------------------- kinds that can be searched

HARD = MathProblemGenerator(seed=2, kinds=list(SEARCHED)).generate(600)


def test_a_generator_of_which_nothing_is_asked_makes_what_it_always_made() -> None:
    tasks = MathProblemGenerator(seed=1).generate(400)
    digest = hashlib.sha256(json.dumps([task.to_dict() for task in tasks], sort_keys=True).encode()).hexdigest()
    assert digest.startswith("cf95df42e2011985") and {task.kind for task in tasks} == set(SHORT)
    assert MathProblemGenerator.KINDS == KINDS == (*SHORT, "arithmetic", "equation", "roots", "elimination")


def test_searched_tasks_survive_json_and_share_nothing() -> None:
    assert [Task.from_dict(json.loads(json.dumps(task.to_dict()))) for task in HARD] == HARD
    assert {task.kind for task in HARD} == set(SEARCHED)
    for kind in SEARCHED:
        sets = disjoint(MathProblemGenerator((0.3, 0.6), seed=1, kinds=(kind,)), (100, 50, 200))
        marks = [{fingerprint(task) for task in tasks} for tasks in sets]
        assert [len(mark) for mark in marks[1:]] == [50, 200]
        assert not (marks[0] & marks[1] or marks[0] & marks[2] or marks[1] & marks[2])


def test_searched_tasks_are_asked_in_plain_words() -> None:
    (task,) = MathProblemGenerator((0.2, 0.2), 3, ("equation",)).generate(1)
    assert task.prompt == "Solve -5x - 2(-2x - 3) = 1" and task.answer == "5"
    assert task.data["form"] == [[[0, -5, 0, 0], [2, -2, -2, -3]], [[1, 1, 1, 0]]]
    assert task.solution["steps"][0] == "multiply out -2(-2x - 3): -5x + 4x + 6 = 1"


def test_plans_of_searched_tasks_compute_the_answers() -> None:
    for task in HARD:
        values = [evaluate(expression) for expression in task.solution["plan"]]
        assert values == [evaluate(component) for component in task.answer.split(", ")]


def test_verify_accepts_the_answer_alone_and_no_answer_of_a_corrupted_task() -> None:
    rng, verify = random.Random(0), MathProblemGenerator.verify
    for task in [*TASKS[:200], *HARD]:
        assert verify(task, task.answer) and verify(task, task.answer.replace(", ", ","))
        wrong = MathProblemGenerator.corrupted(task, rng)
        assert wrong.answer != task.answer and not verify(wrong, task.answer)
        assert not verify(task, wrong.answer) and not verify(wrong, wrong.answer)
        for nonsense in (None, "", "x", "1, 2, 3, 4", task.answer + ", 1", task.prompt, "1/0", "{0}"):
            assert not verify(task, nonsense), (task.prompt, nonsense)


def test_copying_the_expression_is_no_answer() -> None:
    verify = MathProblemGenerator.verify
    for task in MathProblemGenerator(seed=3, kinds=["arithmetic"]).generate(50):
        expression = task.prompt.removeprefix("Work out ")
        assert evaluate(expression) == evaluate(task.answer)
        assert not verify(task, expression) and verify(task, f" {task.answer}\n")
    for task in TASKS[:200]:
        for answer in (f"{component}+0" for component in [task.answer] if "," not in component):
            assert verify(task, answer) == (task.kind == "quadratic")
    solution = {"check": ["{0}^2-2", "{1}^2-2"]}
    task = Task("q", "quadratic", "Solve x^2 = 2", {"unknowns": ["x"]}, 0.5, "-sqrt(2), sqrt(2)", solution)
    assert verify(task, "sqrt(2), -2/sqrt(2)")


def test_verify_takes_roots_in_any_order_and_unknowns_in_theirs() -> None:
    solution = {"check": ["2*{0}^2+2*{0}-12", "2*{1}^2+2*{1}-12"]}
    roots = Task("r", "roots", "Solve 2x^2 + 2x = 12", {"unknowns": ["x"]}, 0.5, "-3, 2", solution)
    verify = MathProblemGenerator.verify
    assert verify(roots, "2, -3") and not verify(roots, "2, 2") and not verify(roots, "2")
    solution = {"check": ["2*{0}+3*{1}-12", "{0}-{1}-1"]}
    system = Task("e", "elimination", "Solve", {"unknowns": ["x", "y"]}, 0.5, "3, 2", solution)
    assert verify(system, "3, 2") and verify(system, "6/2, 2.0") and not verify(system, "2, 3")


@pytest.mark.parametrize("kind", ["linear", "word", "equations", "chess"])
def test_kinds_without_a_game_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"kind '{kind}' of math problems has no game.*elimination"):
        MathProblemGenerator.game(kind)


def test_harder_searched_tasks_take_more_lines() -> None:
    for kind in SEARCHED:
        means = []
        for difficulty in (0.0, 0.5, 1.0):
            tasks = MathProblemGenerator((difficulty, difficulty), 1, (kind,)).generate(50)
            means.append(sum(len(task.solution["actions"]) for task in tasks) / 50)
        assert means[0] + 0.5 < means[1] < means[2] - 0.5, (kind, means)


@pytest.mark.parametrize(
    ("kind", "form", "same", "other"),
    [
        ("arithmetic", ("-", ("*", 7, ("+", 1, 2)), 5), ("-", ("*", ("+", 2, 1), 7), 5), ("-", 5, ("*", 7, 3))),
        (
            "equation",
            (((2, 2, 1, 3),), ((0, 1, 0, 0), (1, 10, 1, 0))),
            (((1, 10, 1, 0), (0, 1, 0, 0)), ((2, 2, 1, 3),)),
            (((2, 2, 1, 3), (0, 1, 0, 0)), ((1, 10, 1, 0),)),
        ),
        ("roots", (0, 1, 1, -6, 0, 2, 4), (0, 0, 2, 4, 1, 1, -6), (0, 1, 2, -6, 0, 1, 4)),
        ("roots", (2, 1, 3, 2, -1, 0, 0), (2, 2, -1, 1, 3, 0, 0), (2, 1, -1, 2, 3, 0, 0)),
        ("roots", (3, 2, 1, 25, 0, 0, 0), (3, 2, 1, 25, 0, 0, 0), (3, 1, 2, 25, 0, 0, 0)),
        ("elimination", ((2, 3, 12), (1, -1, 1)), ((1, -1, 1), (2, 3, 12)), ((3, 2, 12), (1, -1, 1))),
    ],
)  # fmt: skip
def test_keys_are_blind_to_the_order_in_which_a_problem_is_written(kind: str, form: Any, same: Any, other: Any) -> None:
    canonical = _CANONICAL[kind]
    assert canonical(form) == canonical(same) != canonical(other)


def test_no_searched_problem_is_both_trained_on_and_held_out_in_another_order() -> None:
    for kind in SEARCHED:
        parts = disjoint(MathProblemGenerator((0.0, 0.3), 5, (kind,)), (300, 40))
        train, held_out = ({str(_CANONICAL[kind](frozen(task.data["form"]))) for task in part} for part in parts)
        assert len(held_out) == 40 and not train & held_out
