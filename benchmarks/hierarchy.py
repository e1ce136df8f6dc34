"""Does allocation help, does joint training, does projecting gradients? And how near is the known optimum?

    python benchmarks/hierarchy.py claims --seeds 0 1 2 3 4 5 6 7 --jobs 2       # about 40 CPU-minutes
    python benchmarks/hierarchy.py planted --seeds 0 1 2                         # share of the known optimum
    python benchmarks/hierarchy.py null --seeds 0 1 2 ... 9                      # no edge where there is none
    python benchmarks/hierarchy.py budgets                                       # document 002's budgets, by the clock

`claims`: the rotation market (`troupe.envs.market.rotation`), where the signals of one sector work at a time. Every
seed has its own market, weights and test paths, on which all arms trade:

    equal       the specialists of phase 1, equal shares at full risk
    phase 2     the meta-controller over these specialists, frozen
    continued   phase 2 for as many steps more as phase 3 has
    joint       phase 3 from the same weights, with projection of conflicting gradients
    added       the same with gradients that are added

Scores: the mean Sharpe ratio of the test's episodes, and what is learned for, the mean-variance utility of a bar in
basis points (mean - aversion / 2 mean square). Differences are paired by seed (Student's t).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import in_processes

from troupe.config import load
from troupe.envs.market.core import MarketCore, MarketState
from troupe.envs.market.planted import PlantedMarket, planted_optimum
from troupe.envs.market.team import META, TeamVector
from troupe.maths.statistics import mean_interval, paired_difference
from troupe.systems.trading.backtest import Track, episodes
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.judging import judge
from troupe.systems.trading.phase import phase_settings, seed_of
from troupe.systems.trading.phase3 import Phase3JointTrainer
from troupe.systems.trading.phase_metrics import episode_sharpes
from troupe.systems.trading.pipeline import HierarchyTrainer
from troupe.systems.trading.seats import Seat
from troupe.training.ppo_run import PPORun

PRESETS = Path(__file__).parent.parent / "troupe" / "configs" / "trading"
AVERSION = 20
"""Of the preset rotation."""
COMPARED = (
    ("phase 2", "equal"),
    ("joint", "continued"),
    ("joint", "phase 2"),
    ("joint", "added"),
    ("added", "continued"),
    ("continued", "phase 2"),
)


def config(preset: str, seed: int, folder: Path, *overrides: str) -> TradingConfig:
    given = [f"seed={seed}", f"market.simulation.seed={1000 * (seed + 1)}", f"trainer.output_dir={folder}"]
    return load(TradingConfig, preset=PRESETS / f"{preset}.yaml", overrides=[*given, *overrides]).config


# ---------------------------------------------------------------------------------------------- claims


def claims(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    began = time.process_time()
    chosen = config("rotation", seed, folder / f"seed_{seed}", "trainer.processes=1", *overrides)
    trainer = HierarchyTrainer(chosen)
    trainer.train(phases=(1, 2))
    trained = Phase3JointTrainer(chosen, data=trainer.data)
    trained.load_pretrained_models()
    played, equal = judge(trainer.data, chosen, trained.net, "test")
    found = {"equal": _score(equal), "phase 2": _score(played.track)}
    continued(trained, chosen)
    found["continued"] = _score(judge(trainer.data, chosen, trained.net, "test")[0].track)
    for arm, projected in (("joint", True), ("added", False)):
        copy = folder / f"seed_{seed}_{arm}"
        begun_from(folder / f"seed_{seed}", copy)
        changes = (f"trainer.output_dir={copy}", f"phase3.gradient_coordination={projected}")
        arm_config = config("rotation", seed, copy, "trainer.processes=1", *overrides, *changes)
        joint = Phase3JointTrainer(arm_config, data=trainer.data)
        result = joint.train()
        track = judge(trainer.data, arm_config, joint.net, "test")[0].track
        found[arm] = _score(track) | {"gate": result["gate"]["promote"]} | _conflicts(copy)
    return {"arms": found, "cpu_seconds": time.process_time() - began}


def continued(trained: Phase3JointTrainer, chosen: TradingConfig) -> None:
    """Phase 2 goes on for the steps of phase 3, with phase 3's learning rate."""
    envs = TeamVector(trained.core, trained.team, chosen.trainer.n_envs, chosen.reward)
    run = PPORun(
        Seat(envs, META, trained.net), trained.net.module(META), phase_settings(chosen, chosen.phase3.learning_rate),
        total_timesteps=chosen.phase3.total_timesteps, seed=seed_of(chosen.seed, 4),
    )  # fmt: skip
    while run.rollouts < run.total:
        run.rollout()


