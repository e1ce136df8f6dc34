"""Three specialists and a meta-controller on a market in which allocation matters, in three phases.

    python examples/trading.py          # under a minute

Eight simulated instruments whose signals work in one sector at a time. Phase 1: each specialist learns its own sector.
Phase 2: the meta-controller learns whom to trust, the specialists stand still. Phase 3: all learn together. After each
phase a gate compares, on episodes that nobody learned from.
"""

from __future__ import annotations

import tempfile

from troupe import HierarchyTrainer

CONFIG = {
    "market": {
        "features": ["extra"],  # the signals, and a noisy word on which sector is the active one
        "simulation": {"scenario": "rotation", "paths": 8, "bars": 2000},
        "rules": {"transaction_cost": 0.003, "max_position_size": 1.0, "warmup_steps": 20, "episode_length": 200},
    },
    "reward": {"kind": "mean_variance", "aversion": 20},
    "net": {"log_std": -1.2, "meta_shared_trunk": False},
    "ppo": {"n_steps": 64, "batch_size": 1024, "n_epochs": 6, "gamma": 0.9, "gae_lambda": 0.9, "learning_rate": 1e-3},
    "phase1": {"total_timesteps": 100_000},
    "phase2": {"total_timesteps": 100_000},
    "phase3": {"total_timesteps": 100_000, "specialist_update_freq": 1},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = HierarchyTrainer({**CONFIG, "trainer": {"n_envs": 128, "output_dir": folder}}).train()
        for sector, found in result.phases[1]["specialists"].items():
            print(f"phase 1, {sector} against holding nothing: {'; '.join(found['gate']['reasons'])}")
        for number in (2, 3):
            found = result.phases[number]
            print(f"phase {number}, against {found['against']}: {'; '.join(found['gate']['reasons'])}")
        sharpe = result.test["sharpe"]
        print(f"traded: phase {result.traded}; Sharpe ratio on the test's episodes {sharpe['mean']:+.1f} a year")
        verdict = "an edge" if result.edge.significant else "no edge"
        print(f"{verdict} at alpha {result.edge.alpha:g} (p = {result.edge.p_value:.2g})")


if __name__ == "__main__":
    main()
