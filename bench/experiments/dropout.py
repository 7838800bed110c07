"""Does dropout between the stages help ResNet-18 on CIFAR-10, and at which rate?

The arms are rates from 0 to 0.5 in steps of 0.1, after each of the first three stages. `--body-dropout-after` takes
other modules. The source trains for 80 epochs, with dropout "after different layers", without saying which. Its results
are plots.
"""

from bench.experiment import Experiment
from bench.trial import Trial

EXPERIMENT = Experiment(
    question="Does dropout between the stages help ResNet-18 on CIFAR-10, and at which rate?",
    base=Trial(
        model="resnet18_cifar",
        body_dropout_after=("layer1", "layer2", "layer3"),
        data="cifar10",
        image_size=32,
        augment="none",
        epochs=80,
        micro_batch=128,
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        milestones=(0.5, 0.75),
    ),
    arms={f"rate_{rate}": {"body_dropout": rate} for rate in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)},
    mini={
        "model": "resnet20",
        "body_dropout_after": ("layer1", "layer2"),
        "epochs": 4,
        "micro_batch": 64,
        "milestones": (),
    },
    source="ELL 793, assignment 3, part c",
    faults="Its results are plots. It does not give the layers or the settings.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
