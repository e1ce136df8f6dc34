"""`troupe train trading` and `troupe evaluate trading`: small runs, document 002's flags, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT
from troupe.cli import main, parse
from troupe.cli.trading import resolve_trading
from troupe.envs.market.config import MarketRules
from troupe.systems.trading.hierarchy_config import TradingConfig

TINY = """
market:
  features: [extra]
  simulation: {scenario: rotation, paths: 4, bars: 400}
  rules: {transaction_cost: 0.0, max_position_size: 1.0, warmup_steps: 10, episode_length: 30}
reward: {kind: mean_variance, aversion: 20}
net: {meta_hidden: [8], specialist_hidden: [16]}
ppo: {n_steps: 16, batch_size: 128, n_epochs: 4, learning_rate: 3e-3, gamma: 0.9, gae_lambda: 0.9}
phase1: {total_timesteps: 8192}
phase2: {total_timesteps: 512}
phase3: {total_timesteps: 512}
evaluation: {episodes: 12, paths: 2}
trainer: {n_envs: 32, save_freq: 100, processes: 1, logger: [jsonl]}
"""
"""Specialists that learn to trade a market without costs in a second, and a meta-controller that learns nothing."""

PRESETS = sorted(path.stem for path in (ROOT / "troupe" / "configs" / "trading").glob("*.yaml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def first(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first phase has ended, with an edge; tests work on copies."""
    folder = tmp_path_factory.mktemp("first") / "run"
    assert main(["train", "trading", "--config", str(tiny), "--output-dir", str(folder), "--phase", "1"]) == 0
    return folder


@pytest.fixture
def copied(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


def results(folder: Path, number: int) -> dict[str, Any]:
    return dict(json.loads((folder / f"phase{number}_results.json").read_bytes()))


# ---------------------------------------------------------------------------------------------- arguments


def test_documented_flags_are_keys(capsys: pytest.CaptureFixture) -> None:
    """The flags of document 002's scripts."""
    line = "--phase 2 --timesteps 300000 --output-dir models/checkpoints --log-dir logs --device cpu seed=3"
    assert main(["train", "trading", *line.split(), "--print-config"]) == 0
    shown = capsys.readouterr().out
    for said in (
        "override 'phase2.total_timesteps=300000'", "override 'trainer.output_dir=\"models/checkpoints\"'",
        "override 'trainer.log_dir=logs'", "override 'trainer.device=cpu'", "override 'seed=3'",
    ):  # fmt: skip
        assert said in shown


@pytest.mark.parametrize("folder", ["my runs/1,2", "{a}", "null", "x=y", 'say "hi"'])
def test_any_folder_can_be_named(folder: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "trading", "--output-dir", folder, "--print-config"]) == 0
    assert f"output_dir: {json.dumps(folder)}" in capsys.readouterr().out


def test_words_of_the_command_line() -> None:
    train = parse(["train", "trading", "seed=1", "--phase", "3", "ppo.gamma=0.9"])
    assert train.command == ("troupe.cli.trading", "train_trading")
    assert train.phase == 3 and train.overrides == ["seed=1", "ppo.gamma=0.9"] and not train.resume
    evaluate = parse(["evaluate", "trading", "--episodes", "200"])
    assert evaluate.command == ("troupe.cli.trading", "evaluate_trading") and evaluate.episodes == 200
    assert (evaluate.run, evaluate.stretch) == ("runs/trading", "test")
    assert parse(["evaluate", "--checkpoint", "trading"]).command == ("troupe.cli.evaluate", "evaluate")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str) -> None:
    config = resolve_trading(name, [], [])[0].config
    assert config.trainer.output_dir == f"runs/trading_{name}"
    assert main(["train", "trading", "--preset", name, "--print-config"]) == 0


