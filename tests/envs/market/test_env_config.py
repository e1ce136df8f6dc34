"""`env_config` as document 002 writes it: what it becomes, and what is refused in one sentence."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from troupe.envs.market.config import DOCUMENTED_INSTRUMENTS, MarketConfig, MarketRules
from troupe.envs.market.env_config import MarketEnvConfig, core_of, read_env_config
from troupe.errors import ConfigError, DataError

SMALL = {"episode_length": 20, "warmup_steps": 30, "simulation": {"paths": 1, "bars": 60}}


def test_the_defaults_are_those_of_the_sections() -> None:
    assert read_env_config(None).market == read_env_config({}).market == MarketConfig()


def test_flat_keys_reach_their_sections() -> None:
    config = read_env_config(
        {
            **SMALL, "instruments": ["XAUUSD", "EURUSD"], "max_leverage": 0.15, "reward": {"kind": "log_return"},
            "costs": {"EURUSD": {"half_spread": 0.0}}, "features": ["return_1"],
            "breaker": [{"drawdown": 0.1, "bars": 5}],
        }
    )  # fmt: skip
    market = config.market
    assert market.instruments == ("XAUUSD", "EURUSD") and market.costs == {"EURUSD": {"half_spread": 0.0}}
    assert market.rules == MarketRules(
        episode_length=20, warmup_steps=30, max_leverage=0.15, breaker=({"drawdown": 0.1, "bars": 5},)
    )
    assert (market.simulation.bars, market.simulation.scenario) == (60, "trending")
    assert market.features == ("return_1",) and config.reward.kind == "log_return"


def test_every_rule_is_a_key_and_no_key_shadows_another() -> None:
    names = set(MarketEnvConfig.model_fields)
    assert set(MarketRules.model_fields) | set(MarketConfig.model_fields) - {"rules"} < names
    assert not set(MarketRules.model_fields) & set(MarketConfig.model_fields)


def test_one_instrument_or_several() -> None:
    assert read_env_config({"instrument": "EURUSD"}).traded == ("EURUSD",)
    assert read_env_config({}).traded == DOCUMENTED_INSTRUMENTS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_position_siz": 0.1}, r"max_position_siz: unknown key \(did you mean 'max_position_size'\?\)"),
        ({"simulation": {"scenari": "null"}}, r"simulation.scenari: unknown key \(did you mean 'scenario'\?\)"),
        ({"rules": {"max_leverage": 1.0}}, "rules: is flat here; write its keys without the section"),
        ({"max_position_size": -0.1}, "max_position_size: must be > 0, found -0.1"),
        ({"max_position_size": float("inf")}, "max_position_size: expected a finite number"),
        ({"initial_capital": "lots"}, "initial_capital: expected a number, found 'lots'"),
        ({"warmup_steps": True}, "warmup_steps: expected an integer, found true"),
        ({"max_leverage": 0.01}, "max_leverage=0.01 is below max_position_size=0.1"),
        ({"instrument": "EURUSD", "instruments": ["EURUSD"]}, "instrument and instruments both say"),
        ({"episode_length": 5000}, "need 5051 bars, and simulation.bars=2000; write shorter episodes or more bars"),
        ({"var_confidence": 0.99}, "var_confidence: is for max_portfolio_var"),
        ({"reward": {"aversion": 2.0}}, "reward.aversion: is for reward.kind=mean_variance"),
        ({"data": {"zone": "UTC"}}, "data.zone: is for data.files"),
        ({"simulation": {"scenario": "null", "difficulty": 0.5}}, "simulation.difficulty: is for the document's"),
        ({"data": {"files": {"EURUSD": "a.csv"}}, "simulation": {"seed": 1}}, "simulation.seed: is for a market"),
        ({"curriculum_learning": True}, "curriculum_learning: is for JointTrainingEnv, and MarketEnv does not read it"),
        ({"allocation_scale": 1.0}, "allocation_scale: is for MetaControllerTrainingEnv and JointTrainingEnv"),
        ([("instrument", "EURUSD")], "env_config must be a mapping of keys to values, found list"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read_env_config(given)
    assert "\n" not in str(raised.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        read_env_config({"ruin": 2, "gradient_coordination": True, "episode_lenght": 5})
    lines = str(raised.value).splitlines()
    assert len(lines) == 3 and all(line.startswith("env_config: ") for line in lines)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instruments": ["EURUSDX"]}, r"there is no instrument 'EURUSDX' \(did you mean 'EURUSD'\?\)"),
        ({"instruments": []}, "instruments must name one or more"),
        ({"costs": {"EURUS": {"half_spread": 0.1}}}, r"costs has 'EURUS', which is not traded \(did you mean 'EURUSD'"),
        ({"instrument": "EURGBP"}, "no bars turn GBP, the quote currency of EURGBP, into USD"),
        ({"data": {"files": {"EURUSD": "/nowhere/a.csv"}}}, "/nowhere/a.csv"),
    ],
)
def test_markets_that_there_are_none_of(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        core_of(read_env_config(given))


def test_environments_that_live_together_share_their_market() -> None:
    one = core_of(read_env_config({**SMALL, "instrument": "EURUSD"}))
    assert core_of(read_env_config({**SMALL, "instruments": ["EURUSD"], "reward": {"scale": 1.0}})) is one
    other = core_of(read_env_config({**SMALL, "instrument": "EURUSD", "max_position_size": 0.2}))
    assert other is not one and other.rules.max_position_size == 0.2
    seen = weakref.ref(one)
    del one
    gc.collect()
    assert seen() is None  # nor does it outlive them


def hours(folder: Path, first: float) -> str:
    stamps = [f"2024-01-{1 + t // 24:02d} {t % 24:02d}:00:00" for t in range(200)]
    prices = [first * (1 + 0.001 * (t % 7)) for t in range(200)]
    lines = [f"{stamp},{p},{p},{p},{p}" for stamp, p in zip(stamps, prices, strict=True)]
    file = folder / "bars.csv"
    file.write_text("time,open,high,low,close\n" + "\n".join(lines) + "\n")
    return str(file)


def test_files_are_what_is_traded_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    given = {"data": {"files": {"EURUSD": hours(tmp_path, 1.1)}, "min_bars": 100}, "episode_length": 20}
    core = core_of(read_env_config({**given, "instruments": ["EURUSD", "GBPUSD"]}))
    assert core.instruments == ("EURUSD",)  # GBPUSD has no file, which the log says
    assert core.tape.close[:3, 0].tolist() == pytest.approx([1.1, 1.1011, 1.1022])
    hours(tmp_path, 1.25)
    again = core_of(read_env_config({**given, "instruments": ["EURUSD", "GBPUSD"]}))
    assert again.tape.close[0, 0] == 1.25
