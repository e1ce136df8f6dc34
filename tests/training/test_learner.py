"""The gradient step: what is accumulated, combined, guarded, clipped and remembered."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from troupe.batch import Batch, minibatches
from troupe.errors import ConfigError, TrainingError
from troupe.maths.gradients import pcgrad
from troupe.maths.losses import aggregate, normalizer, ppo_clip, value_loss
from troupe.stores.state import join_state, read_tensors, split_state, write_tensors
from troupe.training.learner import Learner, OptimizerGroup, adamw, cosine_with_warmup, flattened, muon


def weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def sgd(*parameters: nn.Parameter, lr: float = 1.0, **options: Any) -> OptimizerGroup:
    named = {f"w{i}": p for i, p in enumerate(parameters)}
    return OptimizerGroup(named, torch.optim.SGD(list(named.values()), lr=lr), **{"max_norm": None, **options})


def linear(parameter: nn.Parameter, *slope: float) -> Callable[[], dict[str, Tensor]]:
    """A loss whose gradient is `slope`."""
    return lambda: {"loss": (parameter * torch.tensor(slope)).sum()}


# ---------------------------------------------------------------------------------------------- accumulation


def test_micro_batches_add_up_to_the_batch() -> None:
    torch.manual_seed(0)
    network, x, y = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)), torch.randn(24, 5), torch.randn(24, 1)
    seen: list[list[Tensor]] = []

    def gradients(cuts: Sequence[int]) -> list[Tensor]:
        model = copy.deepcopy(network)

        def closure(low: int, high: int) -> Callable[[], dict[str, Tensor]]:
            return lambda: {"mse": ((model(x[low:high]) - y[low:high]) ** 2).sum() / 24}

        group = adamw(dict(model.named_parameters()), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, max_norm=None)
        learner = Learner({"all": group}, reduce=lambda ps: seen.append([p.grad.clone() for p in ps]))
        metrics = learner.update(closure(a, b) for a, b in zip([0, *cuts], [*cuts, 24], strict=True))
        assert metrics["loss/mse"] == pytest.approx(((network(x) - y) ** 2).mean().item(), rel=1e-5)
        return seen[-1]

    whole = gradients([])
    for cuts in ([12], [1, 2, 20], list(range(1, 24))):
        for a, b in zip(gradients(cuts), whole, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_named_losses_are_summed_and_reported_apart() -> None:
    w = weight(2.0)
    learner = Learner({"all": sgd(w)})
    metrics = learner.update([lambda: {"policy": 3 * w.sum(), "value": -w.sum()}, lambda: {"policy": w.sum()}])
    assert (metrics["loss/policy"], metrics["loss/value"]) == (8.0, -2.0)
    assert metrics["grad_norm/all"] == 3.0 and metrics["lr/all"] == 1.0
    assert w.item() == -1.0  # 2 - (3 - 1 + 1)
    assert learner.updates == 1 and w.grad is None


def test_an_update_needs_a_loss() -> None:
    with pytest.raises(TrainingError, match="needs at least one micro-batch"):
        Learner({"all": sgd(weight(1.0))}).update([])


# ---------------------------------------------------------------------------------------------- periods and schedules


def test_a_slow_group_steps_on_the_mean_of_its_gradients() -> None:
    """Gradients 1, 2, 6 for both: the fast one steps by each, the slow one once, by 3."""
    fast, slow = weight(0.0), weight(0.0)
    learner = Learner({"fast": sgd(fast), "slow": sgd(slow, period=3)})
    for slope, expected in ((1.0, (-1.0, 0.0)), (2.0, (-3.0, 0.0)), (6.0, (-9.0, -3.0)), (3.0, (-12.0, -3.0))):
        metrics = learner.update([lambda slope=slope: {"loss": slope * (fast + slow).sum()}])
        assert (fast.item(), slow.item()) == expected
        assert ("grad_norm/slow" in metrics) is (learner.updates == 3)
    assert (learner.groups["fast"].steps, learner.groups["slow"].steps) == (4, 1)


def test_the_schedule_counts_the_groups_own_steps() -> None:
    w = weight(0.0)
    learner = Learner({"all": sgd(w, period=2, schedule=lambda step: 10.0**step)})
    rates = [learner.update([linear(w, 1.0)]).get("lr/all") for _ in range(6)]
    assert rates == [None, 1.0, None, 10.0, None, 100.0]
    assert w.item() == -111.0


def test_warm_up_then_cosine() -> None:
    """4 steps of warm-up to 1, then down to a tenth at step 100."""
    factor = cosine_with_warmup(4, 100)
    assert [factor(s) for s in (0, 1, 3)] == pytest.approx([0.25, 0.5, 1.0], abs=2e-3)
    assert factor(50) == pytest.approx(0.55) and factor(100) == pytest.approx(0.1) == factor(500)
    assert cosine_with_warmup(0, 1, floor=1.0)(7) == 1.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sgd(weight(1.0), period=0), "period of at least 1, found 0"),
        (lambda: OptimizerGroup({}, torch.optim.SGD([weight(1.0)], lr=1.0)), "at least one parameter"),
        (lambda: Learner({"all": sgd(weight(1.0))}, amp="int8"), "amp='int8': write null, 'bf16' or 'fp16'"),
        (lambda: Learner({"all": sgd(weight(1.0), period=2)}, amp="fp16"), "write bf16, or period 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


# ---------------------------------------------------------------------------------------------- combining


def by_pcgrad(seed: int) -> Callable[[Mapping[str, Sequence[Tensor]]], Sequence[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return lambda apart: pcgrad(list(apart.values()), generator).gradient


def test_conflicting_losses_are_projected() -> None:
    """g = (1, 0), h = (-1, 1): projected on each other's normal plane g' = (0.5, 0.5), h' = (0, 1); sum (0.5, 1.5)."""
    w = weight(0.0, 0.0)
    learner = Learner({"all": sgd(w)}, combine=by_pcgrad(0))
    learner.update([lambda: {"g": w[0], "h": w[1] - w[0]}])
    assert w.tolist() == pytest.approx([-0.5, -1.5])


