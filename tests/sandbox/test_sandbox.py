"""What a program may count on, and what its caller gets back; in both kinds of sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
import time

import pytest

from troupe.errors import ConfigError, TroupeError
from troupe.sandbox import Limits, Program, Ran, Sandbox, Status


def test_a_program_reads_and_prints(sandbox: Sandbox) -> None:
    ran = sandbox.python(
        "name = input()\nprint(f'hello {name}')\nimport sys\nprint('!', file=sys.stderr)", stdin="Ann\n"
    )
    assert (ran.status, ran.exit_code, ran.stdout, ran.stderr) == (Status.OK, 0, "hello Ann\n", "!\n")
    assert 0 < ran.wall_seconds < 10 and 0 < ran.cpu_seconds < 10 and ran.files == {}


def test_files_go_in_and_come_out(sandbox: Sandbox) -> None:
    ran = sandbox.python(
        "import os\nprint(sorted(os.listdir('.')), open('data/in.txt').read())\n"
        "open('data/out.bin', 'wb').write(open('raw', 'rb').read()[::-1])\nopen('data/in.txt', 'a').write(', changed')",
        files={"data/in.txt": "grün", "raw": b"\x00\xff\x01"},
        keep=["data/out.bin", "data/in.txt", "absent"],
    )
    assert ran.stdout == "['__main__.py', 'data', 'raw'] grün\n"
    assert ran.files == {"data/out.bin": b"\x01\xff\x00", "data/in.txt": "grün, changed".encode()}


def test_modules_given_as_files_are_imported_once_the_folder_is_on_the_path(sandbox: Sandbox) -> None:
    files = {"tools/__init__.py": "", "tools/add.py": "def add(a, b): return a + b"}
    code = "from tools.add import add\nprint(add(2, 3))"
    assert "ModuleNotFoundError" in sandbox.python(code, files=files).stderr
    assert sandbox.python("import sys\nsys.path.insert(0, '.')\n" + code, files=files).stdout == "5\n"


def test_text_of_every_kind_passes(sandbox: Sandbox) -> None:
    text = "ä € 𝄞 \u2028 \x1b[1m tab\t end"
    ran = sandbox.python("import sys\nsys.stdout.write(sys.stdin.read())", stdin=text)
    assert ran.stdout == text
    assert sandbox.python(f"print({text!r})").stdout == text + "\n"


def test_bytes_that_are_no_text_are_replaced(sandbox: Sandbox) -> None:
    ran = sandbox.python("import os\nos.write(1, b'a\\xff\\xfe\\x00b')")
    assert ran.stdout == "a\ufffd\ufffd\x00b"


def test_half_surrogates_are_the_programs_problem(sandbox: Sandbox) -> None:
    ran = sandbox.python("print('\ud800')", stdin="\udcff")
    assert ran.status is Status.ERROR and "SyntaxError" in ran.stderr and "utf-8" in ran.stderr
    assert sandbox.python("import sys\nprint(ascii(sys.stdin.read()))", stdin="\ud800").status is Status.OK


def test_a_huge_input_arrives_whole(sandbox: Sandbox) -> None:
    text = "0123456789abcdef" * (20 * 2**16)  # 20 MB, more than any pipe or the folder holds
    ran = sandbox.python("import sys, hashlib\nprint(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())", stdin=text)
    assert ran.stdout.strip() == hashlib.sha256(text.encode()).hexdigest()


def test_input_that_nobody_reads_is_no_problem(sandbox: Sandbox) -> None:
    assert sandbox.python("print(1)", stdin="x" * 2**20).stdout == "1\n"
    assert sandbox.python("input()").stderr.endswith("EOFError: EOF when reading a line\n")


@pytest.mark.parametrize("code", ["", "\n", "# nothing", "pass"])
def test_an_empty_program_does_nothing(sandbox: Sandbox, code: str) -> None:
    ran = sandbox.python(code)
    assert (ran.status, ran.exit_code, ran.stdout, ran.stderr) == (Status.OK, 0, "", "")


def test_a_syntax_error_shows_its_line(sandbox: Sandbox) -> None:
    ran = sandbox.python("x = 1\nfor in x:\n")
    assert (ran.status, ran.exit_code) == (Status.ERROR, 1)
    assert ran.stderr == (
        '  File "/box/__main__.py", line 2\n    for in x:\n        ^^\nSyntaxError: invalid syntax\n'
    ), ran.stderr


def test_a_traceback_begins_in_the_program(sandbox: Sandbox) -> None:
    ran = sandbox.python("def f(x):\n    return 1 // x\n\nf(0)\n")
    assert (ran.status, ran.exit_code) == (Status.ERROR, 1)
    first, where, line, *_, last = ran.stderr.splitlines()
    assert first == "Traceback (most recent call last):" and last.startswith("ZeroDivisionError")
    assert where == '  File "/box/__main__.py", line 4, in <module>' and line == "    f(0)"
    assert "inside" not in ran.stderr and "kernel" not in ran.stderr and "<sandbox>" not in ran.stderr


def test_nul_bytes_in_the_code_are_an_error_of_the_program(sandbox: Sandbox) -> None:
    ran = sandbox.python("print(1)\0\n")
    assert ran.status is Status.ERROR and "null bytes" in ran.stderr


@pytest.mark.parametrize(
    ("code", "exit_code", "status"),
    [
        ("raise SystemExit", 0, Status.OK),
        ("import sys; sys.exit(0)", 0, Status.OK),
        ("import sys; sys.exit(7)", 7, Status.ERROR),
        ("import sys; sys.exit(-1)", 255, Status.ERROR),
        ("import sys; sys.exit('why')", 1, Status.ERROR),
        ("import os; os._exit(9)", 9, Status.ERROR),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, Status.KILLED),
        ("import os; os.kill(os.getpid(), 9)", -9, Status.KILLED),
        ("import os; os.abort()", -6, Status.KILLED),
        ("import ctypes; ctypes.string_at(0)", -11, Status.KILLED),
        ("raise KeyboardInterrupt", 1, Status.ERROR),
        ("def f(): f()\nf()", 1, Status.ERROR),
    ],
)
def test_exit_codes_are_kept(sandbox: Sandbox, code: str, exit_code: int, status: Status) -> None:
    ran = sandbox.python(code)
    assert (ran.status, ran.exit_code) == (status, exit_code), ran
    if "why" in code:
        assert ran.stderr == "why\n"


def test_what_python_does_at_its_end_is_done(sandbox: Sandbox) -> None:
    ran = sandbox.python(
        "import atexit, threading, time\n"
        "class Last:\n def __del__(self): print('finalizer')\n"
        "kept = Last()\nkept.itself = kept\n"
        "atexit.register(print, 'exit function')\n"
        "def work():\n time.sleep(0.05)\n print('thread')\n"
        "threading.Thread(target=work).start()\nprint('main')"
    )
    assert ran.stdout.splitlines() == ["main", "thread", "exit function", "finalizer"], ran


def test_programs_see_python_as_it_is(sandbox: Sandbox) -> None:
    ran = sandbox.python(
        "import sys, os\nprint(__name__, __file__, sys.argv, os.getcwd())\n"
        "print(sys.modules['__main__'].__dict__ is globals(), __builtins__.__name__)\n"
        "print(sys.flags.no_site, sys.flags.safe_path, sys.flags.dont_write_bytecode)\n"
        "print([path for path in sys.path if 'packages' in path or path in ('', '.', '/box')])\n"
        "import asyncio, subprocess, concurrent.futures, tempfile, multiprocessing\n"
        "print(asyncio.run(asyncio.sleep(0, 'async')), subprocess.run(['echo', 'sub'], capture_output=True).stdout)\n"
        "print(list(concurrent.futures.ThreadPoolExecutor(2).map(abs, [-1])), tempfile.gettempdir())\n"
        "print(multiprocessing.get_context('fork').Pool(2).map(abs, [-1, -2]))\n"
    )
    assert ran.stdout.splitlines() == [
        "__main__ /box/__main__.py ['/box/__main__.py'] /box",
        "True builtins",
        "1 True 1",
        "[]",
        "async b'sub\\n'",
        "[1] /box",
        "[1, 2]",
    ], ran


def test_every_run_is_alike(one_shot: Sandbox, pooled: Sandbox) -> None:
    code = (
        "import time, locale, sys\nprint(hash('word'), {'a', 'b', 'c', 'd'}, time.tzname, time.strftime('%Z'))\n"
        "print(locale.setlocale(locale.LC_ALL, ''), sys.stdout.encoding, sys.flags.hash_randomization)"
    )
    outputs = {box.python(code).stdout for box in (one_shot, pooled) for _ in range(3)}
    assert len(outputs) == 1 and "('UTC', 'UTC')" in outputs.pop()


def test_random_numbers_differ_between_runs(sandbox: Sandbox) -> None:
    code = "import random, uuid\nprint(random.random(), uuid.uuid4())"
    assert len({sandbox.python(code).stdout for _ in range(4)}) == 4  # no state is inherited from a warm worker


def test_a_command_runs(sandbox: Sandbox) -> None:
    ran = sandbox.command(["python3", "-m", "json.tool"], stdin='{"a":1}')
    assert (ran.status, ran.stdout) == (Status.OK, '{\n    "a": 1\n}\n'), ran
    ran = sandbox.command(["sh", "-c", "cat f > g; echo done; exit 3"], files={"f": "text"}, keep=["g"])
    assert (ran.status, ran.exit_code, ran.stdout, ran.files) == (Status.ERROR, 3, "done\n", {"g": b"text"})


def test_a_command_that_is_not_there_is_said_so(sandbox: Sandbox) -> None:
    ran = sandbox.command(["no-such-program", "x"])
    assert (ran.status, ran.exit_code) == (Status.ERROR, 127)
    assert ran.stderr == "cannot run 'no-such-program': No such file or directory\n"


def test_programs_go_first_when_memory_runs_out_and_leave_no_core(sandbox: Sandbox) -> None:
    code = (
        "import resource\n"
        "print(open('/proc/self/oom_score_adj').read().strip())\n"
        "for name in ('CORE', 'MEMLOCK', 'MSGQUEUE'):\n"
        "    print(name, *resource.getrlimit(getattr(resource, 'RLIMIT_' + name)))\n"
    )
    assert sandbox.python(code).stdout.split("\n") == ["1000", "CORE 0 0", "MEMLOCK 65536 65536", "MSGQUEUE 0 0", ""]


def test_a_command_is_limited_too(sandbox: Sandbox) -> None:
    limits = Limits(wall_seconds=0.4, output_bytes=100)
    assert sandbox.command(["sleep", "60"], limits=limits).status is Status.TIMEOUT
    assert sandbox.command(["yes"], limits=limits).status is Status.OUTPUT
    assert sandbox.command(["cat", "/etc/shadow"]).stderr.startswith("cat: /etc/shadow: No such file")


def test_limits_of_a_run_take_the_place_of_the_sandboxs(sandbox: Sandbox) -> None:
    ran = sandbox.python("import time; time.sleep(60)", limits=Limits(wall_seconds=0.2))
    assert ran.status is Status.TIMEOUT and ran.wall_seconds < 5
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[1] // 2**20)"
    assert sandbox.python(code, limits=Limits(memory_mb=99)).stdout == "99\n"
    assert sandbox.python(code).stdout == f"{sandbox.limits.memory_mb}\n"


def test_what_was_printed_before_a_limit_is_kept(sandbox: Sandbox) -> None:
    ran = sandbox.python("print('so far', flush=True)\nwhile True: pass", limits=Limits(cpu_seconds=0.2))
    assert (ran.status, ran.stdout) == (Status.TIMEOUT, "so far\n")


def test_files_are_kept_when_a_limit_ends_a_run(sandbox: Sandbox) -> None:
    ran = sandbox.python(
        "open('f', 'w').write('half')\nimport time; time.sleep(60)", keep=["f"], limits=Limits(wall_seconds=0.3)
    )
    assert (ran.status, ran.files) == (Status.TIMEOUT, {"f": b"half"})


# ---------------------------------------------------------------------------------------------- many at a time


def test_many_programs_answer_in_order(sandbox: Sandbox) -> None:
    programs = [Program(f"import time; time.sleep({(7 - n) / 50}); print({n})") for n in range(8)]
    assert [ran.stdout for ran in sandbox.many(programs, parallel=8)] == [f"{n}\n" for n in range(8)]
    assert sandbox.many([]) == []


def test_one_that_misbehaves_disturbs_no_other(sandbox: Sandbox) -> None:
    limits = Limits(wall_seconds=0.5, cpu_seconds=0.5, output_bytes=1000, memory_mb=128)
    bad = ["while True: pass", "while True: print('x' * 999)", "x = bytearray(2**33)", "import os; os.kill(-1, 9); 1/0"]
    bad.append("import resource\nresource.prlimit(1, resource.RLIMIT_AS, (0, 0))\nimport time; time.sleep(60)")
    programs = [Program(code, limits=limits) for n in range(5) for code in (bad[n], f"print({n})")]
    results = sandbox.many(programs, parallel=4)
    assert [ran.stdout for ran in results[1::2]] == [f"{n}\n" for n in range(5)]
    statuses = [ran.status for ran in results[::2]]
    assert statuses[:4] == [Status.TIMEOUT, Status.OUTPUT, Status.MEMORY, Status.ERROR]
    assert statuses[4] in {Status.KILLED, Status.TIMEOUT}


def test_threads_may_share_a_sandbox(sandbox: Sandbox) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        for round_ in range(3):
            results[number * 10 + round_] = sandbox.python(f"print({number * 10 + round_})").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n * 10 + k: f"{n * 10 + k}\n" for n in range(8) for k in range(3)}


def test_coroutines_run_programs_in_threads(sandbox: Sandbox) -> None:
    async def all_of_them() -> list[Ran]:
        return await asyncio.gather(*(asyncio.to_thread(sandbox.python, f"print({n})") for n in range(8)))

    assert [ran.stdout for ran in asyncio.run(all_of_them())] == [f"{n}\n" for n in range(8)]


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../b", "", "a//b", ".", "a/", "a\0b", "x" * 300])
def test_paths_stay_in_the_folder(one_shot: Sandbox, name: str) -> None:
    with pytest.raises(ConfigError, match="does not name a file below the working folder"):
        one_shot.python("", files={name: "x"})
    with pytest.raises(ConfigError, match="does not name a file below the working folder"):
        one_shot.python("", keep=[name])


def test_files_that_cannot_be_laid_out_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="both a file and a folder"):
        sandbox.python("", files={"a": "", "a/b": ""})
    with pytest.raises(ConfigError, match=r"take 2\.0 MB, and its folder holds limits\.file_mb=1; raise that limit"):
        sandbox.python("", files={"a": "x" * 2**21}, limits=Limits(file_mb=1))
    with pytest.raises(ConfigError, match="where the code itself goes"):
        sandbox.python("", files={"__main__.py": ""})
    assert sandbox.python("print(1)").stdout == "1\n"


def test_a_closed_sandbox_says_so(bubblewrap: None) -> None:
    for workers in (0, 1):
        with Sandbox(workers=workers) as sandbox:
            assert sandbox.python("print(1)").stdout == "1\n"
        with pytest.raises(TroupeError, match="closed; make another one"):
            sandbox.python("print(1)")
        sandbox.close()  # twice is once


def test_a_sandbox_can_be_made_in_a_thread_that_ends(bubblewrap: None) -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(workers=1)))
    thread.start()
    thread.join()
    time.sleep(0.1)  # the kernel would have ended a worker together with its thread
    with made[0] as sandbox:
        assert sandbox.python("print(1)").stdout == "1\n"
        assert sandbox.python(f"print({sys.maxsize})").stdout == f"{sys.maxsize}\n"


def test_python_runs_under_the_least_limits(sandbox: Sandbox) -> None:
    least = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=48, processes=1, file_mb=1, open_files=8, output_bytes=0)
    ran = sandbox.python("import json, collections\njson.dumps({})", limits=least)
    assert (ran.status, ran.exit_code) == (Status.OK, 0), ran
    assert sandbox.python("print(1)", limits=least).status is Status.OUTPUT
