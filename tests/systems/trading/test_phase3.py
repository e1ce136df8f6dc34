"""Joint learning: both ways of computing gradients make the same steps."""

from __future__ import annotations

import pytest
import torch

from tests.systems.trading.teams import rotation
from troupe.envs.market.team import TeamVector
from troupe.errors import TrainingError
from troupe.systems.trading.phase3 import joint_learner
from troupe.training import objectives
from troupe.training.config import PPOConfig
from troupe.training.ppo_run import PPORun

SETTINGS = PPOConfig(n_steps=32, batch_size=32, n_epochs=2)


def learned(projection: bool = True, use_amp: bool = False) -> tuple[PPORun, dict[str, float]]:
    """A team after two rollouts of eight minibatches; how its gradients met."""
    core, _, team, net = rotation()
    made = []

    def learner(net, settings, remaining):  # type: ignore[no-untyped-def]
        periods = dict.fromkeys(net.agents, 3) | {net.lead: 1}
        found, coordination = joint_learner(
            net, settings, remaining, periods=periods, projection=projection, use_amp=use_amp
        )  # fmt: skip
        made.append(coordination)
        return found

    run = PPORun(
        TeamVector(core, team, 4), net, SETTINGS, total_timesteps=256, seed=0, objective=objectives.team_actor_critic,
        learner=learner,
    )  # fmt: skip
    for _ in range(2):
        run.rollout()
    return run, made[0].metrics()


@pytest.mark.parametrize("projection", [True, False])
def test_gradients_that_are_written_out_make_autograds_steps(projection: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, met = learned(projection)
    assert len(ours.learner.parameters()) == 8  # of each agent two pieces
    monkeypatch.setattr("troupe.models.team.TeamActorCritic.compact", lambda self, observations: False)
    theirs, expected = learned(projection)
    assert len(theirs.learner.parameters()) == len(list(theirs.net.parameters()))
    before = rotation()[3].state_dict()
    for name, parameter in ours.net.state_dict().items():
        torch.testing.assert_close(parameter, theirs.net.state_dict()[name], rtol=1e-4, atol=2e-5)
        assert not torch.equal(parameter, before[name])
    assert met == pytest.approx(expected, rel=1e-3, abs=1e-4) and "coordination/cosine/forex" in met
    steps = {agent: group.steps for agent, group in ours.learner.groups.items()}
    assert steps == {"meta": 16, "forex": 5, "commodities": 5, "equity": 5}


def test_pieces_without_their_gradients_stop_the_run() -> None:
    """A learner of two pieces has nothing to learn from where gradients are autograd's."""
    run, _ = learned()
    run.net.compiled = True
    with pytest.raises(TrainingError, match="written out"):
        run.rollout()


def test_mixed_precision_reaches_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    terms = objectives._team_terms
    monkeypatch.setattr(
        "troupe.training.objectives._team_terms",
        lambda *given: (seen.append(torch.is_autocast_enabled("cpu")), terms(*given))[1],
    )
    run, _ = learned(use_amp=True)
    assert seen and all(seen)
    exact = learned()[0].net.state_dict()
    moved = [not torch.equal(tensor, exact[name]) for name, tensor in run.net.state_dict().items()]
    assert all(moved) and all(torch.isfinite(tensor).all() for tensor in run.net.state_dict().values())
