"""A sandbox that runs nothing twice."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from troupe.sandbox import Limits, Ran, Sandbox

__all__ = ["Remembered"]

LONGEST = 8192
"""Characters and bytes of a run that is remembered, at most."""


class Remembered:
    """Stands before a sandbox and gives the earlier result of a program that comes again with the same input.

    The attempts of a group often write the same program, and a program is judged once however often it is written. Only
    runs that ended by themselves are remembered: one that was stopped for its time may do better on a quieter machine.
    Safe to share between threads. `size` is the number of runs that are kept, the latest ones; those that said or kept
    more than `LONGEST` are not, so that memory is bounded.
    """

    def __init__(self, sandbox: Sandbox, size: int = 1 << 14) -> None:
        self.sandbox = sandbox
        self._size = size
        self._runs: dict[bytes, Ran] = {}
        self._lock = threading.Lock()

    def python(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, str | bytes] | None = None,
        keep: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> Ran:
        """As `Sandbox.python`."""
        asked = repr((code, stdin, sorted((files or {}).items()), tuple(keep), limits))
        key = hashlib.blake2b(asked.encode(), digest_size=16).digest()
        with self._lock:
            known = self._runs.pop(key, None)
            if known is not None:
                self._runs[key] = known  # the latest now
                return known
        ran = self.sandbox.python(code, stdin=stdin, files=files or {}, keep=keep, limits=limits)
        long = len(ran.stdout) + len(ran.stderr) + sum(map(len, ran.files.values())) > LONGEST
        if ran.status in ("ok", "error") and not long:
            with self._lock:
                self._runs[key] = ran
                while len(self._runs) > self._size:
                    del self._runs[next(iter(self._runs))]
        return ran

    def close(self) -> None:
        """Closes the sandbox."""
        self.sandbox.close()
