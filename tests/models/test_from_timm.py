"""timm's networks: their names, their weights, and that they run wherever a network does. Nothing here downloads."""

from __future__ import annotations

import re
from pathlib import Path

import planted
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.training.build import model_for
from models import ModelError

timm = pytest.importorskip("timm", reason="timm, an optional extra, is not installed")

from models import from_timm  # noqa: E402, after the skip
from models.surgery import replace_head  # noqa: E402


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        (
            "timm/resnet50dd",
            "none",
            r"no model 'timm/resnet50dd': timm [\d.]+ has no .*; the nearest is timm/resnet50d$",
        ),
        ("timm/vit_base_patch16_224", "none", "has no such residual network; the nearest is timm/"),
        (
            "timm/resnet50d",
            "IMAGENET1K_V1",
            "no weights 'IMAGENET1K_V1' for timm/resnet50d; choose from: none, a1_in1k",
        ),
    ],
)
def test_what_timm_does_not_have_is_a_sentence_with_what_it_has(name: str, weights: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        from_timm.network(name, weights)
    assert "\n" not in str(caught.value)


def test_weights_for_images_that_are_normalised_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_timm, "IMAGENET_STATISTICS", ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    with pytest.raises(ModelError, match=r"ra2_in1k of timm/resnet50d are for images normalised by \(0.485, 0.456, "):
        from_timm.network("timm/resnet50d", "ra2_in1k")


@pytest.mark.parametrize("module", from_timm.MODULES)
def test_a_network_of_each_module_has_a_head_to_replace_and_no_batch_norm_but_torch_s(module: str) -> None:
    """surgery changes the class of a BatchNorm2d, and an activation in it would be lost."""
    for name in timm.list_models(module=module)[::9]:
        with torch.device("meta"):
            model = timm.create_model(name)
        assert isinstance(model.get_submodule("fc"), nn.Linear), name
        kinds = {type(part) for part in model.modules() if isinstance(part, nn.BatchNorm2d)}
        assert kinds <= {nn.BatchNorm2d}, name


def test_published_weights_come_from_the_cache_and_are_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timm.create_model("resnet18d")
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        save_file(source.state_dict(), tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    model = from_timm.network("timm/resnet18d", "ra2_in1k")
    assert asked == [("timm/resnet18d.ra2_in1k", "model.safetensors")]
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_no_network_and_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, file: str) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(
        ModelError, match=r"cannot download model\.safetensors from https://huggingface\.co/timm/resnet50d"
    ):
        from_timm.network("timm/resnet50d", "ra2_in1k")


def test_a_file_gives_its_own_classes(tmp_path: Path) -> None:
    trained, path = from_timm.network("timm/resnet18d"), tmp_path / "mine.pt"
    replace_head(trained, 7)
    torch.save({"model": trained.state_dict()}, path)
    model = from_timm.network("timm/resnet18d", str(path))
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_trial_s_settings_reach_the_network() -> None:
    trial = planted.small(
        model="timm/resnet18d", head=(16,), dropout=(0.2,), replace_blocks=("layer2.0",), replaced_skip=False
    )
    model = model_for(trial, 3)
    assert model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert re.search("PlainBasicBlock", repr(type(model.get_submodule("layer2.0"))))
    assert torch.equal(model.get_parameter("conv1.0.weight"), model_for(trial, 3).get_parameter("conv1.0.weight"))
