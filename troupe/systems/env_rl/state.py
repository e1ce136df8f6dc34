"""What a run of PPO must remember to continue exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from troupe.systems.env_rl.trainer import EnvTrainer

__all__ = ["MAY_CHANGE", "restore", "save"]

MAY_CHANGE = (
    "trainer.default_local_dir",
    "trainer.keep_last",
    "trainer.logger",
    "trainer.resume",
    "trainer.save_freq",
)
"""Keys that a continued run may set anew; with any other it would be another run."""


def save(run: EnvTrainer, metrics: Mapping[str, float]) -> None:
    """A checkpoint between two rollouts."""
    stored = {"ppo": run.ppo.state_dict(), "tracker": run.tracker.offset}
    scored = {name: value for name, value in metrics.items() if name.startswith("eval/")}
    run.store.save(run.ppo.rollouts, {"net": dict(run.net.state_dict())}, stored, scored)


def restore(run: EnvTrainer) -> bool:
    """Continues from the latest checkpoint, and cuts the tracker's files back to it. False where there is none."""
    if run.store.latest() is None:
        run.tracker.truncate(0, 0)
        return False
    checkpoint = run.store.load("latest")
    stored = checkpoint.state
    run.ppo.load_state_dict(checkpoint.tensors["net"], stored["ppo"])
    run.evaluated = dict(checkpoint.metrics)
    run.tracker.truncate(stored["tracker"], run.timesteps)
    return True
