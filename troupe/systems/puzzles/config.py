"""The configuration of puzzle solving; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from troupe.config import Frozen, ReadWhen
from troupe.models.config import HRMNetConfig, PlainConfig, TRMNetConfig

__all__ = ["ALIASES", "PuzzleConfig", "PuzzleDataConfig", "PuzzleLearningConfig", "PuzzleNetConfig", "PuzzleRunConfig"]


class PuzzleDataConfig(Frozen):
    """Which puzzles."""

    name: Literal["sudoku", "maze", "arc"] = "sudoku"
    """`sudoku`, `maze`, or `arc`: ARC-AGI-1 from `file`."""
    size: int | None = Field(None, ge=2, le=30)
    """Rows of a sudoku (4, 6 or 9) or a maze, or of the largest grid of ARC; null: 9, 9 and 30."""
    givens: tuple[int, int] | None = None
    """Least and most cells given in generated sudokus; null: what suits the size."""
    file: str | None = None
    """JSON lines to read instead of generating puzzles: of sudokus with `puzzle` and `solution`, of ARC tasks."""
    train: int = Field(1000, ge=1)
    """Puzzles learned from, or tasks of ARC."""
    held_out: int = Field(400, ge=1)
    """Puzzles kept apart; ARC holds out the tests of its tasks."""
    augment: bool = True
    """Show each puzzle in a random one of its forms whenever it comes up: relabelled, reordered, turned, mirrored."""
    forms: int = Field(100, ge=0)
    """Further forms of each task of ARC, tasks of their own; the papers use 1000."""
    shuffle_answers: bool = False
    """Negative control: training puzzles get one another's answers. Nothing can be learned; the run ends with 3."""


class PuzzleNetConfig(Frozen):
    """Which network."""

    kind: Literal["trm", "hrm", "transformer"] = "trm"
    """`trm`: Tiny Recursive Model; `hrm`: Hierarchical Reasoning Model; `transformer`: the baseline, one pass."""
    trm: TRMNetConfig = TRMNetConfig()
    hrm: HRMNetConfig = HRMNetConfig()
    transformer: PlainConfig = PlainConfig()


class PuzzleLearningConfig(Frozen):
    """How the network learns."""

    batch_size: int = Field(128, ge=1)
    """Puzzles under way side by side, each at a supervision step of its own."""
    supervision_steps: int = Field(16, ge=1)
    """Segments that a puzzle gets at most, each with a loss and an update; evaluation always runs all of them."""
    halting: bool = True
    """Learn when to stop, and let a puzzle go once its answer seems right; off, each gets all supervision steps."""
    exploration: float = Field(0.1, ge=0, le=1)
    """Share of puzzles that get a random number of steps at least, however sure the network is."""
    loss: Literal["stablemax", "softmax"] = "stablemax"
    """Cross-entropy of the answer's cells: over stablemax (Prieto et al. 2025, arXiv:2501.04697), as HRM and TRM have
    it, or over softmax."""
    optimizer: Literal["adam_atan2", "adamw"] = "adam_atan2"
    """`adam_atan2` (Everett et al. 2024, arXiv:2407.05872) as published, or AdamW."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate; the published 1e-4 is for hidden size 512 and 65 000 updates."""
    final_lr: float = Field(1e-3, gt=0)
    """Learning rate that a cosine ends at; equal to lr: constant after the warm-up, as published."""
    warmup_steps: int = Field(100, ge=0)
    """Linear warm-up; published: 2000."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of the optimiser's moments."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay; published: 1.0 for sudoku and mazes, 0.1 for ARC, at a learning rate of 1e-4."""
    grad_clip: float | None = Field(None, gt=0)
    """Global norm at which gradients are clipped; published: none."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay per update of the averaged weights, which are evaluated and kept; 0 takes the last ones."""
    amp: Literal["auto", "none", "bf16"] = "auto"
    """Type of the forward and backward pass in learning; `auto` is bf16 where the processor computes in it. Weights
    and evaluations are float32."""


class PuzzleRunConfig(Frozen):
    """The run."""

    steps: int = Field(2000, ge=1)
    """Updates; each is one supervision step of every puzzle under way."""
    log_freq: int = Field(50, ge=1)
    """Updates between lines of metrics."""
    test_freq: int = Field(500, ge=1)
    """Updates between evaluations of the held-out puzzles; a multiple of log_freq. The last one is always evaluated."""
    save_freq: int = Field(500, ge=1)
    """Updates between checkpoints; a multiple of log_freq."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept besides the best."""
    compare: str | None = None
    """Folder of a finished run on the same held-out puzzles, such as the plain transformer's: the result says which
    solves more of them, puzzle by puzzle, and the run ends with 3 where this one does not."""
    logger: tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow", "console"], ...] = ("jsonl", "tensorboard")
    """Trackers."""
    project_name: str = "troupe"
    """Project in the trackers."""
    experiment_name: str = "puzzles"
    """Run name in the trackers."""
    default_local_dir: str = "runs/puzzles"
    """The run folder."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run that the folder holds; `never` refuses a folder that holds one."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network learns."""
    threads: int = Field(1, ge=1)
    """Torch threads."""


