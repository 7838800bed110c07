"""How much faster are more processes, at a fixed effective batch (strong scaling) and at a fixed batch each (weak)?

In the `strong` arms all processes share one micro-batch: with `--processes 4` each has a quarter of it. The training is
the same for any number of processes that divides the micro-batch, except for BatchNorm, which normalises within each
process's part. In the `weak` arms each process has a micro-batch of its own, and the effective batch grows. In each
optimizer step, ResNet-20 at 32 pixels shares 1 MiB of gradients, a trainable ResNet-152 222 MiB, and one with only its
head trainable 80 KiB. Run it as `python -m launch run process_scaling --processes 1,2,4`.

Weights are random, since times do not depend on them. `--bucket-mib`, `--gradient-compression bf16` and `--accumulate`
change what is shared, and how often.
"""

from bench.experiment import Experiment
from bench.trial import Trial

RESNET152 = {"model": "resnet152", "image_size": 224, "augment": "flip", "lr": 0.01}
FROZEN = {**RESNET152, "trainable": ("head",), "batch_norm": "eval", "micro_batch": 64}
TRAINABLE = {**RESNET152, "micro_batch": 32}
NETWORKS = {"resnet20": {}, "resnet152_frozen": FROZEN, "resnet152_trainable": TRAINABLE}

EXPERIMENT = Experiment(
    question="How much faster are more processes, at a fixed effective batch and at a fixed batch each?",
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
    arms={f"{name}_{scaling}": network for name, network in NETWORKS.items() for scaling in ("strong", "weak")},
    shared_batch=tuple(f"{name}_strong" for name in NETWORKS),
    mini={"epochs": 1, "limit_windows": 6, "limit_eval": 100},
    mini_arms={f"{name}_{scaling}": {"image_size": 32} for name in NETWORKS for scaling in ("strong", "weak")},
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
