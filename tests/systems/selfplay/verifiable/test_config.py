from __future__ import annotations

import json
from pathlib import Path

import pytest

from troupe.cli.tasks import resolve_tasks
from troupe.config import load
from troupe.errors import ConfigError
from troupe.systems.selfplay.verifiable.config import VerifiableConfig


def test_some_kinds_of_a_preset_keep_their_difficulties() -> None:
    config = resolve_tasks(None, (), ["family=search", "tasks.kinds=[path]", "tasks.difficulty.path=[0.5,0.6]"]).config
    assert config.tasks.kinds == ("path",) and config.tasks.difficulty["path"] == (0.5, 0.6)


def test_a_difficulty_that_no_kind_reads_is_refused() -> None:
    words = ["family=search", "tasks.kinds=[path]", "tasks.difficulty.tour=[0.5,0.6]"]
    with pytest.raises(ConfigError, match=r"tasks\.difficulty\.tour.* is for runs whose tasks\.kinds name tour"):
        resolve_tasks(None, (), words)
    with pytest.raises(ConfigError, match="two rising numbers"):
        resolve_tasks(None, (), ["family=search", "tasks.difficulty.path=[0.7,0.6]"])


def test_the_config_of_a_run_can_be_given_again(tmp_path: Path) -> None:
    """It names every key, those that the run did not read included; nobody chose those."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(VerifiableConfig().model_dump(mode="json")))
    assert load(VerifiableConfig, files=[str(path)]).config == VerifiableConfig()
