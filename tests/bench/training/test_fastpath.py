"""The fast path on a GPU: no window waits for the device, launches are fewer, and results are the plain path's."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from accelerate.state import AcceleratorState
from launching import python
from perf.plain_path import AUGMENTED, PlainFeed, same, small
from standin_cuda.standin import Standin
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bench.data.pipeline import InputPipeline
from bench.training.build import model_for
from bench.training.loop import Training, evaluate, kept_casts, run_window
from bench.training.meter import Meter
from bench.training.windows import Window

CPU = torch.device("cpu")

# Each in one process, since torch takes long to start.

COUNTS = """
import contextlib, dataclasses, itertools, json, torch
from accelerate.state import AcceleratorState
from bench.data.pipeline import InputPipeline
from bench.instruments.operations import Operations
from tests.perf import contenders
from tests.perf.launches import one, per_window
from tests.perf.plain_path import AUGMENTED, PIECES, small, start
from tests.standin_cuda import counts

found = {"windows": [], "pieces": {}, "copies": [], "raced": []}
for precision in ("no", "bf16", "fp16"):
    loop = start(small(precision=precision, accumulate=2), 64, plain=False)
    known = loop.feed.data
    for pipeline, name in itertools.product(("resident", "loader", "fixed"), AUGMENTED):
        if pipeline == "fixed" and name != "none":
            continue  # random images are not augmented
        data = "synthetic" if pipeline == "fixed" else "cifar10"
        workers = 1 if name == "crop_flip" else 0
        given = {} if pipeline == "fixed" else {"pipeline": pipeline}
        trial = dataclasses.replace(loop.trial, augment=name, data=data, workers=workers, **given)
        loop.feed = InputPipeline(trial, known, loop.device)
        for each in per_window(loop, windows=2):
            found["windows"].append([precision, pipeline, name, each._asdict()])

for precision in ("no", "fp16"):
    found["pieces"][precision] = []
    for number in range(len(PIECES) + 1):
        loop = start(small(precision=precision, accumulate=2, augment="crop_flip"), 64, plain=False)
        for piece in list(PIECES.values())[number:]:
            piece(loop)
        found["pieces"][precision].append(one(loop)._asdict())

host, device = torch.zeros(8), torch.zeros(8, device="cuda")
pinned = torch.zeros(8).pin_memory()
for work in (
    lambda: host.to("cuda"),
    lambda: host.to("cuda", non_blocking=True),
    lambda: pinned.to("cuda"),
    lambda: device.cpu(),
    lambda: device.copy_(host),
    lambda: pinned.to("cuda", non_blocking=True),
    lambda: device.copy_(pinned, non_blocking=True),
    lambda: pinned.copy_(device, True),
    lambda: device.to(torch.bfloat16),
    lambda: device.clone(),
):
    with Operations() as operations:
        work()
    found["copies"].append(operations.waits)

for loop, precision in itertools.product(("ours", "plain", "accelerate"), ("no", "bf16", "fp16")):
    AcceleratorState._reset_state(reset_partial_state=True)
    train = getattr(contenders, loop)(small(accumulate=2, precision=precision), 32)
    before = counts.read()
    pace = contenders.Pace(contenders.device_for(), wanted=1, windows=2)
    with contextlib.suppress(contenders.Enough):
        train(pace)
    assert pace.seconds[0] > 0
    found["raced"].append([loop, precision, counts.read().since(before)._asdict()])
before = counts.read()
contenders.seconds_on(contenders.device_for())
found["idle"] = [str(contenders.device_for()), counts.read().since(before).waits]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def counts(standin_cuda: Standin) -> dict[str, Any]:
    done = python("-c", COUNTS, env=standin_cuda.variables(arithmetic=False))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_window_waits_for_the_device(counts: dict[str, Any]) -> None:
    """In no pipeline, precision or augmentation; nor does it copy from memory that is not pinned, which may."""
    assert len(counts["windows"]) == 3 * (2 * len(AUGMENTED) + 1) * 2
    waiting = [each for each in counts["windows"] if each[-1]["waits"] or each[-1]["pageable_copies"]]
    assert waiting == []
    assert all(each[-1]["launches"] > 50 for each in counts["windows"])


def test_each_piece_of_the_fast_path_saves_what_it_is_for(counts: dict[str, Any]) -> None:
    """Of a window of two micro-batches of ResNet-8, which has nine BatchNorms; eleven of its weights are cast."""
    saved = {}
    for precision, found in counts["pieces"].items():
        steps = [
            {name: before[name] - after[name] for name in ("launches", "copies", "events")}
            for before, after in itertools.pairwise(found)
        ]
        saved[precision] = [(step["launches"], step["copies"], step["events"]) for step in steps]
    feed, casts, counters, division, clock = zip(saved["no"], saved["fp16"], strict=True)
    assert feed == ((24, 2, 0), (24, 2, 0))
    assert casts == ((0, 0, 0), (11, 0, 0))
    assert counters == ((18, 0, 0), (18, 0, 0))
    assert division == ((4, 0, 0), (4, 0, 0))
    assert clock == ((0, 0, 1), (0, 0, 1))


def test_a_copy_that_blocks_is_a_wait(counts: dict[str, Any]) -> None:
    assert counts["copies"] == [1] * 5 + [0] * 5


# Results


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Accelerate keeps one precision for a process, and the suite takes all cores."""
    threads = torch.get_num_threads()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


CASES: tuple[dict[str, Any], ...] = (
    {"accumulate": 3},
    {"accumulate": 3, "precision": "bf16"},
    {"accumulate": 1, "precision": "bf16", "pipeline": "loader", "augment": "rotation"},
    {"accumulate": 2, "precision": "bf16", "trainable": ("layer3", "head"), "data": "synthetic", "pipeline": "auto"},
)


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_twenty_windows_are_the_plain_paths_to_the_last_bit(changes: dict[str, Any]) -> None:
    """Losses, weights, running statistics and counts of batches."""
    assert same(small(**{"augment": "crop_flip", "image_size": 8, **changes})) == 20


ON_A_GPU = """
from tests.perf.plain_path import same, small

