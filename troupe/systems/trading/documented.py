"""Document 002's `config/agents.yaml`, accepted as it is written.

    tree, notes = read_agents_yaml("config/agents.yaml")     # what a TradingConfig takes, and what has no place in one
    resolved, notes = load_trading(files=["config/agents.yaml"], overrides=["seed=1"])

A file counts as documented by its sections: `training`, `environment`, `portfolio_risk`, `specialists`,
`meta_controller` and `monitoring` are the document's alone. `reward` and `communication` are in both kinds of file; a
`reward` that stands without any other section and without Troupe's own keys is the document's. Each may stand alone, as
the document shows them. Every key has a counterpart or is said in a note; none is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from troupe.config import Resolved, load
from troupe.config.documents import read
from troupe.config.interpolation import interpolate
from troupe.config.problems import Problem, guess, show
from troupe.config.tree import DEFAULT, Node, merge, nest, plain, wrap
from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS
from troupe.envs.market.instruments import INSTRUMENTS
from troupe.errors import ConfigError, did_you_mean
from troupe.systems.trading.hierarchy_config import TradingConfig

__all__ = ["COUNTERPARTS", "WITHOUT", "is_documented", "load_trading", "read_agents_yaml"]

_RISK = ("max_portfolio_var", "max_correlation_exposure", "max_sector_allocation")

COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "meta_controller.learning_rate": ("phase2.learning_rate",),
    "training.learning_rate": ("ppo.learning_rate", "phase3.learning_rate"),
    **{f"training.{key}": (f"ppo.{key}",) for key in ("batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range")},
    **{f"training.phase_{number}_timesteps": (f"phase{number}.total_timesteps",) for number in (1, 2, 3)},
    "training.meta_update_freq": ("phase3.meta_update_freq",),
    "training.specialist_update_freq": ("phase3.specialist_update_freq",),
    "training.n_envs": ("trainer.n_envs",),
    "training.device": ("trainer.device",),
    "training.eval_episodes": ("evaluation.episodes",),
    **{
        f"environment.{key}": (f"market.rules.{key}",)
        for key in ("episode_length", "warmup_steps", "initial_capital", "transaction_cost", "max_position_size",
                    "stop_loss_pct", *_RISK)
    },
    **{f"portfolio_risk.{key}": (f"market.rules.{key}",) for key in (*_RISK, "var_confidence", "correlation_window")},
    **{
        f"reward.{key}": (f"reward.{key}",)
        for key in ("risk_penalty_weight", "transaction_cost_weight", "diversification_bonus_weight", "sharpe_target",
                    "max_drawdown_target", "risk_free_rate", "downside_volatility_weight")
    },
    **{
        f"communication.{key}": (f"communication.{key}",)
        for key in ("message_history_size", "correlation_id_enabled", "log_all_messages")
    },
}  # fmt: skip
"""Key of the document -> keys of `TradingConfig` that take its value as it is."""

_WIDTHS = {"hidden_dim": 256, "hidden_dim_2": 128}
"""Of the meta-controller's layers, with the document's numbers."""

_FOLLOWS = "what an agent sees follows from the market, by market.instruments and market.features"
_DROPOUT = "PPO compares the policy that learns with the one that acted, and these must be the same network"
_INTERVAL = "a phase is judged once, by its gate, when it ends"
_MONITORING = "metrics go where trainer.logger and trainer.log_dir say, checkpoints follow trainer.save_freq"

WITHOUT = {"meta_controller.state_dim": _FOLLOWS, "training.eval_interval": _INTERVAL}
"""Key of the document -> why nothing here takes it."""

_SPECIALIST = ("type", "instruments", "market_features_dim", "observation_dim", "hidden_dim", "learning_rate")

_SECTIONS = {
    "meta_controller": ("state_dim", *_WIDTHS, "dropout", "learning_rate"),
    **{
        section: tuple(
            key.partition(".")[2] for key in (*COUNTERPARTS, *WITHOUT) if key.startswith(f"{section}.")
        )
        for section in ("portfolio_risk", "training", "environment", "reward", "communication")
    },
}  # fmt: skip
"""Sections whose keys are fixed. `specialists` has an entry for each sector, `monitoring` keys of its own."""

_ALONE = ("training", "environment", "portfolio_risk", "specialists", "meta_controller", "monitoring")
_SHARED = ("reward", "communication")


def read_agents_yaml(source: Mapping[str, Any] | FilePath | str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(a tree for `TradingConfig`, notes): a sentence for each thing that has no counterpart, with the reason.

    `source` is the file, or what it holds; all of it, or some of its sections. Raises ConfigError with a line for each
    key that is unknown, contradicts another, or is Troupe's own.
    """
    problems: list[Problem] = []
    given = wrap(source, "agents.yaml") if isinstance(source, Mapping) else read(source, problems)
    translation = _translated(given, problems)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(map(str, problems))))
    return plain(translation.tree), translation.notes


