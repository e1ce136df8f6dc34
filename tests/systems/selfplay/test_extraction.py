from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from troupe.episode import Outcome
from troupe.errors import ConfigError, DataError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import policy_value_net
from troupe.systems.selfplay.agents import Family, forward_of
from troupe.systems.selfplay.answering import AnswerWorld
from troupe.systems.selfplay.episodes import SelfPlayEpisode, TrainingExample
from troupe.systems.selfplay.extraction import SelfPlayDataset, TrainingDataExtractor
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator
from troupe.systems.selfplay.learning import Network, average, columns, losses, passes, tensors

BOARD = Family(2, (2, 3, 3), 9)
ANSWERS = Family.of(AnswerWorld("?"))
PATH = {"task_id": "sum", "type": "word", "problem": "Add 12 and 5", "answer": "17"}


def play(tasks: Any, **options: Any) -> list[SelfPlayEpisode]:
    async def all_of_them() -> list[SelfPlayEpisode]:
        generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 12}, **options)
        return await asyncio.gather(*(generator.generate_episode(task) for task in tasks))

    return asyncio.run(all_of_them())


@pytest.fixture(scope="module")
def games() -> list[SelfPlayEpisode]:
    return play(GameTaskGenerator(seed=1).generate(24))


@pytest.fixture(scope="module")
def solved() -> SelfPlayEpisode:
    """12+5, then 17: played until the noise finds it."""
    for seed in range(400):
        (episode,) = play([PATH], seed=seed)
        if episode.outcome is Outcome.SUCCESS:
            return episode
    raise AssertionError("not found in 400 attempts")


def test_values_are_the_outcome_as_the_mover_sees_it(games: list[SelfPlayEpisode]) -> None:
    for episode in games:
        examples = TrainingDataExtractor()._extract_value_examples(episode)
        assert len(examples) == episode.episode_length
        movers = episode.metadata["to_play"]
        for t, example in enumerate(examples):
            sign = 1 if movers[t] == movers[0] else -1
            assert float(example.target) == sign * episode.total_reward and example.weight == 1.0
            assert torch.equal(example.state, torch.as_tensor(episode.states[t].representation))


def test_policies_are_over_all_actions_with_a_mask(games: list[SelfPlayEpisode]) -> None:
    data = TrainingDataExtractor(success_weight=2.0).extract_examples(games)
    assert data["policy"] and {e.weight for e in data["policy"]} == {2.0}
    for example in data["policy"]:
        legal = example.metadata["legal"]
        assert example.target.shape == legal.shape == (9,) and float(example.target.sum()) == pytest.approx(1.0)
        assert not example.target[~legal].any()
        assert torch.equal(~legal, (example.state.sum(0) > 0).reshape(-1))  # a taken cell is not legal
    episode = next(e for e in games if e.outcome is Outcome.SUCCESS)
    first = TrainingDataExtractor()._extract_policy_examples(episode)[0]
    visits = episode.mcts_traces[0].visit_counts
    assert {str(i): round(float(p) * 12) for i, p in enumerate(first.target) if p > 0} == {
        name: n for name, n in visits.items() if n
    }


def test_failed_attempts_become_negatives_and_their_refuter_an_example(games: list[SelfPlayEpisode]) -> None:
    extractor = TrainingDataExtractor(failure_weight=0.25)
    failed = [e for e in games if e.outcome is Outcome.FAILURE]
    assert failed and not extractor.extract_examples([e for e in games if e.outcome is Outcome.SUCCESS])["negative"]
    for episode in failed:
        data = extractor.extract_examples([episode])
        first = episode.metadata["to_play"][0]
        own = [a for a in episode.actions if a.parameters["player"] == first]
        assert [int(e.target) for e in data["negative"]] == [int(a.action_id) for a in own]
        assert {e.weight for e in data["negative"]} == {0.25}
        assert all(e.metadata["to_play"] != first for e in data["policy"]) and not data["reasoning"]


