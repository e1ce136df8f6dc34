from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from troupe.errors import ConfigError
from troupe.models.recursion import (
    Attention,
    Block,
    BlockSizes,
    Carry,
    Context,
    SwiGLU,
    TokenEmbedding,
    feedforward_width,
    linear,
    restarted,
    rms_norm,
    rotary_tables,
    truncated_normal,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


# --- the same blocks in NumPy, position by position --------------------------------------------------------------


def norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def swiglu(module: SwiGLU, x: np.ndarray) -> np.ndarray:
    both = x @ array(module.gate_up.weight).T
    gate, up = np.split(both, 2, axis=-1)
    return (gate / (1 + np.exp(-gate)) * up) @ array(module.down.weight).T


def turned(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary positions as complex numbers: x_i + j x_{i + d/2}, times exp(j t base^(-2i/d))."""
    half = len(x) // 2
    angles = position * 10_000.0 ** (-2 * np.arange(half) / len(x))
    product = (x[:half] + 1j * x[half:]) * np.exp(1j * angles)
    return np.concatenate([product.real, product.imag])


def attention(module: Attention, x: np.ndarray, rotary: bool, mask: np.ndarray | None = None) -> np.ndarray:
    """`[L, D]` of one row."""
    length, width = x.shape
    size = width // module.heads
    query, key, value = np.split(x @ array(module.qkv.weight).T, 3, axis=-1)
    mixed = np.zeros_like(x)
    for head in range(module.heads):
        own = slice(head * size, (head + 1) * size)
        for t in range(length):
            q = turned(query[t, own], t) if rotary else query[t, own]
            keys = [turned(key[s, own], s) if rotary else key[s, own] for s in range(length)]
            scores = np.array([q @ k / math.sqrt(size) for k in keys])
            if mask is not None:
                scores[~mask] = -np.inf
            weights = np.exp(scores - scores.max())
            mixed[t, own] = (weights / weights.sum()) @ value[:, own]
    return mixed @ array(module.out.weight).T


def block(module: Block, x: np.ndarray, rotary: bool) -> np.ndarray:
    """`[n, L, D]`."""
    if module.positions is not None:
        x = norm(x.swapaxes(1, 2) + swiglu(module.positions, x.swapaxes(1, 2))).swapaxes(1, 2)
    else:
        assert module.attention is not None
        x = norm(x + np.stack([attention(module.attention, row, rotary) for row in x]))
    return norm(x + swiglu(module.feedforward, x))


# --- parts ---------------------------------------------------------------------------------------------------------


def test_norm_by_hand() -> None:
    # mean square of (3, 4) is 12.5: 3 / sqrt(12.50001) = 0.848528, 4 / sqrt(12.50001) = 1.131370
    assert rms_norm(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.848528, 1.131370], abs=1e-6)


def test_feedforward_widths_by_hand() -> None:
    # 2/3 * 4 * 512 = 1365.3 -> 1536 in steps of 256; along 97 positions 258.7 -> 512; 2/3 * 3 * 64 = 128
    assert feedforward_width(512, 4.0, 256) == 1536
    assert feedforward_width(97, 4.0, 256) == 512
    assert feedforward_width(64, 3.0, 32) == 128


def test_truncated_normal_has_its_deviation_and_no_tail() -> None:
    drawn = truncated_normal((200_000,), 0.5, generator())
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.01)
    assert float(drawn.abs().max()) <= 2 * 0.5 / 0.8796 + 1e-6


def test_linear_leaves_torchs_own_generator_alone() -> None:
    before = torch.random.get_rng_state()
    linear(4, 3, generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rotary_tables_by_hand() -> None:
    # width 4: frequencies 1 and 0.01, each at i and i + 2; position 2 turns by 2 and 0.02
    cosines, sines = rotary_tables(3, 4)
    assert cosines[2].tolist() == pytest.approx([math.cos(2), math.cos(0.02)] * 2, abs=1e-6)
    assert sines[2].tolist() == pytest.approx([math.sin(2), math.sin(0.02)] * 2, abs=1e-6)


@pytest.mark.parametrize("rotary", [True, False])
def test_block_of_attention_is_the_published_one(rotary: bool) -> None:
    module = Block(BlockSizes(width=8, heads=2, inner=12), generator())
    x = torch.randn(3, 5, 8, generator=generator(1))
    context = Context(rotary_tables(5, 4) if rotary else None)
    np.testing.assert_allclose(array(module(x, context)), block(module, array(x), rotary), atol=2e-6)


def test_block_along_positions_is_the_published_one() -> None:
    module = Block(BlockSizes(width=8, heads=2, inner=12, length=5, length_inner=7), generator())
    x = torch.randn(3, 5, 8, generator=generator(1))
    np.testing.assert_allclose(array(module(x, Context())), block(module, array(x), False), atol=2e-6)


def test_masked_positions_are_looked_at_by_nobody() -> None:
    for sizes in (BlockSizes(8, 2, 12), BlockSizes(8, 2, 12, 5, 7)):
        module = Block(sizes, generator())
        x = torch.randn(1, 5, 8, generator=generator(1))
        other = x.clone()
        other[0, 3:] = 9.0
        held = torch.tensor([True, True, True, False, False])[None, None, None]
        first, second = module(x, Context(mask=held)), module(other, Context(mask=held))
        assert torch.equal(first[0, :3], second[0, :3])
        assert not torch.equal(module(x, Context())[0, :3], module(other, Context())[0, :3])
    mask = np.array([True, True, True, False, False])
    attentive = Attention(8, 2, generator())
    seen = attentive(x, Context(mask=held))
    np.testing.assert_allclose(array(seen[0]), attention(attentive, array(x[0]), False, mask), atol=2e-6)


def test_restarted_takes_fresh_rows() -> None:
    old, new = Carry(torch.zeros(3, 2, 4), torch.zeros(3, 2, 4)), Carry(torch.ones(3, 2, 4), 2 * torch.ones(3, 2, 4))
    carry = restarted(old, new, torch.tensor([True, False, True]))
    assert carry.high[:, 0, 0].tolist() == [1.0, 0.0, 1.0]
    assert carry.low[:, 1, 3].tolist() == [2.0, 0.0, 2.0]


# --- embedding -----------------------------------------------------------------------------------------------------


def embedding(prefix: int = 2, learned: bool = False, identities: int = 3) -> TokenEmbedding:
    return TokenEmbedding(
        4, vocabulary=5, length=3, prefix=prefix, identities=identities, learned=learned, generator=generator()
    )


def test_embedding_scales_tokens_and_puts_the_identity_first() -> None:
    module = embedding()
    assert module.identities is not None
    module.identities.data[1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    x = module(torch.tensor([[0, 4, 2]]), torch.tensor([1]))
    assert x[0, 0].tolist() == [2.0, 4.0, 6.0, 8.0]  # times sqrt(4)
    assert x[0, 1].tolist() == [0.0] * 4  # the rest of the prefix is working space
    assert torch.equal(x[0, 2:], 2 * module.tokens[[0, 4, 2]])


def test_learned_positions_are_added_and_halved_in_variance() -> None:
    module = embedding(prefix=0, learned=True)
    assert module.positions is not None
    expected = math.sqrt(0.5) * (module.tokens[[1, 1, 1]] + module.positions) * 2
    torch.testing.assert_close(module(torch.tensor([[1, 1, 1]]))[0], expected)


def test_embedding_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="sequences of 3 tokens, found 4"):
        embedding()(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ConfigError, match="write prefix: 1"):
        embedding(prefix=0)(torch.zeros(1, 3, dtype=torch.long), torch.tensor([0]))
