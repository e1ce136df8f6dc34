r"""Competition mathematics: MATH, AIME and DeepScaleR, whose problems each have one final answer.

A row of MATH (Hendrycks et al. 2021, arXiv:2103.03874), a JSON file of its own below a folder per subject; the answer
is the last box of the solution:

    {"problem": "What is the degree of the polynomial $(4 +5x^3 +100)$?", "level": "Level 3", "type": "Algebra",
     "solution": "This polynomial is not written in standard form. ... is $\\boxed{3}$."}

rows of AIME (keys in lower or upper case) and of DeepScaleR (Luo et al. 2025, 40,000 problems of several competitions):

    {"Problem": "Every morning Aya goes for a 9-kilometer-long walk ...", "Answer": "204", "year": "2024"}
    {"problem": "The operation $\\otimes$ is defined ...", "answer": "-\\frac{2}{3}", "solution": "1. ..."}

and the task read from any of them:

    Task(id="competition-6f0c...", kind="math", prompt="What is the degree ...", data={"subject": "Algebra"},
         difficulty=0.6, answer="3", solution={"text": "This polynomial ..."})

A problem has one id in all three, so a run that holds one set out does not train on its problems in another. Rows
without an answer, and rows whose own answer the reward function does not pay, are left out and counted.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.protocols import RewardFn
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.rows import hub_rows, objects
from troupe.tasks.splits import content_id, split

__all__ = ["final_box", "prepare_aime", "prepare_deepscaler", "prepare_math"]

log = logging.getLogger(__name__)

Row = tuple[str, Mapping[str, Any]]
"""Where it stands (`file:line`, or the file and the row's number), and the row."""


@dataclass(frozen=True)
class _Source:
    """Where a set's rows are."""

    kind: str
    folders: tuple[str, ...]  # looked into below a folder of data sets
    hub: tuple[tuple[str, ...], ...]  # name on the Hugging Face hub, and the configuration where there are several
    files: str = ""  # how the names of its files begin, where a folder has such files


_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
_MATH = _Source("math", ("MATH", "hendrycks_math"), tuple(("EleutherAI/hendrycks_math", part) for part in _SUBJECTS))
_AIME = _Source("aime", ("aime", "aime_amc", "aime2024"), (("HuggingFaceH4/aime_2024",),), files="aime")
_DEEPSCALER = _Source("deepscaler", ("deepscaler", "deepscaler_math"), (("agentica-org/DeepScaleR-Preview-Dataset",),))

TEST_YEAR = 2024
"""AIME problems of this year are document 004's test set `aime2024`; nothing of them is for training."""


def prepare_math(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1, reward_function: RewardFn
) -> dict[str, int]:
    """Registers MATH as `hendrycks_math` (`math` is the generator) with the splits `train` and `held_out`.

    `source` is a `.json`, `.jsonl[.gz]` or `.parquet` file, or a folder that holds some at any depth; what is called
    `test`, or as another of these sets, is left alone in it, to be named by itself. Without it the rows come from the
    Hugging Face hub, which needs the package `datasets`. `held_out` is a fraction of the problems, and
    `reward_function` must pay a problem's own answer. Returns counts: `rows`, `left_out`, and the size of each split.
    Raises DataError for a bad row, with its place, and where there is nothing to read; then nothing is stored.
    """
    tasks, counts = _read(_MATH, source, reward_function)
    return counts | _register({"hendrycks_math": tasks}, registry, seed, held_out, _origin(source))


def prepare_deepscaler(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1, reward_function: RewardFn
) -> dict[str, int]:
    """Registers DeepScaleR rows as `deepscaler_math`; otherwise as `prepare_math`."""
    tasks, counts = _read(_DEEPSCALER, source, reward_function)
    return counts | _register({"deepscaler_math": tasks}, registry, seed, held_out, _origin(source))


def prepare_aime(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1, reward_function: RewardFn
) -> dict[str, int]:
    """Registers AIME problems of 2024 as `aime2024`, all of them held out, and those of other years as `aime`, of which
    `held_out` is a fraction; otherwise as `prepare_math`. DeepScaleR holds earlier years, but none of 2024."""
    tasks, counts = _read(_AIME, source, reward_function)
    sets: dict[str, list[Task]] = {}
    for task in tasks:
        sets.setdefault("aime2024" if task.data.get("year") == TEST_YEAR else "aime", []).append(task)
    return counts | _register(sets, registry, seed, held_out, _origin(source), whole=("aime2024",))


def _register(
    sets: Mapping[str, Sequence[Task]],
    registry: DatasetRegistry,
    seed: int,
    held_out: float,
    origin: str,
    whole: Sequence[str] = (),
) -> dict[str, int]:
    """Stores each set, those in `whole` as held-out tasks only, once all of them were found good."""
    if not 0 < held_out < 1:
        raise DataError(f"held_out is {held_out!r}; write a fraction between 0 and 1")
    parts: dict[tuple[str, str], list[Task]] = {}
    for name, tasks in sorted(sets.items()):
        if name in whole:
            parts[name, "held_out"] = list(tasks)
            continue
        parts[name, "train"], parts[name, "held_out"] = split(tasks, (1 - held_out, held_out), seed)
        for part in ("train", "held_out"):
            if not parts[name, part]:
                raise DataError(
                    f"held_out={held_out} leaves none of the {len(tasks)} problems of {name} for {part}; write another "
                    "fraction, or give more problems"
                )
    for (name, part), tasks in parts.items():
        registry.register_dataset(name, tasks, part, source=origin, seed=seed, held_out=held_out)
    return {f"{name}/{part}": len(tasks) for (name, part), tasks in parts.items()}


def _origin(source: str | Path | None) -> str:
    return "hub" if source is None else Path(source).name


# ---------------------------------------------------------------------------------------------- rows to tasks


def _read(source: _Source, place: str | Path | None, reward_function: RewardFn) -> tuple[list[Task], dict[str, int]]:
    """The usable tasks, each problem once, and counts of rows."""
    tasks: dict[str, Task] = {}
    left_out: list[str] = []
    rows = 0
    for where, row in _hub_rows(source) if place is None else _file_rows(source, Path(place)):
        rows += 1
        task = _task(source.kind, row, where)
        if task is None:
            left_out.append(f"{where}: no final answer")
        elif not reward_function(task, rf"\boxed{{{task.answer}}}").is_correct:
            left_out.append(f"{where}: the answer {task.answer[:60]!r} does not verify")
        else:
            tasks.setdefault(task.id, task)
    if left_out:
        log.warning("%s: %d of %d rows are left out; the first: %s", source.kind, len(left_out), rows, left_out[0])
    if not tasks:
        raise DataError(f"{place or source.hub[0][0]} holds no problem with an answer that verifies ({rows} rows)")
    return list(tasks.values()), {"rows": rows, "left_out": len(left_out)}


def _task(kind: str, row: Mapping[str, Any], where: str) -> Task | None:
    """The task of a row, None where it has no answer. Raises DataError for a row that is no problem."""
    found = {str(key).lower(): value for key, value in row.items()}
    problem, solution = found.get("problem"), found.get("solution")
    if not isinstance(problem, str) or not problem.strip():
        raise DataError(f"{where}: no text under 'problem'; a row has problem, and answer or solution")
    if "answer" not in found and not isinstance(solution, str):
        raise DataError(f"{where}: neither answer nor solution; a row has problem, and answer or solution")
    answer = _written(found.get("answer")) or (final_box(solution) if isinstance(solution, str) else None)
    if answer is None:
        return None
    data = {"subject": found["type"]} if isinstance(found.get("type"), str) else {}
    year = _year(found)
    return Task(
        id=content_id("competition", problem),
        kind=kind,
        prompt=problem.strip(),
        data=data if year is None else {**data, "year": year},
        difficulty=_difficulty(found),
        answer=answer,
        solution={"text": solution.strip()} if isinstance(solution, str) and solution.strip() else None,
    )


def _written(answer: Any) -> str | None:
    """An answer as a text; None for none. `142.0` is how some files write 142."""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    return None if answer is None or isinstance(answer, bool) else str(answer).strip() or None


def final_box(solution: str) -> str | None:
    r"""What the last `\boxed{...}` (or `\fbox{...}`) of a solution holds, nested braces included.

    None where there is no box, or the last one is empty or is not closed: an earlier one is a result on the way.
    """
    last = max(solution.rfind(r"\boxed"), solution.rfind(r"\fbox"))
    opened = re.match(r"\\(?:boxed|fbox)\s*\{", solution[last:]) if last >= 0 else None
    if opened is None:
        bare = (
            re.match(r"\\boxed\s+([0-9A-Za-z])(?![0-9A-Za-z])", solution[last:]) if last >= 0 else None
        )  # `\boxed 5`, as TeX has it
        return bare[1] if bare is not None else None
    start, depth = last + opened.end(), 1
    for token in re.finditer(r"\\.|[{}]", solution[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return solution[start : start + token.start()].strip() or None
    return None


def _difficulty(row: Mapping[str, Any]) -> float:
    """MATH has five levels; ratings (`difficulty`) go to ten. 0 where a row says nothing."""
    level = re.fullmatch(r"Level ([1-5])", str(row.get("level", "")))
    if level is not None:
        return int(level[1]) / 5
    rating = row.get("difficulty")
    return min(1.0, max(0.0, rating / 10)) if isinstance(rating, int | float) else 0.0


def _year(row: Mapping[str, Any]) -> int | None:
    """The contest's year: of `year`, else of the address (`.../2024_AIME_I_Problems/...`) or id (`2024-I-3`)."""
    for key in ("year", "url", "id"):
        found = re.search(r"(?<![0-9])(?:19[5-9]|20[0-9])[0-9](?![0-9])", str(row.get(key, "")))
        if found is not None:
            return int(found[0])
    return None


# ---------------------------------------------------------------------------------------------- where rows stand

_ENDINGS = (".json", ".jsonl", ".jsonl.gz", ".parquet")
_TEST = re.compile(r"(?<![a-z])tests?(?![a-z])|math[-_]?500", re.IGNORECASE)


def _files(source: _Source, place: Path) -> list[Path]:
    """The files of a set, in order. A published test set is not read by accident."""
    if not place.exists():
        raise DataError(f"{place} does not exist; give a file of problems, or a folder that holds some")
    if not place.is_dir():
        return [place]
    folders = [place / name for name in source.folders if (place / name).is_dir()] or [place]
    inside = [path for folder in folders for path in sorted(folder.rglob("*")) if path.name.endswith(_ENDINGS)]
    files = [path for path in inside if not any(_foreign(source, part) for part in path.relative_to(place).parts)]
    files = [path for path in files if path.name.lower().startswith(source.files)] or files
    if not files:
        raise DataError(
            f"{place} holds no file of problems ({', '.join(_ENDINGS)}); what is called test, or as another set, is "
            "left alone"
        )
    return files


def _foreign(source: _Source, part: str) -> bool:
    """Whether a file or folder of this name is a test set, or another set's, such as AIME beside DeepScaleR."""
    if part in source.folders or (source.files and part.lower().startswith(source.files)):
        return False
    others = [other for other in (_MATH, _AIME, _DEEPSCALER) if other is not source]
    named = any(part in other.folders or (other.files and part.lower().startswith(other.files)) for other in others)
    return named or _TEST.search(part) is not None


def _file_rows(source: _Source, place: Path) -> Iterator[Row]:
    for path in _files(source, place):
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
        elif path.suffix == ".json":
            yield from _json_rows(path, source.kind)
        else:
            yield from objects(path, source.kind)


def _json_rows(path: Path, kind: str) -> Iterator[Row]:
    """A file that is one row, a list of rows, or, in spite of its name, one row on each line."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}); correct it or fetch it again") from error
        yield from objects(path, kind)
        return
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the file is damaged ({error}); fetch it again") from error
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        where = f"{path}, row {number}" if isinstance(content, list) else str(path)
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: not a JSON object, but {type(row).__name__}; correct or delete it")
        yield where, row


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error}); fetch it again") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _hub_rows(source: _Source) -> Iterable[Row]:
    for name in source.hub:
        yield from hub_rows(*name, split="train", what=source.kind)
