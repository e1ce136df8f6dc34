"""The calculator tool: right answers, and errors as text."""

from __future__ import annotations

import pytest

from troupe.protocols import Tool
from troupe.tools import TOOLS
from troupe.tools.calculator import Calculator


def test_it_is_a_tool() -> None:
    tool: Tool = TOOLS["calculator"]()
    assert tool.name == "calculator" and tool.description
    assert tool.parameters["required"] == ["expression"]
    assert set(tool.parameters["properties"]) == {"expression"}


@pytest.mark.parametrize(
    ("expression", "shown"), [("(20-5)/3", "5"), ("7/3", "7/3"), ("15%*80", "12"), ("sqrt(2)", "1.41421")]
)
def test_it_computes(expression: str, shown: str) -> None:
    assert Calculator()(expression) == shown
    assert Calculator()(expression=expression) == shown


@pytest.mark.parametrize(
    "expression", ["1/0", "", "2+", "import os", "9" * 5000, "(" * 5000, "2^2^2^2^2^2", None, 7, [1], "\x00"]
)
def test_it_never_raises(expression: object) -> None:
    answer = Calculator()(expression)
    assert answer.startswith("error: ") and len(answer) < 100 and "\n" not in answer


def test_an_argument_it_does_not_know_is_an_error() -> None:
    assert Calculator()(formula="1+1") == "error: unknown argument 'formula'; the only argument is 'expression'"
    assert Calculator()().startswith("error: 'expression'")
