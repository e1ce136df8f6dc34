"""Programs in Java: one compiler and one process for many, each in a package of its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

from troupe.errors import ConfigError
from troupe.sandbox.answers import CALL_SECONDS, Answers, Job, read_answers, shared_limits
from troupe.sandbox.cases import MAX_VALUE
from troupe.sandbox.sandbox import Sandbox

__all__ = ["run_java"]

_OPTIONS = (
    "-Xmx192m", "-Xss1m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=24m",
    "-XX:CompressedClassSpaceSize=48m", "-XX:-UsePerfData", "-Djava.home=jdk",
)  # fmt: skip
_FAILED = re.compile(r"^p(\d+)/\w+\.java:\d+: error", re.MULTILINE)
_NAMED = re.compile(r"^[A-Za-z_]\w*$")


def run_java(sandbox: Sandbox, jobs: Sequence[Job]) -> Answers:
    """One compiler for all; a program that it refuses is left out, and the others are compiled again."""
    answers: Answers = [[{"lost": "it does not compile"}] * len(job.cases) for job in jobs]
    kept = [place for place, job in enumerate(jobs) if _NAMED.match(job.entry.partition(".")[0])]
    while kept:
        ran = _compiled_and_run(sandbox, jobs, kept)
        refused = {int(number) for number in _FAILED.findall(ran.stderr)} & set(kept)
        if ran.exit_code != _REFUSED or not refused:
            why = "it exited" if ran.status in ("ok", "error") else str(ran.status)
            for place, found in zip(kept, read_answers(ran.stdout, [jobs[place] for place in kept], why), strict=True):
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
        limits=shared_limits(20.0 + 1.0 * len(kept), 1500),
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
