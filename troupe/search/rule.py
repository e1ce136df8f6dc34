"""What a kernel must know to walk a tree, and the exponential that every kernel shares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from troupe.search.config import SearchConfig

__all__ = ["LN2_HIGH", "LN2_LOW", "LOG2_E", "POWERS", "TAYLOR", "TINY", "Rule", "exp"]

TINY = 1e-38
"""Least prior of a legal action: one that a network gave exactly nothing can still be reached."""

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01  # ln 2 in two parts, the first with 21 trailing zero bits
LN2_LOW = 1.90821492927058770002e-10
TAYLOR = np.array([1 / 479001600, 1 / 39916800, 1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24,
                   1 / 6, 1 / 2, 1.0, 1.0])  # fmt: skip
POWERS = 2.0 ** np.arange(0, -1100, -1.0)


class Rule(NamedTuple):
    """A `SearchConfig` as numbers."""

    gumbel: bool
    single: bool  # one player: Q is normalised between the tree's least and greatest
    virtual: bool  # several leaves per wave: visits under way count as losses
    c_puct: float
    fpu_parent: bool
    fpu_reduction: float
    c_visit: float
    c_scale: float
    discount: float

    @classmethod
    def of(cls, config: SearchConfig, players: int) -> Rule:
        return cls(
            config.algorithm == "gumbel", players == 1, config.leaves > 1, config.c_puct, config.fpu == "parent",
            config.fpu_reduction, config.c_visit, config.c_scale, config.discount,
        )  # fmt: skip


def exp(x: np.ndarray) -> np.ndarray:
    """e^x for x <= 0, from additions and multiplications alone (Cody and Waite 1980, chapter 6), to within 2 ulp.

    NumPy's and the C library's exponentials differ in the last bit. That is enough to break a tie between two actions,
    and two kernels would no longer search the same tree; this one is the same in all of them.
    """
    x = np.maximum(x, -708.0)
    k = np.floor(x * LOG2_E + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    result = np.full_like(r, TAYLOR[0])
    for coefficient in TAYLOR[1:]:
        result = result * r + coefficient
    return result * POWERS[(-k).astype(np.int64)]
