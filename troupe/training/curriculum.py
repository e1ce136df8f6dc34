"""A curriculum: difficulty follows success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from troupe.errors import ConfigError

__all__ = ["DifficultyWindow"]


@dataclass(slots=True)
class DifficultyWindow:
    """A window of difficulties that moves with the share of successes.

        above `high` of them succeed: up by `step`;    below `low`: down by `step`;    between: it stays

    It begins at `least` and stays within `least` and `greatest`. Tasks that are solved half of the time teach most
    (Florensa et al. 2018, arXiv:1705.06366, section 4). Raises ConfigError for bounds that do not fit.
    """

    least: float
    greatest: float
    width: float = 0.2
    low: float = 0.4
    high: float = 0.7
    step: float = 0.1
    begin: float | None = None  # where the window begins now

    def __post_init__(self) -> None:
        if not (self.least <= self.greatest and 0 <= self.low < self.high <= 1 and self.width > 0 and self.step > 0):
            raise ConfigError(
                f"a curriculum cannot have {self}; write least <= greatest, low < high, width and step > 0"
            )
        if self.begin is None:
            self.begin = self.least

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest difficulty of the next tasks."""
        assert self.begin is not None
        return self.begin, min(self.greatest, self.begin + self.width)

    def record(self, successes: int, attempts: int) -> None:
        """Moves by the result of attempts at tasks of `range`; none moves nothing."""
        assert self.begin is not None
        if not attempts:
            return
        share = successes / attempts
        move = self.step if share > self.high else -self.step if share < self.low else 0.0
        last = max(self.least, self.greatest - self.width)
        self.begin = min(max(self.least, self.begin + move), last)

    def state_dict(self) -> dict[str, Any]:
        return {"begin": self.begin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begin = float(state["begin"])
