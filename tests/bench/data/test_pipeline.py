"""What reaches the model: both pipelines show it the same kind of images."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from launching import CONTAINER, plant
from torch import Tensor
from torchvision.transforms import v2

from bench.data import augment, datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import PAD, InputPipeline, free_bytes, mix, pipeline_for
from bench.trial import Trial

CPU = torch.device("cpu")
SIZE = 8
PIPELINES = ("resident", "loader")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return datasets.load(Trial(data="digits"), tmp_path_factory.mktemp("none"))


def test_synthetic_data_is_as_large_as_cifar10_and_fixed(tmp_path: Path) -> None:
    trial = Trial(data="synthetic", image_size=16, micro_batch=4, limit_train=40)
    found = datasets.load(trial, tmp_path)
    assert (len(found.train), len(found.evaluation)) == (40, 10_000)
    assert len(datasets.load(Trial(data="synthetic"), tmp_path).train) == 50_000
    feed = InputPipeline(trial, found, CPU)
    batches = list(feed.train(0, [(0, 4), (4, 8), (8, 9)]))
    assert [images.shape for images, _ in batches] == [(4, 3, 16, 16), (4, 3, 16, 16), (2, 3, 16, 16)]
    assert torch.equal(batches[0][0], batches[1][0])
    assert 0.9 < batches[0][0].std() < 1.1
    assert len(torch.cat([labels for _, labels in feed.train(0, [(0, 40)])]).unique()) == 10


def test_the_pipeline_is_what_was_asked_for_and_resident_by_default_where_it_fits(digits: DataSet) -> None:
    for trial, pipeline in (
        (Trial(data="digits"), "resident"),
        (Trial(data="digits", pipeline="loader"), "loader"),
        (Trial(data="synthetic", pipeline="loader"), "fixed"),
        (Trial(data="digits", processes=10**9), "loader"),
        # 1797 images of 3 x 32 x 32 bytes are a quarter of this limit.
        (Trial(data="digits", memory_limit_bytes=4 * 1797 * 3 * 32 * 32), "resident"),
        (Trial(data="digits", memory_limit_bytes=4 * 1797 * 3 * 32 * 32 - 1), "loader"),
        (Trial(data="digits", processes=2, memory_limit_bytes=4 * 1797 * 3 * 32 * 32), "resident"),
    ):
        assert pipeline_for(trial, digits, free_bytes(trial, CPU)) == pipeline


def test_a_container_s_limit_is_shared_as_a_machine_s_memory_is(tmp_path: Path) -> None:
    root = plant(tmp_path, CONTAINER | {"proc/meminfo": "MemTotal: 25165824 kB\nMemAvailable: 6291456 kB\n"})
    assert [free_bytes(Trial(processes=n), CPU, root) for n in (1, 2)] == [1075 * 2**20, 1075 * 2**19]


@pytest.mark.parametrize(
    ("available", "machines", "pipeline"),
    [
        # Four times 128 images of 3 x 32 x 32 bytes are 1536 KiB, for each of the processes that share the memory.
        ((2 * 1536, 10**6), 1, "resident"),
        ((10**6, 2 * 1536 - 1), 1, "loader"),
        ((1536, 1536), 2, "resident"),
    ],
)
def test_all_ranks_take_the_pipeline_that_fits_on_each(
    available: tuple[int, int], machines: int, pipeline: str, tmp_path: Path
) -> None:
    trial = planted.small(processes=2, machines=machines, pipeline="auto", limit_train=78, limit_eval=50)
    codes = planted.group(2, planted.pipeline_by_rank, trial, available, tmp_path, said=tmp_path)
    assert codes == [0, 0], (tmp_path / "rank1.txt").read_text()
    assert [(tmp_path / f"rank{rank}.txt").read_text().split()[-1] for rank in range(2)] == [pipeline] * 2


def coordinates(count: int) -> Split:
    """Images whose pixels hold their own row and column, from 1, and whose third channel holds their number."""
    row, column = torch.meshgrid(torch.arange(1, SIZE + 1), torch.arange(1, SIZE + 1), indexing="ij")
    number = torch.arange(count)[:, None, None].expand(-1, SIZE, SIZE) % 200 + 1
    pixels = torch.stack([row.expand(count, -1, -1), column.expand(count, -1, -1), number], 1)
    return Split(pixels.byte(), torch.arange(count) % 10)


def feed(count: int = 10, **setting: Any) -> InputPipeline:
    split = coordinates(count)
    trial = planted.settings(**{"image_size": SIZE, "augment": "crop_flip", "workers": 0, **setting})
    return InputPipeline(trial, planted.plain_data(split, split), CPU)


def epoch(feed: InputPipeline, epoch: int, passes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """(images, labels) of all passes, one after the other."""
    torch.manual_seed(mix(feed.trial.seed, epoch))  # as the worker does; the loader draws from it
    images, labels = zip(*feed.train(epoch, passes), strict=True)
    return torch.cat(images).round().long(), torch.cat(labels)


def moved(image: Tensor) -> tuple[int, int, bool]:
    """(down, right, mirrored) of the crop that this is; it is one to the last pixel."""
    inside = image[0] > 0
    y, x = (int(index[0]) for index in torch.nonzero(inside, as_tuple=True))
    down = int(image[0, y, x]) - 1 - y + PAD
    row = image[1, y][inside[y]]
    mirrored = bool(row[0] > row[-1])
    shown = image.flip(2) if mirrored else image
    x = int(torch.nonzero(shown[0, y] > 0)[0])
    right = int(shown[1, y, x]) - 1 - x + PAD
    whole = coordinates(1).images[0].long()
    whole[2] = image[2].max()
    padded = torch.nn.functional.pad(whole, [PAD] * 4)
    assert torch.equal(shown, padded[:, down : down + SIZE, right : right + SIZE])
    return down, right, mirrored


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_crops_and_flips_are_uniform_and_independent(pipeline: Any) -> None:
    """81 offsets x 2, 20 images expected in each: chi-square within five standard deviations of its 161."""
    count = 2 * (2 * PAD + 1) ** 2 * 20
    images, _ = epoch(feed(count, pipeline=pipeline), 0, [(0, count)])
    found = Counter(map(moved, images))
    assert set(found) == set(itertools.product(range(9), range(9), (False, True)))
    chi_square = sum((seen - 20) ** 2 / 20 for seen in found.values())
    assert abs(chi_square - 161) < 5 * (2 * 161) ** 0.5
    mirrored = sum(seen for (_, _, mirrored), seen in found.items() if mirrored)
    assert abs(mirrored - count / 2) < 5 * (count / 4) ** 0.5


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_digits_are_cropped_and_never_mirrored(pipeline: Any) -> None:
    images, _ = epoch(feed(300, pipeline=pipeline, data="digits"), 0, [(0, 300)])
    found = Counter(map(moved, images))
    assert not any(mirrored for _, _, mirrored in found)
    assert len(found) > 60


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_flip_alone_moves_nothing(pipeline: Any) -> None:
    images, _ = epoch(feed(300, pipeline=pipeline, augment="flip"), 0, [(0, 300)])
    found = Counter(map(moved, images))
    assert set(found) == {(PAD, PAD, False), (PAD, PAD, True)}
    assert 110 < found[PAD, PAD, True] < 190


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_without_augmentation_and_in_evaluation_images_are_as_they_are(pipeline: Any) -> None:
    plain = feed(10, pipeline=pipeline, augment="none")
    images, labels = epoch(plain, 0, [(0, 4), (4, 10)])
    numbers = images[:, 2, 0, 0] - 1
    assert sorted(numbers.tolist()) == list(range(10))
    assert torch.equal(images, coordinates(10).images.long()[numbers])
    assert torch.equal(labels, numbers)
    augmented = feed(10, pipeline=pipeline)
    shown = torch.cat([batch for batch, _ in augmented.evaluate([(0, 3), (3, 10)])])
    assert torch.equal(shown.round().long(), coordinates(10).images.long())
    assert [labels.tolist() for _, labels in augmented.evaluate([(0, 3), (5, 6)])] == [[0, 1, 2], [5]]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_epoch_and_seed_has_an_order_and_draws_of_its_own(pipeline: Any) -> None:
    passes = [(0, 20), (20, 40)]
    different = ((0, 0), (0, 1), (1, 0))
    shown = [epoch(feed(40, pipeline=pipeline, seed=seed), number, passes)[0] for seed, number in different]
    again, _ = epoch(feed(40, pipeline=pipeline), 0, passes)
    assert torch.equal(shown[0], again)
    for one, other in itertools.combinations(shown, 2):
        assert not torch.equal(one[:, 2].amax((1, 2)), other[:, 2].amax((1, 2)))
        draws = [{int(image[2].max()): moved(image) for image in images} for images in (one, other)]
        assert sum(draws[0][number] == draws[1][number] for number in draws[0]) < 10


def test_the_resident_pipeline_shows_the_same_images_in_any_split() -> None:
    whole, labels = epoch(feed(30), 3, [(0, 30)])
    for passes in ([(0, 7), (7, 14), (14, 30)], [(at, at + 2) for at in range(0, 30, 2)]):
        parts = epoch(feed(30), 3, passes)
        assert torch.equal(parts[0], whole)
        assert torch.equal(parts[1], labels)
    rank_0, rank_1 = (epoch(feed(30), 3, passes)[0] for passes in ([(0, 8), (16, 23)], [(8, 16), (23, 30)]))
    assert torch.equal(torch.cat([rank_0[:8], rank_1[:8], rank_0[8:], rank_1[8:]]), whole)


@pytest.mark.parametrize("name", augment.NAMES)
def test_an_augmentation_is_the_same_in_any_split_and_pipeline(name: Any) -> None:
    """And it is of bench/data/augment.py: the planted images are not what is shown."""
    whole, labels = values(feed(30, augment=name), [(0, 30)])
    for pipeline, passes in itertools.product(PIPELINES, ([(0, 30)], [(0, 7), (7, 14), (14, 30)])):
        shown, again = values(feed(30, augment=name, pipeline=pipeline), passes)
        torch.testing.assert_close(shown, whole, rtol=1e-5, atol=1e-3)
        assert torch.equal(again, labels)
    plain, _ = values(feed(30, augment="none"), [(0, 30)])
    assert (whole - plain).abs().amax((1, 2, 3)).median() > 0.1
    evaluated = torch.cat([batch for batch, _ in feed(30, augment=name).evaluate([(0, 30)])])
    assert torch.equal(evaluated.round().long(), coordinates(30).images.long())


def values(feed: InputPipeline, passes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """(images, labels) of an epoch."""
    images, labels = zip(*feed.train(3, passes), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pass_of_less_than_two_images_is_filled_up_to_two(pipeline: Any) -> None:
    images, labels = epoch(feed(10, pipeline=pipeline, augment="none"), 0, [(0, 8), (8, 9), (10, 10)])
    assert len(images) == len(labels) == 8 + 2 + 2
    assert torch.equal(images[8], images[9])
    assert torch.equal(labels, images[:, 2, 0, 0] - 1)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("size", [32, 20, 56])
def test_resizing_in_batches_equals_torchvision_s_antialiased_resize_of_each_image(
    pipeline: Any, size: int, digits: DataSet
) -> None:
    trial = planted.settings(pipeline=pipeline, image_size=size, data="digits")
    (images, _), *_ = InputPipeline(trial, digits, CPU).evaluate([(0, 5)])
    resize = v2.Resize((size, size), antialias=True)
    for image, source in zip(images, digits.evaluation.images, strict=False):
        expected = (resize(source.double()) / 255 - digits.mean[0]) / digits.std[0]
        torch.testing.assert_close(image.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_images_are_normalised_by_channel_and_in_the_trial_s_memory_format(pipeline: Any, memory_format: Any) -> None:
    split = planted.noise(planted.settings(), Path(), train=6).train
    statistics = ((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    trial = planted.settings(pipeline=pipeline, memory_format=memory_format)
    feed = InputPipeline(trial, DataSet(split, split, 10, *statistics), CPU)
    expected = v2.functional.normalize(split.images.double() / 255, *map(list, statistics))
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    for images, _ in (*feed.evaluate([(0, 6)]), *feed.train(0, [(0, 6)])):
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=layout)
    torch.testing.assert_close(next(feed.evaluate([(0, 6)]))[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_seeds_mixed_from_near_numbers_differ() -> None:
    seeds = {mix(*numbers) for numbers in itertools.product(range(8), repeat=3)}
    assert len(seeds) == 8**3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix(0, 1) != mix(1, 0)
    assert mix(3) != mix(3, 0)


def test_random_images_are_those_of_what_is_set_aside_too(tmp_path: Path) -> None:
    trial = planted.settings(data="synthetic", validation=0.1, micro_batch=4)
    found = datasets.load(trial, tmp_path)
    assert found.validation is not None
    made = InputPipeline(trial, found, CPU)
    (images, labels), *_ = made.evaluate([(0, 4)], found.validation)
    assert torch.equal(images, next(made.evaluate([(0, 4)]))[0])
    assert torch.equal(labels, found.validation.labels[:4])
