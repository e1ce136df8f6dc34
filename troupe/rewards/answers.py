r"""Final answers: found in a text, and compared.

Numbers are compared exactly and without any package: `0.5`, `1/2`, `\frac{1}{2}`, `50%`, `$1,000`, `x = 3`,
`12 apples`, `2, 3`. Where the truth is such a number, only such a number meets it: `3*4`, `12 or 13` and `2^{10}` are
not worked out, and a prompt that is echoed is no answer. Only where the truth is another expression (`2\sqrt{3}`,
`(0, \infty)`) does `equivalence` decide, after everything that could hold two candidates has been refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from troupe.rewards.equivalence import equivalent

__all__ = ["answers_equal", "candidates", "extract_answer"]

MAX_ANSWER = 300
"""Longest answer that is compared, in characters."""

MAX_TEXT = 20_000
"""How much of a text's end is searched for an answer, in characters."""

MAX_PARTS = 20
"""Most components of one answer."""


# --- finding answers -----------------------------------------------------------------------------------------------

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_VALUE = rf"(?:(?<![0-9A-Za-z)])-)?[$£€]?{_NUMBER}(?:/{_NUMBER})?%?"
_RUN = re.compile(rf"{_VALUE}(?:(?:\s*(?:,|;|\bor\b|\band\b)\s*|\s+){_VALUE})*")
_MARKS = (
    re.compile(r"<ans>((?:(?!</?ans>).)*)</ans>", re.DOTALL),
    None,  # \boxed{...}, whose braces nest
    re.compile(r"####[ \t]*([^\n]+)"),
    re.compile(r"\banswer(?:\s+is|\s*[:=])[ \t]*:?[ \t]*(.+?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE),
)
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


def extract_answer(text: str) -> str | None:
    r"""The answer a text ends with: the last `<ans>...</ans>`, else `\boxed{...}`, `#### ...`, "the answer is ...",
    else the whole text where it is an answer by itself, else its last number with those listed beside it: `5 or 6`."""
    found = candidates(text)
    return found[-1] if found else None


def candidates(text: str) -> list[str]:
    """All answers that a text puts forward by the strongest mark it uses, in order; `extract_answer` takes the last.

    A text with two different ones has not committed to an answer.
    """
    text = text[-MAX_TEXT:]
    for mark in _MARKS:
        marked = _boxed(text) if mark is None else [match.strip() for match in mark.findall(text)]
        if marked:
            return marked
    if _stands_alone(text):
        return [text.strip()]
    return [run.strip() for run in _RUN.findall(text)]


def _boxed(text: str) -> list[str]:
    r"""Contents of every outermost `\boxed{...}`, in one pass; unclosed boxes hold nothing."""
    opened: list[int | None] = []  # per open brace: where a box's content begins, None for other braces
    found: list[tuple[int, str]] = []
    for token in _BRACES.finditer(text):
        if token[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                while found and found[-1][0] > start:
                    found.pop()  # boxes inside this one
                found.append((start, text[start : token.start()].strip()))
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append(token.end() if token[0] != "{" else None)
    return [content for _, content in found]


def _stands_alone(text: str) -> bool:
    if len(text) > MAX_ANSWER or "\n" in text.strip():
        return False
    plain = _cleaned(text)
    return _parsed(plain) is not None or _mathematical(_equation(plain)[1], "")


# --- comparing answers ---------------------------------------------------------------------------------------------


def answers_equal(given: str, truth: str, *, unknowns: Sequence[str] = ()) -> bool:
    r"""Whether `given` says the same as `truth`.

    Several components count as a set (the roots of an equation), unless there are several `unknowns` or the truth
    stands in brackets: then their order counts, or their names do (`y = 4, x = 8`). A unit may be left out; a wrong one
    is wrong. Raises UndecidedError where a comparison of expressions did not finish.
    """
    if max(len(given), len(truth)) > MAX_ANSWER:
        return False
    given, truth = _cleaned(given), _cleaned(truth)
    if not given or not given.isascii():
        return False
    expected = _parsed(truth)
    if expected is not None:
        found = _parsed(given)
        return found is not None and _same(found, expected, unknowns)
    if _spaceless(given) == _spaceless(truth):
        return True
    (name, given), (expected_name, truth) = _equation(given), _equation(truth)
    if _LITERAL.search(truth) or not _mathematical(given, truth) or (name and expected_name and name != expected_name):
        return False
    return equivalent(given, truth)


@dataclass(frozen=True, slots=True)
class _Part:
    """One component: `x = 12 apples` is ("x", 12, "apple")."""

    name: str
    value: Fraction
    unit: str


@dataclass(frozen=True, slots=True)
class _Plain:
    """An answer made of numbers. `brackets` is "()" or "[]" around an ordered tuple, "" around nothing or a set."""

    parts: tuple[_Part, ...]
    brackets: str


def _same(found: _Plain, expected: _Plain, unknowns: Sequence[str]) -> bool:
    if len(found.parts) != len(expected.parts):
        return False
    given, truth = found.parts, expected.parts
    if expected.brackets and found.brackets != expected.brackets:
        return False
    if len(unknowns) > 1:
        given, truth = _arranged(given, unknowns), _named(truth, unknowns)
    elif not expected.brackets:
        given, truth = _sorted(given), _sorted(truth)
    return all(_agree(one, other) for one, other in zip(given, truth, strict=True))


def _arranged(parts: tuple[_Part, ...], unknowns: Sequence[str]) -> tuple[_Part, ...]:
    """Named components in the order of the unknowns; others stay where they are."""
    if {part.name for part in parts} != set(unknowns):
        return parts
    return tuple(sorted(parts, key=lambda part: list(unknowns).index(part.name)))


def _named(parts: tuple[_Part, ...], unknowns: Sequence[str]) -> tuple[_Part, ...]:
    """Components that say which unknown they are, where they are as many."""
    if len(parts) != len(unknowns):
        return parts
    return tuple(replace(part, name=part.name or name) for part, name in zip(parts, unknowns, strict=True))


def _sorted(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    return tuple(sorted(parts, key=lambda part: (part.value, part.unit)))


def _agree(given: _Part, truth: _Part) -> bool:
    if given.name and truth.name and given.name != truth.name:
        return False
    return given.value == truth.value and (not given.unit or not truth.unit or given.unit == truth.unit)


# --- reading answers -----------------------------------------------------------------------------------------------

_REPLACED = (
    (re.compile(r"[\u2212\u2013]"), "-"),
    (re.compile(r"[£€]"), "$"),
    (re.compile(r"\u03c0"), r"\\pi "),
    (re.compile(r"\\!"), ""),
    (re.compile(r"[\u00a0\u202f\u2009]|(?<!\\)\\[,;: ]|~|\\(?:left|right|displaystyle)(?![a-z])"), " "),
    (re.compile(r"_\{(\w)\}"), r"_\1"),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\u00b0"), " degrees"),
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
)
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
_GLUED_UNIT = re.compile(r"cm|[mk]m|[mk]g|m[lL]|ft|lbs?|oz|mph|km/h|in|yd|hrs?|min|sec|[ap]m")
_SHORT_UNIT = re.compile(rf"{_GLUED_UNIT.pattern}|[mgshlL]")
_NO_UNIT = re.compile(
    r"or|and|to|not?|is|maybe|but|either|the|of|plus|minus|times|over|by|divided|below|less|more|than|about"
    r"|half|third|quarter|hundred|thousand|[mb]illion|trillion|dozen|percent|squared|cubed|choose|factorial|mod|base"
    r"|sin|cos|tan|log|sqrt|pi|nan|inf(?:init[ey])?",
    re.IGNORECASE,
)
_PART = re.compile(
    rf"(?:(?P<name>[A-Za-z](?:_\{{?[A-Za-z0-9]\}}?)?)\s*=\s*)?(?P<sign>[-+]?)\s*[$£€]?\s*(?P<minus>-?)"
    rf"(?:(?P<whole>[0-9]+)(?:\s+(?P<a>[0-9]+)/(?P<b>[0-9]+)|\s*\\frac\s*\{{(?P<c>[0-9]+)\}}\s*\{{(?P<d>[0-9]+)\}})"
    rf"|\\frac\s*(?:\{{(?P<n>-?[0-9]+)\}}|(?P<n1>[0-9]))\s*(?:\{{(?P<m>[0-9]+)\}}|(?P<m1>[0-9]))"
    rf"|(?P<p>{_NUMBER})(?:\s*/\s*(?P<q>{_NUMBER}))?)"
    rf"(?:\s*(?P<percent>%|percent\b))?(?P<unit>\s*[A-Za-z][A-Za-z /^23]*)?"
)
_SEPARATOR = re.compile(r"(?:\s*(?:;|,(?=\s)|\b(?:and|or)\b)\s*)+")
_LITERAL = re.compile(
    r":|[0-9]_|^\(?[A-Za-z]\)?$"
)  # clock times, ratios, other bases, choices: equal as texts or not at all
_RELATION = re.compile(
    r"[=<>]|\\(?:leq?|geq?|neq?|lt|gt|approx|equiv|to|implies|iff|sim|in|notin|mid|\w{0,20}arrow)(?![a-z])"
)
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan)|cot|sec|csc|log|exp|sqrt|frac")
_JOINER = re.compile(r"or|and|the|is|not|but|nan|inf", re.IGNORECASE)
_EQUATION = re.compile(r"([A-Za-z])\s*=\s*(.+)")


def _cleaned(text: str) -> str:
    """`text` without wrappers, spacing commands and a closing full stop."""
    text = _unwrapped(text.strip().rstrip(".").strip())
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return text.strip()


def _unwrapped(text: str) -> str:
    for left, right in _WRAPPERS:
        inner = text[len(left) : -len(right)]
        if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
            return _unwrapped(inner.strip()) if right not in inner.replace(r"\$", "") else text
    boxes = _boxed(text)
    return _unwrapped(boxes[0]) if boxes and text == rf"\boxed{{{boxes[0]}}}" else text


def _parsed(text: str) -> _Plain | None:
    """`text` as numbers, None where it is anything else."""
    brackets = ""
    if text[:2] == r"\{" and text[-2:] == r"\}":
        text = text[2:-2].strip()
    elif text[:1] + text[-1:] in ("()", "[]", "{}") and len(text) > 2:
        brackets = (text[0] + text[-1]).replace("{}", "")
        text = text[1:-1].replace(",", ", ").strip()  # in a tuple a comma never groups digits
    parts = _parts(text)
    if parts is None or len(parts) > MAX_PARTS:
        return None
    return _Plain(tuple(parts), brackets if len(parts) > 1 else "")


def _parts(text: str) -> list[_Part] | None:
    if (both := re.fullmatch(r"((?:[A-Za-z]\s*=\s*)?)(?:\\pm|\u00b1|\+/-)\s*(\S.*)", text)) is not None:
        pair = [_part(f"{both[1]}{sign}{both[2]}") for sign in "-+"]
        return [part for part in pair if part is not None] if None not in pair else None
    if (whole := _part(text)) is not None:
        return [whole]
    pieces = [piece for chunk in _SEPARATOR.split(text) for piece in _commas(chunk)]
    parts = [_part(piece) for piece in pieces] if len(pieces) <= MAX_PARTS else [None]
    found = [part for part in parts if part is not None]
    return found if len(found) == len(parts) else None


def _commas(chunk: str) -> list[str]:
    """A chunk that is one number stays whole (`1,000`); otherwise its commas separate (`1,2`)."""
    return [chunk] if _part(chunk) is not None else [piece.strip() for piece in chunk.split(",")]


def _part(text: str) -> _Part | None:
    match = _PART.fullmatch(text.strip())
    unit = _unit(match["unit"] or "") if match is not None else None
    if match is None or unit is None:
        return None
    value = _fraction(match)
    if value is None:
        return None
    if "-" in (match["sign"], match["minus"]):
        value = -value if match["sign"] != match["minus"] else value
    return _Part(match["name"] or "", value / 100 if match["percent"] else value, unit)


def _fraction(match: re.Match[str]) -> Fraction | None:
    """The unsigned value of a matched number; None for a zero denominator, and for a fraction that is a whole number:
    `48/4` is a division that was not carried out."""
    whole = Fraction(match["whole"] or 0)
    above = match["a"] or match["c"] or match["n"] or match["n1"] or match["p"].replace(",", "")
    below = match["b"] or match["d"] or match["m"] or match["m1"] or (match["q"] or "1").replace(",", "")
    divisor = Fraction(below)
    if divisor == 0 or (divisor != 1 and (Fraction(above) / divisor).denominator == 1):
        return None
    return whole + Fraction(above) / divisor


def _unit(text: str) -> str | None:
    """A unit in the singular, "" for none; None where the words may mean something else, as in `3x` or `5 or so`."""
    words = re.findall(r"[A-Za-z]+", text)
    if not words:
        return "" if not text.strip() else None
    if not text[0].isspace():
        return text.lower().removesuffix("s") if _GLUED_UNIT.fullmatch(text) else None
    if len(words) > 3 or any(_NO_UNIT.fullmatch(word) for word in words):
        return None
    if any(len(word) < 3 and not _SHORT_UNIT.fullmatch(word) for word in words):
        return None
    return " ".join(text.lower().split()).removesuffix("s")


def _equation(text: str) -> tuple[str, str]:
    """`x = 2\\sqrt{3}` as its name and its right side; anything else has no name."""
    match = _EQUATION.fullmatch(text)
    return (match[1], match[2]) if match is not None and not _RELATION.search(match[2]) else ("", text)


def _mathematical(text: str, truth: str) -> bool:
    """Whether `text` may be compared symbolically: one expression, with no more words and relations than the truth."""
    if not text or not text.isascii() or re.search(r"[\n$#]|\\(?:boxed|fbox)(?![a-z])", text):
        return False
    if "\\\\" in text and "\\\\" not in truth:  # a new line outside a matrix
        return False
    if len(_RELATION.findall(text)) > len(_RELATION.findall(truth)):
        return False
    return all(_word_allowed(word, truth) for word in re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", " ", text)))


def _word_allowed(word: str, truth: str) -> bool:
    if word in truth or _FUNCTION.fullmatch(word):
        return True
    return len(word) < 4 and not _JOINER.fullmatch(word)


def _spaceless(text: str) -> str:
    return re.sub(r"\s+", "", text)
