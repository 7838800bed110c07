"""Activations: planted dead channels are counted, tiles are the tensors, and what cannot be drawn is one sentence."""

from __future__ import annotations

import csv
import dataclasses
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CHECKOUT
from launching import is_one_error, python
from PIL import Image
from torch import Tensor, nn

from bench.activations import __main__ as activations
from bench.activations import channels, grid
from bench.data import datasets
from bench.errors import UsageError
from bench.training import checkpoint
from bench.training.build import model_for, optimizer_for
from bench.training.loop import Training
from bench.trial import Trial
from models import cifar, imagenet, surgery

DIGITS = Trial(model="resnet8", data="digits", limit_eval=40)
KILLED = [1, 4, 9]
CPU = torch.device("cpu")


def planted(trial: Trial = DIGITS, norm: str = "bn1", killed: list[int] = KILLED) -> nn.Module:
    """A model one of whose BatchNorms answers -1 in the killed channels, and is above 0 somewhere in the others."""
    model = model_for(trial, 10)
    layer = model.get_submodule(norm)
    assert isinstance(layer, nn.BatchNorm2d)
    with torch.no_grad():
        layer.bias.fill_(3.0)  # BatchNorm's running statistics are fresh: some pixel of the digits is above -3
        layer.weight[killed] = 0.0
        layer.bias[killed] = -1.0
    return model


def keep(path: Path, trial: Trial, model: nn.Module) -> Path:
    """A checkpoint as a trial keeps it."""
    checkpoint.save(path, trial, Training(model, model, optimizer_for(trial, model)), {"epoch": 1})
    return path


