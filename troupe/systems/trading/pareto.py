"""What a weight of the reward buys: one trade-off, several weights, and the points that no other one beats.

    result = pareto_sweep(config, [1, 5, 20, 80], key="reward.aversion", specialists="runs/trading")
    [result.points[i].weight for i in result.front]

A reward with one weight gives one point between return and risk. Which one is wanted is not for a program to say; it
can show what there is to choose from. All points begin with the same specialists, those that phase 1 of a finished run
left, learn phases 2 and 3 with their own weight, and are measured on the same validation episodes: the team as phase 3
left it, whether or not its gate let it trade. The front is that of the means; intervals say how sure each of them is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from troupe.envs.market.build import Market
from troupe.envs.market.rewards import RewardRules, reward_read_when
from troupe.errors import ConfigError, DataError, StorageError, TrainingError, did_you_mean
from troupe.maths.statistics import mean_interval
from troupe.monitoring.charts import number, percent, ticks
from troupe.stores.atomic import write_atomic
from troupe.stores.run_config import differences, make_run_folder, remember_config
from troupe.stores.state import parameter_hash
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.checkpointing import ModelCheckpointingSystem
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.hierarchy_config import CommunicationConfig, TradingConfig
from troupe.systems.trading.judging import judge
from troupe.systems.trading.phase import Progress, Workspace, as_trading_config, log, run_config
from troupe.systems.trading.phase2 import Phase2Trainer
from troupe.systems.trading.phase3 import Phase3JointTrainer
from troupe.systems.trading.phase_metrics import portfolio_metrics
from troupe.systems.trading.trials import bars_hash, config_hash

__all__ = ["MEASURES", "ParetoPoint", "ParetoResult", "pareto_front", "pareto_svg", "pareto_sweep"]

MEASURES = {
    "annual_return": True, "sharpe": True, "annual_volatility": False, "max_drawdown": False, "turnover_per_bar": False,
}  # fmt: skip
"""What a point is measured by -> whether more of it is better."""

_MAY_CHANGE = tuple(
    f"config.trainer.{name}"
    for name in ("keep_last", "log_dir", "logger", "output_dir", "processes", "resume", "save_freq")
) + tuple(f"config.communication.{name}" for name in CommunicationConfig.model_fields)
"""Keys of the sweep that make no other points."""


def pareto_front(points: Sequence[Sequence[float]], maximize: Sequence[bool]) -> tuple[int, ...]:
    """Which of N points of D numbers no other one dominates, in their order.

        a dominates b  if  a is at least as good as b in every number, and better in one

    `maximize` `[D]` says whether more is better. Equal points do not dominate one another: all of them are on the
    front, or none. Raises DataError for points of another length and for a number that is nan, which is neither better
    nor worse than anything.
    """
    for place, point in enumerate(points):
        if len(point) != len(maximize) or any(math.isnan(value) for value in point):
            raise DataError(f"point {place} is {tuple(point)}; give {len(maximize)} numbers, none of them nan")
    better = [tuple(v if more else -v for v, more in zip(p, maximize, strict=True)) for p in points]
    return tuple(i for i, one in enumerate(better) if not any(_dominates(other, one) for other in better))


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


@dataclass(frozen=True)
class ParetoPoint:
    """One weight, and what its team did on the validation episodes."""

    weight: float
    folder: str  # of its run, in that of the sweep
    measures: Mapping[str, Mapping[str, Any] | None]  # of `MEASURES`: mean, low, high, n; None where not defined
    promoted: bool  # whether phase 3's gate would let it trade
    hashes: Mapping[str, str]  # agent -> hash of its parameters

    def values(self, objectives: Sequence[str]) -> tuple[float, ...] | None:
        """Means; None where one is not defined."""
        found = [self.measures[name] for name in objectives]
        return None if None in found else tuple(float(each["mean"]) for each in found if each is not None)


@dataclass(frozen=True)
class ParetoResult:
    """A sweep."""

    folder: Path
    key: str
    objectives: tuple[str, ...]
    points: tuple[ParetoPoint, ...]  # by rising weight

    @property
    def front(self) -> tuple[int, ...]:
        """Places in `points`. A point without one of the objectives is not compared."""
        known = {i: v for i, point in enumerate(self.points) if (v := point.values(self.objectives)) is not None}
        found = pareto_front(list(known.values()), [MEASURES[name] for name in self.objectives])
        return tuple(list(known)[place] for place in found)


def pareto_sweep(
    config: TradingConfig | Mapping[str, Any],
    weights: Sequence[float],
    *,
    key: str = "reward.aversion",
    specialists: str | Path,
    objectives: Sequence[str] = ("annual_volatility", "annual_return"),
    market: Market | None = None,
    progress: Progress | None = None,
) -> ParetoResult:
    """Trains and measures a team for each weight of the reward's `key`, and writes pareto.json and pareto.svg into
    `config.trainer.output_dir`, where each point has a folder of its own.

    `specialists` is a run folder that has ended phase 1 on the same market. Points that are finished stay as they are,
    a point that was stopped goes on, and more weights may be asked for later. `market` given in code takes the place of
    the configured one. Raises ConfigError for a key that the reward does not read, for weights that it does not take,
    and for specialists of another market; StorageError for a folder of another sweep or without specialists;
    TrainingError for specialists that are not those that phase 1 ended with.
    """
    settings, kinds = as_trading_config(config), _checked_objectives(objectives)
    chosen = {weight: _weighted(settings, key, weight) for weight in _checked_weights(weights, key)}
    source = _source(specialists, settings)
    data = TradingData.of(settings, market)
    folder = Path(settings.trainer.output_dir)
    make_run_folder(folder, "trainer.output_dir", begun=False, resume="auto")
    remember_config(folder, _identity(settings, key, source, data), {}, _MAY_CHANGE)
    points = tuple(_point(weight, each, source, data, progress) for weight, each in chosen.items())
    result = ParetoResult(folder, key, kinds, points)
    write_atomic(folder / "pareto.json", json.dumps(_record(result), indent=1, allow_nan=False).encode())
    write_atomic(folder / "pareto.svg", pareto_svg(result).encode())
    return result


def _point(
    weight: float, config: TradingConfig, source: Workspace, data: TradingData, progress: Progress | None
) -> ParetoPoint:
    """What its folder holds, else what training finds."""
    space = Workspace.of(config, data)
    done = space.folder / "point.json"
    if done.exists():
        return _stored(done)
    _copy_specialists(source, space)
    Phase2Trainer(config, data=data, progress=progress).train()
    third = Phase3JointTrainer(config, data=data, progress=progress)
    found = third.train()
    measures = _measures(judge(data, config, third.net, "validation")[0].track)
    point = ParetoPoint(
        weight, space.folder.name, measures, found["gate"]["promote"], found["parameter_hashes"]
    )  # fmt: skip
    write_atomic(done, json.dumps(asdict(point), indent=1, allow_nan=False).encode())
    log.info("%s: %s", space.folder.name, ", ".join(f"{name} {_told(name, each)}" for name, each in measures.items()))
    return point


def _measures(track: Track) -> dict[str, dict[str, Any] | None]:
    """Of `MEASURES`, over the episodes. Here the annual return is the mean return of a bar times the bars of a year, as
    in the Sharpe ratio: compounded, the luck of a few days would become numbers that nobody earns."""
    found = portfolio_metrics(track)
    found["annual_return"] = asdict(mean_interval((track.returns.mean(1) * track.periods_per_year).tolist()))
    return {name: found[name] for name in MEASURES}


def _stored(path: Path) -> ParetoPoint:
    try:
        return ParetoPoint(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise StorageError(f"{path} holds no point of a sweep ({error}); remove it, and the point ends anew") from error


# ---------------------------------------------------------------------------------------------- specialists


def _source(specialists: str | Path, config: TradingConfig) -> Workspace:
    """The folder that the specialists come from. Raises ConfigError where they learned on another market."""
    own = run_config(specialists)
    for name, (was, now) in _shared(own, config).items():
        for key, a, b in differences(was, now, name):
            raise ConfigError(f"{specialists} was trained with {key}={a!r}, and the sweep has {b!r}; write the same")
    return Workspace(Path(specialists), Path(specialists) / "logs", own)


def _shared(own: TradingConfig, config: TradingConfig) -> dict[str, tuple[Any, Any]]:
    """What specialists see and when, by key: the same for whoever trains them and whoever allocates over them."""
    one, two = own.model_dump(mode="json"), config.model_dump(mode="json")
    found = {name: (one[name], two[name]) for name in ("market", "net", "allocation_scale")}
    split = ("validation", "test", "paths")
    return found | {f"evaluation.{name}": (one["evaluation"][name], two["evaluation"][name]) for name in split}


def _specialists(source: Workspace) -> dict[str, str]:
    """Sector -> hash of its specialist, as phase 1 ended. Raises StorageError where it has not."""
    found = source.read_results(1)["specialists"]
    return {sector: each["parameter_hash"] for sector, each in found.items()}


def _copy_specialists(source: Workspace, space: Workspace) -> None:
    """The results last: with them phase 1 has ended."""
    if space.results(1).exists():
        return
    for sector, digest in _specialists(source).items():
        found = ModelCheckpointingSystem(source.phase(1, sector)).load_checkpoint("latest")
        weights = found.tensors[sector]
        if parameter_hash(weights) != digest:
            raise TrainingError(
                f"the specialist of {sector} in {source.folder} is not the one that phase 1 ended with; run phase 1 "
                "to its end again"
            )
        store = ModelCheckpointingSystem(space.phase(1, sector))
        store.save_checkpoint({sector: weights}, found.metrics, found.step, found.state)
    space.write_results(1, source.read_results(1))


# ---------------------------------------------------------------------------------------------- what is asked for


def _weighted(config: TradingConfig, key: str, weight: float) -> TradingConfig:
    """The config of one point, in its own folder."""
    name = key.removeprefix("reward.")
    try:
        reward = RewardRules.model_validate(config.reward.model_dump() | {name: weight})
    except ValidationError as error:
        raise ConfigError(f"{key}={weight!r} is no weight: {error.errors()[0]['msg']}") from error
    weighted = config.model_copy(update={"reward": reward})
    for row in reward_read_when("reward"):
        if key in row.keys and not row.holds(weighted):
            raise ConfigError(f"the sweep's {key} {row.otherwise.format(**dict(weighted))}")
    folder = str(Path(config.trainer.output_dir) / f"{name}_{weight:.12g}")
    return weighted.model_copy(
        update={"trainer": config.trainer.model_copy(update={"output_dir": folder, "log_dir": None})}
    )


def _checked_weights(weights: Sequence[float], key: str) -> list[float]:
    names = [f"reward.{name}" for name in RewardRules.model_fields if name != "kind"]
    if key not in names:
        raise ConfigError(f"there is no weight {key!r}{did_you_mean(key, names)}")
    found = sorted({f"{float(weight):.12g}": float(weight) for weight in weights}.values())
    if len(found) < 2 or len(found) < len(weights):
        raise ConfigError(f"weights={list(weights)} must be two or more different numbers")
    return found


def _checked_objectives(objectives: Sequence[str]) -> tuple[str, ...]:
    for name in objectives:
        if name not in MEASURES:
            raise ConfigError(f"there is no objective {name!r}{did_you_mean(name, MEASURES)}")
    if len(set(objectives)) < 2 or len(set(objectives)) < len(objectives):
        raise ConfigError(f"objectives={list(objectives)} must be two or more different ones")
    return tuple(objectives)


def _identity(config: TradingConfig, key: str, source: Workspace, data: TradingData) -> dict[str, Any]:
    """What all points share: another of these is another sweep."""
    settings = config.model_dump(mode="json")
    del settings["reward"][key.removeprefix("reward.")]
    bars = [bars_hash(path) for market in data.markets.values() for path in market.bars]
    return {"key": key, "specialists": _specialists(source), "bars": config_hash({"bars": bars}), "config": settings}


def _record(result: ParetoResult) -> dict[str, Any]:
    front = result.front
    return {
        "title": f"what {result.key} buys", "key": result.key,
        "objectives": {name: "max" if MEASURES[name] else "min" for name in result.objectives},
        "front": [result.points[place].weight for place in front],
        "points": [asdict(point) | {"on_front": place in front} for place, point in enumerate(result.points)],
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- the picture

_LEFT, _RIGHT, _TOP, _BOTTOM = 78.0, 616.0, 64.0, 344.0
_WIDTH, _HEIGHT = 640.0, 420.0
_CLOSE = 28.0

_STYLE = """
.front{--f-ink:var(--ink,#1c1d20);--f-muted:var(--muted,#6a6964);--f-line:var(--line,#e5e2dc);
--f-page:var(--card,#fff);--f-best:var(--agent-0,#2f6bd8);--f-other:var(--before,#a9a59c);color:var(--f-ink);
font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
.front:root{background:var(--f-page);color-scheme:light dark}
@media(prefers-color-scheme:dark){.front{--f-ink:var(--ink,#ecebe8);--f-muted:var(--muted,#9c9a95);
--f-line:var(--line,#30333a);--f-page:var(--card,#1b1d20);--f-best:var(--agent-0,#7ba6ff);
--f-other:var(--before,#73757b)}}
.front text{fill:currentColor}.front .quiet{fill:var(--f-muted)}.front .heading{font-size:16px;font-weight:700}
.front .grid{stroke:var(--f-line);fill:none}.front .line{stroke:var(--f-best);fill:none;stroke-width:2}
.front .best{fill:var(--f-best);stroke:var(--f-best)}.front .other{fill:var(--f-other);stroke:var(--f-other)}
.front .whisker{fill:none;stroke-opacity:.45}
"""


def pareto_svg(result: ParetoResult) -> str:
    """The points by the first two objectives, x and y, as one `<svg>` element: those on the front in colour and joined,
    whiskers for their intervals, the weight beside each. It follows the reader's colour scheme, and `<desc>` says the
    same in words. A point without one of the two measures is not drawn."""
    x_name, y_name = result.objectives[:2]
    drawn = {i: point for i, point in enumerate(result.points) if point.values((x_name, y_name)) is not None}
    front = [i for i in result.front if i in drawn]
    x_axis = _Axis.of(x_name, drawn.values(), _LEFT, _RIGHT)
    y_axis = _Axis.of(y_name, drawn.values(), _BOTTOM, _TOP)
    places = {i: (x_axis.at(point), y_axis.at(point)) for i, point in drawn.items()}
    joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in sorted(places[i] for i in front))
    title = f"What {result.key} buys"
    words = "; ".join(
        f"{point.weight:g}: {_named(x_name)} {_told(x_name, point.measures[x_name])}, {_named(y_name)} "
        f"{_told(y_name, point.measures[y_name])}{', on the front' if i in front else ''}" for i, point in drawn.items()
    )  # fmt: skip
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" class="front" role="img" aria-label="{escape(title)}" '
        f'width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}">',
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc><style>{_STYLE}</style>",
        f'<text class="heading" x="14" y="26">{escape(title)}</text>',
        f'<text class="quiet" x="14" y="46">{escape(_named(y_name))}; bars are 95 % intervals over episodes</text>',
        *_grid(x_axis, y_axis, x_name, y_name),
        f'<path class="line" d="M{joined}"/>' if len(front) > 1 else "",
        *(_mark(drawn[i], x_axis, y_axis, i in front) for i in drawn),
        *_labels({f"{drawn[i].weight:g}": places[i] for i in drawn}),
        "</svg>",
    ])  # fmt: skip


@dataclass(frozen=True)
class _Axis:
    """One measure, round numbers of it, and pixels for them."""

    name: str
    ticks: tuple[float, ...]
    first: float  # pixels of the lowest tick
    last: float

    @classmethod
    def of(cls, name: str, points: Iterable[ParetoPoint], first: float, last: float) -> _Axis:
        """One that holds every mean and interval."""
        found = [(each["mean"], *_bounds(name, each)) for point in points if (each := point.measures[name])]
        values = [value for each in found for value in each] or [0.0, 1.0]
        low, high = min(values), max(values)
        if not high > low:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        return cls(name, tuple(ticks(low, high)), first, last)

    def place(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self.first + (self.last - self.first) * (value - low) / (high - low)

    def at(self, point: ParetoPoint) -> float:
        measure = point.measures[self.name]
        assert measure is not None
        return self.place(measure["mean"])

    def span(self, point: ParetoPoint) -> tuple[float, ...]:
        """Pixels of the interval's ends; nothing where there is none."""
        return tuple(self.place(value) for value in _bounds(self.name, point.measures[self.name]))


def _bounds(name: str, measure: Mapping[str, Any] | None) -> tuple[float, ...]:
    """Of an interval, which for a risk ends at 0: Student's does not know that there is no less."""
    if measure is None or measure["low"] is None or measure["high"] is None:
        return ()
    return measure["low"] if MEASURES[name] else max(0.0, measure["low"]), measure["high"]


def _grid(x_axis: _Axis, y_axis: _Axis, x_name: str, y_name: str) -> list[str]:
    found = []
    for value in y_axis.ticks:
        y = y_axis.place(value)
        found.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        found.append(
            f'<text class="quiet" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tick(y_name, value)}</text>'
        )
    for value in x_axis.ticks:
        x = x_axis.place(value)
        found.append(f'<path class="grid" d="M{x:.1f} {_BOTTOM}v5"/>')
        found.append(
            f'<text class="quiet" x="{x:.1f}" y="{_BOTTOM + 22}" text-anchor="middle">{_tick(x_name, value)}</text>'
        )
    middle = (_LEFT + _RIGHT) / 2
    name = escape(_named(x_name))
    return [*found, f'<text class="quiet" x="{middle}" y="{_BOTTOM + 48}" text-anchor="middle">{name}</text>']


def _mark(point: ParetoPoint, x_axis: _Axis, y_axis: _Axis, best: bool) -> str:
    x, y, kind = x_axis.at(point), y_axis.at(point), "best" if best else "other"
    across, along = x_axis.span(point), y_axis.span(point)
    whiskers = (f"M{across[0]:.1f} {y:.1f}H{across[1]:.1f}" if across else "") + (
        f"M{x:.1f} {along[0]:.1f}V{along[1]:.1f}" if along else ""
    )
    drawn = f'<path class="whisker {kind}" d="{whiskers}"/>' if whiskers else ""
    return f'{drawn}<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _labels(places: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Texts beside the points, each on the first side where it hides no other; points that stand so close that nobody
    could tell whose it is share one, from left to right."""
    taken: list[tuple[float, float, float, float]] = []
    for group in _groups(places):
        text, (x, y), wide = ", ".join(group), places[group[-1]], 7.5 * len(", ".join(group))
        spots = [(x + dx, y + dy) for dx in (9, -9 - wide) for dy in (-8, 18)]
        boxes = [(left, base - 12, left + wide, base + 3) for left, base in spots]
        free = [box for box in boxes if box[2] <= _WIDTH and not any(_overlap(box, other) for other in taken)]
        box = (free or boxes)[0]
        taken.append(box)
        yield f'<text x="{box[0]:.1f}" y="{box[3] - 3:.1f}">{escape(text)}</text>'


def _groups(places: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    """Points in chains of neighbours that are `_CLOSE`, each from left to right."""
    groups: list[list[str]] = []
    for name in sorted(places, key=lambda each: places[each]):
        near = [group for group in groups if any(math.dist(places[name], places[other]) < _CLOSE for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(other for group in near for other in group), name])
    return groups


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _named(measure: str) -> str:
    return "Sharpe ratio" if measure == "sharpe" else measure.replace("_", " ")


def _tick(measure: str, value: float) -> str:
    return number(value) if measure == "sharpe" else f"{100 * value:.6g}\N{NO-BREAK SPACE}%"


def _told(measure: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not defined"
    return number(found["mean"]) if measure == "sharpe" else percent(found["mean"])
