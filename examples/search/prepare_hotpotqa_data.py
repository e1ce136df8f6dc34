"""Prepares HotpotQA's questions and passages as `hotpotqa`:

python examples/search/prepare_hotpotqa_data.py [--from DIR]

Options are those of `troupe data prepare`.
"""

import sys

from troupe.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "prepare", "hotpotqa", *sys.argv[1:]]))
