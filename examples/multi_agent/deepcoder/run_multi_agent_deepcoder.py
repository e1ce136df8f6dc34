"""Scores a trained coding team on held-out tasks, or shows it at work on one:

python examples/multi_agent/deepcoder/run_multi_agent_deepcoder.py --checkpoint=logs/deepcoder -n 4
python examples/multi_agent/deepcoder/run_multi_agent_deepcoder.py --checkpoint=logs/deepcoder --task "..."
"""

import sys

from troupe.cli.scripts import run_team

if __name__ == "__main__":
    sys.exit(run_team("deepcoder"))
