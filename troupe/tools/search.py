"""Search in a collection of passages by BM25, and reading and quoting what was found.

    tool = SearchTool([{"id": "1", "title": "", "text": "Dolek works for Wativ"}, ...])
    tool(query="Dolek works")                           # "[1] Dolek works for Wativ\\n[2] Sulek works for Dolek"
    tool.search("Dolek works", k=1)                     # [Passage(id="1", title="", text="Dolek works for Wativ")]

BM25 (Robertson and Zaragoza 2009, doi:10.1561/1500000019) as Lucene computes it, by `bm25s`. Passages of one score
stand in the corpus's order, so that the same question finds the same passages on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

import numpy as np

from troupe.errors import ConfigError, DataError

__all__ = ["BM25", "SAME_SCORE", "CiteTool", "Index", "Passage", "ReadTool", "SearchTool"]

_WORD = re.compile(r"\w+")
SAME_SCORE = 5
"""Decimals at which scores are compared: below them float32 sums differ by the order of their terms."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that can be found and cited by its id."""

    id: str
    title: str
    text: str

    @property
    def whole(self) -> str:
        """`Title: text`, or the text alone."""
        return f"{self.title}: {self.text}" if self.title else self.text

    def shortened(self, limit: int) -> Passage:
        """The passage with its text cut between words to at most `limit` characters; " ..." says so."""
        if len(self.text) <= limit:
            return self
        head = self.text[: limit - 4]
        return replace(self, text=(head.rsplit(" ", 1)[0] if " " in head else head) + " ...")


class Index(Protocol):
    """What finds among the passages it was made of."""

    def find(self, query: str, k: int) -> Sequence[int]:
        """Positions of at most `k` passages, the best first; of equally good ones the earlier."""
        ...


class BM25:
    """Passages by their words. Imported lazily: `bm25s` costs a second at start-up."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        import bm25s

        words = [_words(passage.whole) for passage in passages]
        self._bm25 = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        self._bm25.index(words, show_progress=False)
        self._known = {word for row in words for word in row}

    def find(self, query: str, k: int) -> Sequence[int]:
        """Only passages that share a word with the query."""
        words = [word for word in _words(query) if word in self._known]
        if not words:
            return ()
        scores = np.round(self._bm25.get_scores(words).astype(np.float64), SAME_SCORE)
        found = np.flatnonzero(scores > 0)
        return [int(i) for i in found[np.argsort(-scores[found], kind="stable")[:k]]]


class _Collection:
    """The passages of one corpus, and their index from the first search on, whichever thread asks first."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], name: str, index: Callable[[list[Passage]], Index]) -> None:
        try:
            self.passages = [Passage(str(row["id"]), str(row.get("title") or ""), str(row["text"])) for row in rows]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"corpus {name}: a passage is a mapping with id, title and text ({error!r})") from error
        self.by_id = {passage.id: passage for passage in self.passages}
        if not self.passages or len(self.by_id) < len(self.passages):
            raise DataError(f"corpus {name} {'has an id twice' if self.passages else 'is empty'}")
        self._make = index
        self._index: Index | None = None
        self._lock = Lock()
        self.find = lru_cache(maxsize=1 << 14)(self._find)

    def _find(self, query: str, k: int) -> tuple[Passage, ...]:
        with self._lock:
            if self._index is None:
                self._index = self._make(self.passages)
        return tuple(self.passages[i] for i in self._index.find(query, k))


class _Shelf:
    """Collections by name, each read once, whichever thread asks first."""

    def __init__(self) -> None:
        self._collections: dict[str, _Collection] = {}
        self._lock = Lock()

    def get(self, name: str, read: Callable[[], _Collection]) -> _Collection:
        with self._lock:
            if name not in self._collections:
                self._collections[name] = read()
            return self._collections[name]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


