from __future__ import annotations

import asyncio
import json
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from troupe.envs.tictactoe import TicTacToe
from troupe.episode import Outcome, Task
from troupe.errors import ConfigError, DataError, MissingExtra, TrainingError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import policy_value_net
from troupe.protocols import Proposal
from troupe.search.asynchronous import state_id
from troupe.systems.selfplay.agents import AgentEvaluator, Family
from troupe.systems.selfplay.answering import AnswerState, AnswerWorld
from troupe.systems.selfplay.episodes import SelfPlayEpisode
from troupe.systems.selfplay.games import GameTaskGenerator, PlayedOn
from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator
from troupe.tasks.math import MathProblemGenerator

MCTS = {"num_simulations": 16}
SUM = {"task_id": "sum", "type": "word", "difficulty": 0.1, "problem": "Add 12 and 5", "answer": "17"}
TICTACTOE = {"task_id": "ttt", "type": "game", "difficulty": 1.0, "problem": "Play", "game": "tictactoe"}


def play(
    tasks: Sequence[Task | Mapping[str, Any]], generator: SelfPlayEpisodeGenerator, **options: Any
) -> list[SelfPlayEpisode]:
    async def all_of_them() -> list[SelfPlayEpisode]:
        return await asyncio.gather(*(generator.generate_episode(task, **options) for task in tasks))

    return asyncio.run(all_of_them())


def net(family: Family, seed: int = 0) -> nn.Module:
    return policy_value_net(PolicyValueConfig(kind="mlp"), family.input_shape, family.logits, seed=seed)


ANSWERS = Family.of(AnswerWorld("?"))
BOARD = Family(2, (2, 3, 3), 9)


def searched(episode: SelfPlayEpisode) -> Any:
    """Everything that the search had a part in, without clocks."""
    traces = [(t.visit_counts, t.q_values, t.prior_probs, t.value_estimates) for t in episode.mcts_traces]
    return [a.action_id for a in episode.actions], traces, [s.raw_state for s in episode.states]


def test_an_episode_has_the_documented_fields() -> None:
    (episode,) = play([SUM], SelfPlayEpisodeGenerator(mcts_config=MCTS))
    n = episode.episode_length
    assert n >= 1 and len(episode.mcts_traces) == len(episode.rewards) == n and len(episode.states) == n + 1
    for action, trace, before, after in zip(
        episode.actions, episode.mcts_traces, episode.states, episode.states[1:], strict=False
    ):
        assert trace.selected_action == action.action_id and trace.num_simulations == 16
        assert trace.root_state_id == before.state_id and before.state_id in trace.value_estimates
        assert sum(trace.visit_counts.values()) == 16 and action.action_id in trace.visit_counts
        assert after.parent_id == before.state_id and before.visit_count == 17
    simulations, seconds = 16 * n, sum(trace.search_time for trace in episode.mcts_traces)
    assert episode.search_efficiency == pytest.approx(episode.total_reward / (simulations * seconds))
    assert episode.outcome in ("success", "failure", "timeout", "error")
    assert json.loads(json.dumps(episode.to_dict()))["task_id"] == "sum"
    assert episode.to_episode().outcome is episode.outcome


class Knows:
    """A proposer that answers what it is told to; it is told by the tests, never by the task."""

    def __init__(self, answer: str) -> None:
        self.answer, self.states = answer, list[Any]()

    def propose(self, states: Sequence[AnswerState]) -> list[Proposal]:
        self.states += states
        done, open_ = Proposal(("keep",), (1.0,), 0.9), Proposal(("12+5", f"answer {self.answer}"), (1.0, 1.0), 0.1)
        return [done if state.answered else open_ for state in states]


@pytest.mark.parametrize(("answer", "outcome"), [("17", "success"), ("18", "failure"), ("17.0", "success")])
def test_the_answer_is_checked_after_the_search(answer: str, outcome: str) -> None:
    model = Knows(answer)
    generator = SelfPlayEpisodeGenerator(model, mcts_config={"num_simulations": 24, "num_parallel": 2}, explore=False)
    (episode,) = play([SUM], generator)
    assert episode.outcome == outcome and episode.metadata["answer"] == answer
    assert episode.total_reward == (outcome == "success") and model.states
    assert bool(episode.solution_path) == (outcome == "success")
    assert (generator.episode_count, generator.success_count + generator.failure_count) == (1, 1)


