"""From a config to a team, and what is refused before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.letters import Letters
from troupe.config import load
from troupe.errors import ConfigError, CreditError
from troupe.models.language import LanguageModel
from troupe.systems.workflow_rl.config import ALIASES, WorkflowRLConfig
from troupe.systems.workflow_rl.setup import (
    Cast,
    base_model,
    cast,
    compile_for_learning,
    corpus_of,
    credit_rows,
    make_workflow_factory,
    workflow_class_of,
)
from troupe.tasks.math import MathProblemGenerator
from troupe.workflows import MathToolWorkflow

NAMES = ("analyzer", "executor", "verifier")
TASKS = MathProblemGenerator(seed=0).generate(10)


def config(**changed: Any) -> WorkflowRLConfig:
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate_size": 32}
    small = [f"model.tiny.{key}={value}" for key, value in sizes.items()] + ["model.device=cpu"]
    given = [f"{key.replace('__', '.')}={value}" for key, value in changed.items()]
    if "model__path" in changed:  # which has a size of its own
        small = small[-1:]
    return load(WorkflowRLConfig, overrides=small + given, aliases=ALIASES).config


def team(**changed: Any) -> Cast:
    settings = config(**changed)
    return cast(settings, NAMES, base_model(settings, TASKS, None))


def tensors(model: LanguageModel) -> dict[str, torch.Tensor]:
    return dict(model.network.named_parameters())


# ---------------------------------------------------------------------------------------------- who plays whom


def test_one_policy_for_all() -> None:
    shared = team()
    assert shared.agents == dict.fromkeys(NAMES, "team") and list(shared.policies) == ["team"]
    assert shared.trained == NAMES and shared.trained_policies == ["team"]


def test_an_adapter_per_agent_on_one_base() -> None:
    lora = team(policies__weights="lora", model__lora__rank=4)
    assert lora.agents == {name: name for name in NAMES}
    assert len({id(policy.model) for policy in lora.policies.values()}) == 1
    states = [policy.state() for policy in lora.policies.values()]
    assert all(".lora_" in name for state in states for name in state)
    drawn = [next(t for name, t in state.items() if ".lora_A" in name) for state in states]
    assert drawn[0].shape[0] == 4 and not torch.equal(drawn[0], drawn[1])
    again = team(policies__weights="lora", model__lora__rank=4).policies["executor"].state()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in again.items())
    other = team(policies__weights="lora", model__lora__rank=4, seed=1).policies["executor"].state()
    assert any(not torch.equal(tensor, states[1][name]) for name, tensor in other.items())


def test_drawing_adapters_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    team(policies__weights="lora")
    assert torch.equal(torch.rand(3), expected)


def test_a_copy_per_policy() -> None:
    agents = "{analyzer: coder, executor: coder, verifier: critic}"
    separate = team(policies__weights="separate", policies__agents=agents, policies__train="[verifier]")
    assert list(separate.policies) == ["coder", "critic"] and separate.trained_policies == ["critic"]
    assert not any(policy.frozen for policy in separate.policies.values())
    coder, critic = (policy.state() for policy in separate.policies.values())
    assert all(torch.equal(coder[name], critic[name]) for name in coder)
    assert all(coder[name].data_ptr() != critic[name].data_ptr() for name in coder)


def test_specs_carry_the_limits() -> None:
    specs = team().specs(config(data__max_response_length=7, data__max_prompt_length=99), 0.5)
    assert list(specs) == list(NAMES)
    for spec in specs.values():
        assert (spec.policy, spec.max_prompt_tokens) == ("team", 99)
        assert (spec.sampling.max_tokens, spec.sampling.temperature) == (7, 0.5)


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"algorithm__agents": "{verifer: {loss: cispo}}"},
            r"algorithm\.agents names the unknown agent 'verifer' \(did",
        ),
        ({"policies__agents": "{analyser: a}"}, r"policies\.agents names the unknown agent 'analyser' \(did you mean"),
        ({"policies__agents": "{analyzer: a}"}, "agent 'executor' has no policy; add executor: POLICY"),
        ({"policies__agents": "{analyzer: a, executor: b, verifier: a}"}, "weights=shared has one policy"),
        ({"policies__train": "[judge]"}, r"policies\.train names the unknown agent 'judge' \(known: analyzer"),
        ({"policies__train": "[]"}, r"policies\.train is empty"),
    ],
)
def test_casts_that_do_not_fit(changed: dict[str, str], message: str) -> None:
    """The credit table is made before any model is loaded, so the refusal comes at once."""
    workflow = make_workflow_factory(MathToolWorkflow, {}, "math_tool")()
    with pytest.raises(CreditError, match=message):
        credit_rows(config(**changed), workflow)


def test_the_credit_table_of_the_math_team() -> None:
    workflow = make_workflow_factory(MathToolWorkflow, {}, "math_tool")()
    rows = credit_rows(config(policies__train="[executor]", policies__weights="lora"), workflow)
    assert [(row.agent, row.policy, row.trained) for row in rows] == [
        (name, name, name == "executor") for name in NAMES
    ]
    assert rows[1].estimator == "gae" and rows[1].group == "-"
    assert rows[0].reward == "1 if its plan computes to the right answer"


# ---------------------------------------------------------------------------------------------- workflows


def test_workflows_receive_their_reward_and_tools() -> None:
    make = make_workflow_factory(MathToolWorkflow, {"max_refinement_iterations": 7}, "math_tool")
    first, second = make(), make()
    assert first is not second and first.max_refinement_iterations == 7 and first.tools[0](expression="1+1") == "2"


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"workflow\.args\.max_refinement_iteration: MathToolWorkflow takes no such"):
        make_workflow_factory(MathToolWorkflow, {"max_refinement_iteration": 1}, "math_tool")
    with pytest.raises(ConfigError, match=r"workflow\.args do not fit"):
        make_workflow_factory(MathToolWorkflow, {})  # no reward function where the class is not the named one
    with pytest.raises(ConfigError, match="at least 1"):
        make_workflow_factory(MathToolWorkflow, {"max_refinement_iterations": 0}, "math_tool")()
    assert make_workflow_factory(Letters, {"enough": 0.1})().enough == 0.1
    assert workflow_class_of("math_tool") is MathToolWorkflow
    with pytest.raises(ConfigError, match=r"'math_tol' is not known \(did you mean 'math_tool'\?\)"):
        workflow_class_of("math_tol")


# ---------------------------------------------------------------------------------------------- the model


def test_the_tiny_model_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    """Weights, vocabulary and splitting rules: a resumed run must continue with the very same model."""
    settings = config()
    built = base_model(settings, TASKS, tmp_path)
    built.save(tmp_path)
    loaded = base_model(settings, [], tmp_path)
    assert loaded.vocabulary == built.vocabulary and loaded.max_positions == built.max_positions
    assert all(torch.equal(tensor, tensors(built)[name]) for name, tensor in tensors(loaded).items())
    for text in ["Solve 3x + 5 = 20", "don't  stop\n\n12.5", "\u00e9e\u0301 \ufb01", "<ans>ok</ans>"]:
        asked = [{"role": "user", "content": text}]
        assert loaded.format.encode(asked) == built.format.encode(asked)
    everything = list(range(built.vocabulary))
    assert loaded.format.decode(everything) == built.format.decode(everything)


def test_seed_and_tasks_make_the_tiny_model() -> None:
    one, two, other = (base_model(config(seed=seed), TASKS, None) for seed in (0, 0, 1))
    assert all(torch.equal(tensor, tensors(two)[name]) for name, tensor in tensors(one).items())
    assert any(not torch.equal(tensor, tensors(other)[name]) for name, tensor in tensors(one).items())


def test_half_precision_is_the_same_before_and_after_the_disk(tmp_path: Path) -> None:
    settings = config(model__dtype="bfloat16")
    built = base_model(settings, TASKS, tmp_path)
    assert {tensor.dtype for tensor in tensors(built).values()} == {torch.bfloat16}
    built.save(tmp_path)
    loaded = base_model(settings, [], tmp_path)
    assert {tensor.dtype for tensor in tensors(loaded).values()} == {torch.bfloat16}
    buffers = dict(built.network.named_buffers())
    assert buffers and all(torch.equal(tensor, buffers[name]) for name, tensor in loaded.network.named_buffers())


def test_recomputing_activations_changes_no_gradient() -> None:
    gradients: list[dict[str, Any]] = []
    passes = [0, 0]

    def count(which: int) -> None:
        passes[which] += 1

    for i, switch in enumerate(("false", "true")):
        model = base_model(config(model__gradient_checkpointing=switch), TASKS, None)
        model.network.model.layers[0].mlp.register_forward_pre_hook(lambda *_, i=i: count(i))
        ids = torch.arange(6, 18)[None]
        mask = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
        model.logits(model.hidden(ids, torch.arange(12)[None], mask)).logsumexp(-1).sum().backward()
        gradients.append({name: tensor.grad for name, tensor in tensors(model).items()})
    assert passes == [1, 2]
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_compilation_is_for_the_process_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(model__compile="true", model__device="cpu")
    model = base_model(settings, TASKS, None)
    assert not cast(settings, ("analyzer", "executor", "verifier"), model).policies["team"].model.compiled
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"model\.compile=true needs a C\+\+ compiler"):
        compile_for_learning(model)
    monkeypatch.setenv("CXX", "true")  # a program that is there
    compile_for_learning(model)
    assert model.compiled


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for path in ("./nowhere", tmp_path):
        with pytest.raises(ConfigError, match=r"there is no config\.json in that folder"):
            base_model(config(model__path=path), TASKS, None)
    with pytest.raises(ConfigError, match=r"model\.device='gpu7' is not usable"):
        base_model(config(model__device="gpu7"), TASKS, None)


def test_the_tokenizer_sees_problems_and_worked_solutions() -> None:
    corpus = corpus_of(TASKS, "math_tool")
    assert {task.prompt for task in TASKS} <= set(corpus)
    assert {part for task in TASKS for part in task.solution["plan"]} <= set(corpus)
    assert {"plan", "compute", "check", "Plan: "} <= set(corpus)