_RECURSIVE = "is for net.kind=trm and hrm; write one of these, or leave it out"


class PuzzleConfig(Frozen):
    """Everything a run depends on."""

    read_when = (
        *(
            ReadWhen((f"net.{kind}",), lambda config, kind=kind: config.net.kind == kind,
                     f"is for net.kind={kind}; write that, or leave it out")
            for kind in ("trm", "hrm", "transformer")
        ),
        ReadWhen(
            tuple(f"net.{kind}.identities" for kind in ("trm", "hrm", "transformer")), lambda config: False,
            "follows from the puzzles; leave it out",
        ),
        *(
            ReadWhen((f"net.{kind}.heads",), lambda config, kind=kind: not getattr(config.net, kind).mlp_t,
                     f"is for attention; leave out net.{kind}.mlp_t, or this key")
            for kind in ("trm", "transformer")
        ),
        ReadWhen(
            ("net.trm.expansion", "net.trm.round_to"),
            lambda config: config.net.trm.inner is None or config.net.trm.mlp_t,
            "is not read where net.trm.inner is given; leave one out",
        ),
        ReadWhen(
            ("learning.supervision_steps", "learning.halting"), lambda config: config.net.kind != "transformer",
            _RECURSIVE,
        ),
        ReadWhen(
            ("learning.exploration",), lambda config: config.net.kind != "transformer" and config.learning.halting,
            "is for net.kind=trm and hrm with learning.halting; leave it out",
        ),
        ReadWhen(
            ("data.givens",), lambda config: config.data.name == "sudoku" and config.data.file is None,
            "is for data.name=sudoku where no data.file is read; leave it out",
        ),
        ReadWhen(
            ("data.file",), lambda config: config.data.name != "maze", "is for sudokus and ARC; mazes are generated"
        ),
        ReadWhen(
            ("data.held_out", "data.augment"), lambda config: config.data.name != "arc",
            "is not for data.name=arc, whose tests are held out and whose forms data.forms counts; leave it out",
        ),
        ReadWhen(("data.forms",), lambda config: config.data.name == "arc", "is for data.name=arc; leave it out"),
    )  # fmt: skip

    seed: int = Field(0, ge=0)
    """Seeds puzzles, weights, their order and forms, and exploration."""
    data: PuzzleDataConfig = PuzzleDataConfig()
    net: PuzzleNetConfig = PuzzleNetConfig()
    learning: PuzzleLearningConfig = PuzzleLearningConfig()
    trainer: PuzzleRunConfig = PuzzleRunConfig()

    @property
    def segments(self) -> int:
        """Supervision steps of the network: one for the plain transformer."""
        return 1 if self.net.kind == "transformer" else self.learning.supervision_steps

    @model_validator(mode="after")
    def _fits(self) -> PuzzleConfig:
        data, trainer = self.data, self.trainer
        if data.name == "sudoku" and (data.size or 9) not in (4, 6, 9):
            raise ValueError(f"data.size={data.size} is no size of a sudoku here; write 4, 6 or 9")
        if data.name == "sudoku" and data.givens is not None:
            low, high = data.givens
            if not 0 < low <= high <= (data.size or 9) ** 2:
                raise ValueError(f"data.givens={list(data.givens)}; write two rising numbers of cells of the grid")
        if data.name == "arc" and not getattr(self.net, self.net.kind).prefix:
            raise ValueError(f"data.name=arc tells a network its task by a prefix; write net.{self.net.kind}.prefix=1")
        if data.name == "arc" and data.file is None:
            raise ValueError(
                "data.name=arc reads its tasks from data.file; write the file, or the folder that holds it"
            )
        if self.learning.final_lr > self.learning.lr:
            raise ValueError("learning.final_lr is larger than learning.lr; the rate falls over the run")
        for name in ("test_freq", "save_freq"):
            if getattr(trainer, name) % trainer.log_freq:
                raise ValueError(
                    f"trainer.{name}={getattr(trainer, name)} is no multiple of trainer.log_freq={trainer.log_freq}"
                )
        return self


ALIASES: dict[str, str] = {
    "steps": "trainer.steps",
    "size": "data.size",
}
"""Short spellings."""
