"""Zero-padded, projected or no shortcut: what is it worth in ResNet-34, at 224 pixels and at CIFAR-10's own 32?

The source sets out to build ResNet-34 by hand with the paper's options A and B and stops at an AttributeError; no
figure comes of it. Its data are CIFAR-10 at 224 pixels in batches of 5, mirrored at random, the last short batch left
out (of 50,000 there is none), transforms meant for the device that ran on the CPU, and TensorBoard, which is
`--log-with tensorboard`. Here the transforms are on the device, and the network is models/resnet34.py, which with
option B is torchvision's. The learning rate and the number of epochs are ours.
"""

from bench.experiment import Experiment
from bench.trial import Trial

OPTIONS = ("A", "B", "none")
MINI = {"image_size": 64}

EXPERIMENT = Experiment(
    question="Zero-padded, projected or no shortcut: what is it worth in ResNet-34, at 224 pixels and at 32?",
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
    mini={"data": "digits", "epochs": 1, "limit_train": 300, "limit_eval": 100, "precision": "bf16"},
    mini_arms={f"{option}_224": MINI for option in OPTIONS},
    source="He et al. 2015, section 3.3; a notebook",
    faults="The notebook's block has no attribute downsample and shares one convolution and BatchNorm between its two "
    "places; nothing was trained.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
