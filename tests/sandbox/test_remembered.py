"""What was run once is not run again, unless it was stopped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from troupe.sandbox.remembered import LONGEST, Remembered


class Counting:
    """Says what it is told to, and counts."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.closed = False

    def python(self, code: str, *, stdin: str, files: Any, keep: Any, limits: Any) -> Any:
        self.runs.append(code)
        status = code if code in ("ok", "error", "timeout", "memory") else "ok"
        said = {name: "x" * LONGEST if code == name else "" for name in ("stdout", "stderr")}
        kept = {"a": b"x" * LONGEST if code == "kept" else b"", "b": b"x" if code != "ok" else b""}
        return SimpleNamespace(status=status, number=len(self.runs), files=kept, **said)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def counting() -> Any:
    return Counting()


def test_the_same_program_with_the_same_input_runs_once(counting: Any) -> None:
    remembered = Remembered(counting)
    first = remembered.python("a", stdin="1")
    assert remembered.python("a", stdin="1") is first and counting.runs == ["a"]


@pytest.mark.parametrize(
    "other",
    [{"stdin": "2"}, {"files": {"a": "1"}}, {"keep": ("b",)}, {"limits": "more"}, {"stdin": "1", "files": {"a": b"1"}}],
)
def test_any_difference_is_another_run(counting: Any, other: dict[str, Any]) -> None:
    remembered = Remembered(counting)
    remembered.python("a", stdin="1")
    remembered.python("a", **other)
    assert counting.runs == ["a", "a"]


@pytest.mark.parametrize(("status", "runs"), [("ok", 1), ("error", 1), ("timeout", 2), ("memory", 2)])
def test_what_was_stopped_may_try_again(counting: Any, status: str, runs: int) -> None:
    remembered = Remembered(counting)
    remembered.python(status)
    remembered.python(status)
    assert len(counting.runs) == runs


@pytest.mark.parametrize("code", ["stdout", "stderr", "kept"])
def test_what_is_long_is_not_held_in_memory(counting: Any, code: str) -> None:
    remembered = Remembered(counting)
    remembered.python(code)
    remembered.python(code)
    assert len(counting.runs) == 2


def test_the_latest_are_kept(counting: Any) -> None:
    remembered = Remembered(counting, size=2)
    for code in ("a", "b", "a", "c", "a", "b"):  # b is forgotten for c, as a was asked for since
        remembered.python(code)
    assert counting.runs == ["a", "b", "c", "b"]


def test_closing_closes_the_sandbox(counting: Any) -> None:
    Remembered(counting).close()
    assert counting.closed
