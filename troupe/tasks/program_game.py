"""Writing a program from examples as a game: a typed grammar is expanded, leftmost hole first, to a whole program.

    f(a), f([1, 2]) == 3, f([4]) == 4        return ?   ->   return the sum of ?   ->   return the sum of a

An action is a production; legal are those of the type wanted, among the parts that the task allows, with which the
whole can still be finished within the task's size. The first productions may be given. A finished program is
interpreted on the public examples, and pays 1 where all of them pass. What the player sees is the examples, the program
so far, and what the open part has to be for the examples to pass, as far as the finished parts beside it decide that
(`Production.inverse`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem
from troupe.errors import DataError, did_you_mean
from troupe.tasks.grammar import (
    INDEX,
    KINDS,
    PRODUCTIONS,
    ROOTS,
    VARIABLES,
    Fault,
    Parts,
    Tree,
    apply,
    evaluate,
    grammar_of,
    inner_scope,
    tree_of,
)
from troupe.tasks.program_text import LANGUAGES, source, words

__all__ = ["EXAMPLES", "ProgramGame", "ProgramState", "Shape", "frozen"]

EXAMPLES = 4
"""Public examples of a task."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Tokens that a kind's observation has: for each argument and the value of an example, and for the program."""

    arguments: tuple[int, ...]
    value: int
    program: int

    @property
    def length(self) -> int:
        return EXAMPLES * (sum(self.arguments) + 1 + self.value) + self.program + 2


SHAPES = {"function": Shape((5, 1), 6, 12), "algorithm": Shape((5, 3), 6, 14), "class": Shape((4,), 4, 14)}

# Token ids.
EXACT, INSIDE, FREE, FAULT, EMPTY = 1, 2, 3, 4, 5
"""Before a value: this part has to be it; the part is inside of what has to be it; the part may be anything here."""
LOWEST, HIGHEST = -20, 79
FIRST_NUMBER = 6
BELOW = FIRST_NUMBER + HIGHEST - LOWEST + 1
BEYOND = BELOW + 1
LETTERS = "abcdeABCDE!"
FIRST_LETTER = BEYOND + 1
FIRST_PRODUCTION = FIRST_LETTER + len(LETTERS)
TYPES = ("int", "str", "list", "bool", "const", "int program", "list program", "class")
FIRST_TYPE = FIRST_PRODUCTION + len(PRODUCTIONS)
VOCABULARY = FIRST_TYPE + len(TYPES)

Column = tuple[Any, ...]
"""The value of a finished part for each example; None where it faults."""
Wanted = tuple[tuple[int, Any], ...]
"""For each example: EXACT, INSIDE or FREE, and a value."""


@dataclass(frozen=True, slots=True)
class _Spec:
    """What a task asks, prepared. Specs with one digest are equal."""

    digest: str
    kind: str = field(compare=False)
    language: str = field(compare=False)
    signature: tuple[tuple[str, str], ...] = field(compare=False)
    returns: str = field(compare=False)
    inputs: tuple[Mapping[str, Any], ...] = field(compare=False)  # an environment for each example
    outputs: Column = field(compare=False)
    size: int = field(compare=False)
    parts: Parts = field(compare=False)
    arguments: tuple[tuple[int, ...], ...] = field(compare=False)  # tokens of each example's arguments
    scope: frozenset[str] = field(compare=False)


class _Frame(NamedTuple):
    """A production whose parts are being written. It has to be `wanted`, its next part `hole`."""

    production: int
    trees: tuple[Tree, ...]
    columns: tuple[Column | None, ...]
    scope: frozenset[str]
    bound: bool  # inside of a loop or method, where a part has no value of its own
    wanted: Wanted
    hole: Wanted
    arguments: tuple[tuple[int, ...], ...]
    parent: _Frame | None


class ProgramState(NamedTuple):
    """`chosen` are the productions so far; `spare` is how many more than the fewest still fit."""

    spec: _Spec
    chosen: tuple[int, ...]
    frame: _Frame | None
    spare: int
    finished: bool
    solved: bool


