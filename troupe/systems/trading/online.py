"""Online learning: a trained hierarchy learns on as bars come in, and a gate decides whether it trades what it learned.

    learner = OnlineLearner(trainer, OnlineConfig(bars=500))
    result = learner.learn(longer_market)        # the bars that were trained on, and new ones after them
    [(each.rows, each.decision.promote, each.old, each.new) for each in result.extensions]

An extension, at the moment when R rows are known:

    0 ............ learned from ............| gap |... validation ...|R ... next stretch ...
                   both play here, paired: the gate decides  ^           ^ both trade here, for the record

The candidate begins as the team that trades, and learns by phase 3's joint update. Unless the gate shows that it is
better, the old weights stay, bit for bit. Then both trade the next stretch, which neither has seen, so that the record
shows what adopting (or refusing) was worth. Rows that were learned from grow; nothing is forgotten.

What stays as the first training had it: the scale of the observations (the weights were learned on it: under another
the same weights are another policy, and no gate would have compared them) and the scale of the sectors' records.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from troupe.config import Frozen, load
from troupe.envs.market.build import Market, load_market
from troupe.envs.market.core import MarketCore
from troupe.envs.market.features import Normaliser
from troupe.envs.market.team import Team, TeamVector
from troupe.errors import ConfigError, DataError
from troupe.maths.finance import sharpe, total_return
from troupe.models.team import TeamActorCritic
from troupe.stores.atomic import write_atomic
from troupe.stores.run_config import make_run_folder, remember_config
from troupe.stores.state import parameter_hash
from troupe.systems.trading.backtest import Track, backtest, episodes
from troupe.systems.trading.checkpointing import ModelCheckpointingSystem
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.hierarchy import HierarchyStrategy, Mode
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.judging import decide
from troupe.systems.trading.phase import device_of, gate_of, log, run_config, seed_of, team_net
from troupe.systems.trading.phase3 import coordinated, joint_run
from troupe.systems.trading.phase_metrics import episode_sharpes
from troupe.systems.trading.pipeline import HierarchyTrainer, Traded
from troupe.systems.trading.trials import bars_hash, config_hash, market_setting
from troupe.training.evaluation import Decision

__all__ = ["Extension", "OnlineConfig", "OnlineLearner", "OnlineResult", "Worth"]

Progress = Callable[[str, int, int, Mapping[str, float]], None]

Weights = Mapping[str, Tensor]

_JOINT = 3
"""Phase whose update an adopted candidate comes from."""


class OnlineConfig(Frozen):
    """How a hierarchy learns on."""

    timesteps: int = Field(50_000, ge=1)
    """Steps of an extension in all environments together, up to the end of a rollout."""
    learning_rate: float | None = Field(None, gt=0)
    """Of Adam; null takes phase3.learning_rate, or ppo.learning_rate where that is null, too."""
    bars: int = Field(500, ge=2)
    """New bars between two extensions; as long is the next stretch, by which an extension's worth is measured."""
    validation: int = Field(1000, ge=2)
    """The newest bars before an extension: they are not learned from, the gate compares on them."""
    episodes: int = Field(20, ge=10)
    """Paired episodes that they are cut into; the gate needs 10."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.episode < 2:
            raise ValueError(
                f"validation={self.validation} bars are too few for episodes={self.episodes}; an episode has 2 bars or "
                f"more, so write validation={2 * self.episodes + 1} or more"
            )
        return self

    @property
    def episode(self) -> int:
        """Bars of an episode of the validation."""
        return (self.validation - 1) // self.episodes


class Worth(NamedTuple):
    """What one side made of the next stretch, out of sample."""

    sharpe: float | None  # annual; 0 of one that did nothing, None of one that lost everything
    total_return: float

    @classmethod
    def of(cls, track: Track) -> Worth:
        returns = track.returns[0]
        ratio = 0.0 if np.ptp(returns) == 0 else float(sharpe(returns, track.periods_per_year))
        return cls(ratio if math.isfinite(ratio) else None, float(total_return(returns)))


@dataclass(frozen=True)
class Extension:
    """One decision. `old` and `new` are None until the bars of the next stretch are there."""

    number: int
    rows: int  # known then; the next stretch follows
    learned: int  # of them learned from, from the first row on
    decision: Decision
    old: Worth | None  # what traded before
    new: Worth | None  # the candidate
    hashes: Mapping[str, str]  # of the parameters: "old", "new", and "traded" after the decision

    @property
    def adopted(self) -> bool:
        return self.decision.promote

    def to_dict(self) -> dict[str, Any]:
        sides = {
            name: None if side is None else side._asdict() for name, side in (("old", self.old), ("new", self.new))
        }
        return asdict(self) | {"decision": self.decision.to_dict(), "hashes": dict(self.hashes), **sides}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Extension:
        sides = {name: None if record[name] is None else Worth(**record[name]) for name in ("old", "new")}
        return cls(**{**record, **sides, "decision": Decision.from_dict(record["decision"])})


@dataclass(frozen=True, eq=False)
class OnlineResult:
    """Everything so far."""

    folder: Path
    extensions: tuple[Extension, ...]
    traded: Traded  # from now on

    @property
    def adopted(self) -> tuple[int, ...]:
        """Numbers of the extensions whose candidates trade or have traded."""
        return tuple(each.number for each in self.extensions if each.adopted)


class _Side(NamedTuple):
    """Who trades how."""

    weights: Weights
    mode: Mode
    active: tuple[str, ...]
    phase: int


@dataclass(frozen=True, eq=False)
class _Standing:
    """All that the next extension depends on; a checkpoint holds it."""

    rows: int  # of the history that the first training had
    normaliser: Normaliser
    typical: float
    names: tuple[str, ...]  # of the columns that are observed
    layout: tuple[Mapping[str, Any], Mapping[str, Any]]  # agent -> (start, stop) of its view, and of its action
    seen: Mapping[str, Any]  # rows of the history that was shown last, and their hashes
    extensions: tuple[Extension, ...]
    sides: Mapping[str, _Side]  # "team" trades; "old" and "new" met in the last extension

    def used(self, bars: int) -> int:
        """Rows of the history that anything here depends on."""
        if not self.extensions:
            return self.rows
        last = self.extensions[-1]
        return last.rows if last.old is None else last.rows + bars

    def to_state(self) -> dict[str, Any]:
        return {
            "rows": self.rows, "normaliser": self.normaliser.state(), "typical": self.typical,
            "names": list(self.names), "layout": list(self.layout), "seen": dict(self.seen),
            "extensions": [each.to_dict() for each in self.extensions],
            "sides": {name: [side.mode, list(side.active), side.phase] for name, side in self.sides.items()},
        }  # fmt: skip

    @classmethod
    def of(cls, state: Mapping[str, Any], weights: Mapping[str, Weights]) -> _Standing:
        sides = {name: _Side(weights[name], mode, tuple(act), n) for name, (mode, act, n) in state["sides"].items()}
        extensions = tuple(Extension.from_dict(each) for each in state["extensions"])
        return cls(
            state["rows"], Normaliser.from_state(state["normaliser"]), state["typical"], tuple(state["names"]),
            tuple(state["layout"]), state["seen"], extensions, sides,
        )  # fmt: skip


class OnlineLearner:
    """Continues `source`, a trainer or its run folder, in the folder's `online`; what was decided there stays decided.

    `rows` is for a run folder whose files have grown before the first extension: how many bars they had in training.
    Curricula have no part in it: new bars are what they are. Raises ConfigError, StorageError for what cannot go on.
    """

    def __init__(
        self,
        source: HierarchyTrainer | str | Path,
        settings: OnlineConfig | Mapping[str, Any] | None = None,
        *,
        rows: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        is_trainer = isinstance(source, HierarchyTrainer)
        if is_trainer and rows is not None:
            raise ConfigError("rows is for a run folder; a trainer knows which bars it has learned from")
        self.config: TradingConfig = source.config if isinstance(source, HierarchyTrainer) else run_config(source)
        self.settings = _settings(settings)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.folder = Path(self.config.trainer.output_dir) / "online"
        self.store = ModelCheckpointingSystem(self.folder, keep_last=self.config.trainer.keep_last)
        self._trainer = source if isinstance(source, HierarchyTrainer) else None
        self._rows = rows

    def learn(self, market: Market | None = None) -> OnlineResult:
        """Makes every extension that the history has bars for, from wherever the run stands, and returns all of them.
        None reads the configured files anew. Raises DataError where the bars that were learned from are not the
        history's first ones, ConfigError where too few are left to learn from, StorageError for other settings."""
        torch.set_num_threads(self.config.trainer.threads)
        history = load_market(self.config.market) if market is None else market
        if len(history.bars) != 1:
            raise ConfigError(f"online learning is for one history, and the market has {len(history.bars)} paths")
        make_run_folder(self.folder, "trainer.output_dir", begun=False, resume="auto")
        remember_config(self.folder, self.settings.model_dump(), OnlineConfig().model_dump(), ())
        known = self.store.store.latest() is not None
        standing = self._restored() if known else self._begun(history)
        _check_continues(history, standing.seen)
        standing = self._measured(standing, history)
        while self._next(standing) <= len(history.bars[0]):
            standing = self._extended(standing, history)
        return self._result(standing)

    def result(self) -> OnlineResult:
        """What has been decided so far. Raises StorageError before the first `learn`."""
        return self._result(self._restored())

    def strategy(self) -> HierarchyStrategy:
        """What trades now, for a backtest on any core of the same columns, on the scale of the first training."""
        standing = self._restored()
        return self._player(standing, standing.sides["team"])

    # ------------------------------------------------------------------------------------------ beginning

    def _begun(self, history: Market) -> _Standing:
        trainer = self._trainer or self._from_files()
        data = trainer.data
        if not data.is_history:
            raise ConfigError(
                "the run learned from simulated markets, which have no next bar; train on market.data.files, or give "
                "the HierarchyTrainer of a market given in code"
            )
        first = data.markets["test"]  # all rows
        self._check_trained_on(data)
        traded = trainer.traded()
        weights = {name: each.clone() for name, each in traded.net.state_dict().items()}
        standing = _Standing(
            len(first.bars[0]), data.normaliser, data.typical, data.names, _layout(traded.net), _seen(first), (),
            {"team": _Side(weights, traded.mode, traded.active, traded.phase)},
        )  # fmt: skip
        _check_continues(history, standing.seen)
        return self._save(standing, history)

    def _from_files(self) -> HierarchyTrainer:
        market = None if self._rows is None else load_market(self.config.market).between(0, self._rows)
        return HierarchyTrainer(self.config, market=market)

    def _check_trained_on(self, data: TradingData) -> None:
        """A file that has grown would be split at other rows."""
        path = self.folder.parent / "market.json"
        if not path.exists() or json.loads(path.read_bytes()) != data.identity:
            raise DataError(
                f"the bars are not those that {self.folder.parent} was trained on: its files have changed or grown "
                "since; write rows, how many bars they had"
            )

    def _restored(self) -> _Standing:
        found = self.store.load_checkpoint("latest")
        standing = _Standing.of(found.state, found.tensors)
        if self._rows not in (None, standing.rows):
            raise ConfigError(f"rows={self._rows}, and this run was begun with {standing.rows}; leave it out")
        return standing

    # ------------------------------------------------------------------------------------------ an extension

    def _next(self, standing: _Standing) -> int:
        """Rows that the next extension needs."""
        return standing.rows + (len(standing.extensions) + 1) * self.settings.bars

    def _extended(self, standing: _Standing, history: Market) -> _Standing:
        number, rows = len(standing.extensions) + 1, self._next(standing)
        past, old = history.between(0, rows), standing.sides["team"]
        held = rows - self.settings.validation  # where the validation begins
        learned = held - past.rules.warmup_steps - 1  # the gap of the three phases' stretches
        new = self._learned(standing, past, learned, number)
        played = [self._validated(standing, side, past, held) for side in (new, old)]
        decision = decide(gate_of(self.config), *played)
        log.info("online %d, %d rows: %s", number, rows, "; ".join(decision.reasons))
        team = new if decision.promote else old
        sides = {"team": team, "old": old, "new": new}
        hashes = {"traded" if name == "team" else name: parameter_hash(side.weights) for name, side in sides.items()}
        made = Extension(number, rows, learned, decision, None, None, hashes)
        standing = replace(standing, extensions=(*standing.extensions, made), sides=sides)
        standing = self._traded_next(standing, history)
        kept = episode_sharpes(played[0 if decision.promote else 1])
        return self._save(standing, history, {"portfolio_sharpe": float(kept.mean())})

    def _learned(self, standing: _Standing, past: Market, learned: int, number: int) -> _Side:
        """The candidate: the team that trades, after some steps of the joint update."""
        rules, config, chosen = past.rules, self.config, self.settings
        if learned < rules.warmup_steps + rules.episode_length:
            raise ConfigError(
                f"validation={chosen.validation} leaves {max(learned, 0)} of {len(past.bars[0])} bars to learn from, "
                f"and one episode needs {rules.warmup_steps + rules.episode_length}; write a smaller validation"
            )
        core = past.between(0, learned).core(standing.normaliser)
        net, device = self._net(standing, standing.sides["team"].weights), device_of(config)
        envs = TeamVector(core, self._team(standing, core), config.trainer.n_envs, config.reward)
        rate = config.phase3.learning_rate if chosen.learning_rate is None else chosen.learning_rate
        run, coordination = joint_run(
            config, net.to(device), envs, learning_rate=rate, total_timesteps=chosen.timesteps,
            seed=seed_of(config.seed, 4, number), device=device,
        )  # fmt: skip
        while run.rollouts < run.total:
            metrics = coordinated(config, coordination, run.rollout())
            self.progress(f"online {number}", run.timesteps, run.total * run.per_rollout, metrics)
        weights = {name: each.cpu().clone() for name, each in net.state_dict().items()}
        return _Side(weights, "team", tuple(net.names), _JOINT)

    def _validated(self, standing: _Standing, side: _Side, past: Market, held: int) -> Track:
        starts = held + self.settings.episode * np.arange(self.settings.episodes)
        return episodes(past.core(standing.normaliser), self._player(standing, side), starts, self.settings.episode)

    def _measured(self, standing: _Standing, history: Market) -> _Standing:
        """The last extension's next stretch, where its bars have come since."""
        measured = self._traded_next(standing, history)
        return standing if measured is standing else self._save(measured, history)

    def _traded_next(self, standing: _Standing, history: Market) -> _Standing:
        """Both sides of the last extension on the bars after it."""
        last = standing.extensions[-1] if standing.extensions else None
        stop = 0 if last is None else last.rows + self.settings.bars
        if last is None or last.old is not None or stop > len(history.bars[0]):
            return standing
        core = history.between(0, stop).core(standing.normaliser)
        old, new = (
            Worth.of(backtest(core, self._player(standing, standing.sides[name]), last.rows - 1, stop - 1))
            for name in ("old", "new")
        )
        return replace(standing, extensions=(*standing.extensions[:-1], replace(last, old=old, new=new)))

    # ------------------------------------------------------------------------------------------ small pieces

    def _team(self, standing: _Standing, core: MarketCore) -> Team:
        return Team.of(core, standing.names, scale=self.config.allocation_scale, typical=standing.typical)

    def _net(self, standing: _Standing, weights: Weights) -> TeamActorCritic:
        views, parts = ({agent: slice(*each) for agent, each in found.items()} for found in standing.layout)
        net: TeamActorCritic = team_net(self.config, views, parts)
        net.load_state_dict(weights)
        return net

    def _player(self, standing: _Standing, side: _Side) -> HierarchyStrategy:
        return HierarchyStrategy(
            self._net(standing, side.weights), standing.names, typical=standing.typical,
            scale=self.config.allocation_scale, mode=side.mode, active=side.active,
        )  # fmt: skip

    def _result(self, standing: _Standing) -> OnlineResult:
        side = standing.sides["team"]
        traded = Traded(self._net(standing, side.weights), side.mode, side.active, side.phase)
        return OnlineResult(self.folder, standing.extensions, traded)

    def _save(self, standing: _Standing, history: Market, metrics: Mapping[str, float] | None = None) -> _Standing:
        """The checkpoint first; online.json shows what it holds."""
        standing = replace(standing, seen=_seen(history.between(0, standing.used(self.settings.bars))))
        weights = {name: side.weights for name, side in standing.sides.items()}
        self.store.save_checkpoint(weights, metrics or {}, len(standing.extensions), standing.to_state())
        record = {
            "rows": standing.rows, "settings": self.settings.model_dump(mode="json"),
            "adopted": [each.number for each in standing.extensions if each.adopted],
            "extensions": [each.to_dict() for each in standing.extensions],
        }  # fmt: skip
        write_atomic(self.folder.parent / "online.json", json.dumps(record, indent=1, allow_nan=False).encode())
        return standing


