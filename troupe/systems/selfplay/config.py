"""The configuration of a self-play run on a game; imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from troupe.config import Frozen, ReadWhen
from troupe.models.config import PolicyValueConfig
from troupe.search.config import SearchConfig, read_when

__all__ = [
    "ActingConfig",
    "ArenaConfig",
    "GameConfig",
    "LearningConfig",
    "PlayConfig",
    "RunConfig",
    "SelfPlayConfig",
    "board_net",
]


class GameConfig(Frozen):
    """Which game is played."""

    name: str = "tictactoe"
    """A game of `troupe.envs.GAMES`, or your own as package.module:Class."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the game's class."""


class PlayConfig(Frozen):
    """How games are played, or tasks attempted."""

    chunk: int = Field(512, ge=1)
    """Games that one worker plays in one piece, from one seed: the unit of exact resume."""
    slots: int = Field(64, ge=1)
    """Games of a chunk that are searched side by side; a slot takes the next game when its own ends."""
    max_moves: int = Field(512, ge=1)
    """A game longer than this is an error: it would never end."""
    value_mix: float = Field(0.0, ge=0, le=1)
    """Share of the search's own value in the value target, the rest being the game's result."""
    surprise: float = Field(0.0, ge=0, le=1)
    """Share of a position's weight in the loss that goes by how far the search moved the network's policy (policy
    surprise weighting), the rest being the same for all."""
    workers: int = Field(1, ge=0)
    """Processes that play, one thread each; 0 plays in the trainer's own. The games are the same, however many."""
    ahead: bool = True
    """Play iteration i + 1 with the weights from before learning on iteration i, so that workers play while that goes
    on. Off, players and learner take turns, and games are an iteration fresher."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the network in the search; `auto` is bf16 where the processor has it."""
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """What runs the network in the search."""
    cache: int = Field(2**18, ge=0)
    """Positions whose evaluation is remembered, per chunk."""


class ActingConfig(PlayConfig):
    """How games are made."""

    games: int = Field(512, ge=1)
    """Games per iteration."""
    opening_plies: int = Field(4, ge=0)
    """Every game begins with 0 to so many random moves, drawn anew for each."""


class LearningConfig(Frozen):
    """How the network learns."""

    window: int = Field(200_000, ge=1)
    """Newest positions that minibatches are drawn from."""
    batch_size: int = Field(512, ge=1)
    """Positions per optimiser step."""
    reuse: float = Field(1.0, gt=0)
    """How often a position is drawn on average while the window turns over: optimiser steps per iteration are new
    positions times this, divided by batch_size."""
    first: int = Field(2_000, ge=1)
    """Positions that must be there before the first step."""
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW; a cosine to `final_lr` follows over the run."""
    final_lr: float = Field(1e-4, gt=0)
    """Learning rate at the end."""
    warmup_steps: int = Field(50, ge=0)
    """Linear warm-up."""
    weight_decay: float = Field(1e-3, ge=0)
    """Decoupled weight decay."""
    grad_clip: float | None = Field(1.0, gt=0)
    """Global norm at which gradients are clipped."""
    value_weight: float = Field(1.0, gt=0)
    """Weight of the value loss."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay per step of the averaged weights, which play and are judged; 0 takes the last ones."""
    symmetries: bool = True
    """Show each drawn position in a random symmetry of the game."""
    amp: Literal["auto", "none", "bf16"] = "none"
    """Type of the learner's forward and backward pass; `auto` is bf16 where the processor computes in it."""


