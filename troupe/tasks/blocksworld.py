"""Blocksworld: rebuild towers by moving one clear block at a time, and the plan that this is in PDDL.

    {"blocks": ["a", "b", "c"], "under": [-1, 0, -1], "goal": [1, -2, -1], "budget": 3}

`under` says for each block which one it stands on, -1 for the table; `goal` does too, -2 where it does not matter.
Here b stands on a, and a shall stand on b, c on the table. Answer: the goal in PDDL; solution: a plan of pick-up,
put-down, stack and unstack (Gupta & Nau 1992, On the complexity of blocks-world planning).

A `TaskGame`: an action moves a block onto another or onto the table, which is two steps of the plan. `budget` moves are
allowed: those that a shortest plan needs, which A* counts, and few others. Plans are judged by the PDDL validator.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.errors import DataError
from troupe.tasks.pddl import parse_domain, parse_plan, parse_problem, replay, written
from troupe.tasks.splits import content_id, shape_of

__all__ = [
    "BLOCKSWORLD",
    "BlocksGame",
    "BlocksState",
    "blocks_from_pddl",
    "blocks_params",
    "blocks_task",
    "corrupted_blocks",
    "fewest_moves",
    "make_blocks",
    "pddl_of",
    "solves_blocks",
]

BLOCKSWORLD = """(define (domain blocksworld-4ops)
 (:requirements :strips)
 (:predicates (clear ?x) (ontable ?x) (handempty) (holding ?x) (on ?x ?y))
 (:action pick-up :parameters (?x)
  :precondition (and (clear ?x) (ontable ?x) (handempty))
  :effect (and (holding ?x) (not (clear ?x)) (not (ontable ?x)) (not (handempty))))
 (:action put-down :parameters (?x)
  :precondition (holding ?x)
  :effect (and (clear ?x) (ontable ?x) (handempty) (not (holding ?x))))
 (:action stack :parameters (?x ?y)
  :precondition (and (clear ?y) (holding ?x))
  :effect (and (handempty) (clear ?x) (on ?x ?y) (not (clear ?y)) (not (holding ?x))))
 (:action unstack :parameters (?x ?y)
  :precondition (and (on ?x ?y) (clear ?x) (handempty))
  :effect (and (holding ?x) (clear ?y) (not (on ?x ?y)) (not (clear ?x)) (not (handempty)))))"""
"""The classical domain of four actions."""

TABLE, ANY = -1, -2

Towers = tuple[int, ...]
"""What each block stands on."""


class BlocksState(NamedTuple):
    names: tuple[str, ...]
    goal: Towers
    under: Towers
    left: int
    moves: tuple[tuple[int, int, int], ...] = ()  # (block, from, to)


class BlocksGame:
    """Up to `most` blocks. Action b * (most + 1) + d moves block b onto block d, or onto the table for d = `most`."""

    players = 1

    def __init__(self, most: int = 7, longest: int = 16) -> None:
        self.most, self.longest = most, longest
        self.actions, self.pointers = most * (most + 1), most
        self.observation_shape = (3 * most + 1,)
        self._first_left = 1 + 3 * (most + 2)
        self.vocabulary = self._first_left + longest + 1

    def initial(self) -> BlocksState:
        return BlocksState(("a", "b", "c"), (1, TABLE, TABLE), (TABLE, 0, TABLE), 2)

    def begin(self, problem: Problem) -> BlocksState:
        names, under, goal, budget = _read(problem.data, problem.id)
        if len(names) > self.most or budget > self.longest:
            raise DataError(
                f"{problem.id}: {len(names)} blocks and {budget} moves, the game holds {self.most} and {self.longest}; "
                "make BlocksGame larger"
            )
        if _reached(under, goal):
            raise DataError(f"{problem.id}: the goal holds from the start; write another one")
        return BlocksState(names, goal, under, budget)

    def legal(self, state: BlocksState) -> list[int]:
        most, found = self.most, []
        clear = [block for block in range(len(state.under)) if block not in state.under]
        for block in clear:
            found += [block * (most + 1) + other for other in clear if other != block]
            if state.under[block] != TABLE:
                found.append(block * (most + 1) + most)
        return found

    def step(self, state: BlocksState, action: int) -> tuple[BlocksState, float, bool, int]:
        block, onto = divmod(action, self.most + 1)
        if action not in self.legal(state):
            raise DataError(f"BlocksGame.step: action {action} is not legal in {self.render(state)!r}")
        onto = TABLE if onto == self.most else onto
        under = (*state.under[:block], onto, *state.under[block + 1 :])
        moves = (*state.moves, (block, state.under[block], onto))
        after = BlocksState(state.names, state.goal, under, state.left - 1, moves)
        solved = _reached(under, state.goal)
        return after, float(solved), solved or not after.left, 0

    def observe(self, state: BlocksState) -> np.ndarray:
        """float32 `[3 B + 1]`: what each block stands on, what stands on it, what it shall stand on; the moves left."""
        tokens, most = np.zeros(self.observation_shape, np.float32), self.most
        for block, (under, goal) in enumerate(zip(state.under, state.goal, strict=True)):
            tokens[block] = 3 + under
            tokens[most + block] = 1 + (most + 2)
            tokens[2 * most + block] = 1 + 2 * (most + 2) + 2 + goal
        for block, under in enumerate(state.under):
            if under != TABLE:
                tokens[most + under] = 1 + (most + 2) + 2 + block
        tokens[-1] = self._first_left + state.left
        return tokens

    def key(self, state: BlocksState) -> Any:
        return state.under, state.goal, state.left

    def answer(self, state: BlocksState) -> str | None:
        return _plan(state.names, state.moves) if _reached(state.under, state.goal) else None

    def describe(self, state: BlocksState, action: int) -> str:
        block, onto = divmod(action, self.most + 1)
        place = "the table" if onto == self.most else state.names[onto]
        right = state.goal[block] == (TABLE if onto == self.most else onto)
        return f"move {state.names[block]} onto {place}{', where it belongs' if right else ''}"

    def render(self, state: BlocksState) -> str:
        return f"{_shown(state.names, state.under)}; {state.left} left"


def _reached(under: Towers, goal: Towers) -> bool:
    return all(want in (ANY, have) for have, want in zip(under, goal, strict=True))


def _shown(names: Sequence[str], under: Towers) -> str:
    """Towers from the table up: `a b | c`."""
    above = {below: block for block, below in enumerate(under) if below != TABLE}
    towers = []
    for bottom in (block for block, below in enumerate(under) if below == TABLE):
        tower = [bottom]
        while tower[-1] in above:
            tower.append(above[tower[-1]])
        towers.append(" ".join(names[block] for block in tower))
    return " | ".join(towers)


def _plan(names: Sequence[str], moves: Sequence[tuple[int, int, int]]) -> str:
    steps = []
    for block, source, target in moves:
        name = names[block]
        steps.append(("pick-up", name) if source == TABLE else ("unstack", name, names[source]))
        steps.append(("put-down", name) if target == TABLE else ("stack", name, names[target]))
    return " ".join(written(step) for step in steps)


def fewest_moves(under: Towers, goal: Towers) -> list[tuple[int, int, int]]:
    """A shortest sequence of (block, from, to), by A*. Raises DataError for a goal that no arrangement meets.

    Every block that stands wrong, or on one that does, has to move: an estimate that never says too much.
    """
    ticket = count()
    queue = [(_wrong(under, goal), next(ticket), 0, under)]
    came: dict[Towers, tuple[int, Towers, tuple[int, int, int]] | None] = {under: None}
    costs = {under: 0}
    while queue:
        _, _, cost, here = heapq.heappop(queue)
        if cost > costs[here]:
            continue
        if _reached(here, goal):
            return _way(came, here)
        for move, after in _moves(here):
            if cost + 1 < costs.get(after, 1_000_000):
                costs[after], came[after] = cost + 1, (cost, here, move)
                heapq.heappush(queue, (cost + 1 + _wrong(after, goal), next(ticket), cost + 1, after))
    raise DataError(f"no arrangement of {len(under)} blocks meets the goal {goal}; correct it")


def _moves(under: Towers) -> list[tuple[tuple[int, int, int], Towers]]:
    clear = [block for block in range(len(under)) if block not in under]
    found = []
    for block in clear:
        for onto in [*(other for other in clear if other != block), *([TABLE] if under[block] != TABLE else [])]:
            found.append(((block, under[block], onto), (*under[:block], onto, *under[block + 1 :])))
    return found


def _way(came: Mapping[Towers, Any], here: Towers) -> list[tuple[int, int, int]]:
    moves: list[tuple[int, int, int]] = []
    while (step := came[here]) is not None:
        _, here, move = step
        moves.append(move)
    return moves[::-1]


def _wrong(under: Towers, goal: Towers) -> int:
    """Blocks that have to move at least once: those that stand wrong, and those above them."""
    wrong = 0
    for block in range(len(under)):
        here = block
        while here != TABLE:
            if goal[here] not in (ANY, under[here]):
                wrong += 1
                break
            here = under[here]
    return wrong


def blocks_params(difficulty: float) -> dict[str, int]:
    """Blocks, the moves that a shortest plan needs, and the moves that may be wasted."""
    return {
        "blocks": round(3 + 4 * difficulty),
        "moves": round(1 + 5 * difficulty),
        "slack": max(0, round(2 - 4 * difficulty)),
    }


def make_blocks(rng: random.Random, difficulty: float) -> Task:
    """Two random arrangements, redrawn until a shortest plan between them has the length wanted."""
    params = blocks_params(difficulty)
    while True:
        under, goal = (_arrangement(rng, params["blocks"]) for _ in range(2))
        if _wrong(under, goal) <= params["moves"] and len(fewest_moves(under, goal)) == params["moves"]:
            names = tuple("abcdefghijklmnopqrstuvwxyz"[: params["blocks"]])
            return blocks_task(names, under, goal, difficulty, params["slack"])


def _arrangement(rng: random.Random, blocks: int) -> Towers:
    """Blocks are put down in a random order, each on the table or on a tower."""
    under, tops = [TABLE] * blocks, list[int]()
    for block in rng.sample(range(blocks), blocks):
        place = rng.randint(-1, len(tops) - 1)
        if place < 0:
            tops.append(block)
        else:
            under[block], tops[place] = tops[place], block
    return tuple(under)


def blocks_task(names: Sequence[str], under: Towers, goal: Towers, difficulty: float, slack: int = 0) -> Task:
    """The task of two arrangements; `slack` moves more than a shortest plan needs are allowed. Raises DataError for a
    goal that cannot be met."""
    moves = fewest_moves(under, goal)
    budget = len(moves) + slack
    data = {"blocks": list(names), "under": list(under), "goal": list(goal), "budget": budget}
    data["key"] = f"{budget} moves {_shape(under, goal)}"
    wanted = _goal_text(names, goal)
    prompt = (
        f"Blocks stand in towers, from the table up: {_shown(names, under)}. Goal: {wanted}. Answer with a plan of at "
        f"most {2 * budget} steps: (pick-up x) from the table, (unstack x y) from a block, (put-down x) onto the table "
        "and (stack x y) onto a block."
    )
    return Task(
        content_id("blocksworld", prompt), "blocksworld", prompt, data, difficulty, wanted, _plan(names, moves)
    )  # fmt: skip


def _shape(under: Towers, goal: Towers) -> str:
    """The two arrangements, whatever the blocks are called and however the towers are ordered."""
    labels = {str(block): f"{min(under[block], 0)} {min(goal[block], 0)}" for block in range(len(under))}
    arrows = [
        (str(block), name, str(below))
        for name, places in (("stands", under), ("shall", goal))
        for block, below in enumerate(places)
        if below >= 0
    ]
    return shape_of(labels, arrows)


def _goal_text(names: Sequence[str], goal: Towers) -> str:
    wanted = [(name, onto) for name, onto in zip(names, goal, strict=True) if onto != ANY]
    atoms = [("ontable", name) if onto == TABLE else ("on", name, names[onto]) for name, onto in wanted]
    return " ".join(sorted(written(atom) for atom in atoms))


def pddl_of(data: Mapping[str, Any]) -> str:
    """The problem of a task's data in PDDL, for the domain `BLOCKSWORLD`."""
    names, under, goal, _ = _read(data, "blocksworld")
    facts = ["(handempty)"]
    for block, below in enumerate(under):
        facts.append(f"(ontable {names[block]})" if below == TABLE else f"(on {names[block]} {names[below]})")
        if block not in under:
            facts.append(f"(clear {names[block]})")
    return (
        f"(define (problem blocks) (:domain blocksworld-4ops) (:objects {' '.join(names)}) (:init {' '.join(facts)}) "
        f"(:goal (and {_goal_text(names, goal)})))"
    )


