"""Processes that learn beside one another end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from troupe.errors import TrainingError
from troupe.systems.trading.processes import learning_processes

PROGRAM = """
import sys, time
from tests.systems.trading.test_processes import sleep
from troupe.systems.trading.processes import learning_processes
if __name__ == "__main__":
    with learning_processes(2) as pool:
        pool.submit(sleep, sys.argv[1]).result()
"""


def sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def die() -> None:
    os._exit(1)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_dies_is_an_error_of_one_sentence() -> None:
    with pytest.raises(TrainingError, match="continues from the last checkpoints"), learning_processes(1) as pool:
        pool.submit(die).result()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_processes_of_a_killed_run_end_with_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    started = tmp_path / "pid"
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(started)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child = int(started.read_text())
    assert is_there(child)
    run.send_signal(signal.SIGKILL)
    run.wait()
    while is_there(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
