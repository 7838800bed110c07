"""Write a run as TensorBoard's event files, a folder for each launch.

Losses, accuracies, throughput and memory by epoch, and by measured step under `steps/`; settings that vary are its
hyperparameters. Needs the extra `tensorboard`. A second time replaces the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out folder of a run")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where to (RUN/tensorboard)")


def run(options: argparse.Namespace) -> None:
    from reports import tensorboard

    out = options.out or options.run / "tensorboard"
    print(f"{tensorboard.write(options.run, out)} launches; look at them with: tensorboard --logdir {out}")
