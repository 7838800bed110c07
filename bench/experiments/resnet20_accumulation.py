"""At an equal effective batch, what does gradient accumulation cost in time, save in memory and change in accuracy?

Arms are named micro-batch x accumulation, for one process; further processes multiply the effective batch. The source
trains on a Jetson Orin Nano; its code accumulates 8 micro-batches of 16, and it reports simulated batches of 64 and
256. It keeps one learning rate at every effective batch, and never steps on an epoch's last, short window, whose
gradient leaks into the next epoch; here that window is stepped on, exactly. The `scaled` arms scale the learning rate
with the effective batch and warm it up (Goyal et al. 2017), from the rate of 0.1 at 128 images that He et al. 2015 use.

Without BatchNorm, m x k is one batch of m*k, to rounding. ResNet-20 has BatchNorm, which normalises within the
micro-batch: arms of one effective batch differ in that.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

SCALED = {"lr_batch": 128, "warmup": 0.1}


def _grid(micro_batch: int, accumulate: int) -> dict[str, int]:
    return {"micro_batch": micro_batch, "accumulate": accumulate}


EXPERIMENT = Experiment(
    question="At an equal effective batch, what does accumulation cost in time, save in memory, change in accuracy?",
    base=Trial(
        model="resnet20",
        shortcut="B",
        data="cifar10",
        image_size=32,
        augment="crop_flip",
        epochs=50,
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        milestones=(0.4, 0.8),
        gamma=0.1,
    ),
    arms={
        "16x4": _grid(16, 4),
        "64x1": _grid(64, 1),
        "16x8": _grid(16, 8),
        "64x2": _grid(64, 2),
        "128x1": _grid(128, 1),
        "16x16": _grid(16, 16),
        "64x4": _grid(64, 4),
        "256x1": _grid(256, 1),
        "16x1": _grid(16, 1),
        "16x1_scaled": {**_grid(16, 1), **SCALED},
        "16x16_scaled": {**_grid(16, 16), **SCALED},
    },
    # The source's times (160 s accumulated, 1600 s not) are "each batch" in its words and cannot be epochs of both.
    published={
        "16x4": Published(train_accuracy=0.91, where="RicoJia, ResNet transfer learning, Orin Nano"),
        "16x16": Published(train_accuracy=0.91, where="RicoJia, ResNet transfer learning, Orin Nano"),
        "16x1": Published(train_accuracy=0.71, where="RicoJia, ResNet transfer learning, Orin Nano"),
    },
    mini={"data": "digits", "epochs": 2, "precision": "bf16"},
    source="RicoJia, ResNet transfer learning",
    faults="One learning rate at every effective batch (`16x1_scaled`, `16x16_scaled` scale it); an epoch's last, "
    "short window is never stepped on and leaks into the next; the loss printed is divided by the accumulation.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
