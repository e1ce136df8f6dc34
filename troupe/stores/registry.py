"""The model registry: numbered versions of named models, and aliases that move between them.

    registry = ModelRegistry("models")
    ref = registry.register("planner", checkpoint_folder, lineage=Lineage(data={"tasks": "math-7b1f"}))   # "planner@3"
    registry.promote(ref)                           # "planner@production" is now version 3
    engine_folder = registry.resolve("planner@production")
    registry.rollback("planner")                    # back to "planner@2"

On disk, `<root>/<name>/<version>/` holds `model/` (a copy of the source) and `manifest.json` (lineage, sizes, hashes;
written last), and `<root>/<name>/aliases.json` says where the aliases point and where they pointed before. A version
never changes and its number is never given twice.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from troupe.errors import DataError, StorageError, did_you_mean
from troupe.stores.atomic import (
    fsync_tree,
    locked,
    publish_folder,
    remove_leftovers,
    staged_folder,
    storage_errors,
    write_atomic,
)
from troupe.stores.manifest import check_sizes, is_complete, read_manifest, verify, write_manifest

__all__ = ["ALIASES", "Lineage", "ModelRegistry"]

ALIASES = ("candidate", "production")
"""`candidate` is what was registered last; `production` is what was promoted."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_ALIASES: dict[str, Any] = {"format_version": 1, "aliases": {}, "history": []}


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version came from. All fields are JSON-able; `parent` is the version it was trained from."""

    data: Mapping[str, Any] = field(default_factory=dict)  # data sets, episode stores, their hashes
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)  # what the gate saw
    parent: str | None = None  # "planner@2", or the name of a base model


class ModelRegistry:
    """Named models under `root` (made on the first registration). Several processes may use it at once."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        names = [path for path in sorted(self.root.iterdir()) if path.is_dir()] if self.root.is_dir() else []
        self.removed_leftovers = tuple(name for path in names for name in remove_leftovers(path))

    def register(self, name: str, source: str | Path, *, lineage: Lineage) -> str:
        """Copies the folder `source` in as the next version and points `candidate` at it; returns "name@version".

        A source that is a checkpoint is verified first. Raises StorageError for a source that is missing or torn, a
        full or a read-only disk; the registry then stays as it was.
        """
        source, home = Path(source), self.root / _checked_name(name)
        if not source.is_dir():
            raise StorageError(f"{source} is not a folder; give the folder of a checkpoint or of a saved model")
        with staged_folder(home, "version") as temp:
            shutil.copytree(source, temp / "model")
            if is_complete(temp / "model"):
                verify(temp / "model", read_manifest(temp / "model"))
            write_manifest(temp, _manifest(name, lineage))
            fsync_tree(temp)  # the slow part, outside the lock
            with _alone(home):
                version = _next_version(home)
                publish_folder(temp, home / str(version))
                _move_alias(home, "candidate", version, "register")
        return f"{name}@{version}"

    def promote(self, ref: str, alias: str = "production") -> str:
        """Points `alias` at a version, atomically; returns "name@version". Raises StorageError for an unknown one."""
        name, version = self._locate(ref)
        home = self.root / name
        check_sizes(home / str(version), read_manifest(home / str(version)))
        with _alone(home):
            _move_alias(home, _checked_alias(alias), version, "promote")
        return f"{name}@{version}"

    def rollback(self, name: str, alias: str = "production") -> str:
        """Points `alias` back at the version before the last promotion; returns "name@version".

        A second rollback goes one further back. Raises StorageError where there is nothing to go back to.
        """
        home = self._home(name)
        with _alone(home):
            stack = _read_aliases(home)["aliases"].get(_checked_alias(alias), [])
            if len(stack) < 2:
                raise StorageError(f"{name}@{alias} has no earlier version to go back to; promote one instead")
            check_sizes(home / str(stack[-2]), read_manifest(home / str(stack[-2])))
            _move_alias(home, alias, stack[-2], "rollback")
        return f"{name}@{stack[-2]}"

    def resolve(self, ref: str) -> Path:
        """The model folder of "name@3", "name@production", "name@candidate", or "name" (production, else the newest).

        Sizes are checked, hashes are not (`verify`). Raises StorageError for an unknown or torn version.
        """
        name, version = self._locate(ref)
        folder = self.root / name / str(version)
        check_sizes(folder, read_manifest(folder))
        return folder / "model"

    def verify(self, ref: str) -> None:
        """Raises StorageError naming the first file whose size or sha256 differs from the manifest."""
        name, version = self._locate(ref)
        folder = self.root / name / str(version)
        verify(folder, read_manifest(folder))

    def describe(self, ref: str) -> dict[str, Any]:
        """Name, version, path, aliases, lineage, files with sizes and hashes, time, and the history of its aliases."""
        name, version = self._locate(ref)
        folder = self.root / name / str(version)
        aliases = _read_aliases(self.root / name)
        return {
            **read_manifest(folder),
            "version": version,
            "path": str(folder / "model"),
            "aliases": [alias for alias, stack in sorted(aliases["aliases"].items()) if stack[-1] == version],
            "history": [event for event in aliases["history"] if event["version"] == version],
        }

    def versions(self, name: str) -> list[int]:
        """Version numbers of a model, oldest first."""
        return _versions(self._home(name))

    def names(self) -> list[str]:
        """Names of the registered models."""
        return sorted(path.name for path in self.root.iterdir() if _versions(path)) if self.root.is_dir() else []

    def _home(self, name: str) -> Path:
        home = self.root / _checked_name(name)
        if not _versions(home):
            raise StorageError(f"{self.root} has no model {name!r}{did_you_mean(name, self.names())}")
        return home

    def _locate(self, ref: str) -> tuple[str, int]:
        name, _, wanted = ref.partition("@")
        home = self._home(name)
        stacks, versions = _read_aliases(home)["aliases"], _versions(home)
        if not wanted:
            return name, stacks["production"][-1] if "production" in stacks else versions[-1]
        if not wanted.isdecimal():
            if _checked_alias(wanted) not in stacks:
                raise StorageError(f"{name}@{wanted} is not set; promote one of the versions {versions}")
            return name, stacks[wanted][-1]
        if int(wanted) not in versions:
            raise StorageError(f"{name!r} has no version {wanted}; it has {versions}")
        return name, int(wanted)