def test_corrupted_answers_change_no_search_and_turn_success_into_failure() -> None:
    tasks = [Task(f"say-{n}", "say", f"Say {n}, or {2 * n + 1}", answer=str(n)) for n in range(20)]
    wrong = [replace(task, answer="zq81canary", solution=None) for task in tasks]
    honest, corrupted = (play(some, SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=5)) for some in (tasks, wrong))
    assert [searched(episode) for episode in honest] == [searched(episode) for episode in corrupted]
    assert 1 <= sum(episode.outcome == "success" for episode in honest) <= 15  # it guesses
    assert {episode.outcome for episode in corrupted} == {"failure"}


def test_no_answer_is_in_any_state_or_observation() -> None:
    canary = "zq81canary"
    shown: list[Any] = []

    class Watches(nn.Module):
        def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            shown.append(rows.clone())
            return rows.sum(1, keepdim=True), torch.tanh(rows.mean(1))

    seen: list[Task] = []

    def world(task: Task) -> AnswerWorld:
        seen.append(task)
        return AnswerWorld(task.prompt)

    rows = {}
    for answer in ("17", canary):
        shown.clear()
        task = {**SUM, "type": "mine", "answer": answer, "solution": {"plan": [answer]}}
        agent = Watches()
        (episode,) = play([task], SelfPlayEpisodeGenerator(agent, agent, MCTS, worlds={"mine": world}))
        assert canary not in json.dumps([s.raw_state for s in episode.states]) + json.dumps(episode.to_dict())
        rows[answer] = torch.cat([row.reshape(-1) for row in shown])
    assert torch.equal(rows["17"], rows[canary])
    assert all(task.answer is None and task.solution is None for task in seen)


def test_a_game_is_played_by_both_sides_and_judged_by_its_exact_value() -> None:
    lost = {**TICTACTOE, "task_id": "forced", "moves": [4, 1, 0, 2]}  # X wins by 8 at once, or later
    mcts = {"num_simulations": 200}
    draw, win = play([TICTACTOE, lost], SelfPlayEpisodeGenerator(mcts_config=mcts, explore=False))
    assert draw.metadata["exact_value"] == 0.0 and draw.metadata["to_play"][:4] == [0, 1, 0, 1]
    assert draw.outcome == "success" and draw.total_reward >= 0
    assert win.outcome == "success" and win.total_reward == 1.0 == win.metadata["exact_value"]


def test_who_moves_second_is_paid_from_his_side() -> None:
    """One stone is down: O begins the episode, and his win is a reward of +1 to the episode."""
    task = {**TICTACTOE, "moves": [0, 4, 1, 2, 8]}  # O holds 4 and 2: 6 wins
    (episode,) = play([task], SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 60}, explore=False))
    assert episode.metadata["to_play"][0] == 1 and episode.actions[0].action_id == "6"
    assert episode.total_reward == 1.0 and episode.outcome == "success"


def test_chance_is_rolled_on_the_way() -> None:
    task = {**TICTACTOE, "game": "pig", "args": {"target": 6}}
    episodes = play([task] * 6, SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=2))
    assert {abs(episode.total_reward) for episode in episodes} == {1.0}
    assert all(episode.metadata["judged_by"] == "win" for episode in episodes)
    assert {episode.outcome for episode in episodes} == {"success", "failure"}


def test_max_steps() -> None:
    (episode,) = play([TICTACTOE], SelfPlayEpisodeGenerator(mcts_config=MCTS), max_steps=3)
    assert episode.outcome == "failure" and episode.metadata["max_steps_reached"] and episode.episode_length == 3
    assert not episode.metadata["complete"]


class Slow:
    """Sleeps over one problem, in a coroutine or in the way."""

    def __init__(self, blocks: bool) -> None:
        self.blocks = blocks

    def policy(self, rows: np.ndarray) -> np.ndarray:
        if self.blocks:
            time.sleep(0.6)
        return np.zeros((len(rows), 9))


def test_a_timeout_interrupts_an_agent_that_blocks() -> None:
    async def run() -> tuple[SelfPlayEpisode, float, SelfPlayEpisode]:
        generator = SelfPlayEpisodeGenerator(Slow(True), mcts_config=MCTS)
        sibling = asyncio.create_task(
            SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=3).generate_episode(SUM, timeout=30.0)
        )
        began = time.perf_counter()
        episode = await generator.generate_episode(TICTACTOE, timeout=0.1)
        return episode, time.perf_counter() - began, await sibling

    episode, waited, sibling = asyncio.run(run())
    assert episode.outcome == "timeout" and "0.1 s" in episode.metadata["reason"] and waited < 0.3
    assert sibling.outcome in ("success", "failure")
    (alone,) = play([SUM], SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=3))
    assert searched(alone) == searched(sibling)


