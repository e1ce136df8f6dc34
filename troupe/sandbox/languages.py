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
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from troupe.errors import ConfigError, did_you_mean
from troupe.sandbox.answers import CALL_SECONDS, Answers, Job, read_answers, shared_limits
from troupe.sandbox.cases import MAX_PROGRAM, MAX_VALUE, Case, Verdict, one_line, run_cases
from troupe.sandbox.java import run_java
from troupe.sandbox.program import Limits
from troupe.sandbox.sandbox import Sandbox

__all__ = ["LANGUAGES", "Job", "lacking", "present", "run_jobs"]

PROGRAMS = {"python": (), "javascript": ("node",), "java": ("javac", "java")}
LANGUAGES = tuple(PROGRAMS)
PACKAGES = {"node": "nodejs", "javac": "default-jdk-headless", "java": "default-jdk-headless"}

COMPANY = 64
"""Programs that share a process at most."""


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
    run = {"javascript": _javascript, "java": run_java}[language]
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
        limits=shared_limits(10.0 + 0.5 * len(jobs), 1200),
    )
    return read_answers(ran.stdout, jobs, "it exited" if ran.status in ("ok", "error") else str(ran.status))


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
