"""Weights files: what is good goes in bit by bit, and whatever else comes is refused in one sentence."""

import argparse
import errno
import pickle
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models import ModelError, cifar
from models.surgery import replace_head
from models.weights import head_classes, load, load_whole, read_state_dict


class Malicious:
    """Unpickled without care, this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def network(seed: int = 0, classes: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return cifar.resnet(8, num_classes=classes)


def one_sentence(error: pytest.ExceptionInfo[ModelError], path: Path) -> bool:
    text = str(error.value)
    return str(path) in text and "\n" not in text and ". " not in text.replace(str(path), "")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("ddp", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_round_trip(tmp_path: Path, ddp: bool, checkpoint: bool) -> None:
    original = network(1)
    original(torch.randn(4, 3, 8, 8))  # Moves the running statistics.
    state = original.state_dict()
    saved = {f"module.{key}": tensor for key, tensor in state.items()} if ddp else state
    path = tmp_path / "weights.pt"
    torch.save({"model": saved, "epoch": 3} if checkpoint else saved, path)
    read = read_state_dict(path)
    assert same(read, state)
    other = network(2)
    assert not same(other.state_dict(), state)
    load(other, read, path)
    assert same(other.state_dict(), state)
    assert all(p.requires_grad for p in other.parameters())


def test_legacy_format_and_text_path(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    state = network().state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same(read_state_dict(str(path)), state)


def test_a_module_called_module_keeps_its_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"module.weight": torch.ones(1), "fc.weight": torch.ones(1)}, path)
    assert set(read_state_dict(path)) == {"module.weight", "fc.weight"}


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(ModelError, match="no weights file") as error:
            read_state_dict(path)
        assert one_sentence(error, path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, kept: float, legacy: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ModelError, match="cannot read weights") as error:
        read_state_dict(path)
    assert one_sentence(error, path)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    with pytest.raises(ModelError, match=r"is Git LFS's pointer to the weights, .*; run git lfs pull") as error:
        read_state_dict(path)
    assert one_sentence(error, path)


def test_weights_that_may_not_be_read_are_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network().state_dict(), path)
    refused = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(ModelError, match=r"cannot read weights from .*: Permission denied; check the path"):
        read_state_dict(path)


GARBAGE = [
    b"\x00" * 100,
    b"<html>404 Not Found</html>",
    b"\x80\x02}q\x00.",
    b"PK\x03\x04" + b"x" * 50,
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_state_dict(path)
    assert one_sentence(error, path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.ones(1)],
        torch.ones(1),
        {"a": 1},
        {1: torch.ones(1)},
        {"model": {}},
        {"model": {"a": 1}},
        {"model": 1, "\x1b[31m": 2},
        {"a": torch.ones(1), "\x1b[31m": torch.ones(1)},
    ],
)
def test_not_a_state_dict(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(ModelError, match="holds no state dict") as error:
        read_state_dict(path)
    assert one_sentence(error, path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_malicious_pickle_is_not_executed(tmp_path: Path, plain_pickle: bool, legacy: bool) -> None:
    path, target = tmp_path / "weights.pt", tmp_path / "executed"
    content = {"fc.weight": torch.ones(1), "fc.bias": Malicious(target)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="holds more than tensors") as error:
        read_state_dict(path)
    assert one_sentence(error, path)
    assert not target.exists()
    if plain_pickle:  # The file does what it is here to do.
        pickle.loads(path.read_bytes())
        assert target.exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_full_machine_is_not_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network().state_dict(), path)

    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(type(error)) as raised:
        read_state_dict(path)
    assert raised.value is error


def test_the_first_mismatch_is_named_and_nothing_is_changed() -> None:
    model, state = network(1), network(2).state_dict()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    path = Path("dir/weights.pt")
    missing = {key: tensor for key, tensor in state.items() if not key.startswith("layer2.0.bn")}
    unexpected = {"layer9.weight": torch.ones(1), "layer10.weight": torch.ones(1), **state}
    shape = {**state, "layer2.0.conv1.weight": torch.ones(32, 16, 1, 1), "fc.bias": torch.ones(3)}
    for wrong, text in (
        (missing, "layer2.0.bn1.weight is missing"),
        (unexpected, "layer9.weight is unexpected"),
        (shape, r"layer2.0.conv1.weight has shape \(32, 16, 1, 1\) where \(32, 16, 3, 3\) is expected"),
    ):
        with pytest.raises(ModelError, match=f"{text};") as error:
            load(model, wrong, path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert same(model.state_dict(), before)


def test_files_without_batch_counters_load() -> None:
    """torchvision's older files have no num_batches_tracked."""
    model, full = network(1), network(2).state_dict()
    old = type(full)((key, tensor) for key, tensor in full.items() if "num_batches" not in key)
    old._metadata = full._metadata  # type: ignore[attr-defined]
    load(model, old, "weights.pt")
    assert same({key: model.state_dict()[key] for key in old}, dict(old))


