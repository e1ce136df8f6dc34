"""Tests of a tree of files: run in the sandbox, judged outside of it.

    tests = {"calls": [{"module": "a", "function": "f", "args": [4], "value": 14}]}
    run_tests(sandbox, {"a.py": "def f(x):\\n return x*3+2\\n"}, tests)   # [Trial("f(4)", True, "ok")]

Two kinds of tests, as JSON, so that a task can hold them:

calls
    A function of the tree, its arguments and what it should return, encoded as in `values`. Only the arguments enter
    the sandbox; what comes back is data and is compared here. Code that prints, exits, forges results or flouts
    equality can at best *say* the right value, which is to know it. A `tolerance` lets floats differ, `"as": "list"`
    takes an iterator for the list of what it yields, and `"as": "tuples"` does not tell lists from tuples.
modules
    Test modules (`{"modules": {path: source}, "names": ["tests/test_a.py::TestF::test_zero", ...]}`) of functions or
    classes, `unittest` or plain. Their assertions must run beside the code that they judge. They are read from memory,
    after the tree, so that no file of the tree replaces them; results carry a number drawn outside, so that an early
    exit or a print passes nothing; and where builtins or unittest were changed meanwhile, everything fails. Code
    that returns an object whose `__eq__` says yes to everything, or goes looking through its own process for that
    number, could still lie: write calls where that matters.
"""

from __future__ import annotations

import inspect
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from troupe.errors import DataError
from troupe.sandbox.cases import MAX_SHOWN, MAX_VALUE, Runs, one_line
from troupe.sandbox.patches import Tree
from troupe.sandbox.program import Limits
from troupe.sandbox.values import dumps, literal, same

__all__ = ["Trial", "failures", "run_file", "run_tests"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One test: its name, whether it passed, and a line that says what happened."""

    name: str
    passed: bool
    message: str


def run_tests(sandbox: Runs, files: Tree, tests: Mapping[str, Any], limits: Any = None) -> list[Trial]:
    """A trial for each call, then for each named test. `tests["seconds"]` is CPU time for all of them, where the
    sandbox's own limit is too little (or too much) of it. Raises DataError for tests of another shape."""
    calls, modules, names = _read(tests)
    request = {
        # Calls are judged by their values, and nobody need guess a mark; without a random one they can be remembered.
        "mark": secrets.token_hex(8) if names else "result",
        "files": dict(files),
        "calls": [
            [call["module"], call["function"], f"[{', '.join(map(literal, call['args']))}]", call.get("as")]
            for call in calls
        ],
        "modules": modules,
        "names": names,
    }
    if limits is None and tests.get("seconds") is not None:
        limits = Limits(wall_seconds=4 * float(tests["seconds"]), cpu_seconds=float(tests["seconds"]))
    ran = sandbox.python(f"{_harness(bool(names))}\nmain({request!r})\n", limits=limits)
    found = _results(ran.stdout, str(request["mark"]))
    why = "it exited" if ran.status in ("ok", "error") else f"it was stopped ({ran.status})"
    trials = [_judged(call, found.get(f"call {i}", {"error": why})) for i, call in enumerate(calls)]
    if names and "clean" in found and found["clean"] != {"value": True}:
        why, found = "it changed builtins or unittest", {}
    elif "clean" not in found:  # it left before the end: what it said until then counts for nothing
        found = {name: result for name, result in found.items() if "error" in result}
    for name in names:
        result = found.get(f"test {name}", {"error": why})
        trials.append(Trial(name, "error" not in result, _said(name, result)))
    return trials


def failures(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if not trial.passed]


def run_file(sandbox: Runs, files: Tree, path: str, limits: Any = None) -> Any:
    """What the sandbox made of `python path`, begun at the root of the tree."""
    run = f"import runpy\nrunpy.run_path({path!r}, run_name='__main__')"
    return sandbox.python(f"{_PLACE}\nplace({dict(files)!r})\n{run}", limits=limits)


def _read(tests: Any) -> tuple[list[Mapping[str, Any]], dict[str, str], list[str]]:
    if not isinstance(tests, Mapping) or not (tests.get("calls") or tests.get("names")):
        raise DataError("there are no tests; write {'calls': [...]} or {'modules': {...}, 'names': [...]}")
    calls = list(tests.get("calls", ()))
    for i, call in enumerate(calls):
        missing = [key for key in ("module", "function", "args", "value") if key not in call]
        if missing:
            raise DataError(f"test call {i} has no {missing[0]!r}; it needs module, function, args and value")
        if call.get("as") not in (None, "list", "tuples"):
            raise DataError(f"test call {i} has 'as': {call['as']!r}; write 'list' or 'tuples', or leave it out")
    return calls, dict(tests.get("modules", {})), list(tests.get("names", ()))


def _judged(call: Mapping[str, Any], result: Mapping[str, Any]) -> Trial:
    name = f"{call['function']}({','.join(map(literal, call['args']))})"[:MAX_SHOWN]
    if "error" in result:
        return Trial(name, False, one_line(f"{name}: {result['error']}")[: 2 * MAX_SHOWN])
    value, expected = result.get("value"), call["value"]
    if _alike(value, expected, call):
        return Trial(name, True, "ok")
    return Trial(name, False, f"{name} is {_shown(value)}, not {_shown(expected)}")


def _alike(value: Any, expected: Any, call: Mapping[str, Any]) -> bool:
    if call.get("as") == "tuples":
        try:
            value, expected = _as_lists(value), _as_lists(expected)
        except RecursionError:  # nothing that is expected is so deep
            return False
    return same(value, expected, float(call.get("tolerance", 0.0)))


def _said(name: str, result: Mapping[str, Any]) -> str:
    return one_line(f"{name.rpartition('::')[2]}: {result['error']}")[:MAX_SHOWN] if "error" in result else "ok"


def _shown(value: Any) -> str:
    try:
        return literal(value)[:MAX_SHOWN]
    except (ValueError, RecursionError):
        return one_line(f"a {value.get('object', '?')}")[:MAX_SHOWN] if isinstance(value, dict) else "?"


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"tuple"}:
        value = value["tuple"]
    return [_as_lists(part) for part in value] if isinstance(value, list) else value


