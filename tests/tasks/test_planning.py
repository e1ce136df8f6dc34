"""The PDDL game: logistics by hand, plans against the validator, and a search that finds one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from troupe.episode import Problem
from troupe.errors import DataError
from troupe.tasks.blocksworld import BLOCKSWORLD
from troupe.tasks.planning import LOGISTICS, PDDLGame, make_logistics, plan_task, shortest_plan, solves_plan
from troupe.testing import check_game

TOWN = """(define (problem town) (:domain logistics-strips) (:objects p t l0 l1 c)
 (:init (obj p) (truck t) (location l0) (location l1) (city c) (in-city l0 c) (in-city l1 c) (at p l0) (at t l1))
 (:goal (at p l1)))"""


def test_fetching_a_parcel_takes_four_steps() -> None:
    task = plan_task("logistics", {"domain": LOGISTICS, "problem": TOWN}, "town", 0.0)
    assert task.solution == "(drive-truck t l1 l0 c) (load-truck p t l0) (drive-truck t l0 l1 c) (unload-truck p t l1)"
    assert task.answer == "(at p l1)" and task.data["budget"] == 4
    game = PDDLGame()
    state = game.begin(task.problem)
    assert game.legal(state) == [("drive-truck", "t", "l1", "l0", "c")]  # driving to where one is changes nothing
    for action in shortest_plan(LOGISTICS, TOWN):
        assert game.answer(state) is None
        state, reward, done, _ = game.step(state, action)
    assert (reward, done) == (1.0, True) and game.answer(state) == task.solution


def test_steps_run_out() -> None:
    game = PDDLGame()
    state = game.begin(plan_task("logistics", {"domain": LOGISTICS, "problem": TOWN}, "town", 0.0).problem)
    for place in (("l1", "l0"), ("l0", "l1"), ("l1", "l0"), ("l0", "l1")):
        state, reward, done, _ = game.step(state, ("drive-truck", "t", *place, "c"))
    assert (reward, done, game.answer(state)) == (0.0, True, None)


def test_verdicts() -> None:
    task = plan_task("logistics", {"domain": LOGISTICS, "problem": TOWN}, "town", 0.0)
    steps = task.solution.split(") ")
    assert solves_plan(task, task.solution)
    assert not solves_plan(replace(task, answer="(at p l0)"), task.solution)
    assert not solves_plan(task, ") ".join([*steps[1:], steps[0]]))
    assert not solves_plan(task, "(drive-truck t l1 l1 c) " + task.solution)  # too long
    assert not solves_plan(task, "drive there and back")


def test_generated_problems_are_solved_by_their_plan_and_no_shorter_one() -> None:
    for seed in range(6):
        task = make_logistics(random.Random(seed), 0.7)
        assert solves_plan(task, task.solution)
        tight = replace(task, data={**task.data, "budget": task.solution.count("(") - 1})
        assert not solves_plan(tight, task.solution)


def test_the_game_keeps_the_promises_of_games() -> None:
    check_game(PDDLGame(), np.random.default_rng(0), 5)


def test_a_dead_end_ends() -> None:
    dead = """(define (domain drop) (:predicates (up) (down)) (:action fall :parameters () :precondition (up)
     :effect (and (down) (not (up)))))"""
    problem = "(define (problem p) (:domain drop) (:init (up)) (:goal (and (up) (down))))"
    with pytest.raises(DataError, match="no plan was found among 2 states"):
        shortest_plan(dead, problem)
    data = {"domain": dead, "problem": problem, "budget": 5}
    game = PDDLGame()
    _, reward, done, _ = game.step(game.begin(Problem("p", "pddl", "", data)), ("fall",))
    assert (reward, done) == (0.0, True)


def test_errors() -> None:
    solved = TOWN.replace("(:goal (at p l1))", "(:goal (at p l0))")
    with pytest.raises(DataError, match="holds from the start"):
        PDDLGame().begin(Problem("p", "logistics", "", {"domain": LOGISTICS, "problem": solved, "budget": 3}))
    with pytest.raises(DataError, match="the goal cannot be reached"):
        shortest_plan(LOGISTICS, TOWN.replace("(:goal (at p l1))", "(:goal (airport l1))"))
    with pytest.raises(DataError, match="does not reach the goal"):
        plan_task("logistics", {"domain": LOGISTICS, "problem": TOWN}, "town", 0.0, ["(drive-truck t l1 l0 c)"])
    with pytest.raises(DataError, match="write domain and problem"):
        PDDLGame().begin(Problem("p", "logistics", "", {"domain": BLOCKSWORLD}))
    with pytest.raises(DataError, match="cannot be applied"):
        PDDLGame().step(PDDLGame().initial(), ("fly",))
