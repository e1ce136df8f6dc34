"""docs/names.md cannot rot: every row is imported, parsed or resolved."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from troupe.cli import parser
from troupe.cli.train import preset_path
from troupe.config import leaf_paths
from troupe.systems.workflow_rl.config import ALIASES, WorkflowRLConfig

PAGE = (Path(__file__).parents[1] / "docs" / "names.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


@pytest.mark.parametrize("row", rows("Python names"), ids=lambda row: row[0])
def test_python_name(row: list[str]) -> None:
    module, _, name = row[2].strip("`").rpartition(".")
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("row", rows("Commands"), ids=lambda row: row[0])
def test_command(row: list[str]) -> None:
    words = row[2].strip("`").split()
    if words[0] != "troupe":
        pytest.importorskip(words[0])
        return
    options = {"evaluate": ["--checkpoint", "RUN"], "data": ["gsm8k"]}
    assert parser().parse_args([*words[1:], *options.get(words[1], [])]).command is not None


@pytest.mark.parametrize("row", rows("Config keys"), ids=lambda row: row[0])
def test_config_key(row: list[str]) -> None:
    documented, here = row[0].strip("`"), row[2].strip("`")
    if here.startswith("--preset"):
        preset_path(re.split(r"[ `,]+", here)[1])
        return
    leaves = leaf_paths(WorkflowRLConfig)
    assert here in leaves or here.rpartition(".")[0] in leaves  # an argument of the workflow
    if "." in documented and documented != here:
        assert ALIASES[documented] == here
