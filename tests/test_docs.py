"""The documentation describes today: its records load, its code runs, its pages and files exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from troupe.cli import parse
from troupe.cli.env import resolve_env
from troupe.cli.market import resolve_market
from troupe.cli.puzzles import resolve_puzzles
from troupe.cli.selfplay import resolve_selfplay
from troupe.cli.tasks import resolve_tasks
from troupe.cli.train import resolve_config
from troupe.episode import Episode, Task

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def record_with(key: str) -> dict[str, Any]:
    return next(record for record in map(json.loads, blocks("formats.md", "json")) if key in record)


def test_the_episode_shown_is_one() -> None:
    record = record_with("trajectories")
    assert json.loads(json.dumps(Episode.from_dict(record).to_dict())) == record


def test_the_task_shown_is_one() -> None:
    record = record_with("difficulty")
    assert Task.from_dict(record).to_dict() == record


PAGES = (
    "index.md", "extending.md", "guides/workflow-rl.md", "guides/self-play.md", "guides/environments.md",
    "guides/markets.md", "guides/tasks.md",
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_the_code_shown_runs(page: str, tmp_path: Path) -> None:
    for number, code in enumerate(blocks(page, "python")):
        script = tmp_path / f"block_{number}.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{page}, block {number + 1}:\n{done.stderr}"


def test_the_command_lines_shown_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config file that a command names is one that the page shows, with its name in the first line."""
    for page in PAGES:
        for text in blocks(page, "yaml"):
            if name := re.match(r"# (\S+\.yaml)\n", text):
                (tmp_path / name[1]).write_text(text, encoding="utf-8")
    pages = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")]}
    lines = [
        (page.name, line)
        for page, text in pages.items()
        for block in re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"(\.venv/bin/)?troupe ", line)
    ]
    assert len(lines) >= 8
    monkeypatch.chdir(tmp_path)
    for page, line in lines:
        try:
            arguments = parse(shlex.split(line, comments=True)[1:])
        except SystemExit:
            pytest.fail(f"{page}: {line}")
        if arguments.command == ("troupe.cli.train", "train_workflow"):
            resolve_config(arguments.preset, arguments.config, arguments.overrides)
        if arguments.command == ("troupe.cli.selfplay", "train_selfplay"):
            resolve_selfplay(arguments.preset, arguments.config, arguments.overrides)
        if arguments.command == ("troupe.cli.env", "train_env"):
            resolve_env(arguments.preset, arguments.config, arguments.overrides)
        if arguments.command == ("troupe.cli.market", "train_market"):
            resolve_market(arguments.preset, arguments.config, arguments.overrides)
        if arguments.command == ("troupe.cli.tasks", "train_tasks"):
            resolve_tasks(arguments.preset, arguments.config, arguments.overrides, tenth=arguments.tenth)
        if arguments.command == ("troupe.cli.puzzles", "train_puzzles"):
            resolve_puzzles(arguments.preset, arguments.config, arguments.overrides)


def test_the_example_learns() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "workflow_rl.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    before, after = (float(rate) for rate in re.findall(r"^after update +\d+: ([\d.]+)", done.stdout, re.MULTILINE))
    assert before < 0.3 and after > 0.8


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md"])
def test_links_of_the_front_pages_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []
