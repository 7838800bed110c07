"""Which augmentation helps on a small CIFAR-10, and what does it cost?

`none` and nine of the source, each alone, on 5,000 training images, the classes in balance: the source calls its set
tiny and gives no size, no strengths and no settings; its results are plots. Strengths are in bench/data/augment.py.
All run in batches on the device, drawn for each image anew in each epoch; but `resize` and `center_crop` draw nothing,
and make the same of an image each time. `python -m launch sheet augmentation` draws what each does; images/s
beside accuracy are what each costs and brings.
"""

from bench.experiment import Experiment
from bench.trial import Trial

ARMS = ("none", "rotation", "flip", "color_jitter", "resized_crop", "resize", "center_crop", "cutout", "blur")

EXPERIMENT = Experiment(
    question="Which augmentation helps on a small CIFAR-10, and what does it cost?",
    base=Trial(
        model="resnet18_cifar",
        data="cifar10",
        limit_train=5_000,
        image_size=32,
        epochs=30,
        micro_batch=128,
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        milestones=(0.5, 0.75),
    ),
    arms={arm: {"augment": arm} for arm in (*ARMS, "salt_pepper")},
    mini={
        "model": "resnet20",
        "data": "digits",
        "limit_train": 500,
        "epochs": 4,
        "micro_batch": 32,
        "milestones": (),
        "precision": "bf16",
    },
    source="ELL 793, assignment 3, part c",
    faults="Plots alone, without the size of the set, strengths, settings or spread.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
