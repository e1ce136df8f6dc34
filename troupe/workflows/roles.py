"""What the teams share: system prompts, the answer in a reply, how tasks are judged, and a teacher's randomness."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence

from troupe.agents import Reply
from troupe.episode import Task
from troupe.errors import ConfigError, did_you_mean
from troupe.protocols import Reward

__all__ = ["RewardFunction", "answer_in", "keyed_random", "system_prompts", "word_of"]

RewardFunction = Callable[[Task, str | None], Reward]

_ANSWER = re.compile(r"<ans>(.*?)</ans>", re.DOTALL)


def answer_in(reply: Reply) -> str | None:
    """What stands between <ans> and </ans>; None where the reply was cut off or says nothing."""
    found: Sequence[str] = [] if reply.truncated else _ANSWER.findall(reply.text)
    return found[-1].strip() or None if found else None


def word_of(answer: str | None) -> str | None:
    """An answer that is one of a few words, such as `ok`, as it is compared: `OK.` says the same."""
    return None if answer is None else answer.strip(" \t\n.!'\"`").casefold()


def system_prompts(
    prompts: str | Mapping[str, str], known: Mapping[str, Mapping[str, str]], agents: Sequence[str]
) -> Mapping[str, str]:
    """Agent to system prompt. Raises ConfigError for an unknown name or a missing agent."""
    if isinstance(prompts, str) and prompts not in known:
        raise ConfigError(f"prompts={prompts!r} is not known{did_you_mean(prompts, known)}")
    chosen = known[prompts] if isinstance(prompts, str) else prompts
    missing = [name for name in agents if name not in chosen]
    if missing:
        raise ConfigError(f"prompts has no system prompt for the agent {missing[0]!r}")
    return chosen


def keyed_random(*key: object) -> random.Random:
    """A generator that is a function of the key alone, whatever was drawn before."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))
