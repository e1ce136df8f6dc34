"""All or nothing on a disk: files and folders that appear whole, or not at all.

A file is written beside its target, flushed to the disk and renamed over it. A folder is built under a hidden name
(`.staged-...`), flushed, and renamed into place. A killed process leaves at most a hidden folder, which
`remove_leftovers` takes away the next time the store is opened, and never while another process is still writing it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from troupe.errors import StorageError

__all__ = [
    "fsync_folder",
    "fsync_tree",
    "locked",
    "publish_folder",
    "remove_folder",
    "remove_leftovers",
    "staged_folder",
    "storage_error",
    "storage_errors",
    "write_atomic",
]

logger = logging.getLogger(__name__)

_STAGED = ".staged-"  # being written, or being deleted
_RETIRED = ".retired-"  # stepped aside while its successor moves in
_LOCK = ".lock"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def storage_error(error: OSError, doing: str, path: Path) -> StorageError:
    """The sentence for an OSError met while `doing` something to `path`."""
    return StorageError(f"cannot {doing} {path}: {_cause(error, path)}")


def _cause(error: OSError, path: Path) -> str:
    if error.errno in _FULL or "[Errno 28]" in str(error):  # shutil.copytree keeps only the texts of its errors
        return "the disk is full; free some space and run it again (what was stored before is whole)"
    if error.errno in _FORBIDDEN:
        return "the folder is read-only for this user; choose another folder or change its permissions"
    if error.errno == errno.ENOENT:
        wanted = Path(error.filename) if isinstance(error.filename, str) else path
        missing = next((parent for parent in reversed(wanted.parents) if not parent.exists()), wanted)
        return f"{missing} does not exist; create it or correct the path"
    if error.errno in {errno.ENOTDIR, errno.EISDIR}:
        return "a file stands where a folder is needed, or the other way round; correct the path"
    return f"{error.strerror or error} (error {error.errno})"


@contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, path) from error


def fsync_folder(folder: Path) -> None:
    """Flushes the entries of one folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flushes every file and folder below `folder`, and `folder` itself."""
    for root, _, names in os.walk(folder):
        for name in names:
            with open(Path(root) / name, "rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(root))


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces the file `path` by `data`: a reader sees the old bytes or the new ones, whole. Raises StorageError.

    One writer at a time: the temporary name is fixed, so that a killed writer's leftover is overwritten by the next.
    """
    temp = path.with_name(f".{path.name}.part")
    with storage_errors("write", path):
        try:
            with open(temp, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


@contextmanager
def locked(descriptor: int, *, exclusive: bool = True) -> Iterator[None]:
    """Holds a file lock (flock) during the block. The operating system drops it when the process dies."""
    fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def staged_folder(parent: Path, label: str) -> Iterator[Path]:
    """A new hidden folder in `parent` (made if missing), gone after the block unless `publish_folder` took it.

    Raises StorageError for every OSError inside the block.
    """
    temp = _hidden(parent, label)
    with storage_errors("write", parent / label):
        parent.mkdir(parents=True, exist_ok=True)
        with _writing(parent):
            temp.mkdir()
            try:
                yield temp
            finally:
                if temp.exists():
                    shutil.rmtree(temp)


def publish_folder(temp: Path, target: Path) -> None:
    """Flushes the staged folder `temp` and moves it to `target` beside it; an old `target` is replaced.

    Linux and macOS exchange two folders in one call. Elsewhere the old folder steps aside first, and a process killed
    between the two renames leaves it as `.retired-...`, which `remove_leftovers` moves back.
    """
    fsync_tree(temp)
    if not target.exists():
        os.rename(temp, target)
    elif not _exchange(temp, target):  # after an exchange `temp` is the old folder, and goes with the staging block
        _step_aside(temp, target)
    fsync_folder(target.parent)


def _step_aside(temp: Path, target: Path) -> None:
    retired = target.with_name(f"{_RETIRED}{target.name}")
    if retired.exists():
        shutil.rmtree(retired)
    os.rename(target, retired)
    os.rename(temp, target)
    shutil.rmtree(retired)


def remove_folder(folder: Path) -> None:
    """Deletes a published folder; a reader never meets it half deleted. Raises StorageError."""
    hidden = _hidden(folder.parent, folder.name)
    with storage_errors("delete", folder), _writing(folder.parent):
        os.rename(folder, hidden)
        shutil.rmtree(hidden)


def remove_leftovers(parent: Path) -> tuple[str, ...]:
    """Deletes what killed writers left in `parent`, puts a half-replaced folder back, and returns the names.

    Nothing is touched while another process writes there. A folder that cannot be cleaned is reported by a warning.
    """
    if not parent.is_dir() or not _leftovers(parent):
        return ()
    try:
        lock = os.open(parent / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        logger.warning("%s holds what a killed process left behind, which cannot be removed: %s", parent, error)
        return ()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = tuple(_settle(path) for path in _leftovers(parent))
    except BlockingIOError:  # a live writer owns them
        return ()
    finally:
        os.close(lock)
    for name in names:
        logger.warning("%s: settled %s, left behind by a killed process", parent, name)
    return names


def _leftovers(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.name.startswith((_STAGED, _RETIRED)))


def _hidden(parent: Path, label: str) -> Path:
    return parent / f"{_STAGED}{label}-{uuid.uuid4().hex[:8]}"


@contextmanager
def _writing(parent: Path) -> Iterator[None]:
    """Holds the folder's lock shared with other writers; `remove_leftovers` wants it alone."""
    lock = os.open(parent / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with locked(lock, exclusive=False):
            yield
    finally:
        os.close(lock)


def _settle(path: Path) -> str:
    target = path.with_name(path.name.removeprefix(_RETIRED))
    if path.name.startswith(_RETIRED) and not target.exists():
        os.rename(path, target)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return path.name


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two folders in one system call; False where the system or the file system has no such call."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2)  # AT_FDCWD, RENAME_EXCHANGE
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(os.fsencode(first), os.fsencode(second), 2)  # RENAME_SWAP
    else:
        return False
    if failed and ctypes.get_errno() not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(second))
    return not failed