def test_a_timeout_interrupts_a_sleeping_proposer_and_leaves_siblings_alone() -> None:
    class Sleeps(Knows):
        async def propose(self, states: Sequence[AnswerState]) -> list[Proposal]:  # type: ignore[override]
            if any("never" in state.problem for state in states):
                await asyncio.sleep(60)
            return super().propose(states)

    async def run() -> tuple[float, list[SelfPlayEpisode]]:
        generator = SelfPlayEpisodeGenerator(Sleeps("17"), mcts_config=MCTS, slots=1)
        began = time.perf_counter()
        slow = asyncio.create_task(generator.generate_episode({**SUM, "problem": "never 12 and 5"}, timeout=0.1))
        other = asyncio.create_task(generator.generate_episode(SUM, timeout=30.0))
        first = await slow
        waited = time.perf_counter() - began
        return waited, [first, await other]

    waited, (slow, other) = asyncio.run(run())
    assert waited < 0.3 and slow.outcome == "timeout"
    assert other.outcome in ("success", "failure") and other.metadata["complete"]


def test_an_agent_that_raises_is_an_episode_of_outcome_error() -> None:
    class Broken:
        def policy(self, rows: np.ndarray) -> np.ndarray:
            raise RuntimeError("out of memory")

        def value(self, rows: np.ndarray) -> np.ndarray:
            raise TimeoutError("the server did not answer")

    generator = SelfPlayEpisodeGenerator(Broken(), mcts_config=MCTS)
    (episode,) = play([TICTACTOE], generator)
    assert episode.outcome is Outcome.ERROR and episode.metadata["error"] == "RuntimeError: out of memory"
    (episode,) = play([TICTACTOE], SelfPlayEpisodeGenerator(trm_agent=Broken(), mcts_config=MCTS))
    assert episode.outcome is Outcome.ERROR and "did not answer" in episode.metadata["error"]
    assert generator.error_count == 1


@pytest.mark.parametrize("what", [TrainingError("diverged"), MissingExtra("sympy", "math", "Answers")])
def test_a_program_that_fails_is_an_exception(what: Exception) -> None:
    class Fails:
        def policy(self, rows: np.ndarray) -> np.ndarray:
            raise what

    with pytest.raises(type(what), match=str(what)[:8]):
        play([TICTACTOE], SelfPlayEpisodeGenerator(Fails(), mcts_config=MCTS))


def test_agents_are_called_and_matter() -> None:
    hrm, trm = net(BOARD, 1), net(BOARD, 2)
    both, neither = (SelfPlayEpisodeGenerator(*agents, MCTS, seed=4) for agents in ((hrm, trm), (None, None)))
    (with_agents,), (without,) = play([TICTACTOE], both), play([TICTACTOE], neither)
    calls = both.forward_calls()
    assert calls["policy"] == calls["value"] > 16 and neither.forward_calls() == {"policy": 0, "value": 0}
    priors = with_agents.mcts_traces[0].prior_probs
    with torch.inference_mode():
        logits = hrm.eval()(torch.zeros(1, 2, 3, 3))[0].softmax(-1)[0]
        value = trm.eval()(torch.zeros(1, 2, 3, 3))[1][0]
    assert list(priors.values()) == pytest.approx(logits.tolist(), abs=1e-6)
    assert with_agents.mcts_traces[0].value_estimates[with_agents.states[0].state_id] == pytest.approx(float(value))
    assert list(without.mcts_traces[0].prior_probs.values()) == pytest.approx([1 / 9] * 9)
    only = SelfPlayEpisodeGenerator(trm_agent=trm, mcts_config=MCTS)
    play([TICTACTOE], only)
    assert only.forward_calls()["value"] > 16 and only.forward_calls()["policy"] == 0


def test_one_agent_that_is_both_is_called_once_a_batch() -> None:
    calls: list[int] = []

    class Counts(nn.Module):
        def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(len(rows))
            return torch.zeros(len(rows), 9), torch.zeros(len(rows))

    agent = Counts()
    generator = SelfPlayEpisodeGenerator(agent, agent, MCTS)
    play([TICTACTOE] * 8, generator)
    assert len(calls) == generator.forward_calls()["policy"] == generator.forward_calls()["value"]
    assert max(calls) == 8  # episodes share the batch


