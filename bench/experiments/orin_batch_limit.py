"""Which of two networks crashes a Jetson Orin Nano with 64 images, and which plan fits its memory?

The source trains on an Orin Nano of 8 GB (it says 7.4). 64 images crash it and 16 fit. With accumulation, batches of 64
and 256 reach 91% train accuracy; 16 without accumulation stops at 71%. The source shows two networks, its own ResNet-20
for 32x32 pixels and torchvision's ResNet-50, and does not say which one crashed. The arms are both networks at both
batches, and for each the plan that
`python -m launch plan orin_batch_limit --effective-batch 256 --memory-limit orin-nano-8gb` chooses.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

WHERE = "RicoJia, ResNet transfer learning, Orin Nano"
RESNET50 = {
    "model": "resnet50",
    "image_size": 224,
    "augment": "flip",
    "weight_decay": 0.0,
    "milestones": (),
    "lr": 0.01,
}

EXPERIMENT = Experiment(
    question="Which network crashes an 8 GB Orin with 64 images, ResNet-20 or ResNet-50, and which plan fits?",
    base=Trial(
        model="resnet20",
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
        "resnet20_64": {"micro_batch": 64},
        "resnet20_16": {"micro_batch": 16},
        "resnet20_planned": {"micro_batch": 256},
        "resnet50_64": {**RESNET50, "micro_batch": 64},
        "resnet50_16": {**RESNET50, "micro_batch": 16},
        "resnet50_planned": {**RESNET50, "micro_batch": 32, "accumulate": 8},
    },
    published={"resnet20_16": Published(train_accuracy=0.71, where=WHERE)},
    mini={"epochs": 1, "limit_windows": 5, "limit_eval": 100},
    mini_arms={arm: {"image_size": 64} for arm in ("resnet50_64", "resnet50_16", "resnet50_planned")},
    source="RicoJia, ResNet transfer learning",
    faults="It does not say which of its two networks crashed. ResNet-20 takes only a tenth of a GiB at 64 images.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
