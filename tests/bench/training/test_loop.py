"""The training loop: exact windows, when gradients are shared, skipped steps, evaluation."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
import torch.nn.functional as F
from launching import python
from standin_cuda.standin import Standin
from torch import Tensor, nn

from bench.failure.causes import Diverged
from bench.training.build import optimizer_for
from bench.training.loop import Training, run_window, train_epoch
from bench.training.meter import Meter
from bench.training.windows import Window, epoch_windows
from bench.trial import Trial

CPU = torch.device("cpu")


def parameters_after(folder: Path, train: int, batch_norm: bool = False, **setting: Any) -> dict[str, Tensor]:
    ran = planted.run(
        folder,
        planted.settings(**setting),
        functools.partial(planted.smooth, batch_norm=batch_norm),
        functools.partial(planted.noise, train=train),
    )
    assert set(ran.codes) == {0}, ran.said()
    return ran.state()["model"]


# (images, micro_batch, accumulate, processes), each of one window
WINDOWS = [
    (16, 4, 4, 1),  # full
    (14, 4, 4, 1),  # its last pass short
    (9, 4, 4, 1),  # two passes less, and the last of a single image
    (1, 4, 4, 1),
    (16, 4, 2, 2),
    (15, 4, 2, 2),  # shares of 4 and 3
    (9, 4, 2, 2),  # a last pass of one image: rank 1 has none
    (1, 4, 2, 2),
    (5, 3, 2, 2),  # a single pass of two, rank 0 with one image more
]


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: "-".join(map(str, case)))
def test_a_window_s_gradient_is_the_mean_over_its_images(case: tuple[int, int, int, int], tmp_path: Path) -> None:
    images, micro_batch, accumulate, processes = case
    split: dict[str, Any] = {"micro_batch": micro_batch, "accumulate": accumulate, "processes": processes}
    after = parameters_after(tmp_path, images, lr=1.0, momentum=0.0, **split)

    trial = planted.settings()
    train = planted.noise(trial, tmp_path, train=images).train
    model = planted.smooth(trial, 10).double()
    F.cross_entropy(model((train.images.double() / 255 - 0.5) / 0.25), train.labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        moved = parameter.detach() - after[name].double()
        torch.testing.assert_close(moved, parameter.grad, rtol=1e-5, atol=1e-6)


def epochs_of(folder: Path, split: tuple[int, int, int], **more: Any) -> dict[str, Tensor]:
    """Parameters after two epochs of 43 images in windows of 24."""
    m, k, p = split
    schedule: dict[str, Any] = {"epochs": 2, "lr": 0.2, "weight_decay": 0.01, "warmup": 0.3, "milestones": (0.5,)}
    sizes: dict[str, Any] = {"micro_batch": m, "accumulate": k, "processes": p}
    return parameters_after(folder, 43, augment="crop_flip", **schedule, **sizes, **more)


@pytest.fixture(scope="module")
def one_batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return epochs_of(tmp_path_factory.mktemp("one"), (24, 1, 1))


@pytest.mark.parametrize("split", [(6, 4, 1), (1, 24, 1), (12, 1, 2), (3, 4, 2), (2, 4, 3)])
def test_without_batch_norm_epochs_of_any_split_are_those_of_one_process_in_one_pass(
    split: tuple[int, int, int], one_batch: dict[str, Tensor], tmp_path: Path
) -> None:
    after = epochs_of(tmp_path, split)
    start = planted.smooth(planted.settings(), 10).state_dict()
    assert (one_batch["4.weight"] - start["4.weight"]).abs().max() > 0.01
    for name, parameter in one_batch.items():
        torch.testing.assert_close(after[name], parameter, rtol=1e-4, atol=1e-5)


def test_with_batch_norm_accumulation_is_not_one_batch(tmp_path: Path) -> None:
    whole = epochs_of(tmp_path / "1", (24, 1, 1), batch_norm=True)
    parts = epochs_of(tmp_path / "2", (6, 4, 1), batch_norm=True)
    assert (whole["4.weight"] - parts["4.weight"]).abs().max() > 1e-3


def test_gradients_are_shared_after_a_window_s_last_pass_alone_and_all_at_once(tmp_path: Path) -> None:
    trial = planted.settings(processes=2, micro_batch=2, accumulate=3, epochs=2)
    ran = planted.run(tmp_path, trial, planted.counted, functools.partial(planted.noise, train=31))
    assert ran.codes == [0, 0], ran.said()
    passes_by_window = [3, 3, 2] * 2  # 12, 12 and 7 images
    for rank in range(2):
        _, *passes = (tmp_path / f"calls{rank}.txt").read_text().split("pass\n")
        assert len(passes) == sum(passes_by_window)
        ends = set(itertools.accumulate(passes_by_window))
        shared = 0
        for number, calls in enumerate(passes, 1):
            numbers = [int(line.split()[1]) for line in calls.splitlines() if line.startswith("allreduce")]
            if number in ends:
                shared += sum(numbers)
            else:
                assert calls == ""
        parameters = sum(p.numel() for p in planted.smooth(trial, 10, batch_norm=True).parameters())
        evaluations = trial.epochs * (1 + 10 * 10)  # loss, confusion matrix
        assert shared == len(passes_by_window) * parameters + evaluations


# fp16's loss scaling


class Overflow(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.inf


class Overflowing(nn.Module):
    """A linear layer whose gradient is infinite in the passes named."""

    def __init__(self, passes: set[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.passes, self.done = nn.Linear(4, 3), passes, 0

    def forward(self, images: Tensor) -> Tensor:
        self.done += 1
        logits = self.linear(images)
        return Overflow.apply(logits) if self.done - 1 in self.passes else logits


def batches_of(count: int, size: int = 2) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(size, 4, generator=generator), torch.randint(0, 3, (size,), generator=generator)


DECAYED = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def ours(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that a trial gets."""
    return optimizer_for(Trial(**DECAYED), model)  # type: ignore[arg-type]