def _settings(settings: OnlineConfig | Mapping[str, Any] | None) -> OnlineConfig:
    if isinstance(settings, OnlineConfig):
        return settings
    return load(OnlineConfig, preset=settings or {}).config


def _layout(net: TeamActorCritic) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    views, parts = (
        {agent: [each.start, each.stop] for agent, each in found.items()} for found in (net.views, net.parts)
    )
    return views, parts


_SEEN = {
    "bars": "their instruments, times or closes", "setting": "their prices and volumes, the costs, rules or features",
    "rates": "their conversion rates",
}  # fmt: skip


def _seen(market: Market) -> dict[str, Any]:
    """How many rows, and hashes of all that is read of them."""
    rates = b"" if market.rates is None else b"".join(np.ascontiguousarray(each).tobytes() for each in market.rates)
    return {
        "rows": len(market.bars[0]), "bars": bars_hash(market.bars[0]), "setting": config_hash(market_setting(market)),
        "rates": hashlib.sha256(rates).hexdigest()[:16],
    }  # fmt: skip


def _check_continues(history: Market, seen: Mapping[str, Any]) -> None:
    rows, found = seen["rows"], len(history.bars[0])
    if found < rows:
        raise DataError(
            f"the history has {found} bars, and {rows} were seen before; give those, and new ones after them"
        )
    now = _seen(history.between(0, rows))
    for name, what in _SEEN.items():
        if now[name] != seen[name]:
            raise DataError(
                f"the history's first {rows} bars are not those that were seen before: {what} differ; give the same "
                "bars, and new ones after them"
            )
