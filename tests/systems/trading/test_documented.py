"""Document 002's agents.yaml: every key is taken, said in a note, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.runs import ROOT
from troupe.config import load
from troupe.config.tree import wrap
from troupe.errors import ConfigError
from troupe.systems.trading.documented import is_documented, load_trading, read_agents_yaml
from troupe.systems.trading.hierarchy_config import TradingConfig

AGENTS = """
meta_controller: {state_dim: 74, hidden_dim: 256, hidden_dim_2: 128, dropout: 0.2, learning_rate: 0.0003}
specialists:
  forex:
    type: forex
    instruments: [EURUSD, GBPUSD, USDJPY]
    market_features_dim: 8
    observation_dim: 50
    hidden_dim: 64
    learning_rate: 0.0003
  commodities:
    type: CommoditiesSpecialist
    instruments: [XAUUSD, WTIUSD]
    market_features_dim: 6
    observation_dim: 50
    hidden_dim: 64
    learning_rate: 0.0003
  equity:
    type: equity_specialist
    instruments: [SPX500, NAS100, US30]
    market_features_dim: 7
    observation_dim: 50
    hidden_dim: 64
    learning_rate: 0.0003
portfolio_risk:
  max_portfolio_var: 0.02
  max_correlation_exposure: 0.7
  max_sector_allocation: 0.4
  var_confidence: 0.95
  correlation_window: 100
training:
  # PPO hyperparameters
  learning_rate: 0.0003
  batch_size: 256
  n_epochs: 10
  gamma: 0.99
  gae_lambda: 0.95
  clip_range: 0.2

  # Phase-specific timesteps
  phase_1_timesteps: 500000
  phase_2_timesteps: 300000
  phase_3_timesteps: 1000000

  # Multi-agent specific
  meta_update_freq: 1
  specialist_update_freq: 5

  # Hardware
  device: "cuda"
  n_envs: 8

  eval_interval: 10000
  eval_episodes: 100
environment:
  # Episode settings
  episode_length: 1000
  warmup_steps: 50

  # Capital and risk
  initial_capital: 100000.0
  transaction_cost: 0.003
  max_position_size: 0.1
  stop_loss_pct: 0.02

  # Portfolio risk
  max_portfolio_var: 0.02
  max_correlation_exposure: 0.7
  max_sector_allocation: 0.4
reward:
  # Reward components
  risk_penalty_weight: 1.0
  transaction_cost_weight: 1.0
  diversification_bonus_weight: 0.5

  # Targets
  sharpe_target: 2.0
  max_drawdown_target: 0.15

  # Risk adjustment
  risk_free_rate: 0.02
  downside_volatility_weight: 1.0
communication: {message_history_size: 1000, correlation_id_enabled: true, log_all_messages: false}
monitoring: {tensorboard: true, log_interval: 100}
"""

WRITTEN: dict[str, Any] = yaml.safe_load(AGENTS)

EXPECTED: dict[str, Any] = {
    "market": {
        "instruments": ["EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30"],
        "rules": {
            "episode_length": 1000, "warmup_steps": 50, "initial_capital": 100_000.0, "transaction_cost": 0.003,
            "max_position_size": 0.1, "stop_loss_pct": 0.02, "max_portfolio_var": 0.02, "max_correlation_exposure": 0.7,
            "max_sector_allocation": 0.4, "var_confidence": 0.95, "correlation_window": 100,
        },
    },
    "reward": {
        "kind": "portfolio", "risk_penalty_weight": 1.0, "transaction_cost_weight": 1.0,
        "diversification_bonus_weight": 0.5, "sharpe_target": 2.0, "max_drawdown_target": 0.15, "risk_free_rate": 0.02,
        "downside_volatility_weight": 1.0,
    },
    "net": {"meta_hidden": [256, 128], "specialist_hidden": [64, 64]},
    "ppo": {
        "learning_rate": 3e-4, "batch_size": 256, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2,
    },
    "phase1": {"total_timesteps": 500_000, "learning_rate": 3e-4},
    "phase2": {"total_timesteps": 300_000, "learning_rate": 3e-4},
    "phase3": {
        "total_timesteps": 1_000_000, "learning_rate": 3e-4, "meta_update_freq": 1, "specialist_update_freq": 5,
    },
    "evaluation": {"episodes": 100},
    "communication": {"message_history_size": 1000, "correlation_id_enabled": True, "log_all_messages": False},
    "trainer": {"device": "cpu", "n_envs": 8},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agents.yaml"
    path.write_text(AGENTS)
    return path


def block(section: str) -> str:
    """One section of the file, as it is written there."""
    lines = AGENTS.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
    end = next((i for i in range(begin + 1, len(lines)) if lines[i][:1].isalpha()), len(lines))
    return "\n".join(lines[begin:end]) + "\n"


def leaves(node: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Paths of what is no mapping."""
    if not isinstance(node, dict):
        yield path
        return
    for key, below in node.items():
        yield from leaves(below, *path, key)


