"""Disks that are full or read-only, and children that are killed."""

from __future__ import annotations

import builtins
import io
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

WRITING_CALLS = ("fsync", "ftruncate", "link", "mkdir", "open", "rename", "replace", "rmdir", "unlink", "write")


@contextmanager
def _mounted(arguments: list[str], folder: Path) -> Iterator[Path]:
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    with _mounted(["-t", "tmpfs", "-o", "size=1m", "tmpfs"], folder):
        yield folder


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Any]]:
    """A context manager that makes a folder read-only, also for root."""

    @contextmanager
    def make(folder: Path) -> Iterator[None]:
        with _mounted(["--bind", str(folder)], folder):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield

    yield make


def _child(act: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        act()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os._exit(0)


@pytest.fixture
def killed_after() -> Callable[[float, Path, Callable[[], object]], None]:
    """Runs `act` in a child process and kills it (SIGKILL) some seconds after the file `ready` has appeared."""

    def run(seconds: float, ready: Path, act: Callable[[], object]) -> None:
        pid = _child(act)
        while not ready.exists():
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the child ended by itself before it could be killed"
            time.sleep(0.005)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the child ended by itself before it could be killed"

    return run


@pytest.fixture
def crash_points() -> Callable[[Callable[[], Any], Callable[[], object]], Iterator[Any]]:
    """Kills a child just before its first, second, ... call that changes the disk, until one child finishes.

    For each kill: `fresh()` prepares and returns a value, `act(value)` runs in the child, and the value is yielded for
    inspection. A killed `write` writes half of its bytes first, a killed `open` leaves its new file empty.
    """

    def run(fresh: Callable[[], Any], act: Callable[[Any], object]) -> Iterator[Any]:
        for point in count():
            prepared = fresh()
            pid = _child(lambda point=point, prepared=prepared: _die_at(point, lambda: act(prepared)))
            _, status = os.waitpid(pid, 0)
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
            if not os.WIFSIGNALED(status):
                assert point > 2, "too few crash points to mean anything"
                return
            yield prepared

    return run


def _die_at(point: int, act: Callable[[], object]) -> None:
    seen = count()

    def lethal(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(seen) == point:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    def lethal_open(*args: Any, **kwargs: Any) -> Any:
        file = real_open(*args, **kwargs)
        if file.writable() and next(seen) == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return file

    for name in WRITING_CALLS:
        setattr(os, name, lethal(name, getattr(os, name)))
    real_open = io.open
    io.open = builtins.open = lethal_open  # type: ignore[assignment]
    act()
