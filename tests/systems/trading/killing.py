"""A run that is killed when it has written something."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path


def kill_at(process: subprocess.Popen[bytes], path: Path) -> None:
    """SIGKILL as soon as `path` exists; fails where the process ends before, or takes two minutes."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
