"""Does a deeper network train worse, and do skips prevent that?

He et al. 2015, figure 6: on CIFAR-10, a plain network of 56 layers has a higher training error than one of 20; with
skips, the deeper one has the lower error. The arms are networks with and without skips at each depth. Shortcuts are
zero-padded, so that both have the same parameters. Settings are those of section 4.2: 64,000 steps of 128 images, with
the learning rate cut at 32,000 and 48,000; 164 epochs are 64,124 steps. The paper sets 5,000 images aside to choose
settings, and trains on all images in the end.

Its test errors are those of the residual networks (table 6); for the plain ones it has only the figure, without
numbers. The preset mini has a lower learning rate and a warm-up: in its 184 steps the deep networks learn little at
0.1.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

DEPTHS = (20, 32, 44, 56)
WHERE = "He et al. 2015, table 6"

EXPERIMENT = Experiment(
    question="Does a deeper network train worse, and do skips prevent that?",
    base=Trial(
        shortcut="A",
        data="cifar10",
        image_size=32,
        augment="crop_flip",
        epochs=164,
        micro_batch=128,
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        milestones=(0.5, 0.75),
    ),
    arms={
        **{f"plain_{depth}": {"model": f"resnet{depth}", "shortcut": "none"} for depth in DEPTHS},
        **{f"residual_{depth}": {"model": f"resnet{depth}"} for depth in DEPTHS},
    },
    published={
        "residual_20": Published(eval_accuracy=0.9125, where=WHERE),
        "residual_32": Published(eval_accuracy=0.9249, where=WHERE),
        "residual_44": Published(eval_accuracy=0.9283, where=WHERE),
        "residual_56": Published(eval_accuracy=0.9303, where=WHERE),
    },
    mini={"epochs": 8, "micro_batch": 64, "lr": 0.02, "warmup": 0.1, "milestones": ()},
    source="He et al. 2015, figure 6",
    faults="None known. The plain networks' errors are in a figure only.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
