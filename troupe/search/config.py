"""Configuration of tree search; imports neither NumPy nor torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from troupe.config import Frozen, ReadWhen

__all__ = ["SearchConfig", "read_when"]


class SearchConfig(Frozen):
    """How a move is searched for."""

    algorithm: Literal["gumbel", "puct"] = "gumbel"
    """`gumbel`: Gumbel AlphaZero (Danihelka et al. 2022), sequential halving at the root, good with 16 to 64
    simulations; `puct`: AlphaZero (Silver et al. 2018), visit counts, hundreds of them."""
    simulations: int = Field(32, ge=1)
    """Simulations per move, the evaluation of the root not counted."""
    considered: int = Field(16, ge=1)
    """Gumbel: actions that the root considers at most."""
    c_visit: float = Field(50.0, ge=0)
    """Gumbel: sigma(q) = (c_visit + largest visit count) * c_scale * q, q between 0 and 1."""
    c_scale: float = Field(0.1, gt=0)
    """Gumbel: see c_visit."""
    c_puct: float = Field(1.25, gt=0)
    """PUCT: weight of the prior against the value."""
    fpu: Literal["zero", "parent"] = "zero"
    """PUCT, first-play urgency: an unvisited action counts as 0, or as its parent's value less fpu_reduction."""
    fpu_reduction: float = Field(0.2, ge=0)
    """PUCT with fpu=parent."""
    dirichlet_alpha: float = Field(1.0, gt=0)
    """PUCT: concentration of the noise mixed into the root's priors while training (about 10 / legal actions)."""
    dirichlet_epsilon: float = Field(0.25, ge=0, le=1)
    """PUCT: share of that noise."""
    temperature: float = Field(1.0, ge=0)
    """PUCT: actions are drawn from visits^(1/temperature) while training; 0 takes the most visited."""
    temperature_moves: int | None = Field(None, ge=0)
    """PUCT: moves of a game after which `final_temperature` holds; null: never."""
    final_temperature: float = Field(0.0, ge=0)
    """PUCT: the later temperature."""
    discount: float = Field(1.0, gt=0, le=1)
    """Gamma per decision: what chance decides and pays after one belongs to it, at no discount of its own."""
    leaves: int = Field(1, ge=1)
    """Leaves per tree and wave, kept apart by virtual losses: for few trees and evaluations that cost much."""
    reuse: bool = False
    """PUCT: keep the subtree of the move played. Not for Gumbel, whose root counts follow a schedule."""
    kernels: Literal["auto", "numpy", "numba"] = "auto"
    """What walks the trees: `numba` (extra accel), or the NumPy reference; the visit counts are identical."""

    @model_validator(mode="after")
    def _fits(self) -> SearchConfig:
        if self.reuse and self.algorithm == "gumbel":
            raise ValueError("reuse=true goes with algorithm=puct; sequential halving counts from zero at each root")
        return self


def read_when(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of a search at the dotted `prefix` depend on others (see `troupe.config.ReadWhen`)."""

    def search(config: Any) -> Any:
        for name in prefix.split("."):
            config = getattr(config, name)
        return config

    def keys(*names: str) -> tuple[str, ...]:
        return tuple(f"{prefix}.{name}" for name in names)

    is_puct = f"is for {prefix}.algorithm=puct; write that, or leave it out"
    return (
        ReadWhen(
            keys("considered", "c_visit", "c_scale"),
            lambda config: search(config).algorithm == "gumbel",
            f"is for {prefix}.algorithm=gumbel; write that, or leave it out",
        ),
        ReadWhen(
            keys("c_puct", "fpu", "dirichlet_alpha", "dirichlet_epsilon", "temperature", "temperature_moves", "reuse"),
            lambda config: search(config).algorithm == "puct",
            is_puct,
        ),
        ReadWhen(
            keys("fpu_reduction"),
            lambda config: search(config).algorithm == "puct" and search(config).fpu == "parent",
            f"is for {prefix}.algorithm=puct with fpu=parent; write both, or leave it out",
        ),
        ReadWhen(
            keys("final_temperature"),
            lambda config: search(config).algorithm == "puct" and search(config).temperature_moves is not None,
            f"is for {prefix}.algorithm=puct with temperature_moves; write both, or leave it out",
        ),
    )
