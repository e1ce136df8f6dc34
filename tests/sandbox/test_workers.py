"""Warm workers come and go without a trace: replaced when lost, ended with their owner, no descriptor left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.conftest import LIMITS, all_pids
from troupe.sandbox import Limits, Program, Sandbox, Status
from troupe.sandbox.family import descendants, stat_of
from troupe.sandbox.workers import Worker

REPOSITORY = Path(__file__).parents[2]


def servers() -> list[int]:
    """Processes below this one that hold a warm worker: bubblewrap itself, its server and that one's next init."""
    return [pid for pid in descendants(os.getpid()) if b"\0serve\0" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def one_worker(pooled: Sandbox) -> Iterator[tuple[Sandbox, Callable[[], list[int]]]]:
    """A sandbox with one worker, and a function that lists the worker's processes: bubblewrap, server, init."""
    assert wait_until(lambda: len(servers()) >= 3 * pooled.workers)  # all of the other sandbox's are up
    before = set(servers())

    def processes() -> list[int]:
        # Not all that is new: the other sandbox's workers start their next init when they like.
        found = servers()
        roots = [pid for pid in found if pid not in before and (stat_of(pid) or [b"", b""])[1] == b"%d" % os.getpid()]
        return sorted({pid for root in roots for pid in (root, *descendants(root)) if pid in found})

    with Sandbox(LIMITS, workers=1) as sandbox:
        assert wait_until(lambda: len(processes()) >= 3)
        yield sandbox, processes
    assert wait_until(lambda: not processes())


OneWorker = tuple[Sandbox, Callable[[], list[int]]]


def test_a_worker_killed_while_idle_is_replaced_and_no_run_is_lost(one_worker: OneWorker) -> None:
    sandbox, processes = one_worker
    old = processes()
    os.kill(old[0], signal.SIGKILL)
    assert wait_until(lambda: not set(old) & set(all_pids()))
    assert [sandbox.python(f"print({n})").stdout for n in range(3)] == ["0\n", "1\n", "2\n"]


def test_a_worker_killed_during_a_run_is_replaced(one_worker: OneWorker) -> None:
    sandbox, processes = one_worker
    old = processes()
    killer = threading.Timer(0.4, lambda: os.kill(old[0], signal.SIGKILL))
    killer.start()
    ran = sandbox.python("print('begun', flush=True)\nimport time; time.sleep(60)")
    killer.join()
    assert (ran.status, ran.exit_code, ran.stdout) == (Status.KILLED, None, "begun\n")
    assert wait_until(lambda: not set(old) & set(all_pids()))
    assert sandbox.python("print(1)").stdout == "1\n"


def test_an_init_that_does_not_answer_does_not_hold_up_its_caller(one_worker: OneWorker) -> None:
    sandbox, processes = one_worker
    old: list[int] = []

    def stop_init() -> None:
        old.extend(processes())  # the program itself comes last
        os.kill(old[2], signal.SIGSTOP)

    stopper = threading.Timer(0.4, stop_init)
    stopper.start()
    ran = sandbox.python("print('begun', flush=True)\nwhile True: pass", limits=Limits(wall_seconds=1, cpu_seconds=60))
    stopper.join()
    assert (ran.status, ran.stdout, len(old)) == (Status.TIMEOUT, "begun\n", 4)
    assert wait_until(lambda: not set(old) & set(all_pids()))
    assert sandbox.python("print(1)").stdout == "1\n"


def test_close_ends_runs_that_are_under_way(pooled: Sandbox) -> None:
    sandbox = Sandbox(LIMITS, workers=1)
    closer = threading.Timer(0.4, sandbox.close)
    closer.start()
    ran = sandbox.python("import time; time.sleep(60)")
    closer.join()
    assert ran.status is Status.KILLED and ran.wall_seconds < 15


def test_close_waits_for_the_last_words_of_a_run_that_it_ends(
    pooled: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """On a busy machine a run may be slow to read them, and they must be there until it has."""
    read = Worker._last_words

    def slowly(worker: Worker) -> str:
        time.sleep(0.5)
        return read(worker)

    monkeypatch.setattr(Worker, "_last_words", slowly)
    test_close_ends_runs_that_are_under_way(pooled)


@pytest.mark.parametrize("kind", ["one_shot", "pooled"])
def test_no_descriptor_and_no_process_is_left(request: pytest.FixtureRequest, kind: str) -> None:
    sandbox: Sandbox = request.getfixturevalue(kind)
    limits = Limits(wall_seconds=0.2, output_bytes=100)
    programs = [Program("print(1)"), Program("while True: print('x' * 99)", limits=limits), Program("1/0", keep=["x"])]
    sandbox.many(programs * 2)
    assert wait_until(lambda: len(servers()) >= 3 * sandbox.workers)
    descriptors, children = len(os.listdir("/proc/self/fd")), len(list(descendants(os.getpid())))
    sandbox.many(programs * 20)
    assert wait_until(lambda: len(list(descendants(os.getpid()))) <= children, 5)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one_shot", "pooled"])
def test_hundreds_of_runs_leave_nothing(request: pytest.FixtureRequest, kind: str) -> None:
    sandbox: Sandbox = request.getfixturevalue(kind)
    sandbox.many([Program("print(1)")] * 8)
    assert wait_until(lambda: len(servers()) >= 3 * sandbox.workers)
    descriptors, children = len(os.listdir("/proc/self/fd")), len(list(descendants(os.getpid())))
    assert {ran.stdout for ran in sandbox.many([Program("print(1)")] * 500)} == {"1\n"}
    assert wait_until(lambda: len(list(descendants(os.getpid()))) <= children, 5)
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, 5)


SCRIPT = """
import os, sys, threading, time
from troupe.sandbox import Limits, Sandbox
from troupe.sandbox.family import descendants
sandbox = Sandbox(workers=2)
other = Sandbox()
assert sandbox.workers == 2 and sandbox.python("print(1)").stdout == "1\\n"
for box in (sandbox, other):
    threading.Thread(target=box.python, args=("import time; time.sleep(60)",), daemon=True,
        kwargs={"limits": Limits(wall_seconds=60)}).start()
time.sleep(0.5)
print(*descendants(os.getpid()), flush=True)
"""


@pytest.mark.parametrize("end", ["", "os._exit(1)", "del sandbox", "time.sleep(60)"])
def test_nothing_outlives_the_interpreter(pooled: Sandbox, end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT + end], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        pids = {int(word) for word in child.stdout.readline().split()}
        if end == "time.sleep(60)":
            child.kill()
        assert child.wait(timeout=30) is not None
    assert len(pids) >= 8
    assert wait_until(lambda: not pids & set(all_pids())), [command_line(pid) for pid in pids & set(all_pids())]


FORKED = """
import os, sys
from troupe.sandbox import Sandbox
from troupe.sandbox.family import descendants
sandbox = Sandbox(workers=2)
print(sandbox.python("print('before')").stdout, end="", flush=True)

child = os.fork()
if child == 0:
    answers = [sandbox.python("print('child')").stdout for _ in range(3)]
    sys.exit(0 if answers == ["child\\n"] * 3 else 1)
answers = [sandbox.python("print('parent')").stdout for _ in range(3)]
assert os.waitpid(child, 0)[1] == 0

assert answers == ["parent\\n"] * 3 and sandbox.python("print('after')").stdout == "after\\n"
sandbox.close()
print("left", [pid for pid in descendants(os.getpid())])
"""


def test_a_forked_child_gets_workers_of_its_own(pooled: Sandbox) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "before\nleft []\n"), done.stderr
