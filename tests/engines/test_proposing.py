from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from troupe.engines.evaluator import UniformEvaluator
from troupe.engines.proposing import LanguageProposer, Told, ToldGame
from troupe.episode import Problem
from troupe.errors import ConfigError, DataError
from troupe.models.language import LanguageModel, Policy
from troupe.protocols import Proposal, TaskGame
from troupe.search.asynchronous import Ticker
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.tasks.math import MathProblemGenerator

SEARCH = SearchConfig(simulations=6, considered=4, c_scale=1.0, kernels="numpy")
TASKS = MathProblemGenerator(difficulty_range=(0.2, 0.3), seed=3, kinds=("equation",)).generate(12)


def game() -> ToldGame:
    return ToldGame(MathProblemGenerator.game("equation"))


def walked(told: ToldGame, steps: int) -> list[Told]:
    """States `steps` random actions into the tasks; those that have not ended."""
    generator, states = np.random.default_rng(0), []
    for task in TASKS:
        state, done = told.begin(task.problem), False
        for _ in range(steps):
            if not done:
                state, _, done, _ = told.step(state, int(generator.choice(told.legal(state))))
        if not done:
            states.append(state)
    return states


def expected(model: LanguageModel, told: ToldGame, state: Told, per_token: bool = False) -> np.ndarray:
    """The scores of a state's lines, one plain forward pass over the whole conversation for each."""
    head = model.format.encode([{"role": "user", "content": state.prompt}])
    before = model.format.encode_response("".join(line + "\n" for line in state.lines))[:-1]
    scores = []
    for action in told.legal(state):
        line = model.format.encode_response(told.describe(state, action) + "\n")[:-1]
        ids = torch.tensor([[*head, *before, *line]])
        with torch.no_grad():
            logits = model.network(input_ids=ids).logits[0, :, : model.vocabulary].double().log_softmax(-1)
        own = [float(logits[at - 1, ids[0, at]]) for at in range(ids.shape[1] - len(line), ids.shape[1])]
        scores.append(sum(own) / (len(own) if per_token else 1))
    return np.array(scores)


@pytest.mark.parametrize(("name", "per_token"), [("tiny", False), ("tiny", True), ("llama", False)])
def test_priors_are_the_models_own_probabilities_of_the_lines(
    name: str, per_token: bool, request: pytest.FixtureRequest
) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    told = game()
    states = walked(told, 0)[:4] + walked(told, 2)[:4]
    proposer = LanguageProposer(Policy("solver", model), told, temperature=2.0, per_token=per_token, budget=300)
    for state, weights in zip(states, proposer.weights(states), strict=True):
        scores = expected(model, told, state, per_token) / 2.0
        lines = [told.describe(state, action) for action in told.legal(state)]  # two actions may say the same
        wanted = np.exp(scores - scores.max()) / [lines.count(line) for line in lines]
        np.testing.assert_allclose(weights, wanted / wanted.sum(), atol=1e-5)
    assert sum(len(state.lines) for state in states) >= 8


def test_states_are_read_once_until_the_model_changes(tiny_model: Callable[..., LanguageModel]) -> None:
    told, policy = game(), Policy("solver", tiny_model())
    proposer = LanguageProposer(policy, told)
    states = walked(told, 1)
    first = proposer.weights([*states, *states])
    scored = proposer.scored
    for a, b in zip(first, proposer.weights(states) * 2, strict=True):
        np.testing.assert_array_equal(a, b)
    assert proposer.scored == scored > 0
    with torch.no_grad():
        for _, parameter in policy.named_parameters():
            parameter.mul_(1.5)
    np.testing.assert_array_equal(proposer.weights(states)[0], first[0])
    policy.version += 1
    assert not np.allclose(np.concatenate(proposer.weights(states)), np.concatenate(first[: len(states)]), atol=1e-4)
    assert proposer.scored == 2 * scored
    forgetful = LanguageProposer(policy, told, memory=0)
    for _ in range(2):
        forgetful.weights(states)
    assert forgetful.scored == 2 * scored


def test_a_proposal_names_the_most_probable_actions(tiny: LanguageModel) -> None:
    told = game()
    states = walked(told, 0)
    proposer = LanguageProposer(Policy("solver", tiny), told, proposals=2, value=0.25)
    for state, weights, proposal in zip(states, proposer.weights(states), proposer.propose(states), strict=True):
        legal = list(told.legal(state))
        best = sorted(sorted(range(len(legal)), key=lambda i: -weights[i])[:2])
        assert proposal.actions == tuple(legal[i] for i in best) and proposal.value == 0.25
        assert proposal.priors == tuple(weights[best])
        assert weights.sum() == pytest.approx(1) and (weights > 0).all()


