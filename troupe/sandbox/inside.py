"""What runs inside: takes one request, gives the program its place and its limits, watches it, reports how it ended.

The sandbox's interpreter compiles this file, `kernel.py` and `family.py` into one program and starts it there, so that
nothing of `troupe`, and hardly anything of the standard library, has to be found or loaded.

    once:  bubblewrap -> init (pid 1) -> program
    serve: bubblewrap -> server (pid 1) -> init (pid 1 of a new PID namespace, one per run) -> program
    bare:  init -> program, without namespaces

The server reads nothing and keeps nothing: it makes the next init in advance, and that init receives the request, so no
memory that later runs inherit ever held another run's code, input or files. An init cannot be signalled, traced or read
by its program (pid 1 ignores what it has no handler for, and it is not dumpable), and when it ends the kernel kills
whatever is left in its namespace, daemons included.

Messages to the host are one letter, four bytes of length and a body: `r` ready for a request, `s` the program starts,
`d` done, `f` the sandbox itself failed. From the host: `R` a request (descriptors: request, stdin, stdout, stderr), `K`
stop the run. End of file means that the host is gone.
"""

from __future__ import annotations

import _signal
import atexit
import gc
import os
import sys
import time

from troupe.sandbox.family import Family
from troupe.sandbox.kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    RLIMIT_AS,
    RLIMIT_CORE,
    RLIMIT_CPU,
    RLIMIT_FSIZE,
    RLIMIT_MEMLOCK,
    RLIMIT_MSGQUEUE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    children_seconds,
    compiled,
    drop_capabilities,
    filter_calls,
    libc,
    limit,
    process_flag,
    readable,
    receive_descriptors,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

__all__ = ["BOX", "PROGRAM", "join", "split"]

BOX = "/box"
"""The writable folder, where programs start."""

PROGRAM = "__main__.py"
"""The file in the folder that holds the code of a Python program, so that tracebacks show its lines."""

CONTROL = 3
"""The socket to the host; every other descriptor of init is above it."""
TICK_SECONDS = 0.02
MAX_ENTRIES = 4096
"""Files and folders that a run may add to its folder; each costs the kernel about a kilobyte."""
HOST_GONE = 3
"""Exit code of an init that found nobody to talk to."""


# ---------------------------------------------------------------------------------------------- messages


def join(fields: Sequence[bytes]) -> bytes:
    """Fields in one message: eight bytes of length before each."""
    return b"".join(len(field).to_bytes(8, "little") + field for field in fields)


def split(message: bytes) -> list[bytes]:
    """The fields of `join`; raises ValueError for anything else."""
    fields, start = [], 0
    while start < len(message):
        end = start + 8 + int.from_bytes(message[start : start + 8], "little")
        if end > len(message) or start + 8 > len(message):
            raise ValueError("a field is longer than its message")
        fields.append(message[start + 8 : end])
        start = end
    return fields


def send(kind: bytes, body: bytes = b"") -> None:
    message = memoryview(kind + len(body).to_bytes(4, "little") + body)
    try:
        while message:
            message = message[os.write(CONTROL, message) :]
    except BrokenPipeError:
        os._exit(HOST_GONE)


class Request:
    """One run as the host described it: limits, system-call filter, what to run, what to keep, files."""

    def __init__(self, message: bytes, streams: list[int]) -> None:
        kind, numbers, self.filter, self.code, keep, *files = split(message)
        self.is_python = kind == b"python"
        wall, cpu, *counts = numbers.split()
        self.wall_seconds, self.cpu_seconds = float(wall), float(cpu)
        self.memory_bytes, self.processes, self.file_bytes, self.open_files = map(int, counts)
        self.keep = [name for name in keep.split(b"\0") if name]
        self.files = list(zip(files[::2], files[1::2], strict=True))
        self.streams = streams


def receive() -> Request:
    """Waits for the next request. Ends this process if the host has gone."""
    while True:
        letter, descriptors = receive_descriptors(CONTROL)
        if not letter:
            os._exit(HOST_GONE)
        if letter == b"R":  # otherwise a `K` that came too late for the run it meant
            request, *streams = descriptors
            return Request(os.pread(request, os.fstat(request).st_size, 0), streams)


