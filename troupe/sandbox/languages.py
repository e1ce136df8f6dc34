"""Untrusted functions and classes in Python, JavaScript and Java, judged on calls: many programs in one run.

    jobs = [Job("function f(x) { return x + 1; }", "f", ({"args": [4], "value": 5},))]
    run_jobs(sandbox, "javascript", jobs)            # [[Verdict(passed=True, value=5)]]

A case is that of `cases`, or `{"calls": [["put", 3], ["get"]], "value": [None, 3]}` for a class: a fresh object, its
methods called in order, and what each returned. Values are whole numbers, texts, truths, and lists of them. As in
`cases`, only arguments enter the sandbox and what comes back is compared outside. JavaScript needs `node`; Java needs
`javac` and `java`, in which a function is a static method of the class that is named before a point ("Solution.f").

Starting Node or Java takes far longer than most programs, so programs share a process: each in a context or package
of its own, no two of them with the same cases, so that none could pass on what it knows. Neither a context nor a
package is a wall. So whoever does not pass in company, for whatever reason, runs once more alone, and no neighbour can
cost it its verdict. Values are compared with their types: no truth passes for a number, nor an object for anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.errors import ConfigError, did_you_mean
from troupe.sandbox.cases import MAX_PROGRAM, MAX_VALUE, Case, Verdict, one_line, run_cases
from troupe.sandbox.program import Limits
from troupe.sandbox.sandbox import Sandbox

__all__ = ["LANGUAGES", "Job", "lacking", "present", "run_jobs"]

PROGRAMS = {"python": (), "javascript": ("node",), "java": ("javac", "java")}
LANGUAGES = tuple(PROGRAMS)
PACKAGES = {"node": "nodejs", "javac": "default-jdk-headless", "java": "default-jdk-headless"}

CALL_SECONDS = 1.0
"""Of one call in Node and Java, of all calls in Python."""
COMPANY = 64
"""Programs that share a process at most."""


@dataclass(frozen=True, slots=True)
class Job:
    """A program, what it defines (a function, a class, in Java also "Class.method"), and the cases to judge it on."""

    program: str
    entry: str
    cases: tuple[Case, ...]


def lacking(language: str) -> str | None:
    """What has to be installed to run programs in a language, as a sentence; None where nothing has."""
    if language not in PROGRAMS:
        raise ConfigError(f"programs in {language!r} cannot be run{did_you_mean(language, PROGRAMS)}")
    for program in PROGRAMS[language]:
        found = shutil.which(program)
        if found is None or not os.path.realpath(found).startswith("/usr/"):
            where = f"is at {found}, which the sandbox does not show" if found else "is not installed"
            return (
                f"programs in {language} need {program!r} in /usr, and it {where}: apt-get install "
                f"{PACKAGES[program]}, or leave {language!r} out of the languages"
            )
    return None


def present() -> tuple[str, ...]:
    """The languages whose programs can be run on this machine."""
    return tuple(language for language in LANGUAGES if lacking(language) is None)


def run_jobs(sandbox: Sandbox, language: str, jobs: Sequence[Job]) -> list[list[Verdict]]:
    """A verdict for each case of each job. Raises ConfigError where the language cannot be run here."""
    if missing := lacking(language):
        raise ConfigError(missing)
    if language == "python":
        return [_python(sandbox, job) for job in jobs]
    run = {"javascript": _javascript, "java": _java}[language]
    found: dict[int, list[Verdict]] = {}
    for index, job in enumerate(jobs):
        if len(job.program) > MAX_PROGRAM:
            found[index] = [Verdict(False, "the program is too long")] * len(job.cases)
    for group in _companies([(index, job) for index, job in enumerate(jobs) if index not in found]):
        together = run(sandbox, [jobs[index] for index in group])
        for index, answers in zip(group, together, strict=True):
            found[index] = _verdicts(answers, jobs[index])
            if len(group) > 1 and not all(verdict.passed for verdict in found[index]):
                [answers] = run(sandbox, [jobs[index]])
                found[index] = _verdicts(answers, jobs[index])
    return [found[index] for index in range(len(jobs))]


Answers = list[list[Mapping[str, Any]]]
"""For each job and case {"value": ...} or {"error": ...}, or {"lost": ...} where a neighbour may be to blame."""


def _companies(jobs: Sequence[tuple[int, Job]]) -> Iterator[list[int]]:
    """Groups of at most COMPANY jobs, no two of a group with the same cases."""
    groups: list[tuple[list[int], set[frozenset[str]]]] = []
    for index, job in jobs:
        cases = frozenset(json.dumps(case, sort_keys=True) for case in job.cases)
        for members, known in groups:
            if len(members) < COMPANY and cases not in known:
                break
        else:
            members, known = [], set()
            groups.append((members, known))
        members.append(index)
        known.add(cases)
    return iter([members for members, _ in groups])


def _verdicts(answers: Sequence[Mapping[str, Any]], job: Job) -> list[Verdict]:
    return [_verdict(answer, case) for answer, case in zip(answers, job.cases, strict=True)]


def _verdict(answer: Mapping[str, Any], case: Case) -> Verdict:
    if "value" not in answer:
        return Verdict(False, one_line(str(*answer.values())))
    alike = _alike(answer["value"], case["value"], float(case.get("tolerance", 0.0)))
    return Verdict(alike, value=answer["value"])


def _alike(found: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a value is the expected one, of the same type. An object, which JSON has as a dict, is like nothing."""
    if isinstance(expected, list):
        long = isinstance(found, list) and len(found) == len(expected)
        return long and all(_alike(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    if type(found) in (int, float) and (type(expected) is float or (type(expected) is int and tolerance > 0)):
        return bool(expected - tolerance <= found <= expected + tolerance)  # JavaScript writes 2.0 as 2
    return type(found) is type(expected) and not isinstance(found, dict) and bool(found == expected)


def _calls(case: Case) -> Any:
    """What enters the sandbox: the arguments of a function, or the calls of an object's methods."""
    return {"calls": case["calls"]} if "calls" in case else {"args": case["args"]}


def _read(text: str, jobs: Sequence[Job], why: str) -> Answers:
    """One line for each job that ended, in order: a list of answers for each case, or an error for all of them. Where
    there is anything else, nobody knows who wrote it, and nothing of it counts."""
    nothing: Answers = [[{"lost": why}] * len(job.cases) for job in jobs]
    try:
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
    except (ValueError, RecursionError):
        return nothing
    if len(lines) > len(jobs):
        return nothing
    for place, (line, job) in enumerate(zip(lines, jobs, strict=False)):
        answers = [line] * len(job.cases) if isinstance(line, dict) else line
        sound = isinstance(answers, list) and len(answers) == len(job.cases)
        if not sound or not all(
            isinstance(a, dict) and len(a) == 1 and a.keys() <= {"value", "error", "lost"} for a in answers
        ):
            return nothing
        nothing[place] = answers
    return nothing


# ---------------------------------------------------------------------------------------------- Python


def _python(sandbox: Sandbox, job: Job) -> list[Verdict]:
    """In a process of its own, which a warm worker starts quickly."""
    limits = Limits(wall_seconds=20.0, cpu_seconds=1.0 + CALL_SECONDS)
    program, entry, cases = job.program, job.entry, job.cases
    if any("calls" in case for case in cases):
        program, entry = f"{program}\n{_PYTHON_OBJECT.format(entry=entry)}", "_of_object"
        cases = tuple({**case, "args": [case["calls"]]} for case in cases)
    found = run_cases(sandbox, program, entry, cases, limits=limits)
    # It compares as Python does, where True is 1; what has no value has not passed.
    answers = [{"value": each.value} if each.error is None else {"error": each.error} for each in found]
    return _verdicts(answers, job)


_PYTHON_OBJECT = """
def _of_object(calls):
    made = {entry}()
    return [getattr(made, name)(*arguments) for name, *arguments in calls]
"""


# ---------------------------------------------------------------------------------------------- JavaScript


def _javascript(sandbox: Sandbox, jobs: Sequence[Job]) -> Answers:
    asked = [{"program": j.program, "entry": j.entry, "cases": [_calls(case) for case in j.cases]} for j in jobs]
    ran = sandbox.command(
        ["node", "--max-old-space-size=128", "run.js"],
        files={"run.js": _NODE, "jobs.json": json.dumps(asked)},
        limits=_limits(10.0 + 0.5 * len(jobs), 1200),
    )
    return _read(ran.stdout, jobs, "it exited" if ran.status in ("ok", "error") else str(ran.status))


def _limits(seconds: float, memory_mb: int) -> Limits:
    """Both run-time systems reserve more memory than they use, start a dozen threads, and open many files."""
    return Limits(
        wall_seconds=4 * seconds, cpu_seconds=seconds, memory_mb=memory_mb, processes=48, output_bytes=2**21,
        file_mb=64, open_files=256,
    )  # fmt: skip


_NODE = f"""
"use strict";
const vm = require("vm");
const {{ readFileSync, unlinkSync, writeSync }} = require("fs");
const timeout = {int(1000 * CALL_SECONDS)};

function answer(context, entry, asked) {{
    context.asked = JSON.stringify(asked);
    const text = vm.runInContext(`(() => {{
        const {{ args, calls }} = JSON.parse(asked);
        if (args) return JSON.stringify([${{entry}}(...args)]);
        const made = new ${{entry}}();
        return JSON.stringify([calls.map(([name, ...rest]) => made[name](...rest))]);
    }})()`, context, {{ timeout }});
    if (typeof text !== "string" || text.length > {MAX_VALUE}) throw new Error("the value is too large");
    return {{ value: JSON.parse(text)[0] }};
}}

function attempt(work) {{
    try {{
        return work();
    }} catch (error) {{
        let told = "an exception";
        try {{
            told = `${{error.name}}: ${{error.message}}`.split("\\n")[0].slice(0, 100);
        }} catch (_) {{}}
        return {{ error: told }};
    }}
}}

// A program that did not end once costs no second time: its other cases get the same error.
function answers(context, entry, cases) {{
    let stuck = null;
    return cases.map((asked) => {{
        if (stuck !== null) return stuck;
        const found = attempt(() => answer(context, entry, asked));
        if ("error" in found && found.error.includes(`timed out after ${{timeout}}ms`)) stuck = found;
        return found;
    }});
}}

const jobs = JSON.parse(readFileSync("jobs.json", "utf8"));
unlinkSync("jobs.json"); // nobody reads what others are asked
for (const {{ program, entry, cases }} of jobs) {{
    const context = vm.createContext(Object.create(null)); // an object of ours would lead to our own constructors
    const broken = attempt(() => {{
        vm.runInContext(program, context, {{ timeout }});
        return null;
    }});
    const told = broken ?? answers(context, entry, cases);
    const line = Buffer.from(JSON.stringify(told) + "\\n");
    for (let at = 0; at < line.length; ) at += writeSync(1, line, at);
}}
"""


# ---------------------------------------------------------------------------------------------- Java

_OPTIONS = (
    "-Xmx192m", "-Xss1m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=24m",
    "-XX:CompressedClassSpaceSize=48m", "-XX:-UsePerfData", "-Djava.home=jdk",
)  # fmt: skip
_FAILED = re.compile(r"^p(\d+)/\w+\.java:\d+: error", re.MULTILINE)
_NAMED = re.compile(r"^[A-Za-z_]\w*$")


def _java(sandbox: Sandbox, jobs: Sequence[Job]) -> Answers:
    """One compiler for all; a program that it refuses is left out, and the others are compiled again."""
    answers: Answers = [[{"lost": "it does not compile"}] * len(job.cases) for job in jobs]
    kept = [place for place, job in enumerate(jobs) if _NAMED.match(job.entry.partition(".")[0])]
    while kept:
        ran = _compiled_and_run(sandbox, jobs, kept)
        refused = {int(number) for number in _FAILED.findall(ran.stderr)} & set(kept)
        if ran.exit_code != _REFUSED or not refused:
            why = "it exited" if ran.status in ("ok", "error") else str(ran.status)
            for place, found in zip(kept, _read(ran.stdout, [jobs[place] for place in kept], why), strict=True):
                answers[place] = found
            break
        kept = [place for place in kept if place not in refused]
    return answers


_REFUSED = 77
"""Exit code where the compiler refused something; the programs have not run then."""


def _compiled_and_run(sandbox: Sandbox, jobs: Sequence[Job], kept: Sequence[int]) -> Any:
    home = os.path.dirname(os.path.dirname(os.path.realpath(shutil.which("javac") or "javac")))
    sources = {f"p{k}/{jobs[k].entry.partition('.')[0]}.java": f"package p{k}; {jobs[k].program}" for k in kept}
    asked = "".join(_java_lines(k, jobs[k]) for k in kept)
    words = " ".join(_OPTIONS)
    script = (
        f"ln -s {home}/lib jdk/lib && "
        f"{home}/bin/javac {' '.join('-J' + word for word in _OPTIONS)} -proc:none -nowarn -encoding UTF-8 "
        f"-Xmaxerrs 10000 Main.java {' '.join(sources)} || exit {_REFUSED}; exec {home}/bin/java {words} -cp . Main"
    )
    # Debian keeps the settings of Java in /etc, which the sandbox does not show; this one is all that is needed.
    settings = {"jdk/conf/security/java.security": "security.provider.1=SUN\n"}
    return sandbox.command(
        ["sh", "-c", script],
        files={**sources, **settings, "Main.java": _MAIN, "jobs.txt": asked},
        limits=_limits(20.0 + 1.0 * len(kept), 1500),
    )


def _java_lines(number: int, job: Job) -> str:
    """A line `job p0 Solution f`, a line `case` for each case, and one for each call: `call name`, then a line for each
    argument: `i 3`, `b 1`, `s 97 98` (code units), `I 1 2`, `S 97 98,99`."""
    owner, _, method = job.entry.partition(".")
    lines = [f"job p{number}.{owner}"]
    for case in job.cases:
        lines.append("case object" if "calls" in case else "case function")
        calls = case["calls"] if "calls" in case else [[method, *case["args"]]]
        for name, *arguments in calls:
            lines.append(f"call {name}")
            lines += [_java_value(argument) for argument in arguments]
    return "\n".join(lines) + "\n"


def _java_value(value: Any) -> str:
    if isinstance(value, bool):
        return f"b {int(value)}"
    if isinstance(value, int):
        return f"i {value}"
    if isinstance(value, str):
        return f"s {_units(value)}"
    if isinstance(value, list) and all(type(item) is int for item in value):
        return f"I {' '.join(map(str, value))}"
    if isinstance(value, list) and all(type(item) is str for item in value):
        return f"S {','.join(map(_units, value))}"
    raise ConfigError(f"the value {value!r} cannot be given to Java; write a number, a text, a truth or a list of one")


def _units(text: str) -> str:
    data = text.encode("utf-16-be", "surrogatepass")
    return " ".join(str(int.from_bytes(data[at : at + 2], "big")) for at in range(0, len(data), 2))


_MAIN = """
import java.io.FileOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

public class Main {
    static final String STUCK = "{\\"lost\\": \\"timeout\\"}"; // its neighbours may have had all of the time

    public static void main(String[] arguments) throws Exception {
        PrintStream channel = System.out; // no field, which a program could find
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setErr(new PrintStream(OutputStream.nullOutputStream()));
        List<List<List<String>>> jobs = new ArrayList<>();
        List<String> names = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of("jobs.txt"))) {
            if (line.startsWith("job ")) {
                names.add(line.substring(4));
                jobs.add(new ArrayList<>());
            } else {
                List<List<String>> cases = jobs.get(jobs.size() - 1);
                if (line.startsWith("case ")) cases.add(new ArrayList<>());
                cases.get(cases.size() - 1).add(line);
            }
        }
        Files.delete(Path.of("jobs.txt")); // nobody reads what others are asked
        for (int k = 0; k < jobs.size(); k++) channel.print(run(names.get(k), jobs.get(k)) + "\\n");
        channel.flush();
        Runtime.getRuntime().halt(0);
    }

    static String run(String name, List<List<String>> cases) {
        StringBuilder told = new StringBuilder("[");
        boolean stuck = false;
        for (List<String> asked : cases) {
            String[] answer = {stuck ? STUCK : null};
            if (!stuck) {
                Thread thread = new Thread(null, () -> answer[0] = attempt(name, asked), name, 1 << 20);
                thread.setDaemon(true);
                thread.start();
                try {
                    thread.join(MILLISECONDS);
                } catch (InterruptedException interrupted) {
                    answer[0] = error("interrupted");
                }
                stuck = thread.isAlive();
                if (stuck) answer[0] = STUCK;
            }
            told.append(told.length() > 1 ? ", " : "").append(answer[0]);
        }
        return told.append("]").toString();
    }

    static String attempt(String name, List<String> asked) {
        try {
            Class<?> owner = Class.forName(name);
            StringBuilder text = new StringBuilder();
            if (asked.get(0).equals("case function")) {
                write(call(owner, null, asked, 1), text);
            } else {
                Constructor<?> made = owner.getDeclaredConstructor();
                made.setAccessible(true);
                Object object = made.newInstance();
                text.append("[");
                for (int at = 1; at < asked.size(); at++) {
                    if (!asked.get(at).startsWith("call ")) continue;
                    if (text.length() > 1) text.append(", ");
                    write(call(owner, object, asked, at), text);
                }
                text.append("]");
            }
            if (text.length() > LONGEST) return error("the value is too large");
            return "{\\"value\\": " + text + "}";
        } catch (InvocationTargetException raised) {
            return error(String.valueOf(raised.getCause()));
        } catch (Throwable raised) {
            return error(String.valueOf(raised));
        }
    }

    static Object call(Class<?> owner, Object object, List<String> asked, int at) throws Exception {
        String name = asked.get(at).substring(5);
        List<String> given = new ArrayList<>();
        for (int k = at + 1; k < asked.size() && !asked.get(k).startsWith("call "); k++) given.add(asked.get(k));
        for (Method method : owner.getDeclaredMethods()) {
            if (!method.getName().equals(name) || method.getParameterCount() != given.size()) continue;
            Object[] arguments = new Object[given.size()];
            for (int k = 0; k < arguments.length; k++) {
                arguments[k] = read(given.get(k), method.getParameterTypes()[k]);
            }
            method.setAccessible(true);
            return method.invoke(object, arguments);
        }
        throw new NoSuchMethodException(name + " of " + given.size() + " arguments");
    }

    static Object read(String line, Class<?> type) {
        String text = line.substring(2);
        switch (line.charAt(0)) {
            case 'b': return text.equals("1");
            case 's': return units(text);
            case 'I': {
                String[] words = text.isEmpty() ? new String[0] : text.split(" ");
                List<Object> items = new ArrayList<>();
                for (String word : words) items.add(Integer.valueOf(word));
                if (type.isAssignableFrom(ArrayList.class)) return items;
                if (type == long[].class) return items.stream().mapToLong(each -> (Integer) each).toArray();
                return items.stream().mapToInt(each -> (Integer) each).toArray();
            }
            case 'S': {
                List<Object> items = new ArrayList<>();
                if (!text.isEmpty()) for (String part : text.split(",", -1)) items.add(units(part));
                return type.isAssignableFrom(ArrayList.class) ? items : items.toArray(new String[0]);
            }
            default:
                return type == long.class || type == Long.class ? (Object) Long.valueOf(text) : Integer.valueOf(text);
        }
    }

    static String units(String text) {
        StringBuilder letters = new StringBuilder();
        if (!text.isEmpty()) for (String word : text.split(" ")) letters.append((char) Integer.parseInt(word));
        return letters.toString();
    }

    static void write(Object value, StringBuilder text) {
        if (value == null || value instanceof Boolean || value instanceof Integer || value instanceof Long) {
            text.append(value);
        } else if (value instanceof String string) {
            quote(string, text);
        } else if (value.getClass().isArray() || value instanceof List) {
            int size = value instanceof List<?> list ? list.size() : java.lang.reflect.Array.getLength(value);
            text.append("[");
            for (int k = 0; k < size && text.length() <= LONGEST; k++) {
                if (k > 0) text.append(", ");
                write(value instanceof List<?> list ? list.get(k) : java.lang.reflect.Array.get(value, k), text);
            }
            text.append("]");
        } else {
            text.append("{\\"object\\": ");
            quote(value.getClass().getSimpleName(), text);
            text.append("}");
        }
    }

    static void quote(String value, StringBuilder text) {
        text.append('"');
        for (char c : value.toCharArray()) {
            if (c > 31 && c < 127 && c != '"' && c != '\\\\') text.append(c);
            else text.append(String.format("\\\\u%04x", (int) c));
        }
        text.append('"');
    }

    static String error(String why) {
        StringBuilder text = new StringBuilder("{\\"error\\": ");
        quote(why.length() > 100 ? why.substring(0, 100) : why, text);
        return text.append("}").toString();
    }
}
""".replace("MILLISECONDS", str(int(1000 * CALL_SECONDS))).replace("LONGEST", str(MAX_VALUE))
