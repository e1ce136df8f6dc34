from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from troupe.errors import ConfigError
from troupe.models.config import HRMConfig, TRMConfig
from troupe.models.recursive_agents import RecursiveAgent, create_hrm_agent, create_trm_agent

HRM = HRMConfig(h_dim=16, l_dim=8, num_h_layers=1, num_l_layers=1, max_outer_steps=3, heads=2, patch=4, max_actions=12)
TRM = TRMConfig(latent_dim=16, hidden_dim=24, num_recursions=3, heads=2, patch=4, rounds=2, updates=2, max_actions=12)


def agents() -> list[RecursiveAgent]:
    return [create_hrm_agent(HRM), create_trm_agent(TRM)]


def rows(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def after(agent: RecursiveAgent, given: Tensor, actions: int, steps: int) -> tuple[Tensor, Tensor]:
    """What the agent would say if it had so many segments."""
    x = agent.embed(given, actions)
    carry = agent.core.initial_carry(len(x), x.shape[1])
    for _ in range(steps):
        carry = agent.core(carry, x)
    answer = carry.high[:, 0]
    return agent.ask(answer) @ agent.queries[:actions].T, torch.tanh(agent.worth(answer)).squeeze(-1)


def test_the_documents_calls() -> None:
    hrm = create_hrm_agent(HRMConfig(h_dim=512, l_dim=256, num_h_layers=2, num_l_layers=4), device="cpu")
    trm = create_trm_agent(TRMConfig(latent_dim=256, num_recursions=16, deep_supervision=True), device="cpu")
    assert (hrm.steps, hrm.halt_threshold, trm.steps, trm.deep) == (10, 0.95, 16, True)
    assert hrm.core.begin_high.shape == (512,) and hrm.core.begin_low.shape == (256,)
    assert len(hrm.core.h_level.blocks) == 2 and len(hrm.core.l_level.blocks) == 4  # type: ignore[union-attr]


def test_upstreams_output_dim_is_the_number_of_actions() -> None:
    assert create_trm_agent(TRM, 7, "cpu").max_actions == 7
    assert create_trm_agent(TRM, "cpu").max_actions == 12
    assert create_trm_agent(TRM, output_dim=5).max_actions == 5


@pytest.mark.parametrize("agent", agents())
def test_one_agent_plays_any_world(agent: RecursiveAgent) -> None:
    agent.eval()
    for shape, actions in (((2, 3, 3), 9), ((5,), 12), ((7,), 1)):
        view = agent.for_world(shape, actions)
        logits, values = view(rows(4, *shape))
        assert logits.shape == (4, actions) and values.shape == (4,)
        assert (logits.softmax(-1) - 1 / actions).abs().max() < 0.05
        assert values.abs().max() < 0.5
        assert logits.std() > 0 and values.std() > 0


@pytest.mark.parametrize("agent", agents())
def test_in_play_the_last_segment_answers(agent: RecursiveAgent) -> None:
    found, expected = agent.eval()(rows(4, 6), 5), after(agent, rows(4, 6), 5, 3)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("agent", agents())
@pytest.mark.parametrize("n", [2, 7])
def test_in_training_each_row_is_judged_after_its_own_segment(agent: RecursiveAgent, n: int) -> None:
    given = rows(n, 6)
    logits, values = agent.train()(given, 5)
    for i in range(n):
        expected = after(agent, given, 5, 1 + i % 3)
        torch.testing.assert_close(logits[i], expected[0][i])
        torch.testing.assert_close(values[i], expected[1][i])
    weights = dict(agent.named_parameters())
    grads = torch.autograd.grad(
        logits.square().sum() + values.square().sum(), list(weights.values()), allow_unused=True
    )
    unused = {name for name, grad in zip(weights, grads, strict=True) if grad is None}
    assert unused <= {"halt.weight", "halt.bias"}


@pytest.mark.parametrize("agent", agents())
def test_candidates_are_compared_after_the_same_segment(agent: RecursiveAgent) -> None:
    torch.testing.assert_close(agent.train()(rows(4, 6), 1)[0], after(agent, rows(4, 6), 1, 3)[0])


def test_without_deep_supervision_the_last_segment_alone_is_judged() -> None:
    agent = create_trm_agent(TRM.model_copy(update={"deep_supervision": False})).train()
    torch.testing.assert_close(agent(rows(4, 6), 5)[0], after(agent, rows(4, 6), 5, 3)[0])


def test_rows_halt_one_by_one() -> None:
    agent = create_hrm_agent(HRM.model_copy(update={"halt_threshold": 0.5})).eval()
    given = rows(6, 6)
    assert agent.halt is not None
    x = agent.embed(given, 5)
    first = agent.core(agent.core.initial_carry(6, x.shape[1]), x).high[:, 0]
    agent.halt.weight.data[0] = torch.randn(16, generator=torch.Generator().manual_seed(1))
    agent.halt.bias.data.fill_(0.0)
    scores = agent.halt(first)[:, 0].detach()
    agent.halt.bias.data.fill_(-float(scores.median()))  # half of the rows, or one more, halt after the first segment
    halted = agent.halt(first)[:, 0] >= 0
    assert 0 < int(halted.sum()) < 6
    logits = agent(given, 5)[0]
    torch.testing.assert_close(logits[halted], after(agent, given, 5, 1)[0][halted])
    assert not torch.allclose(logits[~halted], after(agent, given, 5, 1)[0][~halted])


def test_a_threshold_of_nothing_stops_at_once_and_one_of_everything_never() -> None:
    for threshold, steps in ((0.0, 1), (1.0, 3), (0.95, 3)):
        agent = create_hrm_agent(HRM.model_copy(update={"halt_threshold": threshold})).eval()
        torch.testing.assert_close(agent(rows(4, 6), 5)[0], after(agent, rows(4, 6), 5, steps)[0])


def test_worlds_of_another_size_look_different() -> None:
    agent = create_hrm_agent(HRM).eval()
    given = rows(2, 6)
    assert not torch.allclose(agent(given, 5)[0], agent(given, 6)[0][:, :5])


@pytest.mark.parametrize("config", [HRM, TRM])
def test_every_key_acts(config: HRMConfig | TRMConfig) -> None:
    changed = {"h_dim": 32, "l_dim": 12, "num_h_layers": 2, "num_l_layers": 2, "max_outer_steps": 2, "heads": 4,
               "halt_threshold": 0.0, "h_cycles": 1, "l_cycles": 1, "patch": 3, "max_actions": 6, "seed": 1,
               "latent_dim": 32, "hidden_dim": 8, "num_recursions": 2, "deep_supervision": False, "layers": 1,
               "rounds": 1, "updates": 1}  # fmt: skip
    create = create_hrm_agent if isinstance(config, HRMConfig) else create_trm_agent
    reference = create(config).train(isinstance(config, TRMConfig))  # type: ignore[arg-type]
    for key in type(config).model_fields:
        agent = create(config.model_copy(update={key: changed[key]}))  # type: ignore[arg-type]
        agent.train(isinstance(config, TRMConfig))
        found, expected = agent(rows(4, 6), 5)[0], reference(rows(4, 6), 5)[0]
        assert not torch.allclose(found, expected), key


@pytest.mark.parametrize(
    ("config", "key", "why"),
    [
        (HRMConfig, "dropout", "HRM has no dropout"),
        (HRMConfig, "max_ponder_steps", "write max_outer_steps"),
        (TRMConfig, "convergence_threshold", "all num_recursions steps are run"),
        (TRMConfig, "use_layer_norm", "root mean squares"),
    ],
)
def test_keys_of_others_are_refused_with_the_reason(config: type, key: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        config(**{key: 0.1})


def test_more_actions_than_queries() -> None:
    with pytest.raises(ConfigError, match="write max_actions: 13"):
        create_hrm_agent(HRM).for_world((3,), 13)
