"""Untrusted programs at work: a function called with many arguments, or a program fed with many inputs.

    cases = [{"args": [4], "value": 14}, {"args": [0], "value": 2}]
    run_cases(sandbox, "def f(x):\n return x*3+2", "f", cases)  # [Verdict(passed=True, value=14), ...]

Arguments go in and values come out; what is expected never enters the sandbox. So there is nothing to be found there,
and whatever a program forges (its values, the channel, the names of builtins, equality) is compared, out here, with
something that it cannot know. A value is taken only where the channel holds one answer for each call, in order.

A case of a function is `{"args", "value"}` and perhaps `"tolerance"`, values encoded as in `values`; a case of a
program is `{"stdin", "stdout"}`, compared word by word and line by line.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from troupe.sandbox.values import decode, dumps, encode, literal, same

__all__ = [
    "Case",
    "Runs",
    "Verdict",
    "as_case",
    "call_text",
    "case_text",
    "entry_of",
    "one_line",
    "program_in",
    "run_cases",
    "telling",
]

Case = Mapping[str, Any]

MAX_PROGRAM = 50_000
"""Longest program that is run, in characters."""

MAX_SHOWN = 200
"""Longest value or error that is shown, in characters."""

MAX_VALUE = 20_000
"""Longest JSON text of a returned value, in characters; a longer one counts as an error."""


class Runs(Protocol):
    """A sandbox, or what stands before one (see `remembered`)."""

    def python(self, code: str, *, stdin: str = ..., limits: Any = ...) -> Any: ...


def one_line(text: str) -> str:
    """What a program says, as it may be shown: it writes no second line, and no half of a character, which no
    tokenizer takes."""
    return " ".join(text.encode(errors="replace").decode().split("\n"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a program did with one case."""

    passed: bool
    error: str | None = None  # an exception and its message, or what ended the run
    value: Any = None  # what a function returned, encoded
    output: str | None = None  # what a program printed

    @property
    def shown(self) -> str:
        """What it returned or printed, or `error: ...`, in at most MAX_SHOWN characters."""
        if self.error is not None:
            return f"error: {self.error}"[:MAX_SHOWN]
        if self.output is not None:
            return self.output.strip()[:MAX_SHOWN]
        try:
            return literal(self.value)[:MAX_SHOWN]
        except (ValueError, RecursionError):
            kind = self.value.get("object", "?") if isinstance(self.value, dict) else "?"
            return one_line(f"error: it returned a {kind}")[:MAX_SHOWN]


# ---------------------------------------------------------------------------------------------- programs in texts

_MARKED = re.compile(r"<ans>(.*?)</ans>", re.DOTALL)
_FENCED = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_DEFINED = re.compile(r"^def[ \t]+([A-Za-z_]\w*)[ \t]*\(", re.MULTILINE)


def program_in(text: str, *, marked: bool = True) -> str | None:
    """The program in a text: what its last `<ans>...</ans>` holds, else its last fenced block; None for neither.

    With `marked=False` a text without marks is itself the program.
    """
    found = _MARKED.findall(text)
    if found:
        text, marked = found[-1], False
    fenced = _FENCED.findall(text)
    if fenced:
        block = fenced[-1].strip("\n")
        return (textwrap.dedent(block) if block[:1].isspace() else block).strip() or None  # a block of a list's item
    return None if marked else text.strip() or None


def entry_of(text: str) -> str | None:
    """The function that a program defines last."""
    found = _DEFINED.findall(text)
    return found[-1] if found else None


# ---------------------------------------------------------------------------------------------- cases in texts


def case_text(entry: str, case: Case) -> str:
    """`f(4)==14`, or a program's input and output."""
    if "stdin" in case:
        return f"input:\n{case['stdin'].strip()}\noutput:\n{case['stdout'].strip()}"
    return f"{call_text(entry, case)}=={literal(case['value'])}"


def call_text(entry: str, case: Case) -> str:
    """`f(4)`."""
    return f"{entry}({','.join(literal(part) for part in case['args'])})"


def as_case(assertion: str, called: str | None = None) -> tuple[str, dict[str, Any]] | None:
    """(function, case) of `f(4) == 14`, with or without `assert`; None where it is no such thing.

    Arguments and value must be literals. Understood are `==`, `is`, a bare or negated call (of a function that is
    expected to return True or False) and `abs(f(4) - 14) < 1e-6`. `called` takes only calls of that function.
    """
    try:
        [statement] = ast.parse(assertion.strip()).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    test = getattr(statement, "test", None) if isinstance(statement, ast.Assert) else getattr(statement, "value", None)
    try:
        call, value, more = _asserted(test)
        if call.keywords or (called is not None and call.func.id != called):
            return None
        return call.func.id, {"args": [_literal(part) for part in call.args], "value": value, **more}
    except (AttributeError, TypeError, ValueError):
        return None


def telling(hidden: Sequence[Case], shown: Sequence[Case]) -> bool:
    """Whether hidden cases tell a program from a constant and from a table of what is shown."""
    wanted = [case.get("value", case.get("stdout")) for case in hidden]
    return any(value != wanted[0] for value in wanted) and any(case not in shown for case in hidden)