def test_candidates_are_scored_by_their_encoding() -> None:
    agent, world = net(ANSWERS), AnswerWorld(SUM["problem"])
    (episode,) = play([SUM], SelfPlayEpisodeGenerator(agent, agent, MCTS))
    state = world.initial()
    rows = [np.concatenate([world.observe(state), world.encode(state, a)]) for a in world.legal(state)]
    with torch.inference_mode():
        expected = agent.eval()(torch.from_numpy(np.stack(rows)))[0].reshape(-1).softmax(0)
    assert list(episode.mcts_traces[0].prior_probs.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert episode.states[0].state_id == state_id(state)


def test_the_same_seed_plays_the_same_in_any_company() -> None:
    tasks = [SUM, TICTACTOE, *MathProblemGenerator(seed=8).generate(3)]
    first, second = (play(tasks, SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=1, slots=n)) for n in (64, 2))
    assert [searched(e) for e in first] == [searched(e) for e in second]
    other = play(tasks, SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=2))
    assert [searched(e) for e in first] != [searched(e) for e in other]


def test_state_dicts_give_the_episode_back() -> None:
    (episode,) = play(GameTaskGenerator(seed=2).generate(1), SelfPlayEpisodeGenerator(mcts_config=MCTS))
    again = SelfPlayEpisode.from_state(episode.to_state())
    assert again.to_dict() == episode.to_dict() and again.outcome is episode.outcome
    with pytest.raises(DataError, match="cannot be read"):
        SelfPlayEpisode.from_state({"task_id": "x"})


def test_tasks_and_agents_that_do_not_fit() -> None:
    generator = SelfPlayEpisodeGenerator(mcts_config=MCTS)
    with pytest.raises(DataError, match="type 'gam', which has no world \\(did you mean 'game'"):
        play([{**SUM, "type": "gam", "answer": None}], generator)
    with pytest.raises(DataError, match="no 'problem'"):
        play([{"task_id": "x", "type": "word"}], generator)
    with pytest.raises(ConfigError, match="takes observations \\[2, 3, 3\\]"):
        play([SUM], SelfPlayEpisodeGenerator(net(BOARD), mcts_config=MCTS))
    with pytest.raises(ConfigError, match="gives no policy"):
        AgentEvaluator(BOARD, policy=object())
    with pytest.raises(ConfigError, match="return \\(logits, values\\)"):
        play([TICTACTOE], SelfPlayEpisodeGenerator(nn.Flatten(), mcts_config=MCTS))
    with pytest.raises(ConfigError, match="leave trm_agent out"):
        SelfPlayEpisodeGenerator(Knows("1"), object())
    with pytest.raises(ConfigError, match="fixed"):
        play([TICTACTOE], SelfPlayEpisodeGenerator(Knows("1"), mcts_config=MCTS))
    with pytest.raises(DataError, match="p2-2x3x3-a9"):
        Family.named("nonsense")
    assert Family.named(ANSWERS.name) == ANSWERS and Family.named(BOARD.name) == BOARD


# ---------------------------------------------------------------------------------------------- what the limit covers


def interrupted(generator: SelfPlayEpisodeGenerator, task: Any, timeout: float) -> tuple[SelfPlayEpisode, float]:
    """The episode, and how long it was waited for while a sibling of another generator played on."""

    async def run() -> tuple[SelfPlayEpisode, float]:
        other = SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=3)
        sibling = asyncio.create_task(other.generate_episode(SUM, timeout=30.0))
        began = time.perf_counter()
        episode = await generator.generate_episode(task, timeout=timeout)
        waited = time.perf_counter() - began
        assert (await sibling).metadata["complete"]
        return episode, waited

    return asyncio.run(run())


def test_a_timeout_interrupts_the_making_of_a_world() -> None:
    stop = threading.Event()

    def world(task: Task) -> AnswerWorld:
        stop.wait(20.0)
        return AnswerWorld(task.prompt)

    generator = SelfPlayEpisodeGenerator(mcts_config=MCTS, worlds={"slow": world})
    episode, waited = interrupted(generator, {**SUM, "type": "slow"}, 0.2)
    stop.set()
    assert waited < 5.0 and episode.outcome is Outcome.TIMEOUT and "0.2 s" in episode.metadata["reason"]
    assert (episode.episode_length, episode.initial_state, episode.states) == (0, None, [])
    assert episode.metadata["family"] is None and not episode.metadata["complete"]
    assert SelfPlayEpisode.from_bytes(episode.to_bytes()).to_dict() == episode.to_dict()
    assert (generator.episode_count, generator.timeout_count) == (1, 1)