# ---------------------------------------------------------------------------------------------- the program


def enter(request: Request, folder: str, mode: str, started: int) -> None:
    """Turns this process, a fresh child of init, into the place where the program runs. Nothing of it is undone."""
    process_flag(PR_SET_DUMPABLE, 1)  # its own /proc/self belongs to it again
    os.setsid()
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
    os.chdir(folder)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if mode == "bare":
        process_flag(PR_SET_PDEATHSIG, _signal.SIGKILL)
    limit(RLIMIT_FSIZE, request.file_bytes)
    limit(RLIMIT_NOFILE, request.open_files)
    seconds = -int(-request.cpu_seconds // 1)  # the kernel counts whole seconds per process, `excess` all of them
    limit(RLIMIT_CPU, seconds, seconds + 1)
    if mode != "bare":  # counted per user namespace: the trusted processes in it are one (once) or two (serve)
        limit(RLIMIT_NPROC, request.processes + (2 if mode == "serve" else 1))
    limit(RLIMIT_AS, request.memory_bytes)
    process_flag(PR_SET_NO_NEW_PRIVS, 1)
    if mode == "serve":
        drop_capabilities()
    filter_calls(request.filter)
    os.write(started, b".")
    os.closerange(CONTROL, 1024)  # init has few descriptors, all of them low


def run_python(request: Request) -> None:
    """Executes the code as `__main__`, as `python -I -S -B` would a file, and ends the process as Python does."""
    path = f"{os.getcwd()}/{PROGRAM}"
    main = type(sys)("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"], sys.argv = main, [path]
    exit_code = 0
    try:
        exec(compiled(request.code, path), main.__dict__)
    except SystemExit as error:
        exit_code = code_of(error)
    except BaseException as error:
        traceback: TracebackType | None = error.__traceback__
        while traceback and traceback.tb_frame.f_code.co_filename != path:
            traceback = traceback.tb_next  # what the program sees begins with its own lines
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        exit_code = 1
    finish(main.__dict__, exit_code)


def code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def finish(names: dict[str, Any], exit_code: int) -> None:
    """What Python does at its end as far as a program can notice it: threads, exit functions, finalizers, streams.

    Taking the interpreter itself apart would touch, and so copy, all the memory that this process shares with init.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for name in sorted(names, key=lambda name: not name.startswith("_")):
        if name != "__builtins__":
            names[name] = None
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            exit_code = exit_code or 120  # Python's code for output that could not be written
    os._exit(exit_code)


def run_command(request: Request) -> None:
    arguments = request.code.split(b"\0")
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        name = os.fsdecode(arguments[0])
        print(f"cannot run {name!r}: {error.strerror}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(127)  # as a shell does


# ---------------------------------------------------------------------------------------------- init


def watch(family: Family, request: Request, mode: str, began: float) -> bytes:
    """Waits for the end of the program, or names the limit that was passed."""
    program = os.pidfd_open(family.program)
    deadline = began + request.wall_seconds
    cause = b""
    while family.status is None and not cause:
        ready = readable((program, CONTROL), max(0.0, min(TICK_SECONDS, deadline - time.monotonic())))
        if program in ready:
            break
        if CONTROL in ready:
            cause = b"stopped" if os.read(CONTROL, 1) else b"gone"
        elif time.monotonic() >= deadline:
            cause = b"wall"
        else:
            cause = excess(family, request, mode)
            family.reap()
    os.close(program)
    return cause


def excess(family: Family, request: Request, mode: str) -> bytes:
    """The limit that all of them together have passed, or nothing."""
    cpu, resident, processes = family.usage()
    if cpu >= request.cpu_seconds:
        return b"cpu"
    if resident > request.memory_bytes and family.proportional_bytes() > request.memory_bytes:
        return b"memory"
    if family.count_entries() > family.entries + MAX_ENTRIES:
        return b"files"
    if mode == "bare" and processes > request.processes:
        return b"processes"
    if mode == "bare" and family.folder_bytes() > request.file_bytes:
        return b"files"
    return b""


def write_files(folder: str, files: list[tuple[bytes, bytes]]) -> None:
    for name, content in files:
        path = os.fsencode(folder) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def collect(folder: str, keep: list[bytes], budget: int) -> list[bytes]:
    """Name and content of each file to keep that is there: regular, reached through no symbolic link, and within
    `budget` bytes together."""
    found = []
    for name in keep:
        content = read_regular(folder, name, budget)
        if content is not None:
            budget -= len(content)
            found += [name, content]
    return found


def read_regular(folder: str, name: bytes, budget: int) -> bytes | None:
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    *folders, last = name.split(b"/")
    try:
        for part in folders:
            there = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)  # a pipe must not block
    except OSError:
        return None  # missing, a link, or closed to readers by the program
    finally:
        os.close(here)
    found = os.fstat(descriptor)
    if found.st_mode & 0o170000 != 0o100000 or found.st_size > budget:  # S_IFMT, S_IFREG
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        return file.read(budget)


def attend(mode: str, folder: str) -> Request:
    """One run from request to report. Only the program's own process returns, ready to run it; init exits."""
    send(b"r")
    request = receive()
    if mode == "serve":
        size = b"mode=700,size=%d" % request.file_bytes
        libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", MS_NOSUID | MS_NODEV, size)
    if request.is_python:
        request.files.append((PROGRAM.encode(), request.code))
    write_files(folder, request.files)
    ready, started = os.pipe()
    program = os.fork()
    if program == 0:
        try:
            enter(request, folder, mode, started)
        except BaseException as error:  # told to init, which tells the host: this was not the program's doing
            os.write(started, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        return request
    for descriptor in (started, *request.streams):
        os.close(descriptor)
    family = Family(program, folder, own_folder=mode != "bare")
    if (word := os.read(ready, 4096)) != b".":
        family.end()
        send(b"f", word or b"the program's process ended before it began")
        os._exit(0)
    os.close(ready)
    send(b"s")
    began = time.monotonic()
    cause = watch(family, request, mode, began)
    wall = time.monotonic() - began
    family.end()
    numbers = f"{family.status} {wall:.6f} {children_seconds():.6f}".encode()
    send(b"d", join([cause, numbers, *collect(folder, request.keep, request.file_bytes)]))
    os._exit(0)


def serve(folder: str) -> Request:
    """Makes one init after another, each in namespaces of its own; only a program's process returns."""
    for module in ("collections", "functools", "heapq", "itertools", "json", "math", "re", "string", "traceback"):
        __import__(module)  # what most programs import, loaded once; nothing of it draws random numbers
    for name in ("capset", "getrusage", "mount", "poll", "prctl", "prlimit", "recvmsg"):
        getattr(libc, name)  # looked up once
    gc.freeze()
    here = os.open("/proc/self/ns/pid", os.O_RDONLY)
    while True:
        libc.unshare(CLONE_NEWPID)
        init = os.fork()
        if init == 0:
            os.close(here)
            libc.unshare(CLONE_NEWNS | CLONE_NEWIPC)
            libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
            return attend("serve", folder)
        libc.setns(here, CLONE_NEWPID)
        _, status = os.waitpid(init, 0)
        if status:  # the host has gone, or this init was lost: end, and be replaced
            os._exit(HOST_GONE)


def start(mode: str, control: int, folder: str) -> Request:
    """`once`, `serve` or `bare`; returns in the process that is to run the program."""
    os.dup2(control, CONTROL)
    os.closerange(CONTROL + 1, os.sysconf("SC_OPEN_MAX"))
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    with open("/proc/self/oom_score_adj", "wb") as adjustment:  # if the machine runs out of memory, all of this goes
        adjustment.write(b"1000")  # first, and of this the program: it is the largest
    process_flag(PR_SET_DUMPABLE, 0)
    # What is the same for every run is inherited.
    limit(RLIMIT_CORE, 0)
    limit(RLIMIT_MEMLOCK, 64 * 1024)
    limit(RLIMIT_MSGQUEUE, 0)
    if mode == "bare":
        process_flag(PR_SET_CHILD_SUBREAPER, 1)
    gc.freeze()  # the collector leaves alone, and so shared, what programs inherit
    return serve(folder) if mode == "serve" else attend(mode, folder)


if __name__ == "__main__":
    asked = start(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    if asked.is_python:
        run_python(asked)
    else:
        run_command(asked)
