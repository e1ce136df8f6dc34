"""Would these tests see a wrong sign at the root? Every comparison, every plus and minus, every `not` and every choice
of a largest or smallest in `gumbel.py`, `puct.py` and `Search._roll` is turned round, one at a time. A short battery of
figures worked by hand must refuse each of these mutants, and must accept the sources as they are."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.search import gumbel, puct, search
from troupe.search.config import SearchConfig

COMPARISONS: dict[type, tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
}
OPERATIONS: dict[type, type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
NAMES = {"argmax": "argmin", "max": "min", "maximum": "minimum"}
ALIKE = {
    "len(sequence) < simulations -> len(sequence) <= simulations": "one phase more, which the slice below cuts off",
    "sum_n > 0 -> sum_n >= 0": "(value + 0 * weighted) / (0 + 1) is the value, too",
}
"""Mutants that compute the same."""


def changes(node: ast.AST) -> list[Callable[[Any], None]]:
    """What can be turned round at one node."""

    def put(field: str, value: Any) -> Callable[[Any], None]:
        return lambda place: setattr(place, field, value)

    if isinstance(node, ast.Compare):
        return [put("ops", [other()]) for other in COMPARISONS[type(node.ops[0])]]
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATIONS:
        return [put("op", OPERATIONS[type(node.op)]())]
    if isinstance(node, ast.UnaryOp):  # -x, ~x and not x, twice
        return [put("operand", ast.UnaryOp(node.op, node.operand))]
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        return [put("attr", NAMES[node.attr])]
    if isinstance(node, ast.Name) and node.id in NAMES:
        return [put("id", NAMES[node.id])]
    return []


def flips(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(what is turned round, the tree with it)."""
    for i, node in enumerate(ast.walk(tree)):
        for change in changes(node):
            mutant = copy.deepcopy(tree)
            place = next(found for k, found in enumerate(ast.walk(mutant)) if k == i)
            change(place)
            yield f"{ast.unparse(node)} -> {ast.unparse(place)}", mutant


def source_of(thing: Any) -> ast.Module:
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    for function in ast.walk(tree):  # annotations have no signs worth turning
        if isinstance(function, ast.FunctionDef):
            function.body = function.body[isinstance(function.body[0], ast.Expr) :]
    return tree


def run(tree: ast.Module, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(ast.fix_missing_locations(tree), "mutant.py", "exec"), names)
    return names


class Fixed:
    """A generator whose draws are given."""

    def __init__(self, *draws: Any) -> None:
        self.draws = list(draws)

    def random(self, size: int) -> np.ndarray:
        return np.array([self.draws.pop(0) for _ in range(size)])

    def standard_gamma(self, alpha: float, shape: tuple[int, int]) -> np.ndarray:
        return np.array(self.draws)


# --- gumbel.py --------------------------------------------------------------------------------------------------


