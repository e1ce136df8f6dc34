"""Every key of the walk-forward configuration changes what comes out, and what nothing would read is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.envs.market.samples import random_bars
from troupe.config import load
from troupe.config.recording import Recording
from troupe.config.schema import leaf_paths
from troupe.envs.market.build import load_market
from troupe.envs.market.vector import MarketVector
from troupe.errors import ConfigError, DataError, StorageError
from troupe.systems.env_rl.config import ALIASES, EnvRLConfig
from troupe.systems.env_rl.trainer import EnvTrainer
from troupe.systems.trading.config import WalkForwardConfig
from troupe.systems.trading.walkforward import WalkForward

TINY: dict[str, Any] = {
    "market": {
        "instruments": ["PLANTED"], "features": ["extra"],
        "simulation": {"scenario": "planted", "paths": 1, "bars": 240},
        "rules": {"transaction_cost": 0.001, "max_position_size": 1.0, "warmup_steps": 10, "episode_length": 30},
    },
    "net": {"hidden": [8]},
    "ppo": {"n_steps": 8, "batch_size": 32, "n_epochs": 2},
    "folds": {"count": 1, "embargo": 5},
    "trainer": {"total_timesteps": 64, "n_envs": 4, "seeds": 1, "save_freq": 1, "cost_sweep": [1.0]},
}  # fmt: skip
"""Two rollouts of one policy."""

SIMULATED: dict[str, Any] = {
    "market": {
        "instruments": ["EURUSD", "XAUUSD", "SPX500"], "features": ["instruments", "market"],
        "simulation": {"scenario": "trending", "paths": 1, "bars": 200},
        "rules": {"warmup_steps": 20, "episode_length": 30, "max_position_size": 2.0},
    }
}  # fmt: skip


def config(preset: Any, *overrides: str) -> WalkForwardConfig:
    return load(WalkForwardConfig, preset=preset, overrides=overrides).config


def digest(*arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def market_print(chosen: WalkForwardConfig) -> str:
    """Of everything that accounts with random actions go through; a market that there is none of is its error."""
    try:
        market = load_market(chosen.market)
        envs = MarketVector(market.core(market.fitted()), 8, chosen.reward)
    except (ConfigError, DataError) as error:
        return str(error)
    generator, seen = np.random.default_rng(0), [envs.starts, *(bars.times for bars in market.bars)]
    seen.append(envs.reset(generator))
    for _ in range(60):
        observations, rewards, terminated, truncated = envs.step(generator.uniform(-1, 1, (8, envs.action_size)))
        outcome = envs.outcome
        assert outcome is not None
        seen += [observations, rewards, terminated, truncated, envs.state.equity, outcome.value_at_risk, outcome.cost]
        envs.reset(generator, terminated | truncated)
    return digest(*seen, *market.observations)


PORTFOLIO = "reward.kind=portfolio"
VAR = "market.rules.max_portfolio_var=0.002"
RULES = [
    ("market.instruments=[EURUSD,XAUUSD]", ()),
    ("market.costs={XAUUSD: {half_spread: 0.01}}", ()),
    ("market.features=[market]", ()),
    ("market.simulation.scenario=crisis", ()),
    ("market.simulation.difficulty=0.1", ()),
    ("market.simulation.scenarios=[crisis]", ("market.simulation.scenario=mixed",)),
    ("market.simulation.paths=2", ()),
    ("market.simulation.bars=201", ()),
    ("market.simulation.bar_seconds=1800", ()),
    ("market.simulation.seed=1", ()),
    ("market.rules.episode_length=29", ()),
    ("market.rules.warmup_steps=21", ()),
    ("market.rules.initial_capital=1e6", ()),
    ("market.rules.ruin=0.999", ()),
    ("market.rules.transaction_cost=0.01", ()),
    ("market.rules.cost_scale=2", ()),
    ("market.rules.max_participation=0.001", ()),
    ("market.rules.max_position_size=1.9", ()),
    ("market.rules.stop_loss_pct=0.002", ()),
    ("market.rules.max_leverage=2.1", ()),
    ("market.rules.max_sector_allocation=1", ()),
    ("market.rules.max_correlation_exposure=1", ()),
    (VAR, ()),
    ("market.rules.var_confidence=0.9", (VAR,)),
    ("market.rules.var_method=historical", (VAR,)),
    ("market.rules.var_draws=200", (VAR, "market.rules.var_method=monte_carlo")),
    ("market.rules.correlation_window=50", ()),
    ("market.rules.breaker=[{drawdown: 0.001, bars: 3}]", ()),
    ("market.rules.breaker=[{drawdown: 0.001, bars: 4}]", ("market.rules.breaker=[{drawdown: 0.001, bars: 3}]",)),
    ("market.rules.breaker=[{drawdown: 0.002, bars: 3}]", ("market.rules.breaker=[{drawdown: 0.001, bars: 3}]",)),
    ("market.rules.margin_call=20", ()),
    ("reward.kind=log_return", ()),
    ("reward.aversion=5", ("reward.kind=mean_variance",)),
    ("reward.decay=0.1", ("reward.kind=differential_sharpe",)),
    ("reward.scale=10", ()),
    ("reward.kind=portfolio", ()),
    ("reward.decay=0.1", (PORTFOLIO,)),
    ("reward.risk_penalty_weight=2", (PORTFOLIO, "reward.max_drawdown_target=0.001")),
    ("reward.transaction_cost_weight=2", (PORTFOLIO,)),
    ("reward.diversification_bonus_weight=0", (PORTFOLIO,)),
    ("reward.sharpe_target=null", (PORTFOLIO, "reward.decay=0.5")),
    ("reward.max_drawdown_target=0.001", (PORTFOLIO,)),
    ("reward.risk_free_rate=0.05", (PORTFOLIO,)),
    ("reward.downside_volatility_weight=2", (PORTFOLIO,)),
]


@pytest.mark.parametrize(("change", "before"), RULES)
def test_every_key_of_a_market_changes_it(change: str, before: tuple[str, ...]) -> None:
    found, plain = market_print(config(SIMULATED, *before, change)), market_print(config(SIMULATED, *before))
    assert len(plain) == len(found) == 64 and found != plain  # neither is an error


def bars_file(folder: Path, name: str, seed: int, hole: int = 0, bad: bool = False, named: bool = True) -> str:
    """Hourly bars, without one if `hole`, with a price of 0 if `bad`, without names of the columns unless `named`."""
    bars, start = random_bars(seed, 300, 1), np.datetime64("2020-01-01", "s")
    lines = ["date,open,high,low,close,volume"]
    for t in range(300):
        prices = [f"{getattr(bars, column)[t, 0]:.6f}" for column in ("open", "high", "low", "close")]
        if bad and t == 40:
            prices[2] = "0"
        if not (hole and t == hole):
            lines.append(",".join([str(start + np.timedelta64(t, "h")).replace("T", " "), *prices, "100"]))
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines if named else lines[1:]) + "\n")
    return str(path)


def moods(folder: Path, name: str, first: str, days: int) -> str:
    path = folder / f"{name}.csv"
    path.write_text("date,value\n" + "".join(f"{np.datetime64(first) + d},{d}\n" for d in range(days)))
    return str(path)


BARE = ("market.data.files.EURUSD={bare}", "market.data.files.USDJPY={bare}")
DATA = [
    ("market.account=JPY", ()),
    ("market.data.zone=America/New_York", ()),
    ("market.data.stamp=close", ()),
    ("market.data.day_close='17:00'", ("market.data.resample=86400", "market.data.min_bars=5")),
    ("market.data.on_error=drop", ("market.data.files.EURUSD={bad}",)),
    ("market.data.max_gap=1800", ()),
    ("market.data.clock=intersection", ()),
    ("market.data.resample=7200", ()),
    ("market.data.min_bars=5000", ()),
    ("market.data.extra={mood: {extra}}", ()),
    ("market.data.extra_lag=86400", ("market.data.extra={mood: {recent}}",)),
    ("market.data.extra_before=7", ("market.data.extra={mood: {late}}",)),
    ("market.data.header=[date,open,high,low,close,volume]", BARE),
    ("market.data.seconds=1800", ()),
    ("market.data.files.EURUSD={other}", ()),
]


@pytest.mark.parametrize(("change", "before"), DATA)
def test_every_key_of_the_files_changes_the_market(tmp_path: Path, change: str, before: tuple[str, ...]) -> None:
    files = {
        "EURUSD": bars_file(tmp_path, "EURUSD", 0, hole=100), "USDJPY": bars_file(tmp_path, "USDJPY", 1),
    }  # fmt: skip
    named = {
        "{bad}": bars_file(tmp_path, "bad", 0, bad=True), "{other}": bars_file(tmp_path, "other", 5),
        "{extra}": moods(tmp_path, "mood", "2019-12-01", 31), "{recent}": moods(tmp_path, "recent", "2019-12-20", 20),
        "{late}": moods(tmp_path, "late", "2020-01-03", 9),
        "{bare}": bars_file(tmp_path, "bare", 0, named=False),
    }  # fmt: skip
    preset = {
        "market": {
            "instruments": ["EURUSD", "USDJPY"], "data": {"files": files, "min_bars": 50},
            "features": ["instruments", "market", "extra"],
            "rules": {"warmup_steps": 5, "episode_length": 5, "max_position_size": 2.0},
        }
    }  # fmt: skip

    def filled(word: str) -> str:
        for name, path in named.items():
            word = word.replace(name, path)
        return word

    given = [filled(word) for word in before]
    assert market_print(config(preset, *given, filled(change))) != market_print(config(preset, *given))


def run_print(chosen: WalkForwardConfig, folder: Path) -> str:
    """Of what learned policies did out of sample, and of what the run says about it."""
    trainer = chosen.trainer.model_copy(update={"default_local_dir": str(folder)})
    result = WalkForward(chosen.model_copy(update={"trainer": trainer})).run()
    costs = [[point.factor, point.sharpe.mean, point.annual_return.mean] for point in result.costs]
    return digest(result.track.returns, result.track.weights, np.array(costs))


RUN = [
    "seed=3", "net.hidden=[8,8]", "net.activation=relu", "net.shared_trunk=true", "net.log_std=-1", "ppo.n_steps=16",
    "ppo.batch_size=16", "ppo.n_epochs=1", "ppo.gamma=0.5", "ppo.gae_lambda=0.5", "ppo.clip_range=0.0001",
    "ppo.clip_range_vf=0.0001", "ppo.normalize_advantage=false", "ppo.ent_coef=0.5", "ppo.vf_coef=5",
    "ppo.max_grad_norm=0.001", "ppo.learning_rate=0.01", "ppo.schedule=[learning_rate]", "ppo.target_kl=1e-12",
    "folds.count=2", "folds.first=0.6", "folds.purge=9", "folds.embargo=9", "folds.rolling=60",
    "trainer.total_timesteps=96", "trainer.n_envs=8", "trainer.seeds=2", "trainer.cost_sweep=[1.0,3.0]",
]  # fmt: skip
SHARED = ("ppo.clip_range_vf=0.0001", "ppo.vf_coef=5")
"""Keys of the critic that reach a policy through a shared trunk alone, or through its gradient's norm."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, str]:
    found = {}
    for shared in (False, True):
        chosen = config(TINY, f"net.shared_trunk={str(shared).lower()}")
        found[shared] = run_print(chosen, tmp_path_factory.mktemp("plain") / "run")
    return found


