"""Planning in PDDL: a game on any domain of the STRIPS subset, the logistics domain, and the verdict on plans.

    data {"domain": "(define (domain ...", "problem": "(define (problem ...", "budget": 7}
    answer "(at p0 l1)", the goal; solution "(load-truck p0 t0 l0) ..."

`PDDLGame` has candidates: each state lists the grounded actions that can be applied in it. Reaching the goal pays 1,
`budget` steps end the task with 0, and so does a state where nothing can be done. Plans are judged by `replay`, which
knows nothing of the grounding that the game plays on.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.pddl import Atom, Operator, ground, parse_domain, parse_plan, parse_problem, replay, written
from troupe.tasks.splits import content_id

__all__ = [
    "LOGISTICS",
    "PDDLGame",
    "PDDLState",
    "corrupted_plan",
    "logistics_params",
    "make_logistics",
    "plan_task",
    "shortest_plan",
    "solves_plan",
]

LOGISTICS = """(define (domain logistics-strips)
 (:requirements :strips)
 (:predicates (obj ?o) (truck ?t) (location ?l) (airplane ?a) (city ?c) (airport ?l)
  (at ?x ?l) (in ?o ?v) (in-city ?l ?c))
 (:action load-truck :parameters (?o ?t ?l)
  :precondition (and (obj ?o) (truck ?t) (location ?l) (at ?t ?l) (at ?o ?l))
  :effect (and (not (at ?o ?l)) (in ?o ?t)))
 (:action load-airplane :parameters (?o ?a ?l)
  :precondition (and (obj ?o) (airplane ?a) (location ?l) (at ?o ?l) (at ?a ?l))
  :effect (and (not (at ?o ?l)) (in ?o ?a)))
 (:action unload-truck :parameters (?o ?t ?l)
  :precondition (and (obj ?o) (truck ?t) (location ?l) (at ?t ?l) (in ?o ?t))
  :effect (and (not (in ?o ?t)) (at ?o ?l)))
 (:action unload-airplane :parameters (?o ?a ?l)
  :precondition (and (obj ?o) (airplane ?a) (location ?l) (in ?o ?a) (at ?a ?l))
  :effect (and (not (in ?o ?a)) (at ?o ?l)))
 (:action drive-truck :parameters (?t ?from ?to ?c)
  :precondition (and (truck ?t) (location ?from) (location ?to) (city ?c) (at ?t ?from) (in-city ?from ?c)
   (in-city ?to ?c))
  :effect (and (not (at ?t ?from)) (at ?t ?to)))
 (:action fly-airplane :parameters (?a ?from ?to)
  :precondition (and (airplane ?a) (airport ?from) (airport ?to) (at ?a ?from))
  :effect (and (not (at ?a ?from)) (at ?a ?to))))"""
"""Packages go by truck inside a city and by airplane between airports; the classical domain of the 1998 competition."""


class World(NamedTuple):
    """A grounded problem. Facts are bits over `fluents`."""

    texts: tuple[str, str]  # domain, problem: what everything else follows from
    operators: tuple[Operator, ...]
    fluents: tuple[Atom, ...]
    tokens: tuple[tuple[int, ...], ...]  # of each fluent: predicate and arguments
    initial: int
    goal: int
    avoid: int  # facts that the goal wants false

    def __hash__(self) -> int:
        return hash(self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, World) and self.texts == other.texts


class PDDLState(NamedTuple):
    world: World
    facts: int
    left: int
    plan: tuple[Atom, ...] = ()


class PDDLGame:
    """Up to `facts` changeable facts hold at a time, and up to `goals` are asked for. An action is (name,
    arguments)."""

    players = 1
    actions = None
    pointers = 0
    vocabulary = 256

    def __init__(self, facts: int = 32, goals: int = 10) -> None:
        self.facts, self.goals = facts, goals
        self.observation_shape = (3 * (facts + goals) + 1,)

    def initial(self) -> PDDLState:
        problem = """(define (problem example) (:domain logistics-strips) (:objects p t l0 l1 c)
         (:init (obj p) (truck t) (location l0) (location l1) (city c) (in-city l0 c) (in-city l1 c)
          (at p l0) (at t l0))
         (:goal (at p l1)))"""
        world = _world(LOGISTICS, problem)
        return PDDLState(world, world.initial, 3)

    def begin(self, problem: Problem) -> PDDLState:
        domain, text, budget = _read(problem.data, problem.id)
        world = _world(domain, text)
        if world.goal.bit_count() > self.goals or max(max(row) for row in world.tokens) >= self.vocabulary:
            raise DataError(
                f"{problem.id}: the game holds {self.goals} goals and {self.vocabulary - 1} names; make PDDLGame larger"
            )
        state = PDDLState(world, world.initial, budget)
        if self._solved(state) or not self.legal(state):
            raise DataError(
                f"{problem.id}: the goal holds from the start, or nothing can be done; write another problem"
            )
        return state

    def legal(self, state: PDDLState) -> list[Atom]:
        return [operator.name for operator in _applicable(state.world, state.facts)]

    def step(self, state: PDDLState, action: Atom) -> tuple[PDDLState, float, bool, int]:
        operator = next((o for o in _applicable(state.world, state.facts) if o.name == action), None)
        if operator is None:
            raise DataError(f"PDDLGame.step: {written(action)} cannot be applied in {self.render(state)!r}")
        after = PDDLState(state.world, _applied(operator, state.facts), state.left - 1, (*state.plan, action))
        solved = self._solved(after)
        return after, float(solved), solved or not after.left or not self.legal(after), 0

    def _solved(self, state: PDDLState) -> bool:
        return state.facts & state.world.goal == state.world.goal and not state.facts & state.world.avoid

    def observe(self, state: PDDLState) -> np.ndarray:
        """float32 `[3 (F + G) + 1]`: the facts that hold and can change, then the goals, three tokens each (predicate
        and up to two arguments; others are cut), then the steps left.

        What never changes, such as roads, is not among them: candidates are what it permits.
        """
        world, tokens = state.world, np.zeros(self.observation_shape, np.float32)
        if state.facts.bit_count() > self.facts:
            raise DataError(f"PDDLGame.observe: {state.facts.bit_count()} facts hold, there is room for {self.facts}")
        for first, bits in ((0, state.facts), (3 * self.facts, world.goal)):
            for place, fluent in enumerate(_members(bits)):
                row = world.tokens[fluent]
                tokens[first + 3 * place : first + 3 * place + len(row)] = row
        tokens[-1] = min(state.left + 1, self.vocabulary - 1)
        return tokens

    def key(self, state: PDDLState) -> Any:
        return state.world.texts, state.facts, state.left

    def answer(self, state: PDDLState) -> str | None:
        return " ".join(written(step) for step in state.plan) if self._solved(state) else None

    def describe(self, state: PDDLState, action: Atom) -> str:
        operator = next(o for o in _applicable(state.world, state.facts) if o.name == action)
        gained = [written(state.world.fluents[fluent]) for fluent in _members(operator.adds & ~state.facts)]
        return f"{written(action)}: now {', '.join(gained) or 'nothing new'}"

    def render(self, state: PDDLState) -> str:
        facts = " ".join(written(state.world.fluents[fluent]) for fluent in _members(state.facts))
        return f"{facts}; {state.left} left"


def _members(bits: int) -> list[int]:
    return [place for place in range(bits.bit_length()) if bits >> place & 1]


@lru_cache(maxsize=1024)
def _world(domain_text: str, problem_text: str) -> World:
    domain = parse_domain(domain_text)
    problem = parse_problem(problem_text, domain)
    operators, fluents = ground(domain, problem)
    bit = {atom: 1 << place for place, atom in enumerate(fluents)}
    steady = [literal for literal in problem.goal if literal.atom not in bit]
    if any((literal.atom in problem.initial) != literal.positive for literal in steady):
        raise DataError(f"problem {problem.name}: the goal cannot be reached; correct it")
    names = {name: token for token, name in enumerate([*domain.predicates, *problem.objects], start=1)}
    return World(
        (domain_text, problem_text),
        tuple(operators),
        tuple(fluents),
        tuple(tuple(names[part] for part in atom[:3]) for atom in fluents),
        sum(bit[atom] for atom in problem.initial if atom in bit),
        sum(bit[atom] for positive, atom in set(problem.goal) if positive and atom in bit),
        sum(bit[atom] for positive, atom in set(problem.goal) if not positive and atom in bit),
    )


@lru_cache(maxsize=65536)
def _applicable(world: World, facts: int) -> tuple[Operator, ...]:
    """Operators whose conditions hold and that change something."""
    return tuple(
        operator
        for operator in world.operators
        if operator.needs & facts == operator.needs
        and not operator.forbids & facts
        and _applied(operator, facts) != facts
    )


def _applied(operator: Operator, facts: int) -> int:
    return facts & ~operator.deletes | operator.adds


def shortest_plan(domain: str, problem: str, most: int = 200_000) -> list[Atom]:
    """Breadth first. Raises DataError where no plan is found among `most` states."""
    world = _world(domain, problem)
    came: dict[int, tuple[int, Atom] | None] = {world.initial: None}
    waiting = deque([world.initial])
    while waiting and len(came) < most:
        facts = waiting.popleft()
        if facts & world.goal == world.goal and not facts & world.avoid:
            plan: list[Atom] = []
            while (step := came[facts]) is not None:
                facts = step[0]
                plan.append(step[1])
            return plan[::-1]
        for operator in world.operators:
            after = _applied(operator, facts)
            if operator.needs & facts == operator.needs and not operator.forbids & facts and after not in came:
                came[after] = facts, operator.name
                waiting.append(after)
    raise DataError(f"no plan was found among {len(came)} states; write a problem that is solvable, or smaller")


def goal_text(domain: str, problem: str) -> str:
    """The goal's facts, sorted: `(at p0 l1) (at p1 l0)`."""
    literals = parse_problem(problem, parse_domain(domain)).goal
    return " ".join(sorted(written(atom) for positive, atom in literals if positive))


