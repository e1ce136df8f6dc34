from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.selfplay_runs import TINY
from tests.systems.selfplay.test_trainer import nested
from troupe.config import load
from troupe.maths.ratings import Score
from troupe.models.policy_value import policy_value_net
from troupe.systems.selfplay.arena import Match
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.judging import Judge, Judgement, Ladder
from troupe.training.evaluation import Decision


def weights(config: SelfPlayConfig, cell: int) -> dict[str, torch.Tensor]:
    """A network that wants one cell above all."""
    net = policy_value_net(config.net, (2, 3, 3), 9, seed=0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.policy[-1].bias[cell] = 20.0
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.fixture
def config() -> SelfPlayConfig:
    return load(SelfPlayConfig, preset=nested({**TINY, "arena.anchors": "[champions]"})).config


def test_every_past_champion_plays_with_weights_of_its_own(
    config: SelfPlayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_moves: dict[str, int] = {}

    def match(self: Judge, ours: Any, theirs: Any, pairs: int, iteration: int, opponent: str, part: int) -> Match:
        first_moves[opponent] = theirs.choose([self._game.initial()], [0])[0]
        return Match((1.0,) * pairs, Score(0, 2 * pairs, 0))

    monkeypatch.setattr(Judge, "_match", match)
    start = weights(config, 0)
    champions = {
        "iteration 2": weights(config, 1),
        "iteration 4": weights(config, 2),
        "iteration 6": weights(config, 3),
    }
    judge = Judge(config, start, policy_value_net(config.net, (2, 3, 3), 9, seed=0))
    judgement = judge.judge(8, weights(config, 4), "iteration 6", champions["iteration 6"], champions)
    assert first_moves == {"iteration 2": 1, "iteration 4": 2, "incumbent": 3}
    assert set(judgement.scores) == {"iteration 2", "iteration 4", "iteration 6"}


def test_matches_can_be_played_again(config: SelfPlayConfig) -> None:
    config = config.model_copy(update={"arena": config.arena.model_copy(update={"anchors": ("random", "untrained")})})
    net = policy_value_net(config.net, (2, 3, 3), 9, seed=0)
    first, second = (
        Judge(config, weights(config, 0), net).judge(3, weights(config, 4), "iteration 1", weights(config, 1), {})
        for _ in range(2)
    )
    assert first == second and set(first.scores) == {"random", "untrained", "iteration 1"}


def test_ratings_follow_from_all_judgements() -> None:
    decision = Decision(True, ("improved",))
    ladder = Ladder(
        [
            Judgement(1, "untrained", decision, {"random": Score(30, 0, 10), "untrained": Score(20, 10, 10)}),
            Judgement(2, "iteration 1", decision, {"random": Score(36, 0, 4), "iteration 1": Score(25, 5, 10)}),
        ]
    )
    ratings = ladder.ratings()
    assert ratings["random"].mean == 0
    assert ratings["iteration 2"].mean > ratings["iteration 1"].mean > ratings["untrained"].mean > 0
    assert Ladder([Judgement.from_dict(j.to_dict()) for j in ladder.judgements]).ratings() == ratings
