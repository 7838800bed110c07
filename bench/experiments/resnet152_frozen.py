"""How accurate is a linear head on a frozen ResNet-152 on CIFAR-10, and how long is an epoch?

The source freezes every parameter but leaves the backbone in training mode. So BatchNorm normalises with the statistics
of each batch, and its running statistics keep changing (`as_published`). In `bn_eval` the backbone is fully frozen:
nothing in it changes, and its output for an image does not depend on the other images of the batch. `features_once`
uses that: it computes what the head takes once for each image and its mirror image, and trains the head on that.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

EXPERIMENT = Experiment(
    question="How accurate is a linear head on a frozen ResNet-152, and how long is an epoch?",
    base=Trial(
        model="resnet152",
        weights="IMAGENET1K_V1",
        trainable=("head",),
        data="cifar10",
        image_size=224,
        augment="flip",
        epochs=5,
        micro_batch=64,
        lr=0.01,
        momentum=0.9,
    ),
    arms={
        "as_published": {"batch_norm": "train"},
        "bn_eval": {"batch_norm": "eval"},
        "features_once": {"batch_norm": "eval", "features": "once"},
    },
    # "~9 minutes per epoch" on an unnamed Colab GPU.
    published={
        "as_published": Published(
            train_accuracy=0.8361,
            eval_accuracy=0.8434,
            epoch_time_s=540.0,
            where="ATML_PA0, Task_1.ipynb",
            train_accuracies=(0.7808, 0.8170, 0.8228, 0.8339, 0.8361),
            eval_accuracies=(0.8004, 0.8348, 0.8364, 0.8324, 0.8434),
        ),
    },
    mini={"model": "resnet20", "weights": "none", "image_size": 32, "epochs": 2},
    source="ATML_PA0, Task_1.ipynb",
    faults="The frozen backbone is in training mode, so BatchNorm's running statistics keep changing (`as_published` "
    "repeats this, `bn_eval` corrects it). The printed loss is a sum of batch means divided by the number of images.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
