"""Round trips: what was earned between the opening of a position and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from troupe.systems.trading.backtest import Track

__all__ = ["Trip", "round_trips"]


@dataclass(frozen=True, slots=True)
class Trip:
    """One position, from the bar in which it was opened or turned to the one in which it was closed or turned again."""

    instrument: str
    side: Literal["long", "short"]
    opened: int  # bar of the track
    closed: int  # bar of the track; the last one where it is still open
    profit: float  # account currency, after costs


def round_trips(track: Track, account: int) -> list[Trip]:
    """The trips of one account in the order of their ends. What is open at the end counts as it stands; the profit of a
    bar in which a position is turned counts for the one that was there before. A position that was opened and stopped
    out in one bar is a trip, too."""
    found: list[Trip] = []
    columns = (track.units[account].T, track.amounts[account].T, track.profit[account].T)
    for name, units, amounts, profit in zip(track.instruments, *columns, strict=True):
        side = np.sign(units)
        before = np.concatenate([[0.0], side[:-1]])
        opened_here = np.where(side != 0, side, np.sign(amounts))
        owner = np.where(before != 0, before, opened_here)  # whose bar it is
        ends = np.flatnonzero((owner != 0) & (side != owner)).tolist()
        begin = 0
        for end in [*ends, len(side) - 1]:
            held = np.flatnonzero(owner[begin : end + 1])
            if len(held):
                first = begin + int(held[0])
                which: Literal["long", "short"] = "long" if owner[first] > 0 else "short"
                opened = begin - 1 if begin and side[begin - 1] else first
                found.append(Trip(name, which, opened, end, float(profit[begin : end + 1].sum())))
            begin = end + 1
    return sorted(found, key=lambda trip: (trip.closed, trip.instrument))
