"""The post of a trading hierarchy: who may speak to whom, what was said lately, and a log of all of it.

    hub = CommunicationHub(seed=3, log_all_messages=True, log_file=folder / "messages.jsonl")
    for name in team.agents:
        hub.register_agent(name)
    asked = hub.send_allocation("forex", 0.4, 0.9, "bull", timestamp=bar)
    hub.send_message(report, reply_to=asked)
    hub.get_correlation_chain(asked.correlation_id)     # the allocation, and the report that answers it

Two runs of one seed write the same bytes: times are the bars', and the n-th message's id follows from the seed and n.
"""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson

from troupe.envs.market.team import META
from troupe.errors import ConfigError, DataError, did_you_mean
from troupe.stores.atomic import storage_errors, write_atomic
from troupe.stores.jsonl import JsonLines
from troupe.systems.trading.messages import (
    AlertMessage,
    AllocationMessage,
    CoordinationSignal,
    Message,
    PerformanceReport,
    message_from,
    message_record,
    message_type,
)
from troupe.systems.trading.reports import CoordinationLimits, coordination_signals

__all__ = ["CommunicationHub", "read_messages"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "troupe:trading:messages")


class CommunicationHub:
    """Takes messages between registered agents, and keeps the last `message_history_size` of them.

    `correlation_id_enabled` gives an id to each message that comes without one; `log_all_messages` appends every
    message to `log_file`. Hubs whose ids should differ need different seeds. Raises ConfigError for a history of no
    message, and for a log without a file or a file without a log.
    """

    def __init__(
        self,
        message_history_size: int = 1000,
        correlation_id_enabled: bool = True,
        log_all_messages: bool = False,
        *,
        seed: int = 0,
        log_file: str | Path | None = None,
    ) -> None:
        if not isinstance(message_history_size, int) or message_history_size < 1:
            raise ConfigError(f"message_history_size is {message_history_size!r}; a history holds 1 message or more")
        if log_all_messages and log_file is None:
            raise ConfigError("log_all_messages needs log_file; write where the messages go")
        if log_file is not None and not log_all_messages:
            raise ConfigError(f"nothing would be written to {log_file}; set log_all_messages, or leave log_file out")
        self.correlation_id_enabled, self.seed = correlation_id_enabled, seed
        self._agents: list[str] = []
        self._history: deque[tuple[int, Message]] = deque(maxlen=message_history_size)
        self._reports: dict[str, PerformanceReport] = {}  # each agent's newest
        self._sent, self._types, self._from, self._to = 0, Counter[str](), Counter[str](), Counter[str]()
        self._log = None if log_file is None else _opened(Path(log_file))

    # ------------------------------------------------------------------------------------------ sending

    @property
    def agents(self) -> tuple[str, ...]:
        """In the order in which they were registered."""
        return tuple(self._agents)

    def register_agent(self, name: str) -> None:
        """From now on `name` may send and receive. Raises DataError for a name that is empty or taken."""
        if not isinstance(name, str) or not name:
            raise DataError(f"an agent is registered by a name that is not empty, found {name!r}")
        if name in self._agents:
            raise DataError(f"an agent {name!r} is registered already; names are told apart by nothing else")
        self._agents.append(name)

    def send_message(self, message: Message, *, reply_to: Message | None = None) -> Message:
        """Delivers a message and returns it as it was sent: with the id of the message that it answers, or its own, or
        a new one. Raises DataError for a sender or receiver that is not registered."""
        kind = type(message).__name__
        message_type(kind)
        for role, name in (("sender", message.sender), ("receiver", message.receiver)):
            if name is not None:
                self._must_know(name, f"the {role} of this {kind}")
        message = self._identified(message, reply_to)
        number = self._sent + 1
        if self._log is not None:  # first: what could not be written was not sent
            self._log.append([orjson.dumps(message_record(number, message))])
        self._sent = number
        self._history.append((number, message))
        self._count(message)
        return message

    def send_allocation(
        self, specialist_id: str, allocation: float, risk_appetite: float, market_regime: str, *, timestamp: int
    ) -> AllocationMessage:
        """The meta-controller's word to one specialist."""
        message = AllocationMessage(specialist_id, allocation, risk_appetite, market_regime, timestamp=timestamp)
        return self.send_message(message)  # type: ignore[return-value]  # what goes in comes out

    def broadcast_alert(
        self, alert_type: str, severity: str, message: str, data: Mapping[str, Any] | None = None, *, timestamp: int
    ) -> AlertMessage:
        """An alert to every registered agent."""
        alert = AlertMessage(alert_type, severity, message, data or {}, timestamp=timestamp)
        return self.send_message(alert)  # type: ignore[return-value]

    def check_coordination_opportunities(
        self,
        gains: np.ndarray,
        exposures: np.ndarray,
        *,
        value_at_risk: float | None,
        drawdown: float,
        timestamp: int,
        specialists: Sequence[str] | None = None,
        limits: CoordinationLimits | None = None,
    ) -> tuple[CoordinationSignal, ...]:
        """Sends what `reports.coordination_signals` finds and returns it. The columns of `gains` `[T, S]` and
        `exposures` `[S]` are `specialists`; without them, all registered agents but the meta-controller, in order."""
        names = tuple(specialists) if specialists is not None else tuple(a for a in self._agents if a != META)
        found = coordination_signals(
            gains, exposures, names, value_at_risk=value_at_risk, drawdown=drawdown, timestamp=timestamp, limits=limits
        )
        return tuple(self.send_message(signal) for signal in found)  # type: ignore[misc]

    # ------------------------------------------------------------------------------------------ reading

    def collect_reports(self, *, timestamp: int | None = None) -> dict[str, PerformanceReport]:
        """The newest report of each specialist that sent one, in the order of registration; with `timestamp` only those
        of that bar. They are kept even where the history has let them go."""
        newest = {name: self._reports[name] for name in self._agents if name in self._reports}
        return {name: each for name, each in newest.items() if timestamp is None or each.timestamp == timestamp}

    def get_messages_by_type(self, kind: str | type[Message]) -> tuple[Message, ...]:
        """Those of one kind that the history holds, oldest first. Raises DataError for a kind that there is not."""
        wanted = message_type(kind if isinstance(kind, str) else getattr(kind, "__name__", kind))
        return tuple(each for _, each in self._history if type(each) is wanted)

    def get_messages_by_agent(self, name: str) -> tuple[Message, ...]:
        """Those that the history holds from an agent or to it, alerts included, oldest first."""
        self._must_know(name, "the agent")
        return tuple(each for _, each in self._history if each.receiver is None or name in (each.sender, each.receiver))

    def get_correlation_chain(self, correlation_id: str) -> tuple[Message, ...]:
        """A message and those that answered it, oldest first, as far as the history holds them."""
        if not self.correlation_id_enabled:
            raise DataError("messages get no ids, so there are no chains; set correlation_id_enabled")
        try:
            uuid.UUID(correlation_id)
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{correlation_id!r} is no correlation_id; take it from a message that was sent") from error
        return tuple(each for _, each in self._history if each.correlation_id == correlation_id)

    def get_statistics(self) -> dict[str, Any]:
        """JSON-able counts: of everything since the hub began but `held`, and `dropped` for what the history let go."""
        return {
            "agents": list(self._agents), "sent": self._sent, "held": len(self._history),
            "dropped": self._sent - len(self._history), "by_type": dict(self._types), "sent_by": dict(self._from),
            "received_by": dict(self._to),
        }  # fmt: skip

    def clear_history(self) -> None:
        """Forgets messages and reports. The count goes on, so that no id comes twice; the log keeps everything."""
        self._history.clear()
        self._reports.clear()

    def export_messages(self, path: str | Path) -> int:
        """Writes the history to a file, in the log's format and in place of what was there; returns how many messages.

        `read_messages` reads it. Raises StorageError."""
        lines = [orjson.dumps(message_record(number, message)) + b"\n" for number, message in self._history]
        write_atomic(Path(path), b"".join(lines))
        return len(lines)

    # ------------------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; with it a resumed run goes on with the same ids and the same log."""
        return {
            "seed": self.seed, "agents": list(self._agents), "sent": self._sent,
            "history": [message_record(number, message) for number, message in self._history],
            "reports": {name: report.to_dict() for name, report in self._reports.items()},
            "counts": [dict(self._types), dict(self._from), dict(self._to)],
            "offset": None if self._log is None else self._log.offset,
        }  # fmt: skip

    def load_state_dict(self, stored: Mapping[str, Any]) -> None:
        """Goes back to `stored`, and cuts the log to what it held then. Raises DataError where the seed is another or
        only one of the two had a log."""
        if stored["seed"] != self.seed:
            raise DataError(f"the hub was stored with seed {stored['seed']} and is opened with {self.seed}")
        if (stored["offset"] is None) != (self._log is None):
            raise DataError("log_all_messages is not what it was when the hub was stored; set it as it was")
        history = [message_from(record) for record in stored["history"]]
        reports = {name: PerformanceReport.from_dict(each) for name, each in stored["reports"].items()}
        if self._log is not None:
            self._log.truncate(stored["offset"])
        self._agents, self._sent, self._reports = list(stored["agents"]), stored["sent"], reports
        self._history.clear()
        self._history.extend(history)
        self._types, self._from, self._to = (Counter(each) for each in stored["counts"])

    def close(self) -> None:
        """Flushes and closes the log. Closing twice is fine."""
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _must_know(self, name: str, role: str) -> None:
        if name not in self._agents:
            raise DataError(f"{role} is {name!r}, who is not registered{did_you_mean(str(name), self._agents)}")

    def _identified(self, message: Message, reply_to: Message | None) -> Message:
        if reply_to is not None:
            if not self.correlation_id_enabled or reply_to.correlation_id is None:
                raise DataError("an answer needs the id of a message that was sent with correlation_id_enabled")
            if message.correlation_id not in (None, reply_to.correlation_id):
                raise DataError(f"an answer has the id of what it answers, not {message.correlation_id}; leave it out")
            return replace(message, correlation_id=reply_to.correlation_id)
        if message.correlation_id is not None or not self.correlation_id_enabled:
            return message
        return replace(message, correlation_id=str(uuid.uuid5(_NAMESPACE, f"{self.seed}/{self._sent + 1}")))

    def _count(self, message: Message) -> None:
        self._types[type(message).__name__] += 1
        if message.sender is not None:
            self._from[message.sender] += 1
        self._to.update(self._agents if message.receiver is None else [message.receiver])
        if isinstance(message, PerformanceReport):
            self._reports[message.specialist_id] = message


def read_messages(path: str | Path) -> tuple[Message, ...]:
    """The messages of a log or an export. Raises DataError naming the line that holds none."""
    lines = JsonLines(path, mode="r")
    found = []
    try:
        for position, record in lines.records():
            try:
                found.append(message_from(record)[1])
            except DataError as error:
                raise DataError(f"{lines.where(position)} holds no message: {error}") from error
    finally:
        lines.close()
    return tuple(found)


def _opened(path: Path) -> JsonLines:
    with storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return JsonLines(path)