def test_head_classes() -> None:
    model = network(classes=7)
    assert head_classes(model.state_dict()) == 7
    # Twelve children: as text, "12" sorts before "3".
    replace_head(model, 6, hidden=(32, 16, 12, 11), dropout=(0.1,))
    assert head_classes(model.state_dict()) == 6


@pytest.mark.parametrize("state", [{}, {"heads.head.weight": torch.ones(3, 4)}, {"fc.weight": torch.ones(3)}])
def test_head_classes_unknown(state: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match=r"no fc\.weight"):
        head_classes(state)


def test_a_sequential_head_is_left_out_of_a_backbone(tmp_path: Path) -> None:
    trained, path = network(1), tmp_path / "weights.pt"
    replace_head(trained, 6, hidden=(16,), dropout=(0.3,))
    torch.save(trained.state_dict(), path)
    state = read_state_dict(path)
    model = network(2, head_classes(state))
    head = model.get_parameter("fc.weight").clone()
    load(model, state, path)
    assert torch.equal(model.get_parameter("fc.weight"), head)
    assert head.shape == (6, 64)
    backbone = {key: tensor for key, tensor in trained.state_dict().items() if not key.startswith("fc.")}
    assert same({key: model.state_dict()[key] for key in backbone}, backbone)


def test_a_sequential_head_loads_into_its_like_and_a_single_one_does_not() -> None:
    trained, model = network(1), network(2)
    for each in (trained, model):
        replace_head(each, 6, hidden=(16,))
    load(model, trained.state_dict(), "weights.pt")
    assert same(model.state_dict(), trained.state_dict())
    with pytest.raises(ModelError, match=r"fc\.0\.weight is missing"):
        load(model, network(1).state_dict(), "weights.pt")


def test_the_rest_of_a_backbone_stays_strict() -> None:
    trained = network(1)
    replace_head(trained, 6, hidden=(16,))
    state = {key: tensor for key, tensor in trained.state_dict().items() if key != "bn1.bias"}
    with pytest.raises(ModelError, match=r"bn1\.bias is missing"):
        load(network(), state, "weights.pt")


# Names that others use


def test_a_state_dict_with_the_sources_names_is_the_same_network(tmp_path: Path) -> None:
    """As a ResNet-20 of stages from layer0 on with short_cut, and one from layer1 on with shortcut and linear."""
    torch.manual_seed(0)
    model = cifar.resnet(20).eval()
    ours = model.state_dict()
    from_zero = {
        re.sub(r"^layer(\d)", lambda found: f"layer{int(found[1]) - 1}", key).replace("downsample", "short_cut"): tensor
        for key, tensor in ours.items()
    }
    from_one = {key.replace("downsample", "shortcut").replace("fc.", "linear."): tensor for key, tensor in ours.items()}
    assert "layer0.0.conv1.weight" in from_zero
    assert "layer1.0.short_cut.0.weight" in from_zero
    assert "layer2.0.shortcut.1.running_mean" in from_one
    assert "linear.bias" in from_one
    for state in (from_zero, from_one):
        torch.save(state, tmp_path / "w.pt")
        read = read_state_dict(tmp_path / "w.pt")
        assert same(read, ours)


# Checkpoints of other programs


