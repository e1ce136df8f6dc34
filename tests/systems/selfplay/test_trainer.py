from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.selfplay_runs import LEARNING, TINY, remains
from troupe.config import Recording, leaf_paths, load
from troupe.errors import ConfigError, MissingExtra, StorageError
from troupe.maths.ratings import Score
from troupe.stores import tracking
from troupe.stores.registry import ModelRegistry
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.deploy import load_player
from troupe.systems.selfplay.finish import finish
from troupe.systems.selfplay.judging import Judgement
from troupe.systems.selfplay.learning import average
from troupe.systems.selfplay.pupil import transformed
from troupe.systems.selfplay.thinking import think
from troupe.systems.selfplay.trainer import GameTrainer
from troupe.systems.selfplay.workers import Crew, GameDesk, arrays_of
from troupe.training.evaluation import Decision


def nested(values: dict[str, Any]) -> dict[str, Any]:
    import yaml

    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = ("game.name" if key == "game" else key).split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = yaml.safe_load(value) if isinstance(value, str) else value
    return tree


def trainer(folder: Path, **changed: Any) -> GameTrainer:
    values = TINY | {"trainer.default_local_dir": str(folder)} | {k.replace("__", "."): v for k, v in changed.items()}
    return GameTrainer(nested(values))


def test_a_run_improves_on_the_untrained_network_and_says_so(tmp_path: Path) -> None:
    """A short real run: tic-tac-toe is learned in seconds."""
    settings = {key.replace(".", "__"): value for key, value in LEARNING.items()}
    result = trainer(tmp_path / "run", **settings).train()
    assert result.promoted and result.champion == "iteration 12"
    judgement = result.judgements[-1]
    assert judgement.decision.difference is not None and judgement.decision.difference.low > 0
    assert judgement.scores["random"].mean > 0.7
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["learn/value/squared_error"] < 0.8 * rows[1]["learn/value/squared_error"]