def with_another(path: tuple[str, ...]) -> dict[str, Any]:
    """The file with another value at a path."""
    tree = deepcopy(WRITTEN)
    node = tree
    for key in path[:-1]:
        node = node[key]
    value = node[path[-1]]
    other = not value if isinstance(value, bool) else value[::-1] if isinstance(value, str | list) else 2 * value
    node[path[-1]] = other
    return tree


# ---------------------------------------------------------------------------------------------- as it is written


def test_the_file_as_it_is_written(file: Path) -> None:
    tree, notes = read_agents_yaml(file)
    assert tree == EXPECTED
    assert read_agents_yaml(WRITTEN) == (tree, notes)
    assert notes == (
        "meta_controller.state_dim, specialists.*.market_features_dim and specialists.*.observation_dim are not read: "
        "what an agent sees follows from the market, by market.instruments and market.features",
        "meta_controller.dropout is not read: PPO compares the policy that learns with the one that acted, and these "
        "must be the same network",
        "training.eval_interval is not read: a phase is judged once, by its gate, when it ends",
        "monitoring is not read: metrics go where trainer.logger and trainer.log_dir say, checkpoints follow "
        "trainer.save_freq",
        "training.device=cuda runs on the CPU: there is no CUDA GPU here",
    )


def test_a_config_can_be_made_of_it(file: Path) -> None:
    config = load(TradingConfig, preset=read_agents_yaml(file)[0]).config
    assert config.reward.kind == "portfolio" and config.market.rules.stop_loss_pct == 0.02
    assert config.net.meta_hidden == (256, 128) and config.phase3.specialist_update_freq == 5
    assert load_trading(files=[file])[0].config == config


@pytest.mark.parametrize("path", [path for path in leaves(WRITTEN) if path[0] != "monitoring"], ids=".".join)
def test_no_key_is_dropped_in_silence(path: tuple[str, ...]) -> None:
    """Another value changes the config, contradicts something that the file also says, or a note names the key."""
    tree, notes = read_agents_yaml(WRITTEN)
    name = ".".join(("specialists.*", path[-1]) if path[0] == "specialists" else path)
    if any(name in note.partition(" not read")[0] for note in notes):
        assert path[-1] in {"state_dim", "dropout", "market_features_dim", "observation_dim", "eval_interval", "device"}
        return
    try:
        changed, _ = read_agents_yaml(with_another(path))
    except ConfigError as error:
        assert path[-1] == "type" or "here; write the same" in str(error)
    else:
        assert changed != tree


@pytest.mark.parametrize("section", list(WRITTEN))
def test_each_section_stands_alone(tmp_path: Path, section: str) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(block(section))
    tree, _ = read_agents_yaml(path)
    config = load_trading(files=[path])[0].config
    assert config == load(TradingConfig, preset=tree).config
    if section not in ("monitoring", "communication"):  # whose values are the defaults
        assert tree and config != TradingConfig()


def test_what_a_section_does_not_say_stays_as_it_is_here() -> None:
    tree, notes = read_agents_yaml({"meta_controller": {"hidden_dim": 32}})
    assert tree == {"net": {"meta_hidden": [32, 128]}} and notes == ()
    assert read_agents_yaml({"meta_controller": {"hidden_dim_2": 16}})[0] == {"net": {"meta_hidden": [256, 16]}}
    assert read_agents_yaml({"meta_controller": {"dropout": 0.0}}) == ({}, ())
    assert read_agents_yaml({"training": {"learning_rate": 1e-4}})[0] == {
        "ppo": {"learning_rate": 1e-4}, "phase3": {"learning_rate": 1e-4},
    }  # fmt: skip
    assert read_agents_yaml({"training": None, "environment": {}}) == ({}, ())


