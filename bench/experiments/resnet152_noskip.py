"""How much accuracy does a pretrained ResNet-152 lose when five of its blocks lose their skip connection?

The source reports 10%, which is chance, and explains it by the missing skips. But its loop has the optimizer of another
model, so the model without skips is never updated (`as_published` repeats this). `corrected` does train it. `control`
replaces the same five blocks by fresh ones with skips: this separates the loss of the skips from the loss of the
pretrained weights. `baseline` is the unchanged backbone.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

BLOCKS = ("layer1.2", "layer2.5", "layer3.10", "layer3.20", "layer3.30")
MINI_BLOCKS = ("layer1.1", "layer2.1", "layer3.1")

EXPERIMENT = Experiment(
    question="How much accuracy does a pretrained ResNet-152 lose when five of its blocks lose their skip connection?",
    base=Trial(
        model="resnet152",
        weights="IMAGENET1K_V1",
        replace_blocks=BLOCKS,
        replaced_skip=False,
        trainable=("head", *BLOCKS),
        batch_norm="train",
        data="cifar10",
        image_size=224,
        augment="flip",
        epochs=5,
        micro_batch=64,
        lr=0.01,
        momentum=0.9,
    ),
    arms={
        "as_published": {"optimizer_holds": "another_model"},
        "corrected": {},
        "control": {"replaced_skip": True},
        "baseline": {"replace_blocks": (), "replaced_skip": True, "trainable": ("head",)},
    },
    # The baseline is the source's frozen backbone, see resnet152_frozen.
    published={
        "as_published": Published(
            train_accuracy=0.1012,
            eval_accuracy=0.1001,
            where="ATML_PA0, Task_1.ipynb",
            train_accuracies=(0.1004, 0.1007, 0.1003, 0.1008, 0.1012),
            eval_accuracies=(0.1002, 0.1018, 0.1019, 0.1017, 0.1001),
        ),
        "baseline": Published(
            train_accuracy=0.8361,
            eval_accuracy=0.8434,
            epoch_time_s=540.0,
            where="ATML_PA0, Task_1.ipynb",
            train_accuracies=(0.7808, 0.8170, 0.8228, 0.8339, 0.8361),
            eval_accuracies=(0.8004, 0.8348, 0.8364, 0.8324, 0.8434),
        ),
    },
    mini={
        "model": "resnet20",
        "weights": "none",
        "replace_blocks": MINI_BLOCKS,
        "trainable": ("head", *MINI_BLOCKS),
        "image_size": 32,
        "epochs": 2,
    },
    source="ATML_PA0, Task_1.ipynb",
    faults="Its loop has the optimizer of another model, so the model without skips never trains and its 10% is chance "
    "(`as_published` repeats this, `corrected` trains the model, `control` has fresh blocks with skips).",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