def test_learning_on_fixed_positions_lowers_the_loss(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", learning__symmetries=False, net__hidden="[64, 64]", learning__lr=0.01)
    rng = np.random.default_rng(0)
    observations = rng.random((64, *run.game.observation_shape), dtype=np.float32)
    policy = np.eye(9, dtype=np.float32)[rng.integers(0, 9, 64)]
    rows = {"observations": observations, "legal": np.ones((64, 9), bool), "policy": policy}
    run.pupil.replay.append({**rows, "value": np.sign(observations[:, 0].reshape(64, -1)[:, 0] - 0.5),
                       "weight": np.ones(64, np.float32)})  # fmt: skip
    first = run.pupil.learn(32, 0)
    for _ in range(60):
        last = run.pupil.learn(32, 0)
    assert last["learn/policy/cross_entropy"] < 0.5 * first["learn/policy/cross_entropy"]
    assert last["learn/value/squared_error"] < 0.5 * first["learn/value/squared_error"]


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", learning__ema=0.9)
    with torch.no_grad():
        for parameter in run.net.parameters():
            parameter.fill_(1.0)
    run.pupil.learner.groups["net"].steps = 10_000
    before = {name: tensor.clone() for name, tensor in run.pupil.averaged.items()}
    average(run.pupil.averaged, run.net, run.pupil.learner.groups["net"].steps, run.config.learning.ema)
    for name, tensor in run.net.state_dict().items():
        assert torch.allclose(run.pupil.averaged[name], 0.9 * before[name] + 0.1 * tensor)


def test_a_rejected_candidate_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With after_rejection=incumbent the network is the incumbent's again, weight for weight."""
    rejected = Judgement(2, "untrained", Decision(False, ("not stronger",)), {"untrained": Score(0, 1, 1)})
    monkeypatch.setattr("troupe.systems.selfplay.judging.Judge.judge", lambda *_, **__: rejected)
    for policy, is_back in (("incumbent", True), ("candidate", False)):
        run = trainer(
            tmp_path / policy, arena__after_rejection=policy, trainer__iterations=2, arena__anchors="[random]"
        )
        start = {name: tensor.clone() for name, tensor in run.start.items()}
        result = run.train()
        same = all(torch.equal(run.net.state_dict()[name], start[name]) for name in start)
        assert same == is_back and not result.promoted and result.champion == "untrained"
        assert all(torch.equal(run.pupil.averaged[name], start[name]) for name in start) == is_back


def test_a_promoted_network_is_what_is_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted = Judgement(2, "untrained", Decision(True, ("improved",)), {"untrained": Score(2, 0, 0)})
    monkeypatch.setattr("troupe.systems.selfplay.judging.Judge.judge", lambda *_, **__: promoted)
    run = trainer(tmp_path / "run", trainer__iterations=2)
    assert run.train().champion == "iteration 2"
    shown = {}
    for which in ("champion", "averaged", "untrained"):
        player = load_player(tmp_path / "run", which=which)
        shown[which] = {child.label: child.prior for child in think(player, [], width=9).tree.children}
    run.net.load_state_dict(run.pupil.averaged)
    logits, _ = run.net.eval()(torch.from_numpy(run.game.observe(run.game.initial(1))))
    expected = torch.softmax(logits[0].double(), 0).tolist()
    for label, prior in shown["champion"].items():
        assert prior == pytest.approx(expected[int(label)], abs=1e-5)
    assert shown["champion"] == shown["averaged"] != shown["untrained"]


def test_symmetries_turn_observation_mask_and_policy_together(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    state = run.game.initial(1)
    state, *_ = run.game.step(state, np.array([1]))  # a stone at the top, in the middle
    rows = {
        "observations": run.game.observe(state), "legal": run.game.legal(state),
        "policy": np.arange(9, dtype=np.float32)[None], "value": np.ones(1, np.float32),
    }  # fmt: skip
    seen = set()
    for k in range(len(run.symmetries)):
        turned = transformed(rows, run.symmetries, np.array([k]))
        (stone,) = np.flatnonzero(~turned["legal"][0])
        assert turned["observations"].reshape(-1, 9)[:, stone].sum() == 1 and turned["policy"][0, stone] == 1
        seen.add(int(stone))
    assert seen == {1, 3, 5, 7}


def test_every_key_of_the_config_is_read(tmp_path: Path) -> None:
    """A key that no run reads is a promise that nobody keeps."""
    puct = {
        "search.algorithm": "puct", "search.temperature_moves": 2, "search.fpu": "parent", "search.reuse": True,
        "acting.value_mix": 0.5, "trainer.iterations": 1,
    }  # fmt: skip
    boards = {"net.kind": "conv", "net.blocks": 1, "net.channels": 8, "trainer.iterations": 1}
    unread = set(leaf_paths(SelfPlayConfig))
    for number, (changed, left_out) in enumerate([({}, ()), (puct, ("search.considered",)), (boards, ("net.hidden",))]):
        values = TINY | {"trainer.default_local_dir": str(tmp_path / str(number))} | changed
        tree = nested({key: value for key, value in values.items() if key not in left_out})
        recording: Any = Recording(load(SelfPlayConfig, preset=tree).config)
        GameTrainer(recording).train()
        unread &= set(recording.unread())
    assert unread == set()


def test_another_config_is_another_run(tmp_path: Path) -> None:
    trainer(tmp_path / "run", trainer__iterations=1).train()
    with pytest.raises(StorageError, match=r"was begun with learning\.lr"):
        trainer(tmp_path / "run", trainer__iterations=1, learning__lr=0.5).train()
    with pytest.raises(StorageError, match=r"trainer\.resume=auto"):
        trainer(tmp_path / "run", trainer__iterations=1, trainer__resume="never").train()


class Struck(Exception):
    """What stops a run in its midst."""


def struck(*_: object) -> None:
    raise Struck


def strike_at(run: GameTrainer, iteration: int) -> None:
    def progress(phase: str, step: int, total: int, metrics: Any) -> None:
        if step == iteration:
            raise Struck

    run.progress = progress


@pytest.mark.parametrize("save_freq", [4, 2])
def test_a_second_call_on_a_stopped_trainer_ends_like_a_new_one(tmp_path: Path, save_freq: int) -> None:
    """Stopped after the third iteration of four: without a checkpoint, and with one of the second."""
    calm = trainer(tmp_path / "calm", trainer__save_freq=save_freq).train()
    run = trainer(tmp_path / "struck", trainer__save_freq=save_freq)
    for _ in range(2):
        strike_at(run, 3)
        with pytest.raises(Struck):
            run.train()
        run.pupil.learner.updates += 1  # what a stop within an update may leave behind
        for parameter in run.net.parameters():
            parameter.grad = torch.ones_like(parameter)
    strike_at(run, -1)
    assert run.train().parameter_hash == calm.parameter_hash
    assert remains(tmp_path / "struck") == remains(tmp_path / "calm")


def test_metrics_of_an_earlier_part_survive_one_without_jsonl(tmp_path: Path) -> None:
    """Stopped in its second iteration with jsonl, in its fourth without: the checkpoint of the third has no offset."""
    for logger, strike in (("[jsonl]", 2), ("[]", 4)):
        run = trainer(tmp_path / "run", trainer__logger=logger)
        strike_at(run, strike)
        with pytest.raises(Struck):
            run.train()
    trainer(tmp_path / "run").train()
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 4]


class Witness:
    """A tracker that remembers how it was closed."""

    id = None
    closed: list[bool]

    def __init__(self, run: Any) -> None:
        type(self).closed = []

    def log(self, metrics: Any, step: int) -> None: ...

    def flush(self) -> None: ...

    def rewind(self, step: int) -> None: ...

    def close(self, *, failed: bool) -> None:
        self.closed.append(failed)


def test_trackers_hear_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.BACKENDS, "console", Witness)
    options = {"trainer__logger": "[console]", "trainer__iterations": 2}
    run = trainer(tmp_path / "run", **options)
    strike_at(run, 2)
    with pytest.raises(Struck):
        run.train()
    assert Witness.closed == [True]
    run = trainer(tmp_path / "run", **options)
    with monkeypatch.context() as context:  # a run that cannot even start
        context.setattr(Crew, "order", struck)
        with pytest.raises(Struck):
            run.train()
    assert Witness.closed == [True]
    run.train()
    assert Witness.closed == [False]


