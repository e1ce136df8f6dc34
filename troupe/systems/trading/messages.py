"""What the agents of a trading hierarchy tell one another: four kinds of message, checked when they are made.

    said = AllocationMessage("forex", 0.4, 0.9, "bull", timestamp=1_709_287_200)
    AllocationMessage.from_dict(said.to_dict()) == said

A message carries the time of the bar that it speaks of, never the clock's, so that the log of a run can be written
again. Its `correlation_id` ties questions to answers; the hub that sends it gives one where there is none.

As JSON (`message_record`), one object a line:

    {"number": 7, "type": "AllocationMessage", "message": {"timestamp": "2024-03-01T10:00:00+00:00",
     "correlation_id": "0d1f...", "specialist_id": "forex", "allocation": 0.4, "risk_appetite": 0.9,
     "market_regime": "bull"}}
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import Any, Self

from troupe.envs.market.regimes import REGIMES
from troupe.envs.market.team import META
from troupe.errors import DataError, did_you_mean

__all__ = [
    "MESSAGES",
    "SEVERITIES",
    "SIGNALS",
    "AlertMessage",
    "AllocationMessage",
    "CoordinationSignal",
    "Message",
    "PerformanceReport",
    "message_from",
    "message_record",
    "message_type",
]

SIGNALS = ("hedge_opportunity", "correlation_alert", "risk_warning")
"""Why one specialist speaks to another; `reports.coordination_signals` says when."""

SEVERITIES = ("info", "warning", "critical")

_LAST = 253_402_300_799  # the end of the year 9999: no later second has an ISO date

_Check = Callable[[Any, str], Any]


def _time(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= _LAST:
        raise DataError(f"{where} is {value!r}; write the bar's close as whole seconds since 1970, UTC")
    return int(value)


def _identity(value: Any, where: str) -> str | None:
    if value is None:
        return None
    try:
        if str(uuid.UUID(value)) == value:
            return str(value)
    except (ValueError, AttributeError, TypeError):
        pass  # whatever it is, the sentence below says what it should be
    raise DataError(f"{where} is {value!r}; leave it out, or write a UUID as in '{uuid.UUID(int=0)}'")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(f"{where} is {value!r}; write a text that is not empty")
    return value


def _number(wanted: str, low: float = -math.inf, high: float = math.inf) -> _Check:
    def check(value: Any, where: str) -> float:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise DataError(f"{where} is {value!r}; write {wanted}")
        return float(value)

    return check


def _one_of(known: tuple[str, ...]) -> _Check:
    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in known:
            raise DataError(f"{where} is {value!r}, which is not known{did_you_mean(str(value), known)}")
        return value

    return check


def _data(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is {value!r}; write an object of names and values")
    return {_text(key, f"a name in {where}"): _plain(each, f"{where}.{key}") for key, each in value.items()}


def _plain(value: Any, where: str) -> Any:
    """JSON's own values; lists are copied, so that nobody changes what was said."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _ANY(value, where)
    if isinstance(value, Mapping):
        return _data(value, where)
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}.{place}") for place, each in enumerate(value)]
    raise DataError(f"{where} is a {type(value).__name__}; write numbers, texts, lists and objects of them")


def _checked(check: _Check) -> dict[str, _Check]:
    return {"check": check}