def begun_from(source: Path, target: Path) -> None:
    """A run folder with the phases 1 and 2 of another."""
    if (target / "phase2_results.json").exists():
        return
    for part in ("phase1", "phase2"):
        shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        shutil.copy(source / f"{part}_results.json", target)


def _score(track: Track) -> dict[str, Any]:
    return {
        "sharpe": float(episode_sharpes(track).mean()),
        "mean": float(track.returns.mean()),
        "per_bar": float(track.returns.mean() / track.returns.std()),
        "turnover": float(track.turnover.mean()),
    }


def _utility(row: Mapping[str, float]) -> float:
    """Basis points a bar."""
    deviation = row["mean"] / row["per_bar"]
    return 1e4 * (row["mean"] - AVERSION / 2 * (deviation**2 + row["mean"] ** 2))


def _conflicts(folder: Path) -> dict[str, Any]:
    """Mean cosine of the two gradients on the specialists' encoders, and how often they opposed each other."""
    rows = [json.loads(line) for line in (folder / "logs" / "phase3" / "metrics.jsonl").read_text().splitlines()]
    found = {}
    for name in ("cosine", "conflicts"):
        values = [v for row in rows for key, v in row.items() if key.startswith(f"coordination/{name}/")]
        found[name] = float(np.mean(values)) if values else None
    return found


def show_claims(records: list[dict[str, Any]]) -> None:
    print(f"{'arm':10s} {'Sharpe, annual':>28s} {'utility, bp a bar':>26s} {'Sharpe per bar':>15s} {'turnover':>9s}")
    for arm in records[0]["arms"]:
        rows = [record["arms"][arm] for record in records]
        at, worth = mean_interval([row["sharpe"] for row in rows]), mean_interval([_utility(row) for row in rows])
        bar, turnover = (float(np.mean([row[key] for row in rows])) for key in ("per_bar", "turnover"))
        print(
            f"{arm:10s} {at.mean:8.2f} [{at.low:7.2f}, {at.high:7.2f}] {worth.mean:8.2f} [{worth.low:6.2f}, "
            f"{worth.high:6.2f}] {bar:15.3f} {turnover:9.3f}"
        )
    for one, other in COMPARED:
        said = []
        for name, score in (("Sharpe", lambda row: row["sharpe"]), ("utility", _utility)):
            pairs = [[score(record["arms"][arm]) for record in records] for arm in (one, other)]
            gap = paired_difference(*pairs)
            shown = "shown" if gap.low > 0 else "not shown"
            said.append(f"{name} {gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] {shown}")
        print(f"{one} - {other}, {len(records)} seeds: {'; '.join(said)}")
    for arm in ("joint", "added"):
        rows = [record["arms"][arm] for record in records]
        cosine, conflicts = (float(np.mean([row[key] for row in rows])) for key in ("cosine", "conflicts"))
        print(f"{arm}: cosine on the encoders {cosine:+.3f}, opposed in {conflicts:.0%} of the updates")
    print(f"{sum(record['cpu_seconds'] for record in records):.0f} CPU-seconds")


# ---------------------------------------------------------------------------------------------- the known optimum


