"""Causal graphs: the value of a variable after an intervention, do(X = x) (Pearl 2009, Causality, chapter 3).

    {"variables": [["A", "constant", [], 1], ["B", "add", ["A"], 2], ["C", "add", ["B"], 1]],
     "do": ["B", 0], "ask": "C", "budget": 2}                               answer "1", solution "do B=0; C=1"

Variables hold 0 to 4 and follow mechanisms modulo 5: a constant, a parent plus a number, or a function of two
parents. An intervention cuts a variable from its parents and sets it; what lies downstream follows, what lies
upstream does not matter.

A `TaskGame`: an action computes a variable whose parents are known, or sets one to x. It ends when Y is known, and
pays 1 if X, and nothing else, was set. `budget` steps are allowed: those that are needed, and few others. Forgetting
the intervention, setting another variable, or setting X after it was computed (which is not possible any more) all
end with a wrong value or none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.splits import content_id, shape_of

__all__ = [
    "MECHANISMS",
    "CausalGame",
    "CausalState",
    "causal_params",
    "causal_task",
    "corrupted_causal",
    "make_causal",
    "outcome",
    "solves_causal",
]

VALUES = 5
MECHANISMS: dict[str, tuple[int, Callable[..., int]]] = {
    "constant": (0, lambda number: number),
    "add": (1, lambda number, a: (a + number) % VALUES),
    "sum": (2, lambda number, a, b: (a + b) % VALUES),
    "difference": (2, lambda number, a, b: (a - b) % VALUES),
    "product": (2, lambda number, a, b: a * b % VALUES),
    "largest": (2, lambda number, a, b: max(a, b)),
    "smallest": (2, lambda number, a, b: min(a, b)),
}
"""Name -> (parents, value from the mechanism's number and theirs)."""
WORDS = {
    "constant": "{n}",
    "add": "{a} + {n}",
    "sum": "{a} + {b}",
    "difference": "{a} - {b}",
    "product": "{a} * {b}",
    "largest": "max({a}, {b})",
    "smallest": "min({a}, {b})",
}
BINARY = tuple(name for name, (parents, _) in MECHANISMS.items() if parents == 2)

UNKNOWN = -1


class Variable(NamedTuple):
    name: str
    mechanism: str
    parents: tuple[int, ...]
    number: int


class Model(NamedTuple):
    variables: tuple[Variable, ...]
    cause: int  # X
    value: int  # x
    ask: int  # Y


class CausalState(NamedTuple):
    """`values` are -1 where unknown; `trace` is (variable, whether it was set), in order."""

    model: Model
    values: tuple[int, ...]
    left: int
    trace: tuple[tuple[int, bool], ...] = ()


class CausalGame:
    """Up to `most` variables. Action 2 v computes variable v by its mechanism, 2 v + 1 sets it to x."""

    players = 1

    def __init__(self, most: int = 12) -> None:
        self.most = most
        self.actions, self.pointers = 2 * most, most
        self.observation_shape = (4 * most + 2,)
        self._first_mechanism = 1 + 3 * (2 * VALUES + 1)
        self._first_parent = self._first_mechanism + 1 + VALUES + len(BINARY)
        self._first_value = self._first_parent + most
        self._first_left = self._first_value + VALUES
        self.vocabulary = self._first_left + most + 1

    def initial(self) -> CausalState:
        data = {"variables": [["A", "constant", [], 1], ["B", "add", ["A"], 2], ["C", "add", ["B"], 1]]}
        model, budget = _read({**data, "do": ["B", 0], "ask": "C", "budget": 2}, "CausalGame.initial")
        return _first(model, budget)

    def begin(self, problem: Problem) -> CausalState:
        model, budget = _read(problem.data, problem.id)
        if len(model.variables) > self.most or budget > self.most:
            raise DataError(
                f"{problem.id}: {len(model.variables)} variables and {budget} steps, the game holds {self.most}; make "
                "CausalGame larger"
            )
        return _first(model, budget)

    def legal(self, state: CausalState) -> list[int]:
        found, values = [], state.values
        for v, variable in enumerate(state.model.variables):
            if values[v] == UNKNOWN:
                if all(values[parent] != UNKNOWN for parent in variable.parents):
                    found.append(2 * v)
                found.append(2 * v + 1)
        return found

    def step(self, state: CausalState, action: int) -> tuple[CausalState, float, bool, int]:
        v, is_set = divmod(action, 2)
        ready = is_set or all(state.values[parent] != UNKNOWN for parent in state.model.variables[v].parents)
        if state.values[v] != UNKNOWN or not ready:
            raise DataError(f"CausalGame.step: action {action} is not legal in {self.render(state)!r}")
        model, values, left, trace = state
        value = model.value if is_set else _computed(model, values, v)
        after = CausalState(
            model, (*values[:v], value, *values[v + 1 :]), left - 1, (*trace, (v, bool(is_set)))
        )  # fmt: skip
        known = v == model.ask
        solved = known and [w for w, was_set in after.trace if was_set] == [model.cause]
        return after, float(solved), known or not after.left, 0

    def observe(self, state: CausalState) -> np.ndarray:
        """float32 `[4 V + 2]`: of each variable whether it is X or Y, its value, and whether it was set; mechanisms;
        first and second parents; x; the steps left."""
        model, values, left, trace = state
        tokens = np.zeros(self.observation_shape, np.float32)
        was_set = {v for v, is_set in trace if is_set}
        for v, variable in enumerate(model.variables):
            role = (v == model.cause) + 2 * (v == model.ask)
            status = 0 if values[v] == UNKNOWN else 1 + values[v] + VALUES * (v in was_set)
            tokens[v] = 1 + role * (2 * VALUES + 1) + status
            tokens[self.most + v] = self._first_mechanism + _mechanism_index(variable)
            for j, parent in enumerate(variable.parents):
                tokens[(2 + j) * self.most + v] = self._first_parent + parent
        tokens[-2] = self._first_value + model.value
        tokens[-1] = self._first_left + left
        return tokens

    def key(self, state: CausalState) -> Any:
        return state.model, state.values, state.left, tuple(sorted(v for v, is_set in state.trace if is_set))

    def answer(self, state: CausalState) -> str | None:
        return _written(state) if state.values[state.model.ask] != UNKNOWN else None

    def describe(self, state: CausalState, action: int) -> str:
        v, is_set = divmod(action, 2)
        variable = state.model.variables[v]
        if is_set:
            return f"set {variable.name} to {state.model.value}, whatever its causes"
        return f"{variable.name} = {_words(state.model, variable)} = {_computed(state.model, state.values, v)}"

    def render(self, state: CausalState) -> str:
        model = state.model
        asked = f"{model.variables[model.ask].name} under do({model.variables[model.cause].name}={model.value})"
        return f"{asked}; {_written(state) or 'nothing yet'}; {state.left} left"


def _first(model: Model, budget: int) -> CausalState:
    """Constants are known from the start."""
    values = tuple(v.number if v.mechanism == "constant" else UNKNOWN for v in model.variables)
    return CausalState(model, values, budget)


def _computed(model: Model, values: Sequence[int], v: int) -> int:
    variable = model.variables[v]
    return MECHANISMS[variable.mechanism][1](variable.number, *(values[parent] for parent in variable.parents))


def _mechanism_index(variable: Variable) -> int:
    """Constants have one: their value is known. Additions have one for each number."""
    if variable.mechanism == "constant":
        return 0
    if variable.mechanism == "add":
        return 1 + variable.number
    return 1 + VALUES + BINARY.index(variable.mechanism)


def _written(state: CausalState) -> str:
    names = [variable.name for variable in state.model.variables]
    return "; ".join(f"{'do ' if is_set else ''}{names[v]}={state.values[v]}" for v, is_set in state.trace)


def _words(model: Model, variable: Variable) -> str:
    parents = [model.variables[parent].name for parent in variable.parents]
    return WORDS[variable.mechanism].format(n=variable.number, **dict(zip("ab", parents, strict=False)))


def causal_params(difficulty: float) -> dict[str, int]:
    """Steps that are needed, steps that may be wasted, and variables in all."""
    return {
        "steps": round(2 + 5 * difficulty),
        "slack": max(0, round(2 - 4 * difficulty)),
        "variables": round(3 + 9 * difficulty),
    }


def make_causal(rng: random.Random, difficulty: float) -> Task:
    """A random graph in which the intervention changes Y and exactly `steps` steps are needed."""
    params = causal_params(difficulty)
    while True:
        variables = _graph(rng, params["variables"])
        inner = [v for v, variable in enumerate(variables) if variable.parents]
        cause, ask, value = rng.choice(inner), rng.choice(inner), rng.randrange(VALUES)
        model = Model(tuple(variables), cause, value, ask)
        if cause != ask and len(_needed(model)) == params["steps"] and outcome(model) != outcome(model, cut=False):
            break
    rows = [[v.name, v.mechanism, [variables[p].name for p in v.parents], v.number] for v in variables]
    data = {"variables": rows, "do": [variables[cause].name, value], "ask": variables[ask].name}
    return causal_task({**data, "budget": params["steps"] + params["slack"]}, difficulty)


def _graph(rng: random.Random, count: int) -> list[Variable]:
    """Variables in a random order, the first quarter of the topological order constants."""
    places = rng.sample(range(count), count)  # of the i-th in topological order
    names = rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", count)
    made: dict[int, Variable] = {}
    for i, place in enumerate(places):
        if i < max(1, count // 4):
            made[place] = Variable(names[place], "constant", (), rng.randrange(VALUES))
            continue
        recent = places[max(0, i - 4) : i]
        mechanism = rng.choice([*BINARY, "add", "add"]) if len(recent) > 1 else "add"
        parents = tuple(rng.sample(recent, MECHANISMS[mechanism][0]))
        made[place] = Variable(names[place], mechanism, parents, rng.randrange(1, VALUES) if mechanism == "add" else 0)
    return [made[place] for place in range(count)]


def _needed(model: Model) -> list[int]:
    """X, and what Y depends on once X is cut off, constants left out, in an order in which it can be computed; empty
    where Y does not depend on X."""
    order: list[int] = []
    found = False

    def visit(v: int) -> None:
        nonlocal found
        found = found or v == model.cause
        if v in order or v == model.cause:
            return
        for parent in model.variables[v].parents:
            visit(parent)
        if model.variables[v].parents:
            order.append(v)

    visit(model.ask)
    return [model.cause, *order] if found else []


def outcome(model: Model, cut: bool = True) -> int:
    """The value of Y under do(X = x); without `cut`, what it is when nobody intervenes."""

    def value_of(v: int) -> int:
        if cut and v == model.cause:
            return model.value
        variable = model.variables[v]
        return MECHANISMS[variable.mechanism][1](variable.number, *map(value_of, variable.parents))

    return value_of(model.ask)


def causal_task(data: Mapping[str, Any], difficulty: float) -> Task:
    """The task of a model. Raises DataError where Y does not depend on X."""
    model, budget = _read(data, "causal")
    needed = _needed(model)
    if not needed:
        raise DataError("causal: what is asked does not depend on what is set; ask for a variable downstream of it")
    game, state = CausalGame(max(len(model.variables), budget)), _first(model, budget)
    for v in needed:
        state = game.step(state, 2 * v + (v == model.cause))[0]
    prompt = _prompt(model, budget)
    data = {**data, "key": f"{budget} steps {_shape(model)}"}
    return Task(
        content_id("causal", prompt), "causal", prompt, data, difficulty, str(outcome(model)), game.answer(state)
    )


def _shape(model: Model) -> str:
    """The model, whatever its variables are called and in whatever order they and their causes are written."""
    labels, arrows = {}, []
    for v, variable in enumerate(model.variables):
        number = variable.number if variable.mechanism in ("constant", "add") else ""
        role = f"{f'do {model.value}' if v == model.cause else ''} {'ask' if v == model.ask else ''}"
        labels[str(v)] = f"{variable.mechanism} {number} {role}"
        for place, parent in enumerate(variable.parents):
            arrows.append((str(v), str(place) if variable.mechanism == "difference" else "of", str(parent)))
    return shape_of(labels, arrows)


def _prompt(model: Model, budget: int) -> str:
    lines = "\n".join(f"{variable.name} = {_words(model, variable)}" for variable in model.variables)
    cause, ask = model.variables[model.cause].name, model.variables[model.ask].name
    return (
        f"Each variable is computed from its causes, modulo {VALUES}:\n{lines}\nSomebody sets {cause} to "
        f"{model.value}, whatever its causes say. What is {ask} then? At most {budget} steps. Answer with the "
        f"intervention and the values that lead to {ask}, in order, as in `do {cause}={model.value}; {ask}=0`."
    )


def solves_causal(task: Task, answer: str) -> bool:
    """Whether the text sets X, and then gives each value after those it follows from, Y last and as the task says.

    Every value is recomputed from the model without the arrows into X.
    """
    model, budget = _read(task.data, task.id)
    names = {variable.name: v for v, variable in enumerate(model.variables)}
    known = {v: variable.number for v, variable in enumerate(model.variables) if variable.mechanism == "constant"}
    steps = [re.fullmatch(r"(do\s+)?(\w+)\s*=\s*([0-9]{1,9})", step.strip()) for step in answer.split(";")]
    if len(steps) > budget:
        return False
    last = None
    for step in steps:
        if step is None or step[2] not in names or names[step[2]] in known:
            return False
        last, value = names[step[2]], int(step[3])
        if bool(step[1]) != (last == model.cause):
            return False
        parents = model.variables[last].parents
        if last != model.cause and not all(parent in known for parent in parents):
            return False
        if value != (model.value if last == model.cause else _computed(model, _row(known, model), last)):
            return False
        known[last] = value
    return last == model.ask and model.cause in known and str(known[model.ask]) == task.answer


def _row(known: Mapping[int, int], model: Model) -> list[int]:
    return [known.get(v, UNKNOWN) for v in range(len(model.variables))]


def corrupted_causal(task: Task, rng: random.Random) -> Any:
    """Another value than the right one."""
    return rng.choice([str(value) for value in range(VALUES) if str(value) != task.answer])


def _read(data: Mapping[str, Any], where: str) -> tuple[Model, int]:
    rows, do, ask, budget = (data.get(name) for name in ("variables", "do", "ask", "budget"))
    if not isinstance(rows, Sequence) or not isinstance(do, Sequence) or len(do) != 2 or not isinstance(budget, int):
        raise DataError(
            f'{where}: write variables as [[name, mechanism, parents, number]], do as ["X", 0], ask as "Y" and a budget'
        )
    places = {row[0]: v for v, row in enumerate(rows)}
    for name, mechanism, parents, number in rows:
        if mechanism not in MECHANISMS or len(parents) != MECHANISMS[mechanism][0] or not 0 <= number < VALUES:
            raise DataError(f"{where}: variable {name!r} is not made of a mechanism, its parents and a number below 5")
    named = [do[0], ask, *(parent for row in rows for parent in row[2])]
    strange = [name for name in named if name not in places]
    if strange or not 0 <= do[1] < VALUES:
        raise DataError(f"{where}: {strange[0] if strange else do!r} is not a variable with a value below {VALUES}")
    variables = tuple(Variable(row[0], row[1], tuple(places[p] for p in row[2]), row[3]) for row in rows)
    _check_order(variables, where)
    return Model(variables, places[do[0]], do[1], places[ask]), budget


def _check_order(variables: Sequence[Variable], where: str) -> None:
    placed: set[int] = set()
    while len(placed) < len(variables):
        ready = {v for v, variable in enumerate(variables) if placed.issuperset(variable.parents)} - placed
        if not ready:
            raise DataError(f"{where}: a variable causes itself through others; remove an arrow of the circle")
        placed |= ready
