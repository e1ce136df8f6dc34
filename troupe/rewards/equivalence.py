"""Are two LaTeX expressions equal? math-verify decides, in one process beside ours.

math-verify (https://github.com/huggingface/Math-Verify) stops long computations with `signal.alarm`, which works
only in a main thread, and sympy can be sent into computations that no signal interrupts. So it runs in a child process
that is started when first needed, serves one pair per line, is killed when a pair takes too long, and is replaced when
it dies. Lines are JSON: nothing that crosses the pipe is code.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import subprocess
import sys
import threading
from functools import cache, lru_cache
from pathlib import Path

from troupe.errors import MissingExtra, TroupeError

__all__ = ["EquivalenceWorker", "UndecidedError", "equivalent"]

PAIR_SECONDS = 10.0
"""Wall-clock limit for one pair; the child has given up by then unless it hangs in compiled code."""

STEP_SECONDS = 2
"""What the child grants each of its three steps: parsing one, parsing the other, comparing."""

START_SECONDS = 120.0
"""Limit for starting the child, which imports sympy."""

MEMORY_BYTES = 4 << 30
"""Address space of the child."""

PLACES = 10
"""Decimals to which math-verify rounds floating-point numbers before it compares them."""


class UndecidedError(TroupeError):
    """The comparison did not finish: the child ran out of time or memory, or died."""


def equivalent(given: str, truth: str) -> bool:
    """Whether two LaTeX expressions are equal. Raises UndecidedError, and MissingExtra where math-verify is absent."""
    return _decided(given, truth)


@lru_cache(maxsize=1 << 12)
def _decided(given: str, truth: str) -> bool:
    return _worker_of(os.getpid()).equal(given, truth)


@cache
def _worker_of(pid: int) -> EquivalenceWorker:
    """The one worker of this process; a forked process gets its own, so that two never share a pipe."""
    worker = EquivalenceWorker()
    atexit.register(worker.close)
    return worker


class EquivalenceWorker:
    """A child process that compares pairs, one at a time; safe to share between threads."""

    def __init__(self, pair_seconds: float = PAIR_SECONDS) -> None:
        self.pair_seconds = pair_seconds
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def equal(self, given: str, truth: str) -> bool:
        """Whether the two are equal; starts the child if it is not there. Raises UndecidedError."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._child = self._start()
            reply = _ask(self._child, json.dumps([given, truth]), self.pair_seconds)
            if reply is None:
                self._stop()
                raise UndecidedError(f"comparing {given[:60]!r} with {truth[:60]!r} did not finish")
            return bool(json.loads(reply))

    def close(self) -> None:
        """Ends the child. The next comparison starts another."""
        if os.getpid() == self._pid:
            with self._lock:
                self._stop()

    def _start(self) -> subprocess.Popen[str]:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("math-verify", "all", "comparing LaTeX answers")
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        child = subprocess.Popen(
            # -P keeps this folder, whose math.py would hide the standard library's, off the child's path.
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the parsers under math-verify print their own diagnostics
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        if _ask(child, json.dumps(["1", "1"]), START_SECONDS) != "true":
            _end(child)
            raise UndecidedError(f"math-verify did not start (exit code {child.returncode}); is it installed whole?")
        return child

    def _stop(self) -> None:
        if self._child is not None:
            _end(self._child)
        self._child = None


def _ask(child: subprocess.Popen[str], line: str, seconds: float) -> str | None:
    """The child's answer to one line; None where it died, or was killed because the time was up."""
    assert child.stdin is not None and child.stdout is not None
    alarm = threading.Timer(seconds, child.kill)
    alarm.daemon = True
    alarm.start()
    try:
        child.stdin.write(line + "\n")
        child.stdin.flush()
        return child.stdout.readline().strip() or None
    except BrokenPipeError:
        return None
    finally:
        alarm.cancel()


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # what was not yet written went down with the child
                continue


# --- in the child --------------------------------------------------------------------------------------------------


def _serve() -> None:
    """Answers pairs on standard input, one JSON line each, until it closes."""
    import faulthandler
    import logging
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    replies, sys.stdout = sys.stdout, sys.stderr  # a stray print must not look like an answer
    silent = open(os.devnull, "w")  # noqa: SIM115  (lives as long as the process)
    for line in sys.stdin:
        # Ends the process from a thread of its own if our parent died while compiled code hangs.
        faulthandler.dump_traceback_later(START_SECONDS, exit=True, file=silent)
        given, truth = json.loads(line)
        replies.write(json.dumps(_compare(given, truth)) + "\n")
        replies.flush()
        faulthandler.cancel_dump_traceback_later()


def _compare(given: str, truth: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    extract = [LatexExtractionConfig()]
    gold = parse(f"${truth}$", extraction_config=extract, parsing_timeout=STEP_SECONDS)
    answer = parse(f"${given}$", extraction_config=extract, parsing_timeout=STEP_SECONDS)
    if not gold or not answer:
        return False
    return bool(verify(gold, answer, float_rounding=PLACES, timeout_seconds=STEP_SECONDS))


if __name__ == "__main__":
    _serve()
