"""What a run in the sandbox costs, beside the same program without one: milliseconds from call to answer.

    python benchmarks/sandbox.py --runs 200

Every row runs the program `print(1)` (the command: `true`). "Start" is the time from the call to the program's first
line, which it prints. The rows take turns, so that all of them meet what else the machine does; p50 is the median, p10
what it comes to when nothing comes between. The last line is about throughput: as many workers as CPUs, all of them
busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from troupe.sandbox import Limits, Program, Sandbox, Status

CODE = "print(1)"
CLOCK = "import time; print(time.monotonic())"  # one clock for the host and all namespaces
BARE = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", CODE]


def rows(one_shot: Sandbox, pooled: Sandbox) -> dict[str, Callable[[], float | None]]:
    """What is timed, by its name; each raises if it does not answer as it should. A number is the time at which the
    timing ends, if that is not when the call returns."""

    def python(sandbox: Sandbox) -> None:
        ran = sandbox.python(CODE)
        assert (ran.status, ran.stdout) == (Status.OK, "1\n"), ran

    def first_line(sandbox: Sandbox) -> float:
        return float(sandbox.python(CLOCK).stdout)

    def bare() -> None:
        subprocess.run(BARE, check=True, capture_output=True)

    def command() -> None:
        assert one_shot.command(["true"]).status is Status.OK

    return {
        "python -I -S -B, no sandbox": bare,
        "Sandbox().python": lambda: python(one_shot),
        "Sandbox().python, start": lambda: first_line(one_shot),
        "Sandbox().command": command,
        "Sandbox(workers=1).python": lambda: python(pooled),
        "Sandbox(workers=1).python, start": lambda: first_line(pooled),
    }


def measure(actions: Mapping[str, Callable[[], float | None]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run, the rows in turn; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(runs + 1):
        for name, action in actions.items():
            began = time.monotonic()
            ended = action()
            if round_:
                times[name].append(((ended or time.monotonic()) - began) * 1000)
    return times


def back_to_back(sandbox: Sandbox, runs: int) -> list[float]:
    """Milliseconds of runs that follow one another at once: the next init is not ready in advance."""
    times = []
    for _ in range(runs):
        began = time.monotonic()
        sandbox.python(CODE)
        times.append((time.monotonic() - began) * 1000)
    return times


def throughput(workers: int, runs: int) -> float:
    """Runs per second through `many`."""
    with Sandbox(workers=workers) as sandbox:
        sandbox.many([Program(CODE)] * workers)
        began = time.perf_counter()
        sandbox.many([Program(CODE)] * runs)
        return runs / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="per row (default: 200)")
    runs = parser.parse_args().runs
    limits = Limits(wall_seconds=60)
    with Sandbox(limits) as one_shot, Sandbox(limits, workers=1) as pooled:
        times = measure(rows(one_shot, pooled), runs)
        times["Sandbox(workers=1).python, back to back"] = back_to_back(pooled, runs)
    print(f"{'':42}{'p10':>8}{'p50':>8}{'p90':>8}   milliseconds, {runs} runs each")
    for name, values in times.items():
        tenths = statistics.quantiles(values, n=10)
        print(f"{name:42}{tenths[0]:8.2f}{tenths[4]:8.2f}{tenths[8]:8.2f}")
    workers = len(os.sched_getaffinity(0))
    print(f"Sandbox(workers={workers}).many: {throughput(workers, 5 * runs):.0f} runs per second")


if __name__ == "__main__":
    main()
