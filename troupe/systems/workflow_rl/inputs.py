"""What a run was given in code: a workflow class, its arguments, lists of tasks. Its config cannot hold them.

`inputs.json` remembers what they were, not the things themselves: code is named and tasks are counted and digested, so
that a continuation, or a team loaded later, can be refused where it was given others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import ConfigError, StorageError
from troupe.stores.atomic import write_atomic
from troupe.stores.run_config import differences

__all__ = ["Inputs"]

NAME = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """Names and digests. None stands for what the config says."""

    workflow: str | None = None  # module:class
    teacher: str | None = None  # module:class
    arguments: Mapping[str, Any] = field(default_factory=dict)
    train: str | None = None  # "64 tasks, 1f0a..."
    val: str | None = None

    @classmethod
    def of(
        cls,
        workflow: Any,
        arguments: Mapping[str, Any],
        train: Sequence[Task] | None = None,
        val: Sequence[Task] | None = None,
        teacher: Any = None,
    ) -> Inputs:
        """What was given; `workflow` is None for a class that the config names."""
        return cls(_described(workflow), _described(teacher), _described(arguments), _digest(train), _digest(val))

    @classmethod
    def read(cls, folder: Path) -> Inputs:
        """Those of a run folder or bundle. Raises StorageError for a file that is missing or broken."""
        path = folder / NAME
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(f"{path} does not say what the run was given in code ({error}); restore it") from error

    def remember(self, folder: Path) -> None:
        """Writes inputs.json; raises StorageError where the folder was begun with other inputs."""
        if (folder / NAME).exists():
            for key, was, now in differences(asdict(Inputs.read(folder)), asdict(self)):
                raise StorageError(
                    f"{folder} was begun with {key}={was!r} given in code, this run has {now!r}; use another run folder"
                )
        write_atomic(folder / NAME, json.dumps(asdict(self), indent=2, sort_keys=True).encode())

    def check(self, given: Inputs, where: Path) -> None:
        """Raises ConfigError unless a loaded team is `given` the class and arguments that it was trained with."""
        if self.workflow != given.workflow:
            needed = "the one that its config names" if self.workflow is None else f"{self.workflow}, given in code"
            raise ConfigError(
                f"{where} was trained with another workflow class ({needed}); pass that one to load_team, as it was "
                "passed to AgentTrainer"
            )
        for key, was, now in differences(dict(self.arguments), dict(given.arguments)):
            raise ConfigError(f"{where} was trained with workflow_args {key}={was!r}, not {now!r}")


def _described(value: Any) -> Any:
    """JSON as it is; code as module:name; any other object as the name of its class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _described(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [_described(part) for part in value]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def _digest(tasks: Sequence[Task] | None) -> str | None:
    if tasks is None:
        return None
    records = [_described(task.to_dict()) for task in tasks]
    digest = hashlib.blake2b(json.dumps(records, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"{len(tasks)} tasks, {digest}"