@pytest.mark.parametrize("change", RUN)
def test_every_key_of_a_run_changes_it(tmp_path: Path, plain: dict[bool, str], change: str) -> None:
    before = ["net.shared_trunk=true"] if change in SHARED else []
    assert run_print(config(TINY, *before, change), tmp_path / "run") != plain[bool(before)]


def test_keys_of_the_folder_say_where_and_how_often(tmp_path: Path) -> None:
    """save_freq, trials, resume, threads: they change no result, and each does what it says."""
    tried = tmp_path / "elsewhere" / "tried.jsonl"

    def chosen(name: str, *words: str) -> WalkForwardConfig:
        folder = f"trainer.default_local_dir={tmp_path / name}"
        return config(TINY, "trainer.total_timesteps=96", f"trainer.trials={tried}", folder, *words)

    for name, frequency in (("seldom", 2), ("often", 1)):
        kept: set[str] = set()

        def seen(*_: Any, name: str = name, kept: set[str] = kept) -> None:
            kept.update(path.name for path in (tmp_path / name / "fold_0" / "seed_0").glob("checkpoint_*"))

        WalkForward(chosen(name, f"trainer.save_freq={frequency}"), progress=seen).run()
        assert kept == ({"checkpoint_1", "checkpoint_2"} if frequency == 1 else {"checkpoint_2"})
    assert len(tried.read_text().splitlines()) == 2 and not (tmp_path / "trials.jsonl").exists()
    with pytest.raises(StorageError, match=r"trainer\.resume=auto"):
        WalkForward(chosen("often", "trainer.resume=never")).run()
    before = torch.get_num_threads()
    WalkForward(chosen("often", "trainer.threads=2"))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_no_key_is_left_out_here() -> None:
    named = {change.split("=")[0] for change, _ in [*RULES, *DATA]} | {change.split("=")[0] for change in RUN}
    named |= {f"trainer.{name}" for name in ("default_local_dir", "save_freq", "trials", "resume", "threads")}
    named |= {"market.data.files" for name in named if name.startswith("market.data.files.")}
    leaves = {leaf.partition(".*")[0] for leaf in leaf_paths(WalkForwardConfig)}
    assert leaves - named == set()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("market.rules.var_method=historical", "is for market.rules.max_portfolio_var"),
        ("market.rules.var_confidence=0.9", "is for market.rules.max_portfolio_var"),
        ("market.rules.var_draws=500", "is for market.rules.var_method=monte_carlo"),
        ("reward.aversion=2", "is for reward.kind=mean_variance"),
        ("reward.decay=0.1", "is for reward.kind=differential_sharpe or portfolio"),
        ("reward.sharpe_target=1", "is for reward.kind=portfolio"),
        ("market.data.zone=UTC", "is for market.data.files"),
        ("market.simulation.difficulty=0.5", "is for the document's scenarios"),
    ],
)
def test_keys_that_nothing_would_read_are_refused(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(TINY, change)


@pytest.mark.parametrize("key", ["extra_lag", "extra_before"])
def test_keys_of_extra_columns_need_one(key: str) -> None:
    given = {"market": {"data": {"files": {"EURUSD": "a.csv"}, key: 5.0}}}
    with pytest.raises(ConfigError, match=rf"{key}: is for market\.data\.extra; write a file"):
        config(given)
    config({"market": {"data": {**given["market"]["data"], "extra": {"mood": "b.csv"}}}})


def test_every_key_of_an_environments_run_is_read(tmp_path: Path) -> None:
    """The configuration of `troupe train env`, as a run reads it."""
    words = ["env.n_envs=2", "n_steps=16", "batch_size=16", "n_epochs=1", "total_timesteps=32", "trainer.logger=[]",
             "evaluation.episodes=2", f"trainer.default_local_dir={tmp_path}"]  # fmt: skip
    recording: Any = Recording(load(EnvRLConfig, overrides=words, aliases=ALIASES).config)
    EnvTrainer(recording).train()
    assert recording.unread() == []
