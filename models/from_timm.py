"""timm's residual networks: with random weights, published weights, or weights from a file. Imports timm.

Their modules have torchvision's names (conv1, bn1, layer1, ..., fc), so that `surgery` works on them.
"""

import importlib.util
import os
from pathlib import Path

from torch import nn

from models import ModelError
from models.names import IMAGENET_STATISTICS, TIMM
from models.nearest import nearest
from models.weights import head_classes, load, read_state_dict

# timm's modules whose networks end in a linear `fc`, and have no BatchNorm with an activation in it.
MODULES = ("resnet", "res2net", "resnest")
WEIGHTS_FILE = "model.safetensors"


def network(name: str, weights: str = "none") -> nn.Module:
    """timm's network of a name such as "timm/resnet50d": (N, 3, H, W) -> (N, classes), made for 224x224 pixels.

    weights: "none"; a tag that timm publishes for this network ("ra2_in1k"), taken from Hugging Face's cache or
    downloaded into it; or the path of a state dict. All else as in `imagenet.network`.
    Raises ModelError, as `check`, and if the weights cannot be loaded. Random ones never replace them.
    """
    check(name, weights)
    import timm

    bare = name.removeprefix(TIMM)
    if weights == "none":
        return timm.create_model(bare)
    path = _published(bare, weights) if weights in tags(bare) else Path(weights)
    state = read_state_dict(path)
    model = timm.create_model(bare, num_classes=head_classes(state))
    load(model, state, path)
    return model


def check(name: str, weights: str = "none") -> None:
    """Raises ModelError if timm is not installed, or has no such residual network or weights."""
    if importlib.util.find_spec("timm") is None:
        raise ModelError(f"{name} needs timm, which is not installed; pip install timm, or choose another --model")
    import timm

    bare = name.removeprefix(TIMM)
    known = [each for module in MODULES for each in timm.list_models(module=module)]
    if bare not in known:
        (close,) = nearest(bare, known, cutoff=0)
        raise ModelError(
            f"no model {name!r}: timm {timm.__version__} has no such residual network; the nearest is {TIMM}{close}"
        )
    if weights == "none" or os.path.isfile(weights):
        return
    published = tags(bare)
    if weights not in published:
        choose = ", ".join(["none", *published])
        raise ModelError(f"no weights {weights!r} for {name}; choose from: {choose}, or the path of a state dict")
    config = timm.get_pretrained_cfg(f"{bare}.{weights}")
    if (tuple(config.mean), tuple(config.std)) != IMAGENET_STATISTICS:
        raise ModelError(
            f"the weights {weights} of {name} are for images normalised by {config.mean}, not by ImageNet's mean as "
            f"here; choose others"
        )


def tags(bare: str) -> list[str]:
    """The weights that timm publishes for a network, by their tags."""
    from timm.models import list_pretrained

    return [name.partition(".")[2] for name in list_pretrained(f"{bare}.*")]


def _published(bare: str, tag: str) -> Path:
    """The file of published weights in Hugging Face's cache ($HF_HOME). If it is not there, downloads it."""
    import timm
    from huggingface_hub import hf_hub_download

    config = timm.get_pretrained_cfg(f"{bare}.{tag}")
    try:
        return Path(hf_hub_download(config.hf_hub_id, config.hf_hub_filename or WEIGHTS_FILE))
    except Exception as error:  # of the hub's client, of HTTP, and of the disk
        raise ModelError(
            f"cannot download {WEIGHTS_FILE} from https://huggingface.co/{config.hf_hub_id} "
            f"({type(error).__name__}); get it on another machine, or give --weights PATH"
        ) from error
