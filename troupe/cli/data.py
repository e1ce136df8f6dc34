"""`troupe data prepare`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from troupe.errors import ConfigError, did_you_mean

__all__ = ["PREPARERS", "VERIFIED", "prepare"]

PREPARERS: dict[str, str] = {
    "2wiki": "troupe.tasks.multihop:prepare_2wiki",
    "aime": "troupe.tasks.competitions:prepare_aime",
    "deepcoder": "troupe.tasks.deepcoder:prepare_deepcoder",
    "deepresearch": "troupe.tasks.research:prepare_deepresearch",
    "deepscaler": "troupe.tasks.competitions:prepare_deepscaler",
    "gsm8k": "troupe.tasks.datasets:prepare_gsm8k",
    "hotpotqa": "troupe.tasks.multihop:prepare_hotpotqa",
    "math": "troupe.tasks.competitions:prepare_math",
    "musique": "troupe.tasks.multihop:prepare_musique",
    "swe": "troupe.tasks.swe:prepare_swe",
}
"""Data set -> `module:function`, imported when asked for: `(source, registry, *, seed, held_out)` reads it, registers
its splits and returns counts to print, `NAME/SPLIT` for each set that it stores under another name than its own. A
split that cannot be used as it is says in its metadata what to do about it (`remedy`)."""

VERIFIED: dict[str, str] = dict.fromkeys(("aime", "deepscaler", "math"), "troupe.rewards.math:math_reward_fn")
"""Data sets whose answers people wrote in many ways -> the reward function that must pay them; passed to the preparer
as `reward_function`."""

USES = {
    "train": "train on it with data.train={}",
    "held_out": "score a team on it with data.val={0}, or `troupe evaluate --data {0}`",
}
"""What a set with this split is for; the first that it has is said."""


def prepare(arguments: argparse.Namespace) -> int:
    from troupe.tasks.datasets import DatasetRegistry

    name = arguments.name
    if name not in PREPARERS:
        raise ConfigError(f"there is no data set {name!r}{did_you_mean(name, PREPARERS)}")
    preparer = _named(PREPARERS[name])
    more = {"reward_function": _named(VERIFIED[name])} if name in VERIFIED else {}
    registry = DatasetRegistry(Path(arguments.root))
    counts = preparer(arguments.source, registry, seed=arguments.seed, held_out=arguments.held_out, **more)
    for what, count in counts.items():
        print(f"{what:>12}: {count}")
    sets = dict.fromkeys(what.partition("/")[0] for what in counts if "/" in what) or (name,)
    for stored in sets:  # `swe` prepares several, each under the name that it has elsewhere
        splits = registry.splits(stored)
        uses = [use for split, use in USES.items() if split in splits]
        use = uses[0].format(stored) if uses else "it cannot be trained on, nor can a team be scored on it, yet"
        print(f"stored under {Path(arguments.root) / stored}; {use}")
        for split in splits:
            remedy = registry.manifest(stored, split)["metadata"].get("remedy")
            if remedy:
                print(f"not for training yet, {stored}/{split}: {remedy}")
    return 0


def _named(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
