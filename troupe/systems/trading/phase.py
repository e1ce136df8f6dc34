"""What the three phases have in common: a folder, a log, a run of PPO that continues where it was stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from troupe.config import load
from troupe.envs.market.build import Market
from troupe.envs.market.core import LIMITS
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, StorageError, TrainingError
from troupe.models.team import TeamActorCritic
from troupe.stores.atomic import write_atomic
from troupe.stores.run_config import make_run_folder, remember_config
from troupe.stores.state import parameter_hash
from troupe.stores.tracking import Tracker
from troupe.systems.trading.checkpointing import ModelCheckpointingSystem
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.training.config import PPOConfig
from troupe.training.evaluation import Gate
from troupe.training.ppo_run import PPORun

__all__ = [
    "PhaseTrainer", "Progress", "Workspace", "as_trading_config", "device_of", "gate_of", "module_hashes",
    "phase_settings", "risk_metrics", "run_config", "run_phase", "seed_of", "team_net",
]  # fmt: skip

Progress = Callable[[str, int, int, Mapping[str, float]], None]

log = logging.getLogger("troupe.systems.trading")

_MAY_CHANGE = (
    "trainer.keep_last", "trainer.log_dir", "trainer.logger", "trainer.output_dir", "trainer.processes",
    "trainer.resume", "trainer.save_freq", "communication.log_all_messages", "communication.message_history_size",
    "communication.correlation_id_enabled", "phase1.total_timesteps", "phase2.total_timesteps",
    "phase3.total_timesteps",
)  # fmt: skip
"""Keys that a continued run may set anew; a phase that has begun keeps its timesteps."""


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps what."""

    folder: Path
    logs: Path
    config: TradingConfig

    @classmethod
    def of(cls, config: TradingConfig, data: TradingData) -> Workspace:
        """Makes the run folder. Raises StorageError for a folder of another config or another market, ConfigError for
        other timesteps of a phase that has begun."""
        trainer = config.trainer
        folder = Path(trainer.output_dir)
        space = cls(folder, folder / "logs" if trainer.log_dir is None else Path(trainer.log_dir), config)
        begun = (folder / "config.json").exists()
        make_run_folder(folder, "trainer.output_dir", begun=begun, resume="auto")
        space._check_timesteps()
        remember_config(folder, config.model_dump(mode="json"), TradingConfig().model_dump(mode="json"), _MAY_CHANGE)
        space._check_market(data)
        return space

    def _check_timesteps(self) -> None:
        """A phase that has begun keeps its length: its learning rate may fall towards its end."""
        path = self.folder / "config.json"
        if not path.exists():
            return
        stored = run_config(self.folder)
        for number in (1, 2, 3):
            was, now = (getattr(each, f"phase{number}").total_timesteps for each in (stored, self.config))
            if was != now and self.phase(number).exists():
                raise ConfigError(
                    f"phase {number} was begun with {was:,} steps, and phase{number}.total_timesteps={now:,}; write "
                    "the same, or another trainer.output_dir"
                )

    def _check_market(self, data: TradingData) -> None:
        """What was held back must stay what nobody learned from: with other bars the stretches would be others."""
        path = self.folder / "market.json"
        try:
            known = json.loads(path.read_bytes()) if path.exists() else data.identity
        except ValueError as error:
            raise StorageError(f"{path} is no market of a run ({error}); restore it or use another folder") from error
        if known != data.identity:
            raise StorageError(
                f"{self.folder} was begun with another market (bars, costs or features); use another folder"
            )
        if not path.exists():
            write_atomic(path, json.dumps(data.identity, indent=1).encode())

    def phase(self, number: int, part: str = "") -> Path:
        return self.folder / f"phase{number}" / part

    def results(self, number: int) -> Path:
        return self.folder / f"phase{number}_results.json"

    def write_results(self, number: int, results: Mapping[str, Any]) -> None:
        write_atomic(self.results(number), json.dumps(results, indent=1, allow_nan=False).encode())

    def read_results(self, number: int) -> dict[str, Any]:
        """Raises StorageError where that phase has not ended."""
        path = self.results(number)
        if not path.exists():
            raise StorageError(
                f"phase {number} has not ended in {self.folder}; run it first: troupe train trading --phase {number}"
            )
        try:
            found = json.loads(path.read_bytes())
        except ValueError:
            found = None
        if not isinstance(found, dict) or not {"gate", "specialists"} & set(found):
            raise StorageError(f"{path} holds no results of a phase; remove it, and the phase ends anew")
        return found

    def check_weights(self, net: TeamActorCritic, expected: Mapping[str, str]) -> None:
        """Raises TrainingError where an agent's weights are not those that a phase ended with."""
        found = module_hashes(net)
        for agent, digest in expected.items():
            if found[agent] != digest:
                raise TrainingError(
                    f"the weights of {agent} in {self.folder} are not those that its phase ended with; run that "
                    "phase to its end again"
                )

    @contextmanager
    def logged(self, number: int) -> Iterator[Path]:
        """Everything that the trading system logs also goes to logs/phaseN/training.log."""
        folder = self.logs / f"phase{number}"
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "training.log", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = log.level
        log.addHandler(handler)
        log.setLevel(min(level or logging.INFO, logging.INFO))
        try:
            yield folder
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            handler.close()


