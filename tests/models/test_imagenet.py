"""torchvision's networks and where their weights come from; nothing here reaches the network."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision

from models import ModelError, imagenet
from models.surgery import replace_head, total_parameters

# torchvision's own table, https://pytorch.org/vision/stable/models.html
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
PUBLISHED = [
    (depth, name)
    for depth in PARAMETERS
    for name in (["IMAGENET1K_V1"] if depth < 50 else ["IMAGENET1K_V1", "IMAGENET1K_V2"])
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


@pytest.mark.parametrize("depth", imagenet.DEPTHS)
def test_parameters_and_shape(depth: int) -> None:
    with torch.device("meta"):
        model = imagenet.resnet(depth)
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert total_parameters(model) == PARAMETERS[depth]


def test_unknown_depth() -> None:
    with pytest.raises(ModelError, match="depth 20; choose from: 18, 34, 50, 101, 152"):
        imagenet.resnet(20)


@pytest.mark.parametrize(("depth", "name"), PUBLISHED)
def test_no_network_and_no_cache(no_network: Path, depth: int, name: str) -> None:
    url = torchvision.models.get_model_weights(f"resnet{depth}")[name].url
    with pytest.raises(ModelError) as error:
        imagenet.resnet(depth, name)
    text = str(error.value)
    assert url in text
    assert str(no_network / Path(url).name) in text
    assert "--weights PATH" in text
    assert "\n" not in text
    assert list(no_network.iterdir()) == []


def test_a_cache_that_cannot_be_written(no_network: Path) -> None:
    no_network.parent.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot download resnet18-f37072fd\.pth"):
        imagenet.resnet(18, "IMAGENET1K_V1")


def test_a_download_is_checked_and_kept(no_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    source = tmp_path / "source.pth"
    torch.save(imagenet.resnet(18).state_dict(), source)
    calls = []

    def download(url: str, target: str, hash_prefix: str | None = None, progress: bool = True) -> None:
        calls.append((url, hash_prefix, progress))
        Path(target).write_bytes(source.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    imagenet.resnet(18, "IMAGENET1K_V1")
    imagenet.resnet(18, "IMAGENET1K_V1")
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
        imagenet.resnet(18, "IMAGENET1K_V1")
    assert list(no_network.iterdir()) == []


def test_the_cache_is_used(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    torch.manual_seed(1)
    state = imagenet.resnet(18).state_dict()
    no_network.mkdir(parents=True)
    torch.save(state, no_network / "resnet18-f37072fd.pth")
    model = imagenet.resnet(18, "IMAGENET1K_V1")
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_damaged_cache_is_an_error(no_network: Path) -> None:
    no_network.mkdir(parents=True)
    cached = no_network / "resnet18-f37072fd.pth"
    cached.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ModelError, match="cannot read weights") as error:
        imagenet.resnet(18, "IMAGENET1K_V1")
    assert str(cached) in str(error.value)


def test_a_file_gives_its_own_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    trained, path = imagenet.resnet(18), tmp_path / "mine.pt"
    replace_head(trained, 7)
    torch.save({"model": trained.state_dict()}, path)
    model = imagenet.resnet(18, str(path))
    assert model.get_submodule("fc").out_features == 7
    state = trained.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_file_with_a_sequential_head_gives_its_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    trained, path = imagenet.resnet(18), tmp_path / "mine.pt"
    replace_head(trained, 7, hidden=(16,))
    torch.save(trained.state_dict(), path)
    model = imagenet.resnet(18, str(path))
    assert model.get_submodule("fc").weight.shape == (7, 512)
    assert torch.equal(model.get_parameter("conv1.weight"), trained.get_parameter("conv1.weight"))


def test_a_file_of_another_depth(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"conv1.weight": torch.ones(64, 3, 3, 3), "fc.weight": torch.ones(10, 512)}, path)
    with pytest.raises(ModelError, match=r"conv1\.weight has shape \(64, 3, 3, 3\) where \(64, 3, 7, 7\)"):
        imagenet.resnet(18, str(path))


@pytest.mark.parametrize("weights", ["IMAGENET1K_V2", "IMAGENET1K_V3", "DEFAULT", "missing.pt", "", "None"])
def test_unknown_weights(no_network: Path, weights: str) -> None:
    with pytest.raises(ModelError) as error:
        imagenet.resnet(18, weights)
    assert str(error.value) == (
        f"no weights {weights!r} for ResNet-18; choose from: none, IMAGENET1K_V1, or the path of a state dict"
    )
