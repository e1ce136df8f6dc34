from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.test_recursion import array, block
from troupe.errors import ConfigError
from troupe.models.config import PlainConfig, TRMNetConfig
from troupe.models.recursion import Carry, block_parameters
from troupe.models.trm import TRM, PlainTransformer, TRMCore, _context

SMALL = TRMNetConfig(hidden=8, heads=2, layers=2, rounds=2, updates=3, round_to=4, prefix=2)
MIXER = SMALL.model_copy(update={"mlp_t": True})


def net(config: TRMNetConfig = SMALL, seed: int = 0) -> TRM:
    return TRM(config, vocabulary=5, length=4, outputs=3, seed=seed)


def tokens(n: int = 2) -> Tensor:
    return torch.randint(0, 5, (n, 4), generator=torch.Generator().manual_seed(3))


def level(model: TRM, x: np.ndarray) -> np.ndarray:
    for part in model.core.level.blocks:
        x = block(part, x, rotary=not model.config.mlp_t)  # type: ignore[arg-type]
    return x


def test_published_sizes() -> None:
    attentive = TRM(TRMNetConfig(), vocabulary=11, length=81, outputs=11)
    mixing = TRM(TRMNetConfig(mlp_t=True), vocabulary=11, length=81, outputs=11)
    # Two blocks of attention and SwiGLU; or of two SwiGLUs, that along 81 + 16 positions of 512 inner units.
    assert block_parameters(attentive) == 2 * (512 * 1536 + 512 * 512 + 512 * 3072 + 1536 * 512) == 6_815_744
    assert block_parameters(mixing) == 2 * (97 * 1024 + 512 * 97 + 512 * 3072 + 1536 * 512) == 5_016_576
    # Around them: tokens 11*512, outputs 11*512, halting 512 + 1, the embedding of one puzzle 512. The published 6.83
    # and 5.03 million are these sums.
    around = 2 * 11 * 512 + 513 + 512
    assert sum(p.numel() for p in attentive.parameters()) == 6_815_744 + around == 6_828_033
    assert sum(p.numel() for p in mixing.parameters()) == 5_016_576 + around == 5_028_865


@pytest.mark.parametrize("config", [SMALL, MIXER])
def test_a_segment_follows_the_equations(config: TRMNetConfig) -> None:
    model = net(config)
    carry, given = model.initial_carry(2), tokens()
    for _ in range(2):  # from the beginning, and from a carry
        x, y, z = array(model.embedding(given)), array(carry.high), array(carry.low)
        for _ in range(config.rounds):
            for _ in range(config.updates):
                z = level(model, z + y + x)
            y = level(model, y + z)
        segment = model(carry, given)
        np.testing.assert_allclose(array(segment.carry.high), y, atol=2e-5)
        np.testing.assert_allclose(array(segment.carry.low), z, atol=2e-5)
        logits = y[:, config.prefix :] @ array(model.readout.outputs.weight).T
        np.testing.assert_allclose(array(segment.logits), logits, atol=2e-5)
        carry = segment.carry


def unrolled(model: TRM, carry: Carry, given: Tensor) -> Tensor:
    """Logits with the states of the last round's beginning as constants."""
    x = model.embedding(given)
    context, (y, z) = _context(model.config, x, None), carry
    for _ in range(model.config.rounds):
        y, z = y.detach(), z.detach()
        for _ in range(model.config.updates):
            z = model.core.level(z, y + x, context)
        y = model.core.level(y, z, context)
    return model.readout.outputs(y[:, model.config.prefix :])


@pytest.mark.parametrize("config", [SMALL, MIXER])
def test_gradients_are_those_of_the_whole_last_round(config: TRMNetConfig) -> None:
    model, given = net(config), tokens()
    carry, weights = model.initial_carry(2), dict(model.named_parameters())
    model(carry, given).logits.square().sum().backward()
    found = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
    model.zero_grad()
    unrolled(model, carry, given).square().sum().backward()
    assert set(found) == {name for name in weights if not name.startswith("readout.halt")}
    for name, gradient in found.items():
        expected = weights[name].grad
        assert expected is not None
        torch.testing.assert_close(gradient, expected)


def test_one_halting_logit_and_a_detached_carry() -> None:
    model = net()
    segment = model(model.initial_carry(2), tokens())
    assert segment.q_halt.tolist() == [-5.0, -5.0] and segment.q_continue is None
    assert not segment.carry.high.requires_grad and not segment.carry.low.requires_grad


def test_autocast_keeps_the_gradients() -> None:
    model, given = net(), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(model.initial_carry(2), given).logits.float().square().sum()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["readout.halt.weight", "readout.halt.bias"]


def test_the_seed_alone_decides() -> None:
    first, second, third = net(seed=4), net(seed=4), net(seed=5)
    carry, given = first.initial_carry(2), tokens()
    assert torch.equal(first(carry, given).logits, second(carry, given).logits)
    assert not torch.equal(first(carry, given).logits, third(carry, given).logits)


def test_inner_is_the_feedforward_width_itself() -> None:
    model = net(SMALL.model_copy(update={"inner": 10}))
    assert model.core.level.blocks[0].feedforward.down.weight.shape == (8, 10)  # type: ignore[union-attr]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="mlp_t needs a fixed number of positions"):
        TRMCore(MIXER, torch.Generator())
    with pytest.raises(ConfigError, match="does not split into 3 heads"):
        net(SMALL.model_copy(update={"heads": 3}))


# --- the plain transformer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mlp_t", [True, False])
def test_plain_blocks_are_those_of_trm_once_through(mlp_t: bool) -> None:
    config = PlainConfig(hidden=8, heads=2, layers=2, round_to=4, prefix=2, mlp_t=mlp_t)
    plain = PlainTransformer(config, vocabulary=5, length=4, outputs=3)
    recursive = net(MIXER if mlp_t else SMALL)
    assert block_parameters(plain) == block_parameters(recursive)
    x = array(plain.embedding(tokens()))
    for part in plain.level.blocks:
        x = block(part, x, rotary=not mlp_t)  # type: ignore[arg-type]
    segment = plain(plain.initial_carry(2), tokens())
    np.testing.assert_allclose(array(segment.logits), x[:, 2:] @ array(plain.readout.outputs.weight).T, atol=1e-5)


def test_plain_carry_is_empty_and_changes_nothing() -> None:
    plain = PlainTransformer(PlainConfig(hidden=8, heads=2, round_to=4), vocabulary=5, length=4, outputs=3)
    first = plain(plain.initial_carry(2), tokens())
    assert first.carry.high.shape == (2, 0, 0)
    assert torch.equal(plain(first.carry, tokens()).logits, first.logits)
