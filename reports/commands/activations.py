"""Draw the activations of a checkpoint, and count dead channels.

Writes a PNG for each layer, all its channels as grey tiles, and activations.csv. A channel is dead if its ReLU gives 0
for every image of the evaluation set. Dead channels are counted for layers that are a ReLU or go straight into one; for
others the cell is empty. Of a module that is called several times in a pass, such as a block's `relu`, the last call is
used. The checkpoint is one of a run, or with --model a bare state dict.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from bench.arguments import at_least
from bench.called import module_command

GROUP = "Look at a run"
OPTIONS = ("out", "layers", "model", "data", "data_root", "limit_eval")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file of RUN/checkpoints, or a state dict")
    parser.add_argument("image", metavar="IMAGE", help="a picture, which is resized to what the model sees")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to; files are replaced")
    parser.add_argument(
        "--layers", metavar="A,B,...", help="modules (conv1,relu,layer1,... as far as the model has them)"
    )
    parser.add_argument("--model", metavar="NAME", help="architecture of a bare state dict, such as resnet20")
    parser.add_argument(
        "--data", metavar="NAME", help="evaluation set and its normalisation (default: the checkpoint's; cifar10)"
    )
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="of downloaded data sets (default: data)")
    parser.add_argument("--limit-eval", type=at_least(1), metavar="N", help="evaluation images (default: 512)")


def run(options: argparse.Namespace) -> int:
    values = {name: getattr(options, name) for name in OPTIONS}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    # A process of its own, since `reports` imports no torch.
    command = module_command("bench.activations", *words, "--", options.checkpoint, options.image)
    code = subprocess.run(command, check=False).returncode
    return code if code >= 0 else 128 - code