class PhaseTrainer:
    """What the trainer of every phase begins with: the market's stretches, the training core, the team over it and the
    network as the seed makes it. `market` given in code takes the place of the configured one; `data` is already split.

    Raises ConfigError, DataError for what cannot be traded.
    """

    def __init__(
        self,
        config: TradingConfig | Mapping[str, Any] | None = None,
        *,
        market: Market | None = None,
        progress: Progress | None = None,
        data: TradingData | None = None,
    ) -> None:
        self.config = as_trading_config(config)
        torch.set_num_threads(self.config.trainer.threads)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.data = TradingData.of(self.config, market) if data is None else data
        self.core = self.data.core("train")
        self.team = self.data.team(self.core)
        self.net: TeamActorCritic = team_net(self.config, self.team.views, self.team.parts)
        self.given = market is not None or data is not None  # in code, where no other process can read it
        self.space: Workspace | None = None

    def opened(self) -> Workspace:
        """The run folder; raises as `Workspace.of`, the first time."""
        self.space = self.space or Workspace.of(self.config, self.data)
        return self.space

    def read(self, number: int, parts: Mapping[str, str]) -> None:
        """Weights of a phase's latest checkpoints: part of the phase's folder -> agent. Raises StorageError where there
        are none."""
        space = self.opened()
        for part, agent in parts.items():
            store = ModelCheckpointingSystem(space.phase(number, part), keep_last=self.config.trainer.keep_last)
            store.load_checkpoint("latest", into={agent: self.net.module(agent)})


def run_phase(
    run: PPORun,
    space: Workspace,
    number: int,
    part: str,
    models: Mapping[str, nn.Module],
    *,
    progress: Progress,
    each: Callable[[dict[str, float]], dict[str, float]] = lambda metrics: metrics,
    extra: Callable[[], dict[str, Any]] = dict,
    restore: Callable[[Mapping[str, Any]], None] = lambda state: None,
) -> None:
    """Learns to the last rollout, from wherever the phase's folder stands. `each` sees the metrics of every rollout and
    may add to them; `extra` and `restore` are what more a checkpoint holds (restored before the run itself).

    Raises ConfigError where the stored phase has other timesteps, TrainingError, DataError for numbers that are not
    finite, StorageError.
    """
    trainer, name = space.config.trainer, " ".join(filter(None, (f"phase {number}", part)))
    store = ModelCheckpointingSystem(
        space.phase(number, part), keep_last=trainer.keep_last, metric="rollout/ep_rew_mean"
    )  # fmt: skip
    folder = space.logs / f"phase{number}" / part
    _check_logs(folder, space)
    with Tracker(
        folder, trainer.logger, project=trainer.project_name, name=f"{trainer.experiment_name} {name}",
        config=space.config.model_dump(mode="json"),
    ) as tracker:  # fmt: skip
        if store.store.latest() is None:
            tracker.truncate(0, 0)
        else:
            _continue(run, store, tracker, models, restore, name)
        log.info("%s: %d of %d steps are learned", name, run.timesteps, run.total * run.per_rollout)
        while run.rollouts < run.total:
            metrics = each(run.rollout())
            tracker.log(metrics, run.timesteps)
            tracker.log_timing(run.cpu, run.timesteps)
            progress(name, run.timesteps, run.total * run.per_rollout, metrics)
            if run.rollouts % trainer.save_freq == 0 or run.rollouts == run.total:
                state = {"run": run.state_dict(), "total": run.total, "extra": extra(), "tracker": tracker.offset}
                path = store.save_checkpoint(models, _scored(metrics), run.rollouts, state)
                log.info("%s: checkpoint %s, %s", name, path.name, _said(metrics))