def test_a_verified_path_is_the_target_where_the_search_saw_no_reward(solved: SelfPlayEpisode) -> None:
    data = TrainingDataExtractor().extract_examples([solved])
    for t, example in enumerate(data["policy"]):
        assert example.target.sum() == 1.0 == example.target[solved.metadata["chosen"][t]]
        assert example.metadata["candidates"].shape == (len(example.target), ANSWERS.encoding)
    assert [float(e.target) for e in data["value"]] == [1.0] * (solved.episode_length + 1)  # the answered state too
    (reasoning,) = data["reasoning"]
    query, chain = reasoning.target
    assert query == "Add 12 and 5" and chain.splitlines()[-1].endswith("The answer is 17.")
    assert "12+5 = 17" in chain and isinstance(reasoning.state, torch.Tensor)


def test_only_verified_outcomes_teach(games: list[SelfPlayEpisode]) -> None:
    cut = replace(games[0], metadata={**games[0].metadata, "complete": False})
    assert not any(TrainingDataExtractor().extract_examples([cut]).values())
    with pytest.raises(DataError, match="SelfPlayEpisodeGenerator"):
        TrainingDataExtractor().extract_examples([replace(games[0], metadata={})])


def test_the_default_collation_takes_fixed_actions(games: list[SelfPlayEpisode]) -> None:
    data = TrainingDataExtractor().extract_examples(games)
    for kind, shape in (("policy", (9,)), ("value", ()), ("negative", ())):
        batch = next(iter(DataLoader(SelfPlayDataset(data[kind], kind), batch_size=4)))  # type: ignore[arg-type]
        assert set(batch) == {"state", "target", "weight", "metadata"}
        assert batch["state"].shape == (4, 2, 3, 3) and batch["target"].shape == (4, *shape)
        assert batch["weight"].shape == (4,) and len(batch["metadata"]["task_id"]) == 4
    (pair,) = [next(iter(DataLoader(SelfPlayDataset(data["reasoning"], "reasoning"), batch_size=2)))]
    assert len(pair["target"][0]) == 2 and "plays" in pair["target"][1][0]


def test_a_dataset_is_of_one_type(games: list[SelfPlayEpisode]) -> None:
    data = TrainingDataExtractor().extract_examples(games)
    everything = [example for examples in data.values() for example in examples]
    assert len(SelfPlayDataset(everything, "negative")) == len(data["negative"])
    assert len(SelfPlayDataset(everything, "value", BOARD.name)) == len(data["value"])
    with pytest.raises(ConfigError, match="did you mean 'policy'"):
        SelfPlayDataset(everything, "polic")
    with pytest.raises(ConfigError, match="no example is of the family"):
        SelfPlayDataset(everything, "value", "p1-3-a4")
    with pytest.raises(ConfigError, match="failure_weight"):
        TrainingDataExtractor(failure_weight=-1)


# ---------------------------------------------------------------------------------------------- learning


def rows(family: Family, **examples: list[TrainingExample]) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: tensors(family, columns(family, kind, some)) for kind, some in examples.items()}


def negative(weight: float) -> TrainingExample:
    legal = torch.tensor([True, True, True] + [False] * 6)
    more = {"legal": legal, "family": BOARD.name, "to_play": 0}
    return TrainingExample("x", "negative", torch.zeros(2, 3, 3), torch.tensor(1), weight, more)


def test_unlikelihood_by_hand() -> None:
    """Logits 0, ln 2, 0 over three legal actions: p = 2/4, and -ln(1 - p) = ln 2. Two rows of weights 1 and 0.5."""
    logits = torch.tensor([0.0, math.log(2), 0.0] + [9.0] * 6)
    network = Network(BOARD, policy=lambda rows: logits.expand(len(rows), 9).clone().requires_grad_(True))
    (closure,) = losses(network, rows(BOARD, negative=[negative(1.0), negative(0.5)]))
    assert float(closure()["negative"].detach()) == pytest.approx(math.log(2) * 1.5 / 2)


def gradient(weight: float | None) -> torch.Tensor:
    net = policy_value_net(PolicyValueConfig(kind="mlp"), (2, 3, 3), 9, seed=0)
    network = Network(BOARD, forward_of(net, "policy"), forward_of(net, "value"))
    value = TrainingExample("v", "value", torch.ones(2, 3, 3), torch.tensor(1.0), 1.0, {"family": BOARD.name})
    batch = rows(BOARD, value=[value], **({"negative": [negative(weight)]} if weight is not None else {}))
    total = sum((loss for closure in losses(network, batch) for loss in closure().values()), torch.zeros(()))
    found = torch.autograd.grad(total, list(net.parameters()), allow_unused=True)
    return torch.cat([(g if g is not None else torch.zeros_like(p)).reshape(-1)
                      for g, p in zip(found, net.parameters(), strict=True)])  # fmt: skip


