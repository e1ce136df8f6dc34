"""From a config to a team: agents, policies, workflow, credit table; and the start-up checks."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from troupe.agents import AgentSpec
from troupe.episode import Sampling, Task
from troupe.errors import ConfigError, CreditError, did_you_mean
from troupe.models.language import LanguageModel, Policy, build_tiny, load_language_model
from troupe.protocols import Workflow
from troupe.rewards.code import code_reward_fn
from troupe.rewards.math import math_reward_fn
from troupe.rewards.research import research_reward_fn
from troupe.rewards.search import search_reward_fn
from troupe.rewards.swe import locates, swe_reward_fn
from troupe.sandbox.isolation import Isolation
from troupe.sandbox.remembered import Remembered
from troupe.systems.workflow_rl.config import PolicyConfig, WorkflowRLConfig
from troupe.tasks.corpora import load_corpus
from troupe.tools.calculator import Calculator
from troupe.tools.dense import DenseSearchTool, Encoder, EncoderSettings
from troupe.tools.files import Workspace
from troupe.tools.python import PythonTool
from troupe.tools.run_tests import RunTests
from troupe.tools.search import CiteTool, ReadTool, SearchTool
from troupe.training.credit import CreditRow, credit_table
from troupe.workflows import TEACHERS, WORKFLOWS

__all__ = [
    "Cast",
    "base_model",
    "cast",
    "compile_for_learning",
    "corpus_of",
    "credit_rows",
    "make_workflow_factory",
    "workflow_class_of",
]


@cache
def shared_sandbox(isolation: Isolation) -> Remembered:
    """The process's one sandbox of this isolation for model-written programs; with warm workers where it has them.
    Raises ConfigError where it cannot be made here."""
    from troupe.sandbox import Limits, Sandbox

    limits, workers = Limits(wall_seconds=5.0, cpu_seconds=2.0), 2 if isolation == "bubblewrap" else 0
    try:
        return Remembered(Sandbox(limits, isolation=isolation, workers=workers))
    except ConfigError as error:
        raise ConfigError(str(error).replace("isolation=", "workflow.isolation=")) from error  # the sandbox's argument


def _math() -> dict[str, Any]:
    return {"reward_function": math_reward_fn, "calculator": Calculator()}


def _math_with_python(isolation: Isolation) -> dict[str, Any]:
    return {**_math(), "python_tool": PythonTool(partial(shared_sandbox, isolation))}


def _deepcoder(isolation: Isolation) -> dict[str, Any]:
    sandbox = shared_sandbox(isolation)
    return {"reward_function": partial(code_reward_fn, sandbox=sandbox), "run_tests": RunTests(sandbox)}


def _search() -> dict[str, Any]:
    return {"reward_function": search_reward_fn, "search_tool": SearchTool(load=load_corpus)}


def _deepresearch() -> dict[str, Any]:
    tools = {"search_tool": SearchTool(load=load_corpus), "read_tool": ReadTool, "cite_tool": CiteTool}
    return {"reward_function": research_reward_fn, **tools}


@cache
def shared_dense(settings: EncoderSettings) -> DenseSearchTool:
    """The process's one tool of an encoder: each corpus is embedded once. Raises ConfigError, MissingExtra."""
    return DenseSearchTool(Encoder(settings), load=load_corpus)


def _swe(isolation: Isolation) -> dict[str, Any]:
    sandbox = shared_sandbox(isolation)
    return {
        "reward_function": partial(swe_reward_fn, sandbox=sandbox),
        "location_function": locates,
        "workspace": partial(Workspace, sandbox=sandbox),
    }


DEFAULT_ARGS: dict[str, Callable[[], dict[str, Any]]] = {
    "deepresearch": _deepresearch,
    "math_solo": _math,
    "search": _search,
}
"""What a workflow receives where its arguments do not say otherwise: rewards and tools are arguments, never imports."""

SANDBOXED_ARGS: dict[str, Callable[[Isolation], dict[str, Any]]] = {
    "deepcoder": _deepcoder,
    "math_tool": _math_with_python,
    "swe": _swe,
}
"""The same for workflows whose teams write programs."""


