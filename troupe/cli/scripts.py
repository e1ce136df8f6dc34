"""What the scripts in `examples/` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from troupe.cli import main

__all__ = ["run_team"]


def run_team(team: str, arguments: Sequence[str] | None = None) -> int:
    """`run_multi_agent_<team>.py --checkpoint PATH` of document 004: scores a trained team on held-out tasks, or shows
    it at work on one. Returns the exit code of the command that does it."""
    parser = argparse.ArgumentParser(epilog="other options are those of `troupe evaluate`, with --task of `troupe ask`")
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint folder")
    parser.add_argument("--task", help="one problem to work on, instead of the held-out ones")
    chosen, options = parser.parse_known_args(arguments)
    if chosen.task is None:
        return main(["evaluate", "--checkpoint", chosen.checkpoint, "--workflow", team, *options])
    return main(["ask", chosen.checkpoint, chosen.task, "--workflow", team, *options])