def test_negatives_change_the_gradient_by_their_weight() -> None:
    without, none, one, two = gradient(None), gradient(0.0), gradient(1.0), gradient(2.0)
    assert torch.equal(without, none) and not torch.allclose(without, one)
    torch.testing.assert_close(two - without, 2 * (one - without))


def test_candidates_are_padded_without_effect(solved: SelfPlayEpisode) -> None:
    """The loss of a batch of lists of different lengths is the mean of the losses of its rows alone."""
    net = policy_value_net(PolicyValueConfig(kind="mlp"), ANSWERS.input_shape, 1, seed=0).eval()
    network = Network(ANSWERS, forward_of(net, "policy"), forward_of(net, "value"))
    examples = TrainingDataExtractor().extract_examples([solved])["policy"]
    assert len({len(e.target) for e in examples}) > 1
    (together,) = losses(network, rows(ANSWERS, policy=examples))
    alone = [losses(network, rows(ANSWERS, policy=[e]))[0]()["policy"].item() for e in examples]
    assert together()["policy"].item() == pytest.approx(np.mean(alone), rel=1e-5)
    values = TrainingDataExtractor()._extract_value_examples(solved)
    assert rows(ANSWERS, value=values)["value"]["observations"].shape[:2] == (len(values), 2)


def test_a_pass_shows_every_example_once() -> None:
    seen: dict[str, list[int]] = {"policy": [], "value": []}
    parts = list(passes({"policy": 10, "value": 25}, 8, np.random.default_rng(0)))
    for part in parts:
        for kind, places in part.items():
            seen[kind] += places.tolist()
    assert len(parts) == 4 and sorted(seen["policy"]) == list(range(10)) and sorted(seen["value"]) == list(range(25))


def test_what_nobody_gives_is_not_learned() -> None:
    assert losses(Network(BOARD), rows(BOARD, negative=[negative(1.0)])) == []
    bare = replace_candidates()
    with pytest.raises(ConfigError, match="no encode"):
        columns(Family(1, (3,), None), "policy", [bare])


def replace_candidates() -> TrainingExample:
    more = {"candidates": torch.zeros(2, 0), "family": "p1-3-c0"}
    return TrainingExample("x", "policy", torch.zeros(3), torch.tensor([0.5, 0.5]), 1.0, more)


def test_twice_the_weight_is_twice_the_gradient(games: list[SelfPlayEpisode]) -> None:
    net = policy_value_net(PolicyValueConfig(kind="mlp"), (2, 3, 3), 9, seed=0)
    network = Network(BOARD, forward_of(net, "policy"), forward_of(net, "value"))

    def of(weight: float) -> list[float]:
        data = TrainingDataExtractor(success_weight=weight).extract_examples(games[:6])
        batch = rows(BOARD, policy=data["policy"], value=data["value"])
        return [float(loss.detach()) for closure in losses(network, batch) for loss in closure().values()]

    one, two, none = of(1.0), of(2.0), of(0.0)
    assert two == pytest.approx([2 * loss for loss in one]) and min(one) > 0 == max(none)


def test_averaged_weights_by_hand() -> None:
    """Steps 1, 2, 3 at 1, 2, 4 from 0: decays 2/11, 3/12, 4/13, of which 0.25 is the limit from step 2 on."""
    module = torch.nn.BatchNorm1d(1)
    averaged = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    for step, weight in ((1, 1.0), (2, 2.0), (3, 4.0)):
        torch.nn.init.constant_(module.weight, weight)
        module.num_batches_tracked += 5
        average(averaged, module, step, 0.25)
    first = 9 / 11
    second = 0.25 * first + 0.75 * 2
    assert float(averaged["weight"]) == pytest.approx(0.25 * second + 0.75 * 4)
    assert int(averaged["num_batches_tracked"]) == 15
    average(averaged, module, 4, 0.0)
    assert float(averaged["weight"]) == 4.0


