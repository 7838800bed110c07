"""How much accuracy do ImageNet weights add to ResNet-18 on CIFAR-10, and how much is lost if most are frozen?

The arms: random weights; ImageNet's weights, all trainable; and two that freeze the first seven children of the network
(conv1, bn1, relu, maxpool, layer1, layer2, layer3) below heads of several layers, as the source prints them: `config1`
512-128-10 and `config2` 512-256-128-128-64-32-10, with dropout after each hidden layer, in config2 not after the last.

The source reports training, validation and test accuracy. It does not give its split, learning rate, batch and image
size. Here a fifth of the training images is set aside, images stay at 32 pixels, and the settings are common ones. Its
training accuracies (98.6, 99.5, 99.0, 99.5%) are those of the final network; ours are measured during the last epoch,
so they are not compared. It does not mention BatchNorm in the frozen part, which is in training mode here.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

WHERE = "ELL 793, assignment 3, part b"
FROZEN = {"trainable": ("layer4", "head")}


def _published(validation: float, test: float) -> Published:
    return Published(validation_accuracy=validation, eval_accuracy=test, where=WHERE)


EXPERIMENT = Experiment(
    question="How much accuracy do ImageNet weights add to ResNet-18 on CIFAR-10, and how much does freezing cost?",
    base=Trial(
        model="resnet18",
        weights="IMAGENET1K_V1",
        data="cifar10",
        validation=0.2,
        image_size=32,
        augment="none",
        epochs=30,
        micro_batch=64,
        lr=0.01,
        momentum=0.9,
    ),
    arms={
        "random": {"weights": "none"},
        "pretrained_all": {},
        "config1": {**FROZEN, "head": (128,), "dropout": (0.3,)},
        "config2": {**FROZEN, "head": (256, 128, 128, 64, 32), "dropout": (0.2, 0.2, 0.2, 0.2, 0.0)},
    },
    published={
        "random": _published(0.739, 0.738),
        "pretrained_all": _published(0.811, 0.804),
        "config1": _published(0.792, 0.790),
        "config2": _published(0.791, 0.792),
    },
    mini={"weights": "none", "epochs": 2},
    source=WHERE,
    faults='Its "seven layers" are seven children of the network, with 13 of its 18 layers. It gives the training time '
    "of 50 epochs where the text says 30. It does not give the split and the settings.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
