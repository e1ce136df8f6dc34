"""A typed grammar of small programs over whole numbers, texts and lists of whole numbers, and their interpreter.

    tree = ("sum", ("reverse", ("a",)))              # productions by name; a leaf is ("a",)
    evaluate(tree, {"a": (1, 2, 3)})                 # 6

A program is a tree of productions. A production has a type that it gives, types that it takes, and what it does:
`apply(*values)` for plain operations, `run(trees, env)` for those that decide which of their parts are evaluated, and
how often (conditions, loops, classes). `binds` names the variables that a part may use beside those around it, as the
body of a loop does. Lists are tuples here. What the languages do not agree on (an index outside, a division by zero,
the largest of nothing, more than a few thousand) is a `Fault`, so that programs that work mean the same everywhere.

Three kinds of programs: `function` (one expression), `algorithm` (a loop at the root: a fold, a list built item by
item, Euclid's two-variable loop, a bisection, a merge) and `class` (a state, how `put(x)` changes it, what `get()`
gives).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = [
    "INDEX",
    "KINDS",
    "PRODUCTIONS",
    "ROOTS",
    "VARIABLES",
    "Fault",
    "Parts",
    "Production",
    "Tree",
    "apply",
    "evaluate",
    "grammar_of",
    "prefix",
    "tree_of",
]

Tree = tuple[Any, ...]
"""(name of a production, tree of its first part, ...)."""

KINDS = ("function", "algorithm", "class")

LARGEST, LONGEST, ROUNDS = 9999, 24, 64
"""Numbers, lengths of texts and lists, and rounds of a loop, beyond which a program faults."""

VARIABLES = {
    "x": "int", "y": "int", "s": "str", "a": "list", "b": "list",  # arguments
    "r": "int", "out": "list", "i": "int",  # folds: the result so far, the item
    "u": "int", "v": "int",  # Euclid's loop
    "m": "int",  # bisection: the middle
    "p": "int", "q": "int",  # merge: the next items of a and b
    "total": "int", "items": "list",  # state of a class
}  # fmt: skip
CONSTANTS = (0, 1, 2, 3, 4, 5, 10)


class Fault(ArithmeticError):
    """A program did what has no value."""


@dataclass(frozen=True, slots=True)
class Production:
    """One way to write something of the type `gives`.

    `inverse(k, before, wanted)` is what part k has to be for the whole to be `wanted`, given the values of the parts
    before it; None where that does not follow. `text` says it in words around its parts.
    """

    name: str
    gives: str
    takes: tuple[str, ...] = ()
    text: str = ""
    apply: Callable[..., Any] | None = None
    run: Callable[[Sequence[Tree], Mapping[str, Any]], Any] | None = None
    inverse: Callable[[int, Sequence[Any], Any], Any] | None = None
    binds: tuple[tuple[str, ...], ...] = ()
    needs: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- evaluation


def evaluate(tree: Tree, env: Mapping[str, Any]) -> Any:
    """The value of a tree where `env` holds the variables. Raises Fault."""
    production = PRODUCTIONS[INDEX[tree[0]]]
    if production.run is not None:
        return bounded(production.run(tree[1:], env))
    if production.apply is None:
        return env[production.name]
    return bounded(production.apply(*[evaluate(part, env) for part in tree[1:]]))


def apply(production: Production, values: Sequence[Any]) -> Any:
    """The value of a plain operation on values. Raises Fault."""
    assert production.apply is not None
    return bounded(production.apply(*values))


def bounded(value: Any) -> Any:
    if isinstance(value, int):
        if not -LARGEST <= value <= LARGEST:
            raise Fault("the number is too large")
    elif len(value) > LONGEST or (isinstance(value, tuple) and any(not -LARGEST <= v <= LARGEST for v in value)):
        raise Fault("the value is too large")
    return value


def _checked(holds: bool, why: str) -> None:
    if not holds:
        raise Fault(why)


def _divide(divisor: int, value: int) -> int:
    _checked(divisor > 0, "divided by what is not above 0")
    return value // divisor


def _remainder(divisor: int, value: int) -> int:
    _checked(divisor > 0, "divided by what is not above 0")
    return value % divisor


def _of_some(function: Callable[[tuple[int, ...]], int]) -> Callable[[tuple[int, ...]], int]:
    def apply(items: tuple[int, ...]) -> int:
        _checked(bool(items), "there is no item")
        return function(items)

    return apply


def _item(place: int, items: tuple[int, ...]) -> int:
    _checked(0 <= place < len(items), "there is no such item")
    return items[place]


def _up_to(last: int) -> tuple[int, ...]:
    _checked(last <= LONGEST, "the range is too long")
    return tuple(range(1, last + 1))


def _choose(parts: Sequence[Tree], env: Mapping[str, Any]) -> Any:
    return evaluate(parts[1] if evaluate(parts[0], env) else parts[2], env)


def _fold(variable: str) -> Callable[[Sequence[Tree], Mapping[str, Any]], Any]:
    """For each item of the first part the variable becomes the last part; before the first it is the second part."""

    def run(parts: Sequence[Tree], env: Mapping[str, Any]) -> Any:
        items = evaluate(parts[0], env)
        inner = {**env, variable: evaluate(parts[1], env) if len(parts) == 3 else ()}
        for item in items:
            inner["i"] = item
            inner[variable] = evaluate(parts[-1], inner)
        return inner[variable]

    return run


def _euclid(parts: Sequence[Tree], env: Mapping[str, Any]) -> int:
    inner = {**env, "u": env["x"], "v": env["y"]}
    for _ in range(ROUNDS):
        if not evaluate(parts[0], inner):
            found: int = inner["u"]
            return found
        inner["u"], inner["v"] = evaluate(parts[1], inner), evaluate(parts[2], inner)
    raise Fault("the loop does not end")


def _bisect(parts: Sequence[Tree], env: Mapping[str, Any]) -> int:
    low, high = 0, evaluate(parts[0], env)
    inner = dict(env)
    while low < high:
        inner["m"] = middle = (low + high) // 2
        if evaluate(parts[1], inner):
            low = middle + 1
        else:
            high = middle
    return low


def _merge(parts: Sequence[Tree], env: Mapping[str, Any]) -> tuple[int, ...]:
    left, right, merged = list(env["a"]), list(env["b"]), []
    inner = dict(env)
    while left and right:
        inner["p"], inner["q"] = left[0], right[0]
        merged.append((left if evaluate(parts[0], inner) else right).pop(0))
    return (*merged, *left, *right)


def _object(variable: str) -> Callable[[Sequence[Tree], Mapping[str, Any]], Any]:
    """What `get()` gives after each `put(x)`, for the xs of the argument `a`."""

    def run(parts: Sequence[Tree], env: Mapping[str, Any]) -> tuple[int, ...]:
        inner = {variable: evaluate(parts[0], env) if len(parts) == 3 else ()}
        found = []
        for x in env["a"]:
            inner = {variable: evaluate(parts[-2], {**inner, "x": x})}
            found.append(evaluate(parts[-1], inner))
        return tuple(found)

    return run


# ---------------------------------------------------------------------------------------------- what parts have to be


def _second(solve: Callable[[Any, Any], Any]) -> Callable[[int, Sequence[Any], Any], Any]:
    """The second part from the first and the whole."""
    return lambda k, before, wanted: solve(before[0], wanted) if k == 1 else None


def _only(solve: Callable[[Any], Any]) -> Callable[[int, Sequence[Any], Any], Any]:
    return lambda k, before, wanted: solve(wanted)


def _quotient(factor: int, wanted: int) -> int | None:
    return wanted // factor if factor and wanted % factor == 0 else None


def _quotients(factor: int, wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    return tuple(v // factor for v in wanted) if factor and not any(v % factor for v in wanted) else None


def _rest(start: Any, wanted: Any) -> Any:
    """What follows `start` in a text or list."""
    return wanted[len(start) :] if wanted[: len(start)] == start else None


def _repeated(times: int, wanted: str) -> str | None:
    part = wanted[: len(wanted) // times] if times else ""
    return part if part * times == wanted else None


def _appended(k: int, before: Sequence[Any], wanted: tuple[int, ...]) -> Any:
    return (wanted[-1] if k == 0 else wanted[:-1]) if wanted else None


# ---------------------------------------------------------------------------------------------- the productions

P = Production

_INTS = (
    P("add", "int", ("int", "int"), "{0} + {1}", lambda v, w: v + w, inverse=_second(lambda v, all: all - v)),
    P("sub", "int", ("int", "int"), "{0} - {1}", lambda v, w: v - w, inverse=_second(lambda v, all: v - all)),
    P("mul", "int", ("int", "int"), "{0} * {1}", lambda v, w: v * w, inverse=_second(_quotient)),
    P("div", "int", ("int", "int"), "{1} divided by {0}, rounded down", _divide),
    P("mod", "int", ("int", "int"), "the remainder of {1} by {0}", _remainder),
    P("smaller", "int", ("int", "int"), "the smaller of {0} and {1}", min),
    P("larger", "int", ("int", "int"), "the larger of {0} and {1}", max),
    P("abs", "int", ("int",), "the absolute value of {0}", abs),
    P("if", "int", ("bool", "int", "int"), "{1} if {0}, else {2}", run=_choose),
    P("sum", "int", ("list",), "the sum of {0}", sum),
    P("count", "int", ("list",), "the number of items in {0}", len),
    P("most", "int", ("list",), "the largest item of {0}", _of_some(max)),
    P("least", "int", ("list",), "the smallest item of {0}", _of_some(min)),
    P("first", "int", ("list",), "the first item of {0}", _of_some(lambda items: items[0])),
    P("last", "int", ("list",), "the last item of {0}", _of_some(lambda items: items[-1])),
    P("item", "int", ("int", "list"), "the item of {1} at index {0}", _item),
    P("length", "int", ("str",), "the length of {0}", len),
)
_BOOLS = (
    P("less", "bool", ("int", "int"), "{0} is below {1}", lambda v, w: v < w),
    P("equal", "bool", ("int", "int"), "{0} equals {1}", lambda v, w: v == w),
    P("even", "bool", ("int",), "{0} is even", lambda v: v % 2 == 0),
)
_STRS = (
    P("backwards", "str", ("str",), "{0} backwards", lambda s: s[::-1], inverse=_only(lambda all: all[::-1])),
    P("upper", "str", ("str",), "{0} in upper case", str.upper),
    P("start", "str", ("const", "str"), "the first {0} letters of {1}", lambda n, s: s[:n]),
    P("rest", "str", ("const", "str"), "{1} without its first {0} letters", lambda n, s: s[n:]),
    P("concat", "str", ("str", "str"), "{0} followed by {1}", lambda s, t: s + t, inverse=_second(_rest)),
    P("repeat", "str", ("const", "str"), "{1} repeated {0} times", lambda n, s: s * n, inverse=_second(_repeated)),
    P("mark", "str", (), '"!"', lambda: "!"),
)
_LISTS = (
    P("sorted", "list", ("list",), "{0} sorted", lambda a: tuple(sorted(a))),
    P("reverse", "list", ("list",), "{0} in reverse", lambda a: a[::-1], inverse=_only(lambda all: all[::-1])),
    P("take", "list", ("const", "list"), "the first {0} items of {1}", lambda n, a: a[:n]),
    P("drop", "list", ("const", "list"), "{1} without its first {0} items", lambda n, a: a[n:]),
    P(
        "add_each", "list", ("const", "list"), "{1} with {0} added to each item", lambda n, a: tuple(v + n for v in a),
        inverse=_second(lambda n, all: tuple(v - n for v in all)),
    ),
    P(
        "mul_each", "list", ("const", "list"), "{1} with each item multiplied by {0}",
        lambda n, a: tuple(v * n for v in a), inverse=_second(_quotients),
    ),
    P("above", "list", ("const", "list"), "the items of {1} above {0}", lambda n, a: tuple(v for v in a if v > n)),
    P("below", "list", ("const", "list"), "the items of {1} below {0}", lambda n, a: tuple(v for v in a if v < n)),
    P("append", "list", ("int", "list"), "{1} followed by the item {0}", lambda v, a: (*a, v), inverse=_appended),
    P("join", "list", ("list", "list"), "{0} followed by {1}", lambda a, b: a + b, inverse=_second(_rest)),
    P("if_list", "list", ("bool", "list", "list"), "{1} if {0}, else {2}", run=_choose),
    P("up_to", "list", ("int",), "the numbers from 1 to {0}", _up_to),
)  # fmt: skip
_LOOPS = (
    P(
        "fold", "int program", ("list", "int", "int"),
        "start with r = {1}; for each item i of {0}, r becomes {2}; return r",
        run=_fold("r"), binds=((), (), ("r", "i")),
    ),
    P(
        "build", "list program", ("list", "list"),
        "start with the empty list out; for each item i of {0}, out becomes {1}; return out",
        run=_fold("out"), binds=((), ("out", "i")),
    ),
    P(
        "euclid", "int program", ("bool", "int", "int"),
        "start with u = x and v = y; while {0}, u and v together become {1} and {2}; return u",
        run=_euclid, binds=(("u", "v"),) * 3, needs=("x", "y"),
    ),
    P(
        "bisect", "int program", ("int", "bool"),
        "by bisection, return the first m from 0 on, and {0} at the latest, for which it is not so that {1}",
        run=_bisect, binds=((), ("m",)),
    ),
    P(
        "merge", "list program", ("bool",),
        "merge a and b: while both have items, take the first item p of a if {0}, otherwise the first item q of b",
        run=_merge, binds=(("p", "q"),), needs=("a", "b"),
    ),
)  # fmt: skip
_CLASSES = (
    P(
        "number_state", "class", ("const", "int", "int"),
        "total is {0} at first; put(x) makes it {1}; get() gives {2}",
        run=_object("total"), binds=((), ("total", "x"), ("total",)),
    ),
    P(
        "list_state", "class", ("list", "int"),
        "items is empty at first; put(x) makes it {0}; get() gives {1}",
        run=_object("items"), binds=(("items", "x"), ("items",)),
    ),
)  # fmt: skip

PRODUCTIONS: tuple[Production, ...] = (
    *(Production(name, gives, text=name) for name, gives in VARIABLES.items()),
    *(Production(str(n), "const", text=str(n), apply=lambda n=n: n) for n in CONSTANTS),
    *(*_INTS, *_BOOLS, *_STRS, *_LISTS, *_LOOPS, *_CLASSES),
)
INDEX = {production.name: index for index, production in enumerate(PRODUCTIONS)}
NAMES = tuple(INDEX)

ROOTS = {
    "function": {"int": "int", "str": "str", "list": "list"},
    "algorithm": {"int": "int program", "list": "list program"},
    "class": {"list": "class"},
}
"""Of each kind, the type of the root for each type that is returned; a class returns what its `get()` gave."""

_TEXTS = ("s", "length", *(production.name for production in _STRS))
_OUTSIDE = {
    "function": (),
    "algorithm": _TEXTS,
    "class": (*_TEXTS, "up_to"),
}


@lru_cache
def grammar_of(kind: str) -> tuple[int, ...]:
    """The productions that programs of a kind are made of, as indices, rising."""
    loops = [production.name for production in (*_LOOPS, *_CLASSES)]
    used = {"function": (), "algorithm": [p.name for p in _LOOPS], "class": [p.name for p in _CLASSES]}[kind]
    outside = {*_OUTSIDE[kind], *loops} - set(used)
    return tuple(index for index, production in enumerate(PRODUCTIONS) if production.name not in outside)


# ---------------------------------------------------------------------------------------------- writing programs


def prefix(tree: Tree) -> tuple[int, ...]:
    """The productions of a tree, each before its parts: the order in which they are chosen."""
    return (INDEX[tree[0]], *(index for part in tree[1:] for index in prefix(part)))


def tree_of(indices: Sequence[int]) -> Tree:
    """The tree that `prefix` came from. Raises ValueError where it ends early or goes on."""
    found, end = _read(tuple(indices), 0)
    if end != len(indices):
        raise ValueError(f"a program of {end} productions has {len(indices)}")
    return found


def _read(indices: tuple[int, ...], at: int) -> tuple[Tree, int]:
    if at >= len(indices):
        raise ValueError("the program ends before all its parts are written")
    production = PRODUCTIONS[indices[at]]
    parts, end = [], at + 1
    for _ in production.takes:
        part, end = _read(indices, end)
        parts.append(part)
    return (production.name, *parts), end


Scope = frozenset[str]


class Parts:
    """Some productions, and what can be written with them: how short at least, and what may come next."""

    __slots__ = ("_costs", "_legal", "_shortest", "allowed")

    def __init__(self, allowed: Sequence[int]) -> None:
        self.allowed = tuple(sorted(allowed))
        self._shortest: dict[Scope, dict[str, int]] = {}
        self._costs: dict[tuple[int, Scope], int] = {}
        self._legal: dict[tuple[str, Scope, int], tuple[int, ...]] = {}

    def shortest(self, wanted: str, scope: Scope) -> int:
        """Productions that something of a type takes at least; more than any budget where it cannot be written."""
        return self._table(scope).get(wanted, UNREACHABLE)

    def shortest_root(self, root: str, scope: Scope) -> int:
        """As `shortest`, for the type of a root, which may be that of a loop or a class."""
        return min((self.cost(i, scope) for i in self.allowed if fits(i, root, scope)), default=UNREACHABLE)

    def cost(self, index: int, scope: Scope) -> int:
        """Productions that a production takes at least, with its parts."""
        found = self._costs.get((index, scope))
        if found is None:
            found = self._costs[index, scope] = self._cost(index, scope)
        return found

    def _cost(self, index: int, scope: Scope) -> int:
        production = PRODUCTIONS[index]
        return 1 + sum(
            self.shortest(wanted, inner_scope(production, k, scope)) for k, wanted in enumerate(production.takes)
        )

    def legal(self, wanted: str, scope: Scope, room: int) -> tuple[int, ...]:
        """Productions of a type that can be finished within `room` productions, rising."""
        asked = (wanted, scope, room)
        found = self._legal.get(asked)
        if found is None:
            found = tuple(i for i in self.allowed if fits(i, wanted, scope) and self.cost(i, scope) <= room)
            self._legal[asked] = found
        return found

    def _table(self, scope: Scope) -> dict[str, int]:
        """By type, until nothing gets shorter; loops and classes stand at the root alone."""
        table = self._shortest.get(scope)
        if table is None:
            table = self._shortest[scope] = {}
            while True:
                before = dict(table)
                for index in self.allowed:
                    production = PRODUCTIONS[index]
                    if not production.binds and _in_scope(production, scope):
                        for gives in (production.gives, "int") if production.gives == "const" else (production.gives,):
                            table[gives] = min(table.get(gives, UNREACHABLE), self._cost(index, scope))
                if table == before:
                    break
        return table


UNREACHABLE = 10**6


def fits(index: int, wanted: str, scope: Scope) -> bool:
    """Whether a production may stand where a type is wanted; a constant is a number too."""
    production = PRODUCTIONS[index]
    alike = production.gives == wanted or (wanted == "int" and production.gives == "const")
    return alike and _in_scope(production, scope)


def _in_scope(production: Production, scope: Scope) -> bool:
    return (production.name not in VARIABLES or production.name in scope) and scope.issuperset(production.needs)


@lru_cache(maxsize=4096)
def _inner(name: str, part: int, scope: Scope) -> Scope:
    production = PRODUCTIONS[INDEX[name]]
    if production.gives == "class":
        return frozenset(production.binds[part])  # the arguments of a class are those of its methods
    return scope | frozenset(production.binds[part])


def inner_scope(production: Production, part: int, scope: Scope) -> Scope:
    """The variables that may be used in a part."""
    return _inner(production.name, part, scope) if production.binds else scope
