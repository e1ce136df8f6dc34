"""What the page of a run on puzzles shows of its figures. A part without data is the sentence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from troupe.errors import DataError
from troupe.monitoring.charts import Series, line_plot
from troupe.monitoring.panels import Panel, points_of
from troupe.monitoring.run_folder import Found, Rows
from troupe.monitoring.selfplay_panels import told
from troupe.monitoring.verdict import Measured, measured

__all__ = [
    "Cell",
    "Comparison",
    "Example",
    "Grid",
    "before_training",
    "essentials",
    "learning_charts",
    "read_comparison",
    "read_examples",
    "read_steps",
    "solved_chart",
    "step_charts",
]

# ---------------------------------------------------------------------------------------------- comparisons


@dataclass(frozen=True, slots=True)
class Comparison:
    """This network beside another on the same n puzzles: solved by this one alone (`ours`), by the other alone
    (`theirs`), by both; the difference of the shares, and McNemar's p."""

    other: str
    ours: int
    theirs: int
    both: int
    difference: Measured
    p: float

    @property
    def n(self) -> int:
        return self.difference.n or 0

    @property
    def neither(self) -> int:
        return self.n - self.ours - self.theirs - self.both

    @property
    def share(self) -> float:
        """Of the puzzles, that the other one solves."""
        return (self.theirs + self.both) / self.n


def read_comparison(record: Mapping[str, Any], other: str) -> Comparison:
    """From `gain` or `comparison` of summary.json. Raises KeyError, TypeError, ValueError, DataError for another."""
    difference = measured(record["difference"])
    if difference is None or not difference.n:
        raise DataError(f"the comparison with {other!r} has no figures")
    ours, theirs, both = (int(record[key]) for key in ("ours", "theirs", "both"))
    return Comparison(other, ours, theirs, both, difference, float(record["p"]))


def read_steps(record: Any) -> tuple[Measured, ...]:
    """From `exact` of summary.json: the share solved after each supervision step. Raises as above."""
    steps = tuple(found for found in (measured(entry) for entry in record) if found is not None)
    if not steps:
        raise DataError("it holds no supervision step")
    return steps


def before_training(rows: Rows, gain: Comparison) -> Measured:
    """The share solved before the first update, with the interval of the metrics where it is there."""
    row = next((row for row in rows if row["step"] == 0), {})
    return Measured(gain.share, row.get("eval/exact_low"), row.get("eval/exact_high"), gain.n)


# ---------------------------------------------------------------------------------------------- charts

_SOLVED = "Share of held-out puzzles right in all cells; the band is the 95 % interval."
_CURVES = (
    ("Loss of the answers", "train/loss/answer", "Cross-entropy per cell, in nats.", False, False),
    ("Loss of stopping", "train/loss/halt", "Of the judgement whether the answer is right.", False, True),
    ("Right cells in training", "train/cells", "Share of the cells asked for.", True, False),
    ("Judgement of its answers", "eval/halt_right", "How often stopping or going on is right, on held-out puzzles.",
     True, True),
    ("Puzzles let go", "train/finished", "Per update: seen as solved, or out of supervision steps.", False, True),
    ("Gradient norm", "train/grad_norm/net", "Before clipping.", False, False),
    ("Learning rate", "train/lr/net", "", False, False),
)  # fmt: skip
"""Title, key, note, whether it is a share, whether only networks with supervision steps have it."""


def step_charts(found: Found[tuple[Measured, ...]], cells: Any, rows: Rows) -> list[Panel]:
    """Puzzles solved and cells right after each supervision step; and solved ones before training."""
    if found.value is None:
        return [found.why_not, _cells_chart(cells)]
    after = [(float(i), step.mean) for i, step in enumerate(found.value, start=1)]
    band = [
        (float(i), step.low, step.high)
        for i, step in enumerate(found.value, start=1)
        if step.low is not None and step.high is not None
    ]
    first = next((row for row in rows if row["step"] == 0), {})
    before = [(x, float(y)) for x, _ in after if (y := first.get(f"eval/exact/{x:g}")) is not None]
    series = [Series("before training", "before", before), Series("after training", "ink", after, band, dots=True)]
    solved = line_plot("Puzzles solved", series, note=_SOLVED, share=True, x_name="step")
    return [solved, _cells_chart(cells)]