def _asserted(test: Any) -> tuple[Any, Any, dict[str, float]]:
    """(call, encoded value, tolerance where there is one)."""
    if isinstance(test, ast.Call):
        return test, True, {}
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and isinstance(test.operand, ast.Call):
        return test.operand, False, {}
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        raise ValueError("not a comparison")
    left, [operator], [right] = test.left, test.ops, test.comparators
    if isinstance(operator, ast.Eq | ast.Is):
        call, value = (left, right) if isinstance(left, ast.Call) else (right, left)
        return call, _literal(value), {}
    distance = left.args[0] if isinstance(left, ast.Call) and getattr(left.func, "id", "") == "abs" else None
    if isinstance(operator, ast.Lt | ast.LtE) and isinstance(distance, ast.BinOp) and isinstance(distance.op, ast.Sub):
        return distance.left, _literal(distance.right), {"tolerance": float(ast.literal_eval(right))}
    raise ValueError("not a comparison of a call with a literal")


def _literal(node: Any) -> Any:
    data = encode(ast.literal_eval(node))
    decode(data)
    return data


# ---------------------------------------------------------------------------------------------- running


def run_cases(
    sandbox: Runs, program: str | None, entry: str | None, cases: Sequence[Case], *, setup: str = "", limits: Any = None
) -> list[Verdict]:
    """One verdict per case. `setup` is code that stands before the program; a missing program passes nothing.

    Calls of a function share one process, and each gets fresh arguments; a program is started anew for each input. What
    a limit stopped is not run again: the cases after it fail as it did.
    """
    if program is None or len(program) > MAX_PROGRAM:
        error = "no program" if program is None else "the program is too long"
        return [Verdict(False, error) for _ in cases]
    if any("stdin" in case for case in cases):
        return _fed(sandbox, f"{setup}\n{program}", cases, limits)
    return _called(sandbox, f"{setup}\n{program}", entry or entry_of(program) or "f", cases, limits)


def _fed(sandbox: Runs, program: str, cases: Sequence[Case], limits: Any) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for case in cases:
        ran = sandbox.python(program, stdin=case["stdin"], limits=limits)
        if ran.status not in ("ok", "error"):  # a hundred inputs would take a hundred times the limit
            return verdicts + [Verdict(False, str(ran.status))] * (len(cases) - len(verdicts))
        if ran.status == "error":
            verdicts.append(Verdict(False, _last_line(ran.stderr)))
        else:
            verdicts.append(Verdict(_words(ran.stdout) == _words(case["stdout"]), output=ran.stdout))
    return verdicts


def _words(text: str) -> list[list[str]]:
    """Lines as words; blank lines at the end do not count."""
    return [line.split() for line in text.rstrip().splitlines()]


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it ended with an error"


def _called(sandbox: Runs, program: str, entry: str, cases: Sequence[Case], limits: Any) -> list[Verdict]:
    calls = ", ".join(f"lambda: [{', '.join(literal(part) for part in case['args'])}]" for case in cases)
    ran = sandbox.python(f"{_harness()}\nmain({program!r}, {entry!r}, [{calls}])\n", limits=limits)
    answers = _answers(ran.stdout, len(cases))
    ended = "it exited" if ran.status in ("ok", "error") else str(ran.status)
    answers += [{"error": ended}] * (len(cases) - len(answers))
    return [_verdict(answer, case) for answer, case in zip(answers, cases, strict=True)]


def _answers(text: str, calls: int) -> list[dict[str, Any]]:
    """What the harness wrote: one line for each call that ended, or one for a program that could not be loaded."""
    forged = [{"error": "it wrote into the channel"}] * calls
    try:
        answers = [json.loads(line) for line in text.split("\n")[:-1]]
    except (ValueError, RecursionError):
        return forged
    if not all(isinstance(answer, dict) and len(answer) == 1 for answer in answers):
        return forged
    kinds = [kind for answer in answers for kind in answer]
    if kinds == ["broken"]:
        return [{"error": answers[0]["broken"]}] * calls
    return answers if len(answers) <= calls and {"value", "error"}.issuperset(kinds) else forged


def _verdict(answer: Mapping[str, Any], case: Case) -> Verdict:
    if "error" in answer:
        return Verdict(False, one_line(str(answer["error"])))
    value = answer["value"]
    return Verdict(same(value, case["value"], float(case.get("tolerance", 0.0))), value=value)


@cache
def _harness() -> str:
    """The source of the program that loads the candidate, calls it and writes down what came back."""
    return f"Any, MAX_VALUE = object, {MAX_VALUE}\n\n{inspect.getsource(dumps)}\n{_MAIN}"


_MAIN = """
def main(program, entry, calls):
    import os
    channel = os.dup(1)  # what the candidate prints goes nowhere; what it writes here makes the answers unreadable
    nowhere = os.open("/dev/null", os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)

    def answer(kind, text):
        line = ('{"' + kind + '": ' + text + "}\\n").encode()
        while line:
            line = line[os.write(channel, line):]

    def told(error):
        try:
            return dumps((type(error).__name__ + ": " + str(error)).split("\\n")[0][:100].rstrip(": "))
        except BaseException:
            return '"an exception"'

    scope = {"__name__": "program", "__builtins__": __builtins__}
    try:
        exec(compile(program, "program.py", "exec"), scope)
        function = scope.get(entry)
        if not callable(function):
            raise NameError("there is no function " + entry)
    except BaseException as error:
        answer("broken", told(error))
        return
    for arguments in calls:
        try:
            text = dumps(function(*arguments()))
            if len(text) > MAX_VALUE:
                raise ValueError("the value is too large")
        except BaseException as error:
            answer("error", told(error))
        else:
            answer("value", text)
    os.close(channel)
"""
