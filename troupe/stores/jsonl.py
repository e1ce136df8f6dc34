"""Append-only JSON lines that survive `kill -9`, a full disk and a power cut.

A record is one line and ends with a newline. A writer that dies in the middle leaves a torn last line (no newline, or
no JSON object); the next writer moves it to `<name>.torn-<n>` beside the file and cuts the file back to its last whole
record. A line that cannot be read *before* whole ones is no accident of this kind: it raises DataError and nothing is
changed.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import orjson

from troupe.errors import DataError, StorageError
from troupe.stores.atomic import fsync_folder, locked, storage_errors

__all__ = ["Fsync", "JsonLines"]

logger = logging.getLogger(__name__)

Fsync = Literal["always", "batch", "never"]
"""When bytes are forced to the disk: after every append; when `offset` is read and on close; or by the system alone.
All three survive a killed process; `never` may lose the newest records in a power cut."""

_BLOCK = 1 << 16


class JsonLines:
    """One file of JSON objects, one per line.

    `mode="a"` makes the file if it is missing and repairs a torn last line (`repaired_bytes` says how many bytes were
    set aside); `mode="r"` writes nothing, and leaves a torn last line out with a warning. Several processes may
    append: each append holds a file lock. Raises StorageError for a folder that is missing or read-only.
    """

    def __init__(self, path: str | Path, *, fsync: Fsync = "batch", mode: Literal["a", "r"] = "a") -> None:
        self.path = Path(path)
        self.repaired_bytes = 0
        self._fsync = fsync
        self._writable = mode == "a"
        self._dirty = False
        self._counted = (0, 0)  # bytes, and the newlines in them
        self._closed = False
        self._warned = False
        with storage_errors("open" if self._writable else "read", self.path):
            self._descriptor = self._open()
        if self._writable:
            try:
                with self._writing("repair"):
                    self._repair()
            except BaseException:
                self.close()
                raise

    def append(self, lines: Sequence[bytes]) -> None:
        """Appends whole records, given without their newlines: all of them, or none where the disk is full."""
        self._must_be_writable()
        payload = memoryview(b"".join(line + b"\n" for line in lines))
        with self._writing("append to"):
            self._repair_unfinished()
            start = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                while payload:
                    payload = payload[os.write(self._descriptor, payload) :]
                self._dirty = True
                if self._fsync == "always":
                    self._sync()
            except BaseException:
                os.ftruncate(self._descriptor, start)
                raise

    @property
    def offset(self) -> int:
        """Bytes in the file. What lies before is on the disk once this returns (unless `fsync="never"`), so that a
        checkpoint which records the offset can rely on it."""
        with storage_errors("flush", self.path):
            if self._dirty and self._fsync != "never":
                self._sync()
            return self._size()

    def truncate(self, offset: int) -> int:
        """Drops the records after `offset` bytes; returns how many. Raises StorageError where `offset` lies beyond the
        end (records that a checkpoint counts on are gone) or inside a record."""
        self._must_be_writable()
        with self._writing("truncate"):
            size = self._size()
            if not 0 <= offset <= size:
                raise StorageError(
                    f"{self.path} holds {size} bytes, but the checkpoint counts on {offset}; restore the file, or "
                    "resume from an older checkpoint"
                )
            if offset and self._pread(offset - 1, 1) != b"\n":
                raise StorageError(f"byte {offset} of {self.path} lies inside a record; it belongs to another file")
            dropped = self._newlines(offset, size)
            os.ftruncate(self._descriptor, offset)
            self._counted = (0, 0)
            self._sync()
        return dropped

    def records(self, start: int = 0) -> Iterator[tuple[int, Any]]:
        """(byte position, parsed object) of each record from byte `start` to the present end, lazily.

        Raises DataError with file and line number for a line that is not a JSON object.
        """
        end, position = self._size(), start
        if start and (start > end or self._pread(start - 1, 1) != b"\n"):
            raise DataError(f"byte {start} of {self.path} is not the beginning of a record; pass an earlier `offset`")
        with storage_errors("read", self.path), open(self.path, "rb") as file:
            file.seek(start)
            while position < end and (line := file.readline(end - position)):
                if position + len(line) == end and self._is_torn(line):
                    return
                yield position, self.parse(line, position)
                position += len(line)

    def tail(self, count: int) -> list[tuple[int, Any]]:
        """(byte position, parsed object) of the last `count` records, read from the end of the file."""
        end, block = self._size(), _BLOCK
        while True:
            start = max(0, end - block)
            text = self._pread(start, end - start)
            if start == 0 or text.count(b"\n") > count + 1:
                break
            block *= 2
        located, position = [], start
        for line in io.BytesIO(text) if count > 0 else ():
            located.append((position, line))
            position += len(line)
        if located and self._is_torn(located[-1][1]):
            located.pop()
        return [(position, self.parse(line, position)) for position, line in located[-count:]]

    def parse(self, line: bytes, position: int) -> Any:
        """The JSON object of a line at byte `position`, or DataError with the line's number."""
        record = _loads(line)
        if not isinstance(record, dict):
            raise DataError(f"{self.where(position)} is not a JSON object: {line[:60]!r}; correct or delete the line")
        return record

    def where(self, position: int) -> str:
        """'<file>, line <n>' of the record at byte `position`, for error messages."""
        return f"{self.path}, line {self._newlines(0, position) + 1}"

    def __len__(self) -> int:
        """Records in the file. Counts only the newlines that were added since the last call."""
        end, (done, lines) = self._size(), self._counted
        if end < done:
            done, lines = 0, 0
        self._counted = (end, lines + self._newlines(done, end))
        last = self._last_line(end)[1] if end else b"\n"
        if last.endswith(b"\n"):
            return self._counted[1] - self._is_torn(last) if end else 0
        return self._counted[1] + (not self._is_torn(last))

    def ends_torn(self) -> bool:
        """Whether the last line is half a record: only a file opened with `mode="r"` can show one."""
        end = self._size()
        return end > 0 and self._is_torn(self._last_line(end)[1])

    def close(self) -> None:
        """Flushes and closes. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._dirty and self._fsync != "never":
                with storage_errors("flush", self.path):
                    self._sync()
        finally:
            os.close(self._descriptor)

    def _open(self) -> int:
        if not self._writable:
            return os.open(self.path, os.O_RDONLY)
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if is_new:
            fsync_folder(self.path.parent)
        return descriptor

    def _must_be_writable(self) -> None:
        if not self._writable:
            raise StorageError(f"{self.path} was opened for reading; open it with mode='a' to write")

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        with storage_errors(doing, self.path), locked(self._descriptor):
            yield

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._dirty = False

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _pread(self, start: int, count: int) -> bytes:
        """`count` bytes from byte `start`; one system call may give fewer."""
        parts = []
        while count > 0 and (part := os.pread(self._descriptor, count, start)):
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return b"".join(parts)

    def _newlines(self, start: int, end: int) -> int:
        return sum(
            self._pread(position, min(1 << 20, end - position)).count(b"\n") for position in range(start, end, 1 << 20)
        )

    def _last_line(self, end: int) -> tuple[int, bytes]:
        """(byte position, bytes with the newline, if any) of the line that ends at byte `end`."""
        block = _BLOCK
        while True:
            start = max(0, end - block)
            text = self._pread(start, end - start)
            cut = text.rfind(b"\n", 0, len(text) - 1) + 1
            if cut or start == 0:
                return start + cut, text[cut:]
            block *= 2

    def _is_torn(self, last: bytes) -> bool:
        """Whether the file's last line is half a record, which a reader leaves out with one warning."""
        torn = _loads(last) is None
        if torn and not self._warned:
            self._warned = True
            logger.warning("%s: the last line is torn (%d bytes) and was left out", self.path, len(last))
        return torn

    def _repair_unfinished(self) -> None:
        """Another writer may have died since this one opened the file."""
        size = self._size()
        if size and self._pread(size - 1, 1) != b"\n":
            self._repair()

    def _repair(self) -> None:
        size = self._size()
        if size == 0:
            return
        position, line = self._last_line(size)
        if _loads(line) is not None:
            if not line.endswith(b"\n"):  # a JSON object ends itself: the record is whole and lost only its newline
                os.write(self._descriptor, b"\n")
                self._dirty = True
            return
        self._check_is_ours(position, line)
        kept = self._set_aside(line)
        os.ftruncate(self._descriptor, position)
        self._sync()
        self.repaired_bytes += len(line)
        logger.warning("%s: the last line was torn; its %d bytes were moved to %s", self.path, len(line), kept.name)

    def _check_is_ours(self, position: int, line: bytes) -> None:
        """A wrong path must not cost anyone a file: only what follows a record, or begins like one, is repaired."""
        if position == 0 and line.startswith(b"{"):
            return
        before = self._last_line(position) if position else (0, line)
        if _loads(before[1]) is None:
            raise DataError(
                f"{self.where(before[0])} is not a JSON object: {before[1][:60]!r}; correct or delete the line, or "
                "choose another file"
            )

    def _set_aside(self, line: bytes) -> Path:
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.torn-{number}")).exists():
            number += 1
        try:
            with open(kept, "xb") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
        fsync_folder(self.path.parent)
        return kept


def _loads(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line is, or None."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None