def test_specialists_say_what_is_traded() -> None:
    tree, _ = read_agents_yaml({"specialists": {"equity": {"instruments": ["US30"]}, "forex": None}})
    assert tree == {"market": {"instruments": ["US30", "EURUSD", "GBPUSD", "USDJPY"]}}


def test_the_documents_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert read_agents_yaml({"training": {"device": "cuda"}}) == ({"trainer": {"device": "cuda"}}, ())
    assert read_agents_yaml({"training": {"device": "cpu"}}) == ({"trainer": {"device": "cpu"}}, ())


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {batch_siez: 64}", ":1: training.batch_siez: unknown key (did you mean 'batch_size'?)"),
        ("environment:\n  max_drawdown_target: 0.2",
         ":2: environment.max_drawdown_target: unknown key (did you mean 'reward.max_drawdown_target'?)"),
        ("training: {}\nenviroment: {}", ":2: enviroment: unknown key (did you mean 'environment'?)"),
        ("training: 3", ":1: training: expected keys with values, found 3"),
        ("specialists: {crypto: {}}", "specialists.crypto: there is no sector 'crypto' for a specialist (known: "),
        ("specialists: {forx: {}}", "there is no sector 'forx' for a specialist (did you mean 'forex'?)"),
        ("specialists: {forex: [EURUSD]}", "specialists.forex: expected keys with values, found ['EURUSD']"),
        ("specialists: {forex: {instrument: [EURUSD]}}", "unknown key (did you mean 'instruments'?)"),
        ("specialists: {forex: {type: equity}}",
         "specialists.forex.type: is 'equity', and a specialist is of its sector; write forex"),
        ("specialists: {forex: {instruments: [EURUSD, XAUUSD]}}",
         "specialists.forex.instruments: 'XAUUSD' is no instrument of the sector forex (did you mean"),
        ("specialists: {equity: {instruments: [DAX40]}}", "'DAX40' is no instrument of the sector equity (known: "),
        ("specialists: {forex: {instruments: [EURUSD, EURUSD]}}", "names an instrument twice; write each once"),
        ("specialists: {forex: {instruments: EURUSD}}", "expected a list of instruments, found 'EURUSD'"),
        ("specialists: {forex: {instruments: []}}", "expected a list of instruments, found []"),
        ("specialists: {volatility: {}}", "has no default for this sector; write what it trades"),
        ("portfolio_risk: {max_portfolio_var: 0.02}\nenvironment: {max_portfolio_var: 0.03}",
         ":2: environment.max_portfolio_var: is 0.03, and portfolio_risk.max_portfolio_var is 0.02: both are "
         "market.rules.max_portfolio_var here; write the same"),
        ("training: {n_envs: 8}\nppo: {n_steps: 64}\nseed: 1",
         ":2: ppo: is Troupe's own, and training document 002's; keep the two kinds in files of their own"),
        ("training: [", "is not valid YAML"),
    ],
)  # fmt: skip
def test_wrong_keys(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(text)
    for read in (read_agents_yaml, lambda path: load_trading(files=[path])):
        with pytest.raises(ConfigError) as found:
            read(path)
        assert message in str(found.value) and len(str(found.value).splitlines()) == 1
        assert str(found.value).startswith(str(path))


def test_everything_that_is_wrong_at_once() -> None:
    with pytest.raises(ConfigError) as found:
        read_agents_yaml({"training": {"gama": 0.9}, "reward": {"sharpe": 2}, "environment": {"ruin": 0.1}})
    assert [line.split(": ")[1] for line in str(found.value).splitlines()] == [
        "training.gama", "reward.sharpe", "environment.ruin",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training:\n  batch_size: lots", ":2: ppo.batch_size: expected an integer, found 'lots'"),
        ("environment:\n  episode_length: 0", ":2: market.rules.episode_length: must be >= 1, found 0"),
        ("training: {device: tpu}", ":1: trainer.device: expected one of"),
        ("training: {batch_size: 100}", "ppo.n_steps * trainer.n_envs = 2048 is no multiple of ppo.batch_size=100"),
        ("portfolio_risk: {var_confidence: 0.9}",
         ":1: market.rules.var_confidence: is for market.rules.max_portfolio_var; write that, too, or leave it out"),
        ("training:\n  n_envs: ???", ":2: trainer.n_envs: has to be given a value"),
    ],
)  # fmt: skip
def test_wrong_values(tmp_path: Path, text: str, message: str) -> None:
    """The line is that of the file, the key the one that takes the value."""
    path = tmp_path / "agents.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as found:
        load_trading(files=[path])
    assert message in str(found.value)