def blocks_from_pddl(text: str) -> tuple[tuple[str, ...], Towers, Towers]:
    """(names, under, goal) of a problem of the domain `BLOCKSWORLD`. Raises DataError for a start with a block in the
    hand, or a goal of anything but `on` and `ontable`."""
    problem = parse_problem(text, parse_domain(BLOCKSWORLD))
    names = tuple(problem.objects)
    place = {name: block for block, name in enumerate(names)}
    under, goal = {}, [ANY] * len(names)
    for atom in problem.initial:
        if atom[0] in ("on", "ontable"):
            under[place[atom[1]]] = place[atom[2]] if atom[0] == "on" else TABLE
    if len(under) != len(names):
        raise DataError(f"problem {problem.name}: every block must stand on a block or on the table at the start")
    for positive, atom in problem.goal:
        if not positive or atom[0] not in ("on", "ontable"):
            raise DataError(
                f"problem {problem.name}: the goal {written(atom)} is not read; write (on x y) or (ontable x)"
            )
        goal[place[atom[1]]] = place[atom[2]] if atom[0] == "on" else TABLE
    return names, tuple(under[block] for block in range(len(names))), tuple(goal)


def solves_blocks(task: Task, answer: str) -> bool:
    """Whether the text is a plan of at most 2 `budget` steps that the validator carries out to the goal, and to all
    that the task's answer names."""
    domain = parse_domain(BLOCKSWORLD)
    plan, wanted = parse_plan(answer), parse_plan(task.answer)
    if plan is None or wanted is None or len(plan) > 2 * task.data["budget"]:
        return False
    end = replay(domain, parse_problem(pddl_of(task.data), domain), plan)
    return end.failure is None and end.facts.issuperset(wanted)


