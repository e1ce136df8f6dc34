"""Search, reading and quoting: what is found, in which order, and what the tools say to misuse."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from troupe.errors import ConfigError, DataError
from troupe.protocols import Tool
from troupe.tasks.corpora import load_corpus
from troupe.tasks.facts import FactsGenerator, passages
from troupe.tools.search import CiteTool, Passage, ReadTool, SearchTool

ROWS = [
    {"id": "a", "title": "Mill", "text": "The mill stands by the river."},
    {"id": "b", "title": "", "text": "The river floods in spring, and the mill floods with it."},
    {"id": "c", "title": "", "text": "Nobody lives here."},
    {"id": "d", "title": "", "text": "Nobody lives here."},
]


def tool(**settings: Any) -> SearchTool:
    return SearchTool(ROWS, **settings)


def test_the_best_passage_comes_first() -> None:
    assert [p.id for p in tool().search("mill floods")] == ["b", "a"]
    assert tool().search("MILL, river!")[0] == Passage("a", "Mill", "The mill stands by the river.")


def test_scores_are_bm25() -> None:
    """Against the formula: idf(q) tf / (tf + k1 (1 - b + b |d| / avg)), its constant factor left out."""
    rows = passages("facts-32-0")
    words = [row["text"].casefold().split() for row in rows]
    mean = sum(map(len, words)) / len(words)
    known = Counter(word for row in words for word in set(row))

    def score(query: list[str], row: list[str]) -> float:
        total = 0.0
        for word in query:
            idf = math.log(1 + (len(rows) - known[word] + 0.5) / (known[word] + 0.5))
            total += idf * row.count(word) / (row.count(word) + 1.5 * (0.25 + 0.75 * len(row) / mean))
        return total

    for task in FactsGenerator((0.0, 0.0), 2).generate(20):
        query = task.solution["plan"][0].casefold().split()
        scores = [round(score(query, row), 5) for row in words]
        order = sorted((i for i, s in enumerate(scores) if s > 0), key=lambda i: (-scores[i], i))
        found = SearchTool(rows).search(" ".join(query), k=8)
        assert [p.id for p in found] == [rows[i]["id"] for i in order[:8]]


def test_passages_of_one_score_stand_in_the_corpus_order() -> None:
    assert [p.id for p in tool().search("nobody lives")] == ["c", "d"]
    assert [p.id for p in SearchTool(ROWS[::-1]).search("nobody lives")] == ["d", "c"]


def test_k_bounds_the_results() -> None:
    assert len(tool(k=1).search("the")) == 1 and len(tool(k=1).search("the", k=3)) == 2


def test_nothing_shared_finds_nothing() -> None:
    assert tool().search("xyzzy") == [] and tool().search("") == [] and tool().search("?!") == []
    assert tool()(query="xyzzy") == "error: nothing was found; use other words"


def test_a_call_shows_ids_titles_and_texts() -> None:
    assert tool(k=1)(query="stands") == "[a] Mill: The mill stands by the river."


def test_long_passages_are_cut_between_words() -> None:
    short = tool(max_characters=20)
    assert short(query="stands") == "[a] Mill: The mill stands ..."
    assert len(short.search("stands")[0].text) <= 20
    assert short.get("a") == Passage("a", "Mill", "The mill stands by the river.")
    assert Passage("x", "", "abcdefghijkl").shortened(8).text == "abcd ..."


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({}, "error: 'query' must be text"),
        ({"query": 3}, "error: 'query' must be text"),
        ({"query": " "}, "error: 'query' must be text"),
        ({"q": "mill"}, "error: unknown argument 'q'; write 'query'"),
        ({"self": "mill"}, "error: unknown argument 'self'; write 'query'"),
        ({"query": "mill", "k": 2}, "error: unknown argument 'k'; write 'query'"),
    ],
)
def test_misuse_is_answered(arguments: dict[str, Any], answer: str) -> None:
    assert tool()(**arguments) == answer


def test_collections_are_loaded_by_name_and_indexed_once() -> None:
    loaded: list[str] = []

    def load(name: str) -> list[dict[str, str]]:
        loaded.append(name)
        return load_corpus(name)

    library = SearchTool(load=load)
    task = FactsGenerator((0.0, 0.0), 2).generate(1)[0]
    for _ in range(3):
        found = library.on(task.data["corpus"]).search(task.solution["plan"][0])
        assert task.answer["passages"][0] in [p.id for p in found[:2]]
    assert loaded == [task.data["corpus"]]


def test_a_tool_without_a_collection_says_what_it_needs() -> None:
    with pytest.raises(DataError, match=r"has no corpus: give it one, or a task that names one in data\['corpus'\]"):
        SearchTool().search("mill")
    with pytest.raises(DataError, match="cannot load the corpus 'x': it was made without load="):
        SearchTool().on("x").search("mill")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "is empty"),
        ([*ROWS, ROWS[0]], "has an id twice"),
        ([{"id": "a"}], "a passage is a mapping with id, title and text"),
        (["text"], "a passage is a mapping with id, title and text"),
    ],
)
def test_a_bad_collection_is_refused(rows: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        SearchTool(rows).search("mill")


@pytest.mark.parametrize("settings", [{"k": 0}, {"max_characters": 4}])
def test_bounds_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least"):
        tool(**settings)


def test_reading() -> None:
    read = ReadTool(tool(max_characters=10))
    assert read(passage="[a]") == read(passage="a") == "[a] Mill: The mill stands by the river."
    assert read(passage="z") == "error: there is no passage [z]"
    assert read() == "error: 'passage' must be text"
    assert read(id="a") == "error: unknown argument 'id'; write 'passage'"


def test_quotes_must_stand_in_the_passage() -> None:
    cite = CiteTool(tool())
    assert cite(passage="a", quote="mill stands by") == "[a] mill stands by"
    assert cite(passage="c") == "[c] Nobody lives here."
    assert CiteTool(tool(max_characters=12))(passage="c") == "[c] Nobody ..."
    for quote in ("mill by the river", "The bridge", "", 3):
        assert cite(passage="a", quote=quote) == "error: passage [a] does not say that"
    assert cite(passage="z", quote="mill") == "error: there is no passage [z]"


def test_they_are_tools() -> None:
    tools: list[Tool] = [tool(), ReadTool(tool()), CiteTool(tool())]
    assert [t.name for t in tools] == ["search", "read", "cite"]
    assert [list(t.parameters["properties"]) for t in tools] == [["query"], ["passage"], ["passage", "quote"]]
    assert all(t.parameters["additionalProperties"] is False for t in tools)
