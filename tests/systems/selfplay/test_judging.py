from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.selfplay_runs import TINY
from tests.systems.selfplay.test_trainer import nested
from troupe.config import load
from troupe.errors import ConfigError
from troupe.maths.ratings import Score
from troupe.models.policy_value import policy_value_net
from troupe.systems.selfplay.arena import Match
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.judging import Judge, Judgement, Ladder
from troupe.training.evaluation import Decision, MatchGate


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

    def match(
        self: Judge, ours: Any, theirs: Any, openings: Sequence[Any], iteration: int, opponent: str, part: int
    ) -> Match:
        first_moves[opponent] = theirs.choose([self._game.initial()], [0])[0]
        return Match((1.0,) * len(openings), Score(0, 2 * len(openings), 0))

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


def judged(config: SelfPlayConfig, **arena: Any) -> Judgement:
    config = config.model_copy(update={"arena": config.arena.model_copy(update=arena)})
    net = policy_value_net(config.net, (2, 3, 3), 9, seed=0)
    return Judge(config, weights(config, 0), net).judge(3, weights(config, 4), "before", weights(config, 1), {})


def test_one_opening_is_one_pair_and_promotes_nobody(config: SelfPlayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single pair that is won would promote, if it were only counted often enough."""
    monkeypatch.setattr(
        "troupe.systems.selfplay.judging.play_openings",
        lambda game, ours, theirs, openings, generator: Match((2.0,) * len(openings), Score(2 * len(openings), 0, 0)),
    )
    found = judged(config, opening_plies=0, cap=400, anchors=())
    assert found.scores == {"before": Score(2, 0, 0)} and not found.decision.promote
    assert found.decision.reasons[0].startswith("undecided, so the incumbent stays")
    assert found.decision.reasons[1:] == (
        "arena.opening_plies=0 leads to 1 of the 200 different openings that arena.cap=400 asks for; "
        "write a larger arena.opening_plies, or a larger arena.elo1, which takes fewer",
    )
    enough = judged(config, opening_plies=2, cap=400, anchors=()).decision
    assert enough.promote and len(enough.reasons) == 1  # 72 openings are fewer than 200 too, but decided


def test_the_gate_meets_no_opening_twice(config: SelfPlayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Any] = []

    def draws(game: Any, ours: Any, theirs: Any, openings: Sequence[Any], generator: Any) -> Match:
        met.extend(game.key(state) for state, _ in openings)
        return Match((1.0,) * len(openings), Score(0, 2 * len(openings), 0))

    monkeypatch.setattr("troupe.systems.selfplay.judging.play_openings", draws)
    monkeypatch.setattr(MatchGate, "is_decided", lambda self, pairs: False)
    assert judged(config, opening_plies=2, cap=400, anchors=()).scores["before"].games == 144
    assert len(met) == len(set(met)) == 72
    met.clear()
    assert judged(config, opening_plies=3, cap=400, anchors=()).scores["before"].games == 400
    assert len(met) == len(set(met)) == 200


def test_an_anchor_meets_no_opening_twice(config: SelfPlayConfig) -> None:
    scores = judged(config, opening_plies=1, cap=2, anchors=("random", "untrained"), anchor_games=40).scores
    assert scores["random"].games == scores["untrained"].games == 18
    assert judged(config, opening_plies=2, cap=2, anchors=("random",), anchor_games=40).scores["random"].games == 40


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "arena.anchors",
            "[random, 'minimax:0']",
            "arena.anchors has 'minimax:0'; write random, untrained, champions or",
        ),
        ("arena.anchors", "['minimax:-1']", "arena.anchors has 'minimax:-1'; write"),
        ("seed", -1, "seed"),
        ("acting.surprise", 1.5, "surprise"),
    ],
)
def test_what_no_run_could_play_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(SelfPlayConfig, preset=nested({**TINY, key: value}))
    assert said in str(error.value) and "\n" not in str(error.value)
    load(SelfPlayConfig, preset=nested({**TINY, "arena.anchors": "['minimax:1']", "seed": 0, "acting.surprise": 1.0}))


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
