"""Values as JSON and back: nothing is asked of an object but what it holds."""

from __future__ import annotations

import ast
import json
import math
from collections import Counter, OrderedDict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troupe.sandbox.values import decode, dumps, encode, literal, same

EXAMPLES: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "true"),
    (3, "3"),
    (-(10**30), "-1000000000000000000000000000000"),
    (0.5, "0.5"),
    ([1, [2]], "[1, [2]]"),
    ((1, 2), '{"tuple": [1, 2]}'),
    ({2, 1}, '{"set": [1, 2]}'),
    ({"a": (1,)}, '{"dict": [["a", {"tuple": [1]}]]}'),
    (b"\xff", '{"bytes": "\\u00ff"}'),
    (1j, '{"complex": [0.0, 1.0]}'),
    (-math.inf, '{"float": "-inf"}'),
    ('"\\\n\u2028\U0001f600', '"\\u0022\\u005c\\u000a\\u2028\\ud83d\\ude00"'),
    (object(), '{"object": "object"}'),
    ((n for n in "ab"), '{"object": "generator"}'),
]


@pytest.mark.parametrize(("value", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_how_values_are_written(value: Any, text: str) -> None:
    assert dumps(value) == text and encode(value) == json.loads(text)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.text())
    ),
    max_leaves=12,
)


@given(plain)
def test_values_come_back(value: Any) -> None:
    assert decode(json.loads(dumps(value))) == value and same(encode(value), encode(value))


@given(plain)
def test_values_are_shown_as_python_writes_them(value: Any) -> None:
    shown = literal(encode(value))
    if "float('" not in shown:  # infinities have no literal
        assert ast.literal_eval(shown) == value


@given(plain, plain)
def test_equal_is_what_python_calls_equal(a: Any, b: Any) -> None:
    assert same(encode(a), encode(b)) == (a == b)


def test_kinds_of_sequences_and_numbers() -> None:
    assert same(1, 1.0) and same(True, 1) and not same([1], {"tuple": [1]}) and not same("1", 1)
    assert same({"float": "nan"}, {"float": "nan"}) and not same({"float": "nan"}, 0)
    assert same(0.334, 0.333, 0.01) and not same(0.35, 0.333, 0.01) and same([0.334], [0.333], 0.01)
    assert same({"dict": [["a", 1], ["b", 2]]}, {"dict": [["b", 2], ["a", 1.0]]})


def test_an_object_is_taken_for_what_it_holds() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "14"

        __hash__ = int.__hash__

    pair = namedtuple("pair", "a b")
    assert encode(Liar(3)) == 3 and not same(encode(Liar(3)), 14)
    assert decode(encode(Counter("aab"))) == {"a": 2, "b": 1} and decode(encode(pair(1, 2))) == (1, 2)
    assert decode(encode(OrderedDict(a=1))) == {"a": 1} and decode(encode(frozenset([1]))) == {1}


@pytest.mark.parametrize(
    "forged",
    [
        {"object": "x"}, {"tuple": 3}, {"set": [[1]]}, {"dict": [[1]]}, {"dict": {"a": 1}}, {"complex": ["x"]},
        {"float": []}, {"bytes": "\u2028"}, {}, {"a": 1, "b": 2}, {"tuple": [{"object": "x"}]},
        {"complex": [10**400, 0]},
    ],
)  # fmt: skip
def test_what_was_never_written_equals_nothing(forged: Any) -> None:
    with pytest.raises(ValueError):
        decode(forged)
    assert not same(forged, forged) and not same(forged, 1)


def test_nesting_without_end_equals_nothing() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert not same(deep, deep) and not same(deep, 1)
