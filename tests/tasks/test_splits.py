"""Sets that share nothing."""

from __future__ import annotations

import random
import re

import pytest

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.splits import content_id, disjoint, fingerprint, shape_of, split


def story(name: str, thing: str, key: str) -> Task:
    prompt = f"{name} has 12 {thing} and buys 7 more. How many {thing}?"
    return Task(content_id("word", prompt), "word", prompt, {"key": key})


def test_ids_are_content_hashes() -> None:
    assert re.fullmatch(r"linear-[0-9a-f]{12}", content_id("linear", "Solve 3x + 5 = 20"))
    assert content_id("linear", "Solve  3x + 5 = 20 ") == content_id("linear", "solve 3x + 5 = 20")
    assert (
        content_id("linear", "Solve 3x + 5 = 21")
        != content_id("linear", "Solve 3x + 5 = 20")
        != content_id("word", "Solve 3x + 5 = 20")
    )


def test_names_and_things_make_no_new_problem() -> None:
    one, other = story("Ann", "pens", "buys 12 7"), story("Bob", "toys", "buys 12 7")
    assert one.id != other.id and fingerprint(one) == fingerprint(other)
    assert fingerprint(story("Ann", "pens", "buys 12 8")) != fingerprint(one)


def test_an_equation_has_one_fingerprint_with_or_without_a_leading_word() -> None:
    for task in MathProblemGenerator(kinds=("linear", "quadratic", "system")).generate(30):
        bare = task.prompt.removeprefix("Solve ")
        assert fingerprint(task) == content_id(task.kind, bare)


def test_split_shares_nothing_and_holds_out_each_problem_once() -> None:
    tasks = MathProblemGenerator((0, 0.2), seed=2).generate(3000)
    train, validation, test = split(tasks, (0.8, 0.1, 0.1), seed=1)
    marks = [{fingerprint(task) for task in part} for part in (train, validation, test)]
    assert not marks[0] & marks[1] and not marks[0] & marks[2] and not marks[1] & marks[2]
    assert len(validation) == len(marks[1]) and len(test) == len(marks[2])
    assert len(train) > len(marks[0])  # repeated tasks stay in the training set
    distinct = len(set().union(*marks))
    assert abs(len(marks[0]) - 0.8 * distinct) <= 1 and abs(len(marks[2]) - 0.1 * distinct) <= 1
    assert set().union(*marks) == {fingerprint(task) for task in tasks}


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    tasks = MathProblemGenerator(seed=2).generate(300)
    shuffled = random.Random(0).sample(tasks, len(tasks))
    held = {fingerprint(t) for t in split(tasks, (0.5, 0.5), seed=1)[1]}
    assert {fingerprint(t) for t in split(shuffled, (0.5, 0.5), seed=1)[1]} == held
    assert {fingerprint(t) for t in split(tasks, (0.5, 0.5), seed=2)[1]} != held


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (0.5, -0.1)])
def test_split_refuses_fractions_that_are_none(fractions: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="fractions"):
        split([], fractions)


def test_disjoint_draws_sets_of_the_asked_sizes() -> None:
    train, validation, test = disjoint(MathProblemGenerator((0, 0.5), seed=3), (1000, 100, 150))
    assert [len(train), len(validation), len(test)] == [1000, 100, 150]
    held = [fingerprint(task) for task in validation + test]
    assert len(set(held)) == 250 and not set(held) & {fingerprint(task) for task in train}
    assert disjoint(MathProblemGenerator((0, 0.5), seed=3), (10, 100, 150))[1:] == [validation, test]


def test_disjoint_says_when_a_generator_runs_dry() -> None:
    with pytest.raises(DataError, match="nothing new"):
        disjoint(MathProblemGenerator((0, 0), kinds=("quadratic",)), (0, 1000))  # only six quadratics at difficulty 0


def ring(*nodes: str) -> list[tuple[str, str, str]]:
    return [(node, "to", after) for node, after in zip(nodes, (*nodes[1:], nodes[0]), strict=True)]


def test_a_shape_is_blind_to_names_and_to_nothing_else() -> None:
    plain = dict.fromkeys("abcdef", "")
    shapes = [
        shape_of(plain, ring(*"abcdef")),
        shape_of(plain, ring(*"abc") + ring(*"def")),  # every node looks alike, and only one taken alone tells it
        shape_of({**plain, "a": "first"}, ring(*"abcdef")),
        shape_of(plain, ring(*"abcdef")[:-1]),
        shape_of(plain, [*ring(*"abcdef")[:-1], ("f", "back", "a")]),
        shape_of(plain, [*ring(*"abcdef")[:-1], ("a", "to", "f")]),
    ]
    assert len(set(shapes)) == len(shapes)
    assert shape_of(plain, ring(*"cafebd")[::-1]) == shapes[0]
    assert shape_of({**dict.fromkeys("fedcba", ""), "e": "first"}, ring(*"badcfe")) == shapes[2]
