"""Generated programs: what is asked, what is right, that wrong ones fail, and that difficulty is effort."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.episode import Task
from troupe.errors import ConfigError
from troupe.sandbox import Sandbox
from troupe.sandbox.languages import present
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.tasks.grammar import INDEX, KINDS, tree_of
from troupe.tasks.programs import CodeGenerationTaskGenerator, domain
from troupe.tasks.splits import disjoint, fingerprint
from troupe.testing import check_generator

verify, verify_all = CodeGenerationTaskGenerator.verify, CodeGenerationTaskGenerator.verify_all


class InPython(CodeGenerationTaskGenerator):
    """The checker verifies answers one by one, for which starting Java takes too long."""

    def __init__(
        self, difficulty_range: tuple[float, float] = (0.0, 1.0), seed: int = 0, kinds: Sequence[str] | None = None
    ) -> None:
        super().__init__(difficulty_range, seed, kinds, languages=("python",))


@pytest.fixture(scope="module", autouse=True)
def _isolation() -> None:
    try:
        Sandbox()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return CodeGenerationTaskGenerator((0.0, 0.6), seed=1).generate(36)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_family_promises(kind: str) -> None:
    check_generator(InPython, kind, random.Random(0), 6)


@pytest.mark.slow
def test_worked_solutions_pass_and_wrong_ones_fail_in_every_language(tasks: list[Task]) -> None:
    """In one batch: each solution, on a corrupted task, another task's, and with a change."""
    rng = random.Random(0)
    assert {(task.kind, task.data["language"]) for task in tasks} == {(k, lang) for k in KINDS for lang in present()}
    right = [(task, task.solution) for task in tasks]
    spoilt = [(CodeGenerationTaskGenerator.corrupted(task, rng), task.solution) for task in tasks]
    other = [(task, _other(task, tasks).solution) for task in tasks]
    broken = [(task, task.solution.replace("return", "return return", 1)) for task in tasks[:6]]
    verdicts = verify_all([*right, *spoilt, *other, *broken])
    assert verdicts == [True] * len(right) + [False] * (len(verdicts) - len(right))


def _other(task: Task, tasks: Sequence[Task]) -> Task:
    return next(each for each in tasks if each.kind == task.kind and each.data["key"] != task.data["key"])


def test_what_passes_what_is_shown_alone_fails() -> None:
    [task] = InPython((0.1, 0.1), 3, ("function",)).generate(1)
    table = {repr(case["args"]): case["value"] for case in task.data["public"]}
    memorised = f"def f(*args):\n    return {table!r}[repr(list(args))]\n"
    assert not verify(task, memorised) and verify(task, task.solution)
    for answer in (None, "", "f", "def f(a): while", "def g(a): return 1", "\0f"):
        assert not verify(task, answer)


def test_the_solution_fits_the_task(tasks: list[Task]) -> None:
    """It can be written with the parts, within the size, from what is given, and the game then submits its text."""
    for task in tasks:
        game = CodeGenerationTaskGenerator.game(task.kind)
        state = game.begin(task.problem)
        assert set(task.data["given"]) <= set(task.data["parts"])
        found = _first_path(game, state, task.solution)
        assert found, task.prompt


def _first_path(game: Any, state: Any, solution: str) -> bool:
    """Looks for the solution's text, one production after another, through all that the game allows."""
    if state.finished:
        return bool(game.answer(state) == solution)
    if game.answer(state) is not None or len(state.chosen) > 12:
        return False
    return any(_first_path(game, game.step(state, action)[0], solution) for action in game.legal(state))


def test_the_prompt_says_what_the_examples_show() -> None:
    drawn = InPython((0.0, 0.0), 0, ("function",)).generate(60)
    task = next(task for task in drawn if "the sum of a." in task.prompt)
    case = task.data["public"][0]
    assert task.prompt.startswith("Write a Python function f(a), of a list of whole numbers: return the sum of a.")
    assert f"f({case['args'][0]}) is {sum(case['args'][0])}" in task.prompt
    assert task.data["parts"][:1] == ["a"] and "sum" in task.data["parts"]
    assert task.solution == "def f(a):\n    return sum(a)\n"
    assert all(case["value"] == sum(case["args"][0]) for case in task.answer)


def test_the_prompt_of_a_class_says_that_put_returns_nothing() -> None:
    [task] = InPython((0.0, 0.0), 0, ("class",)).generate(1)
    assert "put(x), which takes a whole number and returns nothing, and get()" in task.prompt
    returning = task.solution.replace("\n\n    def get(", "\n        return 0\n\n    def get(")
    assert returning != task.solution and verify(task, task.solution) and not verify(task, returning)


def test_one_function_has_one_fingerprint_in_all_languages() -> None:
    found: dict[str, set[str]] = {}
    for language in present():
        for task in CodeGenerationTaskGenerator((0, 0), 5, ("function",), languages=(language,)).generate(40):
            body = task.prompt.partition(": ")[2].partition(".")[0] + str(task.data["signature"])
            found.setdefault(body, set()).add(fingerprint(task))
    assert len(found) > 8 and all(len(marks) == 1 for marks in found.values())


def test_held_out_programs_are_others() -> None:
    train, test = disjoint(InPython((0.2, 0.5), 1), (60, 20))
    assert not {fingerprint(task) for task in train} & {fingerprint(task) for task in test}


def test_domains_are_fixed_and_rise_where_they_should() -> None:
    signature = (("a", "list"), ("b", "list"))
    rows = domain(signature, rising=True)
    assert rows == domain(signature, rising=True) and len(set(rows)) == len(rows) == 40
    assert all(list(part) == sorted(part) for row in rows for part in row)


def _success(kind: str, difficulty: float, n: int = 30) -> float:
    tasks = InPython((difficulty, difficulty), 7, (kind,)).generate(n)
    game = CodeGenerationTaskGenerator.game(kind)
    config = SearchConfig(simulations=16, considered=16)
    trees = Search(game, config, slots=n, generator=np.random.default_rng(0), explore=False)
    states = [game.begin(task.problem) for task in tasks]
    trees.place(np.arange(n), list(states), np.zeros(n, np.int8))
    alive = set(range(n))
    while alive:
        roots = run(trees, UniformEvaluator())
        played = trees.play(roots.slots, roots.edges)
        for slot, edge, done in zip(roots.slots.tolist(), roots.edges.tolist(), played.done.tolist(), strict=True):
            states[slot] = game.step(states[slot], edge)[0]
            if done:
                alive.discard(slot)
    return float(np.mean(verify_all([(t, game.answer(s)) for t, s in zip(tasks, states, strict=True)])))


@pytest.mark.parametrize("kind", KINDS)
def test_difficulty_is_effort(kind: str) -> None:
    easy, hard = _success(kind, 0.1), _success(kind, 0.9)
    assert easy > 0.75 and hard < 0.2


def test_what_a_generator_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'java'"):
        CodeGenerationTaskGenerator(languages=("javas",))
    with pytest.raises(ConfigError, match="languages are empty"):
        CodeGenerationTaskGenerator(languages=())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="'node' in /usr, and it is not installed: apt-get install nodejs"):
        CodeGenerationTaskGenerator(languages=("javascript",))
    assert CodeGenerationTaskGenerator().languages == ("python",)


def test_indices_are_the_games_actions() -> None:
    assert tree_of([INDEX["sum"], INDEX["a"]]) == ("sum", ("a",))
