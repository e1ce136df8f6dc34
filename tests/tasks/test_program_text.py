"""Programs as text: by hand, and every language does what the interpreter does."""

from __future__ import annotations

import random
from typing import Any

import pytest

from troupe.errors import ConfigError
from troupe.sandbox import Sandbox
from troupe.sandbox.languages import Job, lacking, run_jobs
from troupe.tasks.grammar import INDEX, KINDS, PRODUCTIONS, VARIABLES, Fault, Tree, evaluate, grammar_of, prefix
from troupe.tasks.program_text import LANGUAGES, source, words
from troupe.tasks.programs import SIGNATURES, CodeGenerationTaskGenerator, domain

A = ("a",)


def test_a_function_in_three_languages() -> None:
    tree: Tree = ("add", ("sum", A), ("1",))
    shown = [source("function", language, [("a", "list")], "int", tree) for language in LANGUAGES]
    assert shown[0] == "def f(a):\n    return sum(a) + 1\n"
    assert shown[1] == "function f(a) {\n    return a.reduce((t, each) => t + each, 0) + 1;\n}\n"
    assert shown[2] == (
        "import java.util.stream.IntStream;\n\nclass Solution {\n    static int f(int[] a) {\n"
        "        return IntStream.of(a).sum() + 1;\n    }\n}\n"
    )


def test_a_loop_and_a_class() -> None:
    gcd: Tree = ("euclid", ("less", ("0",), ("v",)), ("v",), ("mod", ("v",), ("u",)))
    assert source("algorithm", "python", [("x", "int"), ("y", "int")], "int", gcd) == (
        "def f(x, y):\n    u, v = x, y\n    while 0 < v:\n        u, v = v, u % v\n    return u\n"
    )
    counter: Tree = ("number_state", ("0",), ("add", ("total",), ("1",)), ("total",))
    assert "put(x) {\n        this.total = this.total + 1;" in source("class", "javascript", [], "list", counter)


def test_words() -> None:
    tree: Tree = ("append", ("last", A), ("reverse", ("sorted", A)))
    assert words(prefix(tree)) == "return ((a sorted) in reverse) followed by the item (the last item of a)"
    assert words((INDEX["append"], INDEX["last"])) == "return ... followed by the item (the last item of ...)"
    assert words((INDEX["fold"], INDEX["a"])) == ("start with r = ...; for each item i of a, r becomes ...; return r")


def _programs(kind: str, rng: random.Random, n: int) -> list[tuple[Any, str, Tree, list[dict[str, Any]]]]:
    """Programs drawn from the grammar until all of it is used, each with arguments for which it has a value."""
    missing = {index for index in grammar_of(kind) if PRODUCTIONS[index].name not in VARIABLES}
    generator = CodeGenerationTaskGenerator(seed=rng.randrange(10**6), kinds=(kind,), languages=("python",))
    found: list[Any] = []
    while missing or len(found) < n:
        signature = rng.choice(SIGNATURES[kind])
        returns = rng.choice(["list"] if kind == "class" else ["int", "list"] if kind == "algorithm" else
                             ["int", "str", "list"])  # fmt: skip
        tree = generator.grown(kind, returns, signature, rng.random())
        cases = []
        for row in domain(signature)[:12]:
            try:
                value = evaluate(tree, {name: value for (name, _), value in zip(signature, row, strict=True)})
            except Fault:
                continue
            cases.append({"args": [_plain(part) for part in row], "value": _plain(value)})
        if cases and (not missing or missing & set(prefix(tree))):
            missing -= set(prefix(tree))
            found.append((signature, returns, tree, cases))
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _calls(case: dict[str, Any]) -> dict[str, Any]:
    calls = [call for x in case["args"][0] for call in (["put", x], ["get"])]
    return {"calls": calls, "value": [each for value in case["value"] for each in (None, value)]}


@pytest.fixture(scope="module")
def sandbox() -> Any:
    try:
        with Sandbox(workers=1) as made:
            yield made
    except ConfigError as error:
        pytest.skip(str(error))


def _every_kind() -> list[tuple[str, Any, str, Tree, list[dict[str, Any]]]]:
    return [(kind, *each) for kind in KINDS for each in _programs(kind, random.Random(KINDS.index(kind)), 24)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_does_what_the_interpreter_does(language: str, sandbox: Sandbox) -> None:
    if missing := lacking(language):
        pytest.skip(missing)
    jobs = []
    for kind, signature, returns, tree, cases in _every_kind():
        entry = "Box" if kind == "class" else "Solution.f" if language == "java" else "f"
        text = source(kind, language, signature, returns, tree)
        jobs.append(Job(text, entry, tuple(_calls(case) if kind == "class" else case for case in cases)))
    for job, verdicts in zip(jobs, run_jobs(sandbox, language, jobs), strict=True):
        assert all(verdict.passed for verdict in verdicts), (job.program, [v.shown for v in verdicts], job.cases)
