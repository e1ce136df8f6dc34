"""What an update's metrics should make a user look at, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

__all__ = ["MISMATCH_KL", "TRUNCATED", "alarms"]

MISMATCH_KL = 1e-2
"""Nats per token between the sampled and the recomputed log-probs, above which ratios say little. Training in bfloat16
against a separate inference engine usually stays below it."""
TRUNCATED = 0.5
"""Share of attempts that ended at a length limit, above which most of what is learned is where the limit stands."""

_LIMITS = ("max_response_length_exceeded", "max_prompt_length_exceeded")


def alarms(metrics: Mapping[str, float], learning: Sequence[str]) -> Iterator[str]:
    """Agents whose reward is constant, an update without any signal, log-probs that drifted, replies cut off."""
    for agent in learning:
        if metrics.get(f"reward/{agent}/std") == 0.0:
            yield f"every reward of agent {agent!r} is the same; it cannot learn from it"
        elif f"response_length/{agent}/mean" in metrics and f"reward/{agent}/mean" not in metrics:
            yield f"nobody paid agent {agent!r}; it cannot learn"
    if "actor/loss/policy" not in metrics:
        yield "all advantages are zero; nothing was learned"
    mismatch = metrics.get("training/mismatch_kl", 0.0)
    if mismatch > MISMATCH_KL:
        yield (
            f"training/mismatch_kl is {mismatch:.2g}: tokens were sampled from other probabilities than those that are "
            "trained; write algorithm.importance=token, or make the engine and the model agree"
        )
    cut = sum(metrics.get(f"episode/termination_reason/{reason}", 0.0) for reason in _LIMITS)
    if cut > TRUNCATED:
        yield f"{cut:.0%} of the attempts were cut off; raise data.max_response_length or data.max_prompt_length"
