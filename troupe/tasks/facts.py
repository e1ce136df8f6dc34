"""Invented people, a corpus of one-sentence passages about them, and questions whose answers stand in it.

    Task(id="two_hop-6f0c1c6e7a51", kind="two_hop", prompt="Name the town of the boss of Dolek.", difficulty=0.5,
         data={"corpus": "facts-96-0", "key": "facts-96-0 Name the town of ..."},
         answer={"answers": ["Jawick"], "passages": ["311", "87"]},
         solution={"plan": ["Dolek works", "Wativ lives"], "check": ["Dolek works for Wativ", "Wativ lives in Jawick"],
                   "answer": "Jawick"})

The corpus belongs to the family of tasks: `data["corpus"]` names it, and `passages` builds it from its name alone. All
sets of one difficulty ask about the same people, and no question is in two sets: `data["key"]` names what is asked
in one order, however a report's prompt puts it. Passages say "works for" where
questions say "boss", so a query must be put into the corpus's words; every relation but the asked one is a distractor,
and so is the asked one seen from the other side ("Sulek works for Dolek" has the words of the first query, too).

    Task(id="two_facts-0b3c62f2a4d8", kind="two_facts", prompt="Report the boss and the town of Dolek.", ...,
         answer={"facts": [{"values": ["Wativ"], "passages": {"311": "Dolek works for Wativ"}},
                           {"values": ["Kemere"], "passages": {"19": "Dolek lives in Kemere"}}]},
         solution={"plan": ["boss of Dolek", "town of Dolek"], "calls": ["Dolek works", "Dolek lives"],
                   "check": ["Dolek works for Wativ", "Dolek lives in Kemere"]})
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.splits import content_id

__all__ = ["FactsGenerator", "ResearchGenerator", "passages"]

_FIRST = (
    "Ba", "Be", "Do", "Du", "Fe", "Ga", "Go", "Hu", "Ja", "Ke", "Lo",
    "Mu", "Na", "Po", "Ri", "Su", "Ta", "Ve", "Wo", "Xa", "Yu", "Zi",
)  # fmt: skip
_PERSON = ("bix", "dar", "gus", "kyn", "lek", "mos", "nel", "pim", "ran", "rud", "sef", "tiv", "vat", "wen")
_TOWN = ("by", "ford", "ham", "mere", "stead", "wick")
_PETS = ("cat", "crow", "dog", "goat", "hen", "mule", "pig", "toad")
_INSTRUMENTS = ("bell", "cello", "drum", "flute", "harp", "lute", "pipe", "viola")

_RELATIONS = {
    "boss": "{} works for {}",
    "teacher": "{} learned from {}",
    "town": "{} lives in {}",
    "pet": "{} keeps a {}",
    "instrument": "{} plays the {}",
}
"""A relation as questions name it, and as passages put it."""
_BETWEEN_PEOPLE = ("boss", "teacher")
_HOPS = {"one_hop": 1, "two_hop": 2, "three_hop": 3}
_FACTS = {"one_fact": 1, "two_facts": 2, "three_facts": 3}
_NAME = re.compile(r"facts-([1-9]\d{0,2})-(\d{1,9})")
_MOST_PEOPLE = len(_FIRST) * len(_PERSON)
_FEWEST_PEOPLE = 8


@dataclass(frozen=True)
class _World:
    """Who stands in which relation to whom, and where it is written."""

    name: str
    people: tuple[str, ...]
    objects: Mapping[tuple[str, str], str]  # (relation, person) -> person, town or thing
    passages: tuple[Mapping[str, str], ...]
    where: Mapping[str, str]  # sentence -> passage id

    def sentence(self, relation: str, person: str) -> str:
        return _RELATIONS[relation].format(person, self.objects[relation, person])

    def query(self, relation: str, person: str) -> str:
        """Who, and the one word by which passages tell the relation."""
        return " ".join(_RELATIONS[relation].format(person, "").split()[:2])


def passages(name: str) -> list[dict[str, str]]:
    """The corpus of a name such as `facts-96-0` (96 people, seed 0): `[{"id": "1", "title": "", "text": ...}, ...]`.

    Raises DataError for another name.
    """
    return [dict(passage) for passage in _world(name).passages]


@lru_cache(maxsize=16)
def _world(name: str) -> _World:
    found = _NAME.fullmatch(name)
    if not found or not _FEWEST_PEOPLE <= int(found[1]) <= _MOST_PEOPLE:
        raise DataError(
            f"there is no generated corpus {name!r}; write facts-PEOPLE-SEED with {_FEWEST_PEOPLE} to {_MOST_PEOPLE} "
            "people, such as facts-96-0"
        )
    rng = random.Random(f"{name}/world")
    people = rng.sample(["".join(parts) for parts in product(_FIRST, _PERSON)], int(found[1]))
    towns = rng.sample(["".join(parts) for parts in product(_FIRST, _TOWN)], max(4, len(people) // 4))
    objects: dict[tuple[str, str], str] = {}
    for relation in _BETWEEN_PEOPLE:
        for person, other in _pairs(people, rng, taken=set(objects.items())):
            objects[relation, person] = other
    for relation, things in (("town", towns), ("pet", _PETS), ("instrument", _INSTRUMENTS)):
        for person in people:
            objects[relation, person] = rng.choice(things)
    sentences = [_RELATIONS[relation].format(person, thing) for (relation, person), thing in objects.items()]
    rng.shuffle(sentences)
    where = {sentence: str(number) for number, sentence in enumerate(sentences, start=1)}
    corpus = tuple({"id": id, "title": "", "text": sentence} for sentence, id in where.items())
    return _World(name, tuple(people), objects, corpus, where)


def _pairs(people: Sequence[str], rng: random.Random, taken: set[tuple[tuple[str, str], str]]) -> list[tuple[str, str]]:
    """Each person with another, nobody twice on either side and no pair twice in either order."""
    known = {frozenset((person, other)) for (_, person), other in taken}
    while True:
        order = rng.sample(people, len(people))
        pairs = list(zip(order, order[1:] + order[:1], strict=True))
        if not any(frozenset(pair) in known for pair in pairs):
            return pairs


class _AboutPeople(BaseTaskGenerator):
    """What both generators share: the world of a difficulty. `corpus_seed` chooses another world of that size."""

    corpus_seed = 0

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        """The number of people, 32 to 288: more of them are more passages to be lost in."""
        return {"people": 32 + 32 * round(8 * difficulty**2)}

    def _world(self, difficulty: float) -> _World:
        return _world(f"facts-{self._difficulty_to_params(difficulty)['people']}-{self.corpus_seed}")

    def _task(self, kind: str, difficulty: float, world: _World, prompt: str, asked: str, **fields: Any) -> Task:
        """`asked` is the same for prompts that ask the same."""
        data = {"corpus": world.name, "key": f"{world.name} {asked}"}
        return Task(content_id(kind, f"{world.name} {prompt}"), kind, prompt, data, round(difficulty, 4), **fields)


class FactsGenerator(_AboutPeople):
    """Questions of one to three hops with one right answer, which does not stand in the question."""

    KINDS = tuple(_HOPS)
    DEFAULT_KINDS = ("one_hop", "two_hop")

    def make(self, difficulty: float) -> Task:
        """One question of a kind drawn by weight."""
        kind, world = self.draw_kind(), self._world(difficulty)
        while True:
            start = self.rng.choice(world.people)
            chain = [self.rng.choice(_BETWEEN_PEOPLE) for _ in range(_HOPS[kind] - 1)]
            chain.append(self.rng.choice(tuple(_RELATIONS)))
            subjects = [start]
            for relation in chain:
                subjects.append(world.objects[relation, subjects[-1]])
            if len(set(subjects)) == len(subjects):  # no way back: the answer would be an echo, or a shorter question's
                break
        hops = list(zip(chain, subjects, strict=False))
        sentences = [world.sentence(relation, person) for relation, person in hops]
        prompt = f"Name the {' of the '.join(reversed(chain))} of {start}."
        return self._task(
            kind, difficulty, world, prompt, asked=prompt,
            answer={"answers": [subjects[-1]], "passages": [world.where[sentence] for sentence in sentences]},
            solution={
                "plan": [world.query(relation, person) for relation, person in hops],
                "check": sentences,
                "answer": subjects[-1],
            },
        )  # fmt: skip


class ResearchGenerator(_AboutPeople):
    """Reports to write: one to three facts about one person or several, each to be cited."""

    KINDS = tuple(_FACTS)
    DEFAULT_KINDS = ("two_facts", "three_facts")

    def make(self, difficulty: float) -> Task:
        """One question of a kind drawn by weight."""
        kind, world = self.draw_kind(), self._world(difficulty)
        wanted = _FACTS[kind]
        people = self.rng.sample(world.people, self.rng.randint(1, min(2, wanted)))
        asked: dict[str, list[str]] = {person: [] for person in people}
        for number in range(wanted):
            person = people[number % len(people)]
            asked[person].append(self.rng.choice([r for r in _RELATIONS if r not in asked[person]]))
        facts = [(relation, person) for person, relations in asked.items() for relation in relations]
        parts = [f"the {' and the '.join(relations)} of {person}" for person, relations in asked.items()]
        sentences = [world.sentence(relation, person) for relation, person in facts]
        plan = [f"{relation} of {person}" for relation, person in facts]
        return self._task(
            kind, difficulty, world, f"Report {', '.join(parts)}.", asked="; ".join(sorted(plan)),
            answer={
                "facts": [
                    {"values": [world.objects[fact]], "passages": {world.where[sentence]: sentence}}
                    for fact, sentence in zip(facts, sentences, strict=True)
                ]
            },
            solution={
                "plan": plan,
                "calls": [world.query(relation, person) for relation, person in facts],
                "check": sentences,
            },
        )  # fmt: skip