def test_gradients_are_complete_before_they_are_combined() -> None:
    """Cut in two, each half holds no conflict that the whole does not: (2, 0) and (-2, 2) as above, twice."""
    w = weight(0.0, 0.0)
    learner = Learner({"all": sgd(w)}, combine=by_pcgrad(0))
    learner.update([lambda: {"g": 2 * w[0]}, lambda: {"h": 2 * w[1]}, lambda: {"h": -2 * w[0]}])
    assert w.tolist() == pytest.approx([-1.0, -3.0])


def test_without_conflict_combining_is_adding() -> None:
    torch.manual_seed(0)
    network, x = nn.Linear(4, 2), torch.randn(8, 4)
    ends = []
    for combine in (None, by_pcgrad(1)):
        model = copy.deepcopy(network)
        learner = Learner({"all": sgd(*model.parameters())}, combine=combine)
        learner.update([lambda model=model: {"a": model(x)[:, 0].mean(), "b": model(x)[:, 1].mean()}] * 2)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*ends, strict=True))


# ---------------------------------------------------------------------------------------------- guard and clip


def test_a_single_bad_gradient_is_skipped_and_counted() -> None:
    w, other = weight(1.0), weight(1.0)
    learner = Learner({"all": sgd(w), "other": sgd(other)}, patience=2)
    metrics = learner.update([lambda: {"loss": w.sum() * math.nan + other.sum()}])
    assert (w.item(), other.item()) == (1.0, 1.0) and metrics["skipped_updates"] == 1.0
    assert math.isnan(metrics["grad_norm/all"]) and learner.groups["all"].steps == 0
    learner.update([linear(w, 1.0)])
    assert w.item() == 0.0
    learner.update([linear(w, math.inf)])  # the count starts again after a good one
    assert learner.skipped == 2 and learner.updates == 3


def test_bad_gradients_in_a_row_stop_the_run() -> None:
    w = weight(1.0)
    learner = Learner({"all": sgd(w)}, patience=3)
    for _ in range(2):
        learner.update([linear(w, math.nan)])
    with pytest.raises(TrainingError, match=r"not finite 3 updates in a row \(update 2\); lower the learning rate"):
        learner.update([linear(w, math.nan)])
    assert w.item() == 1.0


def test_each_group_is_clipped_by_its_own_norm() -> None:
    """(3, 4) has norm 5: clipped to 1 it is (0.6, 0.8); the other group keeps its 10."""
    w, other = weight(0.0, 0.0), weight(0.0)
    learner = Learner({"all": sgd(w, max_norm=1.0), "other": sgd(other)})
    metrics = learner.update([lambda: {"loss": 3 * w[0] + 4 * w[1] + 10 * other.sum()}])
    assert w.tolist() == pytest.approx([-0.6, -0.8], rel=1e-5) and other.item() == -10.0
    assert metrics["grad_norm/all"] == pytest.approx(5.0)  # as it was
    learner.update([lambda: {"loss": 0.1 * w[0]}])
    assert w[0].item() == pytest.approx(-0.7)  # short ones are not stretched