def planted(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Eight independent planted instruments: the best policy trades each of them as if it were alone, on the same test
    paths."""
    began = time.process_time()
    chosen = config("planted", seed, folder / f"seed_{seed}", "trainer.processes=1", *overrides)
    trainer = HierarchyTrainer(chosen)
    trainer.train()
    data = trainer.data
    rows, bars = data.episodes("test")
    core = data.core("test")
    traded = trainer.traded()
    track = trainer.play(traded, "test").track
    names = core.instruments
    optimum = planted_optimum(PlantedMarket(names))
    best = episodes(core, _Optimal(data, optimum.policy), rows, bars)
    per_bar, known, measured = (
        float(track.returns.mean() / track.returns.std()), optimum.sharpe,
        float(best.returns.mean() / best.returns.std()),
    )  # fmt: skip
    return {
        "traded phase": traded.phase, "per_bar": per_bar, "optimum": known, "optimum on these paths": measured,
        "share": per_bar / measured, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


class _Optimal:
    """The dynamic programme's policy for every instrument, on the same observations."""

    def __init__(self, data: TradingData, policy: Any) -> None:
        self._columns = [data.names.index(f"signal_{name}") for name in data.markets["test"].bars[0].instruments]
        self._normaliser, self._policy = data.normaliser, policy

    def __call__(self, core: MarketCore, state: MarketState) -> Any:
        normaliser, columns = self._normaliser, self._columns
        seen = core.tape.features[state.row][:, columns]
        signals = seen * normaliser.std[columns] + normaliser.mean[columns]
        return self._policy(signals, core.weights(state)) / core.rules.max_position_size


def show_planted(records: list[dict[str, Any]]) -> None:
    at = mean_interval([record["share"] for record in records])
    for record in records:
        print({key: round(value, 3) for key, value in record.items()})
    print(f"share of the optimum on the same paths: {at.mean:.1%} [{at.low:.1%}, {at.high:.1%}] over {at.n} seeds")


def null(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The same without an edge."""
    chosen = config("null", seed, folder / f"seed_{seed}", "trainer.processes=1", *overrides)
    result = HierarchyTrainer(chosen).train()
    return {
        "traded phase": result.traded, "improved": list(result.improved), "p": result.edge.p_value,
        "edge": result.edge.significant,
    }  # fmt: skip


def show_null(records: list[dict[str, Any]]) -> None:
    for record in records:
        print(record)
    print(f"edges found at 1 %: {sum(record['edge'] for record in records)} of {len(records)} seeds")


# ---------------------------------------------------------------------------------------------- budgets


def budgets(folder: Path, overrides: list[str]) -> None:
    """Document 002's timesteps, minibatches and epochs, from nothing to the end."""
    began = time.perf_counter()
    chosen = config("documented", 0, folder / "documented", *overrides)
    trainer = HierarchyTrainer(chosen)
    for number in (1, 2, 3):
        at = time.perf_counter()
        result = trainer.train(phases=(number,))
        print(f"phase {number}: {time.perf_counter() - at:.0f} s", flush=True)
    print(f"all phases: {time.perf_counter() - began:.0f} s; traded: phase {result.traded}")


ARMS = {"claims": (claims, show_claims), "planted": (planted, show_planted), "null": (null, show_null)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=[*ARMS, "budgets"], default="claims")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_hierarchy"))
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    if arguments.one:
        what, seed = arguments.one[0], int(arguments.one[1])
        record = ARMS[what][0](seed, arguments.folder / what, arguments.overrides)
        (arguments.folder / f"{what}-{seed}.json").write_text(json.dumps(record))
    elif arguments.what == "budgets":
        budgets(arguments.folder, arguments.overrides)
    else:
        pairs = [(arguments.what, seed) for seed in arguments.seeds]
        in_processes(__file__, pairs, arguments, [arguments.what, *arguments.overrides])
        paths = [arguments.folder / f"{arguments.what}-{seed}.json" for seed in arguments.seeds]
        ARMS[arguments.what][1]([json.loads(path.read_text()) for path in paths])


if __name__ == "__main__":
    main()
