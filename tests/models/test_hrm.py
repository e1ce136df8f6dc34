from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.test_recursion import array, block
from troupe.errors import ConfigError
from troupe.models.config import HRMNetConfig
from troupe.models.hrm import HRM
from troupe.models.recursion import Carry, Stack, block_parameters

SMALL = HRMNetConfig(hidden=8, heads=2, h_layers=1, l_layers=2, round_to=4)
UNEQUAL = SMALL.model_copy(update={"low_hidden": 12})


def net(config: HRMNetConfig = SMALL, seed: int = 0) -> HRM:
    return HRM(config, vocabulary=5, length=4, outputs=3, seed=seed)


def tokens(n: int = 2) -> Tensor:
    return torch.randint(0, 5, (n, 4), generator=torch.Generator().manual_seed(3))


def stack(module: Stack, x: np.ndarray) -> np.ndarray:
    for part in module.blocks:
        x = block(part, x, rotary=True)  # type: ignore[arg-type]
    return x


def test_published_size() -> None:
    # A block: 512*1536 + 512*512 (attention) + 512*3072 + 1536*512 (SwiGLU) = 3,407,872; 8 of them, 27.26 million.
    full = HRM(HRMNetConfig(), vocabulary=11, length=81, outputs=11)
    assert block_parameters(full) == 8 * (512 * 1536 + 512 * 512 + 512 * 3072 + 1536 * 512) == 27_262_976
    # Around them: tokens 11*512, outputs 11*512, Q-head 2*512 + 2, the embedding of one puzzle 512.
    assert sum(p.numel() for p in full.parameters()) == 27_262_976 + 2 * 11 * 512 + 2 * 512 + 2 + 512


@pytest.mark.parametrize("config", [SMALL, UNEQUAL, SMALL.model_copy(update={"h_cycles": 1, "l_cycles": 3})])
def test_a_segment_follows_the_equations(config: HRMNetConfig) -> None:
    model = net(config)
    carry, given = model.initial_carry(2), tokens()
    for _ in range(2):  # from the beginning, and from a carry
        x, z_h, z_l = array(model.embedding(given)), array(carry.high), array(carry.low)
        core = model.core
        down = array(core.down.weight).T if config.low_hidden else np.eye(8)  # type: ignore[arg-type]
        up = array(core.up.weight).T if config.low_hidden else np.eye(8)  # type: ignore[arg-type]
        for _ in range(config.h_cycles):
            for _ in range(config.l_cycles):
                z_l = stack(core.l_level, z_l + (z_h + x) @ down)
            z_h = stack(core.h_level, z_h + z_l @ up)
        segment = model(carry, given)
        np.testing.assert_allclose(array(segment.carry.high), z_h, atol=1e-5)
        np.testing.assert_allclose(array(segment.carry.low), z_l, atol=1e-5)
        logits = z_h[:, config.prefix :] @ array(model.readout.outputs.weight).T
        np.testing.assert_allclose(array(segment.logits), logits, atol=1e-5)
        carry = segment.carry


def unrolled(model: HRM, carry: Carry, given: Tensor) -> Tensor:
    """Logits with all states as constants but the last of L and H."""
    core, config, x = model.core, model.config, model.embedding(given)
    context = core._context(x, core.begin_high, None)
    z_h, z_l = carry
    total = config.h_cycles * config.l_cycles
    for update in range(1, total + 1):
        z_l = core.l_level(z_l, core.down(z_h + x), context)
        z_l = z_l if update == total else z_l.detach()
        if update % config.l_cycles == 0:
            z_h = core.h_level(z_h, core.up(z_l), context)
            z_h = z_h if update == total else z_h.detach()
    return model.readout.outputs(z_h[:, config.prefix :])


def test_gradients_are_those_of_the_last_step_alone() -> None:
    model, given = net(), tokens()
    carry = model.initial_carry(2)
    weights = dict(model.named_parameters())
    model(carry, given).logits.square().sum().backward()
    found = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
    model.zero_grad()
    unrolled(model, carry, given).square().sum().backward()
    expected = {name: p.grad for name, p in weights.items() if p.grad is not None}
    assert set(found) == set(expected) == {name for name in weights if not name.startswith("readout.halt")}
    for name, gradient in expected.items():
        assert gradient is not None
        torch.testing.assert_close(found[name], gradient)


def test_the_q_head_begins_at_minus_five_and_learns_from_the_first_position() -> None:
    model = net()
    segment = model(model.initial_carry(2), tokens())
    assert segment.q_halt.tolist() == [-5.0, -5.0]
    assert segment.q_continue is not None and segment.q_continue.tolist() == [-5.0, -5.0]
    segment.q_halt.sum().backward()
    gradient = model.readout.halt.weight.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0], segment.carry.high[:, 0].sum(0))
    assert gradient[1].abs().sum() == 0


def test_the_carry_is_detached_and_begins_alike_in_every_puzzle() -> None:
    model = net()
    begin = model.initial_carry(3)
    assert torch.equal(begin.high[0], begin.high[2]) and torch.equal(begin.high[:, 0], begin.high[:, 1])
    segment = model(model.initial_carry(2), tokens())
    assert not segment.carry.high.requires_grad and not segment.carry.low.requires_grad
    assert segment.logits.requires_grad


def test_the_seed_alone_decides() -> None:
    before = torch.random.get_rng_state()
    first, second, third = net(seed=4), net(seed=4), net(seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in first.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, second.state_dict()[name])
    assert not torch.equal(first.embedding.tokens, third.embedding.tokens)
    carry, given = first.initial_carry(2), tokens()
    assert torch.equal(first(carry, given).logits, second(carry, given).logits)


def test_autocast_keeps_the_gradients() -> None:
    model, given = net(), tokens()
    model(model.initial_carry(2), given).logits.square().sum().backward()
    full = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(model.initial_carry(2), given).logits.float().square().sum()
    loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(full)
    for name, p in model.named_parameters():
        if name in full and full[name].abs().sum() > 0:
            assert p.grad is not None
            assert torch.cosine_similarity(p.grad.flatten(), full[name].flatten(), dim=0) > 0.9, name


def test_identities_tell_puzzles_apart_once_they_have_learned() -> None:
    model = HRM(SMALL.model_copy(update={"identities": 2}), vocabulary=5, length=4, outputs=3)
    same = tokens(1).expand(2, -1)
    which = torch.tensor([0, 1])
    logits = model(model.initial_carry(2), same, which).logits
    assert torch.equal(logits[0], logits[1])
    assert model.embedding.identities is not None
    model.embedding.identities.data[1] += 1.0
    logits = model(model.initial_carry(2), same, which).logits
    assert not torch.allclose(logits[0], logits[1])


def test_widths_that_do_not_split_are_refused() -> None:
    with pytest.raises(ConfigError, match="width of 8 does not split into 3 heads"):
        net(SMALL.model_copy(update={"heads": 3}))
