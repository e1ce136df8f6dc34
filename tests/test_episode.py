"""Records: lossless through JSON, refusing what they do not know; returns against numbers worked by hand."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troupe.episode import (
    Episode,
    FinishReason,
    Outcome,
    Sampling,
    Step,
    StopReason,
    Task,
    Tokens,
    Trajectory,
    message,
)
from troupe.errors import DataError

texts = st.text(max_size=5)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.none() | st.booleans() | st.integers() | numbers | texts
tokens = st.builds(
    lambda prompt, response, known, policy, version, stop, reason: Tokens(
        tuple(prompt),
        tuple(i for i, _ in response),
        tuple(p for _, p in response) if known else None,
        (1,) * len(response),
        policy,
        version,
        Sampling(9, 0.5, tuple(stop)),
        reason,
    ),
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.tuples(st.integers(0, 9), numbers), max_size=3),
    st.booleans(),
    texts,
    st.integers(0, 9),
    st.lists(texts, max_size=2),
    st.sampled_from(FinishReason),
)
steps = st.builds(
    Step,
    id=texts,
    agent=texts,
    parent=st.none() | texts,
    observation=st.lists(json_values, max_size=2),
    action=st.dictionaries(texts, json_values, max_size=2),
    reward=st.none() | numbers,
    done=st.booleans(),
    info=st.dictionaries(texts, json_values, max_size=2),
    tokens=st.none() | tokens,
)
trajectories = st.builds(
    Trajectory, texts, st.lists(steps, max_size=2).map(tuple), st.none() | numbers, st.sampled_from(StopReason)
)
episodes = st.builds(
    Episode,
    id=texts,
    task_id=texts,
    trajectories=st.lists(trajectories, max_size=2).map(tuple),
    outcome=st.sampled_from(Outcome),
    metrics=st.dictionaries(texts, numbers, max_size=2),
    group=texts,
    seed=st.integers(0, 2**63),
    metadata=st.dictionaries(texts, json_values, max_size=2),
)


@given(episodes)
def test_an_episode_survives_json(episode: Episode) -> None:
    again = Episode.from_dict(json.loads(json.dumps(episode.to_dict())))
    assert again == episode
    for trajectory, other in zip(again.trajectories, episode.trajectories, strict=True):
        assert type(trajectory.stop_reason) is type(other.stop_reason)
        assert type(trajectory.steps) is tuple


def paid(*rewards: float | None, last: float | None = None) -> Trajectory:
    return Trajectory("a", tuple(Step(f"a/{i}", "a", reward=r) for i, r in enumerate(rewards)), last)


def test_returns_add_discounted_step_rewards_to_the_teams_reward() -> None:
    """gamma 0.5, rewards 1, none, 4, trajectory reward 10: G_2 = 4 + 10, G_1 = 0 + 2 + 10, G_0 = 1 + 1 + 10."""
    assert paid(1.0, None, 4.0, last=10.0).returns(gamma=0.5) == (12.0, 12.0, 14.0)
    assert paid(1.0, None, 4.0).returns() == (5.0, 4.0, 4.0)
    assert paid(None, None, last=2.0).returns() == (2.0, 2.0)
    assert paid().returns() == ()


def test_what_was_paid() -> None:
    assert paid(1.0, None, 4.0, last=10.0).total_reward == 15.0
    assert paid(0.0).has_step_rewards and not paid(None, last=1.0).has_step_rewards


def test_a_problem_hides_answer_and_solution() -> None:
    task = Task("t", "linear", "Solve x = 5", {"unknowns": ["x"]}, 0.5, answer="SECRET", solution={"plan": ["SECRET"]})
    assert "SECRET" not in repr(task.problem)
    assert (task.problem.id, task.problem.prompt, task.problem.data) == ("t", task.prompt, task.data)
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_steps_and_trajectories_by_agent() -> None:
    first, second, third = paid(1.0), replace(paid(2.0), agent="b"), paid(3.0, 4.0)
    episode = Episode("e", "t", (first, second, third))
    assert [step.reward for step in episode.steps()] == [1.0, 2.0, 3.0, 4.0]
    assert episode.of("a") == (first, third) and episode.of("nobody") == ()


def test_records_are_values() -> None:
    with pytest.raises(FrozenInstanceError):
        Episode("e", "t").outcome = Outcome.SUCCESS  # type: ignore[misc]


def test_a_message_keeps_what_it_is_given() -> None:
    assert message("tool", "5", tool_call_id="c") == {"role": "tool", "content": "5", "tool_call_id": "c"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 2 is not known"),
        ({"version": None}, "version None is not known"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"outcome": "won"}, "'won' is not a valid Outcome"),
        ({"trajectories": 3}, "cannot be read"),
        ({"trajectories": ["x"]}, "trajectory must be a JSON object"),
        ({"trajectories": [{"agent": "a", "steps": [{"id": "a/0"}]}]}, "missing 1 required positional argument"),
        ({"trajectories": [{"agent": "a", "steps": [{"id": "s", "agent": "a", "tokens": [1]}]}]}, "tokens must be"),
    ],
)
def test_a_broken_record_is_refused_in_one_sentence(change: dict[str, Any], said: str) -> None:
    record = Episode("e", "t").to_dict() | change
    with pytest.raises(DataError, match=said):
        Episode.from_dict(record)


def test_a_record_must_be_an_object() -> None:
    with pytest.raises(DataError, match="must be a JSON object, found list"):
        Episode.from_dict([])  # type: ignore[arg-type]