def test_a_reducer_sees_complete_gradients_before_the_clip() -> None:
    w = weight(0.0)
    seen = []

    def halve(parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            seen.append(parameter.grad.item())
            parameter.grad /= 2

    learner = Learner({"all": sgd(w, max_norm=2.0)}, reduce=halve)
    assert learner.update([linear(w, 1.0), linear(w, 2.0)])["grad_norm/all"] == 1.5
    assert seen == [3.0] and w.item() == -1.5


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_runs_on_the_cpu(amp: str) -> None:
    torch.manual_seed(0)
    network, x = nn.Linear(8, 4), torch.randn(16, 8)
    group = adamw(dict(network.named_parameters()), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    learner = Learner({"all": group}, amp=amp)
    seen = []

    def closure() -> dict[str, Tensor]:
        out = network(x)
        seen.append(out.dtype)
        return {"mse": (out.float() ** 2).mean()}

    first = learner.update([closure])["loss/mse"]
    for _ in range(30):
        last = learner.update([closure])["loss/mse"]
    assert last < 0.8 * first
    assert set(seen) == {torch.bfloat16 if amp == "bf16" else torch.float16}
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_fp16_takes_the_step_of_fp32() -> None:
    """The scale of the loss is gone from the gradient before it is measured, clipped and followed."""
    moved, norms = [], []
    for amp in (None, "fp16"):
        torch.manual_seed(0)
        network, x = nn.Linear(8, 4), torch.randn(16, 8)
        before = network.weight.detach().clone()
        learner = Learner({"all": sgd(*network.parameters(), lr=0.5, max_norm=0.05)}, amp=amp)
        norms.append(learner.update([lambda n=network, x=x: {"mse": (n(x).float() ** 2).mean()}])["grad_norm/all"])
        moved.append(network.weight.detach() - before)
        assert learner.skipped == 0
    assert norms[1] == pytest.approx(norms[0], rel=5e-3) and norms[0] > 0.05
    assert torch.allclose(moved[1], moved[0], rtol=2e-2, atol=1e-5) and moved[0].abs().max() > 1e-3


def test_fp16_that_overflows_is_skipped_with_half_the_scale_and_stops_late() -> None:
    parameter = weight(1.0, 2.0)
    learner = Learner({"all": sgd(parameter)}, amp="fp16", patience=2)
    scale = learner.state_dict()["scaler"]["scale"]
    steep = [linear(parameter, math.inf, 1.0)]
    assert learner.update(steep)["skipped_updates"] == 1 and parameter.tolist() == [1.0, 2.0]
    assert learner.state_dict()["scaler"]["scale"] == scale / 2
    learner.update([linear(parameter, 0.5, 0.0)])
    assert parameter.tolist() == [0.5, 2.0]
    for _ in range(2 * 8 - 1):
        learner.update(steep)
    with pytest.raises(TrainingError, match="not finite 16 updates in a row"):
        learner.update(steep)


# ---------------------------------------------------------------------------------------------- memory


def pair(seed: int) -> tuple[nn.Module, Learner]:
    """A fast and a slow part, Adam with decay, a schedule each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.ModuleDict({"fast": nn.Linear(4, 4), "slow": nn.Linear(4, 1)})
    options = {"lr": 1e-2, "betas": (0.9, 0.98), "weight_decay": 0.01, "schedule": cosine_with_warmup(3, 20)}
    groups = {
        name: adamw(dict(part.named_parameters()), period=period, **options)
        for (name, part), period in zip(network.items(), (1, 3), strict=True)
    }
    return network, Learner(groups)


def steps(network: Any, learner: Learner, numbers: range) -> None:
    for number in numbers:
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(number))
        learner.update([lambda x=x: {"loss": network["slow"](torch.tanh(network["fast"](x))).square().mean()}])


@pytest.mark.parametrize("cut", [3, 4, 5])
def test_a_restored_learner_goes_on_bit_by_bit(cut: int) -> None:
    """Cut at a boundary of the slow group's period, and within it, where gradients are pending."""
    network, learner = pair(0)
    steps(network, learner, range(9))
    stopped, half = pair(0)
    steps(stopped, half, range(cut))
    resumed, other = pair(1)
    resumed.load_state_dict(stopped.state_dict())
    state = copy.deepcopy(half.state_dict())
    assert bool(state["groups"]["slow"]["pending"]) is (cut % 3 > 0)
    other.load_state_dict(state)
    steps(resumed, other, range(cut, 9))
    for a, b in zip(network.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (other.updates, other.groups["slow"].steps) == (9, 3)


def test_state_survives_the_checkpoint_store(tmp_path: Any) -> None:
    from troupe.stores.checkpoints import CheckpointStore

    stopped, half = pair(0)
    steps(stopped, half, range(4))
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(4, {"network": dict(stopped.state_dict())}, {"learner": half.state_dict()}, {})
    checkpoint = store.load("latest")
    resumed, other = pair(1)
    resumed.load_state_dict(checkpoint.tensors["network"])
    other.load_state_dict(checkpoint.state["learner"])
    steps(stopped, half, range(4, 9))
    steps(resumed, other, range(4, 9))
    for a, b in zip(stopped.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_count_of_bad_gradients_is_remembered() -> None:
    w = weight(1.0)
    learner = Learner({"all": sgd(w)}, patience=2)
    learner.update([linear(w, math.nan)])
    again = Learner({"all": sgd(w)}, patience=2)
    again.load_state_dict(learner.state_dict())
    with pytest.raises(TrainingError, match="2 updates in a row"):
        again.update([linear(w, math.nan)])


def test_other_groups_are_refused() -> None:
    state = Learner({"team": sgd(weight(1.0))}).state_dict()
    with pytest.raises(TrainingError, match=r"optimiser groups \['team'\], the config \['critic', 'team'\]"):
        Learner({"team": sgd(weight(1.0)), "critic": sgd(weight(1.0))}).load_state_dict(state)


# ---------------------------------------------------------------------------------------------- not only language


class ActorCritic(nn.Module):
    """Discrete moves and a value on vectors, as a market or a board would have."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.move, self.worth = nn.Linear(3, 16), nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return torch.log_softmax(self.move(h), -1), self.worth(h)[..., 0]


def test_boards_and_markets_learn_by_the_same_step() -> None:
    """PPO on a `[B, T]` batch of random states: the right move is the largest of the first three features, or 3."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(16, 8, 3, generator=generator)
    right = torch.where(states.max(-1).values > 0, states.argmax(-1), 3)
    mask = (torch.rand(16, 8, generator=generator) < 0.8).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ActorCritic()
    group = adamw(dict(network.named_parameters()), lr=2e-2, betas=(0.9, 0.99), weight_decay=0.0)
    learner = Learner({"trader": group})
    hit_rates = []
    for _ in range(30):
        with torch.no_grad():
            logp, values = network(states)
            actions = torch.distributions.Categorical(logits=logp).probs.flatten(0, 1)
            moves = torch.multinomial(actions, 1, generator=generator).view(16, 8)
            old = logp.gather(-1, moves[..., None])[..., 0]
        rewards = (moves == right).float()
        hit_rates.append(float((rewards * mask).sum() / mask.sum()))
        columns = {"actions": moves, "mask": mask, "old_logprobs": old, "values": values, "returns": rewards}
        batch = Batch({"features": states}, {**columns, "advantages": (rewards - values) * mask})
        for part in minibatches(batch, 64, generator=generator, unit="step"):
            learner.update(halves(network, part))
    assert sum(hit_rates[-3:]) / 3 > 0.75 > 0.45 > hit_rates[0]


def halves(network: nn.Module, part: Batch) -> list[Callable[[], dict[str, Tensor]]]:
    """A minibatch in two micro-batches under one normalizer."""
    whole = normalizer(part["mask"], "token_mean")

    def closure(half: Batch) -> dict[str, Tensor]:
        logp, values = network(half.inputs["features"])
        picked = logp.gather(-1, half["actions"][..., None])[..., 0]
        surrogate = ppo_clip(
            picked, half["old_logprobs"], half["advantages"], half["mask"], clip_low=0.2, clip_high=0.2
        ).loss
        error = value_loss(values, half["returns"])
        return {
            "policy": aggregate(surrogate, half["mask"], "token_mean", normalizer=whole),
            "value": aggregate(error, half["mask"], "token_mean", normalizer=whole),
        }

    middle = len(part) // 2
    parts = [part.take(range(middle)), part.take(range(middle, len(part)))]
    return [lambda half=half: closure(half) for half in parts]


def test_muon_moves_every_direction_of_a_matrix_alike() -> None:
    """The gradient has singular values 8 and 0.5; an orthogonalised step has (nearly) equal ones, AdamW-sized."""
    matrix = nn.Parameter(torch.zeros(4, 4))
    slope = torch.diag(torch.tensor([8.0, 0.5, 8.0, 0.5]))
    learner = Learner({"m": muon({"m": matrix}, lr=0.1, weight_decay=0.0, max_norm=None)})
    learner.update([lambda: {"loss": (matrix * slope).sum()}])
    sizes = torch.linalg.svdvals(matrix.detach())
    assert sizes.min() > 0.5 * sizes.max() > 0  # Newton-Schulz brings them to within 0.7 to 1.2 of one another
    assert (torch.diag(matrix.detach()) < 0).all()
    assert matrix.detach().square().mean().sqrt() == pytest.approx(0.1 * 0.2, rel=0.3)  # 0.2 lr, AdamW's usual rms


def test_muon_continues_bit_by_bit() -> None:
    def build() -> tuple[nn.Parameter, Learner]:
        matrix = nn.Parameter(torch.arange(12.0).reshape(3, 4) / 10)
        return matrix, Learner({"m": muon({"m": matrix}, lr=0.05, weight_decay=0.01)})

    def step(matrix: nn.Parameter, learner: Learner) -> None:
        learner.update([lambda: {"loss": (matrix**2).sum() + matrix[0].sin().sum()}])

    whole, learner = build()
    for _ in range(4):
        step(whole, learner)
    first, half = build()
    for _ in range(2):
        step(first, half)
    second, rest = build()
    with torch.no_grad():
        second.copy_(first)
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    for _ in range(2):
        step(second, rest)
    assert torch.equal(whole, second)


def test_moments_of_convolutions_lie_as_their_weights_do(tmp_path: Path) -> None:
    """A fused kernel walks memory: moments that came back in another layout would belong to other weights."""

    def learner() -> tuple[nn.Module, Learner]:
        torch.manual_seed(0)
        net = nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net, Learner({"net": adamw(dict(net.named_parameters()), lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)})

    def steps(net: nn.Module, learner: Learner, seed: int) -> None:
        x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(seed))
        for _ in range(3):
            learner.update([lambda: {"loss": net(x).square().mean()}])

    net, ours = learner()
    steps(net, ours, 1)
    tensors, encoded = split_state({"learner": ours.state_dict(), "net": dict(net.state_dict())})
    write_tensors(tmp_path / "state.safetensors", tensors)
    stored = join_state(read_tensors(tmp_path / "state.safetensors"), encoded)
    again, theirs = learner()
    again.load_state_dict(stored["net"])
    theirs.load_state_dict(stored["learner"])
    for network, one in ((net, ours), (again, theirs)):
        steps(network, one, 2)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


# ---------------------------------------------------------------------------------------------- one piece of memory


def test_a_flat_group_steps_as_its_parameters_would() -> None:
    """Adam, norm and clip over one piece: the same weights to rounding, names and values as before."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(8, 4)
    ends = []
    for flat in (False, True):
        model = copy.deepcopy(network)
        named = dict(model.named_parameters())
        piece = flattened(named.values()) if flat else None
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), network.parameters(), strict=True))
        optimizer = torch.optim.Adam([piece] if piece is not None else list(named.values()), lr=0.1)
        learner = Learner({"all": OptimizerGroup(named, optimizer, max_norm=0.1, flat=piece)})
        for _ in range(5):
            metrics = learner.update([lambda model=model: {"mse": (model(x) ** 2).mean()}] * 2)
        ends.append([metrics["grad_norm/all"], *(p.detach().clone() for p in model.parameters())])
        assert all(p.grad is None for p in model.parameters())
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5) and ends[0][0] > 0.1
    for a, b in zip(ends[0][1:], ends[1][1:], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_flat_group_notices_that_its_parameters_have_left() -> None:
    model = nn.Linear(2, 1)
    named = dict(model.named_parameters())
    piece = flattened(named.values())
    learner = Learner({"all": OptimizerGroup(named, torch.optim.SGD([piece], lr=1.0), flat=piece)})
    model.weight.data = model.weight.data.clone()
    with pytest.raises(TrainingError, match="were moved or flattened again since their optimiser was made"):
        learner.update([lambda: {"loss": model.weight.sum()}])
