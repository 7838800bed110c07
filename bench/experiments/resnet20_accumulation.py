"""At an equal effective batch, what does gradient accumulation cost in time, save in memory and change in accuracy?

Arms are named micro-batch x accumulation, for one process; more processes multiply the effective batch. The source
trains on a Jetson Orin Nano. Its code accumulates 8 micro-batches of 16; its results are for effective batches of 64
and 256. It uses the same learning rate at every effective batch. It makes no optimizer step for the last, short window
of an epoch, whose gradient is added to the next epoch's; here that window gets its own, exact step. The `scaled` arms
scale the learning rate with the effective batch, with a warm-up (Goyal et al. 2017), from 0.1 at 128 images, the rate
of He et al. 2015.

Without BatchNorm, m x k equals one batch of m*k, to rounding. ResNet-20 has BatchNorm, which normalises within the
micro-batch, so arms with the same effective batch differ.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

# (micro-batch, accumulation): effective batches of 64, 128 and 256, and the smallest batch alone.
SIZES = ((16, 4), (64, 1), (16, 8), (64, 2), (128, 1), (16, 16), (64, 4), (256, 1), (16, 1))
WHERE = "RicoJia, ResNet transfer learning, Orin Nano"


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
        **{f"{micro}x{n}": {"micro_batch": micro, "accumulate": n} for micro, n in SIZES},
        **{f"16x{n}_scaled": {"micro_batch": 16, "accumulate": n, "lr_batch": 128, "warmup": 0.1} for n in (1, 16)},
    },
    # The source gives 160 s with accumulation and 1600 s without for "each batch". Both cannot be times of an epoch.
    published={
        "16x4": Published(train_accuracy=0.91, where=WHERE),
        "16x16": Published(train_accuracy=0.91, where=WHERE),
        "16x1": Published(train_accuracy=0.71, where=WHERE),
    },
    mini={"epochs": 2},
    source="RicoJia, ResNet transfer learning",
    faults="It uses one learning rate at every effective batch (`16x1_scaled`, `16x16_scaled` scale it). The last, "
    "short window of an epoch gets no optimizer step, and its gradient is added to the next epoch's. The printed loss "
    "is divided by the accumulation.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
