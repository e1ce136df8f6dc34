"""What a workflow RL run left on the disk, read once for the report.

    metrics.jsonl, timing.jsonl         one object per update; validation metrics stand in lines of their own
    sft/metrics.jsonl                   one object per fine-tuning step
    val/report_<u>.json                 scores on the held-out tasks after update u; 0: before the first
    val/episodes_<u>.jsonl              some of the episodes behind that report
    episodes.jsonl                      every training episode; only the first and the last update's are read

A part that is missing or damaged becomes a sentence that says so: a report is often wanted most when a run went wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

from troupe.episode import Episode
from troupe.errors import UserError
from troupe.stores.episodes import EpisodeStore
from troupe.stores.jsonl import JsonLines
from troupe.training.evaluation import Report

__all__ = ["Found", "RunFolder", "part", "read_part", "read_run"]

T = TypeVar("T")

Rows = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Found(Generic[T]):
    """Something read, or None and the sentence that says why not."""

    value: T | None
    why_not: str = ""


@dataclass(frozen=True)
class TaskEpisodes:
    """The stored validation episodes before the first update and after update `update`."""

    update: int
    before: tuple[Episode, ...]
    after: tuple[Episode, ...]


@dataclass(frozen=True)
class UpdateEpisodes:
    """The training episodes of the first and of the last update, updates numbered from 1 as in metrics.jsonl."""

    first_update: int
    last_update: int
    first: tuple[Episode, ...]
    last: tuple[Episode, ...]


@dataclass(frozen=True)
class RunFolder:
    """One run. Rows of metrics carry their `step`; rows of one step are merged."""

    metrics: Found[Rows]
    timing: Found[Rows]
    sft: Found[Rows]
    reports: Found[dict[int, Report]]
    tasks: Found[TaskEpisodes]
    updates: Found[UpdateEpisodes]
    config: Found[Mapping[str, Any]]


def read_run(folder: Path) -> RunFolder:
    """Reads what is there. Never raises for what is missing or damaged."""
    return RunFolder(
        metrics=_found(lambda: _rows(folder, "metrics.jsonl")),
        timing=_found(lambda: _rows(folder, "timing.jsonl")),
        sft=_found(lambda: _rows(folder, "sft/metrics.jsonl")),
        reports=_found(lambda: _reports(folder)),
        tasks=_found(lambda: _task_episodes(folder)),
        updates=_found(lambda: _update_episodes(folder)),
        config=_found(lambda: _json(folder, "config.json")),
    )


def read_part(folder: Path, name: str, parse: Callable[[Any], T]) -> Found[T]:
    """One JSON file of a run folder, parsed; the sentence names the file where it is missing or damaged."""
    path = folder / name
    if not path.exists():
        return Found(None, f"Not recorded: {name} is missing from the run folder.")
    try:
        return Found(parse(json.loads(path.read_text(encoding="utf-8"))))
    except UserError as error:
        return Found(None, f"{name} could not be read: {error}.")
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        return Found(None, f"{name} could not be read: {type(error).__name__}: {error}.")


def part(summary: Mapping[str, Any], key: str, parse: Callable[[Any], T]) -> Found[T]:
    """One entry of what the caller of a report says, parsed; the sentence names it where it is missing or damaged."""
    if summary.get(key) is None:
        return Found(None, f"Not recorded: the summary holds no {key}.")
    try:
        return Found(parse(summary[key]))
    except UserError as error:
        return Found(None, f"{key} of the summary could not be read: {error}.")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Found(None, f"{key} of the summary could not be read: {type(error).__name__}: {error}.")


class _Absent(Exception):
    """Carries the sentence for what is missing."""


def _found(read: Callable[[], T]) -> Found[T]:
    try:
        return Found(read())
    except _Absent as absent:
        return Found(None, f"{absent}.")
    except UserError as error:
        return Found(None, f"This could not be read: {error}.")
    except (KeyError, TypeError, ValueError, OSError) as error:
        return Found(None, f"This could not be read: {type(error).__name__}: {error}.")


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise _Absent(f"Not recorded: {name} is missing from the run folder")
    return path


def _rows(folder: Path, name: str) -> Rows:
    lines = JsonLines(_existing(folder, name), mode="r")
    try:
        merged: dict[int, dict[str, Any]] = {}
        for _, row in lines.records():
            merged.setdefault(int(row["step"]), {}).update(row)
    finally:
        lines.close()
    if not merged:
        raise _Absent(f"Not recorded: {name} is empty")
    return tuple(merged[step] for step in sorted(merged))


def _json(folder: Path, name: str) -> Any:
    return json.loads(_existing(folder, name).read_text(encoding="utf-8"))


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    found = ((re.fullmatch(pattern, path.name), path) for path in (folder / "val").glob("*"))
    return {int(match[1]): path for match, path in sorted(found, key=lambda pair: pair[1].name) if match}


def _reports(folder: Path) -> dict[int, Report]:
    paths = _numbered(folder, r"report_(\d+)\.json")
    if not paths:
        raise _Absent("Not recorded: there is no val/report_<update>.json in the run folder")
    return {u: Report.from_dict(_json(folder, f"val/{paths[u].name}")) for u in sorted(paths)}


def _task_episodes(folder: Path) -> TaskEpisodes:
    paths = _numbered(folder, r"episodes_(\d+)\.jsonl")
    last = max(paths, default=0)
    if 0 not in paths:
        raise _Absent(
            "Not recorded: val/episodes_0.jsonl, the episodes before training, is missing from the run folder"
        )
    if last == 0:
        raise _Absent("Not recorded: the run folder holds no validation episodes from after the first update")
    return TaskEpisodes(last, _episodes(paths[0]), _episodes(paths[last]))


def _episodes(path: Path) -> tuple[Episode, ...]:
    with EpisodeStore(path, mode="r") as store:
        return tuple(store)


def _update_episodes(folder: Path) -> UpdateEpisodes:
    """Updates are of one size, so the last one is found from the end of the file: nothing between is read."""
    with EpisodeStore(_existing(folder, "episodes.jsonl"), mode="r") as store:
        head = next(iter(store), None)
        if head is None:
            raise _Absent("Not recorded: episodes.jsonl is empty")
        start = _update(head)
        first = tuple(takewhile(lambda episode: _update(episode) == start, store))
        window = store.window(len(first))
        end = _update(window[-1])
        return UpdateEpisodes(start, end, first, tuple(episode for episode in window if _update(episode) == end))


def _update(episode: Episode) -> int:
    """The update that an episode belongs to: `update7/...` was collected for the eighth."""
    match = re.match(r"update(\d+)/", episode.id)
    if match is None:
        raise ValueError(f"episode {episode.id!r} does not say its update")
    return int(match[1]) + 1
