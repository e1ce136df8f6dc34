"""Programs in three languages: what passes, what fails, and that neither neighbours nor forgers matter."""

from __future__ import annotations

from typing import Any

import pytest

from troupe.errors import ConfigError
from troupe.sandbox import Sandbox
from troupe.sandbox import languages as module
from troupe.sandbox.answers import read_answers
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


ESCAPES = (
    "this.constructor.constructor('return process')()",
    "globalThis.__proto__.constructor.constructor('return process')()",
    "this.toString.constructor('return process')()",
)
SABOTAGE = {
    "the host's JSON": ("javascript", "this.constructor.constructor('return JSON')().stringify = () => "
                        "'[{\"value\": 0}]'; function f(x) { return x; }"),
    "the field": ("java", """class Solution { static int f(int x) throws Exception {
        var field = Class.forName("Main").getDeclaredField("channel");
        field.setAccessible(true);
        var old = (java.io.PrintStream) field.get(null);
        field.set(null, new java.io.PrintStream(old) {
            public void print(String text) { old.print("[{\\"value\\": 0}]\\n"); }
        });
        return x; } }"""),
    "all lines": ("java", """import java.io.*; class Solution { static int f(int x) throws Exception {
        new FileOutputStream(FileDescriptor.out).write("[{\\"value\\": 0}]\\n".repeat(3).getBytes());
        Runtime.getRuntime().halt(0);
        return x; } }"""),
}  # fmt: skip


@pytest.mark.parametrize("how", SABOTAGE)
def test_nobody_turns_the_verdict_of_a_neighbour(how: str, one_shot: Sandbox) -> None:
    language, program = SABOTAGE[how]
    if missing := lacking(language):
        pytest.skip(missing)
    text, entry = RIGHT[language]
    first, *others = (({"args": [n], "value": n + 1},) for n in (4, 5, 6))
    found = run_jobs(one_shot, language, [Job(program, entry, first), *(Job(text, entry, each) for each in others)])
    assert [each[0].passed for each in found] == [False, True, True], found


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_context_does_not_lead_to_the_host(escape: str, one_shot: Sandbox) -> None:
    if missing := lacking("javascript"):
        pytest.skip(missing)
    [[verdict]] = run_jobs(one_shot, "javascript", [Job(f"{escape}; {RIGHT['javascript'][0]}", "f", ADD[:1])])
    assert not verdict.passed and verdict.error == "ReferenceError: process is not defined"


def test_questions_are_gone_when_programs_run(one_shot: Sandbox) -> None:
    if missing := lacking("java"):
        pytest.skip(missing)
    program = (
        "class Solution { static boolean f(int x) { return java.nio.file.Files.exists("
        'java.nio.file.Path.of("jobs.txt")); } }'
    )
    [[verdict]] = run_jobs(one_shot, "java", [Job(program, "Solution.f", ({"args": [4], "value": False},))])
    assert verdict.passed, verdict


def test_cases_after_an_endless_one_are_not_run(one_shot: Sandbox) -> None:
    if missing := lacking("javascript"):
        pytest.skip(missing)
    program = "function f(x) { while (x == 1); return x + 1; }"
    cases = tuple({"args": [n], "value": n + 1} for n in (0, 1, 2, 3))
    [verdicts] = run_jobs(one_shot, "javascript", [Job(program, "f", cases)])
    assert [verdict.passed for verdict in verdicts] == [True, False, False, False]
    assert all(verdict.error == "Error: Script execution timed out after 1000ms" for verdict in verdicts[1:]), verdicts


TRUTHS = {
    "python": ("def f(x):\n    return True", "f"),
    "javascript": ("const f = (x) => true;", "f"),
    "java": ("class Solution { static boolean f(int x) { return true; } }", "Solution.f"),
}


def test_a_truth_is_no_number(language: str, one_shot: Sandbox) -> None:
    cases = ({"args": [4], "value": 1}, {"args": [4], "value": True})
    [verdicts] = run_jobs(one_shot, language, [Job(*TRUTHS[language], cases)])
    assert [verdict.passed for verdict in verdicts] == [False, True]


def test_a_truth_is_no_number_in_what_an_object_returns(one_shot: Sandbox) -> None:
    program = "class Box:\n    def get(self): return True"
    cases = ({"calls": [["get"]], "value": [1]}, {"calls": [["get"]], "value": [True]})
    [verdicts] = run_jobs(one_shot, "python", [Job(program, "Box", cases)])
    assert [verdict.passed for verdict in verdicts] == [False, True]


def test_an_object_is_no_value(one_shot: Sandbox) -> None:
    if missing := lacking("javascript"):
        pytest.skip(missing)
    programs = ("const f = (x) => ({ float: '1' });", "const f = (x) => [{ float: '1' }];")
    for program, value in zip(programs, (1, [1]), strict=True):
        [[verdict]] = run_jobs(one_shot, "javascript", [Job(program, "f", ({"args": [4], "value": value},))])
        assert not verdict.passed, verdict


def test_numbers_within_a_tolerance() -> None:
    assert module._alike(2, 2.0) and module._alike([0.3, 1], [0.1 + 0.2, 1], 1e-9)
    assert not module._alike(2.0, 2) and not module._alike(True, 1.0, 1.0) and not module._alike([1], [1, 2])
    assert not module._alike(10**400, 2.0, 1.0)


def test_no_company_holds_the_same_cases_twice() -> None:
    jobs = [Job("", "f", ADD), Job("", "f", ADD), Job("", "f", BOX)] + [Job("", "f", ADD[:1])] * 3
    jobs[1] = Job("", "f", tuple(dict(reversed(case.items())) for case in reversed(ADD)))  # the same in another order
    groups = [sorted(group) for group in module._companies(list(enumerate(jobs)))]
    assert sorted(place for group in groups for place in group) == list(range(6))
    assert groups == [[0, 2, 3], [1, 4], [5]]


def test_answers_are_taken_only_where_each_line_belongs_to_a_job() -> None:
    jobs = [Job("", "f", ADD), Job("", "f", BOX)]
    nothing = [[{"lost": "why"}] * 2, [{"lost": "why"}]]
    assert read_answers('[{"value": 1}, {"error": "x"}]\n', jobs, "why") == [[{"value": 1}, {"error": "x"}], nothing[1]]
    for text in ("[]\n", '[{"value": 1}]\n', "{}\n" * 3, "garbage\n", '[{"value": 1, "error": 2}, {"value": 1}]\n'):
        assert read_answers(text, jobs, "why") == nothing


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