def plain(model: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    """torch's own, as it comes."""
    return torch.optim.SGD(model.parameters(), **DECAYED, fused=fused)  # type: ignore[arg-type]


def step_by_step(
    overflow: set[int],
    scaled: bool,
    optimizer_of: Callable[..., torch.optim.Optimizer] = ours,
    first: int = 0,
    keeps_gradients: bool = False,
) -> tuple[list[Tensor], Training]:
    """Parameters before and after each of three windows of two passes, from the window `first` on."""
    model = Overflowing(overflow)
    optimizer = optimizer_of(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled else None
    training = Training(model, model, optimizer, scaler=scaler, keeps_gradients=keeps_gradients)
    if scaler is not None:
        training.backward = lambda loss: scaler.scale(loss).backward()  # as Accelerate does
    meter = Meter([], lambda numbers: [numbers], 0, CPU)
    batches = itertools.islice(batches_of(6), 2 * first, None)
    states = [model.linear.weight.detach().clone()]
    for window in list(epoch_windows(12, micro_batch=2, accumulate=2, processes=1, rank=0))[first:]:
        run_window(training, window, batches, meter)
        states.append(model.linear.weight.detach().clone())
    return states, training


def test_loss_scaling_does_not_change_the_steps() -> None:
    plain, _ = step_by_step(set(), scaled=False)
    scaled, training = step_by_step(set(), scaled=True)
    assert training.skipped_steps() == 0
    for ours, theirs in zip(scaled, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bad_pass", [2, 3])
def test_a_window_that_overflows_is_skipped_and_counted_and_the_next_one_steps(bad_pass: int) -> None:
    states, training = step_by_step({bad_pass}, scaled=True)
    assert training.skipped_steps() == 1
    assert not torch.equal(states[0], states[1])
    assert torch.equal(states[1], states[2])
    assert not torch.equal(states[2], states[3])
    assert states[3].isfinite().all()
    assert training.scaler is not None
    assert training.scaler.get_scale() == 512.0


def test_every_overflowing_window_is_counted() -> None:
    states, training = step_by_step({0, 1, 4}, scaled=True)
    assert training.skipped_steps() == 2
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])


def test_gradients_with_memory_of_their_own_stay_in_it_and_change_no_bit_of_a_step() -> None:
    """As CUDA graphs need it, whose replays write to theirs."""
    expected, _ = step_by_step(set(), scaled=False)
    found, training = step_by_step(set(), scaled=False, keeps_gradients=True)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    gradients = [parameter.grad for parameter in training.module.parameters()]
    places = [gradient.data_ptr() for gradient in gradients if gradient is not None and not gradient.any()]
    assert len(places) == 2
    run_window(training, Window(0, 2, [(0, 2)]), batches_of(1), Meter([], lambda numbers: [numbers], 0, CPU))
    after = [parameter.grad for parameter in training.module.parameters()]
    assert [gradient.data_ptr() for gradient in after if gradient is not None] == places


@pytest.fixture
def garbage() -> Iterator[None]:
    """What torch takes without a value holds NaN, as memory that was in use before may."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty_like(torch.ones(1)).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("garbage")
def test_after_a_skipped_first_step_the_others_are_those_of_plain_sgd_from_zero_momentum() -> None:
    states, training = step_by_step({0}, scaled=True)
    expected, _ = step_by_step(set(), scaled=False, optimizer_of=plain, first=1)
    assert training.skipped_steps() == 1
    for found, each in zip(states[1:], expected, strict=True):
        torch.testing.assert_close(found, each)


SKIPPED_ON_CUDA = """
import torch
from bench.training.build import optimizer_for
from bench.training.loop import Training
from bench.trial import Trial

torch.use_deterministic_algorithms(True)
module = torch.nn.ParameterList([torch.ones(4, device="cuda")])
optimizer = optimizer_for(Trial(lr=0.125, momentum=0.5), module)
scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
training = Training(module, module, optimizer, scaler=scaler, backward=lambda loss: scaler.scale(loss).backward())
for factor in (float("inf"), 1.0, 1.0):
    training.backward((module[0] * factor).sum())
    training.step()
    print(*module[0].tolist())
print(training.skipped_steps())
"""


def test_so_it_is_on_cuda(standin_cuda: Standin) -> None:
    """Steps of an eighth of 1 and of 1.5."""
    done = python("-W", "ignore", "-c", SKIPPED_ON_CUDA, env=standin_cuda.variables())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*(" ".join([text] * 4) for text in ("1.0", "0.875", "0.6875")), "1"]


def test_zero_momentum_from_the_start_changes_no_bit_of_a_step() -> None:
    found, _ = step_by_step(set(), scaled=False)
    expected, _ = step_by_step(set(), scaled=False, optimizer_of=functools.partial(plain, fused=True))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# The end of an epoch


def test_each_window_has_its_learning_rate() -> None:
    model = nn.Linear(4, 3)
    seen: list[float] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=9.0)
    optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
    windows = list(epoch_windows(7, 2, 1, 1, 0))
    batches = (
        (images[: stop - start], labels[: stop - start])
        for (start, stop), (images, labels) in zip([window.passes[0] for window in windows], batches_of(4), strict=True)
    )
    meter = Meter([], lambda numbers: [numbers], 0, CPU)
    rows: list[dict[str, Any]] = []
    epoch = train_epoch(Training(model, model, optimizer), windows, batches, meter, lambda w: 0.1 * w, rows.extend)
    assert seen == [0.1 * window for window in range(4)]
    assert [row["learning_rate"] for row in rows] == seen
    assert (epoch["windows"], epoch["learning_rate"]) == (4, seen[-1])


def test_what_fills_up_a_pass_does_not_count(tmp_path: Path) -> None:
    """A window of one image, filled up with a second of another label: the second has no part in the gradient."""
    moved = []
    for filler in (0, 2):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        training = Training(model, model, torch.optim.SGD(model.parameters(), lr=1.0))
        images, _ = next(batches_of(1))
        labels = torch.tensor([1, filler])
        run_window(training, Window(0, 1, [(6, 7)]), iter([(images, labels)]), Meter([], lambda n: [n], 0, CPU))
        moved.append(model.weight.detach().clone())
    assert torch.equal(*moved)


def test_a_loss_that_is_not_finite_is_named_with_its_window_and_its_row_handed_over() -> None:
    from bench.worker import all_probes

    model = nn.Linear(4, 3)
    batches = (
        (images * (math.nan if number == 3 else 1), labels) for number, (images, labels) in enumerate(batches_of(6))
    )
    meter = Meter(all_probes(), lambda numbers: [numbers], 0, CPU)
    rows: list[dict[str, Any]] = []
    windows = list(epoch_windows(12, 2, 1, 1, 0))
    training = Training(model, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(Diverged, match="the training loss is nan in step 3; try a smaller --lr"):
        train_epoch(training, windows, batches, meter, lambda w: 0.1, rows.extend)
    losses = [row["train_loss"] for row in rows]
    assert len(losses) > 3
    assert all(map(math.isfinite, losses[:3]))
    assert math.isnan(losses[3])


# Evaluation

SIZES = (1, 2, 3, 7, 101)
CASES = [(images, micro_batch, "resident") for images in SIZES for micro_batch in (1, 4, 200)]
CASES += [(7, 2, "loader"), (1, 2, "loader")]


@pytest.fixture(scope="module", params=[1, 2, 3])
def evaluated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("evaluated")
    codes = planted.group(request.param, planted.evaluations, folder, CASES, said=folder)
    assert codes == [0] * request.param, (folder / "rank0.txt").read_text()
    return request.param, folder


def test_evaluation_counts_each_image_once_at_any_size(evaluated: tuple[int, Path]) -> None:
    processes, folder = evaluated
    for rank in range(processes):
        for (images, _, _), result in zip(CASES, json.loads((folder / f"results{rank}.json").read_text()), strict=True):
            accuracy = planted.thirds(images)
            assert result["eval_accuracy"] == pytest.approx(accuracy, abs=1e-12), images
            assert result["eval_loss"] == pytest.approx(planted.read_loss(accuracy), rel=1e-5), images
            assert result["eval_images"] == images


def test_evaluation_shows_the_model_each_image_once_and_none_besides(evaluated: tuple[int, Path]) -> None:
    processes, folder = evaluated
    notes = planted.Ran(planted.settings(), folder, []).seen()
    assert not any(note["training"] for note in notes)
    shown = sorted(image for note in notes for image in note["ids"])
    assert shown == sorted(image for images, _, _ in CASES for image in range(images))
    if processes == 2:
        by_rank = [sum(len(note["ids"]) for note in notes if note["rank"] == rank) for rank in range(2)]
        assert by_rank[0] - by_rank[1] == sum(images % 2 for images, _, _ in CASES)
