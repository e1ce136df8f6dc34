"""Trains the search team: python examples/multi_agent/search/train_multi_agent_search.py KEY=VALUE ...

`examples/search/prepare_hotpotqa_data.py` prepares its data. Without actor_rollout_ref.model.path=MODEL
the team is tiny and random. Options are those of `troupe train workflow`, such as --print-config and --dry-run.
"""

import sys

from troupe.cli import main

DEFAULTS = (
    "workflow=search",
    "data.train=hotpotqa",
    "trainer.default_local_dir=logs/search",
)

if __name__ == "__main__":
    sys.exit(main(["train", "workflow", *DEFAULTS, *sys.argv[1:]]))
