"""One small tree of errors.

    TroupeError
    ├── UserError          bad input; the command line prints the sentence and exits with code 2
    │   ├── ConfigError      a config key, type, value or override that cannot be used
    │   ├── DataError        a file, line or record that cannot be read
    │   ├── StorageError     a folder that cannot be written, a disk that is full, a checkpoint that is torn
    │   └── MissingExtra     an optional package that is not installed; names the extra
    ├── CreditError        agents, policies and rewards do not fit together (also a UserError)
    ├── TrainingError      the program failed while learning: non-finite gradients, log-probs that disagree
    └── EpisodeError       one episode failed; it becomes data (`outcome="error"`), never an exit

A failed episode is data; a failed program is an exception and a non-zero exit code. Each message is one
sentence that says what was wrong, where, and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "ConfigError",
    "CreditError",
    "DataError",
    "EpisodeError",
    "MissingExtra",
    "StorageError",
    "TrainingError",
    "TroupeError",
    "UserError",
    "did_you_mean",
]


class TroupeError(Exception):
    """Root of every error that this package raises on purpose."""


class UserError(TroupeError):
    """Bad input. The command line prints the message alone and exits with code 2."""


class ConfigError(UserError):
    """A config key, type, value or override that cannot be used."""


class DataError(UserError):
    """A file, line or record that cannot be read."""


class StorageError(UserError):
    """A folder that cannot be written, a full disk, a torn checkpoint."""


class CreditError(UserError):
    """Agents, policies, groups and rewards that do not fit together."""


class MissingExtra(UserError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        self.package, self.extra, self.why = package, extra, why
        super().__init__(
            f"{why} needs the package {package!r}, which is not installed: pip install 'troupe-train[{extra}]'"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process sends its errors pickled; the message alone would not make one anew."""
        return type(self), (self.package, self.extra, self.why), self.__dict__


class TrainingError(TroupeError):
    """Learning failed: non-finite gradients, or log-probs that disagree with the sampled ones."""


class EpisodeError(TroupeError):
    """One episode failed. It is recorded with `outcome="error"` and never stops its siblings."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to an error: ' (did you mean 'x'?)', else the known words, else ''."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(names)})" if names else ""
