"""`troupe data prepare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from troupe.errors import ConfigError, did_you_mean

__all__ = ["prepare"]


def prepare(arguments: argparse.Namespace) -> int:
    from troupe.tasks.datasets import DatasetRegistry, prepare_gsm8k

    preparers = {"gsm8k": prepare_gsm8k}
    if arguments.name not in preparers:
        raise ConfigError(f"there is no data set {arguments.name!r}{did_you_mean(arguments.name, preparers)}")
    registry = DatasetRegistry(Path(arguments.root))
    counts = preparers[arguments.name](arguments.source, registry, seed=arguments.seed, held_out=arguments.held_out)
    for name, count in counts.items():
        print(f"{name:>12}: {count}")
    print(f"stored under {Path(arguments.root) / arguments.name}; train on it with data.train={arguments.name}")
    return 0
