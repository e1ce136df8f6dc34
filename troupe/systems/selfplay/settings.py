"""The settings of document 001's interface: the keys of `mcts` and of `SelfPlayTrainer`'s config; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from troupe.config import Frozen
from troupe.errors import ConfigError, did_you_mean
from troupe.models.config import PolicyValueConfig, TokenNetConfig
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.verifiable.config import token_net_rules

__all__ = ["MCTS_KEYS", "TrainerSettings", "search_config", "trainer_settings"]

Model = TypeVar("Model", bound=Frozen)

MCTS_KEYS: dict[str, str] = {
    "algorithm": "algorithm",
    "num_simulations": "simulations",
    "c_puct": "c_puct",
    "dirichlet_alpha": "dirichlet_alpha",
    "dirichlet_epsilon": "dirichlet_epsilon",
    "temperature": "temperature",
    "temperature_init": "temperature",
    "temperature_threshold": "temperature_moves",
    "temperature_final": "final_temperature",
    "num_parallel": "leaves",
    "considered": "considered",
    "discount": "discount",
}
"""Keys of `mcts` and the fields of `SearchConfig` that they set. `virtual_loss` is read beside them."""

_DEFAULTS: dict[str, Any] = {"algorithm": "puct", "simulations": 100}
_GUMBEL = ("considered",)
_PUCT = ("c_puct", "dirichlet_alpha", "dirichlet_epsilon", "temperature", "temperature_moves", "final_temperature")


def search_config(mcts: Mapping[str, Any] | None) -> SearchConfig:
    """A search from the documented keys; PUCT with 100 simulations by default.

    `num_parallel` leaves of a tree are under way at once, each of which counts as one loss: that is `virtual_loss=1`,
    the only one there is. Raises ConfigError for an unknown key, a wrong value, or a key of the other algorithm.
    """
    given = dict(mcts or {})
    if given.pop("virtual_loss", 1) != 1:
        raise ConfigError("mcts.virtual_loss: a leaf under way counts as one loss here; write 1, and set num_parallel")
    for key in given:
        if key not in MCTS_KEYS:
            raise ConfigError(f"mcts.{key}: unknown key{did_you_mean(key, [*MCTS_KEYS, 'virtual_loss'])}")
    values = {**_DEFAULTS, **{MCTS_KEYS[key]: value for key, value in given.items()}}
    idle = _PUCT if values["algorithm"] == "gumbel" else _GUMBEL
    if "temperature" in given and "temperature_init" in given:
        raise ConfigError("mcts.temperature and mcts.temperature_init are the same setting; write one of them")
    for key in given:
        if MCTS_KEYS[key] in idle:
            raise ConfigError(f"mcts.{key} is not read with algorithm={values['algorithm']!r}; leave it out")
    if "temperature_moves" not in values and "final_temperature" in values:
        raise ConfigError("mcts.temperature_final is not read without temperature_threshold; write both")
    return _built(SearchConfig, values, "mcts", {MCTS_KEYS[key]: key for key in given})


class TrainerSettings(Frozen):
    """What `SelfPlayTrainer` is configured by; the first five keys are document 001's."""

    games_per_iteration: int = Field(1000, ge=1)
    """Episodes per iteration."""
    batch_size: int = Field(64, ge=1)
    """Examples of each kind per optimiser step."""
    parallel_batch_size: int = Field(32, ge=1)
    """Episodes that run concurrently and share the evaluator's batch."""
    max_buffer_size: int = Field(10_000, ge=1)
    """Newest episodes that are kept, and learned from."""
    mcts: dict[str, Any] = Field(default_factory=dict)
    """The search (see `MCTS_KEYS`)."""
    seed: int = Field(0, ge=0)
    """Seeds networks, searches, tasks and minibatches."""
    max_steps: int = Field(50, ge=1)
    """Actions per episode at most."""
    timeout: float = Field(60.0, gt=0)
    """Seconds per episode at most."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of AdamW."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decoupled weight decay."""
    epochs: int = Field(1, ge=1)
    """Passes over the examples of all episodes that are kept, per iteration."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Highest decay of the average over the steps of an iteration, which is what those leave behind: it is judged,
    plays and learns on; 0 leaves the last weights."""
    symmetries: bool = True
    """Show each example of a game in a random symmetry of that game."""
    success_weight: float = Field(1.0, ge=0)
    """Weight of examples to imitate, and of values, in the loss."""
    failure_weight: float = Field(0.3, ge=0)
    """Weight of the actions of failed attempts, which become less likely."""
    eval_games: int = Field(100, ge=10)
    """Held-out tasks on which a candidate meets the incumbent after each iteration."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Of the gate's interval: a candidate is promoted where all of it lies above no difference."""
    net: PolicyValueConfig = PolicyValueConfig(kind="mlp")
    """The networks that are built where no agents are given, one per family of worlds; `kind` is mlp by default."""
    token_net: TokenNetConfig = TokenNetConfig(kind="mlp")
    """Those for worlds whose observations are token ids; `kind` is mlp by default. `value_range` is at least bounded in
    games of two players."""
    keep_last: int | None = Field(None, ge=1)
    """Newest checkpoints that are kept besides the best; None keeps all. Each holds all episodes that are kept, at some
    kilobytes apiece."""


_NETS: dict[str, tuple[type[Frozen], dict[str, Any]]] = {
    "net": (PolicyValueConfig, {"kind": "mlp"}),
    "token_net": (TokenNetConfig, {"kind": "mlp"}),
}
"""Networks that are built here: their configs, and what has other defaults than there."""


def trainer_settings(config: Mapping[str, Any] | None, *, agents: bool = False) -> TrainerSettings:
    """Raises ConfigError, in one sentence, for an unknown key, a wrong value, or a key that nothing would read; `mcts`
    included. `agents`: whether the networks are given."""
    given = dict(config or {})
    for key in given:
        if key not in TrainerSettings.model_fields:
            raise ConfigError(f"config.{key}: unknown key{did_you_mean(key, TrainerSettings.model_fields)}")
    for name, (own, defaults) in _NETS.items():
        if isinstance(given.get(name), Mapping):
            given[name] = {**defaults, **given[name]}
            for key in given[name]:
                if key not in own.model_fields:
                    raise ConfigError(f"config.{name}.{key}: unknown key{did_you_mean(key, own.model_fields)}")
    settings = _built(TrainerSettings, given, "config")
    search_config(settings.mcts)
    for name in given.keys() & _NETS.keys() if agents else ():
        raise ConfigError(
            f"config.{name} is for networks that are built here, which agents take the place of; leave it out, or pass "
            "neither hrm_agent nor trm_agent"
        )
    for name, rules in (("net", SelfPlayConfig.read_when), ("token_net", token_net_rules("token_net"))):
        for key in sorted(getattr(settings, name).model_fields_set):
            for rule in rules:
                if f"{name}.{key}" in rule.keys and not rule.holds(settings):
                    raise ConfigError(f"config.{name}.{key} {rule.otherwise}")
    return settings


def _built(model: type[Model], values: Mapping[str, Any], where: str, names: Mapping[str, str] | None = None) -> Model:
    """`names`: what the fields of the model are called there."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field, *below = map(str, first["loc"])
        place = ".".join([where, (names or {}).get(field, field), *below])
        raise ConfigError(f"{place} is {first['input']!r}: {first['msg'].lower()}") from error