def test_the_presets_are_those_that_the_help_names(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["train", "trading", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said.partition("named preset")[2].partition(")")[0] for name in PRESETS)


def test_the_documented_preset_is_what_the_document_says() -> None:
    config = resolve_trading("documented", [], [])[0].config
    phases = (config.phase1, config.phase2, config.phase3)
    assert [phase.total_timesteps for phase in phases] == [500_000, 300_000, 1_000_000]
    assert (config.phase3.meta_update_freq, config.phase3.specialist_update_freq) == (1, 5)
    ppo = config.ppo
    assert (ppo.learning_rate, ppo.batch_size, ppo.n_epochs, ppo.gamma, ppo.gae_lambda, ppo.clip_range) == (
        3e-4, 256, 10, 0.99, 0.95, 0.2,
    )  # fmt: skip
    assert config.trainer.n_envs == 8 and config.reward.kind == "portfolio"
    assert config.market.rules == MarketRules(
        episode_length=1000, warmup_steps=50, initial_capital=100_000.0, transaction_cost=0.003, max_position_size=0.1,
        stop_loss_pct=0.02, max_portfolio_var=0.02, max_correlation_exposure=0.7, max_sector_allocation=0.4,
    )  # fmt: skip
    tenth = resolve_trading("tenth", [], [])[0].config
    for phase, small in zip(phases, (tenth.phase1, tenth.phase2, tenth.phase3), strict=True):
        assert small.total_timesteps == phase.total_timesteps // 10
    assert (tenth.market.rules, tenth.reward) == (config.market.rules, config.reward)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--timesteps 5", "--timesteps 5 belongs to one phase: write --phase N, too, or phase1.total_timesteps=5"),
        ("--phase 2 --timesteps 0", "phase2.total_timesteps: must be >= 1, found 0"),
        ("--phase 1 --timesteps 5 phase1.total_timesteps=6", "both set phase1.total_timesteps; keep one"),
        ("--output-dir a ++trainer.output_dir=b", "--output-dir a and ++trainer.output_dir=b both set"),
        ("--resume", "--resume: RUN holds no run to continue; leave it out, or name the run's --output-dir"),
        ("--phase 2", "phase 1 has not ended in RUN; run it first: troupe train trading --phase 1"),
        ("--phase 3", "phase 1 has not ended in RUN"),
        ("--device cuda", "there is no CUDA GPU here; write auto or cpu"),
        ("--preset rotatoin", "--preset 'rotatoin' is not known (did you mean 'rotation'?)"),
        ("phase1.total_timestep=3", "unknown key (did you mean 'total_timesteps'?)"),
        ("evaluation.test=0.3", "is for market.data.files; of simulated markets write evaluation.paths"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "run"
    given = words.split()
    place = [] if "--output-dir" in given else ["--output-dir", str(folder)]
    assert main(["train", "trading", "--config", str(tiny), *place, *given]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ") and len(complaint.splitlines()) == 1
    assert said.replace("RUN", str(folder)) in complaint and not folder.exists()


# ---------------------------------------------------------------------------------------------- runs


def test_phases_one_by_one(copied: Path, tiny: Path, capsys: pytest.CaptureFixture) -> None:
    """Exit codes tell whether the last phase that ran improved; the page and the record are written anew each time."""
    assert (copied / "report.html").exists() and (copied / "evaluation.json").exists()
    before = results(copied, 1)
    assert before["improved"]
    words = ["train", "trading", "--config", str(tiny), "--output-dir", str(copied)]
    assert main([*words, "--phase", "3"]) == 2
    assert f"phase 2 has not ended in {copied}" in capsys.readouterr().err
    code = main([*words, "--phase", "2", "--resume"])
    second = results(copied, 2)
    said = capsys.readouterr().out
    assert code == (0 if second["gate"]["promote"] else 3)
    assert "100 % of 512 steps" in said and "equal allocation, and what phase 1" in said
    assert f"{second['gate']['difference']['mean']:+.2f}" in said
    code = main(words)  # what is left
    third, said = results(copied, 3), capsys.readouterr().out
    assert code == (0 if third["gate"]["promote"] else 3)
    assert "phase 3" in said and "phase 1 forex" not in said and results(copied, 1) == before
    record = json.loads((copied / "evaluation.json").read_bytes())
    assert record["commands"] == [" ".join(["troupe", *words])]


def test_what_a_run_says(copied: Path, tiny: Path, capsys: pytest.CaptureFixture) -> None:
    """Nothing is left to learn: gates, document 002's targets, what is traded, and whether there is an edge."""
    assert main(["train", "trading", "--config", str(tiny), "--output-dir", str(copied), "--phase", "1"]) == 0
    said = capsys.readouterr().out
    for name, found in results(copied, 1)["specialists"].items():
        (line,) = [line for line in said.splitlines() if f" {name} " in line]
        gap = found["gate"]["difference"]
        assert f"{gap['mean']:+.2f}" in line and f"[{gap['low']:+.2f}, {gap['high']:+.2f}]" in line
        assert ("did not improve" in line) != found["gate"]["promote"]
    assert "the specialists with an edge of their own, equally allocated (phase 1)" in said
    summary = json.loads((copied / "training_summary.json").read_bytes())
    (sharpe,) = [line for line in said.splitlines() if "sharpe" in line]
    assert f"{summary['test']['sharpe']['mean']:+.2f}" in sharpe
    assert all(target in sharpe for target in ("> 1.5", "> 1.8", "> 2.0"))
    edge = summary["edge"]
    assert f"test: {'an edge' if edge['significant'] else 'no edge'} at alpha 0.01 (p = {edge['p']:.2g}" in said
    assert "CPU-seconds" in said and f"tear sheet: {copied / 'report.html'}" in said


def test_a_run_goes_on_with_the_budget_that_it_began_with(
    copied: Path, tiny: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["train", "trading", "--config", str(tiny), "--output-dir", str(copied), "--resume"]
    assert main([*words, "--phase", "1", "--timesteps", "16384"]) == 2
    assert "phase 1 was begun with 8,192 steps, and phase1.total_timesteps=16,384" in capsys.readouterr().err
    assert main([*words, "trainer.resume=never"]) == 2
    assert "--resume and trainer.resume=never contradict each other" in capsys.readouterr().err
    assert main([*words[:-1], "trainer.resume=never"]) == 2
    assert "holds a run; write trainer.resume=auto" in capsys.readouterr().err
    assert main([*words, "ppo.gamma=0.5"]) == 2
    assert "was begun with ppo.gamma=0.9, this run has 0.5" in capsys.readouterr().err


def test_the_documents_config_trains(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture) -> None:
    """In its own keys, on a market of ours; messages are logged as it asks for."""
    theirs = tmp_path / "agents.yaml"
    theirs.write_text(
        "meta_controller: {state_dim: 74, hidden_dim: 8, hidden_dim_2: 8, dropout: 0.2, learning_rate: 0.001}\n"
        "training: {phase_1_timesteps: 128, phase_2_timesteps: 128, phase_3_timesteps: 512, n_envs: 8,"
        " batch_size: 64}\n"
        "reward: {risk_penalty_weight: 1.0, sharpe_target: 2.0, max_drawdown_target: 0.15}\n"
        "communication: {log_all_messages: true}\n"
    )
    ours = tmp_path / "market.yaml"
    ours.write_text(
        TINY.partition("reward:")[0] + "ppo: {n_steps: 8, n_epochs: 1}\nevaluation: {episodes: 10, paths: 2}\n"
    )
    folder = tmp_path / "run"
    words = ["--config", str(ours), "--config", str(theirs), "--output-dir", str(folder), "trainer.processes=1"]
    assert main(["train", "trading", *words, "trainer.logger=[jsonl]"]) in (0, 3)
    said = capsys.readouterr().out
    assert "meta_controller.dropout is not read: PPO compares" in said
    assert json.loads((folder / "config.json").read_bytes())["reward"]["kind"] == "portfolio"
    lines = [json.loads(line) for line in (folder / "messages.jsonl").read_text().splitlines()]
    assert lines and "AllocationMessage" in json.dumps(lines[0])
    assert set(results(folder, 3)["parameter_hashes"]) == {"meta", "forex", "commodities", "equity"}


# ---------------------------------------------------------------------------------------------- evaluation


def test_an_evaluation_measures_what_is_traded(copied: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """The folder may have moved since. All test episodes of the run give the run's own numbers."""
    report = tmp_path / "report.json"
    assert main(["evaluate", "trading", "--run", str(copied), "--json", str(report)]) == 0
    said, found = capsys.readouterr().out, json.loads(report.read_bytes())
    summary = json.loads((copied / "training_summary.json").read_bytes())
    assert found["metrics"] == summary["test"] and found["phase"] == 1 and found["edge"] == summary["edge"]
    assert found["messages"]["by_type"]["AllocationMessage"] >= 3
    for question in (
        "allocation efficiency", "risk compliance", "specialist utilization", "coordination quality", "robustness",
    ):  # fmt: skip
        assert question in said
    shares = found["metrics"]["specialist_utilization"]["share"]
    improved = results(copied, 1)["improved"]
    for sector, share in shares.items():
        assert f"share of {sector}" in said and share["mean"] == pytest.approx(1 / 3 if sector in improved else 0.0)


def test_an_evaluation_of_fewer_or_other_episodes(copied: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ["evaluate", "trading", "--run", str(copied), "--json", str(report)]
    assert main([*words, "--episodes", "5", "--stretch", "validation"]) == 0
    found, said = json.loads(report.read_bytes()), capsys.readouterr().out
    assert found["metrics"]["episodes"] == 5 and "Validation, 5 episodes" in said and "validation: " in said
    assert main([*words, "--episodes", "1000"]) == 0
    assert "24 episodes fit into the test stretch without overlap" in capsys.readouterr().out  # 2 paths of 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--run nowhere", "nowhere holds no run of `troupe train trading`; name the folder of one"),
        ("--run RUN --episodes 1", "--episodes 1 must be at least 2"),
        ("--run RUN --json RUN/no/such/report.json", "no/such"),
    ],
)
def test_an_evaluation_of_nothing(copied: Path, capsys: pytest.CaptureFixture, words: str, said: str) -> None:
    assert main(["evaluate", "trading", *words.replace("RUN", str(copied)).split()]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint and complaint.startswith("error: ") and len(complaint.splitlines()) == 1


def test_an_evaluation_of_another_systems_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.json").write_text('{"seed": 1, "folds": {"count": 2}, "workflow": {}}')
    assert main(["evaluate", "trading", "--run", str(tmp_path)]) == 2
    complaint = capsys.readouterr().err
    assert "is no config of `troupe train trading`" in complaint and len(complaint.splitlines()) == 1


def test_an_evaluation_before_phase_1_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = TradingConfig().model_dump(mode="json")
    config["market"]["simulation"] |= {"paths": 2, "bars": 1200}
    config["evaluation"]["paths"] = 12
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", "trading", "--run", str(tmp_path)]) == 2
    assert f"phase 1 has not ended in {tmp_path}; run it first" in capsys.readouterr().err


def test_a_tenth_of_the_documents_budgets(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The preset as it is, in under a minute on two cores: its time is what CPU it takes, phase 1 in two processes."""
    began = os.times()
    code = main(["train", "trading", "--preset", "tenth", "--output-dir", str(tmp_path / "run"), "trainer.processes=2"])
    ended = os.times()
    own, children = (sum(ended[a:b]) - sum(began[a:b]) for a, b in ((0, 2), (2, 4)))
    found = [results(tmp_path / "run", number) for number in (1, 2, 3)]
    assert code == (0 if found[2]["gate"]["promote"] else 3)
    assert found[0]["timesteps_each"] == 50_000 and found[1]["timesteps"] == 30_000 and found[2]["timesteps"] == 100_000
    assert (tmp_path / "run" / "report.html").exists() and "tear sheet" in capsys.readouterr().out
    assert own + children / 2 < 120  # CPU-seconds; 60 on a machine that has nothing else to do
