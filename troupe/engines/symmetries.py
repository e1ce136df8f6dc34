"""A game's symmetries as tables, so that a batch is turned in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from troupe.errors import ConfigError
from troupe.protocols import Symmetry

__all__ = ["SymmetryTables", "symmetry_tables", "turned"]


@dataclass(frozen=True, slots=True, eq=False)
class SymmetryTables:
    """K symmetries; P is the product of the observation's shape."""

    cells: np.ndarray  # int [K, P]: where each number of the turned observation comes from
    back: np.ndarray  # int [K, A]: where each number of the policy comes from in the turned policy


def symmetry_tables(symmetries: Sequence[Symmetry], cells: int, actions: int) -> SymmetryTables:
    """Raises ConfigError where there is no symmetry, or where one is not a permutation of P cells and A actions.

    The turned policy is pi'[a] = pi[actions[a]], so pi[b] = pi'[argsort(actions)[b]].
    """
    if not symmetries:
        raise ConfigError("the game names no symmetries, which canonical keys and symmetry='average' need")
    for k, symmetry in enumerate(symmetries):
        for what, permutation, size in (("cells", symmetry.cells, cells), ("actions", symmetry.actions, actions)):
            if not np.array_equal(np.sort(permutation, axis=None), np.arange(size)):
                raise ConfigError(f"{what} of the game's symmetry {k} must be a permutation of 0 to {size - 1}")
    return SymmetryTables(
        cells=np.stack([symmetry.cells for symmetry in symmetries]),
        back=np.stack([np.argsort(symmetry.actions) for symmetry in symmetries]),
    )


def turned(observations: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """`[n, *shape]`: each observation turned by its row of `cells` `[n, P]`, or all by the one row of `[1, P]`."""
    flat = observations.reshape(len(observations), -1)
    return np.take_along_axis(flat, cells, axis=1).reshape(observations.shape)
