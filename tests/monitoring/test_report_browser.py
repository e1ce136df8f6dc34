"""The report in a real browser: no console errors, charts with a size, values under the pointer, no sideways scroll."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from troupe.monitoring.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser found: none of {', '.join(BROWSERS)} is on the PATH"
)

PROBE = """<script>
const found = { charts: 0, flat: 0, tips: 0, window: innerWidth };
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
for (const chart of document.querySelectorAll("svg.chart")) {
  const box = chart.getBoundingClientRect();
  found.charts += 1;
  found.flat += box.width < 100 || box.height < 80 || !chart.querySelector("path.line, rect.bar");
  const area = chart.parentElement;
  area.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 5 }));
  found.tips += !document.getElementById("tip").hidden && document.getElementById("tip").textContent.length > 3;
  area.dispatchEvent(new PointerEvent("pointerleave"));
}
const shade = () => getComputedStyle(document.body).backgroundColor;
const before = shade();
document.getElementById("scheme").click();
found.switched = before !== shade();
found.open = document.querySelectorAll("details.task[open]").length;
parent.document.body.setAttribute("data-found", JSON.stringify(found));
</script></body>"""


def browse(page: Path, profile: Path) -> tuple[str, str]:
    """The DOM after scripts ran, and what the browser logged."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr")
    place = (f"--user-data-dir={profile}", "--window-size=1400,1000", "--virtual-time-budget=2000")
    command = [str(BROWSER), *options, *place, "--dump-dom", page.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(profile)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def console(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line]


def probe_page(page: Path, profile: Path, width: int) -> tuple[dict[str, Any], str]:
    """What the probe found on a page of this width, and what the browser logged."""
    probe = page.parent / "probe.html"
    inner = escape(
        page.read_text().replace("</body>", PROBE)
    )  # in a frame: headless windows are never as narrow as a phone
    probe.write_text(
        f'<!doctype html><iframe width="{width}" height="900" srcdoc="{inner}" style="border: 0"></iframe>'
    )
    dom, log = browse(probe, profile)
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match, f"the probe did not finish: {console(log)}"
    return json.loads(unescape(match[1])), log


@pytest.mark.parametrize("width", [1280, 390])
def test_charts_are_drawn_and_answer_to_the_pointer_without_console_errors(
    run: Callable[..., tuple[Path, dict[str, Any]]], tmp_path: Path, width: int
) -> None:
    folder, summary = run(
        hostile="<script>console.error('escaped?')</script><img src=x onerror=console.error(1)>" + "9" * 300
    )
    found, log = probe_page(write_report(folder, summary), tmp_path / "profile", width)
    assert console(log) == []
    assert found == {"charts": 21, "flat": 0, "tips": 21, "window": width, "wide": 0, "switched": True, "open": 1}


def test_an_error_on_the_console_is_seen_by_this_test(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>console.error('seen'); throw new Error('this too')</script>")
    _, log = browse(page, tmp_path / "profile")
    assert len(console(log)) == 2
