"""What an answer is worth. Each reward is a function `(task, answer) -> Reward` that sees the task's answer, which no
workflow does; it is verifiable first, and ships a test that the best wrong answer scores below the plainest right one.
A new reward is one file here and one line in `REWARDS`."""

from troupe.rewards.math import math_reward_fn

__all__ = ["REWARDS", "math_reward_fn"]

REWARDS = {
    "math": math_reward_fn,
}
