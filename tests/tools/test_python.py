"""The tool that runs Python."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.protocols import Tool
from troupe.sandbox import Limits, Ran, Sandbox
from troupe.tools import TOOLS
from troupe.tools.python import LONGEST, PythonTool


def ask(tool: Any, **arguments: Any) -> str:
    return str(asyncio.run(tool(**arguments)))


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("print(2**10)", "1024"),
        ("print(1)\nprint(2)\n", "1\n2"),
        ("1 + 1", "error: the program printed nothing; print its result"),
        ("print(1/0)", "error: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "error: the program was stopped (error)"),
        ("while True: pass", "error: the program was stopped (timeout)"),
        ("print(open('/etc/passwd').read())", "error: FileNotFoundError: [Errno 2] No such file or directory"),
    ],
)
def test_it_answers_what_was_printed(sandbox: Sandbox, code: str, answer: str) -> None:  # noqa: F811
    assert ask(TOOLS["python"](lambda: sandbox), code=code).startswith(answer)


def test_long_answers_show_their_end(sandbox: Sandbox) -> None:  # noqa: F811
    shown = ask(PythonTool(lambda: sandbox), code="print(*range(1000))")
    assert len(shown) == LONGEST and shown.endswith("998 999")


def test_calls_that_do_not_fit_are_answered() -> None:
    tool: Tool = PythonTool(lambda: pytest.fail("nothing was to be run"))
    assert tool.name == "python" and tool.parameters["required"] == ["code"]
    assert ask(tool) == ask(tool, code=7) == "error: 'code' must be text, such as \"print(2**10)\""
    assert ask(tool, code="print(1)", timeout=9) == "error: unknown argument 'timeout'; the only argument is 'code'"


def test_programs_run_beside_one_another(sandbox: Sandbox) -> None:  # noqa: F811
    made: list[int] = []

    class Slow:
        def python(self, code: str) -> Ran:
            made.append(1)
            while len(made) < 2:  # until the other one has begun
                pass
            return sandbox.python(code, limits=Limits(wall_seconds=2.0))

    tool = PythonTool(Slow)

    async def both() -> list[str]:
        return list(await asyncio.gather(tool(code="print(1)"), tool(code="print(2)")))

    assert asyncio.run(both()) == ["1", "2"]
