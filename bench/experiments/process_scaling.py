"""What do more processes bring: at a fixed effective batch (strong scaling), and at a fixed batch each (weak scaling)?

In the `strong` arms all processes share one micro-batch: `--processes 4` gives each a quarter of it, and the training
is the same one at any number of processes that divides it, but for BatchNorm, which normalises within each one's part.
In the `weak` arms each process has a micro-batch of its own, and the effective batch grows. ResNet-20 at 32 pixels
shares 1 MiB of gradients in each window, a ResNet-152 that trains as a whole 222 MiB, and one that is frozen but for
its head 80 KiB. Run it as `python -m launch run process_scaling --processes 1,2,4`.

Weights are random, on which no time depends. `--bucket-mib`, `--gradient-compression bf16` and `--accumulate` change
what is shared, and how often.
"""

from bench.experiment import Experiment
from bench.trial import Trial

RESNET152 = {"model": "resnet152", "image_size": 224, "augment": "flip", "lr": 0.01}
FROZEN = {**RESNET152, "trainable": ("head",), "batch_norm": "eval", "micro_batch": 64}
TRAINABLE = {**RESNET152, "micro_batch": 32}

EXPERIMENT = Experiment(
    question="What do more processes bring, at a fixed effective batch and at a fixed batch each?",
    base=Trial(
        model="resnet20",
        data="cifar10",
        image_size=32,
        augment="crop_flip",
        epochs=2,
        micro_batch=128,
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
    ),
    arms={
        "resnet20_strong": {},
        "resnet20_weak": {},
        "resnet152_frozen_strong": FROZEN,
        "resnet152_frozen_weak": FROZEN,
        "resnet152_trainable_strong": TRAINABLE,
        "resnet152_trainable_weak": TRAINABLE,
    },
    shared_batch=("resnet20_strong", "resnet152_frozen_strong", "resnet152_trainable_strong"),
    mini={"data": "digits", "epochs": 1, "limit_windows": 6, "limit_eval": 100, "precision": "bf16"},
    mini_arms={
        arm: {"image_size": 32}
        for arm in (
            "resnet152_frozen_strong",
            "resnet152_frozen_weak",
            "resnet152_trainable_strong",
            "resnet152_trainable_weak",
        )
    },
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
