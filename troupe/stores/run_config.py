"""What a run folder was begun with, and whether a continuation is still that run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from troupe.errors import StorageError
from troupe.stores.atomic import write_atomic

__all__ = ["differences", "make_run_folder", "remember_config"]


def make_run_folder(folder: Path, key: str, *, begun: bool, resume: str) -> None:
    """The folder that the config's `key` names. Raises StorageError where it cannot be made, or where it holds a run
    (`begun`) that `resume=never` must not continue."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{key}={str(folder)!r} cannot be created: {error.strerror}") from error
    if resume == "never" and begun:
        raise StorageError(f"{folder} holds a run; write trainer.resume=auto to continue it, or another folder")


def remember_config(
    folder: Path, config: Mapping[str, Any], defaults: Mapping[str, Any], may_change: Collection[str]
) -> None:
    """Writes config.json; refuses a folder that was begun with another config (StorageError names the first key).

    `may_change` are dotted keys that a continuation may set anew. A stored config that lacks a key which has come since
    counts as having its default.
    """
    path = folder / "config.json"
    if path.exists():
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise StorageError(
                f"{path} is not a run's config ({error}); restore it or use another run folder"
            ) from error
        for key, was, now in differences(_completed(stored, defaults), config):
            if key not in may_change:
                raise StorageError(
                    f"{folder} was begun with {key}={was!r}, this run has {now!r}; use another run folder"
                )
    written = json.dumps(config, indent=2, sort_keys=True).encode()
    if not path.exists() or path.read_bytes() != written:  # processes of one run may come here at the same time
        write_atomic(path, written)


def differences(a: Any, b: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, value in `a`, value in `b`) wherever two JSON values differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = dict.fromkeys([*a, *b])
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))]
    return [] if a == b else [(path, a, b)]


def _completed(stored: Any, defaults: Any) -> Any:
    """A stored config with the keys that have come since, at their defaults."""
    if not (isinstance(stored, dict) and isinstance(defaults, Mapping)):
        return stored
    return {**defaults, **{key: _completed(value, defaults.get(key)) for key, value in stored.items()}}
