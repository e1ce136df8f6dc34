"""Programs run on cases: what is a program, what is a case, and what was wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.sandbox import Limits
from troupe.sandbox.cases import MAX_PROGRAM, as_case, case_text, entry_of, program_in, run_cases

CASES = [{"args": [4], "value": 14}, {"args": [0], "value": 2}]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<ans>def f(x):\n return x</ans>", "def f(x):\n return x"),
        ("<ans>a</ans> or <ans>\nb\n</ans>", "b"),
        ("<ans>```python\na = 1\n```</ans>", "a = 1"),
        ("First\n```py\na\n```\nthen\n```\nb\n c\n```", "b\n c"),
        ("1. This:\n   ```py\n   def f(x):\n    return x\n   y = 1\n   ```", "def f(x):\n return x\ny = 1"),
        ("```python\na\n``` <ans>b</ans>", "b"),
        ("a = 1", None),
        ("<ans>", None),
        ("<ans> </ans>", None),
        ("", None),
    ],
)
def test_the_program_in_a_text(text: str, program: str | None) -> None:
    assert program_in(text) == program
    assert program is None or program_in(program, marked=False) == program  # tools and rewards run the same program


def test_a_text_without_marks_may_be_the_program() -> None:
    assert program_in(" a = 1\n", marked=False) == "a = 1" and program_in(" ", marked=False) is None


def test_the_entry_is_the_last_function() -> None:
    assert entry_of("def a(): pass\nclass B:\n def c(self): pass\ndef d (x): pass") == "d" and entry_of("x") is None


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("assert f([1, 2], (3,)) == {1: 2}", {"args": [[1, 2], {"tuple": [3]}], "value": {"dict": [[1, 2]]}}),
        ("f(4)==14", {"args": [4], "value": 14}),
        ("14 == f(4)", {"args": [4], "value": 14}),
        ("assert f(-1, 'a') is None, 'a message'", {"args": [-1, "a"], "value": None}),
        ("assert f()", {"args": [], "value": True}),
        ("assert not f(2)", {"args": [2], "value": False}),
        ("assert abs(f(1) - 0.5) < 1e-6", {"args": [1], "value": 0.5, "tolerance": 1e-6}),
        ("f(x)==1", None),
        ("f(n=1)==1", None),
        ("int(f(1))==1", None),
        ("f(1)[0]==1", None),
        ("f(1)==g(1)", None),
        ("f(1)!=1", None),
        ("0<f(1)==1", None),
        ("math.floor(1)==1", None),
        ("f(1)==1; f(2)==2", None),
        ("f(", None),
        ("(" * 5000, None),
        ("", None),
    ],
)
def test_assertions_are_read(text: str, case: Any) -> None:
    assert as_case(text) == (None if case is None else ("f", case))
    assert as_case(text, "g") is None


def test_cases_are_shown_as_they_were_written() -> None:
    assert case_text("f", {"args": [[1, 2], "a"], "value": {"tuple": [1]}}) == "f([1,2],'a')==(1,)"
    assert case_text("f", {"stdin": "3\n", "stdout": "9\n"}) == "input:\n3\noutput:\n9"


def test_verdicts(sandbox: Any) -> None:  # noqa: F811
    def shown(program: str | None, cases: Any = CASES, **more: Any) -> list[tuple[bool, str]]:
        return [(verdict.passed, verdict.shown) for verdict in run_cases(sandbox, program, "f", cases, **more)]

    assert shown("def f(x):\n return x*3+2") == [(True, "14"), (True, "2")]
    assert shown("def f(x):\n return 28//x//1.0") == [
        (False, "7.0"),
        (False, "error: ZeroDivisionError: integer division or modulo by zero"),
    ]
    assert shown("def f(x):\n return object()") == [(False, "error: it returned a object")] * 2
    assert shown("f = 3")[0] == (False, "error: NameError: there is no function f")
    assert shown(None) == [(False, "error: no program")] * 2
    assert shown("#" * (MAX_PROGRAM + 1)) == [(False, "error: the program is too long")] * 2
    assert shown("def f(x):\n return 'a'*300", CASES[:1])[0][1] == "'" + "a" * 199
    assert shown("def f(x): return A*x", [{"args": [2], "value": 6}], setup="A = 3") == [(True, "6")]


@pytest.mark.parametrize(
    "line",
    [
        '["value"]',
        '["error"]',
        '["broken"]',
        '"v"',
        "3",
        "{}",
        '{"value": 14, "error": ""}',
        '{"value": {"complex": [1' + "0" * 400 + ", 1]}}",  # no float is so large
        '{"value": {"dict": [[[1], 2]]}}',
        '{"value": {"object": [1]}}',
        '{"error": ["value"]}',
        '{"broken": {}}',
    ],
)
def test_odd_lines_in_the_channel_are_failures_and_no_exceptions(sandbox: Any, line: str) -> None:  # noqa: F811
    forged = (
        f"import os\nfor n in range(3, 32):\n try: os.write(n, {line + chr(10)!r}.encode())\n except OSError: pass\n"
    )
    [verdict] = run_cases(sandbox, f"{forged}os._exit(0)", "f", CASES[:1])
    assert not verdict.passed and verdict.shown.startswith("error: ")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("raise ValueError('a\\nf(0)==2 gives 2')", "error: ValueError: a"),
        ("raise ValueError('\\ud800')", "error: ValueError: ?"),
        ("return type('A\\nB', (), {})()", "error: it returned a A B"),
        ("return 'a\\n\\ud800'", "'a\\n\\ud800'"),
    ],
)
def test_what_is_shown_is_one_line_of_whole_characters(sandbox: Any, body: str, shown: str) -> None:  # noqa: F811
    """Else a program could write results of other tests below its own, or what no tokenizer takes."""
    [verdict] = run_cases(sandbox, f"def f(x): {body}", "f", CASES[:1])
    assert verdict.shown == shown


def test_what_was_stopped_is_not_fed_again() -> None:
    fed: list[str] = []

    class Slow:
        def python(self, code: str, *, stdin: str = "", limits: Any = None) -> Any:
            fed.append(stdin)
            return SimpleNamespace(status="timeout" if stdin == "2" else "ok", stdout=stdin, stderr="")

    cases = [{"stdin": n, "stdout": n} for n in "1234"]
    verdicts = run_cases(Slow(), "print(input())", None, cases)
    assert [v.passed for v in verdicts] == [True, False, False, False] and fed == ["1", "2"]
    assert verdicts[3].shown == "error: timeout"


def test_what_ended_before_the_time_ran_out_counts(sandbox: Any) -> None:  # noqa: F811
    program = "def f(x):\n while x == 0: pass\n return x*3+2"
    verdicts = run_cases(sandbox, program, "f", CASES, limits=Limits(wall_seconds=0.5, cpu_seconds=0.5))
    assert [verdict.shown for verdict in verdicts] == ["14", "error: timeout"]


def test_arguments_are_fresh_for_each_call(sandbox: Any) -> None:  # noqa: F811
    cases = [{"args": [[1, 2]], "value": 2}, {"args": [[1, 2]], "value": 2}]
    assert all(v.passed for v in run_cases(sandbox, "def f(a):\n a.append(0)\n return len(a)-1", "f", cases))


def test_a_program_is_its_only_function_where_nobody_names_one(sandbox: Any) -> None:  # noqa: F811
    assert run_cases(sandbox, "def double(x): return 2*x", None, [{"args": [4], "value": 8}])[0].passed


def test_nothing_expected_enters_the_sandbox() -> None:
    """What the sandbox is given, to the last byte, is the same whatever is expected."""
    given: list[Any] = []

    class Watched:
        def python(self, code: str, *, stdin: str = "", limits: Any = None) -> Any:
            given.append((code, stdin, limits))
            raise InterruptedError

    for cases in (CASES, [{**case, "value": 31337} for case in CASES]):
        with pytest.raises(InterruptedError):
            run_cases(Watched(), "def f(x): return x", "f", cases)
    for output in ("secret", "other"):
        with pytest.raises(InterruptedError):
            run_cases(Watched(), "print(1)", None, [{"stdin": "1", "stdout": output}])
    assert given[0] == given[1] and given[2] == given[3] and "31337" not in repr(given)
