"""Prepares MBPP, HumanEval and stdin/stdout problems as `deepcoder`:

python examples/deepcoder/prepare_deepcoder_data.py [--from DIR]

Options are those of `troupe data prepare`.
"""

import sys

from troupe.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "prepare", "deepcoder", *sys.argv[1:]]))
