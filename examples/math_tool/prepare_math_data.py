"""Prepares `deepscaler_math` to train on, and AIME (`aime2024`, other years as `aime`) to test on:

python examples/math_tool/prepare_math_data.py [--from DIR]

DIR holds the folders `deepscaler` and `aime`; without it the rows come from the Hugging Face hub. Options are those of
`troupe data prepare`.
"""

import sys

from troupe.cli import main

if __name__ == "__main__":
    sys.exit(max(main(["data", "prepare", name, *sys.argv[1:]]) for name in ("deepscaler", "aime")))
