"""PDDL: reading, validating and grounding, on the blocksworld by hand and on a domain with types."""

from __future__ import annotations

import pytest

from troupe.errors import DataError
from troupe.tasks.blocksworld import BLOCKSWORLD
from troupe.tasks.pddl import ground, parse_domain, parse_plan, parse_problem, replay

THREE = """(define (problem sussman) (:domain blocksworld-4ops) ; c on a, b alone
 (:objects A b c)
 (:init (handempty) (ontable a) (ontable b) (on c a) (clear b) (clear c))
 (:goal (and (on a b) (on b c))))"""
PLAN = "(unstack c a) (put-down c) (pick-up b) (stack b c) (pick-up a) (stack a b)"

TYPED = """(define (domain doors) (:requirements :strips :typing :negative-preconditions :equality)
 (:types room - place  small - room)
 (:constants hall - place)
 (:predicates (here ?p - place) (locked ?p - place))
 (:action go :parameters (?from - place ?to - room)
  :precondition (and (here ?from) (not (locked ?to)) (not (= ?from ?to)))
  :effect (and (here ?to) (not (here ?from)))))"""
ROOMS = (
    "(define (problem p) (:domain doors) (:objects r - room s - small) (:init (here hall) (locked r)) (:goal (here s)))"
)


def outcome(plan: str, problem: str = THREE, domain: str = BLOCKSWORLD) -> str | None:
    read = parse_domain(domain)
    return replay(read, parse_problem(problem, read), parse_plan(plan) or []).failure


def test_the_sussman_anomaly() -> None:
    assert outcome(PLAN) is None
    assert outcome(PLAN.upper()) is None


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ("(unstack c a) (put-down c)", "the goal (on a b) is not reached"),
        ("(pick-up a)", "step 1 (pick-up a): (clear a) is false"),
        ("(unstack c a) (pick-up b)", "step 2 (pick-up b): (handempty) is false"),
        ("(fly a b)", "step 1 (fly a b): no action of the domain with as many arguments"),
        ("(pick-up a b)", "step 1 (pick-up a b): no action of the domain with as many arguments"),
        ("(pick-up z)", "step 1 (pick-up z): an argument is no object, or one of another type"),
    ],
)
def test_why_a_plan_fails(plan: str, why: str) -> None:
    assert outcome(plan) == why


def test_grounded_blocksworld_reaches_all_22_states() -> None:
    # 13 arrangements of three blocks, and for each block in the hand the 3 arrangements of the two others.
    domain = parse_domain(BLOCKSWORLD)
    problem = parse_problem(THREE, domain)
    operators, fluents = ground(domain, problem)
    start = sum(1 << i for i, atom in enumerate(fluents) if atom in problem.initial)
    reached, waiting = {start}, [start]
    while waiting:
        facts = waiting.pop()
        for operator in operators:
            after = facts & ~operator.deletes | operator.adds
            if operator.needs & facts == operator.needs and after not in reached:
                reached.add(after)
                waiting.append(after)
    assert len(reached) == 22


def test_types_constants_negation_and_equality() -> None:
    domain = parse_domain(TYPED)
    problem = parse_problem(ROOMS, domain)
    assert problem.objects == {"hall": "place", "r": "room", "s": "small"}
    assert outcome("(go hall s)", ROOMS, TYPED) is None
    assert outcome("(go hall r)", ROOMS, TYPED) == "step 1 (go hall r): (locked r) is true"
    assert outcome("(go hall s) (go s hall)", ROOMS, TYPED) == (
        "step 2 (go s hall): an argument is no object, or one of another type"
    )
    assert outcome("(go hall s) (go s s)", ROOMS, TYPED) == "step 2 (go s s): (= s s) is true"
    assert [operator.name for operator in ground(domain, problem)[0]] == [("go", "hall", "s")]


def test_plans_are_nothing_but_steps() -> None:
    assert parse_plan("(a b)\n (C d e)") == [("a", "b"), ("c", "d", "e")]
    assert parse_plan(["(a b)", "(c)"]) == [("a", "b"), ("c",)]
    for text in ("", "a b", "(a b", "(a (b))", "I think (a b)", "()"):
        assert parse_plan(text) is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (":strips", ":durative-actions", ":durative-actions is not read here"),
        ("(define", "define", "closes that was never opened"),
        ("(define", "((define", "expected one expression"),
        ("(on ?x ?y))\n (:action", "(on ?x))\n (:action", "with 2 arguments is no predicate"),
        (
            "(clear ?x) (ontable ?x) (handempty))\n  :effect",
            "(clear ?z) (handempty))\n  :effect",
            "neither a parameter",
        ),
        ("(and (holding ?x) (not (clear ?x))", "(and (when (holding ?x) (clear ?x))", "is not read here"),
    ],
)
def test_errors_of_domains(old: str, new: str, why: str) -> None:
    assert old in BLOCKSWORLD
    with pytest.raises(DataError, match=why):
        parse_domain(BLOCKSWORLD.replace(old, new, 1))


def test_errors_of_problems() -> None:
    domain = parse_domain(BLOCKSWORLD)
    with pytest.raises(DataError, match="it is for the domain"):
        parse_problem(THREE.replace("blocksworld-4ops", "other"), domain)
    with pytest.raises(DataError, match="'d' in"):
        parse_problem(THREE.replace("(on c a)", "(on d a)"), domain)