def plan_task(
    kind: str, data: Mapping[str, Any], prompt: str, difficulty: float, plan: Sequence[Atom | str] | None = None
) -> Task:
    """The task of a planning problem; without `plan` a shortest one is searched for. The budget is the plan's length
    where the data names none. Raises DataError for a plan that does not reach the goal."""
    domain, problem, _ = _read({"budget": 1, **data}, kind)
    if plan is None:
        plan = shortest_plan(domain, problem)
    solution = " ".join(step if isinstance(step, str) else written(step) for step in plan)
    data = {**data, "budget": data.get("budget", len(plan))}
    task = Task(
        content_id(kind, prompt), kind, prompt, data, difficulty, goal_text(domain, problem), solution
    )  # fmt: skip
    if not solves_plan(task, solution):
        raise DataError(f"{task.id}: the plan {solution!r} does not reach the goal within {data['budget']} steps")
    return task


def solves_plan(task: Task, answer: str) -> bool:
    """Whether the text is a plan of at most `budget` steps that can be carried out and ends with the goal, and with
    every fact that the task's answer names."""
    domain_text, problem_text, budget = _read(task.data, task.id)
    domain = parse_domain(domain_text)
    plan, wanted = parse_plan(answer), parse_plan(task.answer)
    if plan is None or wanted is None or len(plan) > budget:
        return False
    end = replay(domain, parse_problem(problem_text, domain), plan)
    return end.failure is None and end.facts.issuperset(wanted)


