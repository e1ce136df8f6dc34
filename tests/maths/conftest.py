"""Trainers of independent packages, tiny and on the CPU, whose own methods are the oracles of these tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

GENERATIONS = 4
PROMPTS = 2


@pytest.fixture(scope="session")
def trl_trainer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SimpleNamespace]:
    """`trl_trainer("GRPO", **config)` builds a real GRPOTrainer or RLOOTrainer around a random Qwen2 of a few thousand
    parameters. `.rewards` of the answer is what its reward function pays next; `.trainer` is the trainer."""
    trl = pytest.importorskip("trl", reason="the TRL oracle needs the extra 'sft'")
    datasets = pytest.importorskip("datasets", reason="the TRL oracle needs the extra 'sft'")

    def build(kind: str, **config: Any) -> SimpleNamespace:
        handle = SimpleNamespace(rewards=[0.0] * (PROMPTS * GENERATIONS))

        def pay(completions: list[Any], **_: Any) -> list[float]:
            return list(handle.rewards)

        arguments = getattr(trl, f"{kind}Config")(
            output_dir=str(tmp_path_factory.mktemp(kind)),
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=PROMPTS * GENERATIONS,
            num_generations=GENERATIONS,
            max_completion_length=5,
            seed=0,
            **config,
        )
        handle.trainer = getattr(trl, f"{kind}Trainer")(
            model=_tiny_model(),
            reward_funcs=pay,
            args=arguments,
            train_dataset=datasets.Dataset.from_list([{"prompt": "a b"}, {"prompt": "c"}] * 4),
            processing_class=_tiny_tokenizer(),
        )
        return handle

    return build


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def _tiny_model() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=11,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


@pytest.fixture(scope="session")
def sb3_ppo() -> Callable[..., Any]:
    """`sb3_ppo(**options)` is stable-baselines3's PPO with one rollout of CartPole collected, whose policy has then
    been moved, so that ratios leave 1, and whose learning rate is 0: `train()` leaves the weights alone and gradients
    behind.
    """
    sb3 = pytest.importorskip("stable_baselines3", reason="the PPO oracle needs stable-baselines3")

    def build(**options: Any) -> Any:
        ppo = sb3.PPO(
            "MlpPolicy",
            "CartPole-v1",
            n_steps=64,
            batch_size=64,
            n_epochs=1,
            learning_rate=0.0,
            max_grad_norm=math.inf,
            normalize_advantage=False,
            policy_kwargs={"net_arch": [8]},
            seed=0,
            device="cpu",
            **options,
        )
        ppo.learn(total_timesteps=64)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in ppo.policy.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return ppo

    return build
