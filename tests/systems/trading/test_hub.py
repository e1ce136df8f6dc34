"""The hub delivers to whom it knows, remembers as much as it should, and writes the same log again."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from troupe.errors import ConfigError, DataError, StorageError
from troupe.systems.trading.hub import CommunicationHub, read_messages
from troupe.systems.trading.messages import AlertMessage, CoordinationSignal, Message, PerformanceReport
from troupe.systems.trading.reports import CoordinationLimits

BAR = 1_709_287_200
AGENTS = ("meta", "forex", "commodities", "equity")


def hub_of(*arguments, **options) -> CommunicationHub:
    hub = CommunicationHub(*arguments, **options)
    for name in AGENTS:
        hub.register_agent(name)
    return hub


def report(name: str, timestamp: int = BAR, win_rate: float = 0.5) -> PerformanceReport:
    return PerformanceReport(name, 0.7, 10.0, -2.0, 1.5, win_rate, 0.9, timestamp=timestamp)


def talk(hub: CommunicationHub, bars: range) -> list[Message]:
    """Six messages a bar: three allocations and their answers."""
    said: list[Message] = []
    for bar in bars:
        for name, share in zip(AGENTS[1:], (0.5, 0.3, 0.2), strict=True):
            asked = hub.send_allocation(name, share, 0.8, "neutral", timestamp=BAR + 3600 * bar)
            said += [asked, hub.send_message(report(name, asked.timestamp, 0.1 * (bar % 10)), reply_to=asked)]
    return said


# --- who speaks -------------------------------------------------------------------------------------------------


def test_only_registered_agents_speak_and_listen():
    hub = CommunicationHub()
    hub.register_agent("forex")
    with pytest.raises(DataError, match=r"the sender of this AllocationMessage is 'meta', who is not registered"):
        hub.send_allocation("forex", 0.5, 1.0, "bull", timestamp=BAR)
    hub.register_agent("meta")
    with pytest.raises(DataError, match=r"the receiver .* is 'forx', .* \(did you mean 'forex'\?\)"):
        hub.send_allocation("forx", 0.5, 1.0, "bull", timestamp=BAR)
    assert hub.get_statistics()["sent"] == 0  # what was refused was not sent
    assert hub.send_allocation("forex", 0.5, 1.0, "bull", timestamp=BAR).allocation == 0.5
    with pytest.raises(DataError, match="registered already"):
        hub.register_agent("forex")
    with pytest.raises(DataError, match="not empty"):
        hub.register_agent("")
    with pytest.raises(DataError, match="no kind of message 'str'"):
        hub.send_message("hello")


def test_each_agent_reads_its_own():
    hub = hub_of()
    first = hub.send_allocation("forex", 0.5, 1.0, "bull", timestamp=BAR)
    second = hub.send_message(report("equity"))
    third = hub.send_message(CoordinationSignal("equity", "forex", "risk_warning", {}, 0.5, timestamp=BAR))
    alert = hub.broadcast_alert("breaker", "critical", "trading stopped", {"loss": 0.05}, timestamp=BAR)
    assert hub.get_messages_by_agent("forex") == (first, third, alert)
    assert hub.get_messages_by_agent("meta") == (first, second, alert)
    assert hub.get_messages_by_agent("commodities") == (alert,)
    assert hub.get_messages_by_type("AlertMessage") == hub.get_messages_by_type(AlertMessage) == (alert,)
    assert hub.get_messages_by_type("CoordinationSignal") == (third,)
    with pytest.raises(DataError, match="did you mean 'equity'"):
        hub.get_messages_by_agent("equty")
    for unknown in ("AlertMesage", int, 3):
        with pytest.raises(DataError, match="no kind of message"):
            hub.get_messages_by_type(unknown)
    assert hub.get_statistics() == {
        "agents": list(AGENTS), "sent": 4, "held": 4, "dropped": 0,
        "by_type": {"AllocationMessage": 1, "PerformanceReport": 1, "CoordinationSignal": 1, "AlertMessage": 1},
        "sent_by": {"meta": 1, "equity": 2}, "received_by": {"forex": 3, "meta": 2, "commodities": 1, "equity": 1},
    }  # fmt: skip


# --- ids --------------------------------------------------------------------------------------------------------


def test_an_answer_carries_the_id_of_its_question():
    hub = hub_of()
    said = talk(hub, range(2))
    assert len({message.correlation_id for message in said}) == 6
    assert hub.get_correlation_chain(said[2].correlation_id) == (said[2], said[3])
    assert hub.get_correlation_chain("00000000-0000-0000-0000-000000000000") == ()
    with pytest.raises(DataError, match="no correlation_id"):
        hub.get_correlation_chain("first")
    with pytest.raises(DataError, match="leave it out"):
        hub.send_message(replace(said[3], correlation_id=said[4].correlation_id), reply_to=said[2])
    with pytest.raises(DataError, match="an answer needs the id"):
        hub.send_message(report("forex"), reply_to=report("equity"))


def test_ids_follow_from_the_seed_alone():
    first, again, other = (talk(hub_of(seed=seed), range(3)) for seed in (5, 5, 6))
    assert first == again
    assert not {m.correlation_id for m in first} & {m.correlation_id for m in other}
    space = uuid.uuid5(uuid.NAMESPACE_URL, "troupe:trading:messages")  # another one would change every log
    assert [m.correlation_id for m in first[:3:2]] == [str(uuid.uuid5(space, f"5/{n}")) for n in (1, 3)]


def test_without_ids():
    hub = hub_of(correlation_id_enabled=False)
    asked = hub.send_allocation("forex", 0.5, 1.0, "bear", timestamp=BAR)
    assert asked.correlation_id is None
    with pytest.raises(DataError, match="set correlation_id_enabled"):
        hub.get_correlation_chain("00000000-0000-0000-0000-000000000000")
    with pytest.raises(DataError, match="an answer needs the id"):
        hub.send_message(report("forex"), reply_to=asked)


# --- memory -----------------------------------------------------------------------------------------------------


def test_the_history_is_a_ring():
    hub = hub_of(4)
    said = talk(hub, range(2))
    assert hub.get_messages_by_agent("meta") == tuple(said[-4:])
    found = hub.get_statistics()
    assert (found["sent"], found["held"], found["dropped"]) == (12, 4, 8)
    assert found["by_type"] == {"AllocationMessage": 6, "PerformanceReport": 6}


def test_the_newest_report_of_each():
    hub = hub_of(1)
    assert hub.collect_reports() == {}
    hub.send_message(report("equity"))
    hub.send_message(report("forex"))
    newest = hub.send_message(report("equity", BAR + 3600, 0.9))
    assert list(hub.collect_reports()) == ["forex", "equity"]
    assert hub.collect_reports()["equity"] is newest
    assert list(hub.collect_reports(timestamp=BAR)) == ["forex"]


def test_clearing_forgets_and_counts_on(tmp_path):
    hub = hub_of(seed=1)
    before = talk(hub, range(1))
    hub.clear_history()
    assert hub.get_messages_by_agent("forex") == () and hub.collect_reports() == {}
    assert hub.export_messages(tmp_path / "none.jsonl") == 0
    after = talk(hub, range(1))
    assert not {m.correlation_id for m in before} & {m.correlation_id for m in after}
    assert hub.get_statistics()["sent"] == 12


# --- files ------------------------------------------------------------------------------------------------------


def test_an_export_is_what_the_history_holds(tmp_path):
    hub, path = hub_of(4), tmp_path / "messages.jsonl"
    said = talk(hub, range(2))
    assert hub.export_messages(path) == 4
    assert read_messages(path) == tuple(said[-4:])
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [9, 10, 11, 12]
    with pytest.raises(StorageError, match="does not exist"):
        hub.export_messages(tmp_path / "nowhere" / "messages.jsonl")


def logged(path: Path, seed: int = 0, size: int = 3) -> CommunicationHub:
    return hub_of(size, log_all_messages=True, log_file=path, seed=seed)


def test_two_runs_write_the_same_log(tmp_path):
    for name in ("first", "second"):
        with logged(tmp_path / name / "messages.jsonl", seed=7) as hub:
            said = talk(hub, range(4))
    first, second = (tmp_path / name / "messages.jsonl" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert read_messages(first) == tuple(said)  # all of them, however short the history


def test_a_refused_message_is_not_logged(tmp_path):
    with logged(tmp_path / "log.jsonl") as hub, pytest.raises(DataError, match="not registered"):
        hub.send_message(report("nobody"))
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_a_resumed_run_writes_the_same_log(tmp_path):
    with logged(tmp_path / "whole.jsonl", seed=2) as hub:
        talk(hub, range(6))
        whole = hub.state_dict()
    with logged(tmp_path / "parts.jsonl", seed=2) as hub:
        talk(hub, range(3))
        stored = json.loads(json.dumps(hub.state_dict()))
        talk(hub, range(3, 5))  # lost
    with CommunicationHub(3, log_all_messages=True, log_file=tmp_path / "parts.jsonl", seed=2) as hub:
        hub.load_state_dict(stored)
        assert hub.state_dict() == stored
        talk(hub, range(3, 6))
        assert hub.state_dict() == whole and hub.agents == AGENTS
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_state_of_another_run_is_refused(tmp_path):
    stored = hub_of(seed=1).state_dict()
    with pytest.raises(DataError, match="seed 1 and is opened with 2"):
        CommunicationHub(seed=2).load_state_dict(stored)
    with logged(tmp_path / "log.jsonl", seed=1) as hub, pytest.raises(DataError, match="log_all_messages"):
        hub.load_state_dict(stored)


def test_a_line_that_is_no_message_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    with logged(path) as hub:
        talk(hub, range(1))
    path.write_text(path.read_text().replace('"allocation":0.3', '"allocation":3.0'))
    with pytest.raises(DataError, match=r"log.jsonl, line 3 holds no message: AllocationMessage.allocation is 3.0"):
        read_messages(path)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"message_history_size": 0}, "holds 1 message or more"),
        ({"message_history_size": 2.5}, "holds 1 message or more"),
        ({"log_all_messages": True}, "needs log_file"),
        ({"log_file": "x.jsonl"}, "nothing would be written to x.jsonl"),
    ],
)
def test_options_that_do_not_fit(options, what):
    with pytest.raises(ConfigError, match=what):
        CommunicationHub(**options)


# --- coordination -----------------------------------------------------------------------------------------------


def test_opportunities_are_sent():
    hub = hub_of()
    generator = np.random.default_rng(0)
    gains = generator.normal(0, 0.01, (200, 3))
    gains[:, 2] = 0.5 * gains[:, 0]
    options = {"value_at_risk": 0.01, "drawdown": 0.14, "timestamp": BAR, "limits": CoordinationLimits(recent=50)}
    found = hub.check_coordination_opportunities(gains, np.array([0.2, 0.1, 0.3]), **options)
    assert [(s.from_specialist, s.to_specialist, s.signal_type) for s in found] == [
        ("forex", "equity", "hedge_opportunity"),
        *(("meta", name, "risk_warning") for name in AGENTS[1:]),
    ]
    assert hub.get_messages_by_type("CoordinationSignal") == found
    assert len({signal.correlation_id for signal in found}) == 4
    assert all(signal.timestamp == BAR for signal in found)
    with pytest.raises(DataError, match="'equities', who is not registered"):
        hub.check_coordination_opportunities(
            gains, np.array([0.2, 0.1, 0.3]), specialists=("forex", "commodities", "equities"), **options
        )
