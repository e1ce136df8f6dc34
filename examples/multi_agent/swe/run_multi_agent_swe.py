"""Scores a trained repair team on held-out tasks, or shows it at work on one:

python examples/multi_agent/swe/run_multi_agent_swe.py --checkpoint=logs/swe -n 4
python examples/multi_agent/swe/run_multi_agent_swe.py --checkpoint=logs/swe --task "..."
"""

import sys

from troupe.cli.scripts import run_team

if __name__ == "__main__":
    sys.exit(run_team("swe"))
