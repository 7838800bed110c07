"""Draw what a checkpoint's layers answer to an image, and count their dead channels.

Writes a PNG for each layer, all its channels as grey tiles, and activations.csv. A channel is dead if its ReLU lets
nothing of it through on any image of the evaluation set: counted where a layer's output is a ReLU's or goes straight
into one, and else left empty. A module that is called more than once in a pass, as a block's `relu` is, stands for its
last call. The checkpoint is one of a run's, or with --model a bare state dict.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from reports.arguments import at_least

OPTIONS = ("out", "layers", "model", "data", "data_root", "limit_eval")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file of RUN/checkpoints, or a state dict")
    parser.add_argument("image", metavar="IMAGE", help="a picture, which is resized to what the model sees")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to; files are replaced")
    parser.add_argument("--layers", metavar="A,B,...", help="modules (conv1,relu,layer1,..., those there are)")
    parser.add_argument("--model", metavar="NAME", help="architecture of a file that does not say it, such as resnet20")
    parser.add_argument(
        "--data", metavar="NAME", help="evaluation set and its normalisation (the checkpoint's; cifar10)"
    )
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="of downloaded data sets (data)")
    parser.add_argument("--limit-eval", type=at_least(1), metavar="N", help="evaluation images (512, or its fewer)")


def run(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in OPTIONS}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    # Reports import no torch, which this takes.
    command = [sys.executable, "-m", "bench.activations", *words, "--", options.checkpoint, options.image]
    code = subprocess.run(command, check=False).returncode
    return code if code >= 0 else 128 - code
