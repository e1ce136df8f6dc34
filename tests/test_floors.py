"""The house stands: imports go down the floors only, and shelves of one floor keep to themselves.

`lint-imports` checks the same picture on the graph of indirect imports; this test reads every import statement by
itself, those inside functions and under `TYPE_CHECKING` included.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "troupe"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("batch", "config", "episode", "errors", "protocols"),
    ("maths", "agents", "handles", "search", "threads"),
    ("models", "stores", "sandbox"),
    ("envs", "tasks", "rewards", "tools", "workflows", "retrieval", "engines", "training"),
    ("systems", "serving", "monitoring", "testing"),
    ("pipeline", "cli", "__main__"),
)
"""Modules and shelves per floor, the ground floor first. A module leans on lower floors and on its own shelf."""

MAY_LEAN_ON_NEIGHBOURS = {0, 1, 4, 5}
"""Floors whose members may import one another. On floor 2 they may not, nor on floor 3, where the worlds (six shelves),
the engines and the training meet only as arguments."""

SYSTEMS_SHARE = {"config"}
"""What modules of `systems/` may import from their own shelf; otherwise they do not know one another."""

DATA_FOLDERS = {"configs"}
"""Folders of the package that hold no code."""


@dataclass(frozen=True)
class Import:
    source: str  # "maths.losses"
    target: str  # "episode"
    line: int

    def __str__(self) -> str:
        return f"troupe/{self.source.replace('.', '/')}.py:{self.line} imports troupe.{self.target}"


def sources() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below `troupe`; a package goes by the name of its folder."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return trees


SOURCES = sources()


def imports_of(name: str, tree: ast.AST, is_package: bool = False) -> Iterator[Import]:
    """Imports of the package itself; `from troupe.maths import losses` counts as `maths.losses`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                Import(name, alias.name.partition(".")[2], node.lineno)
                for alias in node.names
                if alias.name.split(".")[0] == "troupe"
            )
        elif isinstance(node, ast.ImportFrom):
            module = absolute(name, node, is_package)
            if module.split(".")[0] == "troupe":
                below = module.partition(".")[2]
                yield from (Import(name, f"{below}.{alias.name}".lstrip("."), node.lineno) for alias in node.names)


def absolute(name: str, node: ast.ImportFrom, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = ["troupe", *name.split(".")]
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def all_imports() -> list[Import]:
    return [
        found
        for name, tree in SOURCES.items()
        if name  # troupe/__init__.py names everything, lazily
        for found in imports_of(name, tree, (PACKAGE.joinpath(*name.split(".")) / "__init__.py").exists())
    ]


def floor_of(name: str) -> int | None:
    room = name.split(".")[0]
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def fault(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    here, there = found.source.split("."), found.target.split(".")
    if floor_of(found.target) is None:
        return f"{found}: import from the module that defines it, not from the package's public names"
    source_floor, target_floor = floor_of(found.source), floor_of(found.target)
    assert source_floor is not None, f"troupe.{found.source} has no floor; add it to FLOORS"
    if target_floor > source_floor:
        return f"{found}: floor {source_floor} must not lean on floor {target_floor}"
    if here[0] != there[0] and source_floor == target_floor and source_floor not in MAY_LEAN_ON_NEIGHBOURS:
        return f"{found}: shelves of floor {source_floor} do not import one another; pass it as an argument"
    if here[0] == there[0] == "systems" and len(here) > 1 and len(there) > 1:
        strangers = there[1] not in SYSTEMS_SHARE and there[1] != here[1]
        return f"{found}: systems do not import one another" if strangers else None
    return None


def test_every_module_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))}
    homeless = {room for room in rooms if floor_of(room) is None} - {"__init__"} - DATA_FOLDERS
    assert not homeless, "add to FLOORS, and to the layers in pyproject.toml"


def test_imports_go_down_only() -> None:
    assert [problem for found in all_imports() if (problem := fault(found))] == []


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("maths.losses", "from troupe.models import language"),
        ("episode", "def f():\n    import troupe.maths.losses"),
        ("rewards.math", "from troupe.tasks.linear import solve"),
        ("tools.python", "from troupe import sandbox, workflows"),
        ("engines.local", "import troupe.training.learner as learner"),
        ("stores.episodes", "from ..models.language import Policy"),
        ("systems.trading", "from .selfplay import Arena"),
        ("training.learner", "from troupe import Episode"),
        ("training.learner", "if TYPE_CHECKING:\n    from troupe.systems.config import C"),
    ],
)
def test_a_forbidden_import_is_seen(source: str, code: str) -> None:
    assert any(fault(found) for found in imports_of(source, ast.parse(code)))


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("maths.losses", "from troupe.maths.gradients import clip"),
        ("tools.python", "from troupe import sandbox"),
        ("systems.trading", "from .config import TradingConfig"),
        ("training.objectives", "from troupe.models.config import ModelConfig\nimport torch"),
        ("cli.train", "from troupe.pipeline import run"),
    ],
)
def test_an_allowed_import_passes(source: str, code: str) -> None:
    found = list(imports_of(source, ast.parse(code)))
    assert found and not any(fault(one) for one in found)


def test_gradients_flow_in_one_place() -> None:
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
    ]
    assert [call.split(":")[0] for call in calls] == ["training.learner"] * ("training.learner" in SOURCES), calls


@pytest.mark.parametrize("module", ["troupe", "troupe.cli"])
def test_the_door_opens_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr
