"""Generated facts: right answers, real distractors, one corpus for all sets and no question in two of them."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks import GENERATORS
from troupe.tasks.facts import FactsGenerator, ResearchGenerator, passages
from troupe.tasks.splits import disjoint, fingerprint

QUESTIONS = FactsGenerator((0.0, 1.0), seed=1).generate(400)
REPORTS = ResearchGenerator((0.0, 1.0), seed=1).generate(400)

# How passages put what questions ask, written out by hand.
PUT = {"boss": "works for", "teacher": "learned from", "town": "lives in", "pet": "keeps a", "instrument": "plays the"}


def corpus(task: Task) -> dict[str, str]:
    return {passage["id"]: passage["text"] for passage in passages(task.data["corpus"])}


def look_up(sentences: set[str], relation: str, person: str) -> str:
    """What the corpus says about somebody, read with other code than wrote it."""
    [found] = [s for s in sentences if s.startswith(f"{person} {PUT[relation]} ")]
    return found.rsplit(" ", 1)[1]


def test_they_are_the_registered_generators() -> None:
    assert (GENERATORS["facts"], GENERATORS["research"]) == (FactsGenerator, ResearchGenerator)


@pytest.mark.parametrize("generator", [FactsGenerator, ResearchGenerator])
def test_the_same_seed_gives_the_same_tasks(generator: type[FactsGenerator]) -> None:
    first = generator(seed=1).generate(20)
    assert first == generator(seed=1).generate(20) != generator(seed=2).generate(20)
    assert [Task.from_dict(json.loads(json.dumps(task.to_dict()))) for task in first] == first


def test_the_answer_is_what_the_corpus_says_hop_by_hop() -> None:
    for task in QUESTIONS:
        sentences = set(corpus(task).values())
        chain, person = re.fullmatch(r"Name the (.+) of (\w+)\.", task.prompt).groups()  # type: ignore[union-attr]
        for relation in reversed(chain.split(" of the ")):
            person = look_up(sentences, relation, person)
        assert task.answer["answers"] == [person]
        assert len(chain.split(" of the ")) == {"one_hop": 1, "two_hop": 2, "three_hop": 3}[task.kind]


def test_the_named_passages_prove_the_answer_and_the_queries_have_their_words() -> None:
    for task in QUESTIONS:
        texts = [corpus(task)[id] for id in task.answer["passages"]]
        assert texts == task.solution["check"] and texts[-1].endswith(task.answer["answers"][0])
        for query, text in zip(task.solution["plan"], texts, strict=True):
            assert set(query.split()) <= set(text.split())


def test_neither_the_answer_nor_its_passages_stand_in_the_problem() -> None:
    for task in QUESTIONS:
        assert task.answer["answers"][0] not in task.prompt
        assert set(task.data) == {"corpus", "key"}
        assert not any(text in json.dumps(task.problem.data) for text in task.solution["check"])


def test_every_person_is_known_once_in_each_relation_and_asked_from_both_sides() -> None:
    texts = [passage["text"] for passage in passages("facts-96-0")]
    assert len(texts) == len(set(texts)) == 5 * 96
    for relation in ("works for", "learned from"):
        pairs = [text.split(f" {relation} ") for text in texts if f" {relation} " in text]
        assert Counter(a for a, _ in pairs) == Counter(b for _, b in pairs) == Counter({a: 1 for a, _ in pairs})
        assert len({frozenset(pair) for pair in pairs}) == 96


def test_the_corpus_depends_on_its_name_alone() -> None:
    assert passages("facts-32-0") == passages("facts-32-0") != passages("facts-32-1")
    assert {p["id"] for p in passages("facts-32-0")} == {str(n) for n in range(1, 161)}


@pytest.mark.parametrize(
    "name", ["facts", "facts-0-0", "facts-7-0", "facts-999-0", "facts-32-x", "wiki", "facts-032-0"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"write facts-PEOPLE-SEED with 8 to 308 people, such as facts-96-0"):
        passages(name)


@pytest.mark.parametrize(("difficulty", "people"), [(0.0, 32), (0.5, 96), (1.0, 288)])
def test_harder_questions_hide_in_larger_corpora(difficulty: float, people: int) -> None:
    task = FactsGenerator((difficulty, difficulty), seed=4).generate(1)[0]
    assert task.data["corpus"] == f"facts-{people}-0" and len(corpus(task)) == 5 * people


@pytest.mark.parametrize("generator", [FactsGenerator, ResearchGenerator])
def test_sets_share_the_corpus_and_no_question(generator: type[FactsGenerator]) -> None:
    train, held_out = disjoint(generator((0.5, 0.5), seed=3), (300, 100))
    assert {task.data["corpus"] for task in train} == {task.data["corpus"] for task in held_out} == {"facts-96-0"}
    assert not {fingerprint(task) for task in train} & {fingerprint(task) for task in held_out}
    assert len({task.prompt for task in held_out}) == 100


def test_a_report_asked_in_another_order_is_the_same_question() -> None:
    train, held_out = disjoint(ResearchGenerator((0.5, 0.5), 3, ("two_facts", "three_facts")), (2000, 200))
    trained = {frozenset(task.solution["plan"]) for task in train}
    assert len(trained) < len({task.prompt for task in train})  # there are such pairs
    assert not trained & {frozenset(task.solution["plan"]) for task in held_out}
    assert len({frozenset(task.solution["plan"]) for task in held_out}) == 200


def test_the_same_question_about_another_world_is_another_task() -> None:
    class Other(FactsGenerator):
        corpus_seed = 1

    ours, theirs = (g((1.0, 1.0), 0, ("one_hop",)).generate(300) for g in (FactsGenerator, Other))
    shared = {task.prompt for task in ours} & {task.prompt for task in theirs}
    assert shared and not {task.id for task in ours} & {task.id for task in theirs}


def test_a_report_names_its_facts_and_where_they_stand() -> None:
    for task in REPORTS:
        texts = corpus(task)
        facts = task.answer["facts"]
        assert len(facts) == {"one_fact": 1, "two_facts": 2, "three_facts": 3}[task.kind]
        assert len({id for fact in facts for id in fact["passages"]}) == len(facts)
        for fact, sentence, question in zip(facts, task.solution["check"], task.solution["plan"], strict=True):
            [(id, text)] = fact["passages"].items()
            assert texts[id] == text == sentence and text.endswith(fact["values"][0])
            relation, person = question.split(" of ")
            assert text == f"{person} {PUT[relation]} {look_up(set(texts.values()), relation, person)}"
            assert relation in task.prompt and person in task.prompt


def test_reports_are_asked_about_one_person_or_two() -> None:
    people = Counter(len(set(re.findall(r" of (\w+)", task.prompt))) for task in REPORTS if task.kind != "one_fact")
    assert set(people) == {1, 2} and min(people.values()) > 50
