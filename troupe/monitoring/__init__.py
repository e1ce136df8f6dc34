"""What a run looked like: the report page that training leaves beside its checkpoints, and episodes in the terminal.

Everything here reads what a run wrote and changes none of it. What was not recorded is said to be missing; nothing is
filled in.
"""

from __future__ import annotations
