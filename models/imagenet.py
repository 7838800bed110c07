"""torchvision's residual networks: with random weights, published weights, or weights from a file."""

import http.client
import os
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from models import ModelError
from models.names import TORCHVISION
from models.weights import head_classes, load, read_state_dict


def network(name: str, weights: str = "none") -> nn.Module:
    """torchvision's network of this name: (N, 3, H, W) -> (N, classes), made for 224x224 pixels.

    weights: "none"; a name that torchvision publishes for this network ("IMAGENET1K_V1"), taken from torch.hub's cache
    or downloaded into it; or the path of a state dict (see `weights.read_state_dict`). The head has the classes of the
    weights, 1000 for "none"; `surgery.replace_head` changes them. From a file whose head is a Sequential, the backbone
    is loaded and the head is a fresh Linear (see `weights.load`).
    Raises ModelError for an unknown name, and if the weights cannot be loaded. Random ones never replace them.
    """
    if name not in TORCHVISION:
        raise ModelError(f"no ImageNet model {name!r}; choose from: {', '.join(TORCHVISION)}")
    build = getattr(torchvision.models, name)
    if weights == "none":
        return build()
    path = _weights_path(name, weights)
    state = read_state_dict(path)
    model = build(num_classes=head_classes(state))
    load(model, state, path)
    return model


def _weights_path(name: str, weights: str) -> Path:
    published: dict[str, Any] = {entry.name: entry for entry in torchvision.models.get_model_weights(name)}
    if weights in published:
        return _cached(published[weights].url)
    if not os.path.isfile(weights):
        raise ModelError(
            f"no weights {weights!r} for {name}; choose from: none, {', '.join(published)}, or the path of a state dict"
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