class ProgramGame:
    """All programs of one kind; action k is production k of `grammar.PRODUCTIONS`."""

    players = 1
    actions = len(PRODUCTIONS)
    vocabulary = VOCABULARY
    pointers = 0

    def __init__(self, kind: str) -> None:
        if kind not in KINDS:
            raise DataError(f"there are no programs of the kind {kind!r}{did_you_mean(kind, KINDS)}")
        self.kind = kind
        self.shape = SHAPES[kind]
        self.observation_shape = (self.shape.length,)

    def initial(self) -> ProgramState:
        return self.begin(Problem("example", self.kind, "", _EXAMPLES[self.kind]))

    def begin(self, problem: Problem) -> ProgramState:
        spec = _spec(problem, self.kind, self.shape)
        spare = spec.size - spec.parts.shortest_root(ROOTS[self.kind][spec.returns], spec.scope)
        if spare < 0:
            raise DataError(f"{problem.id}: its parts make no program within size {spec.size}; allow more of either")
        state = ProgramState(spec, (), None, spare, False, False)
        for name in problem.data.get("given", ()):
            state, _, done, _ = self.step(state, INDEX.get(name, -1))
            if done:
                raise DataError(f"{problem.id}: 'given' is a whole program; leave some of it to be written")
        return state

    def legal(self, state: ProgramState) -> tuple[int, ...]:
        if state.finished:
            return ()
        wanted, scope, _ = _open(state)
        return state.spec.parts.legal(wanted, scope, self._least(state, wanted, scope) + state.spare)

    def step(self, state: ProgramState, action: int) -> tuple[ProgramState, float, bool, int]:
        spec = state.spec
        wanted, scope, bound = _open(state)
        least = self._least(state, wanted, scope)
        if action not in spec.parts.legal(wanted, scope, least + state.spare):
            raise DataError(f"ProgramGame.step: action {action} is not legal in {self.render(state)!r}")
        chosen = (*state.chosen, action)
        spare = state.spare - (spec.parts.cost(action, scope) - least)
        production = PRODUCTIONS[action]
        if production.takes:
            return ProgramState(spec, chosen, _push(state, action, scope, bound), spare, False, False), 0.0, False, 0
        frame, column = _climb(state.frame, (production.name,), None if bound else _leaf(spec, production.name), spec)
        if frame is not None:
            return ProgramState(spec, chosen, frame, spare, False, False), 0.0, False, 0
        solved = column == spec.outputs
        return ProgramState(spec, chosen, None, spare, True, solved), float(solved), True, 0

    def observe(self, state: ProgramState) -> np.ndarray:
        """float32 `[L]`: of each example the arguments, a flag and what is wanted; the program; type and spare size."""
        spec, frame, shape = state.spec, state.frame, self.shape
        hole = frame.hole if frame else tuple((EXACT, output) for output in spec.outputs)
        tokens: list[int] = []
        for arguments, (flag, value) in zip(frame.arguments if frame else spec.arguments, hole, strict=True):
            tokens += arguments
            tokens.append(flag)
            tokens += _tokens(value, shape.value)
        tokens += [FIRST_PRODUCTION + index for index in state.chosen]
        tokens += (0,) * (shape.length - 2 - len(tokens))
        if not state.finished:
            tokens += [FIRST_TYPE + TYPES.index(_open(state)[0]), FIRST_NUMBER - LOWEST + min(state.spare, 9)]
        else:
            tokens += (0, 0)
        return np.array(tokens, np.float32)

    def key(self, state: ProgramState) -> Hashable:
        return state.spec.digest, state.chosen

    def answer(self, state: ProgramState) -> str | None:
        """The program's source where it passes the public examples; nobody need run one that fails what is known."""
        if not state.solved:
            return None
        spec = state.spec
        return source(spec.kind, spec.language, spec.signature, spec.returns, tree_of(state.chosen))

    def describe(self, state: ProgramState, action: int) -> str:
        """`return the sum of ...`: the program in words, as far as it is then written."""
        return words((*state.chosen, action))

    def render(self, state: ProgramState) -> str:
        spec = state.spec
        shown = [
            f"{', '.join(str(env[name]) for name, _ in spec.signature)} -> {value}"
            for env, value in zip(spec.inputs, spec.outputs, strict=True)
        ]
        return f"{words(state.chosen) if state.chosen else 'return ...'}\n{'; '.join(shown)}"

    def _least(self, state: ProgramState, wanted: str, scope: frozenset[str]) -> int:
        parts = state.spec.parts
        return parts.shortest(wanted, scope) if state.frame else parts.shortest_root(wanted, scope)


def _open(state: ProgramState) -> tuple[str, frozenset[str], bool]:
    """Type and scope of the open part, and whether it is inside of a loop or method."""
    frame = state.frame
    if frame is None:
        return ROOTS[state.spec.kind][state.spec.returns], state.spec.scope, False
    production, part = PRODUCTIONS[frame.production], len(frame.trees)
    bound = frame.bound or bool(production.binds and production.binds[part])
    return production.takes[part], inner_scope(production, part, frame.scope), bound


