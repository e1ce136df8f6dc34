"""`${...}` in files and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from troupe.config import Frozen, load
from troupe.errors import ConfigError


class Data(Frozen):
    root: Path = Path("/data")
    train: str = "train"
    shuffle: bool = True


class Config(Frozen):
    seed: int = 7
    name: str = "run"
    lr: float = 1.0
    data: Data = Data()
    paths: list[str] = []  # noqa: RUF012
    limit: int | None = None


def test_other_keys_and_defaults_can_be_referred_to(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("name: ${data.root}/${seed}\nseed: 3\ndata:\n  train: ${.root}-x\npaths: ['${name}', '${seed}']\n")
    resolved = load(Config, files=[path], overrides=["limit=${seed}"])
    assert resolved.config.name == "/data/3"
    assert resolved.config.data.train == "/data-x"
    assert resolved.config.paths == ["/data/3", "3"]
    assert resolved.config.limit == 3
    assert resolved.origins["name"] == f"{path}:1"


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUPE_TEST_LR", "2e-5")
    monkeypatch.setenv("TROUPE_TEST_SHUFFLE", "false")
    overrides = [
        "lr=${oc.env:TROUPE_TEST_LR}",
        "seed=${oc.env:TROUPE_TEST_ABSENT,11}",
        "data.shuffle=${oc.env:TROUPE_TEST_SHUFFLE}",
        "limit=${oc.env:TROUPE_TEST_ABSENT,null}",
    ]
    config = load(Config, overrides=overrides).config
    assert (config.lr, config.seed, config.data.shuffle, config.limit) == (2e-5, 11, False, None)


def test_text_fields_are_referred_to_as_written() -> None:
    assert load(Config, overrides=["name=1e5", "data.train=${name}"]).config.data.train == "1e5"


def test_an_escaped_dollar_is_literal() -> None:
    assert load(Config, overrides=[r"name='\${seed}'"]).config.name == "${seed}"


def test_what_cannot_be_resolved_is_listed_with_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        "name: ${nowhere.x}\nseed: ${limit}\nlimit: ${seed}\n"
        "lr: ${oc.env:TROUPE_TEST_ABSENT}\ndata:\n  train: '${'\n  shuffle: ${what:1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(Config, files=[path], overrides=["paths=3"])
    lines = [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]
    assert sorted(lines) == [
        "my.yaml:1: name: cannot resolve '${nowhere.x}': interpolation key 'nowhere.x' not found",
        "my.yaml:2: seed: cannot resolve '${limit}': recursive interpolation detected",
        "my.yaml:3: limit: cannot resolve '${seed}': recursive interpolation detected",
        "my.yaml:4: lr: cannot resolve '${oc.env:TROUPE_TEST_ABSENT}': "
        "environment variable 'TROUPE_TEST_ABSENT' not found",
        "my.yaml:6: data.train: cannot parse '${'; a literal '${' is written '\\${'",
        "my.yaml:7: data.shuffle: cannot resolve '${what:1}': unsupported interpolation type what",
        "override 'paths=3': paths: expected a list, found 3",
    ]
