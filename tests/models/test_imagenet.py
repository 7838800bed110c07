"""torchvision's networks and where their weights come from; nothing here reaches the network."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision import models

from bench.memory.trace import ConstructorArithmetic
from models import ModelError, imagenet
from models.names import TORCHVISION
from models.surgery import replace_head, total_parameters

# torchvision's own table, https://pytorch.org/vision/stable/models.html
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "regnet_y_400mf": 4_344_144,
    "regnet_y_800mf": 6_432_512,
    "regnet_y_1_6gf": 11_202_430,
    "regnet_y_3_2gf": 19_436_338,
    "regnet_y_8gf": 39_381_472,
    "regnet_y_16gf": 83_590_140,
    "regnet_y_32gf": 145_046_770,
    "regnet_y_128gf": 644_812_894,
    "regnet_x_400mf": 5_495_976,
    "regnet_x_800mf": 7_259_656,
    "regnet_x_1_6gf": 9_190_136,
    "regnet_x_3_2gf": 15_296_552,
    "regnet_x_8gf": 39_572_648,
    "regnet_x_16gf": 54_278_536,
    "regnet_x_32gf": 107_811_560,
}
PUBLISHED = [
    ("resnet18", "IMAGENET1K_V1"),
    ("resnet152", "IMAGENET1K_V1"),
    ("resnet152", "IMAGENET1K_V2"),
    ("resnext101_64x4d", "IMAGENET1K_V1"),
    ("wide_resnet50_2", "IMAGENET1K_V2"),
    ("regnet_y_16gf", "IMAGENET1K_SWAG_LINEAR_V1"),
]


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed port for a proxy, and an empty cache: the folder that torch.hub would use."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block a stage in place of ResNet-18's two, for speed."""
    block = torchvision.models.resnet.BasicBlock
    monkeypatch.setattr(torchvision.models, "resnet18", partial(torchvision.models.ResNet, block, [1, 1, 1, 1]))


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_and_shape(name: str) -> None:
    with torch.device("meta"), ConstructorArithmetic():
        model = imagenet.network(name)
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    assert total_parameters(model) == PARAMETERS[name]


def test_the_names_are_those_of_torchvision_s_resnet_and_regnet() -> None:
    """Its other networks with an `fc` (GoogLeNet, Inception, ShuffleNet) add no identity."""
    builders = {name: models.get_model_builder(name) for name in models.list_models(module=models)}
    found = [name for name, build in builders.items() if build.__module__.endswith((".resnet", ".regnet"))]
    assert sorted(TORCHVISION) == sorted(found)


def test_unknown_name() -> None:
    with pytest.raises(ModelError, match=r"no ImageNet model 'resnet20'; choose from: resnet18, .*, regnet_y_128gf$"):
        imagenet.network("resnet20")


@pytest.mark.parametrize(("model", "name"), PUBLISHED)
def test_no_network_and_no_cache(no_network: Path, model: str, name: str) -> None:
    url = torchvision.models.get_model_weights(model)[name].url
    with pytest.raises(ModelError) as error:
        imagenet.network(model, name)
    text = str(error.value)
    assert url in text
    assert str(no_network / Path(url).name) in text
    assert "--weights PATH" in text
    assert "\n" not in text
    assert list(no_network.iterdir()) == []


def test_a_cache_that_cannot_be_written(no_network: Path) -> None:
    no_network.parent.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot download resnet18-f37072fd\.pth"):
        imagenet.network("resnet18", "IMAGENET1K_V1")


def test_a_download_is_checked_and_kept(no_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    source = tmp_path / "source.pth"
    torch.save(imagenet.network("resnet18").state_dict(), source)
    calls = []

    def download(url: str, target: str, hash_prefix: str | None = None, progress: bool = True) -> None:
        calls.append((url, hash_prefix, progress))
        Path(target).write_bytes(source.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    imagenet.network("resnet18", "IMAGENET1K_V1")
    imagenet.network("resnet18", "IMAGENET1K_V1")
    assert calls == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd", False)]


def test_a_wrong_download_is_refused(no_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub itself checks the hash: here it reads a file of other content."""
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"other content")
    real = torch.hub.download_url_to_file
    monkeypatch.setattr(
        torch.hub,
        "download_url_to_file",
        lambda url, *args, **options: real(wrong.as_uri(), *args, **options),
    )
    with pytest.raises(ModelError, match="invalid hash value"):
        imagenet.network("resnet18", "IMAGENET1K_V1")
    assert list(no_network.iterdir()) == []


def test_the_cache_is_used(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    torch.manual_seed(1)
    state = imagenet.network("resnet18").state_dict()
    no_network.mkdir(parents=True)
    torch.save(state, no_network / "resnet18-f37072fd.pth")
    model = imagenet.network("resnet18", "IMAGENET1K_V1")
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_damaged_cache_is_an_error(no_network: Path) -> None:
    no_network.mkdir(parents=True)
    cached = no_network / "resnet18-f37072fd.pth"
    cached.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ModelError, match="cannot read weights") as error:
        imagenet.network("resnet18", "IMAGENET1K_V1")
    assert str(cached) in str(error.value)


def test_a_file_gives_its_own_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    trained, path = imagenet.network("resnet18"), tmp_path / "mine.pt"
    replace_head(trained, 7)
    torch.save({"model": trained.state_dict()}, path)
    model = imagenet.network("resnet18", str(path))
    assert model.get_submodule("fc").out_features == 7
    state = trained.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_file_with_a_sequential_head_gives_its_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    trained, path = imagenet.network("resnet18"), tmp_path / "mine.pt"
    replace_head(trained, 7, hidden=(16,))
    torch.save(trained.state_dict(), path)
    model = imagenet.network("resnet18", str(path))
    assert model.get_submodule("fc").weight.shape == (7, 512)
    assert torch.equal(model.get_parameter("conv1.weight"), trained.get_parameter("conv1.weight"))


def test_a_file_of_another_depth(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"conv1.weight": torch.ones(64, 3, 3, 3), "fc.weight": torch.ones(10, 512)}, path)
    with pytest.raises(ModelError, match=r"conv1\.weight has shape \(64, 3, 3, 3\) where \(64, 3, 7, 7\)"):
        imagenet.network("resnet18", str(path))


@pytest.mark.parametrize("weights", ["IMAGENET1K_V2", "IMAGENET1K_V3", "DEFAULT", "missing.pt", "", "None"])
def test_unknown_weights(no_network: Path, weights: str) -> None:
    with pytest.raises(ModelError) as error:
        imagenet.network("resnet18", weights)
    assert str(error.value) == (
        f"no weights {weights!r} for resnet18; choose from: none, IMAGENET1K_V1, or the path of a state dict"
    )
