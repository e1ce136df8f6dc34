"""Models and the policies on them: ordinary files, adapters that do not touch one another, exports that need
nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from troupe.errors import ConfigError, UserError
from troupe.models.config import LoraSettings, ModelConfig
from troupe.models.language import (
    LanguageModel,
    Policy,
    ValueModel,
    build_tokenizer,
    load_language_model,
    resolve_device,
)
from troupe.models.scoring import score, value

IDS = torch.tensor([[5, 70, 71, 72, 9, 14, 100, 33]])


def logits(model: LanguageModel, adapter: str | None = None, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad(), model.using(adapter):
        return model.network(ids).logits[..., : model.vocabulary].float()


@pytest.fixture(scope="module")
def adapted(tiny_model: Callable[..., LanguageModel]) -> LanguageModel:
    """Two adapters on one base, both moved away from where they start."""
    pytest.importorskip("peft", reason="adapters need the extra 'lora'")
    model = tiny_model(seed=1, layers=1)
    for name in ("left", "right"):
        model.add_adapter(name, LoraSettings(rank=2, alpha=4.0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


# ---------------------------------------------------------------------------------------------- files


def test_saved_files_are_ordinary_hugging_face_files(tiny: LanguageModel, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny.save(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(plain(IDS).logits[..., : tiny.vocabulary], logits(tiny))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    talk = [{"role": "user", "content": "Solve 3x + 5 = 20"}]
    ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert tuple(ids) == tiny.format.encode(talk)
    again = load_language_model(tmp_path, ModelConfig(device="cpu"))
    assert torch.equal(logits(again), logits(tiny))
    assert (again.vocabulary, again.max_positions, again.format.by_message) == (tiny.vocabulary, 512, True)
    assert not again.network.training


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone(tiny_model: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, same, other = tiny_model(seed=5, layers=1), tiny_model(seed=5, layers=1), tiny_model(seed=6, layers=1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(logits(first), logits(same)) and not torch.equal(logits(first), logits(other))


def test_padding_of_the_embedding_can_not_be_sampled(tiny: LanguageModel) -> None:
    assert tiny.vocabulary == len(tiny.tokenizer) <= tiny.config.vocab_size
    assert tiny.logits(torch.zeros(1, 32)).shape[-1] == tiny.vocabulary


def test_digits_are_tokens_of_their_own() -> None:
    tokenizer = build_tokenizer(["12345 12345 12345"] * 20, 300)
    assert len(tokenizer.encode("12345", add_special_tokens=False)) == 5


def test_a_path_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path=.*nowhere.*no config\.json in that folder"):
        load_language_model(tmp_path / "nowhere", ModelConfig())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"model\.path=.*cannot be loaded"):
        load_language_model(tmp_path, ModelConfig())


def test_a_name_that_is_no_model_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"model\.path='no-such-team/no-such-model' cannot be loaded"):
        load_language_model("no-such-team/no-such-model", ModelConfig())


def test_a_model_without_a_chat_template_is_refused(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        load_language_model(tmp_path, ModelConfig())


def test_a_device_that_is_absent_is_a_config_error() -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=r"model\.device='abacus' is not usable here"):
        resolve_device("abacus")


# ---------------------------------------------------------------------------------------------- adapters


def test_an_adapter_starts_as_the_base(tiny_model: Callable[..., LanguageModel]) -> None:
    pytest.importorskip("peft")
    model = tiny_model(layers=1)
    before = logits(model)
    model.add_adapter("left", LoraSettings(rank=2))
    assert torch.equal(logits(model, "left"), before) and torch.equal(logits(model, None), before)


def test_adapters_speak_differently_and_the_bare_base_is_within_reach(adapted: LanguageModel, tiny_model: Any) -> None:
    left, right, bare = logits(adapted, "left"), logits(adapted, "right"), logits(adapted, None)
    assert (left - right).abs().max() > 1e-2 and (left - bare).abs().max() > 1e-2
    assert torch.equal(bare, logits(tiny_model(seed=1, layers=1)))
    assert torch.equal(logits(adapted, "left"), left)  # after others had their turn


def test_gradients_reach_only_the_active_adapter(adapted: LanguageModel, make_batch: Any) -> None:
    batch = make_batch([([5, 6, 7], [8, 9]), ([5, 6], [10, 1])])
    policies = {name: Policy(name, adapted, name) for name in ("left", "right")}
    own = {name: dict(policy.named_parameters()) for name, policy in policies.items()}
    assert not set(own["left"]) & set(own["right"])
    taken: dict[str, dict[str, Tensor]] = {}
    for name, policy in policies.items():
        adapted.network.zero_grad(set_to_none=True)
        score(policy, batch).logprobs.sum().backward()
        moved = {n: p.grad.clone() for n, p in adapted.network.named_parameters() if p.grad is not None}
        assert set(moved) == set(own[name]) and all("lora_" in n for n in moved)
        assert all(bool(g.abs().sum() > 0) for g in moved.values())
        taken[name] = moved
    adapted.network.zero_grad(set_to_none=True)
    for policy in policies.values():  # one update of both: neither spoils what the other left
        score(policy, batch).logprobs.sum().backward()
    for name in policies:
        for n, p in own[name].items():
            assert p.grad is not None and torch.equal(p.grad, taken[name][n])
    adapted.network.zero_grad(set_to_none=True)


def test_an_adapter_may_be_named_as_a_module_is(tiny_model: Callable[..., LanguageModel]) -> None:
    """An agent called `model` must not be given the whole base to train."""
    pytest.importorskip("peft")
    model = tiny_model(layers=1)
    for name in ("model", "mlp"):
        model.add_adapter(name, LoraSettings(rank=2))
    own = {name: set(Policy(name, model, name).state()) for name in ("model", "mlp")}
    assert len(own["model"]) == len(own["mlp"]) == 2 * 7 and not own["model"] & own["mlp"]
    assert all(".lora_" in name for names in own.values() for name in names)


def test_a_step_of_one_adapter_changes_nobody_else(tiny_model: Callable[..., LanguageModel], make_batch: Any) -> None:
    pytest.importorskip("peft")
    model = tiny_model(layers=1)
    for name in ("left", "right"):
        model.add_adapter(name, LoraSettings(rank=2))
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    left = Policy("left", model, "left")
    optimizer = torch.optim.SGD([p for _, p in left.named_parameters()], lr=1.0)
    score(left, make_batch([([5, 6, 7], [8, 9])])).logprobs.sum().backward()
    optimizer.step()
    changed = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed and changed <= set(dict(left.named_parameters()))


@pytest.mark.parametrize("adapter", ["left", None])
def test_an_export_says_the_same_without_peft(adapted: LanguageModel, adapter: str | None, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    expected = logits(adapted, adapter)
    Policy("p", adapted, adapter).export(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (plain(IDS).logits[..., : adapted.vocabulary] - expected).abs().max() < 1e-4
    assert not list(tmp_path.glob("adapter*")) and (tmp_path / "tokenizer.json").exists()
    assert torch.equal(logits(adapted, adapter), expected)  # the live model is still whole
    assert set(adapted.adapters) == {"left", "right"} and logits(adapted, "right").shape == expected.shape


# ---------------------------------------------------------------------------------------------- policies


def test_state_round_trips_in_place(tiny_model: Callable[..., LanguageModel]) -> None:
    one, two = tiny_model(seed=1, layers=1), tiny_model(seed=2, layers=1)
    policy = Policy("p", two)
    pointer = next(two.network.parameters()).data_ptr()
    policy.load_state(Policy("p", one).state())
    assert torch.equal(logits(one), logits(two))
    assert next(two.network.parameters()).data_ptr() == pointer


def test_weights_of_another_model_are_refused(tiny_model: Callable[..., LanguageModel], adapted: LanguageModel) -> None:
    policy = Policy("team", tiny_model(layers=1))
    before = {name: tensor.clone() for name, tensor in policy.state().items()}
    with pytest.raises(
        UserError, match=r"policy 'team': .* has shape \(304, 16\) in the checkpoint and \(304, 32\) in the"
    ):
        policy.load_state(Policy("p", tiny_model(layers=1, hidden_size=16)).state())
    with pytest.raises(UserError, match=r"do not fit this model; first difference: 'model\.layers\.1\."):
        policy.load_state(Policy("p", tiny_model(layers=2)).state())
    with pytest.raises(UserError, match="do not fit this model"):
        policy.load_state(Policy("left", adapted, "left").state())
    state = Policy("p", tiny_model(seed=9, layers=1)).state()
    state["model.norm.weight"] = torch.ones(3)  # the last one: what comes before it must not have been copied
    with pytest.raises(UserError, match=r"'model\.norm\.weight' has shape \(3,\)"):
        policy.load_state(state)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state().items())


def test_a_snapshot_stands_still(tiny_model: Callable[..., LanguageModel], adapted: LanguageModel) -> None:
    policy = Policy("team", tiny_model(layers=1))
    policy.version = 4
    frozen = policy.snapshot("team@frozen")
    with torch.no_grad():
        next(policy.model.network.parameters()).add_(1.0)
    assert frozen.frozen and frozen.version == 4
    assert not torch.equal(logits(frozen.model), logits(policy.model))
    again = Policy("right", adapted, "right").snapshot("r")
    assert torch.equal(logits(again.model, "right"), logits(adapted, "right"))


# ---------------------------------------------------------------------------------------------- critics


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_a_critic_starts_at_zero_and_learns(
    tiny: LanguageModel, adapted: LanguageModel, make_batch: Any, kind: str
) -> None:
    policy = Policy("p", tiny) if kind == "plain" else Policy("left", adapted, "left")
    batch = make_batch([([5, 6, 7], [8, 9]), ([5, 6], [10, 1])])
    critic = ValueModel(policy)
    assert not bool(value(critic, batch).any())
    trained = dict(critic.named_parameters())
    assert not any("lora_" in name for name in trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    for _ in range(3):  # the head moves first, then gradients reach the backbone
        optimizer.zero_grad()
        ((value(critic, batch) - 1.0) * batch["mask"]).square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None for p in trained.values())
    assert float(value(critic, batch).detach()[batch["mask"].bool()].mean()) > 0.05
    before = {id(p) for p in policy.model.parameters()}
    assert not before & {id(p) for p in critic.parameters()}


def test_a_critic_sees_what_its_policy_sees(tiny: LanguageModel, make_batch: Any) -> None:
    """V at column t is the head on the hidden state of column t - 1: the state before the token was drawn."""
    critic = ValueModel(Policy("p", tiny))
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(0))
    batch = make_batch([([5, 6, 7], [8, 9])])
    hidden = tiny.network.model(batch["actions"]).last_hidden_state
    expected = critic.head(hidden)[0, [2, 3], 0]
    assert torch.allclose(value(critic, batch)[0, 3:5], expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------- memory


def test_gradient_checkpointing_is_not_ignored(tiny: LanguageModel, tmp_path: Path, make_batch: Any) -> None:
    """Layers are computed again in the backward pass, the gradients are the same, and decoding keeps its cache."""
    tiny.save(tmp_path)
    batch = make_batch([([5, 6, 7], [8, 9]), ([5, 6], [10, 1])])
    counts: list[int] = []
    gradients: list[Any] = []
    for wanted in (False, True):
        model = load_language_model(tmp_path, ModelConfig(device="cpu", gradient_checkpointing=wanted))
        policy, runs = Policy("p", model), Counted()
        for layer in model.network.model.layers:
            layer.mlp.register_forward_pre_hook(runs)  # the second pass stops before the end
        score(policy, batch).logprobs.sum().backward()
        assert not any(module.training for module in model.network.modules())
        counts.append(runs.number)
        gradients.append(next(model.network.parameters()).grad)
        critic = ValueModel(policy)
        torch.nn.init.ones_(critic.head.weight)
        value(critic, batch).sum().backward()
        counts.append(runs.number - counts[-1])
        with torch.no_grad():
            score(policy, batch)
        counts.append(runs.number - counts[-1] - counts[-2])
    assert counts == [2, 2, 2, 4, 4, 2]
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_compilation_changes_no_gradient(tiny: LanguageModel, make_batch: Any) -> None:
    """For a policy and its critic, on batches of several shapes."""
    tiny.use_exact_attention(True)
    batches = [make_batch([([5, 6, 7], [8, 9]), ([5, 6], [10, 1])]), make_batch([([5, 6, 7, 4, 3], [8, 9, 2])])]
    found: dict[bool, list[Any]] = {}
    for compiled in (False, True):
        tiny.compiled = compiled
        policy = Policy("p", tiny)
        critic = ValueModel(policy)
        torch.nn.init.ones_(critic.head.weight)
        tiny.zero_grad()
        for batch in batches:
            score(policy, batch).logprobs.sum().backward()
            value(critic, batch).sum().backward()
        found[compiled] = [p.grad.clone() for model in (tiny, critic) for p in model.parameters()]
    assert max(float(g.abs().max()) for g in found[False]) > 0.1
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found.values(), strict=True))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


class Counted:
    """A hook that counts forward passes; copies of its module share it."""

    number = 0

    def __call__(self, *_: Any) -> None:
        self.number += 1

    def __deepcopy__(self, memo: Any) -> Counted:
        return self
