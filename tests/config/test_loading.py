"""`load` from end to end: layers, origins, and one error for everything that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from troupe.config import Frozen, load
from troupe.errors import ConfigError


class Optim(Frozen):
    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    kind: Literal["adamw", "sgd"] = "adamw"


class Agent(Frozen):
    policy: str
    turns: int = Field(default=1, ge=1)


class Data(Frozen):
    path: Path
    train_batch_size: int = 8


class Config(Frozen):
    seed: int = 0
    data: Data
    optim: Optim = Optim(lr=3e-4)
    critic: Optim | None = None
    agents: dict[str, Agent] = {"solver": Agent(policy="base")}  # noqa: RUF012  # pydantic copies it
    tags: list[str] = []  # noqa: RUF012


def written(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(model: type[Frozen] = Config, **sources: object) -> list[str]:
    """The lines of the error that loading raises."""
    with pytest.raises(ConfigError) as caught:
        load(model, **sources)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


def test_frozen_sections_refuse_changes_unknown_keys_and_bad_defaults() -> None:
    class Wrong(Frozen):
        steps: int = "many"  # type: ignore[assignment]

    assert Optim.model_fields["lr"].description == "Peak learning rate."
    with pytest.raises(ValidationError, match="frozen"):
        Optim().lr = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Optim(rate=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="int_parsing"):
        Wrong()


def test_each_layer_lies_above_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "seed: 1\ndata:\n  path: a\n  train_batch_size: 1\noptim: {lr: 1}\n", "demo.yaml")
    written(tmp_path, "seed: 2\ndata: {train_batch_size: 2}\n")
    resolved = load(Config, preset=tmp_path / "demo.yaml", files=["my.yaml"], overrides=["seed=3"])
    assert (resolved.config.seed, resolved.config.data.train_batch_size) == (3, 2)
    assert resolved.origins["seed"] == "override 'seed=3'"
    assert resolved.origins["data.train_batch_size"] == "my.yaml:2"
    assert resolved.origins["data.path"] == "preset demo.yaml:3"
    assert resolved.origins["optim.kind"] == "default"


def test_a_preset_may_be_a_mapping() -> None:
    resolved = load(Config, preset={"data": {"path": "a"}})
    assert resolved.config.data.path == Path("a")
    assert resolved.origins["data.path"] == "preset"


def test_a_default_instance_keeps_the_values_that_a_layer_does_not_mention() -> None:
    config = load(Config, overrides=["data.path=a", "optim.kind=sgd", "agents.solver.turns=4"]).config
    assert config.optim == Optim(lr=3e-4, kind="sgd")
    assert config.agents == {"solver": Agent(policy="base", turns=4)}


def test_a_key_below_an_absent_section_builds_the_section() -> None:
    assert load(Config, overrides=["data.path=a", "critic.lr=1"]).config.critic == Optim(lr=1)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(
        tmp_path,
        "seed: yes\ndata:\n  path: a\n  train_batch_siez: 4\noptim:\n  lr: -1\n  kind: adam\n"
        "agents:\n  solver: {turns: 0}\n  judge: {}\n",
    )
    assert problems(files=["my.yaml"], overrides=["critic.lr=abc", "tags=1,2", "lr=1"]) == [
        "override 'lr=1': lr: unknown key (did you mean 'optim.lr' or 'critic.lr'?)",
        "my.yaml:1: seed: expected an integer, found 'yes'",
        "my.yaml:4: data.train_batch_siez: unknown key (did you mean 'train_batch_size'?)",
        "my.yaml:6: optim.lr: must be > 0, found -1",
        "my.yaml:7: optim.kind: expected one of 'adamw', 'sgd', found 'adam' (did you mean 'adamw'?)",
        "override 'critic.lr=abc': critic.lr: expected a number, found 'abc'",
        "my.yaml:9: agents.solver.turns: must be >= 1, found 0",
        "my.yaml:10: agents.judge.policy: is required; give it a value in a file, or write agents.judge.policy=VALUE",
        "override 'tags=1,2': a comma makes it a sweep, and a run takes one value; write [1,2] for a list, "
        "or quotes around a text with commas",
    ]


def test_a_missing_section_names_its_required_keys() -> None:
    assert problems() == ["data.path: is required; give it a value in a file, or write data.path=VALUE"]


def test_a_file_that_cannot_be_read_hides_what_it_may_have_given_but_nothing_else() -> None:
    assert problems(files=["nowhere.yaml"], overrides=["optim.lr=0"]) == [
        "nowhere.yaml: cannot read nowhere.yaml (No such file or directory); write the path of a YAML file",
        "override 'optim.lr=0': optim.lr: must be > 0, found 0",
    ]


def test_a_rule_between_keys_names_the_section() -> None:
    class Schedule(Frozen):
        warmup: int = 0
        total: int = 10

        @model_validator(mode="after")
        def _fits(self) -> Schedule:
            if self.warmup > self.total:
                raise ValueError("warmup must not be longer than total")
            return self

    class Run(Frozen):
        schedule: Schedule = Schedule()

    assert problems(Run, overrides=["schedule.warmup=20"]) == [
        "override 'schedule.warmup=20': schedule: warmup must not be longer than total"
    ]
    assert problems(Schedule, overrides=["warmup=20"]) == ["config: warmup must not be longer than total"]


@pytest.mark.parametrize("heavy", ["torch", "transformers", "omegaconf", "numpy", "rich"])
def test_loading_imports_nothing_heavy(heavy: str, tmp_path: Path) -> None:
    path = written(tmp_path, "lr: 1e-3\n")
    program = (
        "import sys\nfrom troupe.config import Frozen, load\n"
        "class C(Frozen):\n    lr: float = 1.0\n"
        f"load(C, files=[{str(path)!r}], overrides=['lr=2'])\n"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_loading_costs_little_beside_pydantic(tmp_path: Path) -> None:
    """Sixty keys, a file, two errors: at most 0.2 CPU-seconds above the bare imports of pydantic and PyYAML."""
    path = written(tmp_path, "".join(f"s{i}:\n  a: [1]\n  j: 2\n" for i in range(6)))
    section = "class S(Frozen):\n" + "".join(f"    {name}: float = 1.0\n" for name in "abcdefghij")
    ours = (
        f"from troupe.config import Frozen, load\nfrom troupe.errors import ConfigError\n{section}"
        f"class C(Frozen):\n{''.join(f'    s{i}: S = S()' + chr(10) for i in range(6))}"
        f"try:\n    load(C, files=[{str(path)!r}], overrides=['s0.b=x', 'q=1'])\n"
        "except ConfigError as error:\n    assert str(error).count(chr(10)) == 7, str(error)\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    bare = "import yaml\nfrom pydantic import BaseModel\nclass C(BaseModel):\n    a: int = 1\n"
    assert cpu_seconds(ours) - cpu_seconds(bare) < 0.2


def cpu_seconds(program: str, tries: int = 3) -> float:
    """Least CPU time of a fresh process, start of Python included."""
    timed = program + "import time\nprint(time.process_time())"
    runs = [
        subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True) for _ in range(tries)
    ]
    return min(float(run.stdout) for run in runs)