def _default_args(name: str | None, isolation: Isolation, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the workflow of this name receives. Raises ConfigError for an isolation where nothing would be isolated."""
    if name in SANDBOXED_ARGS and (name != "math_tool" or (given.get("use_python") and "python_tool" not in given)):
        shared_sandbox(isolation)  # now, rather than at the first program of an episode
    elif isolation != "bubblewrap":
        raise ConfigError(
            f"workflow.isolation={isolation} is for the sandbox of deepcoder, of swe, and of math_tool with "
            "workflow.args.use_python=true, and this run makes none; leave it out"
        )
    if name in SANDBOXED_ARGS:
        return SANDBOXED_ARGS[name](isolation)
    return DEFAULT_ARGS[name]() if name in DEFAULT_ARGS else {}


@dataclass(frozen=True)
class Cast:
    """Who plays whom."""

    policies: dict[str, Policy]
    agents: dict[str, str]  # agent -> policy
    trained: tuple[str, ...]  # agents that learn

    @property
    def trained_policies(self) -> list[str]:
        return list(dict.fromkeys(self.agents[name] for name in self.trained))

    def specs(self, config: WorkflowRLConfig, temperature: float) -> dict[str, AgentSpec]:
        sampling = Sampling(max_tokens=config.data.max_response_length, temperature=temperature)
        return {
            name: AgentSpec(policy, sampling, config.data.max_prompt_length) for name, policy in self.agents.items()
        }

    def with_agents(self, changed: Mapping[str, str], policies: Mapping[str, Policy]) -> Cast:
        """The same cast with some agents played by other policies."""
        return replace(self, agents={**self.agents, **changed}, policies={**self.policies, **policies})


def workflow_class_of(name: str) -> type[Any]:
    if name not in WORKFLOWS:
        raise ConfigError(f"workflow.name={name!r} is not known{did_you_mean(name, WORKFLOWS)}")
    return WORKFLOWS[name]


def make_workflow_factory(
    workflow_class: Callable[..., Workflow],
    arguments: Mapping[str, Any],
    name: str | None = None,
    *,
    isolation: Isolation = "bubblewrap",
) -> Callable[[], Workflow]:
    """A fresh workflow per episode; `isolation` is that of its sandbox, where it has one. Raises ConfigError for an
    argument that the class does not take, and where the sandbox cannot be made."""
    defaults = _default_args(name, isolation, arguments)
    merged = {**defaults, **(_with_library(arguments) if "search_tool" in defaults else arguments)}
    parameters = inspect.signature(workflow_class).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for key in merged:
            if key not in parameters:
                hint = did_you_mean(key, [*parameters, *(RETRIEVAL if "search_tool" in defaults else ())])
                raise ConfigError(f"workflow.args.{key}: {workflow_class.__name__} takes no such argument{hint}")
    try:
        workflow_class(**merged)
    except TypeError as error:
        raise ConfigError(f"workflow.args do not fit the workflow: {error}") from error
    return lambda: workflow_class(**merged)


RETRIEVAL = ("retriever", "encoder")
"""Arguments of the workflows that search, from which their search tool is made."""
RETRIEVERS = ("bm25", "dense")


def _with_library(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with a `search_tool` in place of `retriever` and `encoder`. Raises ConfigError for ones that do not
    fit together."""
    rest = {key: value for key, value in arguments.items() if key not in RETRIEVAL}
    retriever, encoder = (arguments.get(key) for key in RETRIEVAL)
    if retriever is None and encoder is None:
        return rest
    if "search_tool" in rest:
        raise ConfigError("workflow.args has a search_tool; leave out retriever and encoder, which would make another")
    if retriever is not None and retriever not in RETRIEVERS:
        raise ConfigError(
            f"workflow.args.retriever={retriever!r} is not known{did_you_mean(str(retriever), RETRIEVERS)}"
        )
    if retriever == "dense" and encoder is None:
        example = "workflow.args.encoder=intfloat/e5-small-v2"
        raise ConfigError(f"workflow.args.retriever=dense needs an encoder, by name or folder: add {example}")
    if retriever != "dense":
        if encoder is not None:
            raise ConfigError(f"workflow.args.encoder={encoder!r} needs workflow.args.retriever=dense")
        return rest
    return {**rest, "search_tool": shared_dense(EncoderSettings.of(encoder))}


def corpus_of(tasks: Iterable[Task], workflow: str) -> list[str]:
    """Text for the embedded tokenizer: problems, worked solutions and what the workflow adds, as the model will see
    them."""
    texts: list[str] = []
    for task in tasks:
        texts.append(task.prompt)
        if isinstance(task.solution, Mapping):
            texts += [str(x) for part in ("plan", "check", "calls") for x in task.solution.get(part) or ()]
    return texts + list(getattr(workflow_class_of(workflow), "vocabulary", ())) * max(1, len(texts) // 8)


def base_model(config: WorkflowRLConfig, tasks: Sequence[Task], folder: Path | None) -> LanguageModel:
    """The model that policies stand on: the run's own copy where it has one, else `model.path`, else the tiny one."""
    if folder is not None and (folder / "config.json").exists():
        return load_language_model(folder, config.model)
    if config.model.path is not None:
        return load_language_model(config.model.path, config.model)
    import torch

    from troupe.models.language import resolve_device

    model = build_tiny(corpus_of(tasks, config.workflow.name), config.model.tiny, config.seed)
    model.network.to(resolve_device(config.model.device))
    for parameter in model.network.parameters():  # no buffers: a loaded model has float32 rotary frequencies, too
        parameter.data = parameter.data.to(getattr(torch, config.model.dtype))
    if config.model.gradient_checkpointing:
        model.network.gradient_checkpointing_enable()
    return model


def cast(config: WorkflowRLConfig, agent_names: Sequence[str], model: LanguageModel) -> Cast:
    """Policies on `model` and the map from agents to them.

    Raises CreditError for unknown agents, agents without a policy, policies without an agent.
    """
    agents = _agent_map(config, agent_names)
    trained = _trained(config.policies, agent_names)
    model.use_exact_attention(config.model.exact_attention)
    policies = {name: _policy(config, name, i, model) for i, name in enumerate(dict.fromkeys(agents.values()))}
    return Cast(policies, agents, trained)


def compile_for_learning(model: LanguageModel) -> None:
    """`model.compile`, for the process that learns. Raises ConfigError where it cannot be had."""
    compiler = os.environ.get("CXX", "g++")
    if model.device.type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(f"model.compile=true needs a C++ compiler on the CPU, and there is no {compiler!r}")
    model.compiled = True


def _trained(config: PolicyConfig, agent_names: Sequence[str]) -> tuple[str, ...]:
    trained = tuple(config.train if config.train is not None else agent_names)
    for name in trained:
        if name not in agent_names:
            raise CreditError(f"policies.train names the unknown agent {name!r}{did_you_mean(name, agent_names)}")
    if not trained:
        raise CreditError("policies.train is empty: no agent would learn")
    return trained


def _agent_map(config: WorkflowRLConfig, agent_names: Sequence[str]) -> dict[str, str]:
    """agent -> policy."""
    policies = config.policies
    for key, named in (("policies.agents", policies.agents), ("algorithm.agents", config.algorithm.agents)):
        for name in named:
            if name not in agent_names:
                raise CreditError(f"{key} names the unknown agent {name!r}{did_you_mean(name, agent_names)}")
    if not policies.agents:
        return {name: "team" if policies.weights == "shared" else name for name in agent_names}
    for name in agent_names:
        if name not in policies.agents:
            raise CreditError(f"agent {name!r} has no policy; add {name}: POLICY to policies.agents")
    if policies.weights == "shared" and len(set(policies.agents.values())) > 1:
        raise CreditError("policies.weights=shared has one policy; write weights=lora or weights=separate for several")
    return {name: policies.agents[name] for name in agent_names}  # a stored config may have them in another order


def _policy(config: WorkflowRLConfig, name: str, index: int, model: LanguageModel) -> Policy:
    if config.policies.weights == "lora":
        import torch

        with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
            torch.manual_seed(config.seed * 1000 + index)
            model.add_adapter(name, config.model.lora)
        return Policy(name, model, adapter=name)
    if config.policies.weights == "separate" and index > 0:
        copied = Policy(name, model).snapshot(name)
        copied.frozen = False
        return copied
    return Policy(name, model)


def credit_rows(config: WorkflowRLConfig, workflow: Workflow) -> list[CreditRow]:
    """The credit table of a config, before any model is loaded."""
    agents = _agent_map(config, workflow.agent_names)
    return credit_table(agents, _trained(config.policies, workflow.agent_names), workflow.credit, config.algorithm)


def teacher_class(name: str) -> type[Any] | None:
    return TEACHERS.get(name)
