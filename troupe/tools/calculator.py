"""An exact calculator for agents. It shares its arithmetic with the answer checks, so the two can never disagree."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from troupe.maths.expressions import ExpressionError, evaluate, render

__all__ = ["Calculator"]


class Calculator:
    """Evaluates `(20-5)/3` to `5`, `15% * 80` to `12`, `7/3` to `7/3`, `sqrt(2)` to `1.41421`.

    A call never raises: what cannot be computed is answered by one short line that begins with `error:`, which an agent
    can read and correct.
    """

    name: str = "calculator"
    description: str = (
        "Exact arithmetic with + - * / ^ brackets, decimals, percent, sqrt() and abs(); returns the number."
    )
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "what to compute, such as (20-5)/3"}},
        "required": ["expression"],
        "additionalProperties": False,
    }

    def __call__(self, expression: Any = None, **unknown: Any) -> str:
        """The value of `expression` as text, or `error: ...`."""
        if unknown:
            return f"error: unknown argument {min(unknown)[:40]!r}; the only argument is 'expression'"
        if not isinstance(expression, str):
            return "error: 'expression' must be text, such as \"(20-5)/3\""
        return _answer(expression)


@lru_cache(maxsize=1 << 16)
def _answer(expression: str) -> str:
    try:
        return render(evaluate(expression))
    except ExpressionError as error:
        return f"error: {error}"
