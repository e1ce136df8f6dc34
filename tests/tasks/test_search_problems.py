"""Every kind of search problem by the shared checker, and that difficulty is effort."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.uniform_search import searched, solved
from troupe.errors import DataError
from troupe.tasks.search_problems import FAMILIES, SearchProblemGenerator
from troupe.tasks.splits import disjoint, fingerprint
from troupe.testing import check_generator

KINDS = tuple(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_keeps_its_promises(kind: str) -> None:
    check_generator(SearchProblemGenerator, kind, random.Random(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_worked_solution_is_right_and_a_corrupted_answer_makes_it_wrong(kind: str) -> None:
    generator = SearchProblemGenerator(seed=1, kinds=(kind,))
    rng = random.Random(0)
    for task in generator.generate(40):
        assert generator.verify(task, task.solution) and not generator.verify(task, None)
        wrong = generator.corrupted(task, rng)
        assert wrong == replace(task, answer=wrong.answer) and not generator.verify(wrong, task.solution)
        for cut in (task.solution[:-1], task.solution + task.solution[-1], task.solution[1:], f"{task.solution}?"):
            assert not generator.verify(task, cut) or kind == "picture"  # a picture forgives four moves


@pytest.mark.parametrize(
    ("kind", "easy", "hard"),
    [("knapsack", 0.1, 0.9), ("tour", 0.1, 0.9), ("path", 0.0, 0.9), ("twentyfour", 0.1, 0.9), ("picture", 0.0, 0.9)],
)
def test_difficulty_is_effort(kind: str, easy: float, hard: float) -> None:
    middle = solved(SearchProblemGenerator, kind, 0.3)
    assert (
        solved(SearchProblemGenerator, kind, easy) >= 0.7 > middle > solved(SearchProblemGenerator, kind, hard) <= 0.1
    )


@pytest.mark.parametrize("kind", ["knapsack", "tour", "path", "twentyfour"])
def test_more_simulations_solve_more(kind: str) -> None:
    few = solved(SearchProblemGenerator, kind, 0.3, n=40, simulations=4)
    assert solved(SearchProblemGenerator, kind, 0.3, n=40, simulations=160) > few + 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_sets_share_nothing(kind: str) -> None:
    train, gate, final = disjoint(SearchProblemGenerator((0.2, 0.4), seed=0, kinds=(kind,)), (150, 50, 50))
    held_out = {fingerprint(task) for task in gate} | {fingerprint(task) for task in final}
    assert len(held_out) == 100 and not held_out & {fingerprint(task) for task in train}
    assert all(fingerprint(task) == task.id for task in train)


def test_what_pays_and_what_is_right_agree_where_the_end_shows_it() -> None:
    for kind in ("path", "twentyfour", "picture"):
        game = SearchProblemGenerator.game(kind)
        tasks = SearchProblemGenerator((0.1, 0.3), seed=5, kinds=(kind,)).generate(40)
        answers = searched(game, tasks)
        right = [SearchProblemGenerator.verify(task, answer) for task, answer in zip(tasks, answers, strict=True)]
        assert 0 < sum(right) < 40
        if kind != "twentyfour":  # what arrives is submitted, and only that
            assert right == [answer is not None for answer in answers]


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"'knapsak' is no kind of search problem \(did you mean 'knapsack'\?\)"):
        SearchProblemGenerator.game("knapsak")
    (task,) = SearchProblemGenerator(kinds=("path",)).generate(1)
    with pytest.raises(DataError, match="is no kind of search problem"):
        SearchProblemGenerator.verify(replace(task, kind="sudoku"), "RR")