def test_a_timeout_interrupts_the_solving_of_a_game() -> None:
    """Its verdict asks for thousands of positions, and each of them takes its time."""
    stop = threading.Event()

    class Slow(TicTacToe):
        def step(self, state: Any, action: int) -> Any:
            if threading.current_thread() is not threading.main_thread():
                assert not stop.wait(0.02)
            return super().step(state, action)

    worlds = {"slow": lambda task: PlayedOn(Slow())}
    generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 2}, worlds=worlds)
    episode, waited = interrupted(generator, {**TICTACTOE, "type": "slow"}, 0.6)
    stop.set()
    assert waited < 5.0 and episode.outcome is Outcome.TIMEOUT
    assert episode.metadata["done"] and not episode.metadata["complete"]  # it was played to its end, and not judged


def test_a_timeout_interrupts_the_checking_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def slow(*texts: str, **options: Any) -> bool:
        return not stop.wait(20.0)

    monkeypatch.setattr("troupe.systems.selfplay.generator.answers_equal", slow)

    async def run() -> tuple[SelfPlayEpisode, float]:
        generator = SelfPlayEpisodeGenerator(Knows("17"), mcts_config=MCTS, explore=False)
        began = time.perf_counter()
        return await generator.generate_episode(SUM, timeout=0.5), time.perf_counter() - began

    episode, waited = asyncio.run(run())
    rewards = list(episode.rewards)
    stop.set()
    time.sleep(0.05)
    assert waited < 5.0 and episode.outcome is Outcome.TIMEOUT
    assert episode.rewards == rewards and not any(rewards)  # a verdict that comes too late changes nothing


def test_a_world_that_cannot_be_made_is_raised() -> None:
    def broken(task: Task) -> AnswerWorld:
        raise TimeoutError("the server did not answer")

    generator = SelfPlayEpisodeGenerator(mcts_config=MCTS, worlds={"broken": broken})
    with pytest.raises(TimeoutError, match="the server"):
        play([{**SUM, "type": "broken"}], generator, timeout=30.0)
    with pytest.raises(DataError, match="not legal"):
        play([{**TICTACTOE, "moves": [0, 0]}], generator)
    assert (generator.episode_count, generator.error_count) == (2, 2)


def test_episodes_of_one_call_are_those_of_many() -> None:
    tasks = [SUM, TICTACTOE, *GameTaskGenerator(seed=8).generate(3)]
    many = play(tasks, SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=1))
    one = asyncio.run(SelfPlayEpisodeGenerator(mcts_config=MCTS, seed=1).generate_episodes(tasks))
    assert [searched(e) for e in one] == [searched(e) for e in many]


# ---------------------------------------------------------------------------------------------- episodes as bytes


def test_bytes_give_the_episode_back() -> None:
    episodes = play([SUM, *GameTaskGenerator(seed=2).generate(1)], SelfPlayEpisodeGenerator(mcts_config=MCTS))
    for episode in episodes:
        again = SelfPlayEpisode.from_bytes(episode.to_bytes())
        assert again.to_dict() == episode.to_dict() and len(episode.to_bytes()) < len(json.dumps(episode.to_dict()))
        assert again.metadata["family"] == episode.metadata["family"]  # with its tuple
        for own, other in zip(again.states, episode.states, strict=True):
            assert own.representation.dtype == np.float32 and np.array_equal(own.representation, other.representation)
    stored = episodes[0].to_bytes()
    for wrong in (b"", stored[:-20], b"nonsense", zlib.compress(b"\0" * 40), zlib.compress(b"\5\0\0\0\0\0\0\0[1,2]")):
        with pytest.raises(DataError, match="cannot be read"):
            SelfPlayEpisode.from_bytes(wrong)


def test_symmetries_are_named_by_their_content() -> None:
    generator = SelfPlayEpisodeGenerator(mcts_config=MCTS)
    board, four, words = play([TICTACTOE, {**TICTACTOE, "game": "connect_four"}, SUM], generator, max_steps=2)
    names = [episode.metadata["symmetries"] for episode in (board, four, words)]
    assert names[2] == "" and set(generator.symmetries) == set(names[:2]) and len(set(names)) == 3
    assert [len(generator.symmetries[name]) for name in names[:2]] == [8, 2]
