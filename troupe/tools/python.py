"""Python for agents, run in the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from troupe.sandbox import Ran

__all__ = ["PythonTool"]

LONGEST = 1000
"""Characters of an answer; of longer ones the end is shown."""


class RunsPython(Protocol):
    """`troupe.sandbox.Sandbox`, or what stands before one."""

    def python(self, code: str) -> Ran: ...


class PythonTool:
    """Runs a program and answers what it printed.

    `sandbox` is called at the first use, so that a team without programs needs no sandbox. A call is a coroutine: other
    agents speak while the program runs. It never raises for what a program does: a failure is answered by one line that
    begins with `error:`.
    """

    name: str = "python"
    description: str = "Runs a Python program without files or network; returns what it prints."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "the program, such as print(2**10)"}},
        "required": ["code"],
        "additionalProperties": False,
    }

    def __init__(self, sandbox: Callable[[], RunsPython]) -> None:
        self._sandbox = sandbox

    async def __call__(self, code: Any = None, **unknown: Any) -> str:
        """What the program printed, or `error: ...`."""
        if unknown:
            return f"error: unknown argument {min(unknown)[:40]!r}; the only argument is 'code'"
        if not isinstance(code, str):
            return "error: 'code' must be text, such as \"print(2**10)\""
        return _answer(await asyncio.to_thread(self._run, code))

    def _run(self, code: str) -> Ran:
        return self._sandbox().python(code)


def _answer(ran: Ran) -> str:
    if ran.status == "ok":
        printed = ran.stdout.strip()
        return printed[-LONGEST:] if printed else "error: the program printed nothing; print its result"
    said = ran.stderr.strip().splitlines()
    why = said[-1][:LONGEST] if ran.status == "error" and said else f"the program was stopped ({ran.status})"
    return f"error: {why}"