def corrupted_plan(task: Task, rng: random.Random) -> Any:
    """A goal that its own solution does not reach: one object more is wanted at the place, or on the block, of
    another."""
    domain = parse_domain(task.data["domain"])
    problem = parse_problem(task.data["problem"], domain)
    end = replay(domain, problem, parse_plan(task.solution) or []).facts
    wanted = parse_plan(task.answer) or []
    wrong = [
        (*atom[:-1], other)
        for atom in wanted
        for other in sorted(problem.objects)
        if len(atom) > 1 and (*atom[:-1], other) not in end and other != atom[-1]
    ]
    kept = rng.choice(wrong)
    return " ".join(sorted(written(atom if atom[:-1] != kept[:-1] else kept) for atom in wanted))


def logistics_params(difficulty: float) -> dict[str, int]:
    """Cities of two locations, packages, the steps of a shortest plan (there may be one more), and those to waste."""
    return {
        "cities": 1 if difficulty < 0.15 else 2,
        "packages": 1 + (difficulty > 0.6),
        "length": round(1 + 11 * difficulty),
        "slack": max(0, round(3 - 6 * difficulty)),
    }


def make_logistics(rng: random.Random, difficulty: float) -> Task:
    """Packages, trucks and one airplane at random, redrawn until a shortest plan is about as long as wanted."""
    params = logistics_params(difficulty)
    while True:
        problem = _logistics(rng, params["cities"], params["packages"])
        plan = shortest_plan(LOGISTICS, problem)
        if plan and len(plan) - params["length"] in (0, 1):
            budget = len(plan) + params["slack"]
            data = {"domain": LOGISTICS, "problem": problem, "budget": budget}
            return plan_task("logistics", data, _prompt(problem, budget), difficulty, plan)


