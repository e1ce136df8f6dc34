"""The command `troupe`: how fast it answers, what it prints, what it writes."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.letters import Letters
from tests.runs import ROOT, TINY, Launcher, finished_well, letters, lines_of, overrides, weights
from troupe.cli.train import preset_path, resolve_config
from troupe.config import leaf_paths
from troupe.errors import ConfigError
from troupe.maths.statistics import pass_at_k
from troupe.stores.checkpoints import CheckpointStore
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.workflows import WORKFLOWS


def python(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A process of its own and its CPU-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def printed(launch: Launcher, *arguments: Any) -> dict[str, tuple[str, str]]:
    """`troupe train workflow --print-config ...` as {dotted key: (value, origin)}."""
    out = finished_well(launch(["train", "workflow", "--print-config", *arguments])).out
    found: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in out.rstrip().splitlines():
        parts = re.fullmatch(r"( *)\"?(\w+)\"?: *(.*?)(?: +# (.*))?", line)
        assert parts is not None, line
        indent, key, value, origin = parts.groups()
        path = [*path[: len(indent) // 2], key]
        if origin is not None:
            found[".".join(path)] = (value, origin)
    return found


# ---------------------------------------------------------------------------------------------- before anything runs


@pytest.mark.parametrize("line", ["--help", "train workflow --print-config", "train workflow seeed=1"])
def test_it_answers_at_once(line: str) -> None:
    """In less than 0.4 CPU-seconds, best of five, and without torch or transformers.

    CPU-seconds grow where other processes share a core, so a bare pydantic model is measured at the same moments: 0.4
    is 1.9 times what it takes on a quiet machine, and so the limit everywhere. A busy machine gets ten more tries.
    """
    arguments = line.split()
    best = bare = float("inf")
    for tries in range(15):
        if tries >= 5 and best < max(0.4, 1.9 * bare):
            break
        bare = min(bare, python("-c", "import pydantic\nclass A(pydantic.BaseModel): x: int = 0")[1])
        best = min(best, python("-m", "troupe", *arguments)[1])
    assert best < max(0.4, 1.9 * bare)
    spy = "import sys; from troupe.cli import main\ntry: code = main()\nexcept SystemExit as e: code = e.code\n"
    done, _ = python("-c", f"{spy}print(code, *{{'torch', 'transformers', 'rich'}} & set(sys.modules))", *arguments)
    assert done.stdout.splitlines()[-1] == ("2" if "seeed=1" in line else "0"), done.stderr


def test_help_names_every_command() -> None:
    done, _ = python("-m", "troupe", "--help")
    assert done.returncode == 0
    for command in ("demo", "train", "evaluate", "ask", "export", "data"):
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)


def test_print_config_shows_every_key_with_its_origin(launch: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  train_size: 77\n")
    shown = printed(launch, "--config", file, "optim.lr=2e-5")
    assert set(shown) == {leaf.partition(".*")[0] for leaf in leaf_paths(WorkflowRLConfig)}  # an empty dict is shown
    assert shown["seed"] == ("0", "default")
    assert shown["algorithm.adv_estimator"][0] == "gae" and shown["algorithm.adv_estimator"][1].startswith("preset")
    assert shown["data.train_size"] == ("77", f"{file}:2")
    assert float(shown["optim.lr"][0]) == 2e-5 and shown["optim.lr"][1] == "override 'optim.lr=2e-5'"


def test_overrides_stand_anywhere(launch: Launcher) -> None:
    shown = printed(launch, "workflow=math_solo", "--preset", "demo", "seed=3", "--config", os.devnull, "seed=4")
    assert shown["workflow.name"][0] == "math_solo" and shown["seed"][0] == "4"
    refused = launch(["train", "workflow", "seed=1", "--preset", "demo", "seed=2", "--fast"])
    assert refused.code == 2 and "unrecognized arguments" in refused.err and "--fast" in refused.err


@pytest.mark.parametrize("preset", sorted(path.stem for path in preset_path("demo").parent.glob("*.yaml")))
def test_a_length_that_would_have_no_effect_is_an_error(preset: str) -> None:
    if resolve_config(preset, [], []).config.trainer.total_steps is None:
        return
    with pytest.raises(ConfigError, match="total_steps=null"):
        resolve_config(preset, [], ["trainer.total_epochs=2"])
    assert resolve_config(preset, [], ["trainer.total_epochs=2", "trainer.total_steps=null"]).config


@pytest.mark.parametrize("preset", sorted(path.stem for path in preset_path("demo").parent.glob("*.yaml")))
def test_presets_are_valid(preset: str) -> None:
    name = preset if preset in WORKFLOWS else "math_tool"
    assert resolve_config(preset, [], []).config.workflow.name == name
    assert resolve_config("demo", [], [f"workflow={name}"]).config.workflow.name == name


def test_documented_spellings_take_effect(launch: Launcher) -> None:
    """Document 004's command line."""
    shown = printed(
        launch, "actor_rollout_ref.actor.optim.lr=3e-5", "data.train_batch_size=16", "trainer.total_epochs=10",
        "trainer.save_freq=1000", "actor_rollout_ref.rollout.n=4", "actor_rollout_ref.model.path=some/model",
        "actor_rollout_ref.rollout.temperature=0.7", "critic.optim.lr=3e-4", "workflow.n_parallel_agents=12",
        "actor_rollout_ref.model.enable_gradient_checkpointing=true",
    )  # fmt: skip
    expected = {
        "optim.lr": 3e-5, "data.train_batch_size": 16, "trainer.total_epochs": 10, "trainer.save_freq": 1000,
        "rollout.n": 4, "rollout.temperature": 0.7, "critic.lr": 3e-4, "workflow.n_parallel_tasks": 12,
    }  # fmt: skip
    assert {key: float(shown[key][0]) for key in expected} == expected
    assert shown["model.path"][0] == "some/model" and shown["model.gradient_checkpointing"][0] == "true"
    assert all(
        shown[key][1].startswith("override") for key in [*expected, "model.path", "model.gradient_checkpointing"]
    )