class ArenaConfig(Frozen):
    """How candidates are judged."""

    every: int = Field(10, ge=1)
    """Iterations between judgements; the last iteration is always judged."""
    simulations: int = Field(64, ge=1)
    """Simulations per move in matches."""
    opening_plies: int = Field(4, ge=0)
    """Random moves before each pair of games, which both players then play from both sides. No opening is played twice
    in a match, so there must be enough of them: about half of `cap`."""
    elo0: float = 0.0
    """SPRT: a candidate that is only so much stronger is rejected."""
    elo1: float = 50.0
    """SPRT: one that is so much stronger is promoted."""
    error: float = Field(0.05, gt=0, lt=0.5)
    """SPRT: chance of either mistake."""
    cap: int = Field(400, ge=2, multiple_of=2)
    """SPRT: games after which it is undecided, and the incumbent stays; sooner where the openings run out."""
    after_rejection: Literal["incumbent", "candidate"] = "incumbent"
    """Where learning goes on after a rejection: from the incumbent's weights, or from the candidate's (AlphaZero),
    which is judged again after further iterations."""
    anchors: tuple[str, ...] = ("random", "minimax:2", "untrained")
    """Opponents that never change, for the Elo curve: random, minimax:DEPTH (1 or more, with the game's heuristic),
    untrained (the starting network with the same search), and `champions`: every promoted network."""
    anchor_games: int = Field(40, ge=2, multiple_of=2)
    """Games against each anchor per judgement; two per opening, so fewer where the openings run out."""


class RunConfig(Frozen):
    """The run."""

    iterations: int = Field(20, ge=1)
    """Iterations: play, learn, and now and then judge."""
    save_freq: int = Field(5, ge=1)
    """Iterations between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept besides the best."""
    logger: tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow", "console"], ...] = ("jsonl", "tensorboard")
    """Trackers."""
    project_name: str = "troupe"
    """Project in the trackers."""
    experiment_name: str = "selfplay"
    """Run name in the trackers."""
    default_local_dir: str = "runs/selfplay"
    """The run folder."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run that the folder holds; `never` refuses a folder that holds one."""
    threads: int = Field(1, ge=1)
    """Torch threads of each process."""


def board_net(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of a `PolicyValueConfig` at the dotted `prefix` depend on its kind."""
    boards = ("blocks", "channels", "policy_channels", "value_channels", "value_hidden")
    return (
        ReadWhen(
            tuple(f"{prefix}.{name}" for name in boards),
            lambda config: getattr(config, prefix).kind == "conv",
            f"is for {prefix}.kind=conv; write that, or leave it out",
        ),
        ReadWhen(
            (f"{prefix}.hidden",),
            lambda config: getattr(config, prefix).kind == "mlp",
            f"is for {prefix}.kind=mlp; write that, or leave it out",
        ),
    )


class SelfPlayConfig(Frozen):
    """Everything a run depends on (document 001)."""

    read_when = (*read_when("search"), *board_net("net"))

    seed: int = Field(0, ge=0)
    """Seeds weights, games, searches, minibatches and matches."""
    game: GameConfig = GameConfig()
    net: PolicyValueConfig = PolicyValueConfig()
    search: SearchConfig = SearchConfig()
    acting: ActingConfig = ActingConfig()
    learning: LearningConfig = LearningConfig()
    arena: ArenaConfig = ArenaConfig()
    trainer: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _fits(self) -> SelfPlayConfig:
        if not self.arena.elo0 < self.arena.elo1:
            raise ValueError(f"arena.elo0={self.arena.elo0} must lie below arena.elo1={self.arena.elo1}")
        for anchor in self.arena.anchors:
            depth = anchor.removeprefix("minimax:")
            deep = depth != anchor and depth.isdecimal() and int(depth) > 0
            if anchor not in ("random", "untrained", "champions") and not deep:
                raise ValueError(
                    f"arena.anchors has {anchor!r}; write random, untrained, champions or minimax:DEPTH, 1 or more deep"
                )
        if self.learning.final_lr > self.learning.lr:
            raise ValueError("learning.final_lr is larger than learning.lr; the rate falls over the run")
        if self.learning.first > self.learning.window:
            raise ValueError("learning.first is larger than learning.window; learning would never begin")
        return self


ALIASES: dict[str, str] = {
    "games_per_iteration": "acting.games",
    "batch_size": "learning.batch_size",
    "parallel_batch_size": "acting.slots",
    "max_buffer_size": "learning.window",
    "mcts.num_simulations": "search.simulations",
    "mcts.c_puct": "search.c_puct",
}
"""Keys as document 001 spells them."""
