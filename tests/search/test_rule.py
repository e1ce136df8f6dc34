from __future__ import annotations

import pytest
from pydantic import ValidationError

from troupe.search.config import SearchConfig
from troupe.search.rule import Rule


def test_a_rule_is_its_configuration() -> None:
    config = SearchConfig(
        algorithm="puct", c_puct=2.5, fpu="parent", fpu_reduction=0.3, discount=0.9, leaves=4, c_visit=7, c_scale=0.2
    )
    assert Rule.of(config, 1)._asdict() == {
        "gumbel": False,
        "single": True,
        "virtual": True,
        "c_puct": 2.5,
        "fpu_parent": True,
        "fpu_reduction": 0.3,
        "c_visit": 7.0,
        "c_scale": 0.2,
        "discount": 0.9,
    }
    other = Rule.of(SearchConfig(), 2)
    assert (other.gumbel, other.single, other.virtual, other.fpu_parent) == (True, False, False, False)


def test_reuse_does_not_go_with_sequential_halving() -> None:
    with pytest.raises(ValidationError, match="reuse=true goes with algorithm=puct"):
        SearchConfig(reuse=True)
    assert SearchConfig(reuse=True, algorithm="puct").reuse


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("simulations", 0),
        ("leaves", 0),
        ("c_puct", 0),
        ("discount", 1.5),
        ("discount", 0),
        ("considered", 0),
        ("dirichlet_epsilon", 1.1),
        ("dirichlet_alpha", 0),
        ("temperature", -1),
        ("kernels", "cuda"),
        ("sims", 3),
    ],
)
def test_numbers_out_of_range(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        SearchConfig(**{"algorithm": "puct", key: value})  # type: ignore[arg-type]
