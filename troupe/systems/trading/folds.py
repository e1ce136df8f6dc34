"""Walk-forward folds: learn on a stretch, skip a purge, trade the next stretch; then move on.

Legend: T bars. A test stretch always lies behind everything that its agent has learned from. Test stretches follow one
another without gap or overlap, so that they can be stitched to one out-of-sample track.
"""

from __future__ import annotations

from dataclasses import dataclass

from troupe.errors import ConfigError

__all__ = ["Fold", "walk_forward"]


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of one fold: learn on `train` (start, stop), decide on the rows `test` (start, stop); stops excluded."""

    number: int
    train: tuple[int, int]
    test: tuple[int, int]


def walk_forward(
    bars: int, folds: int, *, first: int, purge: int, embargo: int = 0, rolling: int | None = None
) -> tuple[Fold, ...]:
    """`folds` test stretches of equal length that share rows `first` to the last but one (the last row only marks).

    Between learning and trading lie `purge` bars (at least the longest horizon of a label: the bar in which a decision
    is filled and marked) and `embargo` bars more for what lingers in serially correlated data (Lopez de Prado 2018,
    chapter 7). Learning begins at row 0, or `rolling` bars before its end. Raises ConfigError where that does not fit.
    """
    length, left = divmod(bars - 1 - first, folds) if folds > 0 else (0, 0)
    gap = purge + embargo
    if folds < 1 or length < 1:
        raise ConfigError(f"{folds} folds from row {first} do not fit into {bars} bars; write fewer, or begin earlier")
    if purge < 1:
        raise ConfigError(f"purge={purge}: a decision is filled and marked one bar later, so write 1 or more")
    if first - gap < 2 or (rolling is not None and rolling < 2):
        raise ConfigError(f"nothing is left to learn from before row {first} with purge={purge} and embargo={embargo}")
    found = []
    for number in range(folds):
        begin = first + number * length
        end = begin + length + (left if number == folds - 1 else 0)
        stop = begin - gap
        found.append(Fold(number, (0 if rolling is None else max(0, stop - rolling), stop), (begin, end)))
    return tuple(found)
