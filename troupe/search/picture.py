"""A search tree as a value: the most visited part of it, small enough to look at and to keep as JSON.

    node = picture_of(search, slot=0, depth=2, width=3)
    node.children[0].label, node.children[0].visits, node.children[0].q      # "4", 40, 0.52
    json.dumps(node.to_dict())

`troupe.monitoring.tree_picture` draws it. A picture is read from the arrays alone: it changes no search and draws no
random number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.errors import DataError
from troupe.search.search import Search
from troupe.search.tree import CHANCE, DECISION, PENDING, TERMINAL, Tree
from troupe.search.worlds import PythonWorld, World

__all__ = ["TreeNode", "picture_of"]

Render = Callable[[Any], str]

_KINDS = {DECISION: "decision", CHANCE: "chance", TERMINAL: "ended"}


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One node and those of its children that are shown, the most visited first.

    `q` is the mean return through the action, in the view of the player who chose it; for an outcome of chance, of the
    player who moved before it. The root was chosen by nobody: its `label` is empty, its `prior` None, and its `q` the
    mean over the search in the view of the player to move. `prior` is what the search worked with: at the root of one
    that explores with PUCT, that is after the noise.
    """

    label: str
    visits: int
    q: float | None  # None: a root where the game has ended, so nothing was searched
    prior: float | None
    to_play: int | None  # None: nobody decides here
    kind: str = "decision"  # or "chance", "ended"
    children: tuple[TreeNode, ...] = ()
    hidden: int = 0  # children that were visited and are not shown
    state: str | None = None  # None: the game has no `render`

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        plain = {name: getattr(self, name) for name in _FIELDS}
        return {**plain, "children": [child.to_dict() for child in self.children]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TreeNode:
        """Raises DataError, naming the place, for what `to_dict` does not write."""
        return _read(record, "tree")


_FIELDS: dict[str, tuple[type, ...]] = {
    "label": (str,),
    "visits": (int,),
    "q": (int, float, type(None)),
    "prior": (int, float, type(None)),
    "to_play": (int, type(None)),
    "kind": (str,),
    "hidden": (int,),
    "state": (str, type(None)),
}


def _read(record: Any, where: str) -> TreeNode:
    if not isinstance(record, Mapping):
        raise DataError(f"{where} must be an object with the keys of a TreeNode, found {type(record).__name__}")
    children = record.get("children", ())
    if not isinstance(children, list | tuple):
        raise DataError(f"{where}.children must be a list, found {type(children).__name__}")
    values: dict[str, Any] = {}
    for name, kinds in _FIELDS.items():
        if name not in record:
            raise DataError(f"{where} lacks {name!r}; a TreeNode has {', '.join(_FIELDS)} and children")
        value: Any = record[name]
        values[name] = value
        sound = isinstance(value, kinds) and not isinstance(value, bool)
        sound = sound and not (isinstance(value, float) and not math.isfinite(value))
        sound = sound and not (name in ("visits", "hidden") and value < 0)
        if not sound:
            raise DataError(f"{where}.{name} is {value!r}; write what TreeNode.to_dict gives")
    if values["kind"] not in _KINDS.values():
        raise DataError(f"{where}.kind is {values['kind']!r}; write one of {', '.join(_KINDS.values())}")
    read = tuple(_read(child, f"{where}.children[{i}]") for i, child in enumerate(children))
    return TreeNode(**values, children=read)


def picture_of(
    search: Search, slot: int, *, depth: int = 3, width: int = 4, least: int = 1, render: Render | None = None
) -> TreeNode:
    """The tree of one slot: `depth` moves deep, at each node the `width` most visited children with `least` visits.

    Of two visited as often the one with the larger q comes first, then the lower edge. `render` turns a state into
    text; left out, the game's own is used where it has one. Raises DataError for a slot that does not exist or whose
    root was not evaluated, and for limits that show nothing.
    """
    if not 0 <= slot < search.slots:
        raise DataError(f"picture_of: there is no slot {slot}; the search has the slots 0 to {search.slots - 1}")
    if depth < 0 or width < 1 or least < 1:
        raise DataError(f"picture_of: depth={depth}, width={width}, least={least}; write 0, 1 and 1 or more")
    if search.tree.kind[slot, 0] == PENDING:
        raise DataError(f"picture_of: the root of slot {slot} has not been evaluated; run the search first")
    return _Pen(search.world, search.tree, slot, width, least, render or _own_render(search.world, slot)).root(depth)


def _own_render(world: World, slot: int) -> Render | None:
    """Slots of a world in plain Python may have games of their own."""
    game = world.game_of(slot) if isinstance(world, PythonWorld) else getattr(world, "game", None)
    return getattr(game, "render", None)


@dataclass(frozen=True, slots=True)
class _Pen:
    """What stays the same while one tree is drawn."""

    world: World
    tree: Tree
    slot: int
    width: int
    least: int
    render: Render | None

    def root(self, depth: int) -> TreeNode:
        tree, slot = self.tree, self.slot
        visits = int(tree.node_visits[slot, 0])
        q = float(tree.value[slot, 0] + tree.total[slot, 0].sum()) / visits if visits else None
        return self._node(0, "", visits, q, None, depth)

    def _node(self, node: int, label: str, visits: int, q: float | None, prior: float | None, depth: int) -> TreeNode:
        edges = self._edges(node)
        shown = edges[: self.width] if depth > 0 else []
        kind = _KINDS[int(self.tree.kind[self.slot, node])]
        mover = int(self.tree.to_play[self.slot, node]) if kind == "decision" else None
        children = tuple(self._child(node, edge, depth - 1) for edge in shown)
        hidden = int((self.tree.visits[self.slot, node] > 0).sum()) - len(shown)
        return TreeNode(label, visits, q, prior, mover, kind, children, hidden, self._text(node))

    def _edges(self, node: int) -> list[int]:
        """Edges with enough visits, the most visited first."""
        visits, total = self.tree.visits[self.slot, node], self.tree.total[self.slot, node]
        enough = np.flatnonzero((visits >= self.least) & (self.tree.child[self.slot, node] >= 0))
        return sorted(enough.tolist(), key=lambda edge: (-visits[edge], -total[edge], edge))

    def _child(self, node: int, edge: int, depth: int) -> TreeNode:
        at = self.slot, node, edge
        visits = int(self.tree.visits[at])
        label = str(self.world.action_of(self.slot, node, edge))
        q = float(self.tree.total[at]) / visits
        return self._node(int(self.tree.child[at]), label, visits, q, float(self.tree.prior[at]), depth)

    def _text(self, node: int) -> str | None:
        if self.render is None:
            return None
        return str(self.render(self.world.states(np.array([self.slot]), np.array([node]))[0]))
