from __future__ import annotations

import ast
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from troupe.errors import MissingExtra
from troupe.tasks.swebench import CheckoutError

PACKAGE = Path(__file__).parents[1] / "troupe"


def without_numba() -> None:
    raise MissingExtra("numba", "accel", "search.kernels=numba")


@pytest.mark.parametrize(
    "error", [MissingExtra("numba", "accel", "search.kernels=numba"), CheckoutError("no such commit", "no commit")]
)
def test_errors_with_arguments_of_their_own_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_a_worker_process_says_what_is_missing() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        failure = pool.submit(without_numba).exception()
    assert isinstance(failure, MissingExtra)
    assert "'numba', which is not installed: pip install 'troupe-train[accel]'" in str(failure)


def test_whoever_gives_an_error_arguments_of_its_own_says_how_it_is_pickled() -> None:
    own = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and _is_error(node):
                methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                if "__init__" in methods:
                    own[node.name] = "__reduce__" in methods
    assert own == {"MissingExtra": True, "CheckoutError": True}


def _is_error(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith("Error") or ast.unparse(base) == "Exception" for base in node.bases)
