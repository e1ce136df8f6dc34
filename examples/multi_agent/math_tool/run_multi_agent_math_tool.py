"""Scores a trained math team on held-out tasks, or shows it at work on one:

python examples/multi_agent/math_tool/run_multi_agent_math_tool.py --checkpoint=logs/math_tool -n 4
python examples/multi_agent/math_tool/run_multi_agent_math_tool.py --checkpoint=logs/math_tool --task "..."
"""

import sys

from troupe.cli.scripts import run_team

if __name__ == "__main__":
    sys.exit(run_team("math_tool"))
