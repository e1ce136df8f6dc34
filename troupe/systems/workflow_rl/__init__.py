"""Workflow RL (document 004): teams of language agents, one reward per agent, one policy per agent or shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from troupe.systems.workflow_rl.deploy import LoadedTeam, load_team
    from troupe.systems.workflow_rl.trainer import AgentTrainer

__all__ = ["AgentTrainer", "LoadedTeam", "load_team"]

_HOMES = {"AgentTrainer": "trainer", "LoadedTeam": "deploy", "load_team": "deploy"}


def __getattr__(name: str) -> Any:
    """Loads on first use: a config error must not pay for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