class Twins:
    """One state: actions 0 and 2 say the same, 1 says something else."""

    players, actions, pointers, vocabulary, observation_shape = 1, 3, 0, 0, (1,)

    def initial(self) -> str:
        return "start"

    def begin(self, problem: Problem) -> str:
        return "start"

    def legal(self, state: str) -> Sequence[int]:
        return (0, 1, 2) if state == "start" else ()

    def step(self, state: str, action: int) -> tuple[str, float, bool, int]:
        return "end", float(action == 1), True, 0

    def answer(self, state: str) -> str | None:
        return state

    def observe(self, state: str) -> np.ndarray:
        return np.zeros(1, np.float32)

    def key(self, state: str) -> str:
        return state

    def describe(self, state: str, action: int) -> str:
        return ("add 5", "take 5", "add 5")[action]


def test_actions_with_the_same_words_share_a_lines_probability(tiny: LanguageModel) -> None:
    told = ToldGame(Twins())
    assert isinstance(told, TaskGame)
    state = told.begin(Problem("p", "twins", "Add 5"))
    proposer = LanguageProposer(Policy("solver", tiny), told)
    (weights,) = proposer.weights([state])
    scores = expected(tiny, told, state)
    share = 1 / (1 + np.exp(scores[1] - scores[0]))
    np.testing.assert_allclose(weights, [share / 2, 1 - share, share / 2], atol=1e-5)
    assert proposer.scored == 2
    assert told.step(state, 1) == (Told("end", "Add 5", ("take 5",)), 1.0, True, 0)
    assert "start" in told.initial().prompt and told.render(state) == "start"


def test_one_legal_action_needs_no_model(tiny: LanguageModel) -> None:
    class Forced(Twins):
        def legal(self, state: str) -> Sequence[int]:
            return (1,) if state == "start" else ()

    told = ToldGame(Forced())
    proposer = LanguageProposer(Policy("solver", tiny), told)
    assert proposer.propose([told.initial()]) == [Proposal((1,), (1.0,), 0.5)] and proposer.scored == 0


def searched(evaluator: Any, **options: Any) -> list[int]:
    told = game()

    async def all_of() -> list[int]:
        ticker = Ticker(
            evaluator, SEARCH, slots=4, generator=np.random.default_rng(0), explore=False, returns=(0.0, 1.0), **options
        )
        found = await asyncio.gather(*(ticker.search(told, told.begin(task.problem)) for task in TASKS))
        assert all(f.actions == tuple(told.legal(told.begin(t.problem))) for f, t in zip(found, TASKS, strict=True))
        return [f.action for f in found]

    return asyncio.run(all_of())


def test_the_search_is_the_same_whoever_drives_it(tiny: LanguageModel) -> None:
    """As a proposer in a thread, as a coroutine, as an evaluator of the asynchronous driver and of the synchronous."""
    told = game()
    proposer = LanguageProposer(Policy("solver", tiny), told)

    class Awaited:
        async def propose(self, states: Sequence[Told]) -> list[Proposal]:
            await asyncio.sleep(0)
            return proposer.propose(states)

    class Judging:
        evaluate = staticmethod(proposer.evaluate)

    trees = Search(
        told, SEARCH, slots=len(TASKS), generator=np.random.default_rng(0), explore=False, returns=(0.0, 1.0)
    )
    trees.place(np.arange(len(TASKS)), [told.begin(task.problem) for task in TASKS], np.zeros(len(TASKS), np.int8))
    alone = run(trees, proposer).edges.tolist()
    assert searched(proposer) == searched(Awaited()) == searched(Judging()) == alone
    assert searched(proposer, threads=False) == alone
    assert searched(UniformEvaluator(0.5)) != alone  # the model has a say


def test_what_cannot_be_proposed(tiny_model: Callable[..., LanguageModel], tiny: LanguageModel) -> None:
    told = game()
    with pytest.raises(ConfigError, match="temperature > 0"):
        LanguageProposer(Policy("solver", tiny), told, temperature=0.0)
    short = LanguageProposer(Policy("solver", tiny_model(max_positions=24)), told)
    with pytest.raises(ConfigError, match="does not fit the model's 24 positions"):
        short.propose(walked(told, 0))
    with pytest.raises(DataError, match="give 1 to 2"):
        searched(LanguageProposer(Policy("solver", tiny), told), proposals=2)
