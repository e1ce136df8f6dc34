"""Readers of public logic questions: ProntoQA and ProofWriter as theories, LogicalDeduction as orders of objects.

Rows are those of Pan et al. 2023, Logic-LM, arXiv:2305.12295: {"id", "context", "question", "options", "answer"}. The
sentences of ProntoQA (Saparov & He 2023, arXiv:2210.01240) and ProofWriter (Tafjord et al. 2021, arXiv:2012.13048)
are made from templates; they become facts and rules over the named individuals, which `deduction` plays and judges.
LogicalDeduction (BIG-bench, arXiv:2206.04615) places three to seven objects in a row; what an option says is decided
over all the orders that the clues permit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.deduction import VERDICTS, Rule, deduction_task
from troupe.tasks.rows import locate, objects, text, texts
from troupe.tasks.splits import content_id

__all__ = [
    "prontoqa_theory",
    "proofwriter_theory",
    "read_logical_deduction",
    "read_prontoqa",
    "read_proofwriter",
    "solve_order",
    "solves_order",
]

Theory = tuple[list[str], list[Rule], str]
"""(facts, rules, what is asked)."""


def read_prontoqa(path: str | Path) -> Iterator[Task]:
    """Tasks of kind `deduction`. Raises DataError for a row that cannot be read, or whose answer does not follow."""
    return _read(path, "prontoqa", prontoqa_theory)


def read_proofwriter(path: str | Path) -> Iterator[Task]:
    """Tasks of kind `deduction`, some of them of statements that nobody can decide. Raises DataError as above."""
    return _read(path, "proofwriter", proofwriter_theory)


def _read(path: str | Path, name: str, theory: Callable[[str, str], Theory]) -> Iterator[Task]:
    names = [f"{name}{part}.jsonl.gz" for part in ("_train", "_dev_part", "")] + [f"{name}.jsonl"]
    for where, row in objects(locate(path, *names), name):
        context, question = text(row, "context", where), text(row, "question", where)
        try:
            facts, rules, ask = theory(context, question.partition("? ")[2])
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        data = {"facts": facts, "rules": [[list(body), head] for body, head in rules], "ask": ask, "source": name}
        if "id" in row:
            data["row"] = row["id"]
        task = deduction_task(data, 0.0, f"{context}\n{question}")
        if VERDICTS["ABC".find(text(row, "answer", where))] != task.answer:
            raise DataError(f"{where}: its answer is {row['answer']}, but {ask!r} is {task.answer}; correct the row")
        yield Task(
            task.id, task.kind, task.prompt, task.data, min(1.0, task.data["budget"] / 10), task.answer, task.solution
        )  # fmt: skip


def _sentences(paragraph: str) -> list[str]:
    return [sentence.strip() for sentence in paragraph.split(".") if sentence.strip()]


# ------------------------------------------------------------------------------------------- ProntoQA


def prontoqa_theory(context: str, question: str) -> Theory:
    """One individual, who belongs to kinds and has properties: "Each wumpus is a jompus. Polly is not sour."

    Raises DataError for a sentence of another form.
    """
    facts: list[str] = []
    rules: list[Rule] = []
    who = question.split()[0]
    for sentence in _sentences(context):
        match = re.fullmatch(r"(?:(?:Each|Every) (\w+) is|(\w+) are) (not )?(?:an? )?(\w+)", sentence)
        if match:
            kind = match[1] or _singular(match[2])
            rules.append(((f"{who} is {kind}",), f"{match[3] or ''}{who} is {_singular(match[4])}"))
        else:
            facts.append(_belongs(sentence))
    return facts, rules, _belongs(question.strip(" ."))


def _belongs(sentence: str) -> str:
    match = re.fullmatch(r"(\w+) is (not )?(?:an? )?(\w+)", sentence)
    if match is None:
        raise DataError(f"the sentence {sentence!r} is not read; it is neither `Polly is a zumpus` nor a rule")
    return f"{match[2] or ''}{match[1]} is {match[3]}"


def _singular(word: str) -> str:
    """Kinds are invented words that end in -us or -sy; their plurals end in -uses."""
    return re.sub(r"us(es)?$", "us", word.lower())


# ------------------------------------------------------------------------------------------- ProofWriter


def proofwriter_theory(context: str, question: str) -> Theory:
    """Individuals with properties and relations; a rule for "something" or "someone" is one for each individual.

    Raises DataError for a sentence of another form.
    """
    statements: list[str] = []
    patterns: list[Rule] = []
    for sentence in _sentences(context):
        rule = _rule(sentence)
        if rule is None:
            statements.append(_statement(sentence))
        else:
            patterns.append(rule)
    ask = _statement(question.strip(" ."))
    mentioned = [*statements, ask, *(literal for body, head in patterns for literal in (*body, head))]
    people = dict.fromkeys(name for literal in mentioned for name in _individuals(literal) if name != "?")
    rules: dict[Rule, None] = {}
    for body, head in patterns:
        general = any("?" in _individuals(literal) for literal in (*body, head))
        for name in people if general else [""]:
            bound = tuple(dict.fromkeys(literal.replace("?", name) for literal in body)), head.replace("?", name)
            rules[bound] = None
    return statements, list(rules), ask


def _rule(sentence: str) -> Rule | None:
    """Conditions and conclusion, "?" for anybody; None for a sentence that is a fact."""
    if match := re.fullmatch(r"(?:All )?([\w, ]+?) (?:things|people) are (not )?(\w+)", sentence):
        body = tuple(f"? is {adjective.strip().lower()}" for adjective in match[1].split(","))
        return body, f"{match[2] or ''}? is {match[3]}"
    if match := re.fullmatch(r"If (.+) then (.+)", sentence):
        subject, conditions = "", list[str]()
        for part in match[1].split(" and "):
            literal = _condition(part, subject)
            subject = _individuals(literal)[0]
            conditions.append(literal)
        return tuple(conditions), _statement(match[2])
    return None


def _condition(part: str, subject: str) -> str:
    """A condition; `not kind` and `kind` alone say it of the subject of the one before."""
    if subject and re.fullmatch(r"(not )?\w+", part):
        return f"{'not ' if part.startswith('not ') else ''}{subject} is {part.removeprefix('not ')}"
    return _statement(part)


def _statement(sentence: str) -> str:
    """`The dog does not see the cow` as "not dog sees cow"; `something`, `someone`, `it` and `they` are "?"."""
    name = r"(?:[Tt]he )?([\w ]+?)"
    if match := re.fullmatch(rf"{name} (?:is|are) (not )?(\w+)", sentence):
        return f"{match[2] or ''}{_anybody(match[1])} is {match[3]}"
    if match := re.fullmatch(rf"{name} (?:does|do) not (\w+) {name}", sentence):
        return f"not {_anybody(match[1])} {_third(match[2])} {_anybody(match[3])}"
    verbs = "|".join(("likes?", "sees?", "eats?", "chases?", "needs?", "visits?"))
    if match := re.fullmatch(rf"{name} ({verbs}) {name}", sentence):
        return f"{_anybody(match[1])} {_third(match[2])} {_anybody(match[3])}"
    raise DataError(f"the sentence {sentence!r} is not read; it is neither a property, a relation nor a rule")


def _third(verb: str) -> str:
    return verb if verb.endswith("s") else f"{verb}s"


def _anybody(name: str) -> str:
    return "?" if name.lower() in ("something", "someone", "it", "they") else name.strip().lower().replace(" ", "_")


def _individuals(literal: str) -> list[str]:
    """Those a literal speaks of: its subject, and the object of a relation."""
    subject, verb, thing = literal.removeprefix("not ").split()
    return [subject] if verb == "is" else [subject, thing]


# ------------------------------------------------------------------------------------------- orders of objects

Clue = tuple[str, str, str | int]
"""("before", a, b), or ("at", a, place from 0)."""

ORDINALS = {"second": 1, "third": 2, "fourth": 3, "fifth": 4, "sixth": 5, "seventh": 6}
FIRST = ("first", "leftmost", "newest", "most expensive")
LAST = ("last", "rightmost", "oldest", "cheapest")
BEFORE = ("to the left of", "above", "newer than", "more expensive than")
AFTER = ("to the right of", "below", "older than", "less expensive than")


def read_logical_deduction(path: str | Path) -> Iterator[Task]:
    """Tasks of kind `logical_deduction`: prompt with options, answer a letter. Raises DataError for a row that cannot
    be read, or whose answer is not the one option that follows."""
    names = ("logical_deduction_train.jsonl.gz", "logical_deduction.jsonl.gz", "logical_deduction.jsonl")
    for where, row in objects(locate(path, *names), "LogicalDeduction"):
        context, options = text(row, "context", where), texts(row, "options", where)
        data = {"context": context, "options": options, "row": row.get("id")}
        try:
            found = solve_order(context, options)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if found != [text(row, "answer", where)]:
            raise DataError(f"{where}: its answer is {row['answer']}, but what follows is {found}; correct the row")
        prompt = f"{context}\n{text(row, 'question', where)}\n" + "\n".join(options) + "\nAnswer with the letter."
        yield Task(
            content_id("logical_deduction", prompt), "logical_deduction", prompt, data,
            min(1.0, (len(options) - 3) / 4), found[0], found[0],
        )  # fmt: skip


def solves_order(task: Task, answer: str | None) -> bool:
    """Whether the text is the letter of the one option that follows from the clues, and the task says so too."""
    given = (answer or "").strip().rstrip(").").upper()
    return [given] == solve_order(task.data["context"], task.data["options"]) and given == task.answer


def solve_order(context: str, options: Sequence[str]) -> list[str]:
    """Letters of the options that hold in every order that the clues permit, of all n! of them.

    Raises DataError for a sentence that is not read, or clues that permit no order.
    """
    listing, *sentences = _sentences(context.rpartition("\n\n")[2])
    items = re.split(r",? and |, ", listing.partition(": ")[2])
    things = [re.sub(r"^(an?|the) ", "", item.strip()) for item in items if item.strip()]
    things = [re.sub(r"^and ", "", thing) for thing in things]
    clues = [_clue(sentence, things) for sentence in sentences]
    orders = [
        places
        for order in permutations(range(len(things)))
        if all(_fits(clue, places := dict(zip(things, order, strict=True))) for clue in clues)
    ]
    if not orders:
        raise DataError("the clues permit no order of the objects; correct the row")
    says = {option[0]: _clue(option[3:].strip(" ."), things) for option in options}
    return [letter for letter, clue in says.items() if all(_fits(clue, places) for places in orders)]


def _fits(clue: Clue, places: Mapping[str, int]) -> bool:
    relation, thing, other = clue
    return places[thing] == other if relation == "at" else places[thing] < places[str(other)]


def _clue(sentence: str, things: Sequence[str]) -> Clue:
    """Left, above (finished), newer and more expensive are "before"."""
    longest = sorted(things, key=len, reverse=True)
    match = re.fullmatch(rf"(?:The )?({'|'.join(map(re.escape, longest))}) (?:is|are|finished) (.+)", sentence)
    if match is None:
        raise DataError(f"the clue {sentence!r} is not read; it begins with none of {list(things)}")
    thing, rest = match[1], match[2].removeprefix("the ")
    for relation, phrases in (("before", BEFORE), ("after", AFTER)):
        for phrase in phrases:
            if rest.startswith(phrase):
                other = rest.removeprefix(phrase).strip().removeprefix("the ")
                if other in things:
                    return ("before", thing, other) if relation == "before" else ("before", other, thing)
    return "at", thing, _place(rest, len(things))


def _place(rest: str, count: int) -> int:
    """The place that `second from the right`, `third-newest`, `second-to-last` or `rightmost` names."""
    if rest in FIRST or rest in LAST:
        return 0 if rest in FIRST else count - 1
    match = re.fullmatch(
        r"(\w+?)(?: from the (left|right)|-to-(last)|-?(newest|oldest|most expensive|cheapest))?", rest
    )
    if match is None or match[1] not in ORDINALS:
        raise DataError(f"the place {rest!r} is not read; it is neither an end nor counted from one")
    from_end = match[2] == "right" or match[3] or match[4] in ("oldest", "cheapest")
    place = ORDINALS[match[1]]
    return count - 1 - place if from_end else place
