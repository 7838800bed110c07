"""How wide must a network of two layers be to tell upright stripes from level ones in noise?

A study of one's own in one file: its arms, its network, its images. From any folder, once installed:

    resbench run PATH/TO/stripes.py --out runs/stripes
    resbench show runs/stripes

Every option works on it as on the suite's own experiments: --lr 0.05,0.2 --repeats 3, --memory-limit, --help.
"""

from __future__ import annotations

import torch
from torch import nn

from bench.data.dataset import DataSet, Split
from bench.experiment import Experiment
from bench.trial import Trial

SIZE = 16

EXPERIMENT = Experiment(
    question="How wide must a network of two layers be to tell upright stripes from level ones in noise?",
    base=Trial(image_size=SIZE, augment="none", epochs=3, micro_batch=32, lr=0.1),
    arms={"narrow": {}, "wide": {}, "wide_slow": {"lr": 0.02}},
)
WIDTHS = {"narrow": 2, "wide": 16, "wide_slow": 16}


def model(trial: Trial, classes: int) -> nn.Module:
    """The network to train: images (N, 3, S, S) float32 -> logits (N, classes)."""
    width = WIDTHS[trial.arm]
    return nn.Sequential(
        nn.Conv2d(3, width, kernel_size=3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def data(trial: Trial) -> DataSet:
    """The images to train and to evaluate on, with the mean and standard deviation of each channel for 0..1."""
    return DataSet(images(1024, seed=0), images(256, seed=1), 2, (0.5,) * 3, (0.25,) * 3, names=("upright", "level"))


def images(count: int, seed: int) -> Split:
    """Half of them of each class: noise in which every other column, or row, is darker."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator).float()
    noise[labels == 0, :, :, ::2] *= 0.6
    noise[labels == 1, :, ::2, :] *= 0.6
    return Split(noise.byte(), labels)
