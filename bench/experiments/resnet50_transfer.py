"""How accurate is a ResNet-50 with ImageNet weights on CIFAR-10, and then on photographs of the same classes?

The source replaces the head, trains on CIFAR-10 and reports 61% as its final result "on the validation dataset of
PASCAL VOC" for aeroplane, car, bird, cat, dog and frog, without saying for which of its two networks. PASCAL VOC has no
frog. Here the network is evaluated on CIFAR-10's test images and, after the last epoch, on the objects of the five
other classes, each cut out of VOC 2012's val images by its box. That they are cut out is our guess: a photograph there
can show several objects. The network predicts one of all ten classes. So the 61% is shown beside our result, but is not
comparable with it.

The source uses the weights V1 and says that V2 is better. Both are arms, all trainable or the head only, the latter
also with features that are computed once. It does not give its settings for this network; those here are common ones.
See bench/data/voc.py for the classes.
"""

from bench.experiment import Experiment, Published
from bench.trial import Trial

HEAD = {"trainable": ("head",), "batch_norm": "eval"}
ONCE = {**HEAD, "features": "once"}
V2 = {"weights": "IMAGENET1K_V2"}

EXPERIMENT = Experiment(
    question="How accurate is ResNet-50 with ImageNet weights on CIFAR-10, and on VOC's photographs of its classes?",
    base=Trial(
        model="resnet50",
        weights="IMAGENET1K_V1",
        data="cifar10",
        evaluate_on="voc",
        image_size=224,
        augment="flip",
        epochs=5,
        micro_batch=64,
        lr=0.01,
        momentum=0.9,
    ),
    arms={
        "v1_all": {},
        "v1_head": HEAD,
        "v1_features_once": ONCE,
        "v2_all": V2,
        "v2_head": {**V2, **HEAD},
        "v2_features_once": {**V2, **ONCE},
    },
    published={
        "v1_all": Published(
            evaluate_on_accuracy=0.61,
            where="RicoJia, ResNet transfer learning",
            unlike="objects of five classes are cut out by their boxes where the source has six classes, one a frog",
        )
    },
    mini={
        "evaluate_on": "none",
        "image_size": 32,
        "epochs": 1,
        "limit_train": 320,
        "limit_eval": 100,
        "micro_batch": 32,
    },
    mini_arms={
        f"{version}_{part}": {"weights": "none"}
        for version in ("v1", "v2")
        for part in ("all", "head", "features_once")
    },
    source="RicoJia, ResNet transfer learning",
    faults="It evaluates on six classes, one a frog, which PASCAL VOC does not have. It does not give its settings.",
)

if __name__ == "__main__":
    from bench.cli import main

    main(__file__)