@dataclass(frozen=True, slots=True)
class SearchTool:
    """Finds the `k` best passages for a query, each cut to at most `max_characters` of its text.

    `corpus` is the collection, as mappings with id, title and text, or the name of one that `load` knows. `on(name)` is
    the same tool over another collection; collections are indexed once, by `index`, and shared. A call answers in text
    and never raises for what an agent may say; `search` answers in passages.
    """

    corpus: str | Sequence[Mapping[str, Any]] | None = None
    load: Callable[[str], Iterable[Mapping[str, Any]]] | None = None
    k: int = 4
    max_characters: int = 600
    name: str = "search"
    description: str = "Finds passages by their words; returns the best ones, each after its id in brackets."
    index: Callable[[list[Passage]], Index] = BM25
    _shelf: _Shelf = field(default_factory=_Shelf, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.k < 1 or self.max_characters < 8:
            raise ConfigError(f"k={self.k} must be at least 1, and max_characters={self.max_characters} at least 8")

    @property
    def parameters(self) -> Mapping[str, Any]:
        return _schema("query", "a few words that the passage holds")

    def on(self, corpus: str) -> SearchTool:
        """This tool over the collection of that name."""
        return replace(self, corpus=corpus)

    def search(self, query: str, k: int | None = None) -> list[Passage]:
        """At most `k` passages, the best first; by BM25 only such as share a word with the query. Raises DataError
        where there is no such collection."""
        found = self._collection().find(query, self.k if k is None else k)
        return [passage.shortened(self.max_characters) for passage in found]

    def get(self, id: str) -> Passage | None:
        """The whole passage of an id, with or without brackets around it."""
        return self._collection().by_id.get(id.strip().strip("[]").strip())

    def __call__(self, /, query: Any = None, **unknown: Any) -> str:
        """`[id] text` of the passages found, one on each line, or `error: ...`."""
        wrong = _misuse("query", query, unknown)
        if wrong is not None:
            return wrong
        found = self.search(query)
        if not found:
            return "error: nothing was found; use other words"
        return "\n".join(f"[{passage.id}] {passage.whole}" for passage in found)

    def _collection(self) -> _Collection:
        if self.corpus is None:
            raise DataError("the search tool has no corpus: give it one, or a task that names one in data['corpus']")
        name = self.corpus if isinstance(self.corpus, str) else ""
        shown = repr(name) if name else "given to the search tool"
        return self._shelf.get(name, lambda: _Collection(self._rows(), shown, self.index))

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        if not isinstance(self.corpus, str):
            return self.corpus or ()
        if self.load is None:
            raise DataError(f"the search tool cannot load the corpus {self.corpus!r}: it was made without load=")
        return self.load(self.corpus)


@dataclass(frozen=True, slots=True)
class ReadTool:
    """Shows a passage in full."""

    library: SearchTool
    name: str = "read"
    description: str = "Shows the whole passage of an id."

    @property
    def parameters(self) -> Mapping[str, Any]:
        return _schema("passage", "the id of a passage")

    def __call__(self, /, passage: Any = None, **unknown: Any) -> str:
        """The passage's text, or `error: ...`."""
        found = _known_passage(self.library, passage, unknown)
        return found if isinstance(found, str) else f"[{found.id}] {found.whole}"


@dataclass(frozen=True, slots=True)
class CiteTool:
    """Takes a passage down as a source. A quote must stand in it, word by word."""

    library: SearchTool
    name: str = "cite"
    description: str = "Notes a passage as a source; a quote, if given, must stand in it word by word."

    @property
    def parameters(self) -> Mapping[str, Any]:
        quote = {"type": "string", "description": "words of the passage"}
        schema = _schema("passage", "the id of a passage")
        return {**schema, "properties": {**schema["properties"], "quote": quote}}

    def __call__(self, /, passage: Any = None, quote: Any = None, **unknown: Any) -> str:
        """`[id] what was quoted`, or `error: ...`."""
        found = _known_passage(self.library, passage, unknown)
        if isinstance(found, str):
            return found
        if quote is None:
            return f"[{found.id}] {found.shortened(self.library.max_characters).whole}"
        if not isinstance(quote, str) or not _holds(_words(found.whole), _words(quote)):
            return f"error: passage [{found.id}] does not say that"
        return f"[{found.id}] {quote.strip()}"


def _known_passage(library: SearchTool, passage: Any, unknown: Mapping[str, Any]) -> Passage | str:
    """The passage that was asked for, or an answer that begins with `error:`."""
    wrong = _misuse("passage", passage, unknown)
    if wrong is not None:
        return wrong
    return library.get(passage) or f"error: there is no passage [{passage.strip()[:40]}]"


def _misuse(argument: str, value: Any, unknown: Mapping[str, Any]) -> str | None:
    if unknown:
        return f"error: unknown argument {min(unknown)[:40]!r}; write {argument!r}"
    if not isinstance(value, str) or not value.strip():
        return f"error: {argument!r} must be text"
    return None


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    return bool(part) and any(list(words[i : i + len(part)]) == list(part) for i in range(len(words)))


def _schema(argument: str, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {argument: {"type": "string", "description": description}},
        "required": [argument],
        "additionalProperties": False,
    }
