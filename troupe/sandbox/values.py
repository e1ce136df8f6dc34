"""Plain Python values as JSON, so that they can leave a sandbox and be compared outside of it.

    None, True, 3, 0.5, "a", [1, 2]   as JSON has them
    (1, 2)                            {"tuple": [1, 2]}
    {1, 2}                            {"set": [1, 2]}, also for a frozenset
    {"a": 1}                          {"dict": [["a", 1]]}
    b"a", 1j, inf                     {"bytes": "a"}, {"complex": [0.0, 1.0]}, {"float": "inf"}
    any other object                  {"object": "generator"}, equal to nothing

An object is taken for what it holds, never asked: an `__eq__` or `__repr__` of the program's own says nothing here.
`dumps` imports nothing and stands alone, because its source is sent into the sandbox (see `cases`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["decode", "dumps", "encode", "literal", "same"]


def dumps(value: Any) -> str:
    """JSON text of a value, tagged as above."""

    def quoted(text: str) -> str:
        out = []
        for c in str.__iter__(text):
            n = ord(c)
            if n > 0xFFFF:  # JSON writes it as two
                n -= 0x10000
                out.append(f"\\u{0xD800 + (n >> 10):04x}\\u{0xDC00 + (n & 0x3FF):04x}")
            else:
                out.append(c if 31 < n < 127 and c not in '"\\' else f"\\u{n:04x}")
        return '"' + "".join(out) + '"'

    def several(values: Any) -> str:
        return "[" + ", ".join([dumps(part) for part in values]) + "]"

    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        return '{"float": "' + text + '"}' if text in ("inf", "-inf", "nan") else text
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return several(list.__iter__(value))
    if isinstance(value, tuple):
        return '{"tuple": ' + several(tuple.__iter__(value)) + "}"
    if isinstance(value, dict):
        return '{"dict": ' + several([list(pair) for pair in dict.items(value)]) + "}"
    if isinstance(value, (set, frozenset)):
        base: Any = set if isinstance(value, set) else frozenset
        return '{"set": [' + ", ".join(sorted([dumps(part) for part in base.__iter__(value)])) + "]}"
    if isinstance(value, (bytes, bytearray)):
        return '{"bytes": ' + quoted(bytes(value).decode("latin-1")) + "}"
    if isinstance(value, complex):
        return '{"complex": ' + several([complex(value).real, complex(value).imag]) + "}"
    return '{"object": ' + quoted(type(value).__name__) + "}"


def encode(value: Any) -> Any:
    """What `dumps` writes, as JSON data."""
    return json.loads(dumps(value))


def decode(data: Any) -> Any:
    """The value that was encoded. Raises ValueError for what `encode` would not have written, and for objects."""
    if isinstance(data, list):
        return [decode(part) for part in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError(f"a tagged value has one key, found {len(data)}")
    [(tag, content)] = data.items()
    if not isinstance(content, _CONTENTS.get(tag, ())):
        raise ValueError(f"{tag!r} holds no value")
    try:
        return _TAGS[tag](content)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{tag!r} holds no value") from error


_TAGS: dict[str, Any] = {
    "tuple": lambda content: tuple(decode(part) for part in content),
    "set": lambda content: {decode(part) for part in content},
    "dict": lambda content: {decode(key): decode(value) for key, value in content},
    "bytes": lambda content: content.encode("latin-1"),
    "complex": lambda content: complex(*(float(decode(part)) for part in content)),
    "float": float,
}
_CONTENTS: dict[str, Any] = {"tuple": list, "set": list, "dict": list, "bytes": str, "complex": list, "float": str}


def literal(data: Any) -> str:
    """Python source of an encoded value, without spaces: `[1,2]`, `{"a":(1,)}`."""
    return _source(decode(data))


def _source(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, complex):
        return f"complex({_source(value.real)},{_source(value.imag)})"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_source(key)}:{_source(part)}" for key, part in value.items()) + "}"
    if isinstance(value, set):
        return "{" + ",".join(sorted(map(_source, value))) + "}" if value else "set()"
    if isinstance(value, tuple):
        return "(" + ",".join(map(_source, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ",".join(map(_source, value)) + "]"
    return repr(value)


def same(found: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether two encoded values are equal as Python has it (`1 == 1.0`, `[1] != (1,)`), except that nan equals nan and
    that floats may differ by `tolerance`, absolutely. What cannot be decoded equals nothing."""
    if type(found) is type(expected) and isinstance(found, int | str):  # most values are
        return bool(found == expected or (tolerance > 0 and _equal(found, expected, tolerance)))
    try:
        return _equal(decode(found), decode(expected), tolerance)
    except (ValueError, RecursionError, OverflowError):
        return False


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return bool(a == b or (a != a and b != b) or (tolerance > 0 and abs(a - b) <= tolerance))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and _all_equal(a, b, tolerance)
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            return False
        return all(_equal(value, b[key], tolerance) for key, value in a.items())
    return bool(a == b)


def _all_equal(a: Sequence[Any], b: Sequence[Any], tolerance: float) -> bool:
    return len(a) == len(b) and all(_equal(x, y, tolerance) for x, y in zip(a, b, strict=True))
