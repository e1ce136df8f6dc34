"""Old spellings of keys, in files and in overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from troupe.config import Frozen, Resolved, load
from troupe.errors import ConfigError

ALIASES = {"actor_rollout_ref.actor.optim.lr": "optim.lr", "actor_rollout_ref.rollout": "rollout", "lr": "optim.lr"}


class Optim(Frozen):
    lr: float = 1.0
    decay: float = 0.0


class Rollout(Frozen):
    n: int = 1
    temperature: float = 1.0


class Config(Frozen):
    optim: Optim = Optim()
    rollout: Rollout = Rollout()


def loaded(folder: Path, text: str, *overrides: str) -> Resolved[Config]:
    path = folder / "my.yaml"
    path.write_text(text)
    return load(Config, files=[path], overrides=overrides, aliases=ALIASES)


def test_an_old_key_in_a_file_is_moved_and_its_origin_says_so(tmp_path: Path) -> None:
    resolved = loaded(tmp_path, "actor_rollout_ref:\n  actor: {optim: {lr: 2}}\n  rollout:\n    n: 3\n")
    assert resolved.config == Config(optim=Optim(lr=2), rollout=Rollout(n=3))
    assert resolved.origins["optim.lr"].endswith("my.yaml:2 (as 'actor_rollout_ref.actor.optim.lr')")
    assert resolved.origins["rollout.n"].endswith("my.yaml:4 (as 'actor_rollout_ref.rollout.n')")


def test_an_old_key_in_an_override(tmp_path: Path) -> None:
    resolved = loaded(tmp_path, "optim: {lr: 2}\n", "lr=3", "actor_rollout_ref.rollout.n=4")
    assert (resolved.config.optim.lr, resolved.config.rollout.n) == (3, 4)
    assert resolved.origins["optim.lr"] == "override 'lr=3' (as 'lr')"


def test_a_later_layer_may_use_the_other_spelling(tmp_path: Path) -> None:
    assert loaded(tmp_path, "lr: 2\n", "optim.lr=3").config.optim.lr == 3


def test_both_spellings_agree_or_are_refused(tmp_path: Path) -> None:
    assert loaded(tmp_path, "lr: 2\noptim: {lr: 2, decay: 1}\n", "lr=3", "optim.lr=3").config.optim == Optim(
        lr=3, decay=1
    )
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "lr: 2\noptim:\n  lr: 3\n", "lr=4", "optim.lr=5")
    lines = [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]
    assert lines == [
        "my.yaml:3: optim.lr: is also given at my.yaml:1 (as 'lr'), as 3 and 2; keep one",
        "override 'optim.lr=5': optim.lr: is also given by override 'lr=4', as 4 and 5; keep one",
    ]


def test_errors_of_old_keys_name_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "lr: fast\nactor_rollout_ref:\n  actor:\n    optim: {lr_: 1}\n    clip: 2\n")
    lines = [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]
    assert lines == [
        "my.yaml:1 (as 'lr'): optim.lr: expected a number, found 'fast'",
        "my.yaml:4: actor_rollout_ref.actor.optim.lr_: unknown key (did you mean 'optim.lr'?)",
        "my.yaml:5: actor_rollout_ref.actor.clip: unknown key",
    ]
