"""Domain randomisation: every path is a market of its own, so that one policy meets them all.

A policy that learned from one simulated market knows that market. Drawing the market anew for each path, both what kind
it is and how hard, leaves only what helps in all of them (Tobin et al. 2017, arXiv:1703.06907).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.instruments import Instrument
from troupe.envs.market.simulator import scenario, simulate
from troupe.errors import ConfigError

__all__ = ["draw_scenarios", "mixed_market"]


def mixed_market(
    names: Sequence[str],
    difficulty: float,
    bars: int,
    paths: int,
    generator: np.random.Generator,
    instruments: Sequence[Instrument] | None = None,
    bar_seconds: int = 3600,
) -> list[Bars]:
    """P paths of T bars, each of a scenario of `draw_scenarios`, of document 002's instruments unless others are given.

    Equal seeds give equal bars; `draw_scenarios` from a generator of the same seed says what each path is. Raises
    ConfigError for names that are none or not different, one that the instruments cannot have, a difficulty outside
    [0, 1], or sizes that `simulate` refuses.
    """
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ConfigError(f"scenarios={names!r} must be one or more different names")
    if paths < 1:
        raise ConfigError(f"paths={paths}: write one or more")
    for name in names:  # those that are not drawn, too: whether a run starts must not depend on its seed
        scenario(name, difficulty, instruments)
    found = []
    for name, level in draw_scenarios(names, difficulty, paths, generator):
        found += simulate(scenario(name, level, instruments), bars, 1, generator, bar_seconds)
    return found


def draw_scenarios(
    names: Sequence[str], difficulty: float, paths: int, generator: np.random.Generator
) -> list[tuple[str, float]]:
    """(name, difficulty) of each path: the name one of `names` with equal odds, the difficulty uniform in
    [0, `difficulty`]."""
    return [
        (names[int(generator.integers(len(names)))], float(generator.uniform(0.0, difficulty))) for _ in range(paths)
    ]
