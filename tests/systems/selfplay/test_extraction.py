from __future__ import annotations

import asyncio
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
from troupe.systems.selfplay.learning import Network, batches, columns, losses
from troupe.training.objectives import Meter

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


def negative(weight: float) -> TrainingExample:
    legal = torch.tensor([True, True, True] + [False] * 6)
    more = {"legal": legal, "family": BOARD.name, "to_play": 0}
    return TrainingExample("x", "negative", torch.zeros(2, 3, 3), torch.tensor(1), weight, more)


def test_unlikelihood_by_hand() -> None:
    """Logits 0, ln 2, 0 over three legal actions: p = 2/4, and -ln(1 - p) = ln 2. Two rows of weights 1 and 0.5."""
    logits = torch.tensor([0.0, math.log(2), 0.0] + [9.0] * 6)
    network = Network(BOARD, policy=lambda rows: logits.expand(len(rows), 9).clone().requires_grad_(True))
    (closure,) = losses(network, {"negative": [negative(1.0), negative(0.5)]}, Meter())
    assert float(closure()["negative"].detach()) == pytest.approx(math.log(2) * 1.5 / 2)


def gradient(weight: float | None) -> torch.Tensor:
    net = policy_value_net(PolicyValueConfig(kind="mlp"), (2, 3, 3), 9, seed=0)
    network = Network(BOARD, forward_of(net, "policy"), forward_of(net, "value"))
    value = TrainingExample("v", "value", torch.ones(2, 3, 3), torch.tensor(1.0), 1.0, {"family": BOARD.name})
    batch = {"value": [value], **({"negative": [negative(weight)]} if weight is not None else {})}
    total = sum((loss for closure in losses(network, batch, Meter()) for loss in closure().values()), torch.zeros(()))
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
    (together,) = losses(network, {"policy": examples}, Meter())
    alone = [losses(network, {"policy": [e]}, Meter())[0]()["policy"].item() for e in examples]
    assert together()["policy"].item() == pytest.approx(np.mean(alone), rel=1e-5)
    assert columns(ANSWERS, "value", examples[:0] or [TrainingDataExtractor()._extract_value_examples(solved)[0]])[
        "observations"
    ].shape[1] == 2  # fmt: skip


def test_a_pass_shows_every_example_once() -> None:
    data = {"policy": list(range(10)), "value": list(range(25)), "negative": []}
    seen: dict[str, list[int]] = {"policy": [], "value": []}
    parts = list(batches(data, 8, np.random.default_rng(0)))  # type: ignore[arg-type]
    for part in parts:
        for kind, rows in part.items():
            seen[kind] += rows  # type: ignore[arg-type]
    assert len(parts) == 4 and sorted(seen["policy"]) == list(range(10)) and sorted(seen["value"]) == list(range(25))


def test_what_nobody_gives_is_not_learned() -> None:
    assert losses(Network(BOARD), {"negative": [negative(1.0)]}, Meter()) == []
    bare = replace_candidates()
    with pytest.raises(ConfigError, match="no encode"):
        columns(Family(1, (3,), None), "policy", [bare])


def replace_candidates() -> TrainingExample:
    more = {"candidates": torch.zeros(2, 0), "family": "p1-3-c0"}
    return TrainingExample("x", "policy", torch.zeros(3), torch.tensor([0.5, 0.5]), 1.0, more)
