"""`troupe train env=ID`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from troupe.cli.train import begin, preset_path
from troupe.config import Resolved, load
from troupe.systems.env_rl.config import ALIASES, EnvRLConfig

__all__ = ["resolve_env", "train_env"]

PRESETS = ("CartPole-v1", "Pendulum-v1")
"""Environments with a preset of their own, in `troupe/configs/env/`."""


def resolve_env(preset: str | None, files: Sequence[str], overrides: Sequence[str]) -> Resolved[EnvRLConfig]:
    """Preset, files and overrides in one. `env=ID` is short for `env.id=ID`, and brings the environment's preset along
    where there is one and no other is named."""
    spelled = [f"env.id={o.partition('=')[2]}" if o.startswith("env=") else o for o in overrides]
    ids = [o.partition("=")[2] for o in spelled if o.startswith("env.id=")]
    path = None
    if preset is not None:
        path = preset_path(preset, "env")
    elif not files and (ids or PRESETS)[-1 if ids else 0] in PRESETS:
        path = preset_path(ids[-1] if ids else PRESETS[0], "env")
    return load(EnvRLConfig, preset=path, files=files, overrides=spelled, aliases=ALIASES)


def train_env(arguments: argparse.Namespace) -> int:
    resolved = resolve_env(arguments.preset, arguments.config, arguments.overrides)
    console = begin(arguments, resolved)
    if console is None:
        return 0
    from troupe.systems.env_rl.trainer import EnvTrainer

    result = EnvTrainer(resolved.config, progress=_Lines(console)).train()
    found = result.returns
    console.print(
        f"return {found.mean:.1f}, 95 % interval [{found.low:.1f}, {found.high:.1f}], {found.n} episodes; "
        f"{result.timesteps} steps; {result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU-seconds",
        soft_wrap=True,
    )
    console.print(f"run folder: {result.folder}   weights: {result.parameter_hash[:16]}", soft_wrap=True)
    return 0


class _Lines:
    """A progress callback: a line every few seconds, and one for every evaluation."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._began = self._last = time.monotonic()

    def __call__(self, phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last < 5 and step < total and "eval/return" not in metrics:
            return
        self._last = now
        parts = [f"{now - self._began:6.0f} s", f"step {step}/{total}"]
        if "rollout/ep_rew_mean" in metrics:
            parts.append(f"return {metrics['rollout/ep_rew_mean']:.1f} in training")
        if "eval/return" in metrics:
            parts.append(f"{metrics['eval/return']:.1f} in evaluation")
        parts.append(f"KL {metrics.get('train/approx_kl', 0.0):.4f}")
        self._console.print("   ".join(parts), soft_wrap=True)
