"""The public surface: what `from troupe import ...` and each module's `__all__` promise exists, once and in order."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import troupe

PACKAGE = Path(__file__).parents[1] / "troupe"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(module_name(path) for path in PACKAGE.rglob("*.py"))


def in_order(names: list[str]) -> list[str]:
    """CONSTANTS, then Classes, then functions; numbers by value (ruff's RUF022)."""

    def key(name: str) -> tuple[int, list[str | int]]:
        kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
        return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(names, key=key)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_keeps_its_promises(name: str) -> None:
    module = importlib.import_module(name)
    promised = list(getattr(module, "__all__", []))
    missing = [public for public in promised if not hasattr(module, public)]
    ordered = sorted if name == "troupe" else in_order  # there the names are those of a dict, which is sorted plainly
    assert (missing, promised) == ([], ordered(promised))
    assert len(set(promised)) == len(promised)


@pytest.mark.parametrize("name", troupe.__all__)
def test_a_public_name_is_the_one_of_its_module(name: str) -> None:
    value = getattr(troupe, name)
    if name != "__version__":
        home = importlib.import_module(troupe.HOMES[name])
        assert value is getattr(home, name)
        assert name in home.__all__, f"{home.__name__} does not declare {name} public"


def test_public_names_are_sorted_and_complete() -> None:
    assert list(troupe.HOMES) == sorted(troupe.HOMES)
    assert troupe.__all__ == sorted(["__version__", *troupe.HOMES])
    assert set(troupe.__all__) <= set(dir(troupe))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == troupe.HOMES


def test_no_public_name_hides_a_module() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir()}
    assert not rooms & set(troupe.HOMES)


def test_an_unknown_name_is_answered_with_a_guess() -> None:
    done = run("import troupe; troupe.Epsiode")
    assert "module 'troupe' has no attribute 'Epsiode'. Did you mean: 'Episode'?" in done.stderr


def test_a_name_loads_only_its_own_module() -> None:
    done = run("import sys; from troupe import Task; print('torch' in sys.modules, 'troupe.episode' in sys.modules)")
    assert done.stdout.split() == ["False", "True"], done.stderr


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
