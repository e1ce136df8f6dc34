"""Programs in three languages: what passes, what fails, and that neither neighbours nor forgers matter."""

from __future__ import annotations

from typing import Any

import pytest

from troupe.errors import ConfigError
from troupe.sandbox import Sandbox
from troupe.sandbox import languages as module
from troupe.sandbox.languages import LANGUAGES, Job, lacking, present, run_jobs

ADD = ({"args": [4], "value": 5}, {"args": [-1], "value": 0})
MANY: tuple[Any, ...] = (
    {"args": [[1, 2], 'a"é\\'], "value": [[1, 2], 'a"é\\']},
    {"args": [[], ""], "value": [[], ""]},
)
BOX = ({"calls": [["put", 3], ["get"], ["put", 4], ["get"]], "value": [None, 3, None, 7]},)
RIGHT = {
    "python": ("def f(x):\n    return x + 1", "f"),
    "javascript": ("function f(x) { return x + 1; }", "f"),
    "java": ("class Solution { static int f(int x) { return x + 1; } }", "Solution.f"),
}
PAIRS = {
    "python": ("def f(a, s):\n    return [a, s]", "f"),
    "javascript": ("const f = (a, s) => [a, s];", "f"),
    "java": (
        "import java.util.List;\nclass Solution { static List<Object> f(int[] a, String s) { return List.of(a, s); } }",
        "Solution.f",
    ),
}
BOXES = {
    "python": "class Box:\n    t = 0\n    def put(self, x): self.t += x\n    def get(self): return self.t",
    "javascript": "class Box { t = 0; put(x) { this.t += x; } get() { return this.t; } }",
    "java": "class Box { private int t = 0; void put(int x) { t += x; } int get() { return t; } }",
}
WRONG = {
    "python": (
        "def f(x): return x", "def f(x):\n    while True: pass", "def f(x): return 1 // 0", "def f(x) return",
        "import sys\nsys.exit(0)\ndef f(x): return x + 1", "def g(x): return x + 1", "def f(x): return 'a' * 10**6",
    ),
    "javascript": (
        "const f = (x) => x", "function f(x) { while (true); }", "function f(x) { throw new Error('no'); }", "f(x) {",
        "f.constructor.constructor('return process')().exit(0); function f(x) { return x + 1; }",
        "function g(x) { return x + 1; }", "const f = (x) => 'a'.repeat(10 ** 6)",
    ),
    "java": (
        "class Solution { static int f(int x) { return x; } }",
        "class Solution { static int f(int x) { while (true); } }",
        "class Solution { static int f(int x) { return 1 / (x - x); } }",
        "class Solution { static int f(int x) { return y; } }",
        "class Solution { static int f(int x) { Runtime.getRuntime().halt(0); return x + 1; } }",
        "class Solution { static int g(int x) { return x + 1; } }",
        "class Solution { static String f(int x) { return \"a\".repeat(1000000); } }",
    ),
}  # fmt: skip


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if missing := lacking(name):
        pytest.skip(missing)
    return name


def test_functions_and_classes(language: str, one_shot: Sandbox) -> None:
    jobs = [Job(*RIGHT[language], ADD), Job(*PAIRS[language], MANY), Job(BOXES[language], "Box", BOX)]
    for job, verdicts in zip(jobs, run_jobs(one_shot, language, jobs), strict=True):
        assert all(verdict.passed for verdict in verdicts), (job, verdicts)


def test_wrong_programs_fail_and_cost_their_neighbours_nothing(language: str, one_shot: Sandbox) -> None:
    """Each with cases of its own, so that they share a process; a right program stands before and behind them."""
    name = RIGHT[language][1]
    wrong = [
        Job(text, name, ({"args": [10 + n], "value": 11 + n},)) for n, text in enumerate(WRONG[language])
    ]  # fmt: skip
    right = [Job(*RIGHT[language], ({"args": [n], "value": n + 1},)) for n in (100, 101)]
    found = run_jobs(one_shot, language, [right[0], *wrong, right[1]])
    assert [each[0].passed for each in found] == [True, *[False] * len(wrong), True], found


def test_what_is_expected_never_enters(language: str, one_shot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = Sandbox.run

    def watched(self: Sandbox, program: Any) -> Any:
        seen.append(repr((program.code, program.argv, program.stdin, dict(program.files))))
        return run(self, program)

    monkeypatch.setattr(Sandbox, "run", watched)
    cases = ({"args": [4], "value": 987654},)
    assert not run_jobs(one_shot, language, [Job(*RIGHT[language], cases)])[0][0].passed
    assert seen and not any("987654" in text for text in seen)


@pytest.mark.parametrize(
    ("language", "program", "entry"),
    [
        ("javascript", "const p = f.constructor.constructor('return process')(); p.stdout.write('[{\"value\": 5}]\\n');"
         "function f(x) { return 7; }", "f"),
        ("java", "import java.io.*; class Solution { static int f(int x) throws Exception {"
         "new FileOutputStream(FileDescriptor.out).write(\"[{\\\"value\\\": 5}]\\n\".getBytes()); return 7; } }",
         "Solution.f"),
    ],
)  # fmt: skip
def test_who_writes_into_the_channel_passes_nothing_alone(
    language: str, program: str, entry: str, one_shot: Sandbox
) -> None:
    if missing := lacking(language):
        pytest.skip(missing)
    assert not run_jobs(one_shot, language, [Job(program, entry, ({"args": [4], "value": 5},))])[0][0].passed


def test_no_company_holds_the_same_cases_twice() -> None:
    jobs = [Job("", "f", ADD), Job("", "f", ADD), Job("", "f", BOX)] + [Job("", "f", ADD[:1])] * 3
    groups = [sorted(group) for group in module._companies(list(enumerate(jobs)))]
    assert sorted(place for group in groups for place in group) == list(range(6))
    assert groups == [[0, 2, 3], [1, 4], [5]]


def test_answers_are_taken_only_where_each_line_belongs_to_a_job() -> None:
    jobs = [Job("", "f", ADD), Job("", "f", BOX)]
    nothing = [[{"lost": "why"}] * 2, [{"lost": "why"}]]
    assert module._read('[{"value": 1}, {"error": "x"}]\n', jobs, "why") == [[{"value": 1}, {"error": "x"}], nothing[1]]
    for text in ("[]\n", '[{"value": 1}]\n', "{}\n" * 3, "garbage\n", '[{"value": 1, "error": 2}, {"value": 1}]\n'):
        assert module._read(text, jobs, "why") == nothing


def test_a_program_that_is_too_long(language: str, one_shot: Sandbox) -> None:
    text, entry = RIGHT[language]
    assert not run_jobs(one_shot, language, [Job(" " * 60_000 + text, entry, ADD)])[0][0].passed


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch, one_shot: Sandbox) -> None:
    with pytest.raises(ConfigError, match="did you mean 'java'"):
        lacking("jav")
    monkeypatch.setenv("PATH", "/nowhere")
    assert present() == ("python",)
    with pytest.raises(ConfigError, match="need 'javac' in /usr, and it is not installed: apt-get install"):
        run_jobs(one_shot, "java", [Job(*RIGHT["java"], ADD)])