def picture(path: Path, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Path:
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint (own.pt), its model as a bare state dict (bare.pt), and a picture (image.png)."""
    folder = tmp_path_factory.mktemp("planted")
    model = planted()
    keep(folder / "own.pt", DIGITS, model)
    torch.save(model.state_dict(), folder / "bare.pt")
    picture(folder / "image.png")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["bench.activations", *map(str, words)])
    activations.main()


def rows(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "activations.csv", newline="") as file:
        return {row["layer"]: row for row in csv.DictReader(file)}


def shown(path: Path, size: int, mean: list[float], std: list[float]) -> Tensor:
    """The picture as the model is shown it, by torchvision's own transforms."""
    from torchvision.transforms import v2

    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
    resized = v2.functional.resize(image, [size, size], antialias=True)
    return v2.functional.normalize(resized, mean, std)[None]


# Which channels are dead


@pytest.mark.parametrize("layer", ["relu", "bn1"])
def test_killed_channels_are_dead_and_no_others(layer: str) -> None:
    model = planted().eval()
    count, batches = channels.evaluation_images(DIGITS, datasets.load(DIGITS, Path()))
    assert count == 40
    assert channels.dead_channels(model, batches, [layer])[layer].nonzero().flatten().tolist() == KILLED


def test_a_channel_that_lives_in_one_pixel_of_one_batch_is_not_dead() -> None:
    model = nn.Sequential(nn.ReLU())
    batches = [torch.full((2, 4, 3, 3), -1.0) for _ in range(3)]
    batches[0][1, 2, 0, 0] = 0.5
    batches[2][0, 3, 2, 1] = 1e-30
    assert channels.dead_channels(model, batches, ["0"])["0"].tolist() == [True, True, False, False]


def test_of_a_module_called_twice_the_last_call_counts() -> None:
    """A block's one ReLU comes after bn1, whose channels are all killed here, and after the identity is added."""
    model = planted(norm="layer1.0.bn1", killed=list(range(16))).eval()
    images = torch.rand(4, 3, 32, 32)
    dead = channels.dead_channels(model, [images], ["layer1.0.bn1", "layer1.0.relu", "layer1.0"])
    assert dead["layer1.0.bn1"].all()
    assert not dead["layer1.0.relu"].all()
    assert torch.equal(dead["layer1.0.relu"], dead["layer1.0"])


def goes_through_relu(model: nn.Module, names: list[str]) -> list[str]:
    found = channels.outputs(model.eval(), torch.rand(1, 3, 32, 32), names)
    return [name for name in names if found[name].rectified]


def test_only_what_a_relu_gave_or_takes_unchanged_can_be_dead() -> None:
    """bn2's answer is changed in place, by the identity that is added, before the ReLU has it."""
    head = {"head": (16,), "dropout": (0.5,)}
    model = model_for(dataclasses.replace(DIGITS, **head), 10)  # type: ignore[arg-type]
    block = ["layer2.0.conv1", "layer2.0.bn1", "layer2.0.bn2", "layer2.0.downsample", "layer2.0.relu", "layer2.0"]
    rest = ["conv1", "bn1", "relu", "layer1", "avgpool", "flatten", "fc.0", "fc.1", "fc.3", "fc"]
    expected = ["layer2.0.bn1", "layer2.0.relu", "layer2.0", "bn1", "relu", "layer1", "fc.0", "fc.1"]
    assert goes_through_relu(model, [*block, *rest]) == expected
    assert goes_through_relu(cifar.resnet(8, "none"), ["layer1.0.bn2"]) == ["layer1.0.bn2"]
    names = ["conv1", "bn1", "relu", "maxpool", "layer1.0.bn2", "layer1.0.bn3", "layer4"]
    assert goes_through_relu(imagenet.network("resnet50"), names) == ["bn1", "relu", "layer1.0.bn2", "layer4"]


def test_without_names_a_regnet_s_stem_and_stages_are_drawn() -> None:
    model = imagenet.network("regnet_y_400mf")
    stages = [f"trunk_output.block{stage}" for stage in range(1, 5)]
    assert channels.layers(model, None) == ["stem", *stages]
    assert goes_through_relu(model, ["stem.1", "stem", *stages]) == ["stem.1", "stem", *stages]


def test_what_an_in_place_relu_overwrites_later_was_copied_before() -> None:
    model = planted().eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model.get_submodule("bn1")(model.get_submodule("conv1")(images))[0]
    found = channels.outputs(model, images, ["bn1", "relu"])
    assert expected.min() == -1
    assert torch.equal(found["bn1"].values, expected)
    assert torch.equal(found["relu"].values, expected.clamp(min=0))


class Lower(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(1.0)


def test_what_was_a_relus_before_it_was_changed_in_place_is_not() -> None:
    found = channels.outputs(nn.Sequential(nn.ReLU(), Lower()), torch.rand(1, 3, 2, 2), ["0", "1"])
    assert (found["0"].rectified, found["1"].rectified) == (True, False)


# What is drawn


@pytest.mark.parametrize("shape", [(16, 32, 32), (7, 5, 3), (1, 1, 1), (90, 7, 7)])
def test_every_tile_is_its_channel_in_its_own_range(shape: tuple[int, int, int], tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=shape) * np.logspace(-9, 9, shape[0])[:, None, None]
    values[0] = 5.0
    content, layout = grid.draw(values, [channel % 3 == 0 for channel in range(shape[0])], "a title", ["some words"])
    (tmp_path / "a.png").write_bytes(content)
    pixels = np.array(Image.open(tmp_path / "a.png"))
    seen = np.zeros(pixels.shape[:2], dtype=int)
    for channel, tile in enumerate(values):
        span = tile.max() - tile.min()
        grey = np.rint((tile - tile.min()) / (span or 1) * 255)
        (x, y), (width, height) = layout.corner(channel), layout.tile
        assert (width, height) == (shape[2] * layout.scale, shape[1] * layout.scale)
        drawn = pixels[y : y + height, x : x + width]
        assert np.array_equal(drawn, np.kron(grey, np.ones((layout.scale,) * 2))[..., None].repeat(3, axis=2)), channel
        assert (tuple(pixels[y - 1, x - 1]) == grid.RED) == (channel % 3 == 0)
        seen[y : y + height, x : x + width] += 1
    assert seen.max() == 1


@pytest.mark.parametrize("words", ["", "x" * 300, "wide WWWWW " * 40])
def test_the_head_fits(words: str) -> None:
    """Nothing is written beyond the right edge, nor into the grid."""
    content, layout = grid.draw(np.zeros((4, 2, 2)), [False] * 4, "title", [words] if words else [])
    pixels = np.array(Image.open(io.BytesIO(content)))
    assert (pixels[: layout.top, -5:] == 255).all()
    assert (pixels[layout.top - 2, :] == 255).all()


def test_an_image_is_drawn_as_the_model_answers_it(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "new" / "out"
    run(monkeypatch, folder / "own.pt", folder / "image.png", "-o", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "activations.csv", "conv1.png", "layer1.png", "layer2.png", "layer3.png", "relu.png"
    ]  # fmt: skip
    found = rows(out)
    assert list(found) == ["conv1", "relu", "layer1", "layer2", "layer3"]
    assert list(found["relu"].values()) == ["relu", "16", "32", "32", "3", "0.1875", "40"]
    assert list(found["conv1"].values()) == ["conv1", "16", "32", "32", "", "", "40"]

    digits = datasets.load(DIGITS, Path())
    model = planted().eval()
    stem = nn.Sequential(*(model.get_submodule(name) for name in ("conv1", "bn1", "relu")))
    with torch.no_grad():
        answer = stem(shown(folder / "image.png", 32, list(digits.mean), list(digits.std)))[0].numpy()
    pixels = np.array(Image.open(out / "relu.png"))
    _, layout = grid.draw(answer, [c in KILLED for c in range(16)], *head_of(out / "relu.png", found["relu"]))
    for channel in range(16):
        (x, y), (width, height) = layout.corner(channel), layout.tile
        tile = pixels[y : y + height : layout.scale, x : x + width : layout.scale, 0].astype(float)
        low, high = answer[channel].min(), answer[channel].max()
        expected = (answer[channel] - low) * (255 / (high - low) if high > low else 0)
        assert np.abs(tile - expected).max() <= 1, channel  # convolutions may add up in another order
        assert (tuple(pixels[y - 1, x - 1]) == grid.RED) == (channel in KILLED)


def head_of(path: Path, row: dict[str, str]) -> tuple[str, list[str]]:
    """A title and words that take as many lines as the picture's do: its own."""
    zeros = torch.zeros([int(row[name]) for name in ("channels", "height", "width")])
    output = channels.Output(zeros, True, zeros, 0)
    dead = torch.zeros(len(zeros), dtype=torch.bool)
    dead[: int(row["dead_channels"])] = True
    return channels.words(row["layer"], output, dead, int(row["evaluation_images"]), "image.png, 32 x 32")


def test_files_of_an_earlier_call_are_replaced(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("relu.png", "activations.csv", "notes.txt"):
        (tmp_path / name).write_text("old")
    run(monkeypatch, folder / "own.pt", folder / "image.png", "-o", tmp_path, "--layers", "relu", "--limit-eval", 5)
    assert Image.open(tmp_path / "relu.png").format == "PNG"
    assert rows(tmp_path)["relu"]["evaluation_images"] == "5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["activations.csv", "notes.txt", "relu.png"]
    assert (tmp_path / "notes.txt").read_text() == "old"


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_any_kind_of_picture_is_read_as_rgb(mode: str, tmp_path: Path) -> None:
    path = picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), (6, 4), mode)
    read = channels.read_image(path)
    assert (read.dtype, tuple(read.shape)) == (torch.uint8, (3, 4, 6))
    assert np.array_equal(read.permute(1, 2, 0).numpy(), np.array(Image.open(path).convert("RGB")))


# Which model it is


TRIALS = {
    "plain": dataclasses.replace(DIGITS, shortcut="none"),
    "padded": dataclasses.replace(DIGITS, shortcut="A"),
    "head": dataclasses.replace(DIGITS, head=(16, 8), dropout=(0.0, 0.3)),
    "replaced": dataclasses.replace(DIGITS, replace_blocks=("layer2.0",), replaced_skip=False, trainable=("head",)),
    "imagenet": dataclasses.replace(DIGITS, model="resnet18", classes=(3, 5), milestones=(0.5,), image_size=64),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_checkpoint_gives_its_trial_and_its_very_model(name: str, tmp_path: Path) -> None:
    trial = TRIALS[name]
    model = model_for(trial, 2 if trial.classes else 10)
    path = keep(tmp_path / "a.pt", dataclasses.replace(trial, weights="gone.pt"), model)
    found, again = checkpoint.load_model(path)
    assert found == dataclasses.replace(trial, weights="gone.pt")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model.eval()(images))
    assert checkpoint.load_model(path, trial.model)[0] == found


@pytest.mark.parametrize(("head", "dropout"), [((), ()), ((16,), ()), ((16, 8), (0.0, 0.3))])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_without_settings_is_read_by_the_name_of_its_model(
    head: tuple[int, ...], dropout: tuple[float, ...], wrapped: bool, tmp_path: Path
) -> None:
    """Bare, or as checkpoints were before they kept settings."""
    model = model_for(DIGITS, 10)
    surgery.replace_head(model, 7, head, dropout)
    torch.save(
        {"model": model.state_dict(), "progress": {"epoch": 1}} if wrapped else model.state_dict(), tmp_path / "a.pt"
    )
    trial, again = checkpoint.load_model(tmp_path / "a.pt", "resnet8")
    assert (trial.model, trial.head, trial.data) == ("resnet8", head, "cifar10")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model.eval()(images))


@pytest.mark.parametrize(("before", "now"), [(True, "default"), (False, "none")])
def test_a_checkpoint_from_before_compile_was_a_mode_still_loads(
    before: bool, now: str, folder: Path, tmp_path: Path
) -> None:
    state = torch.load(folder / "own.pt", weights_only=True)
    state["settings"]["compile"] = before
    torch.save(state, tmp_path / "old.pt")
    trial, _ = checkpoint.load_model(tmp_path / "old.pt")
    assert (trial.compile, trial.model) == (now, DIGITS.model)


def test_a_checkpoint_without_settings_still_resumes(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / "own.pt", weights_only=True)
    del state["settings"]
    torch.save(state, tmp_path / "old.pt")
    model, longer = model_for(DIGITS, 10), dataclasses.replace(DIGITS, epochs=2)
    progress = checkpoint.restore(tmp_path / "old.pt", Training(model, model, optimizer_for(DIGITS, model)), longer)
    assert progress == {"epoch": 1}
    assert torch.equal(model.state_dict()["bn1.bias"], planted().state_dict()["bn1.bias"])


# What cannot be met


def broken(folder: Path) -> None:
    """What the next test gives in place of a checkpoint or a picture."""
    whole = (folder / "image.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.png").write_bytes(whole[:60] + b"\x00" * 50 + whole[110:])
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    Image.new("L", (8000, 5000)).save(folder / "large.png")
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + whole[24:29]
    (folder / "bomb.png").write_bytes(whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:])
    Image.fromarray(np.full((4, 4), 60000, dtype=np.uint16)).save(folder / "deep.png")
    state = torch.load(folder / "own.pt", weights_only=True)
    torch.save({**state, "settings": {**state["settings"], "colour": "red"}}, folder / "newer.pt")
    torch.save({**state, "settings": {**state["settings"], "model": 5}}, folder / "odd.pt")
    state["model"]["conv1.weight"][:] = float("nan")
    torch.save(state, folder / "diverged.pt")
    state["model"]["conv1.weight"][:] = 3e38
    torch.save(state, folder / "overflows.pt")
    (folder / "a_file").touch()


