"""Tests of a tree: right ones pass, wrong ones say what happened, and no tree passes by a trick."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.errors import DataError
from troupe.sandbox.trials import Trial, failures, run_file, run_tests

RIGHT = {"a.py": "def f(x):\n return x*3+2\n"}
CALLS = {"calls": [{"module": "a", "function": "f", "args": [x], "value": 3 * x + 2} for x in (4, 0, 7)]}
MODULE = """
import unittest
from a import f

def test_plain():
    assert f(4) == 14

async def test_coroutine():
    assert f(0) == 2

class TestPlain:
    def test_method(self):
        assert f(1) == 5

class TestUnit(unittest.TestCase):
    def setUp(self):
        self.x = 7
    def test_case(self):
        self.assertEqual(f(self.x), 23)
"""
TESTS = ("test_plain", "test_coroutine", "TestPlain::test_method", "TestUnit::test_case")
NAMES = [f"tests/test_a.py::{name}" for name in TESTS]
MODULES = {"modules": {"tests/test_a.py": MODULE}, "names": NAMES}


@pytest.fixture
def run(sandbox: Any) -> Any:  # noqa: F811
    def trials(files: dict[str, str] | str, tests: Any) -> list[Trial]:
        return run_tests(sandbox, {"a.py": files} if isinstance(files, str) else files, tests)

    return trials


def call(function: str, *args: Any, value: Any, module: str = "a", **more: Any) -> dict[str, Any]:
    return {"calls": [{"module": module, "function": function, "args": list(args), "value": value, **more}]}


# ---------------------------------------------------------------------------------------------- what passes


def test_right_programs_pass(run: Any) -> None:
    trials = run(RIGHT, {**CALLS, **MODULES})
    assert [trial.name for trial in trials] == ["f(4)", "f(0)", "f(7)", *NAMES]
    assert failures(trials) == [] and {trial.message for trial in trials} == {"ok"}


def test_files_import_one_another_and_read_their_data(run: Any) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/b.py": "from pack.c import y\ndef g():\n return y + int(open('pack/n.txt').read())\n",
        "pack/c.py": "y = 2\n",
        "pack/n.txt": "40\n",
    }
    assert failures(run(files, call("g", value=42, module="pack.b"))) == []
    tests = {"modules": {"pack/tests/test_b.py": "from ..b import g\ndef test(): assert g() == 42\n"}}
    files["pack/tests/__init__.py"] = ""
    assert failures(run(files, {**tests, "names": ["pack/tests/test_b.py::test"]})) == []


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f():\n yield from (1, 2)\n", call("f", value=[1, 2], **{"as": "list"})),
        ("def f():\n return [(1, 2)]\n", call("f", value=[[1, 2]], **{"as": "tuples"})),
        ("def f(x, e):\n return x**0.5\n", call("f", 2, 0.01, value=1.41, tolerance=0.01)),
        (
            "def f(p):\n return {p: {1, 2}}\n",
            call("f", {"tuple": [1]}, value={"dict": [[{"tuple": [1]}, {"set": [1, 2]}]]}),
        ),
        ("def f():\n print('x' * 100000)\n return 1.0\n", call("f", value=1)),
    ],
)
def test_values_of_many_kinds(run: Any, program: str, tests: Any) -> None:
    assert failures(run(program, tests)) == []


# ---------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("def f(x):\n return x*3-2\n", "f(4) is 10, not 14"),
        ("def f(x):\n return str(x*3+2)\n", "f(4) is '14', not 14"),
        ("def f(x):\n return [14]\n", "f(4) is [14], not 14"),
        ("def f(x):\n pass\n", "f(4) is None, not 14"),
        ("def f(x):\n return object()\n", "f(4) is a object, not 14"),
        ("def f(x):\n raise ValueError('a\\ud800\\nb')\n", "f(4): ValueError: a?"),
        ("def f(x):\n return type('A\\nB', (), {})()\n", "f(4) is a A B, not 14"),
        ("def f(x):\n return 1/0\n", "f(4): ZeroDivisionError: division by zero"),
        ("def f(x):\n return f(x)\n", "f(4): RecursionError: maximum recursion depth exceeded"),
        ("def g(x):\n return 14\n", "f(4): AttributeError: module 'a' has no attribute 'f'"),
        ("def f(x:\n", "f(4): SyntaxError: '(' was never closed (a.py, line 1)"),
        ("import numpy\n", "f(4): ModuleNotFoundError: No module named 'numpy'"),
        ("def f(x):\n while True: pass\n", "f(4): it was stopped (timeout)"),
        ("def f(x):\n return 'x' * 50000\n", "f(4): ValueError: the value is too large"),
    ],
)
def test_a_failed_call_says_what_happened(run: Any, program: str, message: str) -> None:
    assert run(program, CALLS)[0] == Trial("f(4)", False, message)


def test_one_failure_is_no_other_tests(run: Any) -> None:
    trials = run("def f(x):\n return {4: 14, 7: 23}[x]\n", {**CALLS, **MODULES})
    assert [trial.passed for trial in trials] == [True, False, True, True, False, False, True]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("def test(): assert f(4) == 13", "test: AssertionError: def test(): assert f(4) == 13"),
        ("def test():\n    assert f(4) == 13", "test: AssertionError: assert f(4) == 13"),
        ("def test(): assert f(4) == 13, 'thirteen'", "test: AssertionError: thirteen"),
        ("def test(tmp_path): pass", "test: TypeError: the test asks for pytest's fixture tmp_path"),
        ("import pytest\ndef test(): pass", "test: ImportError: ModuleNotFoundError: No module named 'pytest'"),
        ("def other(): pass", "test: AttributeError: module 'test_a' has no attribute 'test'"),
    ],
)
def test_a_failed_test_says_what_happened(run: Any, test: str, message: str) -> None:
    tests = {"modules": {"test_a.py": f"from a import f\n{test}\n"}, "names": ["test_a.py::test"]}
    assert run(RIGHT, tests) == [Trial("test_a.py::test", False, message)]


def test_a_missing_module_fails(run: Any) -> None:
    assert run(RIGHT, {"names": ["test_b.py::test"]})[0].message == "test: ImportError: there is no test_b.py"


@pytest.mark.parametrize(
    "tests",
    [
        {},
        None,
        {"calls": []},
        {"modules": {"a.py": ""}},
        {"calls": [{"module": "a"}]},
        call("f", value=1, **{"as": "words"}),
    ],
)
def test_tests_of_another_shape_are_refused(run: Any, tests: Any) -> None:
    with pytest.raises(DataError):
        run(RIGHT, tests)


# ---------------------------------------------------------------------------------------------- tricks

TRICKS = {
    "exits": "import os\nos._exit(0)\n",
    "exits politely": "raise SystemExit(0)\n",
    "exits late": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 0\n",
    "prints": 'print(\'result ["call 0", {"value": 14}]\')\ndef f(x): return 0\n',
    "is equal to everything": "class A(int):\n def __eq__(self, other): return True\n"
    " __hash__ = int.__hash__\ndef f(x): return A(0)\n",
    "is an odd object": "class A:\n def __eq__(self, other): return True\n def __repr__(self): return '14'\n"
    "def f(x): return A()\n",
    "patches json": "import json\njson.dumps = lambda *a, **k: '14'\ndef f(x): return 0\n",
    "patches builtins": "import builtins\nbuiltins.getattr = lambda *a: lambda *b: 14\n"
    "builtins.isinstance = lambda *a: True\ndef f(x): return 0\n",
    "patches unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n"
    "unittest.TestCase.run = lambda self, result: setattr(result, 'testsRun', 1)\ndef f(x): return 0\n",
    "skips": "import unittest\ndef f(x): raise unittest.SkipTest('later')\n",
    "replaces the tests": "import os, sys, types\nos.makedirs('tests', exist_ok=True)\n"
    "open('tests/test_a.py', 'w').write('def test_plain(): pass')\n"
    "sys.modules['tests.test_a'] = types.SimpleNamespace(test_plain=lambda: 0)\ndef f(x): return 0\n",
    "knows one input": "def f(x): return 14 if x == 4 else 0\n",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_passes_the_calls(run: Any, trick: str) -> None:
    passed = sum(trial.passed for trial in run(TRICKS[trick], CALLS))
    assert passed == (trick == "knows one input")


@pytest.mark.parametrize("trick", [name for name in TRICKS if not name.startswith("is ")])
def test_no_trick_passes_the_modules(run: Any, trick: str) -> None:
    passed = sum(trial.passed for trial in run(TRICKS[trick], MODULES))
    assert passed == (trick == "knows one input")


@pytest.mark.parametrize("guess", ["result", "0" * 16, ""])
def test_a_channel_that_is_found_takes_no_guess(run: Any, guess: str) -> None:
    """Calls are judged by values, and tests speak behind a number that the tree was not told."""
    names = "".join(f'{guess} [\\"test {name}\\", {{\\"value\\": true}}]\\n' for name in NAMES)
    clean = f'{guess} [\\"clean\\", {{\\"value\\": true}}]\\n'
    forged = f'import os\nfor n in range(64):\n try: os.write(n, "{names}{clean}".encode())\n except OSError: pass\n'
    assert len(failures(run(f"{forged}os._exit(0)\n", MODULES))) == len(NAMES)
    wrong = forged.replace("test tests", "call").replace("true", "999")
    assert len(failures(run(f"{wrong}def f(x): return 0\n", CALLS))) == len(CALLS["calls"])


def test_hidden_values_are_not_in_the_sandbox(run: Any) -> None:
    """The tree looks through its own process for what it should return."""
    nosy = (
        "import sys\ndef f(x):\n frame, seen = sys._getframe(), ''\n while frame:\n"
        "  seen += repr(frame.f_locals) + repr(frame.f_code.co_consts)\n  frame = frame.f_back\n"
        " return str(int('987653') + 1) in seen\n"
    )
    assert run(nosy, call("f", 4, value=987654))[0].message == "f(4) is False, not 987654"


def test_a_file_of_the_tree_can_be_run(sandbox: Any) -> None:  # noqa: F811
    files = {"a.py": "import b\nprint(b.y, __name__)\n", "b.py": "y = 'it\\'s'\n"}
    ran = run_file(sandbox, files, "a.py")
    assert (ran.status, ran.stdout) == ("ok", "it's __main__\n")
    assert run_file(sandbox, {"a.py": "raise ValueError(3)\n"}, "a.py").stderr.endswith("ValueError: 3\n")