def _cells_chart(cells: Any) -> Panel:
    if not isinstance(cells, Sequence) or not cells or not all(isinstance(share, int | float) for share in cells):
        return "Right cells: the summary holds no share of right cells after each step."
    points = [(float(i), float(share)) for i, share in enumerate(cells, start=1)]
    note = "Mean share of right cells in held-out puzzles, given ones included."
    return line_plot("Right cells", [Series("cells", "ink", points, dots=True)], note=note, share=True, x_name="step")


def solved_chart(found: Found[Rows]) -> Panel:
    """Held-out puzzles solved over updates, beside those in training."""
    if found.value is None:
        return found.why_not
    points = points_of(found.value, "eval/exact")
    if not points:
        return "Puzzles solved: eval/exact was not recorded."
    bounds = [points_of(found.value, f"eval/exact_{end}") for end in ("low", "high")]
    band = [(x, low, high) for (x, low), (_, high) in zip(*bounds, strict=True)]
    trained = Series("in training", "before", points_of(found.value, "train/exact"))
    held_out = Series("held out", "ink", points, band, dots=True)
    note = f"{_SOLVED} In training a puzzle counts at every supervision step."
    return line_plot("Puzzles solved", [trained, held_out], note=note, share=True)


def learning_charts(found: Found[Rows], *, halting: bool) -> list[Panel]:
    """Losses and what the optimiser did, over updates; `halting`: whether the network learned when to stop."""
    if found.value is None:
        return []  # the chart above says why
    rows = found.value
    return [_curve(rows, title, key, note, share) for title, key, note, share, of in _CURVES if halting or not of]


def _curve(rows: Rows, title: str, key: str, note: str, share: bool) -> Panel:
    points = points_of(rows, key)
    if not points:
        return f"{title}: {key} was not recorded."
    return line_plot(title, [Series(title.lower(), "ink", points)], note=note, share=share)


# ---------------------------------------------------------------------------------------------- examples

_BLANK = {"sudoku": ".", "maze": ".", "arc": " "}
"""The letter of a cell that is not given."""