def check_gumbel(found: dict[str, Any]) -> None:
    visits, completed, improved = found["considered_visits"], found["completed_q"], found["improved_policy"]
    # 16 by 4 actions in 2 phases: two rounds of 4, four of 2; 10 by 3: one of 3, two of 2, two of 2 cut short
    assert visits(4, 16) == (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
    assert visits(3, 10) == (0, 0, 0, 1, 1, 2, 2, 3, 3, 4)
    assert visits(1, 4) == visits(0, 4) == (0, 1, 2, 3) and visits(5, 3) == (0, 0, 0)
    assert found["schedules"](2, 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 0, 1, 1]]
    # gumbel + logit: 1 + ln 0.5, 2 + ln 0.25; an illegal action has none, a prior of 0 counts as 1e-38
    priors = np.array([[0.5, 0.25, -np.inf, 0.0]])
    scores = found["root_scores"](priors, np.array([[1.0, 2.0, 3.0, 0.0]]))
    assert scores[0] == pytest.approx([1 - 0.693147, 2 - 1.386294, -np.inf, -87.498234], abs=1e-6)
    # The hand-worked root of `test_gumbel.py`: mixed value 0.175; 0.75, 0.25 and 0.5875 of 1; times (50 + 2) 0.1
    config, one = SearchConfig(), np.ones(1)
    priors, counts = np.array([[0.5, 0.25, 0.25, -np.inf]]), np.array([[2, 1, 0, 0]])
    q = np.array([[0.5, -0.5, 0.0, 0.0]])
    sigma = completed(config, priors, counts, q, np.array([0.2]), -one, one)
    assert sigma[0, :3] == pytest.approx([3.9, 1.3, 3.055])
    none = completed(config, priors, 0 * counts, 0 * q, np.array([0.2]), -one, one)
    assert none[0, :3] == pytest.approx([3.0] * 3)  # 50 * 0.1 * 0.6
    assert (completed(config, priors, counts, q, np.array([0.2]), one, one) == 0).all()  # a range of nothing
    # of 2 to 5: 0 and 1; of a prior of 0, which is nearly nothing, the other's value counts: (5 + 3) / 3 to 2/9
    alone = completed(
        config, np.array([[1.0, 0.0, 0.0]]), np.array([[1, 1, 0]]), np.array([[2.0, 5.0, 0]]), 4 * one, 2 * one, 5 * one
    )
    assert alone[0] == pytest.approx([0.0, 5.1, 5.1 * 2 / 9])
    weights = np.array([0.5, 0.25 * np.exp(-2.6), 0.25 * np.exp(-0.845)])
    assert improved(priors, sigma)[0] == pytest.approx([*(weights / weights.sum()), 0.0])
    far = improved(np.array([[0.5, 0.5, -np.inf]]), np.array([[900.0, 0.0, 1000.0]]))  # e^900 is no number
    assert far[0] == pytest.approx([1.0, 0.0, 0.0])
    assert improved(np.array([[0.0, 0.0]]), np.zeros((1, 2)))[0] == pytest.approx([0.5, 0.5])
    # of those visited most: 0.1 + 1 against 0.5 + 0.2; the third has been visited less
    action = found["gumbel_action"]
    assert action(np.array([[0.1, 0.5, 9.0]]), np.array([[1.0, 0.2, 9.0]]), np.array([[2, 2, 1]])).tolist() == [0]
    assert action(np.array([[0.5, 0.9, 9.0]]), np.array([[0.8, 0.1, 9.0]]), np.array([[2, 2, 1]])).tolist() == [0]


# --- puct.py ----------------------------------------------------------------------------------------------------


def check_puct(found: dict[str, Any]) -> None:
    # gammas 2 and 1 of the two legal actions: noise 2/3 and 1/3, a quarter of it
    priors = np.array([[0.6, 0.4, -np.inf]])
    mixed = found["dirichlet_mixed"](priors, 1.0, 0.25, Fixed([2.0, 1.0, 7.0]))
    assert mixed[0] == pytest.approx([0.75 * 0.6 + 0.25 * 2 / 3, 0.75 * 0.4 + 0.25 / 3, -np.inf])
    nothing = found["dirichlet_mixed"](priors, 1.0, 1.0, Fixed([0.0, 0.0, 0.0]))  # gammas that underflow
    assert nothing[0] == pytest.approx([0.5, 0.5, -np.inf])
    moves = np.array([0, 3, 4, 90])
    always = SearchConfig(algorithm="puct", temperature=0.7)
    assert found["temperature_of"](always, moves).tolist() == [0.7] * 4
    later = SearchConfig(algorithm="puct", temperature=1.0, temperature_moves=4, final_temperature=0.1)
    assert found["temperature_of"](later, moves).tolist() == [1.0, 1.0, 0.1, 0.1]
    assert found["visit_policy"](np.array([[1, 0, 3]])).tolist() == [[0.25, 0.0, 0.75]]
    # 1, 2, 0, 4 of 7, at temperature 1/2 squared: 1, 4, 0, 16 of 21; a draw on a border belongs to what comes after
    visits = np.array([[1, 2, 0, 4]])
    drawn = [
        int(found["visit_action"](visits, np.array([temperature]), np.array([draw]))[0])
        for temperature, draw in ((1.0, 0.13), (1.0, 0.4), (1.0, 0.44), (0.5, 0.04), (0.5, 0.2), (0.5, 0.3), (0.0, 0.0))
    ]
    assert drawn == [0, 1, 3, 0, 1, 3, 3]
    halves = np.array([[1, 1, 2, 0]])
    assert found["visit_action"](halves, np.ones(1), np.array([0.5])).tolist() == [2]


