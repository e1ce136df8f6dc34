"""Scores a trained search team on held-out tasks, or shows it at work on one:

python examples/multi_agent/search/run_multi_agent_search.py --checkpoint=logs/search -n 4
python examples/multi_agent/search/run_multi_agent_search.py --checkpoint=logs/search --task "..."
"""

import sys

from troupe.cli.scripts import run_team

if __name__ == "__main__":
    sys.exit(run_team("search"))
