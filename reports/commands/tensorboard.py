"""Write a run as TensorBoard's event files.

Each launch has a folder. They have losses, accuracies, throughput and memory by epoch, and under `steps/` by measured
step; settings that vary are hyperparameters. Needs the extra `tensorboard`. Files of an earlier call are replaced.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import run_folder

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_folder, metavar="RUN", help="the --out folder of a run")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where to (default: RUN/tensorboard)")


def run(options: argparse.Namespace) -> None:
    from reports import tensorboard

    out = options.out or options.run / "tensorboard"
    print(f"{tensorboard.write(options.run, out)} launches; look at them with: tensorboard --logdir {out}")
