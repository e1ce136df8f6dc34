"""How often somebody has looked: every evaluation of a strategy on the same data is a trial, and is written down.

The deflated Sharpe ratio needs the number of trials and how far their Sharpe ratios spread; people forget, files do
not. A trial is a configuration, however many seeds it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from troupe.envs.market.bars import Bars
from troupe.envs.market.build import Market
from troupe.errors import DataError
from troupe.stores.atomic import storage_errors
from troupe.stores.jsonl import JsonLines

__all__ = ["Trials", "bars_hash", "config_hash", "market_setting"]


class Trials:
    """An append-only file of trials. Raises DataError for a file that holds something else."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, data: str, config: str, sharpe: float) -> None:
        """Writes one trial down: hashes of data and configuration, and its Sharpe ratio per bar."""
        with storage_errors("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = JsonLines(self.path, fsync="always")
        try:
            lines.append([orjson.dumps({"data": data, "config": config, "sharpe": float(sharpe)})])
        finally:
            lines.close()

    def sharpes(self, data: str) -> np.ndarray:
        """Sharpe ratios of the trials on this data, one per configuration: the last one counts."""
        found: dict[str, float] = {}
        if not self.path.exists():
            return np.zeros(0)
        lines = JsonLines(self.path, mode="r")
        try:
            for position, record in lines.records():
                try:
                    if record["data"] == data:
                        found[record["config"]] = float(record["sharpe"])
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(f"{lines.where(position)} is no trial: {error!r}") from error
        finally:
            lines.close()
        return np.array(list(found.values()))


def bars_hash(bars: Bars) -> str:
    """Of the instruments, times and closes."""
    return _digest("\n".join(bars.instruments).encode(), bars.times, bars.close)


def market_setting(market: Market) -> dict[str, Any]:
    """What is chosen about a market besides its times and closes, as JSON: rules, costs, and what is observed, extra
    columns included."""
    prices = [getattr(bars, name) for bars in market.bars for name in ("open", "high", "low", "volume", "traded")]
    return {
        "account": market.account, "instruments": [asdict(each) for each in market.instruments],
        "rules": market.rules.model_dump(mode="json"), "features": list(market.names),
        "observations": _digest(b"", *market.observations), "prices": _digest(b"", *prices),
    }  # fmt: skip


def _digest(first: bytes, *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(first)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def config_hash(config: Mapping[str, Any]) -> str:
    """Of a configuration as JSON."""
    return hashlib.sha256(orjson.dumps(config, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