# ---------------------------------------------------------------------------------------------- discounts, data sets


def test_values_are_discounted_as_in_the_search(games: list[SelfPlayEpisode]) -> None:
    """Two steps that pay 1 and 2 and an answer that is paid 1 afterwards, at gamma 1/2: 1 + (2 + 1/2)/2, 2 + 1/2, 1."""
    states = [games[0].states[0]] * 3
    more = {**games[0].metadata, "discount": 0.5, "answer": "x", "done": False, "to_play": [0, 0, 0]}
    episode = replace(games[0], outcome=Outcome.SUCCESS, rewards=[1.0, 3.0], states=states, metadata=more)
    assert [float(e.target) for e in TrainingDataExtractor()._extract_value_examples(episode)] == [2.25, 2.5, 1.0]
    del more["answer"]
    more |= {"done": True, "to_play": [1, 0, 1]}
    found = TrainingDataExtractor()._extract_value_examples(replace(episode, metadata=more))
    assert [float(e.target) for e in found] == [2.5, -3.0]  # 1 + 3/2; the other player loses 3


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_targets_agree_with_the_search(gamma: float) -> None:
    """One path alone, so that the search's own value is exactly the return that the extractor computes."""

    class Stairs:
        players, actions, observation_shape = 1, 1, (1,)

        def initial(self) -> int:
            return 0

        def legal(self, state: int) -> tuple[int, ...]:
            return (0,)

        def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
            return state + 1, float(state + 1), state == 3, 0

        def observe(self, state: int) -> np.ndarray:
            return np.array([state], np.float32)

    async def run() -> SelfPlayEpisode:
        mcts = {"num_simulations": 400, "discount": gamma}
        generator = SelfPlayEpisodeGenerator(mcts_config=mcts, worlds={"stairs": lambda task: Stairs()})
        return await generator.generate_episode({"task_id": "s", "type": "stairs", "problem": "Climb"})

    episode = asyncio.run(run())
    found = [float(e.target) for e in TrainingDataExtractor()._extract_value_examples(episode)]
    expected = [sum((t + 1 + k) * gamma**k for k in range(4 - t)) for t in range(4)]
    assert found == pytest.approx(expected) and episode.outcome is Outcome.SUCCESS
    searched = [next(iter(trace.q_values.values())) for trace in episode.mcts_traces]
    assert searched == pytest.approx(expected, rel=0.02)  # its first visits had not come to the end


def test_candidates_go_through_the_default_collation(solved: SelfPlayEpisode) -> None:
    """The document's own way: episodes of word problems, a data set, a loader."""
    data = TrainingDataExtractor().extract_examples([solved])
    lengths = [len(e.target) for e in data["policy"]]
    (batch,) = DataLoader(SelfPlayDataset(data["policy"], "policy"), batch_size=64)  # type: ignore[arg-type]
    assert len(set(lengths)) > 1 and batch["target"].shape == (len(lengths), max(lengths))
    assert batch["metadata"]["legal"].sum(1).tolist() == lengths
    assert batch["metadata"]["candidates"].shape == (len(lengths), max(lengths), ANSWERS.encoding)
    for row, example in zip(batch["target"], data["policy"], strict=True):
        assert torch.equal(row[: len(example.target)], example.target) and not row[len(example.target) :].any()


def test_states_of_several_shapes_are_no_data_set(games: list[SelfPlayEpisode], solved: SelfPlayEpisode) -> None:
    data = TrainingDataExtractor().extract_examples([*games, solved])
    with pytest.raises(ConfigError, match=r"p1-110-c49, p2-2x3x3-a9 have different shapes; pass one of them as family"):
        SelfPlayDataset(data["value"], "value")
    assert len(SelfPlayDataset(data["value"], "value", ANSWERS.name)) == solved.episode_length + 1


def test_an_example_as_json(games: list[SelfPlayEpisode]) -> None:
    example = TrainingDataExtractor().extract_examples(games)["policy"][0]
    shown = json.loads(json.dumps(example.to_dict()))
    assert shown["metadata"]["legal"] == example.metadata["legal"].tolist()
    assert shown["target"] == example.target.tolist() and shown["state"] == example.state.tolist()
