"""Troupe trains teams of LLM agents.

Every public name can be imported from here; its module is loaded when the name is first used (PEP 562), so that
`import troupe` costs milliseconds. To add a name: one line in `HOMES` and one import under `TYPE_CHECKING`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two lists
    from troupe.batch import Batch as Batch
    from troupe.batch import minibatches as minibatches
    from troupe.batch import pack as pack
    from troupe.episode import Episode as Episode
    from troupe.episode import FinishReason as FinishReason
    from troupe.episode import Message as Message
    from troupe.episode import Outcome as Outcome
    from troupe.episode import Problem as Problem
    from troupe.episode import Sampling as Sampling
    from troupe.episode import Step as Step
    from troupe.episode import StopReason as StopReason
    from troupe.episode import Task as Task
    from troupe.episode import Tokens as Tokens
    from troupe.episode import Trajectory as Trajectory
    from troupe.episode import message as message
    from troupe.errors import ConfigError as ConfigError
    from troupe.errors import CreditError as CreditError
    from troupe.errors import DataError as DataError
    from troupe.errors import EpisodeError as EpisodeError
    from troupe.errors import MissingExtra as MissingExtra
    from troupe.errors import StorageError as StorageError
    from troupe.errors import TrainingError as TrainingError
    from troupe.errors import TroupeError as TroupeError
    from troupe.errors import UserError as UserError
    from troupe.protocols import ChatFormat as ChatFormat
    from troupe.protocols import Engine as Engine
    from troupe.protocols import Generation as Generation
    from troupe.protocols import GenerationRequest as GenerationRequest
    from troupe.protocols import Reward as Reward
    from troupe.protocols import RewardFn as RewardFn
    from troupe.protocols import TaskGenerator as TaskGenerator
    from troupe.protocols import Tool as Tool
    from troupe.protocols import Workflow as Workflow

HOMES: dict[str, str] = {
    "Batch": "troupe.batch",
    "ChatFormat": "troupe.protocols",
    "ConfigError": "troupe.errors",
    "CreditError": "troupe.errors",
    "DataError": "troupe.errors",
    "Engine": "troupe.protocols",
    "Episode": "troupe.episode",
    "EpisodeError": "troupe.errors",
    "FinishReason": "troupe.episode",
    "Generation": "troupe.protocols",
    "GenerationRequest": "troupe.protocols",
    "Message": "troupe.episode",
    "MissingExtra": "troupe.errors",
    "Outcome": "troupe.episode",
    "Problem": "troupe.episode",
    "Reward": "troupe.protocols",
    "RewardFn": "troupe.protocols",
    "Sampling": "troupe.episode",
    "Step": "troupe.episode",
    "StopReason": "troupe.episode",
    "StorageError": "troupe.errors",
    "Task": "troupe.episode",
    "TaskGenerator": "troupe.protocols",
    "Tokens": "troupe.episode",
    "Tool": "troupe.protocols",
    "TrainingError": "troupe.errors",
    "Trajectory": "troupe.episode",
    "TroupeError": "troupe.errors",
    "UserError": "troupe.errors",
    "Workflow": "troupe.protocols",
    "message": "troupe.episode",
    "minibatches": "troupe.batch",
    "pack": "troupe.batch",
}
"""Public name -> the module that defines it."""

__all__ = sorted(["__version__", *HOMES])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in HOMES:  # `obj` lets Python itself add "Did you mean: ..."
        raise AttributeError(f"module 'troupe' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    value = globals()[name] = getattr(import_module(HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Version of the installed distribution; a source tree that was never installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("troupe-train")
    except PackageNotFoundError:
        return "0+source"
