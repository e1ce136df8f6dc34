"""Trains the coding team: python examples/multi_agent/deepcoder/train_multi_agent_deepcoder.py KEY=VALUE ...

`examples/deepcoder/prepare_deepcoder_data.py` prepares its data. Without actor_rollout_ref.model.path=MODEL
the team is tiny and random. Options are those of `troupe train workflow`, such as --print-config and --dry-run.
"""

import sys

from troupe.cli import main

DEFAULTS = (
    "workflow=deepcoder",
    "data.train=deepcoder",
    "trainer.default_local_dir=logs/deepcoder",
)

if __name__ == "__main__":
    sys.exit(main(["train", "workflow", *DEFAULTS, *sys.argv[1:]]))
