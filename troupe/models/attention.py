"""Attention in float64 for float32 models: what makes sampled and recomputed log-probs agree.

Decoding one token at a time and scoring whole rows run different kernels. Linear layers and norms then still round
alike, bit for bit, on the CPU (their sums run along the same axis in the same order); attention does not, and a sharp
softmax magnifies a rounding error of a score into one of a log-prob, up to 1.6e-5 on the embedded model. In float64
both kernels give the same float32 number nearly always.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["FLOAT64", "register_float64_attention"]

FLOAT64 = "troupe_float64"
"""Name of the attention implementation, as transformers knows it."""


def register_float64_attention() -> None:
    """Makes `FLOAT64` known to transformers: its `sdpa` on upcast inputs, with its masks."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def forward(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            attention_mask = attention_mask.double()
        mixed, _ = sdpa_attention_forward(
            module, query.double(), key.double(), value.double(), attention_mask, **options
        )
        return mixed.to(query.dtype), None

    AttentionInterface.register(FLOAT64, forward)
    AttentionMaskInterface.register(FLOAT64, sdpa_mask)
