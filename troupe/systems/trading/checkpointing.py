"""Checkpoints of a team of networks under document 002's names, in the one format of `troupe.stores.checkpoints`.

    checkpoints = ModelCheckpointingSystem("runs/trading/checkpoints")
    checkpoints.save_checkpoint({"meta": meta, "forex": forex}, {"portfolio_sharpe": 0.8}, step, state=run.state_dict())
    found = checkpoints.load_checkpoint("latest", into={"meta": meta, "forex": forex})
    run.load_state_dict(found.state)

Weights alone continue nothing: `state` takes the optimisers, generators, environments and counters too, and gives them
back as they were. Nothing that is read runs code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from troupe.errors import ConfigError, DataError, StorageError, did_you_mean
from troupe.stores.checkpoints import Checkpoint, CheckpointStore

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ModelCheckpointingSystem"]


class ModelCheckpointingSystem:
    """The checkpoints in `folder`: the newest `keep_last`, and the best by `metric` (`mode` "max" or "min")."""

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_last: int = 10,
        metric: str = "portfolio_sharpe",
        mode: Literal["max", "min"] = "max",
    ) -> None:
        try:
            self.store = CheckpointStore(folder, keep_last=keep_last, metric=metric, mode=mode)
        except ValueError as error:
            raise ConfigError(f"checkpoints in {folder}: {error}") from error

    def save_checkpoint(
        self,
        models: Mapping[str, nn.Module | Mapping[str, Tensor]],
        metrics: Mapping[str, float],
        step: int,
        state: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes modules, or their state_dicts, by name; a step saved again is replaced. Returns the folder.

        The metrics decide what is the best; a save without the system's metric is never it. `state` may hold dicts,
        lists, tuples, numbers, strings, None, tensors and arrays. Raises DataError for what cannot be stored,
        StorageError for a disk that is full or read-only.
        """
        if not models:
            raise DataError("a checkpoint needs a model; give {'meta': module} or the like")
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise DataError(f"a checkpoint's step must be a whole number of 0 or more, found {step!r}")
        tensors = {name: _tensors(name, model) for name, model in models.items()}
        return self.store.save(step, tensors, {} if state is None else state, _numbers(metrics))

    def load_checkpoint(
        self, checkpoint_path: str | int | Path = "latest", *, into: Mapping[str, nn.Module] | None = None
    ) -> Checkpoint:
        """Reads and verifies "latest", "best", a step, or a path (`.../best_model.pt` is the best beside it).

        Modules in `into` get the stored weights: of all of them, or, where one does not fit, of none. Raises
        StorageError for a checkpoint that is absent, torn, or of other models.
        """
        found = self.store.load(checkpoint_path)
        for name, module in (into or {}).items():
            _check_fit(found, name, module)
        for name, module in (into or {}).items():
            module.load_state_dict(found.tensors[name])
        return found

    def get_best_model(
        self, metric: str = "portfolio_sharpe", *, mode: Literal["max", "min"] | None = None
    ) -> Checkpoint:
        """The checkpoint with the best `metric` among those kept, the earliest of equals; `mode` is the system's unless
        given. Only the best by the system's own metric is sure to be kept. Raises StorageError where none has it."""
        if mode is None:
            return self.store.load(self.store.best(metric))
        return ModelCheckpointingSystem(self.store.folder, metric=metric, mode=mode).get_best_model(metric)


def _tensors(name: str, model: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    from torch import Tensor, nn

    found = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(found, Mapping):
        raise DataError(f"model {name!r} is a {type(model).__name__}; give a module or its state_dict")
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{key!r} of model {name!r} is a {type(value).__name__}, no tensor; put it into state")
    return found


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in metrics.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"the metrics of a checkpoint must be numbers by name: {error}") from error


def _check_fit(found: Checkpoint, name: str, module: nn.Module) -> None:
    if name not in found.tensors:
        raise StorageError(f"{found.path} holds no model {name!r}{did_you_mean(name, found.tensors)}")
    stored = {key: list(tensor.shape) for key, tensor in found.tensors[name].items()}
    wanted = {key: list(tensor.shape) for key, tensor in module.state_dict().items()}
    for key in sorted({*stored, *wanted}):
        if stored.get(key) != wanted.get(key):
            raise StorageError(
                f"model {name!r} in {found.path} does not fit: {key} is {stored.get(key, 'absent')} there and "
                f"{wanted.get(key, 'absent')} here; build it from the config of that run"
            )
