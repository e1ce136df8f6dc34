from __future__ import annotations

import pytest

from troupe.errors import ConfigError
from troupe.models.config import PolicyValueConfig
from troupe.systems.selfplay.settings import search_config, trainer_settings


def test_the_documented_keys() -> None:
    config = search_config({"num_simulations": 1600, "c_puct": 1.5, "num_parallel": 8, "virtual_loss": 1,
                            "temperature_threshold": 30, "temperature_init": 1.0, "temperature_final": 0.1,
                            "dirichlet_alpha": 0.3, "dirichlet_epsilon": 0.2})  # fmt: skip
    assert (config.algorithm, config.simulations, config.c_puct, config.leaves) == ("puct", 1600, 1.5, 8)
    assert (config.temperature_moves, config.temperature, config.final_temperature) == (30, 1.0, 0.1)
    assert (config.dirichlet_alpha, config.dirichlet_epsilon) == (0.3, 0.2)
    assert search_config(None).simulations == 100 and search_config({"algorithm": "gumbel"}).algorithm == "gumbel"


@pytest.mark.parametrize(
    ("mcts", "message"),
    [
        ({"num_simulation": 5}, r"mcts\.num_simulation: unknown key \(did you mean 'num_simulations'\?\)"),
        ({"num_simulations": 0}, r"mcts\.num_simulations is 0"),
        ({"temperature_init": -1}, r"mcts\.temperature_init is -1"),
        ({"num_simulations": "many"}, r"'many'"),
        ({"algorithm": "gumbel", "c_puct": 1.0}, "not read with algorithm='gumbel'"),
        ({"considered": 4}, "not read with algorithm='puct'"),
        ({"temperature_final": 0.1}, "temperature_threshold"),
        ({"virtual_loss": 3}, "write 1"),
        ({"algorithm": "minimax"}, "'minimax'"),
    ],
)
def test_a_wrong_search_is_one_sentence(mcts: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        search_config(mcts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"game_per_iteration": 5}, r"config\.game_per_iteration: unknown key \(did you mean 'games_per_iteration'"),
        ({"batch_size": 0}, r"config\.batch_size is 0"),
        ({"mcts": {"sims": 3}}, r"mcts\.sims: unknown key"),
        ({"net": {"hiden": [3]}}, r"config\.net\.hiden: unknown key \(did you mean 'hidden'"),
        ({"net": {"channels": 8}}, r"config\.net\.channels is for net\.kind=conv"),
        ({"net": {"kind": "conv", "hidden": [8]}}, r"config\.net\.hidden is for net\.kind=mlp"),
        ({"ema": 1.0}, r"config\.ema is 1\.0"),
    ],
)
def test_a_wrong_config_is_one_sentence(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        trainer_settings(config)
    assert "\n" not in str(refused.value)


def test_networks_are_not_configured_beside_agents() -> None:
    with pytest.raises(ConfigError, match=r"config\.net is for networks that are built here") as refused:
        trainer_settings({"net": {"hidden": [8]}}, agents=True)
    assert "\n" not in str(refused.value) and trainer_settings({"epochs": 2}, agents=True).epochs == 2
    assert trainer_settings({"net": {"hidden": [8]}}).net == PolicyValueConfig(kind="mlp", hidden=(8,))


def test_the_defaults_are_the_documents() -> None:
    found = trainer_settings(None)
    assert (found.games_per_iteration, found.batch_size, found.parallel_batch_size) == (1000, 64, 32)
    assert (found.max_buffer_size, found.success_weight, found.failure_weight) == (10_000, 1.0, 0.3)
    assert found.keep_last is None  # the document removes no checkpoint
