from __future__ import annotations

import pytest
import torch

from troupe.errors import CreditError
from troupe.maths.groups import GROUP_KEYS, Sample, group_ids, group_sizes

SAMPLES = [
    Sample("t0", "coder", turn=0, prompt_hash="p"),
    Sample("t0", "coder", turn=1, prompt_hash="q"),
    Sample("t0", "judge", turn=0, prompt_hash="p"),
    Sample("t1", "coder", turn=0, prompt_hash="p"),
]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("by_task", [0, 0, 0, 1]),
        ("by_agent", [0, 0, 1, 2]),
        ("by_agent_turn", [0, 1, 2, 3]),
        ("by_prompt", [0, 1, 0, 2]),
    ],
)
def test_who_is_compared_with_whom(key: str, expected: list[int]) -> None:
    ids = group_ids(SAMPLES, key)
    assert ids.tolist() == expected and ids.dtype == torch.int64
    assert group_ids(SAMPLES, GROUP_KEYS[key]).tolist() == expected


def test_a_key_may_be_any_function_of_a_sample() -> None:
    assert group_ids(SAMPLES, lambda s: (s.agent,)).tolist() == [0, 0, 1, 0]


def test_an_unknown_key_is_guessed() -> None:
    with pytest.raises(CreditError, match=r"'by_agnet'.*did you mean 'by_agent'"):
        group_ids(SAMPLES, "by_agnet")


def test_sizes_and_singletons() -> None:
    found = group_sizes(torch.tensor([7, 3, 7, 9]))
    assert found.sizes.tolist() == [2, 1, 2, 1]
    assert found.singleton.tolist() == [False, True, False, True]