def test_what_was_opened_is_closed_where_the_start_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Crew, "order", struck)
    monkeypatch.setattr(Crew, "close", lambda self: closed.append("crew"))
    with pytest.raises(Struck):
        trainer(tmp_path / "run").train()
    assert closed == ["crew"]


def test_seconds_are_sums_over_all_processes(tmp_path: Path) -> None:
    began = time.perf_counter(), time.process_time()
    run = trainer(tmp_path / "run")
    strike_at(run, 3)
    with pytest.raises(Struck):
        run.train()
    between = time.perf_counter(), time.process_time()
    result = trainer(tmp_path / "run").train()
    ended = time.perf_counter(), time.process_time()
    rows = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "time/learn_s" in row] == [1, 2, 3, 3, 4]  # what was lost counts, too
    parts = ("time/waited_s", "time/learn_s", "time/judge_s")
    assert all(row["time/elapsed_s"] >= sum(row.get(part, 0.0) for part in parts) - 1e-6 for row in rows)
    assert ended[0] - between[0] < result.seconds <= ended[0] - began[0]
    assert ended[1] - between[1] < result.cpu_seconds <= ended[1] - began[1]


def test_the_time_of_workers_counts(tmp_path: Path) -> None:
    import psutil

    run = trainer(tmp_path / "run", acting__workers=1)
    before = {child.pid for child in psutil.Process().children()}  # of tests that ran here earlier
    crew = Crew(run.config.acting.workers, partial(GameDesk, run.config, None))
    try:
        for iteration in range(2):
            crew.order(iteration, [(iteration, 0, run.config.acting.games, arrays_of(run.start))])
            crew.gather(iteration)
        used = [child.cpu_times() for child in psutil.Process().children() if child.pid not in before]
        assert 0.5 < crew.cpu_seconds / sum(times.user + times.system for times in used) <= 1.01
    finally:
        crew.close()


