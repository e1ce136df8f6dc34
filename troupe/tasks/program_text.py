"""Programs of the grammar as source text in Python, JavaScript and Java, and in words.

    source("function", "java", [("a", "list")], "int", ("sum", ("a",)))

    import java.util.stream.IntStream;

    class Solution {
        static int f(int[] a) {
            return IntStream.of(a).sum();
        }
    }

A function is called f, in Java it is a static method of the class Solution; a class is called Box, with put(x) and
get(). Where the languages differ, as in the remainder of a negative number, Python's meaning holds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from troupe.tasks.grammar import PRODUCTIONS, Tree

__all__ = ["ENTRY", "LANGUAGES", "TITLES", "source", "words"]

LANGUAGES = ("python", "javascript", "java")
TITLES = {"python": "Python", "javascript": "JavaScript", "java": "Java"}
ENTRY = {"function": "f", "algorithm": "f", "class": "Box"}
"""What a program of each kind defines."""

_EXPRESSIONS: Mapping[str, tuple[str, str, str]] = {
    "total": ("self.total", "this.total", "total"),
    "items": ("self.items", "this.items", "items"),
    "add": ("({0} + {1})",) * 3,
    "sub": ("({0} - {1})",) * 3,
    "mul": ("({0} * {1})",) * 3,
    "div": ("({1} // {0})", "Math.floor({1} / {0})", "Math.floorDiv({1}, {0})"),
    "mod": ("({1} % {0})", "mod({1}, {0})", "Math.floorMod({1}, {0})"),
    "smaller": ("min({0}, {1})", "Math.min({0}, {1})", "Math.min({0}, {1})"),
    "larger": ("max({0}, {1})", "Math.max({0}, {1})", "Math.max({0}, {1})"),
    "abs": ("abs({0})", "Math.abs({0})", "Math.abs({0})"),
    "if": ("({1} if {0} else {2})", "({0} ? {1} : {2})", "({0} ? {1} : {2})"),
    "sum": ("sum({0})", "{0}.reduce((t, each) => t + each, 0)", "IntStream.of({0}).sum()"),
    "count": ("len({0})", "{0}.length", "{0}.length"),
    "most": ("max({0})", "Math.max(...{0})", "IntStream.of({0}).max().getAsInt()"),
    "least": ("min({0})", "Math.min(...{0})", "IntStream.of({0}).min().getAsInt()"),
    "first": ("{0}[0]", "{0}[0]", "{0}[0]"),
    "last": ("{0}[-1]", "{0}.at(-1)", "last({0})"),
    "item": ("{1}[{0}]",) * 3,
    "length": ("len({0})", "{0}.length", "{0}.length()"),
    "less": ("{0} < {1}",) * 3,
    "equal": ("{0} == {1}", "{0} === {1}", "{0} == {1}"),
    "even": ("{0} % 2 == 0", "{0} % 2 === 0", "{0} % 2 == 0"),
    "backwards": ("{0}[::-1]", '[...{0}].reverse().join("")', "new StringBuilder({0}).reverse().toString()"),
    "upper": ("{0}.upper()", "{0}.toUpperCase()", "{0}.toUpperCase()"),
    "start": ("{1}[:{0}]", "{1}.slice(0, {0})", "start({1}, {0})"),
    "rest": ("{1}[{0}:]", "{1}.slice({0})", "rest({1}, {0})"),
    "concat": ("({0} + {1})",) * 3,
    "repeat": ("({1} * {0})", "{1}.repeat({0})", "{1}.repeat({0})"),
    "mark": ('"!"',) * 3,
    "sorted": ("sorted({0})", "[...{0}].sort((t, each) => t - each)", "IntStream.of({0}).sorted().toArray()"),
    "reverse": ("{0}[::-1]", "[...{0}].reverse()", "reverse({0})"),
    "take": ("{1}[:{0}]", "{1}.slice(0, {0})", "IntStream.of({1}).limit({0}).toArray()"),
    "drop": ("{1}[{0}:]", "{1}.slice({0})", "IntStream.of({1}).skip({0}).toArray()"),
    "add_each": (
        "[each + {0} for each in {1}]",
        "{1}.map((each) => each + {0})",
        "IntStream.of({1}).map(each -> each + {0}).toArray()",
    ),
    "mul_each": (
        "[each * {0} for each in {1}]",
        "{1}.map((each) => each * {0})",
        "IntStream.of({1}).map(each -> each * {0}).toArray()",
    ),
    "above": (
        "[each for each in {1} if each > {0}]",
        "{1}.filter((each) => each > {0})",
        "IntStream.of({1}).filter(each -> each > {0}).toArray()",
    ),
    "below": (
        "[each for each in {1} if each < {0}]",
        "{1}.filter((each) => each < {0})",
        "IntStream.of({1}).filter(each -> each < {0}).toArray()",
    ),
    "append": ("[*{1}, {0}]", "[...{1}, {0}]", "IntStream.concat(IntStream.of({1}), IntStream.of({0})).toArray()"),
    "join": ("({0} + {1})", "[...{0}, ...{1}]", "IntStream.concat(IntStream.of({0}), IntStream.of({1})).toArray()"),
    "if_list": ("({1} if {0} else {2})", "({0} ? {1} : {2})", "({0} ? {1} : {2})"),
    "up_to": ("list(range(1, {0} + 1))", "upTo({0})", "IntStream.rangeClosed(1, {0}).toArray()"),
}
"""Around sources of the parts, for each language; variables and constants not named here are written as their name."""

_HELPERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "python": {},
        "javascript": {
            "mod": "function mod(value, divisor) {\n    return ((value % divisor) + divisor) % divisor;\n}",
            "up_to": "function upTo(last) {\n    return Array.from({ length: Math.max(0, last) }, (_, k) => k + 1);\n}",
        },
        "java": {
            "last": "static int last(int[] items) {\n    return items[items.length - 1];\n}",
            "start": (
                "static String start(String text, int n) {\n"
                "    return text.substring(0, Math.min(n, text.length()));\n}"
            ),
            "rest": (
                "static String rest(String text, int n) {\n    return text.substring(Math.min(n, text.length()));\n}"
            ),
            "reverse": (
                "static int[] reverse(int[] items) {\n    int n = items.length;\n"
                "    return IntStream.range(0, n).map(k -> items[n - 1 - k]).toArray();\n}"
            ),
        },
    }
)
"""Functions that stand beside a program that uses the production."""

_LOOPS: Mapping[str, tuple[str, str, str]] = {
    "fold": (
        "r = {1}\nfor i in {0}:\n    r = {2}\nreturn r",
        "let r = {1};\nfor (const i of {0}) {{\n    r = {2};\n}}\nreturn r;",
        "int r = {1};\nfor (int i : {0}) {{\n    r = {2};\n}}\nreturn r;",
    ),
    "build": (
        "out = []\nfor i in {0}:\n    out = {1}\nreturn out",
        "let out = [];\nfor (const i of {0}) {{\n    out = {1};\n}}\nreturn out;",
        "int[] out = new int[0];\nfor (int i : {0}) {{\n    out = {1};\n}}\nreturn out;",
    ),
    "euclid": (
        "u, v = x, y\nwhile {0}:\n    u, v = {1}, {2}\nreturn u",
        "let [u, v] = [x, y];\nwhile ({0}) {{\n    [u, v] = [{1}, {2}];\n}}\nreturn u;",
        # Java refuses a `while` whose condition is always false, and what follows one that is always true.
        "int u = x;\nint v = y;\nwhile (true) {{\n    if (!({0})) {{\n        return u;\n    }}\n    int next = {1};\n"
        "    v = {2};\n    u = next;\n}}",
    ),
    "bisect": (
        "low, high = 0, {0}\nwhile low < high:\n    m = (low + high) // 2\n    if {1}:\n        low = m + 1\n"
        "    else:\n        high = m\nreturn low",
        "let low = 0;\nlet high = {0};\nwhile (low < high) {{\n    const m = Math.floor((low + high) / 2);\n"
        "    if ({1}) {{\n        low = m + 1;\n    }} else {{\n        high = m;\n    }}\n}}\nreturn low;",
        "int low = 0;\nint high = {0};\nwhile (low < high) {{\n    int m = (low + high) / 2;\n"
        "    if ({1}) {{\n        low = m + 1;\n    }} else {{\n        high = m;\n    }}\n}}\nreturn low;",
    ),
    "merge": (
        "out, j, k = [], 0, 0\nwhile j < len(a) and k < len(b):\n    p, q = a[j], b[k]\n    if {0}:\n"
        "        out.append(p)\n        j += 1\n    else:\n        out.append(q)\n        k += 1\n"
        "return out + a[j:] + b[k:]",
        "const out = [];\nlet j = 0;\nlet k = 0;\nwhile (j < a.length && k < b.length) {{\n    const p = a[j];\n"
        "    const q = b[k];\n    if ({0}) {{\n        out.push(p);\n        j += 1;\n    }} else {{\n"
        "        out.push(q);\n        k += 1;\n    }}\n}}\nreturn [...out, ...a.slice(j), ...b.slice(k)];",
        "int[] out = new int[a.length + b.length];\nint j = 0;\nint k = 0;\n"
        "while (j < a.length && k < b.length) {{\n    int p = a[j];\n    int q = b[k];\n    if ({0}) {{\n"
        "        out[j + k] = p;\n        j += 1;\n    }} else {{\n        out[j + k] = q;\n        k += 1;\n"
        "    }}\n}}\n"
        "System.arraycopy(a, j, out, j + k, a.length - j);\n"
        "System.arraycopy(b, k, out, a.length + k, b.length - k);\nreturn out;",
    ),
}
"""Bodies of functions."""

_CLASSES: Mapping[str, tuple[str, str]] = {
    "python": (
        "class Box:\n    def __init__(self):\n        self.{name} = {first}\n\n    def put(self, x):\n"
        "        self.{name} = {put}\n\n    def get(self):\n        return {get}\n",
        "[]",
    ),
    "javascript": (
        "class Box {{\n    constructor() {{\n        this.{name} = {first};\n    }}\n\n    put(x) {{\n"
        "        this.{name} = {put};\n    }}\n\n    get() {{\n        return {get};\n    }}\n}}\n",
        "[]",
    ),
    "java": (
        "class Box {{\n    private {type} {name} = {first};\n\n    void put(int x) {{\n        {name} = {put};\n"
        "    }}\n\n"
        "    int get() {{\n        return {get};\n    }}\n{helpers}}}\n",
        "new int[0]",
    ),
}  # fmt: skip
_JAVA_TYPES = {"int": "int", "str": "String", "list": "int[]"}


def source(kind: str, language: str, signature: Sequence[tuple[str, str]], returns: str, tree: Tree) -> str:
    """The text of a finished program. `signature` holds name and type of each argument of a function."""
    column = LANGUAGES.index(language)
    helpers = [text for name, text in _HELPERS[language].items() if name in _names(tree)]
    if kind == "class":
        return _class(language, tree, column, helpers)
    body = _body(tree, column)
    names = ", ".join(name for name, _ in signature)
    if language == "python":
        return f"def f({names}):\n{_indented(body)}\n"
    if language == "javascript":
        return "\n\n".join([*helpers, f"function f({names}) {{\n{_indented(body)}\n}}\n"])
    typed = ", ".join(f"{_JAVA_TYPES[of]} {name}" for name, of in signature)
    methods = [f"static {_JAVA_TYPES[returns]} f({typed}) {{\n{_indented(body)}\n}}", *helpers]
    return _java("class Solution {\n" + "\n\n".join(_indented(method) for method in methods) + "\n}\n")


def words(chosen: Sequence[int]) -> str:
    """A program in words, given as its productions in prefix order; `...` stands for what is not written yet."""
    text, _ = _worded(tuple(chosen), 0)
    return text if chosen and PRODUCTIONS[chosen[0]].binds else f"return {text}"


def _body(tree: Tree, column: int) -> str:
    if tree[0] in _LOOPS:
        return _LOOPS[tree[0]][column].format(*[_bare(_expression(part, column)) for part in tree[1:]])
    value = _bare(_expression(tree, column))
    return f"return {value}" + (";" if column else "")


def _class(language: str, tree: Tree, column: int, helpers: Sequence[str]) -> str:
    template, empty = _CLASSES[language]
    of_number = tree[0] == "number_state"
    text = template.format(
        name="total" if of_number else "items",
        type="int" if of_number else "int[]",
        first=_expression(tree[1], column) if of_number else empty,
        put=_bare(_expression(tree[-2], column)),
        get=_bare(_expression(tree[-1], column)),
        helpers="".join(f"\n{_indented(helper)}\n" for helper in helpers),
    )
    return _java(text) if language == "java" else "\n\n".join([*helpers, text])


def _java(text: str) -> str:
    return f"import java.util.stream.IntStream;\n\n{text}" if "IntStream" in text else text


def _expression(tree: Tree, column: int) -> str:
    templates = _EXPRESSIONS.get(tree[0])
    if templates is None:
        name: str = tree[0]
        return name
    return templates[column].format(*[_expression(part, column) for part in tree[1:]])


def _bare(text: str) -> str:
    """Without brackets around the whole of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if place == len(text) - 1 else text
    return text


def _names(tree: Tree) -> set[str]:
    return {tree[0], *(name for part in tree[1:] for name in _names(part))}


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ")


def _worded(chosen: tuple[int, ...], at: int) -> tuple[str, int]:
    if at >= len(chosen):
        return "...", at
    production = PRODUCTIONS[chosen[at]]
    parts, end = [], at + 1
    for _ in production.takes:
        composed = end < len(chosen) and PRODUCTIONS[chosen[end]].takes and not production.binds
        part, end = _worded(chosen, end)
        parts.append(f"({part})" if composed else part)
    return production.text.format(*parts), end
