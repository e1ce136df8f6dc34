"""Scores a trained research team on held-out tasks, or shows it at work on one:

python examples/multi_agent/deepresearch/run_multi_agent_deepresearch.py --checkpoint=logs/deepresearch -n 4
python examples/multi_agent/deepresearch/run_multi_agent_deepresearch.py --checkpoint=logs/deepresearch --task "..."
"""

import sys

from troupe.cli.scripts import run_team

if __name__ == "__main__":
    sys.exit(run_team("deepresearch"))
