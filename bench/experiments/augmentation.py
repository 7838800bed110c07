"""Which augmentation helps on a small CIFAR-10, and what does it cost?

The arms are `none` and nine augmentations of the source, one each, on 5,000 training images with the classes in
balance. The source calls its data set tiny. It gives no size, strengths or settings, and its results are plots. Our
strengths are in bench/data/augment.py. All augmentations run in batches on the device. They are random for each image
and epoch, except `resize` and `center_crop`. `python -m launch sheet augmentation` draws what each one does. Compare
accuracy (the benefit) with images/s (the cost).
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
    mini={"model": "resnet20", "limit_train": 500, "epochs": 4, "micro_batch": 32, "milestones": ()},
    source="ELL 793, assignment 3, part c",
    faults="Its results are plots without the data set's size, strengths, settings or spread.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
