"""Trains the research team: python examples/multi_agent/deepresearch/train_multi_agent_deepresearch.py KEY=VALUE ...

Its tasks are generated; data.train=NAME names a prepared set. Without actor_rollout_ref.model.path=MODEL
the team is tiny and random. Options are those of `troupe train workflow`, such as --print-config and --dry-run.
"""

import sys

from troupe.cli import main

DEFAULTS = (
    "workflow=deepresearch",
    "data.train=research",
    "workflow.args.corpus=facts-96-0",
    "trainer.default_local_dir=logs/deepresearch",
)

if __name__ == "__main__":
    sys.exit(main(["train", "workflow", *DEFAULTS, *sys.argv[1:]]))