def _check_logs(folder: Path, space: Workspace) -> None:
    """Two runs that log into one folder would wipe each other's lines. Raises StorageError."""
    path = folder / "run.json"
    if space.config.trainer.log_dir is None or not path.exists():
        return
    owner = json.loads(path.read_bytes())["config"]["trainer"]["output_dir"]
    if Path(owner).resolve() != space.folder.resolve():
        raise StorageError(f"{folder} holds the logs of the run in {owner}; write another trainer.log_dir")


def _continue(
    run: PPORun, store: ModelCheckpointingSystem, tracker: Tracker, models: Mapping[str, nn.Module],
    restore: Callable[[Mapping[str, Any]], None], name: str,
) -> None:  # fmt: skip
    checkpoint = store.load_checkpoint("latest", into=models)
    stored = checkpoint.state
    if stored["total"] != run.total:
        raise ConfigError(
            f"{name} was begun with {stored['total'] * run.per_rollout:,} steps, and this run has "
            f"{run.total * run.per_rollout:,}; write the same, or another trainer.output_dir"
        )
    restore(stored["extra"])
    run.load_state_dict(run.net.state_dict(), stored["run"])
    moved = not tracker.offset  # the logs go to another folder from here on
    tracker.truncate(None if moved else stored["tracker"], run.timesteps)
    log.info("%s: continues from %s", name, checkpoint.path.name)


def _scored(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("rollout/")}


def _said(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name.startswith(("rollout", "loss")))


# ---------------------------------------------------------------------------------------------- small pieces


def as_trading_config(config: Any) -> TradingConfig:
    """From a mapping, or as it is."""
    if isinstance(config, TradingConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(TradingConfig, preset=config or {}).config
    raise ConfigError(f"config must be a TradingConfig or a mapping, found {type(config).__name__}")


def run_config(folder: str | Path) -> TradingConfig:
    """The configuration that a run folder of `troupe train trading` was begun with, wherever the folder stands now.
    Raises StorageError where there is none."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise StorageError(f"{folder} holds no run of `troupe train trading`; name the folder of one")
    try:
        config = TradingConfig.model_validate(json.loads(path.read_bytes()))
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise StorageError(
            f"{path} is no config of `troupe train trading` ({first}); restore it or use another folder"
        ) from error
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"output_dir": str(folder)})})


def risk_metrics(envs: MarketVector) -> dict[str, float]:
    """Share of steps in which each limit acted, the risk violations of a rollout; the counts begin anew."""
    found = {f"risk/{name}": envs.fired.get(name, 0) / max(1, envs.steps) for name in LIMITS}
    envs.fired, envs.steps = {}, 0
    return found


def team_net(config: TradingConfig, views: Mapping[str, slice], parts: Mapping[str, slice]) -> TeamActorCritic:
    """The network as every phase begins with it; `seed` alone decides the weights."""
    return TeamActorCritic(config.net, views, parts, seed=seed_of(config.seed, 0))


def seed_of(seed: int, *path: int) -> int:
    """Of one use in a run."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0])


def phase_settings(config: TradingConfig, learning_rate: float | None) -> PPOConfig:
    """PPO's settings with a phase's own learning rate."""
    return config.ppo if learning_rate is None else config.ppo.model_copy(update={"learning_rate": learning_rate})


def module_hashes(net: TeamActorCritic) -> dict[str, str]:
    """Agent -> hash of its parameters, by which phases show whom they changed."""
    return {agent: parameter_hash(net.module(agent).state_dict()) for agent in net.agents}


def gate_of(config: TradingConfig) -> Gate:
    return Gate(confidence=config.evaluation.confidence)


def device_of(config: TradingConfig) -> torch.device:
    """Raises ConfigError for a GPU that is not there."""
    if config.trainer.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("trainer.device=cuda, and there is no CUDA GPU here; write auto or cpu")
    return torch.device("cuda" if config.trainer.device == "cuda" else "cpu")
