"""After the last iteration: the registry, pictures of what the champion sees, the report."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from troupe.monitoring.selfplay_report import write_selfplay_report
from troupe.stores.atomic import publish_folder, staged_folder, write_atomic
from troupe.stores.registry import Lineage, ModelRegistry
from troupe.stores.state import write_tensors
from troupe.systems.selfplay.deploy import load_player
from troupe.systems.selfplay.thinking import think
from troupe.systems.selfplay.trainer import GameTrainer, SelfPlayResult

__all__ = ["finish"]


def finish(trainer: GameTrainer, result: SelfPlayResult) -> Path:
    """Registers a champion that beat the incumbent, draws, and writes the report; returns its path."""
    folder = result.folder
    registered = _register(trainer, result) if result.promoted else None
    _draw(folder, trainer)
    last = result.judgements[-1]
    promotions = [j for j in result.judgements if j.decision.promote]
    summary: dict[str, Any] = {
        "title": f"Self-play: {trainer.config.game.name}",
        "verdict": "promoted" if result.promoted else "not promoted",
        "reasons": list((promotions[-1] if promotions else last).decision.reasons),
        "champion": result.champion,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, CPU",
        "seed": trainer.config.seed,
        "registry": registered,
        "parameter_hash": result.parameter_hash,
        "commands": [f"troupe play {folder}", f'troupe play {folder} --think "" --svg tree.svg'],
    }
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1).encode())
    return write_selfplay_report(folder, summary)


def _register(trainer: GameTrainer, result: SelfPlayResult) -> str:
    """The champion as a version of its own, promoted once: a second call finds what is done, and a promotion that was
    rolled back since stays so."""
    name = trainer.config.game.name.replace(":", ".").replace(".", "_")
    registry = ModelRegistry(result.folder / "registry")
    versions = registry.versions(name) if name in registry.names() else []
    known = [n for n in versions if registry.describe(f"{name}@{n}")["lineage"]["data"]["champion"] == result.champion]
    if not known:
        bundle = result.folder / "champion"
        with staged_folder(bundle.parent, bundle.name) as staged:
            write_tensors(staged / "net.safetensors", trainer.champion)
            (staged / "config.json").write_text(json.dumps(trainer.config.model_dump(mode="json"), indent=1))
            publish_folder(staged, bundle)
        rating = result.ratings[result.champion]
        parent = f"{name}@{versions[-1]}" if versions else None
        data = {"game": trainer.config.game.name, "seed": trainer.config.seed, "champion": result.champion}
        lineage = Lineage(data, trainer.config.model_dump(mode="json"), {"elo": rating.mean}, parent)
        reference = registry.register(name, bundle, lineage=lineage)
    else:
        reference = f"{name}@{known[-1]}"
    if all(event["event"] != "promote" for event in registry.describe(reference)["history"]):
        registry.promote(reference)
    return reference


def _draw(folder: Path, trainer: GameTrainer) -> None:
    """What champion and untrained network see at the start of the game, for the report."""
    pictures = []
    for which in ("untrained", "champion"):
        found = think(load_player(folder, which=which, game=trainer.given), [])
        title = f"The first move, searched by the {which} network"
        pictures.append({"title": title, "board": found.board, "tree": found.tree.to_dict()})
    write_atomic(folder / "trees.json", json.dumps(pictures).encode())
