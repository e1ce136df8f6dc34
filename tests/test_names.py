"""docs/names.md cannot rot: every row is imported, resolved, prepared or compared with the script that it names."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import troupe.cli
import troupe.cli.scripts
from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from tests.tasks.hub import documented, hub
from tests.tasks.test_swe import checkout
from troupe.cli import main, parse
from troupe.cli.data import PREPARERS
from troupe.cli.market import resolve_market
from troupe.cli.puzzles import resolve_puzzles
from troupe.cli.selfplay import resolve_selfplay
from troupe.cli.tasks import resolve_tasks
from troupe.cli.trading import resolve_trading
from troupe.cli.train import preset_path, resolve_config
from troupe.config import format_value, leaf_paths
from troupe.envs import GAMES
from troupe.envs.market.env_config import read_env_config
from troupe.errors import ConfigError
from troupe.systems.selfplay.config import ALIASES as SELF_PLAY_ALIASES
from troupe.systems.selfplay.verifiable.families import FAMILIES
from troupe.systems.trading import documented as documented_002
from troupe.systems.trading.assessment import METRICS
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.record import evaluation_record
from troupe.systems.trading.walkforward import WalkForward
from troupe.systems.workflow_rl.config import ALIASES, WorkflowRLConfig
from troupe.systems.workflow_rl.tasks import load_tasks
from troupe.tasks import GENERATORS
from troupe.tasks.datasets import DatasetRegistry
from troupe.workflows import WORKFLOWS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
DEFAULT_PRESET = "agent_ppo_trainer"


def rows(heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def spans(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def overrides(cell: str) -> list[str]:
    """The `KEY=VALUE` words in backticks that are no Python."""
    words = [word for span in spans(cell) if "(" not in span for word in span.split()]
    return [word for word in words if re.fullmatch(r"\+?[a-z_]+(\.[a-z_]+)*=\S+", word)]


def resolved(*words: str, files: tuple[Path, ...] = ()) -> WorkflowRLConfig:
    return resolve_config(DEFAULT_PRESET, list(map(str, files)), words).config


PREPARED = [override.partition("=")[2] for row in rows("Data sets") for override in overrides(row[2])]


@pytest.mark.parametrize("row", rows("Python names"), ids=lambda row: row[0])
def test_python_name(row: list[str]) -> None:
    module, _, name = row[2].strip("`").rpartition(".")
    assert hasattr(import_module(module), name)


# ---------------------------------------------------------------------------------------------- data sets


@pytest.mark.parametrize("row", rows("Data sets"), ids=lambda row: row[0])
def test_data_set(
    row: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sandbox: object,  # noqa: F811
) -> None:
    """Its command stores it under its name, and a run that names it as the row does finds its tasks."""
    hub(monkeypatch, documented)
    source = tmp_path / "DIR"
    for task in ("pack__0000", "pack__0001", "pack__0002", "org__pack-0"):
        checkout(source, task)
    (source / "corpus.jsonl").write_text('{"id": "p", "text": "It was dredged in 1931."}\n')
    facts = [{"values": ["1931"], "passages": ["p"]}]
    asked = [json.dumps({"question": f"When, for the {n}th time?", "facts": facts}) for n in range(4)]
    (source / "questions.jsonl").write_text("\n".join(asked))
    if row[3].startswith("`troupe data prepare swe"):
        (source / "questions.jsonl").unlink()
        (source / "corpus.jsonl").unlink()
    words = shlex.split(spans(row[3])[0].replace("DIR", str(source)))[1:]
    assert main([*words, "--root", str(tmp_path / "data"), "--held-out", "0.4"]) == 0
    use = overrides(row[2])[0]
    key, _, name = use.partition("=")
    assert spans(row[0]) == [name] or not spans(row[0])  # a set of the user's own has no documented name
    splits = DatasetRegistry(tmp_path / "data").splits(name)
    assert ("train" in splits) == (key == "data.train") and "held_out" in splits
    train, val = load_tasks(resolved(use, f"data.root={tmp_path / 'data'}").data, seed=0)
    assert train and val


# ---------------------------------------------------------------------------------------------- commands


def checked(command: str, more: str, tmp_path: Path) -> None:
    """Parses a command of the page, resolves its configuration with the overrides of its remark, and looks up every
    name in it."""
    (tmp_path / "file.yaml").write_text("optim: {lr: 1e-5}\n")
    words = shlex.split(command.replace("FILE", str(tmp_path / "file.yaml")))[1:]
    arguments = parse([*words, *(overrides(more) if words[0] == "train" else [])])
    assert arguments.command is not None
    if words[:2] == ["data", "prepare"]:
        assert arguments.name in PREPARERS
    elif words[:2] == ["train", "trading"]:
        chosen = arguments.phase and getattr(TradingConfig(), f"phase{arguments.phase}").total_timesteps
        assert arguments.timesteps == chosen  # document 002's budgets are the defaults
        assert resolve_trading(arguments.preset, arguments.config, arguments.overrides)[0].config.seed == 0
    elif words[:2] == ["evaluate", "trading"]:
        assert arguments.episodes == 200 and arguments.run == "DIR"
    elif words[0] == "evaluate":
        assert arguments.workflow is None or arguments.workflow in WORKFLOWS
    elif words[:2] == ["train", "selfplay"]:
        assert resolve_selfplay(arguments.preset, arguments.config, arguments.overrides).config.game.name in GAMES
    elif words[0] == "play":
        assert arguments.run
    elif words[:2] == ["train", "tasks"]:
        assert resolve_tasks(arguments.preset, arguments.config, arguments.overrides).config.tasks.family in FAMILIES
    elif words[:2] == ["train", "puzzles"]:
        config = resolve_puzzles(arguments.preset, arguments.config, arguments.overrides).config
        assert config.data.name in words[-1] and config.net.kind in words[2]
    else:
        assert words[:2] == ["train", "workflow"]
        config = resolve_config(arguments.preset, arguments.config, arguments.overrides).config
        assert config.workflow.name in WORKFLOWS
        assert {config.data.train, config.data.val or config.data.train} <= {*GENERATORS, *PREPARED}


@pytest.mark.parametrize("row", rows("Commands"), ids=lambda row: row[0])
def test_command(row: list[str], tmp_path: Path) -> None:
    for command in spans(row[2]):
        if command.startswith("python "):
            assert (ROOT / command.split()[1]).exists()
            continue
        if not command.startswith("troupe "):
            pytest.importorskip(command.split()[0])
            continue
        checked(command, row[3], tmp_path)


@pytest.mark.parametrize(
    ("command", "remark"),
    [
        ("troupe train workflow workflow=nonsense", ""),
        ("troupe train workflow workflow=swe", "`data.train=R2E_Gym`"),
        ("troupe train workflow workflow=swe", "`data.trian=R2E_Gym_Subset`"),
        ("troupe train workflow workflow=swe data.train_batch_size=few", ""),
        ("troupe data prepare deepcodr", ""),
        ("troupe evaluate --checkpoint RUN --workflow coder", ""),
    ],
)
def test_a_wrong_row_would_be_noticed(command: str, remark: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ConfigError)):
        checked(command, remark, tmp_path)


SCRIPTS = [row for row in rows("Commands") if re.search(r"python examples/[\w/]+\.py", row[0])]


@pytest.mark.parametrize("row", SCRIPTS, ids=lambda row: row[0])
def test_a_script_is_the_command_beside_it(row: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it passes on is what its row says, but for the folder that it writes into."""
    given: list[list[str]] = []
    for module in (troupe.cli, troupe.cli.scripts):
        monkeypatch.setattr(module, "main", lambda words: given.append(list(words)) or 0)
    script, *more = shlex.split(spans(row[0])[0])[1:]
    monkeypatch.setattr(sys, "argv", [script, *(word for word in more if word not in ("KEY=VALUE", "..."))])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code == 0
    said = [shlex.split(command)[1:] for command in spans(row[2])]
    if said[0][0] == "train":
        said[0] += overrides(row[3])
    assert [[word for word in words if not word.startswith("trainer.default_local_dir=")] for words in given] == said


