"""PDDL (McDermott et al. 1998): a reader of domains and problems, a validator of plans, and grounding.

    domain, problem = parse_domain(text), parse_problem(other)
    replay(domain, problem, parse_plan("(unstack c b) (stack c d)")).failure        None, or what went wrong

The subset is STRIPS with `:typing`, `:negative-preconditions` and `:equality`. Names are blind to case. `replay`
binds an action's parameters and looks its conditions up in the set of facts, step by step; `ground` lists every
action that could ever be applied, for a search. They share the reader and nothing else, so one checks the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from troupe.errors import DataError

__all__ = [
    "Action",
    "Atom",
    "Domain",
    "Operator",
    "PlanningProblem",
    "Replay",
    "ground",
    "parse_domain",
    "parse_plan",
    "parse_problem",
    "replay",
    "written",
]

Atom = tuple[str, ...]
"""(predicate, argument, ...)."""

KNOWN = {":strips", ":typing", ":negative-preconditions", ":equality"}


class Literal(NamedTuple):
    positive: bool
    atom: Atom


@dataclass(frozen=True)
class Action:
    name: str
    parameters: tuple[tuple[str, str], ...]  # (variable, type)
    conditions: tuple[Literal, ...]
    effects: tuple[Literal, ...]


@dataclass(frozen=True)
class Domain:
    name: str
    predicates: Mapping[str, int]  # name -> arguments
    parents: Mapping[str, str]  # type -> the type above it
    constants: Mapping[str, str]  # object -> type
    actions: Mapping[str, Action]


@dataclass(frozen=True)
class PlanningProblem:
    name: str
    objects: Mapping[str, str]  # object -> type; the domain's constants included
    initial: frozenset[Atom]
    goal: tuple[Literal, ...]


def written(atom: Iterable[str]) -> str:
    """`(on a b)`."""
    return f"({' '.join(atom)})"


# ------------------------------------------------------------------------------------------- reading


def _read(text: str, what: str) -> list[Any]:
    """The one expression of a text, as nested lists of lower-case names. Raises DataError for unbalanced brackets."""
    plain = re.sub(r";[^\n]*", "", text).lower()
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", plain):
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise DataError(f"{what}: a bracket closes that was never opened; correct the PDDL text")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise DataError(f"{what}: expected one expression `(define ...)`; correct the PDDL text")
    return stack[0][0]


def _sections(tree: list[Any], what: str) -> tuple[str, list[list[Any]]]:
    head = tree[1] if len(tree) > 1 and isinstance(tree[1], list) else []
    if (
        tree[:1] != ["define"]
        or len(head) != 2
        or head[0] != what
        or not all(isinstance(part, list) and part for part in tree[2:])
    ):
        raise DataError(f"{what}: a text begins with `(define ({what} name)` and goes on with sections in brackets")
    return head[1], tree[2:]


def _typed(names: Sequence[str], what: str) -> dict[str, str]:
    """`a b - block c` as {a: block, b: block, c: object}."""
    found: dict[str, str] = {}
    waiting: list[str] = []
    items = iter(names)
    for name in items:
        if not isinstance(name, str):
            raise DataError(f"{what}: a list of names holds a bracket ({written(name)}); `either` types are not read")
        if name == "-":
            kind = next(items, None)
            if not isinstance(kind, str):
                raise DataError(f"{what}: a dash is not followed by the name of a type")
            found.update(dict.fromkeys(waiting, kind))
            waiting = []
        else:
            waiting.append(name)
    found.update(dict.fromkeys(waiting, "object"))
    return found


def _literals(tree: Any, what: str) -> tuple[Literal, ...]:
    """A conjunction of atoms and negated atoms."""
    if not tree:
        return ()
    if tree[0] == "and":
        return tuple(literal for part in tree[1:] for literal in _literals(part, what))
    positive = tree[0] != "not"
    atom = tree if positive else tree[1] if len(tree) == 2 else None
    if not isinstance(atom, list) or not atom or not all(isinstance(part, str) for part in atom):
        raise DataError(f"{what}: {tree[0]!r} is not read here; write a conjunction of atoms and negated atoms")
    return (Literal(positive, tuple(atom)),)


@lru_cache(maxsize=64)
def parse_domain(text: str) -> Domain:
    """Raises DataError for a text that is no domain of the subset."""
    name, sections = _sections(_read(text, "domain"), "domain")
    predicates: dict[str, int] = {}
    parents: dict[str, str] = {}
    constants: dict[str, str] = {}
    actions: dict[str, Action] = {}
    for section in sections:
        match section[0]:
            case ":requirements":
                strange = [key for key in section[1:] if key not in KNOWN]
                if strange:
                    raise DataError(
                        f"domain {name}: {strange[0]} is not read here; it knows {', '.join(sorted(KNOWN))}"
                    )
            case ":types":
                parents = _typed(section[1:], f"domain {name}")
            case ":constants":
                constants = _typed(section[1:], f"domain {name}")
            case ":predicates":
                predicates = {head: len(_typed(rest, f"domain {name}")) for head, *rest in section[1:]}
            case ":action":
                action = _action(section[1:], f"domain {name}")
                actions[action.name] = action
            case other:
                raise DataError(f"domain {name}: section {other} is not read here; remove it")
    domain = Domain(name, predicates, parents, constants, actions)
    for action in actions.values():
        bound = {variable for variable, _ in action.parameters}
        _check_atoms(domain, [*action.conditions, *action.effects], bound | set(constants), f"action {action.name}")
    return domain


def _action(parts: Sequence[Any], what: str) -> Action:
    fields = dict(zip(parts[1::2], parts[2::2], strict=False))
    unknown = set(fields) - {":parameters", ":precondition", ":effect"}
    if not isinstance(parts[0], str) or unknown or ":effect" not in fields:
        raise DataError(f"{what}: an action has a name, :parameters, :precondition and :effect; found {parts[0]!r}")
    where = f"{what}, action {parts[0]}"
    parameters = tuple(_typed(fields.get(":parameters", []), where).items())
    conditions, effects = (_literals(fields.get(key, []), where) for key in (":precondition", ":effect"))
    return Action(parts[0], parameters, conditions, effects)


def _check_atoms(domain: Domain, literals: Iterable[Literal], names: Iterable[str], what: str) -> None:
    names = set(names)
    for _, (predicate, *arguments) in literals:
        expected = 2 if predicate == "=" else domain.predicates.get(predicate)
        if expected != len(arguments):
            raise DataError(f"{what}: ({predicate} ...) with {len(arguments)} arguments is no predicate of the domain")
        strange = [argument for argument in arguments if argument not in names]
        if strange:
            raise DataError(f"{what}: {strange[0]!r} in ({predicate} ...) is neither a parameter nor an object")


def parse_problem(text: str, domain: Domain) -> PlanningProblem:
    """Raises DataError for a text that is no problem of the domain."""
    name, sections = _sections(_read(text, "problem"), "problem")
    named = {section[0]: section[1:] for section in sections}
    unknown = set(named) - {":domain", ":objects", ":init", ":goal", ":requirements"}
    if unknown or named.get(":domain") != [domain.name]:
        raise DataError(
            f"problem {name}: it is for the domain {named.get(':domain')}, with sections {sorted(named)}; expected "
            f"{domain.name}, :objects, :init and :goal"
        )
    objects = {**domain.constants, **_typed(named.get(":objects", []), f"problem {name}")}
    initial = [literal for part in named.get(":init", []) for literal in _literals(part, f"problem {name}")]
    goal = _literals(named[":goal"][0] if named.get(":goal") else [], f"problem {name}")
    _check_atoms(domain, [*initial, *goal], objects, f"problem {name}")
    return PlanningProblem(name, objects, frozenset(atom for positive, atom in initial if positive), goal)


def parse_plan(text: str | Sequence[str]) -> list[Atom] | None:
    """The steps of a text such as `(pick-up a) (stack a b)`; None where it is anything else."""
    text = text if isinstance(text, str) else " ".join(text)
    if not re.fullmatch(r"\s*(\(\s*[^\s()]+(\s+[^\s()]+)*\s*\)\s*)+", text):
        return None
    return [tuple(step.lower().split()) for step in re.findall(r"\(([^()]*)\)", text)]


# ------------------------------------------------------------------------------------------- validating


@dataclass(frozen=True)
class Replay:
    """How a plan went. `failure` says why it is no solution, None where it is one; `facts` are those at its end."""

    facts: frozenset[Atom]
    failure: str | None


def replay(domain: Domain, problem: PlanningProblem, plan: Sequence[Atom]) -> Replay:
    """Carries a plan out from the initial facts and looks whether the goal holds at its end."""
    facts = set(problem.initial)
    for number, (name, *arguments) in enumerate(plan, start=1):
        step = f"step {number} {written((name, *arguments))}"
        action = domain.actions.get(name)
        if action is None or len(arguments) != len(action.parameters):
            return Replay(frozenset(facts), f"{step}: no action of the domain with as many arguments")
        if not all(_is_a(domain, problem, o, kind) for o, (_, kind) in zip(arguments, action.parameters, strict=True)):
            return Replay(frozenset(facts), f"{step}: an argument is no object, or one of another type")
        binding = dict(zip((variable for variable, _ in action.parameters), arguments, strict=True))
        for positive, atom in action.conditions:
            if _holds(_bound(atom, binding), facts) != positive:
                shown = written(_bound(atom, binding))
                return Replay(frozenset(facts), f"{step}: {shown} is {'false' if positive else 'true'}")
        facts -= {_bound(atom, binding) for positive, atom in action.effects if not positive}
        facts |= {_bound(atom, binding) for positive, atom in action.effects if positive}
    missing = [atom for positive, atom in problem.goal if _holds(atom, facts) != positive]
    return Replay(frozenset(facts), f"the goal {written(missing[0])} is not reached" if missing else None)


def _bound(atom: Atom, binding: Mapping[str, str]) -> Atom:
    return tuple(binding.get(part, part) for part in atom)


def _holds(atom: Atom, facts: Iterable[Atom]) -> bool:
    return atom[1] == atom[2] if atom[0] == "=" else atom in facts  # type: ignore[operator]


def _is_a(domain: Domain, problem: PlanningProblem, name: str, kind: str) -> bool:
    own = problem.objects.get(name)
    while own is not None and own != kind:
        own = domain.parents.get(own) if own != "object" else None
    return own is not None or (kind == "object" and name in problem.objects)


# ------------------------------------------------------------------------------------------- grounding


class Operator(NamedTuple):
    """An action with its arguments; sets of facts are bits over `fluents` (see `ground`)."""

    name: Atom
    needs: int
    forbids: int
    adds: int
    deletes: int


def ground(domain: Domain, problem: PlanningProblem) -> tuple[list[Operator], list[Atom]]:
    """(operators in a fixed order, fluents): what can be reached when nothing is ever deleted.

    Conditions on predicates that no action changes are checked here and left out of the operators.
    """
    fluid = {atom[0] for action in domain.actions.values() for _, atom in action.effects}
    reached = set(problem.initial)
    bindings: dict[tuple[str, ...], tuple[Action, dict[str, str]]] = {}
    growing = True
    while growing:
        growing = False
        for action in domain.actions.values():
            for binding in _bindings(domain, problem, action, reached, fluid):
                name = (action.name, *(binding[variable] for variable, _ in action.parameters))
                if name not in bindings:
                    bindings[name] = action, binding
                    reached |= {_bound(atom, binding) for positive, atom in action.effects if positive}
                    growing = True
    fluents = sorted(atom for atom in reached if atom[0] in fluid)
    bit = {atom: 1 << i for i, atom in enumerate(fluents)}
    operators = [_operator(name, *bindings[name], bit, fluid) for name in sorted(bindings)]
    return operators, fluents


def _bindings(
    domain: Domain, problem: PlanningProblem, action: Action, reached: set[Atom], fluid: set[str]
) -> Iterator[dict[str, str]]:
    """Ways to fill the parameters in, one after the other, given up as soon as a condition that is bound cannot
    hold."""
    variables = [variable for variable, _ in action.parameters]
    checks: list[list[Literal]] = [[] for _ in range(len(variables) + 1)]
    for literal in action.conditions:
        last = max((variables.index(part) + 1 for part in literal.atom[1:] if part in variables), default=0)
        checks[last].append(literal)
    fitting = [[o for o in problem.objects if _is_a(domain, problem, o, kind)] for _, kind in action.parameters]

    def possible(depth: int, binding: dict[str, str]) -> bool:
        return all(
            _holds(_bound(atom, binding), reached) == positive
            for positive, atom in checks[depth]
            if positive or atom[0] not in fluid  # what is true now may be deleted later
        )

    def fill(depth: int, binding: dict[str, str]) -> Iterator[dict[str, str]]:
        if depth == len(variables):
            yield dict(binding)
            return
        for candidate in fitting[depth]:
            binding[variables[depth]] = candidate
            if possible(depth + 1, binding):
                yield from fill(depth + 1, binding)
            del binding[variables[depth]]

    found = list(fill(0, {})) if possible(0, {}) else []
    yield from found


def _operator(
    name: Atom, action: Action, binding: Mapping[str, str], bit: Mapping[Atom, int], fluid: set[str]
) -> Operator:
    def bits(literals: Iterable[Literal], positive: bool) -> int:
        atoms = {_bound(atom, binding) for sign, atom in literals if sign == positive and atom[0] in fluid}
        return sum(bit.get(atom, 0) for atom in atoms)

    adds = bits(action.effects, True)
    deletes = bits(action.effects, False) & ~adds
    return Operator(name, bits(action.conditions, True), bits(action.conditions, False), adds, deletes)