def _leaf(spec: _Spec, name: str) -> Column:
    if name in VARIABLES:
        return tuple(env[name] for env in spec.inputs)
    return (apply(PRODUCTIONS[INDEX[name]], ()),) * len(spec.inputs)


def _push(state: ProgramState, action: int, scope: frozenset[str], bound: bool) -> _Frame:
    above = state.frame
    wanted = above.hole if above else tuple((EXACT, output) for output in state.spec.outputs)
    arguments = above.arguments if above else state.spec.arguments
    frame = _Frame(action, (), (), scope, bound, wanted, wanted, arguments, above)
    return frame._replace(hole=_hole(frame))


def _climb(frame: _Frame | None, tree: Tree, column: Column | None, spec: _Spec) -> tuple[_Frame | None, Column | None]:
    """Puts a finished part into its frame, and so on while that finishes frames: (the frame that is open then, None),
    or (None, the values of the whole program)."""
    while frame is not None:
        production = PRODUCTIONS[frame.production]
        frame = frame._replace(trees=(*frame.trees, tree), columns=(*frame.columns, column))
        if len(frame.trees) < len(production.takes):
            if production.gives == "class" and len(frame.trees) == len(production.takes) - 1:
                frame = frame._replace(arguments=_states(frame, spec))
            return frame._replace(hole=_hole(frame)), None
        tree, column = (production.name, *frame.trees), _value(frame, spec)
        frame = frame.parent
    return None, column


def _value(frame: _Frame, spec: _Spec) -> Column | None:
    """Of a frame whose parts are all there."""
    production = PRODUCTIONS[frame.production]
    if frame.bound:
        return None
    if production.binds:
        tree = (production.name, *frame.trees)
        return tuple(_tried(evaluate, tree, env) for env in spec.inputs)
    rows = zip(*[column or () for column in frame.columns], strict=True)
    if production.run is not None:
        return tuple(None if row[0] is None else row[1] if row[0] else row[2] for row in rows)
    return tuple(None if None in row else _tried(apply, production, row) for row in rows)


def _tried(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Fault:
        return None


def _hole(frame: _Frame) -> Wanted:
    """What the next part of a frame has to be."""
    production, part = PRODUCTIONS[frame.production], len(frame.trees)
    if frame.bound or production.binds:
        return tuple((INSIDE, value) for _, value in frame.wanted)
    return tuple(
        _part_wanted(frame, part, flag, value, [column[e] for column in frame.columns if column])
        for e, (flag, value) in enumerate(frame.wanted)
    )


def _part_wanted(frame: _Frame, part: int, flag: int, value: Any, before: Sequence[Any]) -> tuple[int, Any]:
    production = PRODUCTIONS[frame.production]
    if production.run is not None and part > 0 and before[0] is not None:
        return (flag, value) if before[0] == (part == 1) else (FREE, value)
    if flag != EXACT or production.inverse is None or None in before:
        return max(flag, INSIDE), value
    found = production.inverse(part, before, value)
    return (INSIDE, value) if found is None else (EXACT, found)


def _states(frame: _Frame, spec: _Spec) -> tuple[tuple[int, ...], ...]:
    """In the place of what is put, once `put` is written: the states after each put, or the last of a list."""
    name = PRODUCTIONS[frame.production].name
    width = SHAPES["class"].arguments[0]
    if name == "number_state":
        histories = [_tried(evaluate, (name, *frame.trees, ("total",)), env) for env in spec.inputs]
        return tuple(tuple(_tokens(states, width)) for states in histories)
    return tuple(tuple(_tokens(_last_items(frame.trees[0], env), width)) for env in spec.inputs)


def _last_items(update: Tree, env: Mapping[str, Any]) -> Any:
    items: Any = ()
    for x in env["a"]:
        items = _tried(evaluate, update, {"items": items, "x": x})
        if items is None:
            break
    return items


# ---------------------------------------------------------------------------------------------- reading and tokens


def _tokens(value: Any, width: int) -> list[int]:
    """A value in `width` tokens: a number in one, a text or list in one for each letter or item, cut where longer."""
    if value is None:
        tokens = [FAULT]
    elif isinstance(value, str):
        tokens = [FIRST_LETTER + LETTERS.index(letter) for letter in value[:width]] or [EMPTY]
    elif isinstance(value, tuple):
        tokens = [_number(item) for item in value[:width]] or [EMPTY]
    else:
        tokens = [_number(value)]
    return tokens + [0] * (width - len(tokens))


def _number(value: int) -> int:
    if LOWEST <= value <= HIGHEST:
        return FIRST_NUMBER + value - LOWEST
    return BELOW if value < LOWEST else BEYOND


def frozen(value: Any) -> Any:
    """A list as the tuple that the interpreter works on; other values as they are."""
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4096)
def _parts(names: tuple[str, ...]) -> Parts:
    return Parts([INDEX[name] for name in names])


