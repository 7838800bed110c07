"""Data sets: what is in the splits."""

import contextlib
import http.server
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torchvision.datasets import CIFAR10

from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.errors import UsageError
from bench.training.build import model_for
from bench.trial import Trial

CPU = torch.device("cpu")
SIZE = 8
PIPELINES = ("resident", "loader")


def images_as_set(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return datasets.load(Trial(data="digits"), tmp_path_factory.mktemp("none"))


# Data sets


def test_digits_are_real_images_in_two_splits_that_share_none(digits: DataSet) -> None:
    assert (len(digits.train), len(digits.evaluation), digits.classes) == (1438, 359, 10)
    for split in (digits.train, digits.evaluation):
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.long)
        assert split.images.shape == (len(split), 3, 32, 32)
        assert torch.equal(split.images[:, 0], split.images[:, 2])
        assert (int(split.images.min()), int(split.images.max())) == (0, 255)
    train, evaluation = images_as_set(digits.train), images_as_set(digits.evaluation)
    assert not train & evaluation
    assert len(train) + len(evaluation) == 1797


def test_every_class_of_the_digits_is_in_both_splits_in_its_share(digits: DataSet) -> None:
    train, evaluation = (Counter(split.labels.tolist()) for split in (digits.train, digits.evaluation))
    assert set(train) == set(evaluation) == set(range(10))
    for label in range(10):
        assert evaluation[label] / (evaluation[label] + train[label]) == pytest.approx(0.2, abs=0.01)


def test_digits_look_like_their_source(digits: DataSet) -> None:
    """Scaled down again, each evaluation image is nearest to one of scikit-learn's with its label."""
    from sklearn.datasets import load_digits

    source = load_digits()
    small = digits.evaluation.images[:, 0].reshape(-1, 8, 4, 8, 4).float().mean((2, 4)) / 255 * 16
    nearest = torch.cdist(small.flatten(1), torch.from_numpy(source.images).float().flatten(1)).argmin(1)
    assert (torch.from_numpy(source.target)[nearest] == digits.evaluation.labels).double().mean() > 0.99


def test_the_digits_statistics_are_those_of_the_training_images(digits: DataSet) -> None:
    values = digits.train.images.double() / 255
    assert digits.mean == pytest.approx([values.mean().item()] * 3, rel=1e-4)
    assert digits.std == pytest.approx([values.std().item()] * 3, rel=1e-4)


def test_a_pretrained_model_gets_the_statistics_it_was_trained_with(tmp_path: Path) -> None:
    found = datasets.load(Trial(model="resnet18", data="digits"), tmp_path)
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_share_of_the_training_images_is_set_aside_in_balance(digits: DataSet, tmp_path: Path) -> None:
    found = datasets.load(Trial(data="digits", validation=0.2), tmp_path)
    assert found.validation is not None
    assert (len(found.train), len(found.validation)) == (1150, 288)
    train, aside = images_as_set(found.train), images_as_set(found.validation)
    assert not train & aside
    assert train | aside == images_as_set(digits.train)
    assert images_as_set(found.evaluation) == images_as_set(digits.evaluation)
    counts = Counter(found.validation.labels.tolist())
    assert max(counts.values()) - min(counts[label] for label in range(10)) <= 1
    limited = datasets.load(Trial(data="digits", validation=0.2, limit_train=30), tmp_path)
    assert limited.validation is not None
    assert images_as_set(limited.validation) == aside
    assert images_as_set(limited.train) < train


@pytest.mark.parametrize("share", [0.0001, 0.9999])
def test_a_share_that_leaves_a_part_empty_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--validation {share} of 1438 images leaves a part empty"):
        datasets.load(Trial(data="digits", validation=share), tmp_path)


def test_classes_have_their_names(tmp_path: Path) -> None:
    assert datasets.load(Trial(data="digits", classes=(7, 2)), tmp_path).names == ("7", "2")