def _results(output: str, mark: str) -> dict[str, Mapping[str, Any]]:
    """What was said behind the mark; the first word on each test is the last."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in output.split("\n"):
        before, _, said = line.partition(" ")
        if before != mark:
            continue
        try:
            name, result = json.loads(said)
        except (ValueError, TypeError, RecursionError):  # cut off, or not the harness's
            continue
        if isinstance(name, str) and isinstance(result, dict):
            found.setdefault(name, result)
    return found


# ---------------------------------------------------------------------------------------------- inside


@cache
def _harness(with_modules: bool) -> str:
    """The source of the program that places the tree, calls its functions and runs the test modules."""
    parts = (f"Any, MAX_VALUE = object, {MAX_VALUE}", inspect.getsource(dumps), _PLACE, _MAIN, with_modules * _TESTS)
    return "\n\n".join(parts)


_PLACE = """
def place(files):
    import os, sys
    for path, text in files.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    sys.path.insert(0, os.getcwd())
"""

_MAIN = """
def main(request):
    import os, sys
    channel = os.dup(1)  # what the tree prints goes nowhere
    for descriptor, flag in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        nowhere = os.open("/dev/null", flag)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    place(request["files"])
    mark, write, leave = request["mark"], os.write, os._exit

    def say(name, kind, text):
        line = (mark + " [" + dumps(name) + ', {"' + kind + '": ' + text + "}]\\n").encode()
        while line:
            line = line[write(channel, line):]

    def told(error):
        try:
            return (type(error).__name__ + ": " + str(error)).split("\\n")[0][:100].rstrip(": ")
        except BaseException:
            return "an exception"

    def attempt(name, work):
        try:
            text = work()
            if len(text) > MAX_VALUE:
                raise ValueError("the value is too large")
        except BaseException as error:
            say(name, "error", dumps(told(error)))
        else:
            say(name, "value", text)

    def call(module, function, arguments, taken):
        __import__(module)
        value = getattr(sys.modules[module], function)(*eval(arguments, {}))
        if (taken == "list" and not isinstance(value, (list, tuple))) or (taken and hasattr(value, "__next__")):
            value = [part for part, _ in zip(value, range(MAX_VALUE))]
        return dumps(value)

    for i, asked in enumerate(request["calls"]):
        attempt("call " + str(i), lambda: call(*asked))
    if request["names"]:
        test_modules(request["modules"], request["names"], attempt, told)
        say("clean", "value", dumps(unchanged()))
    leave(0)  # threads and exit handlers of the tree have nothing more to say
"""

_TESTS = """
import asyncio, builtins, inspect, os, sys, types, unittest

def guard():
    guarded = [vars(part) for part in (builtins, unittest, unittest.TestCase, unittest.TestResult)]
    before = [dict(part) for part in guarded]
    return lambda: all(new.get(k) is value for new, old in zip(guarded, before) for k, value in old.items())

unchanged = guard()

def test_modules(sources, names, attempt, told):
    run = asyncio.run
    modules = {}
    for path, source in sources.items():
        module = types.ModuleType(path[:-3].replace("/", "."))
        module.__file__ = os.path.join(os.getcwd(), path)
        module.__package__ = module.__name__.rpartition(".")[0]
        sys.modules[module.__name__] = modules[path] = module
        try:
            exec(compile(source, path, "exec"), module.__dict__)
        except BaseException as error:
            modules[path] = told(error)

    def in_class(case):
        result = unittest.TestResult()
        case.run(result)
        bad = [*result.errors, *result.failures]
        if bad or result.skipped or result.testsRun != 1:
            raise AssertionError(bad[0][1].strip().split("\\n")[-1] if bad else "the test was skipped")

    def line_of(error, path):
        at, line = error.__traceback__, 0
        while at is not None:
            line = at.tb_lineno if at.tb_frame.f_code.co_filename == path else line
            at = at.tb_next
        return sources[path].split("\\n")[line - 1].strip()

    def test(identity):
        path, *parts = identity.split("::")
        found = modules.get(path, "there is no " + path)
        if isinstance(found, str):
            raise ImportError(found)
        for part in parts[:-1]:
            found = getattr(found, part)
        if isinstance(found, type) and issubclass(found, unittest.TestCase):
            in_class(found(parts[-1]))
            return "true"
        function = getattr(found() if isinstance(found, type) else found, parts[-1])
        for parameter in inspect.signature(function).parameters.values():
            if parameter.default is parameter.empty:
                raise TypeError("the test asks for pytest's fixture " + parameter.name)
        try:
            outcome = function()
            if inspect.iscoroutine(outcome):
                run(outcome)
        except AssertionError as error:
            raise error if str(error) else AssertionError(line_of(error, path))
        return "true"

    for identity in names:
        attempt("test " + identity, lambda: test(identity))
"""
