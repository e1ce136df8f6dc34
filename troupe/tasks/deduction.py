"""Logical deduction: facts, rules "if these, then that", and the question whether a statement is true or false.

    {"facts": ["A"], "rules": [[["A"], "B"], [["A"], "C"], [["B"], "not D"]], "ask": "D", "budget": 2}
    answer "false", solution "1 3: false"

A `TaskGame`: an action fires a rule whose conditions are known and whose conclusion is not. Deriving the statement or
its negation is visible and pays 1; `budget` firings are allowed, exactly those that a proof needs, so each that leads
elsewhere costs the task. Where everything that follows is known and neither is among it, the statement is unknown,
which pays 1 too (the open-world reading of ProofWriter, Tafjord et al. 2021, arXiv:2012.13048).

A submission is the numbers of the rules, from 1, in the order of their use, then the verdict; it is judged by
replaying it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.splits import content_id, shape_of

__all__ = [
    "DeductionGame",
    "DeductionState",
    "closure",
    "corrupted_deduction",
    "deduction_params",
    "deduction_task",
    "make_deduction",
    "negated",
    "proof",
    "solves_deduction",
]

BODY = 3
"""Conditions of a rule at most."""
VERDICTS = ("true", "false", "unknown")

Rule = tuple[tuple[str, ...], str]
"""(conditions, conclusion), all of them statements; a negated one begins with "not "."""


class Theory(NamedTuple):
    """Literal 2 a is atom a, 2 a + 1 its negation; `bodies` and `heads` are sets of literals as bits."""

    bodies: tuple[int, ...]
    heads: tuple[int, ...]
    literals: tuple[tuple[int, ...], ...]  # of each rule: the conclusion, then the conditions
    numbers: tuple[int, ...]  # of each rule in the task, from 1
    names: tuple[str, ...]  # of the literals
    ask: int


class DeductionState(NamedTuple):
    """`known` is a set of literals as bits; `fired` are places in the theory."""

    theory: Theory
    known: int
    left: int
    fired: tuple[int, ...] = ()


class DeductionGame:
    """Up to `rules` rules that can ever fire, over up to `atoms` atoms. Action i fires the i-th."""

    players = 1

    def __init__(self, rules: int = 20, atoms: int = 32, longest: int = 20) -> None:
        self.rules, self.atoms, self.longest = rules, atoms, longest
        self.actions = self.pointers = rules
        self.observation_shape = ((1 + BODY) * rules + 2,)
        self.vocabulary = 1 + 4 * atoms + longest + 1

    def initial(self) -> DeductionState:
        facts, rules = ("A",), ((("A",), "B"), (("A",), "C"), (("B",), "not D"))
        return DeductionState(_theory(facts, rules, "D"), 1, 2)

    def begin(self, problem: Problem) -> DeductionState:
        facts, rules, ask, budget = _read(problem.data, problem.id)
        theory = _theory(facts, rules, ask)
        sizes = (len(theory.heads), len(theory.names) // 2, budget)
        if any(size > most for size, most in zip(sizes, (self.rules, self.atoms, self.longest), strict=True)):
            raise DataError(
                f"{problem.id}: (rules that can fire, atoms, budget) are {sizes}, the game holds "
                f"{(self.rules, self.atoms, self.longest)}; make DeductionGame larger"
            )
        if max(map(len, theory.literals), default=0) > 1 + BODY:
            raise DataError(f"{problem.id}: a rule has more than {BODY} conditions; split it in two")
        known = sum(1 << theory.names.index(fact) for fact in set(facts) if fact in theory.names)
        state = DeductionState(theory, known, budget)
        if not self.legal(state) or self._decided(state):
            raise DataError(f"{problem.id}: there is nothing to derive; ask for what no fact says and rules lead to")
        return state

    def legal(self, state: DeductionState) -> list[int]:
        known, theory = state.known, state.theory
        return [
            i
            for i, (body, head) in enumerate(zip(theory.bodies, theory.heads, strict=True))
            if body & known == body and not head & known
        ]

    def step(self, state: DeductionState, action: int) -> tuple[DeductionState, float, bool, int]:
        if action not in self.legal(state):
            raise DataError(f"DeductionGame.step: rule {action} cannot fire in {self.render(state)!r}")
        theory, known, left, fired = state
        after = DeductionState(theory, known | theory.heads[action], left - 1, (*fired, action))
        solved = self._decided(after) or not self.legal(after)
        return after, float(solved), solved or not after.left, 0

    def _decided(self, state: DeductionState) -> bool:
        return bool(state.known >> (state.theory.ask & ~1) & 3)

    def observe(self, state: DeductionState) -> np.ndarray:
        """float32 `[4 R + 2]`: the conclusions of the R rules, their first, second and third conditions, what is asked,
        and the firings left. The token of a literal says whether it is known."""
        theory, known = state.theory, state.known
        tokens = np.zeros(self.observation_shape, np.float32)
        for i, literals in enumerate(theory.literals):
            for j, literal in enumerate(literals):
                tokens[j * self.rules + i] = 1 + 2 * literal + (known >> literal & 1)
        tokens[-2] = 1 + 2 * theory.ask
        tokens[-1] = 1 + 4 * self.atoms + state.left
        return tokens

    def key(self, state: DeductionState) -> Any:
        return state.theory.literals, state.theory.ask, state.known, state.left

    def answer(self, state: DeductionState) -> str | None:
        theory = state.theory
        verdicts = [state.known >> literal & 1 for literal in (theory.ask, theory.ask ^ 1)]
        if not any(verdicts) and self.legal(state):
            return None
        return _submission([theory.numbers[i] for i in state.fired], VERDICTS[[*verdicts, 1].index(1)])

    def describe(self, state: DeductionState, action: int) -> str:
        head, *body = (state.theory.names[literal] for literal in state.theory.literals[action])
        return f"rule {state.theory.numbers[action]}: {' and '.join(body)}, so {head}"

    def render(self, state: DeductionState) -> str:
        known = [name for literal, name in enumerate(state.theory.names) if state.known >> literal & 1]
        return f"known: {', '.join(known)}; {state.theory.names[state.theory.ask]}? {state.left} left"


def negated(literal: str) -> str:
    """The opposite statement: "not A" of "A", and the other way."""
    return literal[4:] if literal.startswith("not ") else f"not {literal}"


@lru_cache(maxsize=8192)
def _theory(facts: tuple[str, ...], rules: tuple[Rule, ...], ask: str) -> Theory:
    """The rules that can ever fire, in the order given."""
    follows = closure(facts, rules)
    numbers = [n for n, (body, _) in enumerate(rules, start=1) if follows.issuperset(body)]
    live = [rules[n - 1] for n in numbers]
    statements = [*facts, *(literal for body, head in live for literal in (*body, head)), ask]
    atoms = list(dict.fromkeys(literal.removeprefix("not ") for literal in statements))
    names = tuple(name for atom in atoms for name in (atom, f"not {atom}"))
    place = {name: literal for literal, name in enumerate(names)}
    return Theory(
        tuple(sum(1 << place[literal] for literal in set(body)) for body, _ in live),
        tuple(1 << place[head] for _, head in live),
        tuple((place[head], *(place[literal] for literal in body)) for body, head in live),
        tuple(numbers),
        names,
        place[ask],
    )


def closure(facts: Iterable[str], rules: Sequence[Rule]) -> set[str]:
    """Everything that follows, by forward chaining."""
    known, growing = set(facts), True
    while growing:
        new = {head for body, head in rules if known.issuperset(body)} - known
        known |= new
        growing = bool(new)
    return known


def proof(facts: Sequence[str], rules: Sequence[Rule], goal: str) -> list[int]:
    """Numbers of rules, from 1, that derive the goal, each after those it needs. It is short, and the shortest where no
    statement follows in two ways. Raises DataError where the goal does not follow."""
    needs: dict[str, frozenset[int]] = {fact: frozenset() for fact in facts}
    changed = True
    while changed:
        changed = False
        for number, (body, head) in enumerate(rules, start=1):
            if all(literal in needs for literal in body):
                used = frozenset({number}).union(*(needs[literal] for literal in body))
                if head not in needs or len(used) < len(needs[head]):
                    needs[head], changed = used, True
    if goal not in needs:
        raise DataError(f"{goal!r} does not follow from the facts; ask for a statement that does")
    return _in_order(facts, rules, needs[goal])


def _in_order(facts: Sequence[str], rules: Sequence[Rule], numbers: Iterable[int]) -> list[int]:
    known, order, waiting = set(facts), [], sorted(numbers)
    while waiting:
        number = next(n for n in waiting if known.issuperset(rules[n - 1][0]))
        waiting.remove(number)
        order.append(number)
        known.add(rules[number - 1][1])
    return order


def deduction_params(difficulty: float) -> dict[str, int]:
    """Rules of the proof, and rules that lead elsewhere."""
    return {"proof": round(2 + 5 * difficulty), "distractors": round(1 + 11 * difficulty)}


def make_deduction(rng: random.Random, difficulty: float) -> Task:
    """A task whose statement or its negation follows in one way only, through `proof` rules."""
    params = deduction_params(difficulty)
    names = [f"{letter}{digit}" for digit in ("", "2") for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    rng.shuffle(names)
    fresh = (name if rng.random() < 0.7 else f"not {name}" for name in names)
    facts = [next(fresh) for _ in range(2 + params["proof"] // 2)]
    chain = list(facts)
    rules: list[Rule] = []
    for i in range(params["proof"]):  # each rule needs the conclusion of the one before, so all of them are needed
        last = [chain[-1]] if i else [rng.choice(facts)]
        others = [literal for literal in chain if literal not in last]
        chain.append(next(fresh))
        rules.append((tuple(last + rng.sample(others, rng.randint(0, 1))), chain[-1]))
    goal, sources = chain[-1], chain[:-1]
    for _ in range(params["distractors"]):
        head = next(fresh)
        rules.append((tuple(rng.sample(sources, min(len(sources), rng.randint(1, 2)))), head))
        if rng.random() < 0.5:
            sources.append(head)
    rng.shuffle(rules)
    rules = [(tuple(rng.sample(body, len(body))), head) for body, head in rules]
    facts = sorted(facts, key=lambda fact: fact.removeprefix("not "))
    ask = goal if rng.random() < 0.5 else negated(goal)
    return deduction_task({"facts": facts, "rules": [[list(b), h] for b, h in rules], "ask": ask}, difficulty)


def deduction_task(data: Mapping[str, Any], difficulty: float, prompt: str | None = None) -> Task:
    """The task of some facts and rules; budget, answer and solution are computed. A `prompt` stands before its own.

    Raises DataError for a theory from which a statement and its negation follow.
    """
    facts, rules, ask, _ = _read({"budget": 1, **data}, "deduction")
    follows = closure(facts, rules)
    both = sorted(literal for literal in follows if negated(literal) in follows)
    if both:
        raise DataError(f"deduction: {both[0]!r} and {both[1]!r} both follow from the facts; correct a rule")
    verdict = VERDICTS[[ask in follows, negated(ask) in follows, True].index(True)]
    if verdict == "unknown":
        steps = _in_order(facts, rules, _spanning(facts, rules))
    else:
        steps = proof(facts, rules, ask if verdict == "true" else negated(ask))
    data = {**data, "budget": len(steps), "key": _shape(facts, rules, ask)}
    prompt = _prompt(data) if prompt is None else f"{prompt}\n\n{_prompt(data)}"
    return Task(
        content_id("deduction", prompt), "deduction", prompt, data, difficulty, verdict, _submission(steps, verdict)
    )


def _shape(facts: Sequence[str], rules: Sequence[Rule], ask: str) -> str:
    """The theory and the question, whatever its atoms are called and in whatever order it is written."""
    told, labels, arrows = set(facts), dict[str, str](), list[tuple[str, str, str]]()
    for literal in (*facts, *(literal for body, head in rules for literal in (*body, head)), ask):
        atom = literal.removeprefix("not ")
        states = [atom in told, f"not {atom}" in told, ask == atom, ask == f"not {atom}"]
        labels[f"atom {atom}"] = "".join(str(int(state)) for state in states)
    for number, (body, head) in enumerate(rules):
        labels[f"rule {number}"] = "rule"
        for role, literal in (*(("if", literal) for literal in sorted(set(body))), ("then", head)):
            negative = " not" if literal.startswith("not ") else ""
            arrows.append((f"rule {number}", f"{role}{negative}", f"atom {literal.removeprefix('not ')}"))
    return shape_of(labels, arrows)


def _spanning(facts: Sequence[str], rules: Sequence[Rule]) -> list[int]:
    """One rule for each statement that follows and is no fact."""
    known, chosen, growing = set(facts), [], True
    while growing:
        growing = False
        for number, (body, head) in enumerate(rules, start=1):
            if head not in known and known.issuperset(body):
                known.add(head)
                chosen.append(number)
                growing = True
    return chosen


def _prompt(data: Mapping[str, Any]) -> str:
    lines = [f"{n}. If {' and '.join(body)}, then {head}." for n, (body, head) in enumerate(data["rules"], start=1)]
    return (
        f"Facts: {', '.join(data['facts'])}.\nRules:\n" + "\n".join(lines) + f"\nIs it true or false: {data['ask']}? "
        f"At most {data['budget']} rules may be used. Answer with their numbers in the order of use, a colon, and "
        "true, false or unknown, as in `2 5: true`."
    )


def _submission(numbers: Sequence[int], verdict: str) -> str:
    return f"{' '.join(map(str, numbers))}: {verdict}" if numbers else verdict


def solves_deduction(task: Task, answer: str) -> bool:
    """Whether every rule named could be used where it is, they are no more than the budget, and the verdict is what
    then holds and what the task's answer says."""
    facts, rules, ask, budget = _read(task.data, task.id)
    match = re.fullmatch(r"(?:([0-9]{1,9}(?:\s+[0-9]{1,9})*):\s+)?(true|false|unknown)", answer.strip())
    if match is None or match[2] != task.answer:
        return False
    known, numbers = set(facts), [int(number) for number in (match[1] or "").split()]
    if len(numbers) > budget:
        return False
    for number in numbers:
        if not 1 <= number <= len(rules) or not known.issuperset(rules[number - 1][0]):
            return False
        known.add(rules[number - 1][1])
    if match[2] == "unknown":
        follows = closure(facts, rules)
        return known == follows and ask not in follows and negated(ask) not in follows
    return (ask if match[2] == "true" else negated(ask)) in known


def corrupted_deduction(task: Task, rng: random.Random) -> Any:
    """Another verdict than the right one."""
    return rng.choice([verdict for verdict in VERDICTS if verdict != task.answer])


def _read(data: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[Rule, ...], str, int]:
    facts, ask, budget = data.get("facts"), data.get("ask"), data.get("budget")
    if not isinstance(facts, Sequence) or isinstance(facts, str) or not isinstance(ask, str):
        raise DataError(f"{where}: write facts as a list of texts, and ask as a text")
    if type(budget) is not int or budget < 0:
        raise DataError(f"{where}: budget is {budget!r}; write a whole number from 0")
    rules: list[Rule] = []
    for rule in data.get("rules", ()):
        if len(rule) != 2 or isinstance(rule[0], str) or not isinstance(rule[1], str):
            raise DataError(f"{where}: the rule {rule!r} is not read; write [[conditions], conclusion]")
        rules.append((tuple(rule[0]), rule[1]))
    return tuple(facts), tuple(rules), ask, budget