@pytest.mark.parametrize("limit", [10, 55, 400])
def test_a_limited_data_set_is_balanced_and_always_the_same(limit: int, digits: DataSet, tmp_path: Path) -> None:
    trial = Trial(data="digits", limit_train=limit, limit_eval=limit // 5)
    found, again = datasets.load(trial, tmp_path), datasets.load(trial, tmp_path)
    for split, whole, size in ((found.train, digits.train, limit), (found.evaluation, digits.evaluation, limit // 5)):
        assert len(split) == len(split.images) == size
        counts = Counter(split.labels.tolist())
        assert max(counts.values()) - min(counts[label] for label in range(10)) <= 1
        assert images_as_set(split) <= images_as_set(whole)
        assert len(images_as_set(split)) == size
    assert torch.equal(found.train.images, again.train.images)


def test_a_limit_above_the_size_is_no_limit(digits: DataSet, tmp_path: Path) -> None:
    found = datasets.load(Trial(data="digits", limit_train=10_000), tmp_path)
    assert torch.equal(found.train.images, digits.train.images)


def test_chosen_classes_are_labelled_by_their_place(digits: DataSet, tmp_path: Path) -> None:
    found = datasets.load(Trial(data="digits", classes=(7, 3, 5)), tmp_path)
    assert found.classes == 3
    for split, whole in ((found.train, digits.train), (found.evaluation, digits.evaluation)):
        for place, label in enumerate((7, 3, 5)):
            assert torch.equal(split.images[split.labels == place], whole.images[whole.labels == label])
        assert len(split) == sum(int((whole.labels == label).sum()) for label in (7, 3, 5))


# CIFAR-10 without a network


@contextlib.contextmanager
def network(proxy: str) -> Iterator[None]:
    """All requests go to this address."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
            patch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)
        urllib.request.install_opener(urllib.request.build_opener())  # the old one remembers the old proxies
        yield
    urllib.request.install_opener(None)


class BrokenMirror(http.server.BaseHTTPRequestHandler):
    """Answers every download with the start of an archive, and breaks off."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "170498071")
        self.end_headers()
        self.wfile.write(b"\x1f\x8b\x08" + bytes(1000))

    def log_message(self, *_: Any) -> None:
        pass


def sentence(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        datasets.load(Trial(data="cifar10"), root)
    said = str(caught.value)
    assert said.startswith(f"cifar10 is incomplete in {root} and could not be downloaded (")
    assert "md5 c58f30108f718f92721af3b95e74349a" in said
    assert said.endswith("--data digits, which needs no download")
    assert "\n" not in said


@pytest.mark.parametrize("there", ["nothing", "half an archive", "a wrong archive", "one batch", "a file in the way"])
def test_without_a_network_cifar10_that_is_not_whole_is_one_sentence(there: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    if there == "a file in the way":
        root.write_text("")
    elif there != "nothing":
        (root / "cifar-10-batches-py").mkdir(parents=True)
        name = "cifar-10-batches-py/data_batch_1" if there == "one batch" else "cifar-10-python.tar.gz"
        (root / name).write_bytes(b"\x1f\x8b\x08" + bytes(1000 if there == "half an archive" else 0))
    with network("http://127.0.0.1:9"):
        sentence(root)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes every request and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.timeout(60)
def test_a_server_that_never_answers_is_given_up(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a data set, and for published weights."""
    monkeypatch.setattr(datasets, "SILENT_S", 0.3)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(CIFAR10, "url", f"{silent}/cifar-10-python.tar.gz")
    sentence(tmp_path / "data")
    with network(silent), pytest.raises(UsageError, match=r"cannot download resnet18-\w+\.pth .*timed out"):
        model_for(Trial(model="resnet18", weights="IMAGENET1K_V1"), 10)
    assert socket.getdefaulttimeout() is None


def test_a_download_that_breaks_off_is_one_sentence_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BrokenMirror) as mirror:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{mirror.server_port}/cifar-10-python.tar.gz")
        for _ in range(2):
            sentence(tmp_path)
            assert set(BrokenMirror.asked) == {"/cifar-10-python.tar.gz"}
            BrokenMirror.asked.clear()
        mirror.shutdown()