# ---------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("tree", "documented"),
    [
        (WRITTEN, True),
        ({"training": {}}, True),
        ({"training": {}, "seed": 1}, True),
        ({"reward": {"sharpe_target": 1.0}}, True),
        ({"reward": {"sharpe_target": 1.0}, "communication": {"log_all_messages": True}}, True),
        ({"reward": {"kind": "portfolio", "sharpe_target": 1.0}}, False),
        ({"reward": {"decay": 0.1}}, False),
        ({"reward": {"sharpe_target": 1.0}, "seed": 1}, False),
        ({"communication": {"log_all_messages": True}}, False),
        ({"seed": 1, "ppo": {}}, False),
        ({"reward": {}}, False),
        ({}, False),
    ],
)
def test_which_files_are_documented(tree: dict[str, Any], documented: bool) -> None:
    assert is_documented(wrap(tree, "")) == documented


def test_layers_of_both_kinds_and_where_values_come_from(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "agents.yaml", tmp_path / "mine.yaml"
    theirs.write_text("training:\n  gamma: 0.8\n  n_epochs: 4\n  eval_interval: 5\n")
    ours.write_text("ppo: {gamma: 0.7}\nseed: 3\n")
    preset = ROOT / "troupe" / "configs" / "trading" / "rotation.yaml"
    resolved, notes = load_trading(preset=preset, files=[theirs, ours], overrides=["ppo.n_epochs=5", "seed=4"])
    config, origins = resolved.config, resolved.origins
    assert (config.ppo.gamma, config.ppo.n_epochs, config.seed) == (0.7, 5, 4)
    assert config.market.simulation.scenario == "rotation"
    assert origins["ppo.gamma"] == f"{ours}:1" and origins["ppo.n_epochs"] == "override 'ppo.n_epochs=5'"
    assert origins["market.simulation.scenario"].startswith("preset rotation.yaml:")
    assert origins["phase3.meta_update_freq"] == "default" and len(notes) == 1
    turned, _ = load_trading(preset=preset, files=[ours, theirs])
    assert turned.config.ppo.gamma == 0.8 and turned.origins["ppo.gamma"] == f"{theirs}:2"


def test_a_reward_of_the_document_replaces_a_presets(tmp_path: Path) -> None:
    """Which configures another kind by keys that nobody chose for this run."""
    theirs = tmp_path / "reward.yaml"
    theirs.write_text(block("reward"))
    preset = ROOT / "troupe" / "configs" / "trading" / "rotation.yaml"
    assert load_trading(preset=preset, files=[theirs])[0].config.reward.kind == "portfolio"
    with pytest.raises(ConfigError, match=r"reward.aversion: is for reward.kind=mean_variance"):
        load_trading(preset=preset, files=[theirs], overrides=["reward.aversion=3"])


def test_a_file_of_ours_is_read_as_ever(tmp_path: Path) -> None:
    ours = tmp_path / "mine.yaml"
    ours.write_text("seed: 3\n")
    resolved, notes = load_trading(files=[ours], overrides=["ppo.gamma=0.5"])
    assert notes == () and resolved == load(TradingConfig, files=[ours], overrides=["ppo.gamma=0.5"])
    with pytest.raises(ConfigError, match="cannot read"):
        load_trading(files=[tmp_path / "nowhere.yaml"])
    with pytest.raises(ConfigError, match="unknown key"):
        load_trading(files=[ours], overrides=["training.gamma=0.5"])


def test_values_may_refer_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "4096")
    path = tmp_path / "agents.yaml"
    path.write_text(
        "training:\n  phase_1_timesteps: ${oc.env:STEPS}\n  phase_2_timesteps: ${training.phase_1_timesteps}\n"
    )
    config = load_trading(files=[path])[0].config
    assert config.phase1.total_timesteps == config.phase2.total_timesteps == 4096