def load_trading(
    *, preset: FilePath | str | None = None, files: Sequence[FilePath | str] = (), overrides: Sequence[str] = ()
) -> tuple[Resolved[TradingConfig], tuple[str, ...]]:
    """As `troupe.config.load`, with files of either kind; also the notes of the documented ones. Raises ConfigError."""
    problems: list[Problem] = []
    layers, notes = [], dict[str, None]()
    for layer in (read(file, problems) for file in files):
        if is_documented(layer):
            translation = _translated(layer, problems)
            layer, notes = translation.tree, notes | dict.fromkeys(translation.notes)
        layers.append(layer)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(map(str, problems))))
    return load(TradingConfig, preset=preset, files=layers, overrides=overrides), tuple(notes)


def is_documented(tree: Node) -> bool:
    """Whether a file's tree is of the document's kind."""
    if not tree.is_mapping:
        return False
    if any(key in tree.value for key in _ALONE):
        return True
    reward = tree.value.get("reward")
    if reward is None or not reward.is_mapping or any(key not in _SHARED for key in tree.value):
        return False
    return bool(reward.value) and all(key in _SECTIONS["reward"] for key in reward.value)


# ---------------------------------------------------------------------------------------------- translation


@dataclass
class _Translation:
    """A tree for `TradingConfig` in the making."""

    problems: list[Problem]
    tree: Node = field(default_factory=lambda: Node({}, DEFAULT))
    without: dict[str, list[str]] = field(default_factory=dict)  # reason -> keys that have no counterpart
    remarks: list[str] = field(default_factory=list)
    said_by: dict[str, tuple[str, Node]] = field(default_factory=dict)  # key of TradingConfig -> whose value it has

    @property
    def notes(self) -> tuple[str, ...]:
        left = [
            f"{_listed(keys)} {'is' if len(keys) == 1 else 'are'} not read: {reason}"
            for reason, keys in self.without.items()
        ]
        return (*left, *self.remarks)

    def put(self, target: str, key: str, node: Node) -> None:
        """The value of the document's `key` for `target`, which may have only one."""
        other, before = self.said_by.setdefault(target, (key, node))
        if plain(before) != plain(node):
            values = f"is {show(plain(node))}, and {other} is {show(plain(before))}"
            self.wrong(node, key, f"{values}: both are {target} here; write the same")
            return
        self.tree = merge(self.tree, nest(tuple(target.split(".")), node))

    def leave(self, key: str, reason: str) -> None:
        keys = self.without.setdefault(reason, [])
        if key not in keys:
            keys.append(key)

    def wrong(self, node: Node, key: str, message: str) -> None:
        self.problems.append(Problem(node.origin, tuple(key.split(".")), message))


def _translated(tree: Node, problems: list[Problem]) -> _Translation:
    found, tree = _Translation(problems), interpolate(tree, TradingConfig, problems)
    if not tree.is_mapping:
        return found
    own = [key for key in tree.value if key in TradingConfig.model_fields and key not in _SHARED]
    theirs = [key for key in tree.value if key in _ALONE] or [key for key in tree.value if key in _SHARED]
    if own:
        problems.append(
            Problem(
                tree.value[own[0]].origin, (own[0],),
                f"is Troupe's own, and {_listed(theirs)} document 002's; keep the two kinds in files of their own "
                "(--config may be repeated)",
            )
        )  # fmt: skip
    for section, node in tree.value.items():
        if section in own or plain(node) is None:  # an empty section
            continue
        if section not in (*_SECTIONS, "specialists", "monitoring"):
            hint = guess(section, (*_ALONE, *_SHARED), _every_key())
            found.wrong(node, section, f"unknown key{hint}")
        elif not node.is_mapping:
            found.wrong(node, section, f"expected keys with values, found {show(plain(node))}")
        elif section == "specialists":
            _specialists(found, node)
        elif section == "monitoring":
            found.leave("monitoring", _MONITORING)
        else:
            _section(found, section, node)
    return found


