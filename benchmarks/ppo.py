"""PPO beside stable-baselines3: returns with the same settings, and environment steps per CPU-second.

    OMP_NUM_THREADS=1 python benchmarks/ppo.py returns --seeds 3     # CartPole-v1 and Pendulum-v1, the zoo's settings
    OMP_NUM_THREADS=1 python benchmarks/ppo.py speed --rounds 9      # 8 environments on both sides, then 256 on ours

`returns`: both sides train on 100,000 steps with the settings of rl-baselines3-zoo (Pendulum without state-dependent
exploration, which we do not have) and are evaluated on 50 episodes, likeliest actions. The intervals are Student's,
over the seeds' means. `speed`: 256 steps, minibatches of 256, 10 epochs, 2 x 64 units, CartPole-v1; the sides
take turns in one process and one thread, a ratio is that of one round, and the table shows the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from troupe.cli.env import resolve_env
from troupe.maths.statistics import Interval, mean_interval
from troupe.models.actor_critic import ActorCritic
from troupe.models.config import ActorCriticConfig
from troupe.systems.env_rl.config import EnvRLConfig
from troupe.systems.env_rl.trainer import EnvTrainer
from troupe.training.collection import Collector
from troupe.training.config import PPOConfig
from troupe.training.ppo import ppo_learner, ppo_update
from troupe.training.vector_envs import GymnasiumEnvs

NAMES = ("CartPole-v1", "Pendulum-v1")
EPISODES = 50
WIDE = 256


def config_of(name: str, seed: int, folder: Path) -> EnvRLConfig:
    words = [f"env={name}", f"seed={seed}", f"trainer.default_local_dir={folder}", "trainer.logger=[jsonl]"]
    return resolve_env(None, [], [*words, f"evaluation.episodes={EPISODES}", "trainer.save_freq=1000"]).config


def theirs(config: EnvRLConfig) -> PPO:
    """Their learner with our settings."""
    ppo = config.ppo
    falling = {name: partial(float.__mul__, float(getattr(ppo, name))) for name in ppo.schedule}  # times what is left
    rates = {"learning_rate": ppo.learning_rate, "clip_range": ppo.clip_range} | falling
    return PPO(
        "MlpPolicy", make_vec_env(config.env.id, config.env.n_envs, seed=config.seed), n_steps=ppo.n_steps,
        batch_size=ppo.batch_size, n_epochs=ppo.n_epochs, gamma=ppo.gamma, gae_lambda=ppo.gae_lambda,
        ent_coef=ppo.ent_coef, vf_coef=ppo.vf_coef, max_grad_norm=ppo.max_grad_norm, seed=config.seed, device="cpu",
        **rates,
    )  # fmt: skip


def one_seed(name: str, seed: int) -> tuple[float, float, float, float]:
    """(our return, theirs, our CPU-seconds, theirs)."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(name, seed, Path(folder))
        result = EnvTrainer(config).train()
    began = time.process_time()
    model = theirs(config)
    model.learn(config.trainer.total_timesteps)
    fresh = make_vec_env(name, 1, seed=10_000 + seed)
    reached, _ = evaluate_policy(model, fresh, n_eval_episodes=EPISODES, deterministic=True)
    return result.returns.mean, float(reached), result.cpu_seconds, time.process_time() - began


def shown(interval: Interval) -> str:
    return f"{interval.mean:8.1f} [{interval.low:8.1f}, {interval.high:8.1f}]"


def returns(seeds: int) -> int:
    """Exit code 1 where the intervals of a task do not overlap and ours is the lower one."""
    behind = False
    print(f"{'environment':14s} {'ours':>30s} {'stable-baselines3':>30s}   CPU-seconds, theirs / ours")
    for name in NAMES:
        found = [one_seed(name, seed) for seed in range(seeds)]
        for seed, row in enumerate(found):
            print(f"  {name}, seed {seed}: {row[0]:.1f} and {row[1]:.1f}")
        ours, others = (mean_interval([row[side] for row in found]) for side in (0, 1))
        behind |= ours.high < others.low
        ratio = statistics.median(row[3] / row[2] for row in found)
        print(f"{name:14s} {shown(ours):>30s} {shown(others):>30s}   {ratio:.2f}")
    return int(behind)


def ours(n: int) -> Callable[[], float]:
    """A rollout and what is learned from it: CPU-seconds per environment step."""
    settings = PPOConfig()
    collector = Collector(
        GymnasiumEnvs.make("CartPole-v1", n), n_steps=settings.n_steps, gamma=settings.gamma,
        gae_lambda=settings.gae_lambda, seed=0,
    )  # fmt: skip
    net = ActorCritic(ActorCriticConfig(), collector.observation_shape, collector.space, seed=0)
    learner = ppo_learner(net, settings, lambda: 1.0)
    generator = torch.Generator().manual_seed(0)

    def step() -> float:
        began = time.process_time()
        batch = collector.collect(net)
        ppo_update(net, batch, learner, settings, generator=generator)
        return (time.process_time() - began) / (n * settings.n_steps)

    return step


def speed(rounds: int) -> None:
    model = theirs(EnvRLConfig())
    per_rollout = 8 * PPOConfig().n_steps

    def peer() -> float:
        began = time.process_time()
        model.learn(per_rollout, reset_num_timesteps=False)
        return (time.process_time() - began) / per_rollout

    arms = {"stable-baselines3, 8": peer, "ours, 8": ours(8), f"ours, {WIDE}": ours(WIDE)}
    model.learn(per_rollout)
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(arms[name]())
    first = found["stable-baselines3, 8"]
    print(f"{'environments':24s} {'steps per CPU-second':>22s} {'ratio':>8s}")
    for name, costs in found.items():
        ratios = [a / b for a, b in zip(first, costs, strict=True)]
        rate, spread = 1 / statistics.median(costs), f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        print(f"{name:24s} {rate:22,.0f} {statistics.median(ratios):8.2f} {spread}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("returns", "speed"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "returns":
        return returns(arguments.seeds)
    speed(arguments.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
