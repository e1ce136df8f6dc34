"""The manifest of a folder: what belongs to it, and the proof that it is whole.

`manifest.json` is the last file written into a folder, so its presence says "complete":

    {"format_version": 1, "step": 40, ..., "files": {"model.safetensors": {"bytes": 8192, "sha256": "9f2c..."}}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from troupe.errors import StorageError
from troupe.stores.atomic import storage_errors

__all__ = ["MANIFEST", "MANIFEST_VERSION", "check_sizes", "is_complete", "read_manifest", "verify", "write_manifest"]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
"""A reader refuses versions that it does not know."""


def write_manifest(folder: Path, body: Mapping[str, Any]) -> None:
    """Writes `body`, the format version, and size and sha256 of every file in `folder`. Links are refused."""
    record = {"format_version": MANIFEST_VERSION, **body, "files": _inventory(folder)}
    (folder / MANIFEST).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def is_complete(folder: Path) -> bool:
    """Whether the last file was written."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises StorageError where the manifest is missing, torn or from a later release."""
    path = folder / MANIFEST
    if not is_complete(folder):
        raise StorageError(f"{folder} has no {MANIFEST}, so it was never completed; choose another folder")
    try:
        with storage_errors("read", path):
            record = json.loads(path.read_bytes())
        version, _ = record["format_version"], record["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} is torn ({error}); choose another folder") from error
    if version != MANIFEST_VERSION:
        raise StorageError(f"{path} has format version {version!r}, this release reads {MANIFEST_VERSION}; upgrade")
    return record


def check_sizes(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Every listed file is there with its size. Raises StorageError naming the first that is not."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise StorageError(f"{folder} is torn: {name} is missing; choose another folder")
        if path.stat().st_size != entry["bytes"]:
            raise StorageError(
                f"{folder} is torn: {name} has {path.stat().st_size} bytes, its manifest says {entry['bytes']}; "
                "choose another folder"
            )


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Sizes and hashes of every listed file. Raises StorageError naming the first file that differs."""
    check_sizes(folder, manifest)
    for name, entry in manifest["files"].items():
        with storage_errors("read", folder / name):
            found = _sha256(folder / name)
        if found != entry["sha256"]:
            raise StorageError(
                f"{folder} is torn: {name} does not match the sha256 in its manifest; choose another folder"
            )


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise StorageError(f"{path} is a link, which would break when the folder moves; write a real file there")
        if path.is_file() and path != folder / MANIFEST:
            name = path.relative_to(folder).as_posix()
            entries[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    return entries


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