def corrupted_blocks(task: Task, rng: random.Random) -> Any:
    """A goal in which one block stands on another place."""
    names, _, goal, _ = _read(task.data, task.id)
    block = rng.choice([b for b, onto in enumerate(goal) if onto != ANY])
    others = [onto for onto in range(TABLE, len(names)) if onto not in (goal[block], block)]
    return _goal_text(names, (*goal[:block], rng.choice(others), *goal[block + 1 :]))


def _read(data: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], Towers, Towers, int]:
    names, under, goal, budget = (data.get(key) for key in ("blocks", "under", "goal", "budget"))
    if not all(isinstance(part, Sequence) for part in (names, under, goal)) or type(budget) is not int:
        raise DataError(f"{where}: write blocks as names, under and goal as lists of places, and budget as a number")
    names, under, goal = tuple(names), tuple(under), tuple(goal)  # type: ignore[arg-type]
    places = [below for below in under if below != TABLE]
    standing = all(TABLE <= below < len(names) for below in under) and len(set(places)) == len(places)
    fits = len(names) == len(under) == len(goal) and all(ANY <= onto < len(names) for onto in goal)
    if not standing or not fits or not _grounded(under):
        raise DataError(
            f"{where}: under is {under}, goal {goal}; each block stands on the table or alone on another one"
        )
    return names, under, goal, budget


def _grounded(under: Towers) -> bool:
    """Whether every tower stands on the table."""
    for block in range(len(under)):
        for _ in range(len(under)):
            block = under[block] if block != TABLE else TABLE
        if block != TABLE:
            return False
    return True
