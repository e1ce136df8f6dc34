"""Trains the repair team: python examples/multi_agent/swe/train_multi_agent_swe.py KEY=VALUE ...

`examples/swe/prepare_swe_data.py` prepares its data. Without actor_rollout_ref.model.path=MODEL
the team is tiny and random. Options are those of `troupe train workflow`, such as --print-config and --dry-run.
"""

import sys

from troupe.cli import main

DEFAULTS = (
    "workflow=swe",
    "data.train=R2E_Gym_Subset",
    "data.val=SWE_Bench_Verified",
    "trainer.default_local_dir=logs/swe",
)

if __name__ == "__main__":
    sys.exit(main(["train", "workflow", *DEFAULTS, *sys.argv[1:]]))