def test_a_champion_that_was_registered_and_not_promoted_is_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill may come between the two."""
    promoted = Judgement(2, "untrained", Decision(True, ("improved",)), {"untrained": Score(2, 0, 0)})
    monkeypatch.setattr("troupe.systems.selfplay.judging.Judge.judge", lambda *_, **__: promoted)
    run = trainer(tmp_path / "run", trainer__iterations=2)
    result = run.train()
    registry = ModelRegistry(tmp_path / "run" / "registry")
    with monkeypatch.context() as context:
        context.setattr(ModelRegistry, "promote", struck)
        with pytest.raises(Struck):
            finish(run, result)
    assert registry.describe("tictactoe@1")["aliases"] == ["candidate"]
    for _ in range(2):
        finish(run, result)
        assert registry.describe("tictactoe@1")["aliases"] == ["candidate", "production"]
    events = [event["event"] for event in registry.describe("tictactoe@1")["history"]]
    assert events == ["register", "promote"] and registry.versions("tictactoe") == [1]


def test_absent_kernels_are_missed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import troupe.search

    monkeypatch.delattr(troupe.search, "accelerated", raising=False)
    monkeypatch.setitem(sys.modules, "troupe.search.accelerated", None)
    with pytest.raises(MissingExtra, match=r"search\.kernels=numba needs the package 'numba'"):
        trainer(tmp_path / "run", search__kernels="numba")
    assert not (tmp_path / "run").exists()


def test_a_torn_buffer_stops_the_run_with_its_checkpoint_named(tmp_path: Path) -> None:
    from troupe.stores.checkpoints import CheckpointStore

    run = trainer(tmp_path / "run", trainer__iterations=2)
    run.train()
    store = CheckpointStore(tmp_path / "run", metric="arena/elo")
    checkpoint = store.load("latest")
    checkpoint.state["replay"]["columns"]["value"][0] = np.nan
    store.save(checkpoint.step, checkpoint.tensors, checkpoint.state, checkpoint.metrics)
    with pytest.raises(StorageError, match="checkpoint_2: the stored replay window has a value that is not finite"):
        trainer(tmp_path / "run", trainer__iterations=2).train()


class Three:
    players, actions, observation_shape = 3, 2, (1,)

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> list[int]:
        return [0, 1]

    def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
        return state, 0.0, True, 0

    def observe(self, state: int) -> np.ndarray:
        return np.zeros(1, np.float32)


class Naming(Three):
    players, actions = 2, None  # type: ignore[assignment]


class Solo(Three):
    players = 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"game": "tiktaktoe"}, "did you mean 'tictactoe'"),
        ({"game": f"{__name__}:Three"}, "has 3 players"),
        ({"game": f"{__name__}:Solo"}, "has 1 players"),
        ({"game": f"{__name__}:Naming"}, "actions=None"),
        ({"game": "no_such_module:Game"}, "no module"),
        ({"net.kind": "mlp", "game": f"{__name__}:Absent"}, "has no class 'Absent'"),
        ({"arena.anchors": "[stockfish]"}, "write random, untrained, champions or minimax:DEPTH"),
        ({"learning.first": 500}, "learning would never begin"),
        ({"search.algorithm": "puct"}, "search.considered"),
        ({"game.args": {"boards": 2}}, "no option 'boards'"),
        (
            {"acting.runtime": "onnxruntime", "acting.precision": "bf16", "acting.workers": 1},
            "computes in fp32 on the CPU",
        ),
        ({"arena.cap": 21}, "arena.cap"),
        ({"learning.final_lr": 1.0}, "final_lr is larger than learning.lr"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    values = TINY | {"trainer.default_local_dir": str(tmp_path / "run")} | changed
    with pytest.raises(ConfigError) as refused:
        GameTrainer(nested(values))
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_class_of_the_script_itself_cannot_go_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Solo, "__module__", "__main__")
    with pytest.raises(ConfigError, match=r"put it into a module, or write acting\.workers=0"):
        GameTrainer({"acting": {"workers": 1}}, game=Solo())


def test_a_network_that_cannot_read_the_game_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind 'conv' takes observations"):
        GameTrainer({"game": {"name": "pig"}, "net": {"kind": "conv"}})
