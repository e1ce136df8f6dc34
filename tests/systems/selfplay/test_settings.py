from __future__ import annotations

import pytest

from troupe.errors import ConfigError
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
        ({"num_simulations": 0}, r"mcts\.simulations is 0"),
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
    ],
)
def test_a_wrong_config_is_one_sentence(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        trainer_settings(config)
    assert "\n" not in str(refused.value)


def test_the_defaults_are_the_documents() -> None:
    found = trainer_settings(None)
    assert (found.games_per_iteration, found.batch_size, found.parallel_batch_size) == (1000, 64, 32)
    assert (found.max_buffer_size, found.success_weight, found.failure_weight) == (10_000, 1.0, 0.3)