for precision in ("no", "bf16", "fp16"):
    print(same(small(augment="crop_flip", image_size=8, accumulate=2, precision=precision), "cuda"))
"""


def test_twenty_windows_on_a_gpu_are_the_plain_paths_to_the_last_bit(standin_cuda: Standin) -> None:
    done = python("-c", ON_A_GPU, env=standin_cuda.variables())
    assert done.returncode == 0, done.stderr
    assert [int(line) > 10 for line in done.stdout.splitlines()] == [True] * 3


def test_the_contenders_run_on_a_gpu_and_are_timed_from_idle_to_idle(counts: dict[str, Any]) -> None:
    assert counts["idle"] == ["cuda:0", 1]
    assert [name for name, *_ in counts["raced"]] == [
        name for name in ("ours", "plain", "accelerate") for _ in range(3)
    ]
    assert all(taken["library_calls"] > 50 for *_, taken in counts["raced"])
    waits = {(name, precision): taken["waits"] for name, precision, taken in counts["raced"]}
    # Four micro-batches, of which each asks for its loss and its hits and makes two copies; and the two ends.
    assert all(waits["plain", precision] >= 4 * 4 + 2 for precision in ("no", "bf16", "fp16"))
    assert all(2 <= waits["ours", precision] < 4 * 4 for precision in ("no", "bf16", "fp16"))


@pytest.mark.parametrize(("pipeline", "name"), itertools.product(("resident", "loader"), AUGMENTED))
def test_every_micro_batch_is_the_plain_paths_to_the_last_bit(pipeline: Any, name: Any) -> None:
    found = planted.noise(planted.settings(), Path(), train=21)
    passes = [(0, 8), (8, 9), (13, 13), (13, 21)]
    for size, memory_format in ((4, "channels_last"), (4, "contiguous"), (8, "channels_last")):
        trial = small(
            pipeline=pipeline, augment=name, image_size=size, memory_format=memory_format, workers=0, data="cifar10"
        )
        torch.manual_seed(0)
        fast = list(InputPipeline(trial, found, CPU).train(1, passes))
        torch.manual_seed(0)
        plain = list(PlainFeed(trial, found, CPU).train(1, passes))
        for (images, labels), (expected, theirs) in zip(fast, plain, strict=True):
            assert torch.equal(images, expected)
            assert images.stride() == expected.stride()
            assert torch.equal(labels, theirs)


@pytest.mark.filterwarnings("ignore:`broadcast_buffers`:FutureWarning")
def test_kept_casts_change_no_gradient_where_ddp_shares_them(tmp_path: Path) -> None:
    """A group of one, whose reducer works as in any. Once kept, a weight is cast once in a window."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        kept, dropped = ddp_window(kept_casts), ddp_window(lambda _: contextlib.nullcontext())
    finally:
        torch.distributed.destroy_process_group()
    assert len(kept[0]) == len(list(model_for(small(), 10).parameters()))
    assert all(map(torch.equal, kept[0], dropped[0]))
    assert dropped[1] - kept[1] == 2 * 11  # nine convolutions, and the head's weight and bias


def ddp_window(keep: Callable[[torch.device], Any]) -> tuple[list[Tensor], int]:
    """(gradients of a window of three passes in bf16, how many casts it took)."""
    from bench.instruments.operations import Operations

    module = model_for(small(), 10).train()
    model = DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)
    module.forward = torch.autocast("cpu", torch.bfloat16)(module.forward)  # as Accelerate does
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    gradients: list[Tensor] = []
    optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad.clone() for p in module.parameters() if p.grad is not None)
    )
    training = Training(model, module, optimizer, no_sync=model.no_sync, kept_casts=lambda: keep(CPU))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)) for _ in range(3)]
    with Operations() as operations:
        window = Window(0, 12, [(0, 4), (4, 8), (8, 12)])
        run_window(training, window, iter(batches), Meter([], lambda n: [n], 0, CPU))
    return gradients, operations.casts


# Evaluation at a batch of its own


def test_evaluation_at_a_batch_of_its_own_is_the_same() -> None:
    found = planted.noise(planted.settings(), Path(), train=8, evaluation=50)
    shown: list[int] = []

    def at(batch: int | None, pipeline: Any) -> Any:
        trial = small(eval_batch=batch, pipeline=pipeline, workers=0)
        module = model_for(trial, 10)
        module.register_forward_pre_hook(lambda _, images: shown.append(len(images[0])))
        feed = InputPipeline(trial, found, CPU)
        return evaluate(module, feed.evaluate, 50, trial.evaluation_batch(), 0, 1, lambda sums: sums, 10)

    own = at(None, "resident")
    assert shown == [4] * 12 + [2]
    for batch, pipeline in ((32, "resident"), (50, "loader")):
        shown.clear()
        other = at(batch, pipeline)
        assert shown == ([32, 18] if batch == 32 else [50])
        assert other.confusion == own.confusion
        assert other.loss == pytest.approx(own.loss, rel=1e-6)


def test_random_images_are_enough_for_a_larger_evaluation_batch() -> None:
    found = planted.noise(planted.settings(), Path(), train=8, evaluation=50)
    feed = InputPipeline(small(data="synthetic", eval_batch=32), found, CPU)
    assert [len(images) for images, _ in feed.evaluate([(0, 32), (32, 50)])] == [32, 18]