_ANY = _number("a finite number")
_NOT_NEGATIVE = _number("a finite number that is not negative", 0.0)
_SHARE = _number("a number from 0 to 1", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Message:
    """What all of them carry. Raises DataError for a value of another type or outside its range."""

    timestamp: int = field(kw_only=True, metadata=_checked(_time))  # of the bar: seconds since 1970, UTC
    correlation_id: str | None = field(default=None, kw_only=True, metadata=_checked(_identity))

    def __post_init__(self) -> None:
        for each in fields(self):
            value = each.metadata["check"](getattr(self, each.name), f"{type(self).__name__}.{each.name}")
            object.__setattr__(self, each.name, value)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict, the time as ISO 8601; `from_dict` gives back an equal message."""
        record = {each.name: _plain(getattr(self, each.name), each.name) for each in fields(self)}
        return record | {"timestamp": datetime.fromtimestamp(self.timestamp, UTC).isoformat()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Raises DataError for a key that is unknown or missing, and for whatever the message itself refuses."""
        if not isinstance(record, Mapping):
            raise DataError(f"{cls.__name__} is read from an object, found {type(record).__name__}")
        names = [each.name for each in fields(cls)]
        for key in record:
            if key not in names:
                raise DataError(f"{cls.__name__} has no key {key!r}{did_you_mean(str(key), names)}")
        if missing := [name for name in names if name not in record]:
            raise DataError(f"{cls.__name__} lacks {', '.join(missing)}; write every one of {', '.join(names)}")
        return cls(**{**record, "timestamp": _seconds(record["timestamp"], f"{cls.__name__}.timestamp")})


@dataclass(frozen=True, slots=True)
class AllocationMessage(_Message):
    """From the meta-controller to a specialist: how much risk it may take, of how much in all, in what market."""

    specialist_id: str = field(metadata=_checked(_text))
    allocation: float = field(metadata=_checked(_SHARE))  # its share of the risk; those of all specialists sum to 1
    risk_appetite: float = field(metadata=_checked(_SHARE))  # for the whole account: 0 is none
    market_regime: str = field(metadata=_checked(_one_of(REGIMES)))  # of `regimes.REGIMES`

    @property
    def sender(self) -> str | None:
        return META

    @property
    def receiver(self) -> str | None:
        return self.specialist_id


@dataclass(frozen=True, slots=True)
class PerformanceReport(_Message):
    """From a specialist to the meta-controller; `reports.performance_reports` says how each number is measured."""

    specialist_id: str = field(metadata=_checked(_text))
    confidence_score: float = field(metadata=_checked(_SHARE))
    realized_pnl: float = field(metadata=_checked(_ANY))  # account currency
    unrealized_pnl: float = field(metadata=_checked(_ANY))  # account currency
    sharpe_ratio: float = field(metadata=_checked(_ANY))  # annual
    win_rate: float = field(metadata=_checked(_SHARE))
    risk_utilization: float = field(metadata=_checked(_NOT_NEGATIVE))  # 1: all that it was allocated

    @property
    def sender(self) -> str | None:
        return self.specialist_id

    @property
    def receiver(self) -> str | None:
        return META


@dataclass(frozen=True, slots=True)
class CoordinationSignal(_Message):
    """From one agent to another about what they do together; `data` holds the numbers that led to it."""

    from_specialist: str = field(metadata=_checked(_text))
    to_specialist: str = field(metadata=_checked(_text))
    signal_type: str = field(metadata=_checked(_one_of(SIGNALS)))
    data: Mapping[str, Any] = field(metadata=_checked(_data))
    priority: float = field(metadata=_checked(_SHARE))  # 0 can wait, 1 cannot

    def __post_init__(self) -> None:
        _Message.__post_init__(self)
        if self.from_specialist == self.to_specialist:
            raise DataError(f"CoordinationSignal goes from {self.from_specialist!r} to itself; name two agents")

    @property
    def sender(self) -> str | None:
        return self.from_specialist

    @property
    def receiver(self) -> str | None:
        return self.to_specialist


@dataclass(frozen=True, slots=True)
class AlertMessage(_Message):
    """To everybody: a limit that acted, a drawdown, a market that closed."""

    alert_type: str = field(metadata=_checked(_text))
    severity: str = field(metadata=_checked(_one_of(SEVERITIES)))
    message: str = field(metadata=_checked(_text))
    data: Mapping[str, Any] = field(metadata=_checked(_data))

    @property
    def sender(self) -> str | None:
        """None: the hub itself."""
        return None

    @property
    def receiver(self) -> str | None:
        """None: everybody."""
        return None


Message = AllocationMessage | PerformanceReport | CoordinationSignal | AlertMessage

MESSAGES: dict[str, type[Message]] = {
    "AllocationMessage": AllocationMessage,
    "PerformanceReport": PerformanceReport,
    "CoordinationSignal": CoordinationSignal,
    "AlertMessage": AlertMessage,
}


def message_type(name: Any) -> type[Message]:
    """The class of that name. Raises DataError where there is none."""
    if not isinstance(name, str) or name not in MESSAGES:
        raise DataError(f"there is no kind of message {name!r}{did_you_mean(str(name), MESSAGES)}")
    return MESSAGES[name]


def message_record(number: int, message: Message) -> dict[str, Any]:
    """A line of the log: the message, its kind, and how many its hub had sent with it."""
    return {"number": number, "type": type(message).__name__, "message": message.to_dict()}


def message_from(record: Mapping[str, Any]) -> tuple[int, Message]:
    """(number, message) of a line of the log. Raises DataError for anything else."""
    if not isinstance(record, Mapping) or set(record) != {"number", "type", "message"}:
        raise DataError(f"a line of the log has the keys number, type and message, found {_shown(record)}")
    number = record["number"]
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise DataError(f"the number of a message is {number!r}; the first one is 1")
    return number, message_type(record["type"]).from_dict(record["message"])


def _shown(record: Any) -> str:
    return ", ".join(map(str, record)) if isinstance(record, Mapping) else type(record).__name__


def _seconds(value: Any, where: str) -> int:
    """Whole seconds of an ISO time in UTC, as `to_dict` writes it."""
    try:
        found = datetime.fromisoformat(value)
        seconds = int(found.timestamp())
        if found.tzinfo is not None and datetime.fromtimestamp(seconds, UTC).isoformat() == value:
            return seconds
    except (TypeError, ValueError, OverflowError):
        pass  # whatever it is, the sentence below says what it should be
    raise DataError(f"{where} is {value!r}; write a time in UTC as in '2024-03-01T10:00:00+00:00'")