# ---------------------------------------------------------------------------------------------- config keys


@pytest.mark.parametrize("row", rows("Config keys"), ids=lambda row: row[0])
def test_config_key(row: list[str]) -> None:
    names, here = spans(row[0]), spans(row[2])[0]
    if row[1] == "001":
        for name in names:
            assert SELF_PLAY_ALIASES[name] == here
            value = resolve_selfplay(None, [], [f"{name}=7000", *overrides(row[2])]).config
            for part in here.split("."):
                value = getattr(value, part)
            assert value == 7000
        return
    if row[1] == "002":
        check_market_keys(names, here)
        return
    if here.startswith("--preset"):
        preset_path(here.split()[1])
        return
    if overrides(row[2]):
        for override in overrides(row[2]):
            resolved(override)
        return
    leaves, key = leaf_paths(WorkflowRLConfig), here
    section, _, name = key.rpartition(".")
    if section == "workflow.args":  # an argument of the workflow
        assert section in leaves and names == [name]
        assert resolved(f"{here}=2").workflow.args == {name: 2}
        return
    assert key in leaves
    for documented_key in names:
        assert documented_key == key or ALIASES[documented_key] == key
        value = resolve_config(DEFAULT_PRESET, [], []).config
        for part in key.split("."):
            value = getattr(value, part)
        resolved(f"{documented_key}={format_value(value)}")


