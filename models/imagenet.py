"""torchvision's residual networks: with random weights, published weights, or weights from a file."""

import http.client
import os
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from models import ModelError
from models.weights import head_classes, load, read_state_dict

DEPTHS = (18, 34, 50, 101, 152)


def resnet(depth: int, weights: str = "none") -> nn.Module:
    """torchvision's ResNet-`depth`: (N, 3, H, W) -> (N, classes), made for 224x224 pixels.

    weights: "none"; a name that torchvision publishes for this depth ("IMAGENET1K_V1"), taken from torch.hub's cache or
    downloaded into it; or the path of a state dict (see `weights.read_state_dict`). The head has the classes of the
    weights, 1000 for "none"; `surgery.replace_head` changes them. From a file whose head is a Sequential, the backbone
    is loaded and the head is a fresh Linear (see `weights.load`).
    Raises ModelError for an unknown depth or name, and if the weights cannot be loaded. Random ones never replace them.
    """
    if depth not in DEPTHS:
        raise ModelError(f"no ImageNet ResNet of depth {depth}; choose from: {', '.join(map(str, DEPTHS))}")
    build = getattr(torchvision.models, f"resnet{depth}")
    if weights == "none":
        return build()
    path = _weights_path(depth, weights)
    state = read_state_dict(path)
    model = build(num_classes=head_classes(state))
    load(model, state, path)
    return model


def _weights_path(depth: int, weights: str) -> Path:
    published: dict[str, Any] = {entry.name: entry for entry in torchvision.models.get_model_weights(f"resnet{depth}")}
    if weights in published:
        return _cached(published[weights].url)
    if not os.path.isfile(weights):
        raise ModelError(
            f"no weights {weights!r} for ResNet-{depth}; choose from: none, {', '.join(published)}, "
            "or the path of a state dict"
        )
    return Path(weights)


def _cached(url: str) -> Path:
    """The file of `url` in torch.hub's cache ($TORCH_HOME). If it is not there, downloads it and checks its hash."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if path.is_file():
        return path
    sha256_start = path.stem.rpartition("-")[2]  # torchvision's files are named resnet18-f37072fd.pth
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256_start, progress=False)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise ModelError(
            f"cannot download {path.name} from {url} ({error}); "
            f"get it on another machine and put it at {path}, or give --weights PATH"
        ) from error
    return path