@dataclass(frozen=True, slots=True)
class Cell:
    """`kind` names CSS classes. `asked`: whether an answer was due here; `wrong`: whether it was another one."""

    letter: str
    kind: str
    asked: bool
    wrong: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """`told`: how many cells of an answer are wrong."""

    title: str
    told: str
    right: bool | None
    columns: int
    cells: tuple[Cell, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One held-out puzzle: what was given, the answers, and the solution where the last answer is wrong."""

    number: int
    change: str
    solved: bool
    grids: tuple[Grid, ...]


def read_examples(record: Any) -> tuple[str, list[Example]]:
    """(kind of puzzle, examples) from examples.json. Raises KeyError, TypeError, ValueError, DataError where it is
    none."""
    kind, boxes = str(record["kind"]), record["boxes"]
    if kind not in _BLANK:
        raise DataError(f"its puzzles are {kind!r}; known are {', '.join(_BLANK)}")
    high, wide = (0, 0) if boxes is None else boxes
    return kind, [_example(entry, kind, int(high), int(wide)) for entry in record["puzzles"]]


def _example(entry: Mapping[str, Any], kind: str, high: int, wide: int) -> Example:
    given, solution = _rows(entry["given"]), _rows(entry["solution"])
    grids = [_grid("given", given, given, None, kind, high, wide)]
    for step in entry["steps"]:
        title = f"after step {int(step['step'])}" if len(entry["steps"]) > 1 else "answer"
        grids.append(_grid(title, _rows(step["cells"]), given, solution, kind, high, wide))
    answers = grids[1:]
    if not answers:
        raise DataError(f"puzzle {entry['number']} has no answer")
    solved = bool(answers[-1].right)
    if not solved:
        grids.append(_grid("solution", solution, given, None, kind, high, wide))
    change = "not solved"
    if solved:
        at_once = "solved by the first step" if len(answers) > 1 else "solved"
        change = at_once if answers[0].right else "solved by later steps"
    return Example(int(entry["number"]), change, solved, tuple(grids))


def _rows(rows: Any) -> list[str]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, str) and row for row in rows):
        raise DataError("a grid must be a list of rows of letters")
    if len({len(row) for row in rows}) > 1:
        raise DataError("the rows of a grid must be of one length")
    return rows


def _grid(
    title: str, rows: list[str], given: list[str], solution: list[str] | None, kind: str, high: int, wide: int
) -> Grid:
    """`solution`: what the rows are compared with; None where they are no answer."""
    for other in (given, rows if solution is None else solution):
        if (len(rows), len(rows[0])) != (len(other), len(other[0])):
            raise DataError(f"the grid {title!r} is not of the size of its puzzle and solution")
    cells = [
        _cell(kind, letter, given[y][x], None if solution is None else solution[y][x], _edges(y, x, rows, high, wide))
        for y, row in enumerate(rows)
        for x, letter in enumerate(row)
    ]
    if solution is None:
        return Grid(title, "", None, len(rows[0]), tuple(cells), " / ".join(rows))
    wrong, asked = sum(cell.wrong for cell in cells), sum(cell.asked for cell in cells)
    said = f"{wrong} of {asked} cells wrong" if wrong else "all right"
    return Grid(title, said, not wrong, len(rows[0]), tuple(cells), " / ".join(rows))


def _cell(kind: str, letter: str, given: str, solution: str | None, edges: str) -> Cell:
    """What a network writes where nothing was asked means nothing, and is not shown."""
    asked = solution is not None and not (kind == "arc" and solution == " ")
    wrong = asked and letter != solution
    shown, names = _drawn(kind, " " if solution is not None and not asked else letter, given)
    return Cell(shown, f"{names}{' wrong' * wrong}{edges}", asked, wrong)


def _edges(y: int, x: int, rows: list[str], high: int, wide: int) -> str:
    """Classes of the thicker lines between the boxes of a sudoku."""
    below = high and (y + 1) % high == 0 and y + 1 < len(rows)
    beside = wide and (x + 1) % wide == 0 and x + 1 < len(rows[0])
    return " below" * bool(below) + " beside" * bool(beside)


def _drawn(kind: str, letter: str, given: str) -> tuple[str, str]:
    """(letter to show, classes)."""
    if kind == "arc":
        colour = f"colour-{letter}" if letter.isdecimal() and letter.isascii() else "outside"
        return "", colour
    if kind == "maze":
        names = {"#": "wall", "S": "end", "G": "end", "*": "way"}
        return {"#": "", ".": "", "*": "•"}.get(letter, letter), names.get(letter, "free")
    fixed = " given" if given != _BLANK[kind] else ""
    return "" if letter == _BLANK[kind] else letter, f"digit{fixed}"


# ---------------------------------------------------------------------------------------------- configuration


def essentials(found: Found[Mapping[str, Any]]) -> list[tuple[str, str]] | str:
    """What a reader of results must know of the configuration, as (label, text)."""
    if found.value is None:
        return found.why_not
    of = partial(told, found.value)
    kind = of("{}", "net.kind")
    rows = [
        ("Puzzles", of("{}", "data.name")),
        ("Network", of("{}, hidden size {}", "net.kind", f"net.{kind}.hidden")),
        ("Updates", of("{} of {} puzzles", "trainer.steps", "learning.batch_size")),
        ("Loss", of("{}", "learning.loss")),
        ("Optimiser", of("{}, weight decay {}", "learning.optimizer", "learning.weight_decay")),
        ("Learning rate", of("{} to {}", "learning.lr", "learning.final_lr")),
        ("Averaged weights", of("decay {} per update", "learning.ema")),
        ("Forms", of("random ones: {}", "data.augment")),
    ]
    if kind != "transformer":
        rows.insert(2, ("Supervision steps", of("at most {}", "learning.supervision_steps")))
    return rows
