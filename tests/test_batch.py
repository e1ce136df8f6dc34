"""The token invariant: every sampled token appears exactly once with mask 1, and no other token carries loss."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.agents import AgentSpec, Team
from troupe.batch import Batch, RowInfo, minibatches, pack
from troupe.episode import Episode, Message, Problem, Sampling, Step, Task, Tokens, Trajectory, message
from troupe.errors import DataError
from troupe.protocols import GenerationRequest
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync

AGENTS = {"planner": "team", "solver": "team", "judge": "critic"}


# ---------------------------------------------------------------------------------------------- made-up lineages


@st.composite
def lineages(draw: st.DrawFn) -> list[Episode]:
    """Episodes whose steps hang on any earlier step: branches, shared parents, several agents and policies, empty
    responses. Every sampled id is unique, so that it can be followed through the batch."""
    fresh = iter(range(1_000, 100_000))
    return [_episode(draw, e, fresh) for e in range(draw(st.integers(1, 3)))]


def _episode(draw: st.DrawFn, number: int, fresh: Any) -> Episode:
    steps: list[Step] = []
    for i in range(draw(st.integers(1, 7))):
        agent = draw(st.sampled_from(sorted(AGENTS)))
        parent = draw(st.sampled_from([None, *(step.id for step in steps)]))
        response = tuple(next(fresh) for _ in range(draw(st.integers(0, 3))))
        tokens = Tokens(
            prompt_ids=tuple(draw(st.lists(st.integers(1, 99), min_size=parent is None, max_size=3))),
            response_ids=response,
            logprobs=tuple(-1.0 / i for i in response),
            mask=(1,) * len(response),
            policy=AGENTS[agent],
            policy_version=i,
            sampling=Sampling(temperature=1.0 + i),
        )
        steps.append(
            Step(f"{agent}/{i}", agent, parent, tokens=tokens, info=draw(st.sampled_from([{}, {"fork": True}])))
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(steps)), max_size=2)))
    bounds = [0, *cuts, len(steps)]
    parts = [tuple(steps[a:b]) for a, b in pairwise(bounds)]
    return Episode(f"e{number}", "t", tuple(Trajectory(part[0].agent, part) for part in parts if part))


def full_prompts(episode: Episode) -> dict[str, tuple[int, ...]]:
    """Step id to the ids that it was sampled after, by the definition of `Tokens.prompt_ids`."""
    prompts: dict[str, tuple[int, ...]] = {}
    said: dict[str, tuple[int, ...]] = {}
    for step in episode.steps():
        assert step.tokens is not None
        before = (*prompts[step.parent], *said[step.parent]) if step.parent else ()
        prompts[step.id], said[step.id] = (*before, *step.tokens.prompt_ids), step.tokens.response_ids
    return prompts


def check_invariant(episodes: Sequence[Episode], batch: Batch, agents: Sequence[str]) -> None:
    masked = batch["mask"].bool()
    sampled = [i for e in episodes for s in e.steps() if s.agent in agents and s.tokens for i in s.tokens.response_ids]
    assert Counter(batch["actions"][masked].tolist()) == Counter(sampled)
    assert int(masked.sum()) == sum(span.length for span in batch.spans)
    assert torch.equal(batch.inputs["input_ids"], batch["actions"])
    for span in batch.spans:
        step = episodes[span.episode].trajectories[span.trajectory].steps[span.step]
        tokens, row = step.tokens, batch.rows[span.row]
        assert tokens is not None
        assert (row.episode, row.agent, row.policy) == (span.episode, step.agent, tokens.policy)
        where = (span.row, slice(span.start, span.start + span.length))
        assert tuple(batch["actions"][where].tolist()) == tokens.response_ids
        assert bool(masked[where].all())
        assert tuple(batch["actions"][span.row, : span.start].tolist()) == full_prompts(episodes[span.episode])[step.id]
        assert torch.equal(batch["old_logprobs"][where], torch.tensor(tokens.logprobs or ()))
        assert set(batch["version"][where].tolist()) <= {tokens.policy_version}
        assert set(batch["temperature"][where].tolist()) <= {tokens.sampling.temperature}
    for name in ("old_logprobs", "version"):
        assert not bool((batch[name] * ~masked).any())
    for i, row in enumerate(batch.rows):
        assert not bool(masked[i, row.length :].any())


@given(lineages(), st.sets(st.sampled_from(sorted(AGENTS)), min_size=1))
@settings(deadline=None, max_examples=80)
def test_the_token_invariant_holds_for_any_lineage(episodes: list[Episode], chosen: set[str]) -> None:
    spoken = {step.agent for episode in episodes for step in episode.steps()}
    if not chosen & spoken:
        with pytest.raises(DataError, match="nothing to learn from"):
            pack(episodes, agents=sorted(chosen))
        return
    batch = pack(episodes, agents=sorted(chosen))
    check_invariant(episodes, batch, sorted(chosen))
    assert len(batch.spans) == sum(step.agent in chosen for e in episodes for step in e.steps())
    assert batch.forks == sum(bool(step.info) for e in episodes for step in e.steps())


@given(lineages(), st.integers(1, 4), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_minibatches_hold_every_unit_once(episodes: list[Episode], size: int, seed: int) -> None:
    batch = pack(episodes)
    sampled = sorted(batch["actions"][batch["mask"].bool()].tolist())
    groups = [row.episode for row in batch.rows]
    for options in ({}, {"together": groups}, {"unit": "step"}):
        if options.get("unit") == "step" and not sampled:
            continue
        parts = list(minibatches(batch, size, generator=torch.Generator().manual_seed(seed), **options))
        assert sorted(i for part in parts for i in part["actions"][part["mask"].bool()].tolist()) == sampled
        if "unit" not in options:
            assert Counter(row for part in parts for row in part.rows) == Counter(batch.rows)
            assert all(part["mask"].shape[1] == max(row.length for row in part.rows) for part in parts)


# ---------------------------------------------------------------------------------------------- really run


@dataclass(frozen=True)
class Move:
    """One call of a random workflow: whom it asks, and how its conversation relates to earlier ones."""

    agent: str
    kind: str  # new, continue, edited
    back: int = 0  # how many conversations ago
    fresh: bool = False  # begin a trajectory


moves = st.builds(
    Move,
    st.sampled_from(sorted(AGENTS)),
    st.sampled_from(["new", "continue", "edited"]),
    st.integers(0, 2),
    st.booleans(),
)


class Wandering:
    """A workflow that makes the given moves, every second pair of them at once."""

    agent_names = tuple(AGENTS)
    credit: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, script: Sequence[Move]) -> None:
        self.script = script

    async def run(self, problem: Problem, agents: Team) -> None:
        self.talks: dict[str, list[list[Message]]] = {}
        for i in range(0, len(self.script), 2):
            await asyncio.gather(*(self._move(problem, agents, move) for move in self.script[i : i + 2]))

    async def _move(self, problem: Problem, agents: Team, move: Move) -> None:
        known = self.talks.setdefault(move.agent, [])
        talk = list(known[-1 - move.back]) if move.kind != "new" and len(known) > move.back else []
        if talk and move.kind == "edited":
            talk[-1] = message("assistant", "what it did not say")
        talk.append(message("user", problem.prompt))
        if move.fresh:
            agents[move.agent].new_trajectory()
        reply = await agents[move.agent].chat(talk)
        known.append([*talk, reply.message])

    def reward(self, task: Task, episode: Any) -> None:
        for trajectory in episode.trajectories:
            trajectory.reward = 1.0


def run(engine: Any, make: Callable[[], Any], n: int = 2, names: Sequence[str] = tuple(AGENTS)) -> list[Episode]:
    specs = {name: AgentSpec(AGENTS.get(name, "team"), Sampling(temperature=0.5)) for name in names}
    tasks = [Task(f"t{i}", "k", f"problem {i}") for i in range(n)]
    return run_episodes_sync([Job(t) for t in tasks], make, engine, specs, RolloutSettings((0, 1), "test"))


def babble(request: GenerationRequest) -> tuple[str, bool]:
    """Some text, at times none, that at times does not end by itself."""
    number = sum(map(ord, repr(request.key)))
    return "abcde"[: number % 6], bool(number % 3)


@given(st.lists(moves, min_size=1, max_size=8), st.booleans())
@settings(deadline=None, max_examples=40)
def test_what_is_trained_is_what_was_sampled(two_faced: Any, script: list[Move], refuses: bool) -> None:
    engine = two_faced(babble, refuses=refuses)
    episodes = run(engine, lambda: Wandering(script))
    batch = pack(episodes)
    check_invariant(episodes, batch, tuple(AGENTS))
    assert len(engine.answers) == len(batch.spans) == 2 * len(script)
    for span in batch.spans:
        episode = episodes[span.episode]
        step = episode.trajectories[span.trajectory].steps[span.step]
        request, answer = engine.answers[f"{episode.id}/{step.id}"]
        assert step.tokens is not None
        assert (step.tokens.response_ids, step.tokens.logprobs) == (answer.response_ids, answer.logprobs)
        assert tuple(batch["actions"][span.row, : span.start].tolist()) == request.prompt_ids


class Echo:
    """A tool that answers with what it was given."""

    name, description, parameters = "echo", "echoes", {"type": "object", "properties": {"text": {"type": "string"}}}

    def __call__(self, text: str) -> str:
        return f"heard {text}"


class Caller:
    """One agent that calls its tool twenty times."""

    agent_names = ("solver",)
    credit: dict[str, str] = {}  # noqa: RUF012

    async def run(self, problem: Problem, agents: Team) -> None:
        _, self.conversation = await agents.solver.act([message("user", problem.prompt)], [Echo()], max_turns=20)

    def reward(self, task: Task, episode: Any) -> None:
        episode.trajectories[0].reward = 1.0


def test_twenty_tool_turns_do_not_drift(two_faced: Any) -> None:
    engine = two_faced(lambda request: f"<call>turn {request.key[-1]}</call>")
    workflow = Caller()
    [episode] = run(engine, lambda: workflow, n=1, names=("solver",))
    batch = pack([episode])
    assert len(batch) == 1 and batch.forks == 0 and len(batch.spans) == 20
    conversation = batch["actions"][0].tolist()
    sampled = [i for _, answer in engine.answers.values() for i in answer.response_ids]
    assert batch["actions"][batch["mask"].bool()].tolist() == sampled
    last, answer = engine.answers[f"{episode.id}/solver/19"]
    assert conversation == [*last.prompt_ids, *answer.response_ids]
    # The control: had the text been tokenised again, most of the trained ids would not be the sampled ones.
    retokenised = engine.layout.encode(workflow.conversation)[:-1]
    assert len(retokenised) == len(conversation)
    changed = sum(a != b for a, b in zip(retokenised, conversation, strict=True))
    assert changed > len(sampled) / 4


# ---------------------------------------------------------------------------------------------- worked by hand


def test_a_continued_step_extends_its_row_and_a_sibling_starts_another(make_step: Any, make_episode: Any) -> None:
    first = make_step("a/0", [1, 2], [50, 51])
    second = make_step("a/1", [3], [52], parent="a/0", logprobs=[-0.5], version=7, temperature=0.5)
    sibling = make_step("a/2", [4], [53], parent="a/0", info={"fork": True})
    batch = pack([make_episode("t", ([first, second, sibling], 1.0))], pad_id=9)
    assert batch["actions"].tolist() == [[1, 2, 50, 51, 3, 52], [1, 2, 50, 51, 4, 53]]
    assert batch["mask"].tolist() == [[0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1]]
    assert batch["old_logprobs"].tolist() == [[0, 0, -1, -1, 0, -0.5], [0, 0, 0, 0, 0, -1]]
    assert batch["version"].tolist()[0] == [0, 0, 0, 0, 0, 7]
    assert batch["temperature"].tolist()[0] == [1, 1, 1, 1, 1, 0.5]
    assert batch.rows == (RowInfo(0, "a", "team", 6), RowInfo(0, "a", "team", 6))
    assert batch.forks == 1


def test_another_agents_or_policys_step_starts_its_own_row(make_step: Any, make_episode: Any) -> None:
    steps = [
        make_step("a/0", [1], [50]),
        make_step("b/0", [2], [51], parent="a/0"),
        make_step("b/1", [3], [52], parent="b/0", policy="late"),
    ]
    batch = pack([make_episode("t", (steps, 1.0))])
    assert batch["mask"].sum(1).tolist() == [1, 1, 1]
    assert [row.policy for row in batch.rows] == ["team", "team", "late"]


def test_short_rows_are_padded(make_step: Any, make_episode: Any) -> None:
    steps = [make_step("a/0", [1], [50]), make_step("a/1", [2, 3], [51])]
    batch = pack([make_episode("t", (steps, 1.0))], pad_id=9)
    assert batch["actions"].tolist() == [[1, 50, 9], [2, 3, 51]]
    assert batch.take([0])["actions"].tolist() == [[1, 50]]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: replace(s, parent="nobody"), "unknown parent 'nobody'"),
        (lambda s: replace(s, tokens=replace(s.tokens, mask=(1, 1))), "1 response ids but 2 entries in mask"),
        (lambda s: replace(s, tokens=replace(s.tokens, logprobs=())), "1 response ids but 0 entries in logprobs"),
    ],
)
def test_steps_that_do_not_fit_are_refused(make_step: Any, make_episode: Any, spoil: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        pack([make_episode("t", ([spoil(make_step("a/0", [1], [50]))], 1.0))])


def test_too_long_and_nothing_are_refused(make_step: Any, make_episode: Any) -> None:
    episode = make_episode("t", ([make_step("a/0", [1, 2], [50])], 1.0), id="long")
    with pytest.raises(DataError, match="'long': a row of agent 'a' has 3 tokens, more than max_length=2"):
        pack([episode], max_length=2)
    with pytest.raises(DataError, match="nothing to learn from"):
        pack([])


def test_columns_must_fit(make_batch: Any) -> None:
    batch = make_batch([([1], [2, 3])])
    with pytest.raises(DataError, match=r"column 'returns' has shape \(1, 2\); the batch is \(1, 3\)"):
        batch.with_columns(returns=torch.zeros(1, 2))


def test_an_unknown_unit_is_refused(make_batch: Any) -> None:
    with pytest.raises(DataError, match="write 'row' or 'step'"):
        next(minibatches(make_batch([([1], [2])]), 1, generator=torch.Generator(), unit="token"))


def test_step_minibatches_serve_environments() -> None:
    """Bars of three markets: 2 + 3 + 1 of them count; each becomes a row of one column with its own observation."""
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 1]])
    number = torch.arange(9.0).view(3, 3)
    batch = Batch(inputs={"features": number[..., None].expand(3, 3, 4)}, columns={"mask": mask, "rewards": number})
    parts = list(minibatches(batch, 2, generator=torch.Generator().manual_seed(0), unit="step"))
    assert [tuple(part["mask"].shape) for part in parts] == [(2, 1)] * 3
    assert sorted(float(r) for part in parts for r in part["rewards"].flatten()) == [0, 1, 3, 4, 5, 8]
    for part in parts:
        assert torch.equal(part.inputs["features"], part["rewards"][..., None].expand(-1, -1, 4))


def test_groups_stay_together(make_batch: Any) -> None:
    batch = make_batch([([1], [10 + i]) for i in range(8)])
    groups = [i % 4 for i in range(8)]
    parts = list(minibatches(batch, 2, generator=torch.Generator().manual_seed(1), together=groups))
    found = [[groups[row.episode] for row in part.rows] for part in parts]
    assert sorted(found) == [[0, 0], [1, 1], [2, 2], [3, 3]] != found
