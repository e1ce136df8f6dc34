"""Document 002's checkpoints: what is saved comes back, and a run goes on as if nobody had stopped it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from troupe.errors import ConfigError, DataError, StorageError
from troupe.stores.checkpoints import parameter_hash
from troupe.systems.trading.checkpointing import ModelCheckpointingSystem


def net(seed: int, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))


def team(seed: int) -> dict[str, nn.Module]:
    return {"meta": net(seed), "forex": net(seed + 100)}


def hashes(models: dict[str, nn.Module]) -> dict[str, str]:
    return {name: parameter_hash(model.state_dict()) for name, model in models.items()}


def saved(folder: Path, *sharpes: float, **options: Any) -> ModelCheckpointingSystem:
    system = ModelCheckpointingSystem(folder, **options)
    for step, sharpe in enumerate(sharpes):
        system.save_checkpoint(team(step), {"portfolio_sharpe": sharpe, "max_drawdown": 0.1 + 0.01 * step}, step)
    return system


def test_default_settings_save_and_load(tmp_path: Path):
    """In the public code they fail on save: the file is compressed away before the validator looks for it."""
    models = team(0)
    path = ModelCheckpointingSystem(tmp_path).save_checkpoint(models, {"portfolio_sharpe": 1.5}, 7)
    others = team(1)
    assert hashes(others) != hashes(models)
    found = ModelCheckpointingSystem(tmp_path).load_checkpoint(path, into=others)
    assert hashes(others) == hashes(models)
    assert (found.step, found.metrics, found.state) == (7, {"portfolio_sharpe": 1.5}, {})
    assert {name: parameter_hash(tensors) for name, tensors in found.tensors.items()} == hashes(models)


def test_nothing_stored_can_run_code(tmp_path: Path):
    path = saved(tmp_path, 1.0).save_checkpoint(team(0), {}, 1, state={"moments": {0: torch.ones(2)}})
    assert {file.suffix for file in path.rglob("*") if file.is_file()} == {".safetensors", ".json"}
    torch.save(team(0)["meta"].state_dict(), tmp_path / "old.pt")
    with pytest.raises(StorageError, match="pickles are never read"):
        saved(tmp_path).load_checkpoint(tmp_path / "old.pt")


def test_state_dicts_are_models_too(tmp_path: Path):
    models, system = team(3), ModelCheckpointingSystem(tmp_path)
    system.save_checkpoint({name: model.state_dict() for name, model in models.items()}, {}, 0)
    others = team(4)
    system.load_checkpoint(0, into={"forex": others["forex"]})
    assert hashes(others) == {"meta": hashes(team(4))["meta"], "forex": hashes(models)["forex"]}


# ---------------------------------------------------------------------------------------------- true resume


class Run:
    """Learning that depends on all that a run holds: moments, a schedule, two generators, an environment."""

    def __init__(self) -> None:
        self.models = team(0)
        parameters = [p for model in self.models.values() for p in model.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=0.05)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.noise, self.market = torch.Generator().manual_seed(1), np.random.default_rng(2)
        self.price, self.step = np.ones(2), 0

    def learn(self, steps: int) -> None:
        for _ in range(steps):
            self.price = self.price + self.market.normal(size=2)
            x = torch.randn(4, 2, generator=self.noise) + torch.as_tensor(self.price).float()
            loss: Tensor = sum(((model(x) - i) ** 2).mean() for i, model in enumerate(self.models.values()))  # type: ignore[assignment]
            self.optimizer.zero_grad()
            gradients = torch.autograd.grad(loss, self.optimizer.param_groups[0]["params"])
            for parameter, gradient in zip(self.optimizer.param_groups[0]["params"], gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()
            self.schedule.step()
            self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(), "step": self.step,
            "noise": self.noise.get_state(), "market": self.market.bit_generator.state, "price": self.price,
        }  # fmt: skip

    def load_state_dict(self, state: Any) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.noise.set_state(state["noise"])
        self.market.bit_generator.state = state["market"]
        self.price, self.step = state["price"], state["step"]


def test_resume_continues_to_the_same_weights(tmp_path: Path):
    """The public code stores weights alone: no optimiser, generator, environment or counter."""
    run, system = Run(), ModelCheckpointingSystem(tmp_path)
    run.learn(5)
    system.save_checkpoint(run.models, {"portfolio_sharpe": 0.1}, run.step, state=run.state_dict())
    run.learn(9)
    again = Run()
    again.load_state_dict(system.load_checkpoint(into=again.models).state)
    again.learn(9)
    assert again.step == run.step == 14 and hashes(again.models) == hashes(run.models)

    weights_only = Run()
    system.load_checkpoint(into=weights_only.models)
    weights_only.learn(9)
    assert hashes(weights_only.models) != hashes(run.models)  # so the test can fail


# ---------------------------------------------------------------------------------------------- which one


def test_latest_best_steps_and_paths(tmp_path: Path):
    system = saved(tmp_path, 0.5, 2.0, float("nan"), 1.0, keep_last=10)
    assert [system.load_checkpoint(which).step for which in ("latest", "best", 0)] == [3, 1, 0]
    assert system.load_checkpoint(tmp_path / "checkpoint_2").step == 2
    assert system.load_checkpoint(tmp_path / "best_model.pt").step == 1  # the documented name
    assert system.load_checkpoint(tmp_path).step == 3
    assert system.get_best_model().step == system.get_best_model("portfolio_sharpe").step == 1


def test_the_best_by_another_metric_and_in_the_other_direction(tmp_path: Path):
    system = saved(tmp_path, 0.5, 2.0, 1.0)
    assert system.get_best_model("max_drawdown").step == 2
    assert system.get_best_model("max_drawdown", mode="min").step == 0
    assert (
        ModelCheckpointingSystem(tmp_path, metric="max_drawdown", mode="min").get_best_model("max_drawdown").step == 0
    )
    assert system.get_best_model().step == 1


def test_the_newest_and_the_best_are_kept(tmp_path: Path):
    system = saved(tmp_path, 0.5, 2.0, 1.0, 0.9, 0.8, keep_last=2)
    assert system.store.steps() == [1, 3, 4]
    assert parameter_hash(system.get_best_model().tensors["meta"]) == hashes(team(1))["meta"]
    assert saved(tmp_path / "all", *range(12)).store.steps() == list(range(2, 12))


def test_a_step_saved_again_is_replaced(tmp_path: Path):
    system = saved(tmp_path, 0.5)
    system.save_checkpoint(team(9), {"portfolio_sharpe": 0.7}, 0)
    assert system.load_checkpoint().metrics["portfolio_sharpe"] == 0.7 and system.store.steps() == [0]


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (({}, {}, 0), "needs a model"),
        (({"meta": net(0)}, {}, -1), "whole number of 0 or more, found -1"),
        (({"meta": net(0)}, {}, 1.5), "found 1.5"),
        (({"meta": net(0)}, {"portfolio_sharpe": "high"}, 0), "must be numbers by name"),
        (({"meta": 3}, {}, 0), "model 'meta' is a int; give a module"),
        (({"meta": {"weights": [1, 2]}}, {}, 0), "'weights' of model 'meta' is a list"),
        (({"state": net(0)}, {}, 0), "'state' cannot name a group"),
        # The public pipeline died of a path in its results: "Object of type PosixPath is not JSON serializable".
        (
            ({"meta": net(0)}, {}, 0, {"phase1": {"model": Path("x")}}),
            "phase1.model is a PosixPath, which a checkpoint",
        ),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path: Path, arguments: tuple[Any, ...], what: str):
    system = saved(tmp_path, 1.0)
    with pytest.raises(DataError, match=what):
        system.save_checkpoint(*arguments)
    assert system.store.steps() == [0] and [path.name for path in tmp_path.iterdir() if path.is_dir()] == [
        "checkpoint_0"
    ]


def test_what_is_not_there(tmp_path: Path):
    empty = ModelCheckpointingSystem(tmp_path / "none")
    with pytest.raises(StorageError, match="holds no checkpoint"):
        empty.load_checkpoint()
    with pytest.raises(StorageError, match=r"no checkpoint in .* has a finite metric 'portfolio_sharpe'"):
        empty.get_best_model()
    system = saved(tmp_path, float("nan"))
    with pytest.raises(StorageError, match="finite metric 'portfolio_sharpe'"):
        system.load_checkpoint("best")
    with pytest.raises(StorageError, match=r"no checkpoint of step 5; it has \[0\]"):
        system.load_checkpoint(5)
    with pytest.raises(StorageError, match="does not exist"):
        system.load_checkpoint(tmp_path / "checkpoint_9")
    with pytest.raises(ConfigError, match="keep_last must be at least 1"):
        ModelCheckpointingSystem(tmp_path, keep_last=0)
    with pytest.raises(ConfigError, match="mode must be 'max' or 'min'"):
        system.get_best_model("portfolio_sharpe", mode="least")  # type: ignore[arg-type]


def test_a_torn_checkpoint_is_not_read(tmp_path: Path):
    system = saved(tmp_path, 1.0)
    file = tmp_path / "checkpoint_0" / "meta.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"meta\.safetensors"):
        system.load_checkpoint()


def test_modules_that_do_not_fit_stay_as_they_are(tmp_path: Path):
    system = saved(tmp_path, 1.0)
    models = {"meta": net(50), "forex": net(51, width=4)}
    before = copy.deepcopy(hashes(models))
    with pytest.raises(StorageError, match=r"'forex' .* does not fit: 0.bias is \[3\] there and \[4\] here"):
        system.load_checkpoint(into=models)
    with pytest.raises(StorageError, match=r"holds no model 'fores' \(did you mean 'forex'\?\)"):
        system.load_checkpoint(into={"meta": models["meta"], "fores": net(1)})
    with pytest.raises(StorageError, match=r"0.bias is \[3\] there and absent here"):
        system.load_checkpoint(into={"meta": nn.Tanh()} | {"forex": net(1)})
    assert hashes(models) == before