def test_documented_spellings_reach_the_run(launch: Launcher, tmp_path: Path) -> None:
    """Ten epochs of four tasks in batches of two are twenty updates; only the start and the end are saved."""
    values = TINY | {
        "trainer.default_local_dir": tmp_path, "workflow.name": "letters", "data.train_size": 4, "sft.steps": 0,
        "trainer.total_steps": "null", "trainer.test_freq": 0,
    }  # fmt: skip
    for key in ("optim.lr", "rollout.n"):
        del values[key]
    documented = [
        "actor_rollout_ref.actor.optim.lr=1e-5", "actor_rollout_ref.rollout.n=2", "data.train_batch_size=2",
        "trainer.total_epochs=10", "trainer.save_freq=1000",
    ]  # fmt: skip
    given = [f"{k}={v}" for k, v in values.items() if k not in ("data.train_batch_size", "trainer.save_freq")]
    finished_well(launch(["train", "workflow", *given, *documented]))
    updates = lines_of(tmp_path / "metrics.jsonl")[1:]
    assert len(updates) == 20 and {row["actor/lr/team"] for row in updates} == {1e-5}
    assert CheckpointStore(tmp_path).steps() == [0, 20]
    assert len(lines_of(tmp_path / "episodes.jsonl")) == 20 * 2 * 2


def test_a_dry_run_shows_the_team_and_leaves_nothing(launch: Launcher, tmp_path: Path) -> None:
    """Credit with a sentence for each agent, the first conversation with what is trained on, memory."""
    out = finished_well(launch([*letters(tmp_path / "run", sft__steps=0), "--dry-run"])).out
    for agent, sentence in Letters.credit.items():
        assert agent in out and all(word in out for word in sentence.split()), agent
    assert "training and " in out and "trained parameters" in out
    told = re.findall(r"(\d+) of (\d+) tokens are trained on", out)
    assert told and all(0 < int(some) < int(whole) for some, whole in told)
    assert out.count("⟦") == out.count("⟧") > 0
    assert re.search(r"Estimated memory(.|\n)*weights(.|\n)*all +│ +[\d.,]+", out), out
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------- training


def test_training_shows_the_credit_table_and_the_scores(launch: Launcher, tmp_path: Path) -> None:
    ended = finished_well(launch(letters(tmp_path / "run", sft__steps=2)))
    assert all("of the attempts were cut off" in line for line in ended.err.splitlines())  # eight tokens are few
    assert re.search(r"writer .* team .* yes .* share of letters .* by_agent .* grpo", ended.out)
    assert "supervised fine-tuning 2/2" in ended.out and "reinforcement learning 4/4" in ended.out
    assert [re.search(rf"after update {update}: [\d.]+ %", ended.out) is not None for update in (0, 2, 4)] == [True] * 3
    assert re.search(r"│ 4 +│ [\d.]+ % \[[\d.]+, [\d.]+\]", ended.out)
    assert f"run folder: {tmp_path / 'run'}" in ended.out and len(weights(ended)) == 16