def test_every_alias_has_a_row() -> None:
    assert {*ALIASES, *SELF_PLAY_ALIASES} <= {name for row in rows("Config keys") for name in spans(row[0])}


ENV_CONFIG: dict[str, Any] = {
    "instrument": "EURUSD",
    "instruments": ["EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30"],
    "episode_length": 1000,
    "warmup_steps": 50,
    "initial_capital": 100000.0,
    "transaction_cost": 0.003,
    "max_position_size": 0.1,
    "stop_loss_pct": 0.02,
    "max_portfolio_var": 0.02,
    "max_correlation_exposure": 0.7,
    "max_sector_allocation": 0.4,
    "gradient_coordination": True,
    "curriculum_learning": True,
}
"""Document 002's keys with its values."""


def check_market_keys(names: list[str], here: str) -> None:
    """Each is read by an environment, and `here` is the same thing: another environment's name, or a key of a run."""
    for name in names:
        found = getattr(read_env_config({name: ENV_CONFIG[name]}, "JointTrainingEnv"), name)
        assert (list(found) if isinstance(found, tuple) else found) == ENV_CONFIG[name]
        if here == "JointTrainingEnv":
            with pytest.raises(ConfigError, match=f"{name}: is for {here}, and MarketEnv does not read it"):
                read_env_config({name: ENV_CONFIG[name]}, "MarketEnv")
            continue
        assert here.rpartition(".")[2] in (name, f"{name}s")
        value = ENV_CONFIG[name] if here.endswith(name) else [ENV_CONFIG[name]]
        written = f"[{','.join(value)}]" if isinstance(value, list) else value
        resolved_value = resolve_market(None, [], [f"{here}={written}"]).config
        for part in here.split("."):
            resolved_value = getattr(resolved_value, part)
        assert (list(resolved_value) if isinstance(resolved_value, tuple) else resolved_value) == value


def test_every_key_of_agents_yaml_has_a_row() -> None:
    found = {spans(row[0])[0]: tuple(spans(row[2])) for row in rows("Keys of agents.yaml")}
    assert found == {**documented_002.COUNTERPARTS, **dict.fromkeys(documented_002.WITHOUT, ())}
    leaves = leaf_paths(TradingConfig)
    assert all(key in leaves for keys in found.values() for key in keys)


def test_every_key_of_env_config_has_a_row() -> None:
    assert set(ENV_CONFIG) == {name for row in rows("Config keys") if row[1] == "002" for name in spans(row[0])}


@pytest.mark.parametrize("row", [row for row in rows("Metrics") if row[1] == "002"], ids=lambda row: row[0])
def test_metric_of_a_market(row: list[str], evaluation: dict[str, Any]) -> None:
    """It is measured, under this name."""
    strategy = evaluation["strategies"][0]
    for name in spans(row[2]):
        assert name in METRICS or name in strategy or name in evaluation
        if name in METRICS:
            assert strategy["metrics"][name]["mean"] is not None


def test_every_field_of_an_evaluation_stands_in_formats(evaluation: dict[str, Any]) -> None:
    section = (
        (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").split("## A market run\n", 1)[1].split("\n## ", 1)[0]
    )
    section = section.split("| field of `drivers`", 1)[0]
    table = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    optional = {name for cell in table if "optional" in cell for name in spans(cell)}
    assert {name for cell in table for name in spans(cell)} - optional == set(evaluation)
    assert optional == {"drivers", "phases"}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the smallest walk-forward evaluation."""
    settings = {
        "market": {
            "instruments": ["EURUSD", "XAUUSD"],
            "simulation": {"scenario": "trending", "paths": 1, "bars": 500},
            "rules": {"episode_length": 50, "max_portfolio_var": 0.02},
        },
        "ppo": {"n_steps": 16, "batch_size": 64},
        "folds": {"count": 1, "first": 0.7},
        "trainer": {
            "total_timesteps": 64, "n_envs": 4, "seeds": 2, "cost_sweep": [1.0],
            "default_local_dir": str(tmp_path_factory.mktemp("market") / "run"),
        },
    }  # fmt: skip
    return evaluation_record(WalkForward(settings).run(), [], simulated=True)