def _manifest(name: str, lineage: Lineage) -> dict[str, Any]:
    record = {"name": name, "created": _now(), "lineage": asdict(lineage)}
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the lineage of {name!r} is not JSON: {error}; use str, finite numbers, lists, dicts"
        ) from error
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _next_version(home: Path) -> int:
    """One more than any version that is, or ever was, here."""
    return max([*_versions(home), *(event["version"] for event in _read_aliases(home)["history"])], default=0) + 1


def _versions(home: Path) -> list[int]:
    if not home.is_dir():
        return []
    return sorted(int(path.name) for path in home.iterdir() if path.name.isdecimal() and is_complete(path))


def _read_aliases(home: Path) -> dict[str, Any]:
    path = home / "aliases.json"
    if not path.exists():
        return _NO_ALIASES
    with storage_errors("read", path):
        text = path.read_bytes()
    try:
        return json.loads(text)
    except ValueError as error:
        raise StorageError(f"{path} is torn ({error}); restore it, or delete it and promote again") from error


def _move_alias(home: Path, alias: str, version: int, event: str) -> None:
    """Rewrites aliases.json in one step. An alias is a stack of versions: promotions push, rollbacks pop."""
    record = _read_aliases(home)
    stack = record["aliases"].get(alias, [])
    moved = stack if stack[-1:] == [version] else [*stack, version]
    if event == "rollback":
        moved = stack[:-1]
    entry = {
        "event": event,
        "alias": alias,
        "version": version,
        "previous": stack[-1] if stack else None,
        "time": _now(),
    }
    record = {**record, "aliases": {**record["aliases"], alias: moved}, "history": [*record["history"], entry]}
    write_atomic(home / "aliases.json", (json.dumps(record, indent=1) + "\n").encode())


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time gives out numbers and moves aliases."""
    with storage_errors("lock", home):
        descriptor = os.open(home / ".alias-lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with locked(descriptor):
            yield
    finally:
        os.close(descriptor)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DataError(f"{name!r} cannot name a model; use letters, digits, '.', '_' and '-'")
    return name


def _checked_alias(alias: str) -> str:
    if alias not in ALIASES:
        raise DataError(f"{alias!r} is not an alias{did_you_mean(alias, ALIASES)}")
    return alias
