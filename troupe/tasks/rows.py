"""Rows of public data, each with the place it stands at: JSON lines of a file, or a split on the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from troupe.errors import DataError, MissingExtra

__all__ = ["file_rows", "hub_rows", "locate", "objects", "text", "texts"]


def locate(path: str | Path, *names: str) -> Path:
    """`path` itself where it is a file, else the first of `names` that the folder holds. Raises DataError for none."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).exists():
            return path / name
    found = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    raise DataError(f"{path} has no {' or '.join(names)}; it holds {found}")


def file_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(`file:line`, row) for each line of a `.jsonl` or `.jsonl.gz` file that is not blank.

    `name` is the data set's. Raises DataError for a file that is missing or damaged, and for a line that is not JSON.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:  # some texts hold other line separators
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a {name} file, or the folder that holds it") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{number}: not a JSON object ({error.msg}); delete the line or fetch it again"
        ) from error
    except (EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}:{number + 1}: the file is damaged ({error}); fetch it again") from error


def objects(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`file_rows` that are JSON objects. Raises DataError for another one."""
    for where, row in file_rows(path, name):
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: not a JSON object, but {type(row).__name__}; correct or delete the line")
        yield where, row


def hub_rows(*name: str, split: str, what: str, streaming: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(`name, row number`, row) for each row of a split on the Hugging Face hub.

    `name` is the repository, and the configuration where it has several; `what` is what people call the set. A streamed
    split is not kept on disk. Raises MissingExtra without the package `datasets`, and DataError where the hub cannot be
    reached or has no such set.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "sft", f"reading {what} without files") from error
    place = "/".join(name)
    try:
        for number, row in enumerate(load_dataset(*name, split=split, streaming=streaming), start=1):
            yield f"{place}, row {number}", row
    except OSError as error:  # what `datasets` raises for a lost connection and for an unknown set descends from it
        raise DataError(
            f"{what} cannot be fetched from the Hugging Face hub ({error}); fetch {name[0]} where there is a "
            "connection, and name the folder of its files with --from"
        ) from error


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text under `key`. Raises DataError where there is none."""
    found = row.get(key)
    if not isinstance(found, str) or not found.strip():
        raise DataError(f"{where}: no text under {key!r}")
    return found.strip()


def texts(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    """The texts under `key`; a lone text is a list of one, and a missing key an empty one."""
    found = row.get(key, [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(part, str) and part.strip() for part in found):
        raise DataError(f"{where}: {key!r} must be a text or a list of texts")
    return [part.strip() for part in found]