def _spec(problem: Problem, kind: str, shape: Shape) -> _Spec:
    """Raises DataError for data of another shape."""
    data, where = problem.data, problem.id
    for name in ("language", "signature", "returns", "public", "size", "parts"):
        if name not in data:
            raise DataError(f"{where}: there is no {name!r}; write what CodeGenerationTaskGenerator writes")
    signature = tuple((name, kind_of) for name, kind_of in data["signature"])
    known = {PRODUCTIONS[index].name for index in grammar_of(kind)}
    for wrong in [name for name in data["parts"] if name not in known]:
        raise DataError(f"{where}: a {kind} has no part {wrong!r}{did_you_mean(str(wrong), known)}")
    for name, of in signature:
        if VARIABLES.get(name) != of:
            raise DataError(f"{where}: there is no argument {name!r} of type {of!r}; write one such as ['a', 'list']")
    if data["language"] not in LANGUAGES or data["returns"] not in ROOTS[kind]:
        raise DataError(f"{where}: no {kind} in {data['language']!r} returns {data['returns']!r}")
    if len(data["public"]) != EXAMPLES or not 1 <= data["size"] <= shape.program:
        raise DataError(f"{where}: write {EXAMPLES} public examples and a size from 1 to {shape.program}")
    inputs = tuple(
        {name: frozen(value) for (name, _), value in zip(signature, case["args"], strict=True)}
        for case in data["public"]
    )
    outputs = tuple(frozen(case["value"]) for case in data["public"])
    names, given = tuple(data["parts"]), tuple(data.get("given", ()))
    scope = frozenset(() if kind == "class" else (name for name, _ in signature))
    digest = repr((kind, data["language"], signature, data["returns"], inputs, outputs, data["size"], names, given))
    arguments = tuple(_argument_tokens(env, shape, where) for env in inputs)
    return _Spec(
        digest, kind, data["language"], signature, data["returns"], inputs, outputs, data["size"],
        _parts(names), arguments, scope,
    )  # fmt: skip


def _argument_tokens(env: Mapping[str, Any], shape: Shape, where: str) -> tuple[int, ...]:
    if len(env) > len(shape.arguments):
        raise DataError(f"{where}: it has {len(env)} arguments; write at most {len(shape.arguments)}")
    tokens: list[int] = []
    for value, width in zip((*env.values(), *[None] * len(shape.arguments)), shape.arguments, strict=False):
        if isinstance(value, str | tuple) and len(value) > width:
            raise DataError(f"{where}: the argument {value!r} is longer than {width}")
        if isinstance(value, str) and not set(value) <= set(LETTERS):
            raise DataError(f"{where}: the text {value!r} has letters other than {LETTERS}")
        tokens += [0] * width if value is None else _tokens(value, width)
    return tuple(tokens)


_PUBLIC = [([1, 2, 3], 6), ([4], 4), ([5, 5], 10), ([0, 7], 7)]
_SHARED = {"language": "python", "signature": [["a", "list"]]}
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "function": {
        **_SHARED, "returns": "int", "size": 2, "parts": ["a", "sum", "count", "most"],
        "public": [{"args": [a], "value": value} for a, value in _PUBLIC],
    },
    "algorithm": {
        **_SHARED, "returns": "int", "size": 6, "parts": ["a", "r", "i", "0", "1", "add", "fold", "larger"],
        "public": [{"args": [a], "value": value} for a, value in _PUBLIC],
    },
    "class": {
        **_SHARED, "returns": "list", "size": 6, "parts": ["x", "total", "0", "1", "add", "number_state"],
        "public": [{"args": [a], "value": [sum(a[: n + 1]) for n in range(len(a))]} for a, _ in _PUBLIC],
    },
}  # fmt: skip
"""Small tasks: the sum of a list, by a function, by a loop and by an object."""
