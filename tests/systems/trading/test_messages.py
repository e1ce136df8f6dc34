"""Messages hold what they should, and nothing else gets in."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from troupe.envs.market.regimes import REGIMES
from troupe.errors import DataError
from troupe.systems.trading.messages import (
    MESSAGES,
    AlertMessage,
    AllocationMessage,
    CoordinationSignal,
    Message,
    PerformanceReport,
    message_from,
    message_record,
)

BAR = 1_709_287_200  # 2024-03-01 10:00 UTC
ID = "5f4dcc3b-5aa7-55d6-8327-deb882cf99aa"

SAMPLES: dict[str, Message] = {
    "AllocationMessage": AllocationMessage("forex", 0.4, 0.9, "bull", timestamp=BAR),
    "PerformanceReport": PerformanceReport("forex", 0.7, 12.5, -3.0, 1.25, 0.55, 1.1, timestamp=BAR, correlation_id=ID),
    "CoordinationSignal": CoordinationSignal(
        "forex", "equity", "hedge_opportunity", {"correlation": 0.8, "bars": 100}, 0.8, timestamp=BAR
    ),
    "AlertMessage": AlertMessage(
        "drawdown", "warning", "the drawdown passed 10 %", {"rules": ["breaker", {"level": 1}], "on": True, "at": None},
        timestamp=BAR,
    ),
}  # fmt: skip


def test_the_documents_fields_in_the_documents_order():
    assert AllocationMessage("forex", 0.4, 0.9, "bull", timestamp=BAR).market_regime == "bull"
    report = SAMPLES["PerformanceReport"]
    assert list(report.to_dict()) == [
        "timestamp", "correlation_id", "specialist_id", "confidence_score", "realized_pnl", "unrealized_pnl",
        "sharpe_ratio", "win_rate", "risk_utilization",
    ]  # fmt: skip
    assert report.to_dict()["timestamp"] == "2024-03-01T10:00:00+00:00"
    assert report.to_dict()["unrealized_pnl"] == -3.0


@pytest.mark.parametrize("name", MESSAGES)
def test_through_json_and_back(name):
    message = SAMPLES[name]
    text = json.dumps(message_record(7, message), allow_nan=False)
    number, read = message_from(json.loads(text))
    assert (number, read) == (7, message) and type(read) is MESSAGES[name]
    assert type(message).from_dict(message.to_dict()) == message


@pytest.mark.parametrize("time", [0, 1, 253_402_300_799])
def test_every_second_comes_back(time):
    message = replace(SAMPLES["AllocationMessage"], timestamp=time)
    assert AllocationMessage.from_dict(message.to_dict()).timestamp == time


@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_can_be_said(regime):
    assert AllocationMessage("equity", 1.0, 0.0, regime, timestamp=BAR).market_regime == regime


def test_numbers_of_arrays_become_plain_ones():
    message = AllocationMessage("forex", np.float64(0.25), np.float32(0.5), "bear", timestamp=np.int64(BAR))
    assert [type(v) for v in (message.allocation, message.risk_appetite, message.timestamp)] == [float, float, int]
    signal = CoordinationSignal("a", "b", "risk_warning", {"n": np.int64(3), "x": np.float64(0.5)}, 1, timestamp=BAR)
    assert json.dumps(signal.to_dict()["data"]) == '{"n": 3, "x": 0.5}'


def test_what_was_said_stays_said():
    data: dict[str, Any] = {"levels": [1, 2]}
    alert = AlertMessage("breaker", "critical", "trading stopped", data, timestamp=BAR)
    data["levels"].append(3)
    alert.to_dict()["data"]["levels"].append(4)
    assert alert.data == {"levels": [1, 2]}
    with pytest.raises(FrozenInstanceError):
        alert.severity = "info"


def test_who_speaks_to_whom():
    assert {name: (m.sender, m.receiver) for name, m in SAMPLES.items()} == {
        "AllocationMessage": ("meta", "forex"),
        "PerformanceReport": ("forex", "meta"),
        "CoordinationSignal": ("forex", "equity"),
        "AlertMessage": (None, None),
    }


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        (
            "AllocationMessage",
            {"allocation": 1.01},
            r"AllocationMessage.allocation is 1.01; write a number from 0 to 1",
        ),
        ("AllocationMessage", {"allocation": "0.4"}, "allocation is '0.4'"),
        ("AllocationMessage", {"allocation": True}, "allocation is True"),
        ("AllocationMessage", {"risk_appetite": float("nan")}, "risk_appetite is nan"),
        ("AllocationMessage", {"risk_appetite": -0.1}, "risk_appetite is -0.1"),
        ("AllocationMessage", {"market_regime": "bul"}, "did you mean 'bull'"),
        ("AllocationMessage", {"market_regime": ["bull"]}, "not known"),
        ("AllocationMessage", {"specialist_id": ""}, "not empty"),
        ("AllocationMessage", {"timestamp": 1.5}, "whole seconds"),
        ("AllocationMessage", {"timestamp": True}, "whole seconds"),
        ("AllocationMessage", {"timestamp": -1}, "whole seconds"),
        ("AllocationMessage", {"timestamp": 253_402_300_800}, "whole seconds"),
        ("AllocationMessage", {"correlation_id": "7"}, "UUID"),
        ("AllocationMessage", {"correlation_id": ID.upper()}, "UUID"),
        ("AllocationMessage", {"correlation_id": 7}, "UUID"),
        ("PerformanceReport", {"sharpe_ratio": float("inf")}, "sharpe_ratio is inf; write a finite number"),
        ("PerformanceReport", {"realized_pnl": None}, "realized_pnl is None"),
        ("PerformanceReport", {"confidence_score": 1.1}, "from 0 to 1"),
        ("PerformanceReport", {"win_rate": -0.1}, "from 0 to 1"),
        ("PerformanceReport", {"risk_utilization": -0.1}, "not negative"),
        ("CoordinationSignal", {"signal_type": "hedge"}, "did you mean 'hedge_opportunity'|known: "),
        ("CoordinationSignal", {"priority": 2}, "from 0 to 1"),
        ("CoordinationSignal", {"to_specialist": "forex"}, "to itself"),
        ("CoordinationSignal", {"data": {"x": float("nan")}}, r"data.x is nan"),
        ("CoordinationSignal", {"data": {1: 2}}, "a name in CoordinationSignal.data is 1"),
        ("CoordinationSignal", {"data": [1]}, "an object of names"),
        ("AlertMessage", {"severity": "warn"}, "did you mean 'warning'"),
        ("AlertMessage", {"data": {"a": [{"b": {1, 2}}]}}, r"data.a.0.b is a set"),
        ("AlertMessage", {"message": ""}, "not empty"),
    ],
)
def test_what_cannot_be_said(name, changes, what):
    with pytest.raises(DataError, match=what) as caught:
        replace(SAMPLES[name], **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r | {"alocation": 1}, r"no key 'alocation' \(did you mean 'allocation'"),
        (lambda r: {k: v for k, v in r.items() if k != "allocation"}, "AllocationMessage lacks allocation"),
        (lambda r: {k: v for k, v in r.items() if k != "correlation_id"}, "lacks correlation_id"),
        (lambda r: r | {"timestamp": BAR}, "a time in UTC"),
        (lambda r: r | {"timestamp": "2024-03-01T10:00:00"}, "a time in UTC"),
        (lambda r: r | {"timestamp": "2024-03-01T11:00:00+01:00"}, "a time in UTC"),
        (lambda r: r | {"timestamp": "2024-03-01T10:00:00.5+00:00"}, "a time in UTC"),
        (lambda r: r | {"timestamp": "yesterday"}, "a time in UTC"),
        (lambda r: r | {"allocation": None}, "allocation is None"),
        (lambda r: list(r), "read from an object, found list"),
    ],
)
def test_records_that_are_no_message(change, what):
    with pytest.raises(DataError, match=what):
        AllocationMessage.from_dict(change(SAMPLES["AllocationMessage"].to_dict()))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r | {"type": "AlertMesage"}, "did you mean 'AlertMessage'"),
        (lambda r: r | {"type": 3}, "no kind of message 3"),
        (lambda r: r | {"number": 0}, "the first one is 1"),
        (lambda r: r | {"number": True}, "the first one is 1"),
        (lambda r: {"type": r["type"]}, "found type"),
        (lambda r: [r], "found list"),
    ],
)
def test_lines_that_are_no_message(change, what):
    with pytest.raises(DataError, match=what):
        message_from(change(message_record(1, SAMPLES["AlertMessage"])))
