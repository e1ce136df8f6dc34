"""`python -m troupe` is the command `troupe`."""

import sys

from troupe.cli import main

sys.exit(main())