def _logistics(rng: random.Random, cities: int, packages: int) -> str:
    places = [f"l{city}-{place}" for city in range(cities) for place in range(2)]
    airports = [place for place in places if place.endswith("-0")]
    facts = [f"(location {place}) (in-city {place} c{place[1]})" for place in places]
    facts += [f"(airport {place})" for place in airports]
    facts += [f"(city c{city}) (truck t{city}) (at t{city} l{city}-{rng.randrange(2)})" for city in range(cities)]
    facts += [f"(airplane a0) (at a0 {rng.choice(airports)})"]
    goals = []
    for package in range(packages):
        start, end = rng.choice(places), rng.choice(places)
        riding = rng.random() < 0.3  # some packages are under way
        facts.append(f"(obj p{package}) " + (f"(in p{package} t{start[1]})" if riding else f"(at p{package} {start})"))
        goals.append(f"(at p{package} {end})")
    names = [*places, "a0", *(f"c{c} t{c}" for c in range(cities)), *(f"p{p}" for p in range(packages))]
    return (
        f"(define (problem logistics) (:domain logistics-strips)\n (:objects {' '.join(names)})\n"
        f" (:init {' '.join(facts)})\n (:goal (and {' '.join(goals)})))"
    )


def _prompt(problem: str, budget: int) -> str:
    return (
        "Packages are loaded into trucks and airplanes, moved and unloaded. Trucks drive inside their city, "
        f"airplanes fly between airports. The problem in PDDL:\n{problem}\nAnswer with a plan of at most "
        f"{budget} steps, as in `(load-truck p0 t0 l0-0) (drive-truck t0 l0-0 l0-1 c0) (unload-truck p0 t0 l0-1)`."
    )


def _read(data: Mapping[str, Any], where: str) -> tuple[str, str, int]:
    domain, problem, budget = data.get("domain"), data.get("problem"), data.get("budget")
    if not isinstance(domain, str) or not isinstance(problem, str) or type(budget) is not int or budget < 1:
        raise DataError(f"{where}: write domain and problem as PDDL texts, and budget as a number of steps from 1")
    return domain, problem, budget
