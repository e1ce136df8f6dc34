"""Trains the math team: python examples/multi_agent/math_tool/train_multi_agent_math_tool.py KEY=VALUE ...

`examples/math_tool/prepare_math_data.py` prepares its data. Without actor_rollout_ref.model.path=MODEL
the team is tiny and random. Options are those of `troupe train workflow`, such as --print-config and --dry-run.
"""

import sys

from troupe.cli import main

DEFAULTS = (
    "workflow=math_tool",
    "data.train=deepscaler_math",
    "data.val=aime2024",
    "trainer.default_local_dir=logs/math_tool",
)

if __name__ == "__main__":
    sys.exit(main(["train", "workflow", *DEFAULTS, *sys.argv[1:]]))
