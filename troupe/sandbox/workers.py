"""Processes that run programs: one that is started for a single run, and a pool of warm ones.

A warm worker is a server inside bubblewrap that has the next run's init ready (`inside.py`). It is lent to one run at a
time; one that did not do its part is killed, with everything in its namespaces, and replaced.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress

from troupe.errors import ConfigError, TroupeError
from troupe.sandbox.exchange import Lost, exchange
from troupe.sandbox.family import descendants
from troupe.sandbox.isolation import Interpreter, Isolation, Mode, launch
from troupe.sandbox.program import Limits, Program, Ran

__all__ = ["Pool", "Worker", "run_once"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0
"""How long a process may take to end by itself before it is killed."""


class Worker:
    """A started sandbox: its process, and the socket on which its init listens."""

    def __init__(self, isolation: Isolation, mode: Mode, python: Interpreter, file_bytes: int) -> None:
        self.folder = tempfile.mkdtemp(prefix="troupe-run-") if mode == "bare" else ""
        self._stderr = os.fdopen(os.memfd_create("stderr"), "w+b", buffering=0)
        self._listening = threading.Lock()  # a descriptor must not be closed, and its number reused, under a reader
        self.control, theirs = socket.socketpair()
        try:
            with theirs:
                plan = launch(isolation, mode, python, theirs.fileno(), self.folder, file_bytes)
                self.process = subprocess.Popen(
                    plan.command,
                    env=plan.environment,
                    cwd=plan.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=plan.descriptors,
                    start_new_session=True,  # a Ctrl-C at the terminal is not meant for it
                )
        except BaseException as error:
            self.forget()
            if isinstance(error, OSError):
                raise Lost(f"the sandbox could not be started: {error}") from error
            raise

    def run(self, program: Program, limits: Limits, syscall_filter: bytes) -> tuple[Ran, bool]:
        """As `exchange`; a Lost also carries the last words of bubblewrap or of the interpreter."""
        with self._listening:  # to the last word: `close` waits for it before it lets go of stderr
            try:
                ran, sound = exchange(self.control, program, limits, syscall_filter)
            except Lost as lost:
                self._end()
                raise Lost(f"the sandbox failed: {lost}{self._last_words()}") from lost
            if not sound:
                logger.info("a run ended as %s together with its sandbox%s", ran.status, self._last_words())
            return ran, sound

    def close(self) -> None:
        """Ends the process and all that it holds; a run that is under way hears it, and ends first."""
        self._end()
        with self._listening:
            self.forget()

    def forget(self) -> None:
        """Lets go of it without ending it: what a forked child does with its parent's workers."""
        self.control.close()
        self._stderr.close()

    def _end(self) -> None:
        """First by hanging up, which init answers by ending, then by force."""
        with suppress(OSError):  # it may have hung up itself
            self.control.shutdown(socket.SHUT_RDWR)
        if self.process.returncode is None and not _ends(self.process.pid):
            if self.folder:  # without a PID namespace nothing ends them all at once
                for pid in descendants(self.process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _last_words(self) -> str:
        """The last line on its stderr, which the program never had."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""


def _ends(pid: int) -> bool:
    """Does the child process `pid` end within the time it is given?"""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True  # and somebody else has reaped it
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(PATIENCE_SECONDS * 1000))
    finally:
        os.close(descriptor)


def run_once(isolation: Isolation, python: Interpreter, program: Program, limits: Limits, syscall_filter: bytes) -> Ran:
    """Starts a sandbox for one program and ends it. Raises TroupeError if the sandbox itself fails."""
    mode: Mode = "bare" if isolation == "rlimits" else "once"
    worker = Worker(isolation, mode, python, limits.file_mb * 2**20)
    try:
        return worker.run(program, limits, syscall_filter)[0]
    finally:
        worker.close()


class Pool:
    """Warm workers of the process that made it. A forked child needs a pool of its own: see `owner`."""

    def __init__(self, size: int, python: Interpreter) -> None:
        self.owner = os.getpid()
        self._python = python
        self._closed = False
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._idle: queue.SimpleQueue[Worker | Exception] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[bool] = queue.SimpleQueue()
        # The kernel ends a worker together with the thread that started it (PR_SET_PDEATHSIG). One thread, which lives
        # as long as this process, therefore starts them all.
        threading.Thread(target=self._start_ordered, name="sandbox-workers", daemon=True).start()
        for _ in range(size):
            self._orders.put(True)

    def run(self, program: Program, limits: Limits, syscall_filter: bytes) -> Ran:
        """Runs `program` in a worker, once one is free. Raises TroupeError if two in a row fail before it begins."""
        try:
            return self._lend(program, limits, syscall_filter)
        except Lost:  # the fault of the worker: the program has not begun
            return self._lend(program, limits, syscall_filter)

    def close(self) -> None:
        """Ends all workers, those that are running a program too. In a forked child: lets go of the parent's."""
        if os.getpid() != self.owner:
            for worker in self._workers:
                worker.forget()
            return
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, set()
        for worker in workers:
            worker.close()
        self._orders.put(False)
        self._idle.put(TroupeError("this sandbox is closed; make another one"))

    def _lend(self, program: Program, limits: Limits, syscall_filter: bytes) -> Ran:
        worker = self._idle.get()
        if isinstance(worker, Exception):
            if self._closed:
                self._idle.put(worker)  # for whoever else waits
            else:
                self._orders.put(True)
            raise worker
        sound = False
        try:
            ran, sound = worker.run(program, limits, syscall_filter)
            return ran
        except ConfigError:  # nothing was sent
            sound = True
            raise
        finally:
            self._take_back(worker, sound)

    def _take_back(self, worker: Worker, sound: bool) -> None:
        with self._lock:
            if self._closed:
                return
            if sound:
                self._idle.put(worker)
                return
            self._workers.discard(worker)
        worker.close()
        self._orders.put(True)

    def _start_ordered(self) -> None:
        while self._orders.get():
            try:
                worker = Worker("bubblewrap", "serve", self._python, 0)
            except Exception as error:  # raised where a run asks for the worker
                self._idle.put(error)
                continue
            with self._lock:
                self._workers.add(worker)
                if not self._closed:
                    self._idle.put(worker)
                    continue
            worker.close()