@pytest.fixture(scope="module")
def spoilt(folder: Path) -> Path:
    broken(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bare.pt", "image.png"], "bare.pt does not say which model it is of; add --model, such as"),
        (["own.pt", "image.png", "--model", "resnet20"], "own.pt is of resnet8, not of resnet20; leave --model out"),
        (["bare.pt", "image.png", "--model", "resnet20"], "bare.pt do not fit this model: layer1.1.conv1.weight"),
        (["bare.pt", "image.png", "--model", "resnet18"], "bare.pt do not fit this model: conv1.weight has shape"),
        (["bare.pt", "image.png", "--model", "resnet9"], "no model 'resnet9'; the nearest is resnet8; choose from: "),
        (["missing.pt", "image.png"], "no weights file FOLDER/missing.pt; check the path"),
        (["image.png", "image.png"], "cannot read weights from FOLDER/image.png"),
        (["newer.pt", "image.png"], "newer.pt are not those of a trial here"),
        (["odd.pt", "image.png"], "odd.pt are not those of a trial here"),
        (["overflows.pt", "image.png"], "the output of conv1 is not finite; "),
        (["diverged.pt", "image.png"], "diverged.pt are no trained model's: conv1.weight holds nan; "),
        (["own.pt", "missing.png"], "no image file FOLDER/missing.png; check the path"),
        (["own.pt", "text.png"], "cannot read FOLDER/text.png as an image ("),
        (["own.pt", "empty.png"], "cannot read FOLDER/empty.png as an image ("),
        (["own.pt", "cut.png"], "cannot read FOLDER/cut.png as an image ("),
        (["own.pt", "noise.png"], "cannot read FOLDER/noise.png as an image ("),
        (["own.pt", "own.pt"], "cannot read FOLDER/own.pt as an image ("),
        (["own.pt", "large.png"], "large.png has 8000 x 5000 pixels; make it smaller, "),
        (["own.pt", "bomb.png"], "cannot read FOLDER/bomb.png as an image ("),
        (["own.pt", "deep.png"], "deep.png has more than 8 bits a pixel and channel (mode I;16); "),
        (["own.pt", "image.png", "--layers", "layer1.0.cnv1"], "'layer1.0.cnv1'; the nearest are: layer1.0.conv1, "),
        (["own.pt", "image.png", "--layers", "relu,"], "no layer ''; "),
        (["own.pt", "image.png", "--limit-eval", "0"], "--limit-eval is 0; give 1 or more"),
        (["own.pt", "image.png", "--limit-eval", "x"], "invalid int value: 'x'; see python -m bench.activations"),
        (["own.pt", "image.png", "--data", "mnist"], "--data is 'mnist'; choose from: cifar10, digits, voc, synthetic"),
        (["own.pt"], "the following arguments are required: image; see"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_one_sentence_and_leaves_nothing(
    words: list[str], said: str, spoilt: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    files = [str(spoilt / word) if word.endswith((".pt", ".png")) else word for word in words]
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *files, "-o", tmp_path / "out")
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert said.replace("FOLDER", str(spoilt)) in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_no_pass_goes_through_is_named(tmp_path: Path) -> None:
    model = model_for(TRIALS["replaced"], 10).eval()
    with pytest.raises(UsageError, match=r"layer2\.0\.downsample takes no part in a pass"):
        channels.outputs(model, torch.rand(1, 3, 32, 32), ["relu", "layer2.0.downsample"])


def test_a_folder_that_cannot_be_written_is_one_sentence(spoilt: Path, monkeypatch: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, spoilt / "own.pt", spoilt / "image.png", "-o", spoilt / "a_file", "--layers", "relu")
    assert capsys.readouterr().err == f"error: cannot write to {spoilt}/a_file: File exists; choose another -o\n"


# Random images, of which a trial has one micro-batch


def test_random_images_are_counted_once_each() -> None:
    trial = channels.evaluation_trial(Trial(model="resnet8", micro_batch=12, image_size=8), "synthetic", None)
    count, batches = channels.evaluation_images(trial, datasets.load(trial, Path()))
    images = torch.cat(list(batches))
    assert count == len(images) == len({image.numpy().tobytes() for image in images}) == 12


@pytest.mark.parametrize(("own", "given", "expected"), [(None, None, 359), (40, None, 40), (40, 100, 100)])
def test_how_many_images_are_looked_at(own: int | None, given: int | None, expected: int) -> None:
    trial = channels.evaluation_trial(dataclasses.replace(DIGITS, limit_eval=own), None, given)
    assert channels.evaluation_images(trial, datasets.load(trial, Path()))[0] == expected


# The command


def test_the_command_ends_as_what_it_starts(folder: Path, tmp_path: Path) -> None:
    words = [
        "-m",
        "reports",
        "activations",
        str(folder / "bare.pt"),
        str(folder / "image.png"),
        "-o",
        str(tmp_path / "out"),
    ]
    refused = python(*words)
    assert is_one_error(refused), refused.stderr
    assert "add --model" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    more = ["--model", "resnet8", "--data", "digits", "--limit-eval", "20", "--layers", "bn1,conv1"]
    done = python(*words, *more)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"2 layers in {tmp_path}/out: a PNG each, and activations.csv\n"
    assert rows(tmp_path / "out")["bn1"] == {
        "layer": "bn1", "channels": "16", "height": "32", "width": "32",
        "dead_channels": "3", "dead_share": "0.1875", "evaluation_images": "20",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "activations: the following arguments are required: CHECKPOINT, IMAGE, -o/--out; see"),
        (["a.pt", "b.png", "-o", "c", "--limit-eval", "0"], "--limit-eval: '0' is no whole number from 1 on"),
    ],
)
def test_a_wrong_word_is_named_without_starting_anything(words: list[str], said: str) -> None:
    done = python("-m", "reports", "activations", *words)
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert not (CHECKOUT / "c").exists()


def test_nothing_but_the_evaluation_images_is_looked_at() -> None:
    """A checkpoint of what was evaluated on VOC, or set images aside, needs neither here."""
    trial = Trial(data="cifar10", evaluate_on="voc", validation=0.2)
    for name in (None, "digits", "voc", "synthetic"):
        shown = channels.evaluation_trial(trial, name, None)
        assert (shown.data, shown.evaluate_on, shown.validation) == (name or "cifar10", "none", 0.0)