def test_a_prepared_data_set_end_to_end(launch: Launcher, tmp_path: Path) -> None:
    """`troupe data prepare`, then training on it, then evaluation on what it held out, and on generated problems."""
    lines = [
        json.dumps(
            {"question": f"Ann has {i} pens and buys 2. How many?", "answer": f"{i}+2=<<{i}+2={i + 2}>>\n#### {i + 2}"}
        )
        for i in range(30)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    ended = finished_well(launch(["data", "prepare", "gsm8k", "--from", tmp_path, "--root", tmp_path / "data"]))
    assert re.search(r"train: 27\n +held_out: 3\n", ended.out) and "data.train=gsm8k" in ended.out
    changed = {"data__train": "gsm8k", "data__root": tmp_path / "data", "trainer__total_steps": 1}
    finished_well(launch(["train", "workflow", *overrides(tmp_path / "run", **changed)]))
    for options, tasks in ((["-n", "1"], 3), (["-n", "1", "--data", "math", "--size", "5"], 5)):
        report = tmp_path / "report.json"
        finished_well(launch(["evaluate", "--checkpoint", tmp_path / "run", *options, "--json", report]))
        assert len(json.loads(report.read_text())["scores"]) == tasks


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA names no folder of public data")
def test_the_published_gsm8k(launch: Launcher, tmp_path: Path) -> None:
    source = Path(os.environ["TROUPE_DATA"]) / "gsm8k"
    out = finished_well(launch(["data", "prepare", "gsm8k", "--from", source, "--root", tmp_path])).out
    assert re.search(r"rows: 7473\n +calls: 7376\n", out) and re.search(r"held_out: 747\n", out)


# ---------------------------------------------------------------------------------------------- a trained team


def test_evaluate(launch: Launcher, reference: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = ["evaluate", "--checkpoint", reference, "-n", "4"]
    ended = finished_well(launch([*command, "--json", report]))
    assert finished_well(launch(command)).out == ended.out
    scores = json.loads(report.read_text())["scores"]
    assert len(scores) == 8 and {score["attempts"] for score in scores} == {4}
    row = re.search(r"│ all +│ 8 │(.*)│", ended.out)
    assert row is not None
    cells = [re.fullmatch(r"([\d.]+) % \[([-\d.]+), ([\d.]+)\]", cell.strip()) for cell in row[1].split("│")]
    *passes, votes = cells
    for k, cell in zip((1, 2, 4), passes, strict=True):
        assert cell is not None
        mean, low, high = map(float, cell.groups())
        expected = sum(pass_at_k(4, score["successes"], k) for score in scores) / 8
        assert mean == pytest.approx(100 * expected, abs=0.051) and low <= mean <= high
    assert votes is not None and float(votes[1]) == 100 * sum(score["majority"] for score in scores) / 8
    assert 0 < sum(score["successes"] for score in scores) < 32
    assert "linear" in ended.out and "word" in ended.out and "episode/outcome/success" in ended.out
    assert finished_well(launch([*command, "--seed", "5"])).out != ended.out


def test_evaluate_an_earlier_checkpoint(launch: Launcher, reference: Path) -> None:
    for name, step in (("checkpoint_3", 3), ("", 4)):
        out = finished_well(launch(["evaluate", "--checkpoint", reference / name, "-n", "1", "--size", "3"])).out
        assert f"checkpoint_{step}onmath" in "".join(out.split()) and re.search(r"│ all +│ 3 ", out)  # a title may wrap


def test_another_teams_checkpoint_is_refused(launch: Launcher, finished: Path) -> None:
    for command in (["evaluate", "--checkpoint", finished], ["ask", finished, "3x + 5 = 20"]):
        refused = launch([*command, "--workflow", "search"])
        assert refused.code == 2 and "workflow 'math_tool', not 'search'" in " ".join(refused.err.split())
    finished_well(launch(["ask", finished, "3x + 5 = 20", "--workflow", "math_tool"]))


def test_ask_shows_the_turns_and_an_answer(launch: Launcher, finished: Path) -> None:
    ended = finished_well(launch(["ask", finished, "3x + 5 = 20"]))
    assert ended.err == ""
    assert "analyzer" in ended.out and "user: 3x + 5 = 20" in ended.out
    assert re.search(r"^answer: .+ \((not )?accepted by the verifier\)$", ended.out, re.MULTILINE)
    assert finished_well(launch(["ask", finished, "3x + 5 = 20"])).out == ended.out
    warm = [launch(["ask", finished, "3x + 5 = 20", "--temperature", "1", "--seed", seed]).out for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]


def test_export(launch: Launcher, finished: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert finished_well(launch(["export", finished, tmp_path / "out"])).out == f"{tmp_path / 'out' / 'team'}\n"
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "team")
    stored = CheckpointStore(finished).load().tensors["policy_team"]
    assert all(bool((stored[name] == tensor).all()) for name, tensor in network.named_parameters())
    assert json.loads((tmp_path / "out" / "agents.json").read_text()) == dict.fromkeys(
        ("analyzer", "executor", "verifier"), "team"
    )
