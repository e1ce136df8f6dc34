"""Prepares the repair tasks `R2E_Gym_Subset` and `SWE_Bench_Verified`, or QuixBugs:

python examples/swe/prepare_swe_data.py [--from DIR]

A task can be trained on where DIR/checkouts/TASK_ID holds its files. Options are those of `troupe data prepare`.
"""

import sys

from troupe.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "prepare", "swe", *sys.argv[1:]]))
