"""Scores a trained coding team on held-out tasks, or shows it at work on one:

python examples/multi_agent/deepcoder/run_multi_agent_deepcoder.py --checkpoint=logs/deepcoder -n 4
python examples/multi_agent/deepcoder/run_multi_agent_deepcoder.py --checkpoint=logs/deepcoder --task "..."
"""

import argparse
import sys

from troupe.cli import main

TEAM = "deepcoder"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(epilog="other options are those of `troupe evaluate`, with --task of `troupe ask`")
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint folder")
    parser.add_argument("--task", help="one problem to work on, instead of the held-out ones")
    chosen, options = parser.parse_known_args()
    if chosen.task is None:
        sys.exit(main(["evaluate", "--checkpoint", chosen.checkpoint, "--workflow", TEAM, *options]))
    sys.exit(main(["ask", chosen.checkpoint, chosen.task, "--workflow", TEAM, *options]))
