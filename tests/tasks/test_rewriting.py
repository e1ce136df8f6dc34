"""Rules of algebra: each keeps the solutions, solved forms are right, and longer problems are harder to find."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.protocols import TaskGame
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.tasks import algebra_arithmetic, algebra_elimination, algebra_equation, algebra_roots
from troupe.tasks.algebra_arithmetic import Arithmetic
from troupe.tasks.algebra_elimination import Elimination
from troupe.tasks.algebra_equation import Equation
from troupe.tasks.algebra_roots import Roots
from troupe.tasks.math import SEARCHED, MathProblemGenerator
from troupe.tasks.rewriting import COUNTED, Line, RewritingGame, replay, signed
from troupe.testing import check_generator

ALL = list(SEARCHED)


def tasks_of(kind: str, difficulty: float, n: int, seed: int = 0) -> list[Task]:
    return MathProblemGenerator((difficulty, difficulty), seed, (kind,)).generate(n)


def written(rules: Any, form: Any, *actions: int) -> list[str]:
    """The lines that these rules write, each checked to be legal."""
    forms = replay(rules, form, actions)
    assert forms is not None
    return [rules.text(each) for each in forms[1:]]


def spelled(rules: Any, form: Any) -> list[str]:
    return [rules.words(form, action) for action in rules.legal(form)]


# ------------------------------------------------------------------------------------------------------- the whole game


@pytest.mark.parametrize("kind", ALL)
def test_tasks_and_game_keep_their_promises(kind: str) -> None:
    check_generator(MathProblemGenerator, kind, random.Random(3), tasks=30)
    game: TaskGame = MathProblemGenerator.game(kind)
    assert isinstance(game, TaskGame) and game.vocabulary <= 210 and game.observation_shape[0] <= 40


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_worked_solutions_are_played_in_the_lines_allowed(kind: str, difficulty: float) -> None:
    game = MathProblemGenerator.game(kind)
    for task in tasks_of(kind, difficulty, 40):
        state, rewards, done = game.begin(task.problem), [], False
        for action, words in zip(task.solution["actions"], task.solution["steps"], strict=True):
            assert not done and action in game.legal(state) and game.describe(state, action) == words
            state, reward, done, _ = game.step(state, action)
            rewards.append(reward)
        assert done and rewards == [0.0] * (len(rewards) - 1) + [1.0] and game.answer(state) == task.answer
        assert MathProblemGenerator.verify(task, game.answer(state))


@pytest.mark.parametrize("kind", ALL)
def test_whatever_random_play_solves_is_right(kind: str) -> None:
    """Solved forms that are reached by any way at all, not only by worked solutions."""
    game, rng, solved = MathProblemGenerator.game(kind), random.Random(1), 0
    for task in tasks_of(kind, 0.1, 60, seed=2):
        for _ in range(10):
            state, done, total = game.begin(task.problem), False, 0.0
            while not done:
                state, reward, done, _ = game.step(state, rng.choice(list(game.legal(state))))
                total += reward
            assert (total == 1.0) == MathProblemGenerator.verify(task, game.answer(state))
            solved += total == 1.0
    assert 60 < solved < 600


def test_the_lines_run_out() -> None:
    game = RewritingGame(Equation())
    problem = Problem("e", "equation", "", {"form": [[[0, 2, 0, 0]], [[1, 6, 1, 0]]], "lines": 2})  # 2x = 6
    state = game.begin(problem)
    assert game.render(state) == "2x = 6   [2 lines left]" and game.observe(state)[-1] == game.vocabulary - 14
    state, reward, done, _ = game.step(state, 0)
    assert (game.render(state), reward, done) == ("0 = 6 - 2x   [1 lines left]", 0.0, False)
    state, reward, done, _ = game.step(state, 0)
    assert (reward, done, game.answer(state), list(game.legal(state))) == (0.0, True, None, [])
    state, reward, done, _ = game.step(game.begin(problem), 3)
    assert (reward, done, game.answer(state)) == (1.0, True, "3")
    assert game.key(Line((), COUNTED)) == game.key(Line((), COUNTED + 5)) != game.key(Line((), COUNTED - 1))


def test_numbers_out_of_bounds_end_the_attempt() -> None:
    game = RewritingGame(Equation())
    form = [[[2, 9, 1, 10]], [[0, 1, 0, 0]]]  # 9(x + 10) = x, and 90 is too large
    state = game.begin(Problem("e", "equation", "", {"form": form, "lines": 5}))
    assert game.describe(state, 2) == "multiply out 9(x + 10): numbers out of bounds"
    state, reward, done, _ = game.step(state, 2)
    assert (state, reward, done, game.answer(state)) == (Line(None, 0), 0.0, True, None)


@pytest.mark.parametrize(
    ("rules", "form"),
    [
        (Arithmetic(), ["+", 1]),
        (Arithmetic(), ["+", 1, 61]),
        (Arithmetic(), ["+", 1, 2.5]),
        (Arithmetic(), 7),
        (Equation(), [[[0, 0, 0, 0]], []]),
        (Equation(), [[[2, 1, 0, 5]], []]),
        (Equation(), [[[1, 81, 1, 0]], []]),
        (Equation(), [[[1, 1, 1, 0]] * 5, [[0, 1, 0, 0]] * 4]),
        (Roots(), [1, 1, 1, 1, 1, 1, 1]),
        (Roots(), [2, 0, 1, 1, 1, 0, 0]),
        (Roots(), [0, 1000, 1, 1, 1, 1, 1]),
        (Elimination(), [[1, 2, 3]]),
        (Elimination(), [[1, 2, 3], [1, 2]]),
        (Elimination(), [[1, 2, 91], [1, 2, 3]]),
        (Elimination(), "xy"),
        (Elimination(), None),
    ],
)
def test_problems_of_another_make_are_refused(rules: Any, form: Any) -> None:
    with pytest.raises(DataError, match=r"problem odd: .*(data\['form'\]|data\['lines'\])"):
        RewritingGame(rules).begin(Problem("odd", "k", "", {"form": form, "lines": 3}))


def test_problems_without_lines_are_refused() -> None:
    for data in ({}, {"form": [[2, 3, 12], [1, -1, 1]]}, {"form": [[2, 3, 12], [1, -1, 1]], "lines": 0}):
        with pytest.raises(DataError, match="problem odd"):
            RewritingGame(Elimination()).begin(Problem("odd", "k", "", data))


def test_sums_are_written_as_people_write_them() -> None:
    assert signed([(3, "x"), (-1, "y"), (0, "z"), (5, "")]) == "3x - y + 5"
    assert signed([(-1, "x"), (1, "y"), (-1, "")]) == "-x + y - 1" and signed([(0, "x")]) == "0"
    assert signed([(1, "/2")]) == "1/2" and signed([(3, "x"), (-1, "/4")]) == "3x - 1/4"


# ------------------------------------------------------------------------------------------- every rule keeps solutions


def value(form: Any) -> Fraction:
    """Of an arithmetic expression; ZeroDivisionError where it has none."""
    if isinstance(form, int):
        return Fraction(form)
    a, b = value(form[1]), value(form[2])
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[form[0]]()


def side(terms: Any, x: Fraction) -> Fraction:
    total = Fraction(0)
    for kind, n, p, q in terms:
        if kind == algebra_equation.X:
            total += n * x
        elif kind == algebra_equation.ONE:
            total += Fraction(n, p)
        else:
            total += n * (p * x + q) / (kind - 1)
    return total


def solves_equation(form: Any, x: Fraction) -> bool:
    return side(form[0], x) == side(form[1], x)


def solves_quadratic(form: Any, x: Fraction) -> bool:
    shape, a, b, c, d, e, f = form
    if shape == algebra_roots.SUM:
        return a * x * x + b * x + c == d * x * x + e * x + f
    if shape == algebra_roots.SPLIT:
        return a * x * x + b * x + c * x + d == 0
    if shape == algebra_roots.PRODUCT:
        return (a * x + b) * (c * x + d) == 0
    if shape == algebra_roots.SQUARE:
        return (a * x + b) ** 2 == c
    return any((p * x + q == u) if p else x == Fraction(u, q) for p, q, u in ((a, b, c), (d, e, f)))


def determinant(rows: Any) -> int:
    if len(rows) == 1:
        return int(rows[0][0])
    minors = ([[*row[:v], *row[v + 1 :]] for row in rows[1:]] for v in range(len(rows)))
    return sum((-1) ** v * rows[0][v] * determinant(minor) for v, minor in enumerate(minors))


def followers(rules: Any, task: Task, rng: random.Random, steps: int = 25) -> Iterator[tuple[Any, int, Any]]:
    """(form, rule, next form) for every legal rule along a random line, the budget set aside."""
    form = rules.read(task.data)
    for _ in range(steps):
        following = [(action, rules.apply(form, action)) for action in rules.legal(form)]
        yield from ((form, action, after) for action, after in following if after is not None)
        open_ends = [after for _, after in following if after is not None and rules.solved(after) is None]
        if not open_ends:
            return
        form = rng.choice(open_ends)


def changed(kind: str, keeps: Callable[[Task, Any, Any], bool]) -> list[str]:
    """Descriptions of the rules that do not keep what they must, among thousands of uses."""
    rules, rng, wrong, uses = SEARCHED[kind](), random.Random(5), [], 0
    for difficulty in (0.1, 0.4, 0.7, 1.0):
        for task in tasks_of(kind, difficulty, 12, seed=4):
            for form, action, after in followers(rules, task, rng):
                uses += 1
                if not keeps(task, form, after):
                    wrong.append(f"{rules.words(form, action)}: {rules.text(form)} -> {rules.text(after)}")
    assert uses > 2000
    return wrong


def components(task: Task) -> list[Fraction]:
    return [Fraction(component) for component in task.answer.split(", ")]


def test_rules_of_arithmetic_keep_the_value() -> None:
    assert changed("arithmetic", lambda task, _, after: value(after) == components(task)[0]) == []


def test_rules_of_equations_keep_the_solution() -> None:
    def keeps(task: Task, _: Any, after: Any) -> bool:
        (x,) = components(task)
        return solves_equation(after, x) and not solves_equation(after, x + 1)  # of a line through 0 that is enough

    assert changed("equation", keeps) == []


def test_rules_of_quadratics_keep_both_roots_and_bring_no_third() -> None:
    def keeps(task: Task, _: Any, after: Any) -> bool:
        roots = components(task)
        others = {Fraction(0), Fraction(7, 5)} - set(roots)  # whoever has three roots has all numbers for roots
        return all(solves_quadratic(after, x) for x in roots) and not any(solves_quadratic(after, x) for x in others)

    assert changed("roots", keeps) == []


def test_rules_of_systems_keep_the_one_solution() -> None:
    def keeps(task: Task, _: Any, after: Any) -> bool:
        values = components(task)
        holds = all(sum(a * x for a, x in zip(row, values, strict=False)) == row[-1] for row in after)
        return holds and determinant([row[:-1] for row in after]) != 0

    assert changed("elimination", keeps) == []


# ------------------------------------------------------------------------------------------------ rules, worked by hand


def test_arithmetic_has_to_be_regrouped_where_numbers_are_too_large() -> None:
    rules, form = Arithmetic(), ("-", ("*", 7, 9), ("*", 7, 5))
    assert spelled(rules, form) == [
        "factor (7 * 9) - (7 * 5)",
        "swap the operands of 7 * 9",  # 63 is too large to be written
        "work out 7 * 5",
        "swap the operands of 7 * 5",
    ]
    assert written(rules, form, 5, 2 * 6, 0) == ["7 * (9 - 5)", "7 * 4", "28"]
    assert rules.solved(28) == "28" and rules.solved(form) is None
    assert rules.tokens(("/", -60, 1))[:4] == (125, 1, 62, 0)


@pytest.mark.parametrize(
    ("form", "rule", "after"),
    [
        (("+", ("-", 50, 20), 30), 2, "50 - (20 - 30)"),
        (("-", ("-", 50, 20), 30), 2, "50 - (20 + 30)"),
        (("/", ("*", 9, 14), 7), 2, "9 * (14 / 7)"),
        (("*", ("/", 9, 14), 7), 2, "9 / (14 / 7)"),
        (("-", 50, ("-", 20, 30)), 3, "(50 - 20) + 30"),
        (("/", 50, ("*", 5, 2)), 3, "(50 / 5) / 2"),
        (("*", 7, ("-", 9, 5)), 4, "(7 * 9) - (7 * 5)"),
        (("/", ("+", 9, 5), 2), 4, "(9 / 2) + (5 / 2)"),
        (("+", ("/", 9, 2), ("/", 5, 2)), 5, "(9 + 5) / 2"),
    ],
)
def test_laws_of_arithmetic(form: Any, rule: int, after: str) -> None:
    assert written(Arithmetic(), form, rule) == [after]


def test_arithmetic_never_divides_by_what_may_be_nothing() -> None:
    for form in (("*", ("/", 6, 3), 0), ("*", ("/", 6, 3), ("-", 2, 2)), ("/", ("+", 6, 3), ("-", 2, 2))):
        assert not {2, 4} & set(Arithmetic().legal(form))
    assert 0 not in Arithmetic().legal(("/", 5, 0)) and 0 not in Arithmetic().legal(("/", 5, 2))


def test_an_equation_by_hand() -> None:
    rules, form = Equation(), (((2, 2, 1, 3),), ((0, 1, 0, 0), (1, 10, 1, 0)))
    assert rules.text(form) == "2(x + 3) = x + 10"
    lines = written(rules, form, 2, 2 * 5, 5)  # multiply out, subtract x, which joins 2x, and 6, which joins 10
    assert lines == ["2x + 6 = x + 10", "x + 6 = 10", "x = 4"]
    assert written(rules, (((0, 2, 0, 0), (0, -1, 0, 0)), ((1, 4, 1, 0),)), 1) == ["x = 4"]
    # over 4, by 2, and with a fraction left at the end
    over = (((5, 2, 3, 1),), ((1, 5, 1, 0),))
    assert rules.text(over) == "2(3x + 1)/4 = 5"
    assert written(rules, over, 4) == ["2(3x + 1) = 20"]
    end = (((0, -6, 0, 0),), ((1, 4, 1, 0),))
    assert written(rules, end, 3) == ["x = -2/3"] and rules.solved(rules.apply(end, 3)) == "-2/3"
    assert rules.solved((((1, 7, 1, 0),), ((0, 1, 0, 0),))) == "7" and rules.solved((((0, 1, 0, 0),), ())) == "0"
    assert rules.solved((((0, 1, 0, 0),), ((0, 1, 0, 0),))) is None


def test_both_sides_are_divided_only_where_that_goes_without_remainder() -> None:
    rules = Equation()
    assert 3 in rules.legal((((2, 2, 1, 3),), ((0, 4, 0, 0), (1, 10, 1, 0))))
    assert 3 not in rules.legal((((2, 2, 1, 3),), ((0, 3, 0, 0), (1, 10, 1, 0))))
    assert written(rules, (((2, 2, 1, 3),), ((0, 4, 0, 0), (1, 10, 1, 0))), 3) == ["(x + 3) = 2x + 5"]


def test_a_quadratic_by_hand_in_two_ways() -> None:
    rules, form = Roots(), (0, 2, 3, 0, 0, 1, 12)
    assert rules.text(form) == "2x^2 + 3x = x + 12"
    square = written(rules, form, 4, 8, 9, 10, 15, 16, 18, 17, 19)
    assert square == [
        "2x^2 + 2x = 12",
        "x^2 + x = 6",
        "4x^2 + 4x = 24",
        "(2x + 1)^2 = 25",
        "2x + 1 = 5 or 2x + 1 = -5",
        "2x = 4 or 2x + 1 = -5",
        "x = 2 or 2x + 1 = -5",
        "x = 2 or 2x = -6",
        "x = 2 or x = -3",
    ]
    split = next(a for a in range(22, rules.actions) if rules.words((0, 1, 1, -6, 0, 0, 0), a).endswith("-2x + 3x"))
    factors = written(rules, form, 4, 8, 5, split, 11, 13)
    assert factors[2:] == ["x^2 + x - 6 = 0", "x^2 - 2x + 3x - 6 = 0", "(x - 2)(x + 3) = 0", "x - 2 = 0 or x + 3 = 0"]
    assert rules.solved((4, 0, 1, 2, 0, 2, -3)) == "-3/2, 2" and rules.solved((4, 0, 1, 2, 1, 3, 0)) is None


def test_only_a_right_split_can_be_factored() -> None:
    rules = Roots()
    assert rules.legal((1, 1, -2, 3, -6, 0, 0)) == (11, 12) and rules.legal((1, 1, 2, -1, -6, 0, 0)) == (12,)
    assert written(rules, (1, 6, 9, -4, -6, 0, 0), 11) == ["(2x + 3)(3x - 2) = 0"]
    assert written(rules, (0, 3, -5, 0, 0, 0, 0), 11) == ["(x)(3x - 5) = 0"]


def test_numbers_of_quadratics_are_shown_as_two_digits() -> None:
    rules = Roots()
    tokens = rules.tokens((0, 70, -1, -999, 999, 0, 0))
    low, high = [t - 6 for t in tokens[1:7]], [t - 70 for t in tokens[7:]]
    assert [32 * h + digit for h, digit in zip(high, low, strict=True)] == [70, -1, -999, 999, 0, 0]
    assert min(tokens) > 0 and max(tokens) < rules.vocabulary and rules.vocabulary == 102


def test_a_system_by_hand() -> None:
    rules, form = Elimination(), ((2, 3, 12), (1, -1, 1))
    assert rules.text(form) == "2x + 3y = 12; x - y = 1"
    lines = written(rules, form, 0, 5 * 3)  # x out of the first, y out of the second
    assert lines == ["y = 2; x - y = 1", "y = 2; x = 3"] and rules.solved(((0, 1, 2), (1, 0, 3))) == "3, 2"
    assert written(rules, form, 3 * 3) == ["3x + 2y = 13; x - y = 1"]  # added
    assert written(rules, form, 7 * 3 + 2) == ["2x + 3y = 12; -x + y = -1"]
    assert written(rules, ((2, 4, 12), (1, -1, 1)), 2) == ["x + 2y = 6; x - y = 1"]
    assert rules.solved(((1, 0, 3), (1, 0, 3))) is None and rules.solved(((2, 0, 6), (0, 1, 1))) is None
    nothing_left = ((0, 1, 2), (1, -1, 1))
    assert rules.apply(nothing_left, 0) == nothing_left  # legal, and of no use


# --------------------------------------------------------------------------------------------------------------- effort


def shortest(rules: Any, form: Any, limit: int) -> int:
    """Lines of the shortest solution, breadth first."""
    seen, queue = {form}, deque([(form, 0)])
    while queue:
        current, depth = queue.popleft()
        for action in rules.legal(current) if depth < limit else ():
            after = rules.apply(current, action)
            if after is None or after in seen:
                continue
            if rules.solved(after) is not None:
                return depth + 1
            seen.add(after)
            queue.append((after, depth + 1))
    return limit + 1


@pytest.mark.parametrize("kind", ALL)
def test_worked_solutions_are_as_short_as_any_or_nearly(kind: str) -> None:
    rules, excess = SEARCHED[kind](), []
    for task in tasks_of(kind, 0.25, 60, seed=6):
        worked = len(task.solution["actions"])
        if worked <= 4:
            excess.append(worked - shortest(rules, rules.read(task.data), worked))
    assert len(excess) >= 20 and min(excess) >= 0 and np.mean(excess) < 0.5


def solved_by_search(kind: str, difficulty: float, n: int = 60, simulations: int = 16) -> float:
    """Success of a search that knows nothing."""
    game = MathProblemGenerator.game(kind)
    tasks = tasks_of(kind, difficulty, n, seed=7)
    config = SearchConfig(simulations=simulations, considered=16, kernels="numpy")
    trees = Search(game, config, slots=n, generator=np.random.default_rng(0), explore=False)
    states = [game.begin(task.problem) for task in tasks]
    trees.place(np.arange(n), states, np.zeros(n, np.int8))
    going = True
    while going:
        roots = run(trees, UniformEvaluator())
        for slot, action in zip(roots.slots.tolist(), roots.edges.tolist(), strict=True):
            states[slot] = game.step(states[slot], action)[0]
        going = not trees.play(roots.slots, roots.edges).done.all()
    return float(np.mean([MathProblemGenerator.verify(t, game.answer(s)) for t, s in zip(tasks, states, strict=True)]))


@pytest.mark.parametrize("kind", ALL)
def test_difficulty_raises_the_effort(kind: str) -> None:
    easy, middle, hard = (solved_by_search(kind, difficulty) for difficulty in (0.0, 0.25, 1.0))
    assert easy >= 0.85 and easy > middle > hard and hard < 0.05


def test_more_simulations_solve_more() -> None:
    assert solved_by_search("elimination", 0.25, simulations=128) > solved_by_search("elimination", 0.25) + 0.1


def test_drawn_problems_have_what_was_asked_for() -> None:
    rng = random.Random(0)
    for _ in range(30):
        form, steps = algebra_arithmetic.draw(rng, 4, 2)
        assert len(steps) == 6 and value(form).denominator == 1
        sides, _ = algebra_equation.draw(rng, 3, 2, 1, 8)
        kinds = [term[0] for term in (*sides[0], *sides[1])]
        assert len(kinds) == 5 and sum(kind >= algebra_equation.BRACKET for kind in kinds) == 2
        rows, _ = algebra_elimination.draw(rng, 3, 4, 3)
        assert sum(a != 0 for row in rows for a in row[:-1]) == 7
        quadratic, _ = algebra_roots.draw(rng, 6, 2, 2, 1)
        assert quadratic[0] == algebra_roots.SUM