def _section(found: _Translation, section: str, node: Node) -> None:
    for name, value in _known(found, section, node, _SECTIONS[section]).items():
        key = f"{section}.{name}"
        if key == "training.device":
            value = _device(found, key, value)
        if key in WITHOUT:
            found.leave(key, WITHOUT[key])
        for target in COUNTERPARTS.get(key, ()):
            found.put(target, key, value)
    if section == "reward" and node.value:
        found.put("reward.kind", "reward", Node("portfolio", node.origin))
    if section == "meta_controller":
        _meta_controller(found, node)


def _meta_controller(found: _Translation, node: Node) -> None:
    if "dropout" in node.value and plain(node.value["dropout"]) != 0:
        found.leave("meta_controller.dropout", _DROPOUT)
    written = [name for name in _WIDTHS if name in node.value]
    if written:
        widths = [node.value.get(name, Node(number, DEFAULT)) for name, number in _WIDTHS.items()]
        found.put("net.meta_hidden", f"meta_controller.{written[0]}", Node(widths, node.value[written[0]].origin))


def _device(found: _Translation, key: str, node: Node) -> Node:
    """The document's GPU where there is one, else the CPU."""
    if node.value != "cuda":
        return node
    import torch

    if torch.cuda.is_available():
        return node
    found.remarks.append(f"{key}=cuda runs on the CPU: there is no CUDA GPU here")
    return Node("cpu", node.origin)


def _specialists(found: _Translation, node: Node) -> None:
    traded: list[Node] = []
    for sector, specialist in node.value.items():
        key = f"specialists.{sector}"
        if sector not in _sectors():
            hint = did_you_mean(sector, _sectors())
            found.wrong(specialist, key, f"there is no sector {sector!r} for a specialist{hint}")
        elif not (specialist.is_mapping or specialist.value is None):
            found.wrong(specialist, key, f"expected keys with values, found {show(plain(specialist))}")
        else:
            traded += _specialist(found, sector, specialist)
    if traded:
        found.put("market.instruments", "specialists", Node(traded, node.origin))


def _specialist(found: _Translation, sector: str, node: Node) -> list[Node]:
    """Its instruments."""
    key = f"specialists.{sector}"
    given = {} if node.value is None else _known(found, key, node, _SPECIALIST)
    for name, value in given.items():
        if name in ("market_features_dim", "observation_dim"):
            found.leave(f"specialists.*.{name}", _FOLLOWS)
        elif name == "hidden_dim":  # of both its layers, the last of which is its embedding
            found.put("net.specialist_hidden", f"{key}.{name}", Node([value, value], value.origin))
        elif name == "learning_rate":
            found.put("phase1.learning_rate", f"{key}.{name}", value)
        elif name == "type" and str(value.value).lower().replace("_", "").removesuffix("specialist") != sector:
            found.wrong(
                value, f"{key}.type", f"is {show(plain(value))}, and a specialist is of its sector; write {sector}"
            )
    if "instruments" in given:
        return _instruments(found, sector, given["instruments"])
    own = [Node(name, node.origin) for name in DOCUMENTED_INSTRUMENTS if INSTRUMENTS[name].sector == sector]
    if not own:
        found.wrong(node, f"{key}.instruments", "has no default for this sector; write what it trades")
    return own


def _instruments(found: _Translation, sector: str, node: Node) -> list[Node]:
    """A specialist trades the instruments of its sector, which nothing else may name."""
    key, names = f"specialists.{sector}.instruments", plain(node)
    known = [each.name for each in INSTRUMENTS.values() if each.sector == sector]
    if not isinstance(names, list) or not names:
        found.wrong(node, key, f"expected a list of instruments, found {show(names)}")
        return []
    wrong = [name for name in names if name not in known]
    if wrong:
        hint = did_you_mean(str(wrong[0]), known)
        found.wrong(node, key, f"{show(wrong[0])} is no instrument of the sector {sector}{hint}")
        return []
    if len(set(names)) < len(names):
        found.wrong(node, key, f"{show(names)} names an instrument twice; write each once")
        return []
    return list(node.value)


def _known(found: _Translation, section: str, node: Node, keys: Sequence[str]) -> dict[str, Node]:
    """The entries under keys that exist."""
    for name, value in node.value.items():
        if name not in keys:
            found.wrong(value, f"{section}.{name}", f"unknown key{guess(name, keys, _every_key())}")
    return {name: value for name, value in node.value.items() if name in keys}


def _every_key() -> list[str]:
    """Dotted keys of the fixed sections."""
    return [f"{section}.{name}" for section, names in _SECTIONS.items() for name in names]


def _sectors() -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.sector for each in INSTRUMENTS.values()))


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