# --- Search._roll -----------------------------------------------------------------------------------------------


class Raffle:
    """Action 1 ends the game and pays 32. Action 0 pays 1, then the other player's raffle shows 0, 1 or 2 with odds 0,
    1/2, 1/4 or 1/4 and pays that player 2 to the power of it; with 3 the first player's wheel turns, which pays 16 to
    the first player. State: (what is there, who moves)."""

    players = 2
    actions = 2
    observation_shape = (1,)

    def initial(self) -> tuple[str, int]:
        return "choice", 0

    def to_play(self, state: tuple[str, int]) -> int:
        return state[1]

    def legal(self, state: tuple[str, int]) -> tuple[int, ...]:
        return (0, 1) if state[0] == "choice" else ()

    def chance(self, state: tuple[str, int]) -> tuple[tuple[int, float], ...]:
        odds = {"raffle": (0.0, 0.5, 0.25, 0.25), "wheel": (1.0,)}
        return tuple(enumerate(odds.get(state[0], ())))

    def step(self, state: tuple[str, int], action: int) -> tuple[tuple[str, int], float, bool, int]:
        what, player = state
        if what == "choice":
            following, reward = (("end", player), 32.0) if action else (("raffle", 1 - player), 1.0)
        elif what == "raffle" and action == 3:
            following, reward = ("wheel", 1 - player), 0.0
        elif what == "raffle":
            following, reward = ("choice", player), 2.0**action
        else:
            following, reward = ("choice", 1 - player), 16.0
        return following, reward, following[0] == "end", following[1]

    def observe(self, state: tuple[str, int]) -> np.ndarray:
        return np.zeros(1, np.float32)


def check_roll(found: dict[str, Any]) -> None:
    class Mutant(search.Search):
        _roll = found["_roll"]

    # The raffle's draws: 0 and 0.49 show 1, which pays the other player 2: 1 - 2; 0.5 and 0.7 show 2: 1 - 4; 0.75 shows
    # 3, and the wheel pays 16 to the first: 1 + 16, by a draw of its own. The last game ends without one.
    generator: Any = Fixed(0.0, 0.49, 0.5, 0.7, 0.75, 0.3)
    trees = Mutant(Raffle(), SearchConfig(simulations=2), slots=6, generator=generator, explore=False)
    trees.place(np.arange(6))
    search.run(trees, UniformEvaluator())
    played = trees.play(np.array([5, 0, 1, 2, 3, 4]), np.array([1, 0, 0, 0, 0, 0]))
    assert played.reward.tolist() == [32, -1, -1, -3, -3, 17] and played.done.tolist() == [True] + [False] * 5
    assert trees.states(np.arange(5)) == [("choice", 1)] * 4 + [("choice", 1)] and not generator.draws


# --- the mutants ------------------------------------------------------------------------------------------------

SUBJECTS: dict[str, tuple[Any, Callable[[dict[str, Any]], None], dict[str, Any]]] = {
    "gumbel": (gumbel, check_gumbel, {}),
    "puct": (puct, check_puct, {}),
    "_roll": (search.Search._roll, check_roll, vars(search) | {"_BEFORE_END": 20}),
}
MUTANTS = {
    f"{name}, {number}: {what}": (name, mutant)
    for name, (subject, _, _) in SUBJECTS.items()
    for number, (what, mutant) in enumerate(flips(source_of(subject)))
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_battery_accepts_the_source_as_it_is(name: str) -> None:
    subject, check, names = SUBJECTS[name]
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        check(run(source_of(subject), dict(names)))


@pytest.mark.parametrize("what", MUTANTS)
def test_the_battery_refuses(what: str) -> None:
    name, mutant = MUTANTS[what]
    _, check, names = SUBJECTS[name]
    alike = what.partition(": ")[2] in ALIKE
    try:
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            check(run(mutant, dict(names)))  # type: ignore[arg-type]
    except Exception:
        assert not alike, "this mutant computes something else after all"
    else:
        assert alike, "nothing tells this mutant from the source"


def test_there_is_something_to_refuse() -> None:
    counts = {name: sum(subject == name for subject, _ in MUTANTS.values()) for name in SUBJECTS}
    assert counts["gumbel"] > 40 and counts["puct"] > 15 and counts["_roll"] > 8, counts
