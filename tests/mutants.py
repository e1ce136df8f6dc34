"""Sources with one error put in, for tests that ask whether other tests would see a mistake."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial

__all__ = ["compiled", "flips"]

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
SIGNS: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}


def compiled(source: str) -> types.ModuleType:
    """A module of this source."""
    module = types.ModuleType("mutant")
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(source, "mutant.py", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


def flips(module: types.ModuleType, *names: str) -> dict[str, str]:
    """By what is turned round in these functions and classes, the source with it: each comparison (< is <= and > then),
    each + and -, each `-x` and `not x`, and each `a if c else b`, which takes the other one."""
    source, found = inspect.getsource(module), dict[str, str]()
    while True:
        tree = ast.parse(source)
        sites = list(_sites(tree, names))
        if len(found) == len(sites):
            return found
        what, node, change = sites[len(found)]
        change()
        found[f"{what} -> {ast.unparse(node)}"] = ast.unparse(tree)


def _sites(tree: ast.Module, names: tuple[str, ...]) -> Iterator[tuple[str, ast.AST, Callable[[], None]]]:
    places = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for name in names:
        for number, node in enumerate(ast.walk(places[name])):
            for change in _changes(node):
                yield f"{name} {number}: {ast.unparse(node)}", node, change


def _changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield partial(node.ops.__setitem__, i, other())
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SIGNS:
        yield partial(setattr, node, "op", SIGNS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):  # -x and not x, twice
        yield partial(setattr, node, "operand", ast.UnaryOp(node.op, node.operand))
    elif isinstance(node, ast.IfExp):
        yield partial(node.__dict__.update, body=node.orelse, orelse=node.body)
