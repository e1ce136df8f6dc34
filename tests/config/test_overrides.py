"""Hydra's override grammar. The cases follow hydra.cc/docs/advanced/override_grammar/basic."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.config.overrides import Action, format_value, parse_override, parse_value
from troupe.errors import ConfigError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("   ", ""),
        ("word", "word"),
        ("foo-bar_10", "foo-bar_10"),
        ("hello world", "hello world"),
        ("   hello world   ", "hello world"),
        ("10", 10),
        ("-20", -20),
        ("+3", 3),
        ("0", 0),
        ("1_000_000", 1_000_000),
        ("007", "007"),
        ("1__0", "1__0"),
        ("3.14", 3.14),
        ("2e-5", 2e-5),
        ("-10e6", -10e6),
        ("1.", 1.0),
        (".5", 0.5),
        ("inf", math.inf),
        ("-Inf", -math.inf),
        ("null", None),
        ("NULL", None),
        ("true", True),
        ("TrUe", True),
        ("False", False),
        ("yes", "yes"),
        ("10 20", "10 20"),
        ("1.2.3", "1.2.3"),
        ("/data/x.yaml", "/data/x.yaml"),
        ("http://host:80/a?b", "http://host:80/a?b"),
        (r"C:\dir", r"C:\dir"),
        ("é#!", "é#!"),
        ("${a.b}", "${a.b}"),
        ("${oc.env:USER,me}", "${oc.env:USER,me}"),
        ("x${a}y", "x${a}y"),
        ("${f:{a: [1, 2]}}", "${f:{a: [1, 2]}}"),
        ("'1,2,3'", "1,2,3"),
        ('"a = b"', "a = b"),
        ('"10"', "10"),
        ('"null"', "null"),
        ('""', ""),
        ("'{a:10} ${xyz}'", "{a:10} ${xyz}"),
        (r'"escaped \"quote\""', 'escaped "quote"'),
        (r"'escaped \'quote\''", "escaped 'quote'"),
        (r'"the path is C:\\\"some folder\"\\"', 'the path is C:\\"some folder"\\'),
        (r'"a\nb\\c"', r"a\nb\\c"),
        (r"job\{a\=1\,b\=2\}", "job{a=1,b=2}"),
        (r"A\[B", "A[B"),
        (r"a\\b", r"a\b"),
        (r"\ x\ ", " x "),
        (r"1\,2", "1,2"),
        ("[]", []),
        ("[1,2]", [1, 2]),
        ("[ 1 , a b, 'c,d', [x, [y]] ]", [1, "a b", "c,d", ["x", ["y"]]]),
        ("{}", {}),
        ("{a:10,b:20}", {"a": 10, "b": 20}),
        ("{a: 1, b: [x, y], c: {d: null}}", {"a": 1, "b": ["x", "y"], "c": {"d": None}}),
        ("{'a:b': http://x:1}", {"a:b": "http://x:1"}),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(parse_value("NaN"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a=1,2", "override 'a=1,2': a comma makes it a sweep, and a run takes one value; write [1,2] for a list"),
        ("a='x','y'", "a comma makes it a sweep"),
        ("a=[1],[2]", "a comma makes it a sweep"),
        ("a=choice(1,2)", "functions such as choice(...) and range(...) are sweeps"),
        ("a=b=c", "'=' cannot stand there; put quotes around the value"),
        ("a=A[B", "'[' cannot stand inside an unquoted value; put quotes around the value"),
        ("a=it's", '"\'" cannot stand inside an unquoted value'),
        ("a=[1", "expected ',' or ']', found the end"),
        ("a=[1,]", "a value is missing before ']'"),
        ("a={x}", "expected ':', found '}'"),
        ("a={x: 1, x: 2}", "the key 'x' is given twice"),
        ("a='x", "the quote ' is never closed"),
        ('a="x\\"', 'the quote " is never closed'),
        ("a=${b", "the interpolation '${' is never closed"),
        ("a=[1] 2", "'2' cannot stand there"),
        ("a=" + "[" * 200, "is nested more than 100 deep"),
        ("a", "override 'a': has no value; write a=VALUE"),
        ("+a", "has no value; write +a=VALUE"),
        ("--a.b=1", "overrides take no dashes; write a.b=VALUE"),
        ("db/server=x", "config groups are not used here; write 'extends: other.yaml' in a file"),
        ("db@pkg=x", "config groups are not used here"),
        ("a..b=1", "'a..b' is not a key"),
        ("=1", "'' is not a key"),
        ("a b=1", "'a b' is not a key"),
    ],
)
def test_refusals(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert str(caught.value).startswith(f"override '{text}': ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "action", "path", "value", "has_value"),
    [
        ("a=1", Action.SET, ("a",), 1, True),
        ("a.b.0 = 1", Action.SET, ("a", "b", "0"), 1, True),
        ("a=", Action.SET, ("a",), "", True),
        ("+a.b-c=x", Action.ADD, ("a", "b-c"), "x", True),
        ("++a.b=x", Action.FORCE, ("a", "b"), "x", True),
        ("~a.b", Action.REMOVE, ("a", "b"), None, False),
        ("~a.b=", Action.REMOVE, ("a", "b"), "", True),
        ("~a.b=null", Action.REMOVE, ("a", "b"), None, True),
    ],
)
def test_signs(text: str, action: Action, path: tuple[str, ...], value: Any, has_value: bool) -> None:
    found = parse_override(text)
    assert (found.action, found.path, found.value, found.has_value) == (action, path, value, has_value)


@settings(max_examples=400, deadline=None)
@given(JSON)
def test_what_is_formatted_is_parsed_again(value: Any) -> None:
    found = parse_override(f"a.b={format_value(value)}").value
    assert found == value
    assert repr(found) == repr(value)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="\\'\"a ,=[]{}:${}\n\t", max_size=12))
def test_texts_full_of_signs_survive(text: str) -> None:
    assert parse_value(format_value({text: [text]})) == {text: [text]}


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="ab1.e-_\\'\" ,=[]{}:$(~+", max_size=16))
def test_any_text_is_parsed_or_refused_in_a_sentence(text: str) -> None:
    try:
        parse_override(text)
    except ConfigError as error:
        assert str(error).startswith(f"override '{text}': ")  # nothing else may be raised


def test_only_json_like_values_have_a_form() -> None:
    with pytest.raises(TypeError, match="set has no form"):
        format_value({1})
