"""How accurate is ResNet-18 with a stem for small images on CIFAR-10, from random weights?

The stem is a 3x3 convolution without pooling. The source gives the network, 50 epochs and its result. It does not show
its learning rate and augmentation; those here are common for this network. Its batch is 128: "31200/50000 (100%)" in
its log is the index of the last batch, 390, times the 80 images in it.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

EXPERIMENT = Experiment(
    question="How accurate is ResNet-18 with a 3x3 stem on CIFAR-10, from random weights?",
    base=Trial(
        model="resnet18_cifar",
        data="cifar10",
        image_size=32,
        augment="crop_flip",
        epochs=50,
        micro_batch=128,
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        milestones=(0.5, 0.75),
    ),
    arms={"scratch": {}},
    published={
        "scratch": Published(train_accuracy=0.8929, eval_accuracy=0.8735, where="ELL 793, assignment 3, part a"),
    },
    mini={"image_size": 16, "epochs": 2, "micro_batch": 64, "milestones": ()},
    source="ELL 793, assignment 3, part a",
    faults="It does not give its settings. Its log counts 31,200 of 50,000 images as 100%.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