@pytest.mark.parametrize(
    "wrappers", [["state_dict"], ["model_state_dict"], ["model"], ["net"], ["state_dict", "model"]]
)
@pytest.mark.parametrize(
    "prefix", ["", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.net.", "module.backbone."]
)
def test_a_checkpoint_of_another_program_is_the_same_network(tmp_path: Path, wrappers: list[str], prefix: str) -> None:
    state, path = network().state_dict(), tmp_path / "w.pt"
    content: dict[str, Any] = {f"{prefix}{key}": tensor for key, tensor in state.items()}
    for key in reversed(wrappers):
        content = {"epoch": 3, "arch": "resnet8", key: content, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    torch.save(content, path)
    assert same(read_state_dict(path), state)


def test_a_prefix_that_not_all_keys_have_stays(tmp_path: Path) -> None:
    state = {"model.conv1.weight": torch.ones(1), "model.fc.weight": torch.ones(1), "criterion.weight": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    assert read_state_dict(tmp_path / "w.pt").keys() == state.keys()


def test_averaged_weights_are_taken_only_where_they_were_saved_alone(tmp_path: Path) -> None:
    trained, path = network(1).state_dict(), tmp_path / "w.pt"
    average = torch.optim.swa_utils.AveragedModel(network(2)).state_dict()
    assert {"n_averaged", "module.fc.weight"} <= average.keys()
    for key in ("model_ema", "state_dict_ema"):
        torch.save({"model": trained, key: average}, path)
        assert same(read_state_dict(path), trained)
        torch.save({key: average}, path)
        with pytest.raises(ModelError, match=f"holds no state dict under .*, but '{key}'") as error:
            read_state_dict(path)
        assert one_sentence(error, path)
    torch.save(average, path)
    assert same(read_state_dict(path), network(2).state_dict())


def test_of_two_networks_none_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": network(1).state_dict(), "net": {"state_dict": network(2).state_dict()}}, path)
    with pytest.raises(ModelError, match=r"holds state dicts under model and net\.state_dict; save the one") as error:
        read_state_dict(path)
    assert one_sentence(error, path)


def test_a_checkpoint_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pt")


def test_two_names_of_one_part_are_not_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({**network().state_dict(), "linear.weight": torch.ones(10, 64)}, path)
    with pytest.raises(ModelError, match=r"both fc\.weight and linear\.weight") as error:
        read_state_dict(path)
    assert one_sentence(error, path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, r"argparse\.Namespace"),
        ({"state_dict": {"a": torch.ones(1)}, "folder": Path("runs")}, r"pathlib\.PosixPath"),
        (nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    ],
    ids=["settings", "path", "module"],
)
def test_a_file_that_needs_more_than_tensors_says_what(
    tmp_path: Path, content: object, held: str, legacy: bool
) -> None:
    path = tmp_path / "w.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=f"holds more than tensors: {held}; .* save the state dict alone") as error:
        read_state_dict(path)
    assert one_sentence(error, path)


def test_safetensors_is_the_same_network(tmp_path: Path) -> None:
    state, path = network().state_dict(), tmp_path / "model.safetensors"
    safetensors.torch.save_file({f"module.{key}": tensor for key, tensor in state.items()}, path)
    assert same(read_state_dict(path), state)
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:100], whole[:-1], b"\xff" * 100, b"<html>404 Not Found</html>"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot read weights") as error:
            read_state_dict(path)
        assert one_sentence(error, path)


KEY = "layer2.0.conv1.weight"
KINDS = {
    "int8 where float32 is expected": lambda weight: weight.to(torch.int8),
    "bool where float32 is expected": lambda weight: weight.bool(),
    "complex64 where float32 is expected": lambda weight: weight.to(torch.complex64),
    "float8_e4m3fn where float32 is expected": lambda weight: weight.to(torch.float8_e4m3fn),
    "qint8 where float32 is expected": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "sparse_coo, not dense": lambda weight: weight.to_sparse(),
    "without data": lambda weight: weight.to("meta"),
    "nested": lambda weight: torch.nested.nested_tensor([weight, weight[:1]]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about nested and quantized tensors
def test_what_no_weight_can_be_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    """The tensor comes after others that fit: none of those may be copied."""
    model, path = network(1), tmp_path / "w.pt"
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = network(2).state_dict()
    torch.save({**state, KEY: KINDS[kind](state[KEY])}, path)
    with pytest.raises(ModelError, match=f"{re.escape(KEY)} in .* is {kind}") as error:
        load_whole(model, read_state_dict(path), path)
    assert one_sentence(error, path)
    assert same(model.state_dict(), before)


def test_a_counter_is_no_float(tmp_path: Path) -> None:
    state = {**network().state_dict(), "bn1.num_batches_tracked": torch.tensor(0.5)}
    with pytest.raises(ModelError, match=r"bn1\.num_batches_tracked in w\.pt is float32 where int64 is expected"):
        load_whole(network(), state, "w.pt")


def test_a_counter_that_half_made_a_float_is_a_counter() -> None:
    """As where somebody calls `.half()` on all of a state dict."""
    model, state = network(1), network(2).state_dict()
    load_whole(model, {key: tensor.half() for key, tensor in state.items()}, "w.pt")
    assert same(model.state_dict(), {key: tensor.half().to(tensor.dtype) for key, tensor in state.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_weights(dtype: torch.dtype) -> None:
    model, state = network(1), network(2).state_dict()
    other = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    load_whole(model, other, "w.pt")
    assert same(model.state_dict(), {key: other[key].to(tensor.dtype) for key, tensor in state.items()})
