"""Programs to write from examples: functions, loops and classes in Python, JavaScript and Java, judged on hidden tests.

    Task(id="function-5f0c...", kind="function", difficulty=0.1,
         prompt="Write a Python function f(a) of a list of whole numbers: return the sum of a. ...",
         data={"language": "python", "signature": [["a", "list"]], "returns": "int",
               "public": [{"args": [[1, 2]], "value": 3}, ...],       # shown
               "parts": ["a", "count", "sum"], "size": 2, "given": [], "key": "8d21..."},
         answer=[{"args": [[4, 0, 9]], "value": 13}, ...],             # hidden
         solution="def f(a):\n    return sum(a)\n")

`parts` are the productions of the grammar that may be used, `size` is how many of them at most, `given` are the first
ones, already written. With the difficulty, more parts are offered, programs get longer, and less of them is given. The
arguments and value of a class are the numbers that are put and what `get()` gives after each. What is submitted is a
program's text, of any origin; it runs in the sandbox, and passes if all tests do, the hidden ones too.

The key is what the program does, so that no program is both trained on and held out, in whatever language or words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from troupe.episode import Task
from troupe.errors import ConfigError, did_you_mean
from troupe.sandbox import Limits, Sandbox
from troupe.sandbox.cases import Case
from troupe.sandbox.languages import Job, lacking, present, run_jobs
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.grammar import (
    INDEX,
    KINDS,
    PRODUCTIONS,
    ROOTS,
    Fault,
    Parts,
    Tree,
    evaluate,
    fits,
    grammar_of,
    inner_scope,
    prefix,
)
from troupe.tasks.program_game import EXAMPLES, SHAPES, ProgramGame, frozen
from troupe.tasks.program_text import ENTRY, LANGUAGES, TITLES, source, words
from troupe.tasks.splits import content_id

__all__ = ["CodeGenerationTaskGenerator", "domain"]

Signature = tuple[tuple[str, str], ...]

SIGNATURES: Mapping[str, tuple[Signature, ...]] = {
    "function": ((("x", "int"),), (("s", "str"),), (("a", "list"),), (("a", "list"), ("x", "int"))),
    "algorithm": (
        (("a", "list"),),
        (("a", "list"), ("x", "int")),
        (("x", "int"),),
        (("x", "int"), ("y", "int")),
        (("a", "list"), ("b", "list")),
    ),
    "class": ((("a", "list"),),),
}
LEAST = {"fold": 6, "build": 5, "euclid": 6, "bisect": 5, "merge": 4, "number_state": 6, "list_state": 6}
"""Productions of the smallest program of interest with such a root; 2 for any other."""
GROWTH = 7
"""More of them at the greatest difficulty."""
MORE_PARTS = 24
"""Productions offered beside those of the solution at the greatest difficulty."""
MORE_OPEN = 10
"""Productions left to be written at the greatest difficulty, beside one."""
INPUTS = 40
HIDDEN = 16
MUTANTS, CANDIDATES = 30, 12
"""Examples are those of some candidates that tell the most mutants (wrong programs, one change away) from the right
one."""

_ARGUMENTS = {INDEX[name] for name in "xysab"}
_TYPES = {"int": "a whole number", "str": "a text", "list": "a list of whole numbers"}


class _Drawn(NamedTuple):
    signature: Signature
    returns: str
    tree: Tree
    inputs: tuple[tuple[Any, ...], ...]
    values: tuple[Any, ...]


class CodeGenerationTaskGenerator(BaseTaskGenerator):
    """Programs drawn from the grammar, none of whose parts could be left out unnoticed.

    `languages` are drawn evenly; by default they are those whose programs can run on this machine. Raises ConfigError
    where one that is named cannot.
    """

    KINDS = KINDS

    def __init__(
        self,
        difficulty_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        kinds: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        languages: Sequence[str] | None = None,
    ) -> None:
        super().__init__(difficulty_range, seed, kinds, weights)
        self.languages = present() if languages is None else tuple(languages)
        for language in self.languages:
            if language not in LANGUAGES:
                raise ConfigError(f"language {language!r} is not known{did_you_mean(language, LANGUAGES)}")
            if missing := lacking(language):
                raise ConfigError(missing)
        if not self.languages:
            raise ConfigError(f"languages are empty; write some of {LANGUAGES}")

    @staticmethod
    def game(kind: str) -> ProgramGame:
        """The game in which programs of a kind are written."""
        return ProgramGame(kind)

    @staticmethod
    def verify(task: Task, answer: str | None) -> bool:
        """Whether the submitted text passes every test of the task, shown and hidden, in the sandbox.

        Raises ConfigError where the task's language cannot be run here.
        """
        return CodeGenerationTaskGenerator.verify_all([(task, answer)])[0]

    @staticmethod
    def verify_all(pairs: Sequence[tuple[Task, str | None]], sandbox: Sandbox | None = None) -> list[bool]:
        """`verify` for many, in one batch for each language; `sandbox` instead of the one that this process keeps."""
        verdicts = [False] * len(pairs)
        for language in LANGUAGES:
            asked = [
                (place, _job(task, answer))
                for place, (task, answer) in enumerate(pairs)
                if answer is not None and ENTRY[task.kind] in answer and task.data["language"] == language
            ]
            if asked:
                found = run_jobs(sandbox or _sandbox(), language, [job for _, job in asked])
                for (place, _), each in zip(asked, found, strict=True):
                    verdicts[place] = all(verdict.passed for verdict in each)
        return verdicts

    @staticmethod
    def corrupted(task: Task, rng: random.Random) -> Task:
        """With a wrong value in one hidden test."""
        cases = [dict(case) for case in task.answer]
        case = rng.choice(cases)
        case["value"] = _wrong(case["value"])
        return replace(task, answer=cases)

    def make(self, difficulty: float) -> Task:
        """One program of a kind drawn by weight, in a language drawn evenly."""
        kind, language = self.draw_kind(), self.rng.choice(self.languages)
        params = self._difficulty_to_params(difficulty)
        while True:
            drawn = self._draw(kind, params["share"])
            public = drawn and self._public(kind, drawn)
            if drawn and public:
                return self._task(kind, language, difficulty, params, drawn, public)

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        return {
            "share": difficulty,
            "more": round(1 + (MORE_PARTS - 1) * difficulty),
            "slack": int(2.99 * difficulty),
            "open": 1 + MORE_OPEN * difficulty**1.7 + self.rng.uniform(-0.5, 0.5),
        }

    # ------------------------------------------------------------------------------------------ drawing a program

    def _draw(self, kind: str, share: float) -> _Drawn | None:
        """A program, and what it does on its domain; None for one that is of no use."""
        signature = self.rng.choice(SIGNATURES[kind])
        returns = self.rng.choice(list(ROOTS[kind]))
        tree = self.grown(kind, returns, signature, share)
        if not _uses(tree, kind, signature):
            return None
        inputs = domain(signature, rising=tree[0] in ("bisect", "merge"))
        some = _values(tree, signature, inputs[:4])
        if some is None or len(set(some)) == 1:
            return None
        values = _values(tree, signature, inputs)
        if values is None or not _telling(values, inputs) or not _fitting(values, kind):
            return None
        if any(_same(shorter, signature, inputs, values) for shorter in _shorter(tree, kind, signature)):
            return None
        return _Drawn(signature, returns, tree, inputs, values)

    def grown(self, kind: str, returns: str, signature: Signature, share: float) -> Tree:
        """Any program of a kind, larger with `share` in [0, 1], whether or not it makes sense.

        Its root is drawn first, as the smallest program of interest depends on it.
        """
        parts, scope, wanted = _grammar(kind), _outer(kind, signature), ROOTS[kind][returns]
        roots = [i for i in parts.allowed if fits(i, wanted, scope) and PRODUCTIONS[i].takes]
        roots = [i for i in roots if parts.cost(i, scope) <= SHAPES[kind].program]
        root = self.rng.choice(roots)
        size = LEAST.get(PRODUCTIONS[root].name, 2) + round(GROWTH * share + self.rng.uniform(-0.5, 0.5))
        size = min(max(size, parts.cost(root, scope)), SHAPES[kind].program)
        return self._grow(parts, root, scope, size)[0]

    def _grow(self, parts: Parts, index: int, scope: frozenset[str], room: int) -> tuple[Tree, int]:
        """The tree below a production within `room` productions, and how many of them are left."""
        production = PRODUCTIONS[index]
        spare = room - parts.cost(index, scope)
        below = []
        for k, wanted in enumerate(production.takes):
            inner = inner_scope(production, k, scope)
            least = parts.shortest(wanted, inner)
            share = spare if k == len(production.takes) - 1 else self.rng.randint(0, spare)
            tree, left = self._grow(parts, self._drawn(parts, wanted, inner, least + share), inner, least + share)
            spare -= share - left
            below.append(tree)
        return (production.name, *below), spare

    def _drawn(self, parts: Parts, wanted: str, scope: frozenset[str], room: int) -> int:
        """A production that can use the room: no leaf where there is room for more; rather a variable than a number,
        and rather one of the loop than an argument."""
        legal = parts.legal(wanted, scope, room)
        growing = [i for i in legal if PRODUCTIONS[i].takes]
        if room > 1 and growing:
            return self.rng.choice(growing)
        leaves = [i for i in legal if not PRODUCTIONS[i].takes]
        weights = [1.0 if PRODUCTIONS[i].gives == "const" else 4.0 if i in _ARGUMENTS else 12.0 for i in leaves]
        return self.rng.choices(leaves, weights)[0]

    # ------------------------------------------------------------------------------------------ putting it as a task

    def _public(self, kind: str, drawn: _Drawn) -> list[int] | None:
        """Which inputs to show: those that tell the most mutants from the program; None where nothing fits."""
        fitting = [n for n, value in enumerate(drawn.values) if _showable(value, kind)]
        self.rng.shuffle(fitting)
        fitting = fitting[:CANDIDATES]
        mutants = list(_mutants(drawn.tree, kind, drawn.signature))
        wrong = [
            {n for n in fitting if _values(mutant, drawn.signature, [drawn.inputs[n]]) != (drawn.values[n],)}
            for mutant in self.rng.sample(mutants, min(MUTANTS, len(mutants)))
        ]
        chosen: list[int] = []
        while len(chosen) < EXAMPLES and fitting:
            new = [n for n in fitting if all(drawn.values[n] != drawn.values[m] for m in chosen)] or fitting
            best = max(new, key=lambda n: sum(n in told for told in wrong))
            fitting.remove(best)
            chosen.append(best)
            wrong = [told for told in wrong if best not in told]
        told = len({drawn.values[n] for n in chosen}) > 1
        return chosen if len(chosen) == EXAMPLES and told else None

    def _task(
        self, kind: str, language: str, difficulty: float, params: Mapping[str, Any], drawn: _Drawn, public: list[int]
    ) -> Task:
        cases = [
            {"args": [_plain(value) for value in row], "value": _plain(value)}
            for row, value in zip(drawn.inputs, drawn.values, strict=True)
        ]
        shown = [cases[n] for n in public]
        others = [case for n, case in enumerate(cases) if n not in public]
        chosen = prefix(drawn.tree)
        size = min(len(chosen) + params["slack"], SHAPES[kind].program)
        given = chosen[: max(0, len(chosen) - round(max(1.0, params["open"])))]
        data = {
            "language": language, "signature": [list(pair) for pair in drawn.signature], "returns": drawn.returns,
            "public": shown, "parts": self._parts(kind, drawn, params["more"]), "size": size,
            "given": [PRODUCTIONS[index].name for index in given], "key": _digest(drawn),
        }  # fmt: skip
        prompt = _prompt(kind, language, drawn, shown)
        return Task(
            id=content_id(kind, prompt),
            kind=kind,
            prompt=prompt,
            data=data,
            difficulty=round(difficulty, 4),
            answer=self.rng.sample(others, min(HIDDEN, len(others))),
            solution=source(kind, language, drawn.signature, drawn.returns, drawn.tree),
        )

    def _parts(self, kind: str, drawn: _Drawn, more: int) -> list[str]:
        """Those of the solution, and others that could be used beside them."""
        own = set(prefix(drawn.tree))
        scope = _scope_everywhere(drawn.tree, kind, drawn.signature)
        roots = {i for i in grammar_of(kind) if PRODUCTIONS[i].binds and i not in own}
        usable = [
            i for i in grammar_of(kind)
            if i not in own and i not in roots and _could_stand(PRODUCTIONS[i].name, scope)
        ]  # fmt: skip
        usable += [i for i in roots if fits(i, ROOTS[kind][drawn.returns], scope)]
        extra = self.rng.sample(sorted(usable), min(more, len(usable)))
        return [PRODUCTIONS[i].name for i in sorted({*own, *extra})]


# ---------------------------------------------------------------------------------------------- what programs do


@lru_cache
def domain(signature: Signature, rising: bool = False) -> tuple[tuple[Any, ...], ...]:
    """Arguments that programs of a signature are judged on: small, different, lists in rising order where asked."""
    rng = random.Random(repr(signature))
    found: dict[tuple[Any, ...], None] = {}
    while len(found) < (20 if signature == (("x", "int"),) else INPUTS):
        found[tuple(_argument(rng, of, signature, rising) for _, of in signature)] = None
    return tuple(found)


def _argument(rng: random.Random, of: str, signature: Signature, rising: bool) -> Any:
    if of == "int":
        return rng.randint(0, 24 if len(signature) == 1 else 12)
    if of == "str":
        return "".join(rng.choices("abcde", k=rng.randint(2, 5)))
    longest = 3 if signature[-1][1] == "list" and len(signature) == 2 else 4
    items = [rng.randint(0, 12) for _ in range(rng.randint(1, longest))]
    return tuple(sorted(items) if rising else items)


def _values(tree: Tree, signature: Signature, inputs: Sequence[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """On all inputs; None where it faults on one."""
    try:
        return tuple(evaluate(tree, _environment(signature, row)) for row in inputs)
    except Fault:
        return None


def _same(tree: Tree, signature: Signature, inputs: Sequence[tuple[Any, ...]], values: Sequence[Any]) -> bool:
    """Whether a tree has these values, found out at the first that differs."""
    return all(_values(tree, signature, [row]) == (value,) for row, value in zip(inputs, values, strict=True))


def _environment(signature: Signature, row: Sequence[Any]) -> dict[str, Any]:
    return {name: frozen(value) for (name, _), value in zip(signature, row, strict=True)}


@lru_cache
def _grammar(kind: str) -> Parts:
    return Parts(grammar_of(kind))


def _uses(tree: Tree, kind: str, signature: Signature) -> bool:
    """Whether every argument, and the variables that a loop or class is about, are used."""
    names = _names(tree)
    needed = {*names & {"number_state", "list_state", "fold", "build", "bisect", "merge", "euclid"}}
    about = {
        "number_state": {"total", "x"}, "list_state": {"items", "x"}, "fold": {"r", "i"}, "build": {"out", "i"},
        "bisect": {"m"}, "merge": {"p", "q"}, "euclid": {"u", "v"},
    }  # fmt: skip
    if not all(about[name] <= names for name in needed):
        return False
    given = {"merge": {"a", "b"}, "euclid": {"x", "y"}}.get(tree[0], set())
    return kind == "class" or {name for name, _ in signature} <= names | given


def _telling(values: Sequence[Any], inputs: Sequence[tuple[Any, ...]]) -> bool:
    """Whether it is neither nearly constant nor one of its arguments."""
    most = max(map(list(values).count, set(values)))
    same = any(all(value == row[k] for value, row in zip(values, inputs, strict=True)) for k in range(len(inputs[0])))
    return most <= len(values) // 2 and not same


def _fitting(values: Sequence[Any], kind: str) -> bool:
    """Whether most values are such as may be shown."""
    return sum(_showable(value, kind) for value in values) >= len(values) // 2


def _showable(value: Any, kind: str) -> bool:
    if isinstance(value, int):
        return -20 <= value < 80
    numbers = value if isinstance(value, tuple) else ()
    return len(value) <= SHAPES[kind].value and all(-20 <= number < 80 for number in numbers)


def _names(tree: Tree) -> set[str]:
    return {tree[0], *(name for part in tree[1:] for name in _names(part))}


def _scope_everywhere(tree: Tree, kind: str, signature: Signature) -> frozenset[str]:
    """All variables that may be used somewhere in the program."""
    return _outer(kind, signature) | {name for bound in PRODUCTIONS[INDEX[tree[0]]].binds for name in bound}


def _could_stand(name: str, scope: frozenset[str]) -> bool:
    production = PRODUCTIONS[INDEX[name]]
    return fits(INDEX[name], production.gives, scope)


def _inside(tree: Tree, scope: frozenset[str]) -> Iterator[tuple[tuple[int, ...], Tree, str, frozenset[str]]]:
    """(path, part, type wanted there, scope) of each part below the root."""
    production = PRODUCTIONS[INDEX[tree[0]]]
    for k, (part, wanted) in enumerate(zip(tree[1:], production.takes, strict=True)):
        inner = inner_scope(production, k, scope)
        yield (k,), part, wanted, inner
        for path, below, of, around in _inside(part, inner):
            yield (k, *path), below, of, around


def _with(tree: Tree, path: tuple[int, ...], part: Tree) -> Tree:
    if not path:
        return part
    parts = list(tree)
    parts[path[0] + 1] = _with(parts[path[0] + 1], path[1:], part)
    return tuple(parts)


def _outer(kind: str, signature: Signature) -> frozenset[str]:
    return frozenset(() if kind == "class" else (name for name, _ in signature))


def _shorter(tree: Tree, kind: str, signature: Signature) -> Iterator[Tree]:
    """With a part replaced by a part of it, or by a variable or constant."""
    scope = _outer(kind, signature)
    parts = _grammar(kind)
    whole = [((), tree, PRODUCTIONS[INDEX[tree[0]]].gives, scope)] if not PRODUCTIONS[INDEX[tree[0]]].binds else []
    for path, part, wanted, around in [*whole, *_inside(tree, scope)]:
        if len(part) == 1:
            continue
        for below in part[1:]:
            if fits(INDEX[below[0]], wanted, around):
                yield _with(tree, path, below)
        for leaf in parts.legal(wanted, around, 1):
            yield _with(tree, path, (PRODUCTIONS[leaf].name,))


def _mutants(tree: Tree, kind: str, signature: Signature) -> Iterator[Tree]:
    """With one production exchanged for another that takes the same, or one part for a leaf."""
    yield from _shorter(tree, kind, signature)
    scope = _outer(kind, signature)
    places = [((), tree, PRODUCTIONS[INDEX[tree[0]]].gives, scope), *_inside(tree, scope)]
    for path, part, wanted, around in places:
        takes = PRODUCTIONS[INDEX[part[0]]].takes
        for index in grammar_of(kind):
            other = PRODUCTIONS[index]
            if other.name != part[0] and other.takes == takes and not other.binds and fits(index, wanted, around):
                yield _with(tree, path, (other.name, *part[1:]))


# ---------------------------------------------------------------------------------------------- words and verdicts


def _prompt(kind: str, language: str, drawn: _Drawn, shown: Sequence[Case]) -> str:
    title, text = TITLES[language], words(prefix(drawn.tree))
    if kind == "class":
        numbers = [f"after putting {', '.join(map(str, c['args'][0]))} one by one: {c['value']}" for c in shown]
        return (
            f"Write a {title} class Box with put(x), which takes a whole number and returns nothing, and get(): "
            f"{text}. What get() gives after each put, {'; '.join(numbers)}."
        )
    names = ", ".join(name for name, _ in drawn.signature)
    types = " and ".join(_TYPES[of] for _, of in drawn.signature)
    what = "static method f" if language == "java" else "function f"
    where = " of a class Solution" if language == "java" else ""
    how = " with a loop" if kind == "algorithm" else ""
    calls = "; ".join(f"f({', '.join(map(repr, c['args']))}) is {c['value']!r}".replace("'", '"') for c in shown)
    return f"Write a {title} {what}({names}){where}{how}, of {types}: {text}. Examples: {calls}."


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _digest(drawn: _Drawn) -> str:
    """What a program does."""
    text = repr((drawn.signature, [tuple(zip(drawn.inputs, drawn.values, strict=True))]))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _wrong(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    return value + "a" if isinstance(value, str) else [*value, 0]


def _job(task: Task, answer: str) -> Job:
    entry = ENTRY[task.kind]
    if task.kind != "class" and task.data["language"] == "java":
        entry = f"Solution.{entry}"
    cases = [*task.data["public"], *task.answer]
    return Job(answer, entry, tuple(_as_calls(case) if task.kind == "class" else case for case in cases))


def _as_calls(case: Case) -> Case:
    """A put and a get for each number; a put gives nothing."""
    calls = [call for x in case["args"][0] for call in (["put", x], ["get"])]
    return {"calls": calls, "value": [each for value in case["value"] for each in (None, value)]}


@lru_cache
def _sandbox() -> Sandbox:
    """One for all verdicts of this process, with a warm worker for Python."""
    return Sandbox(Limits(wall_seconds=20.0, cpu_seconds=5.0), workers=1)
