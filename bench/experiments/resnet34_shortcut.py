"""Which shortcut is best in ResNet-34, zero-padded, projected or none, at 224 pixels and at CIFAR-10's own 32?

The source tries to build ResNet-34 by hand with the paper's options A and B and stops at an AttributeError, so it has
no figures. It uses CIFAR-10 at 224 pixels in batches of 5, mirrored at random. It drops a short last batch (of 50,000
images there is none), and logs to TensorBoard (here `--log-with tensorboard`). Its transforms were meant for the device
but ran on the CPU; ours run on the device. The network is models/resnet34.py, which with option B equals torchvision's.
The learning rate and the number of epochs are ours.
"""

from bench.experiment import Experiment
from bench.trial import Trial

OPTIONS = ("A", "B", "none")

EXPERIMENT = Experiment(
    question="Which shortcut is best in ResNet-34, zero-padded, projected or none, at 224 pixels and at 32?",
    base=Trial(
        model="resnet34_handbuilt",
        data="cifar10",
        augment="flip",
        epochs=5,
        micro_batch=5,
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
    ),
    arms={f"{option}_{size}": {"shortcut": option, "image_size": size} for size in (224, 32) for option in OPTIONS},
    mini={"epochs": 1, "limit_train": 300, "limit_eval": 100},
    mini_arms={f"{option}_224": {"image_size": 64} for option in OPTIONS},
    source="He et al. 2015, section 3.3; a notebook",
    faults="The notebook's block has no attribute downsample, and uses one convolution and one BatchNorm twice. "
    "Nothing was trained.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
