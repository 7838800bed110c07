"""Trial: every setting of one launch, checked, and the numbers that follow from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Fixed

from bench.errors import UsageError
from models import ModelError, names
from models.names import OWN

DATA = ("cifar10", "digits", "voc", "synthetic", OWN)
FOLDER = "folder:"  # of data: what stands before a path
# In bench/data/augment.py.
BATCHED = Literal["rotation", "color_jitter", "resized_crop", "resize", "center_crop", "cutout", "blur", "salt_pepper"]


@dataclass(frozen=True)
class Trial:
    """Every setting of one launch. Two trials with equal settings have equal `key()`s on any machine."""

    experiment: Annotated[str, Fixed] = ""
    """The file in bench/experiments/ that this trial belongs to, or a file of the user's own."""
    experiment_file: Annotated[str, Fixed] = ""
    """The path of that file of the user's own; empty: bench/experiments/ has the experiment."""
    experiment_hash: Annotated[str, Fixed] = ""
    """Hash of what that file of the user's own holds."""
    arm: Annotated[str, Fixed] = ""
    """The variant of the experiment that the other settings start from."""
    repeat: int = 0
    """Which repetition of the same settings this is."""

    model: str = "resnet20"
    """Architecture: a CIFAR ResNet (resnet20, ..., resnet18_cifar), torchvision's (resnet18, ..., resnext50_32x4d,
    wide_resnet50_2, regnet_y_400mf, ...), timm's (timm/resnet50d, ...), resnet34_handbuilt, which can have any of the
    shortcuts, or own: what the experiment's own file builds."""
    shortcut: Literal["A", "B", "none"] = "B"
    """Shortcut of our own models: zero-padded channels (A), 1x1 projection (B), or a plain network."""
    weights: str = "none"
    """Starting weights: none, a name that torchvision (IMAGENET1K_V1) or timm (a1_in1k) publishes for the model, or
    the path of a state dict."""
    replace_blocks: tuple[str, ...] = ()
    """Blocks to replace by fresh, untrained ones, such as layer3.10."""
    replaced_skip: bool = True
    """Whether the replaced blocks still add their identity."""
    trainable: tuple[str, ...] = ("all",)
    """What trains: all, head, or module names; the rest is frozen."""
    batch_norm: Literal["train", "eval"] = "train"
    """BatchNorm in the frozen part: in train mode its running statistics change, in eval mode nothing does."""
    features: Literal["each_epoch", "once"] = "each_epoch"
    """When a frozen backbone computes what the head takes: in each epoch, or once, before the first, for each image and
    its mirror image. The results are the same."""
    head: tuple[int, ...] = ()
    """Widths of the head's hidden layers; empty for a linear head."""
    dropout: tuple[float, ...] = ()
    """Dropout after each hidden layer of the head: one rate for all of them, or one each."""
    body_dropout: float = 0.0
    """Dropout after each module of --body-dropout-after."""
    body_dropout_after: tuple[str, ...] = ()
    """Modules of the body, such as layer2, whose output goes through dropout at the rate of --body-dropout."""
    optimizer_holds: Literal["this_model", "another_model"] = "this_model"
    """Whose parameters the optimizer updates. another_model repeats a published mistake."""

    data: str = "cifar10"
    """Data set: cifar10, digits (scikit-learn's handwritten ones), voc (the objects of five CIFAR-10 classes cut out of
    PASCAL VOC 2012), synthetic (fixed random images on the device), own (what the experiment's own file loads), or
    folder:PATH, whose PATH/train and PATH/val (or test) have a folder of images for each class."""
    data_contents: Annotated[str, Fixed] = ""
    """Images and classes in the folder of data, and a hash of the files' names and sizes; empty: it is no folder."""
    validation: float = 0.0
    """Share of the training images to set aside, with the classes in balance, and evaluate on as well."""
    evaluate_on: Literal["none", "cifar10", "digits", "voc"] = "none"
    """Another data set with the same classes to evaluate on too, after the last epoch."""
    classes: tuple[int, ...] = ()
    """Use only these classes, numbered anew in this order; empty for all."""
    image_size: int = 32
    """Height and width of the model's input, in pixels."""
    augment: Literal["none", "flip", "crop_flip", BATCHED] = "crop_flip"
    """Augmentation of training images, random for each image: crop_flip is a 4-pixel-padded crop and a horizontal
    flip, the others are in bench/data/augment.py. Digits are never mirrored."""
    limit_train: int | None = None
    """Train on this many images only, with the classes in balance."""
    limit_eval: int | None = None
    """Evaluate on this many images only, with the classes in balance."""
    limit_windows: int | None = None
    """Train on this many steps of an epoch, the first ones and the last, and evaluate on as many micro-batches."""
    pipeline: Literal["auto", "resident", "loader"] = "auto"
    """Input: the data set as one tensor on the device (resident), or DataLoader workers; auto: what fits."""
    workers: int = 2
    """DataLoader worker processes per rank, for the loader pipeline."""

    epochs: int = 1
    """Passes over the training images."""
    target_accuracy: float | None = None
    """An accuracy on the evaluation set to reach, as a share: 0.9 for 90%. The row says what that took."""
    stop_at_target: bool = False
    """End the training with the first epoch whose evaluation reaches --target-accuracy."""
    micro_batch: int = 64
    """Images that one process puts through the model at once."""
    accumulate: int = 1
    """Micro-batches of each process in one optimizer step."""
    eval_batch: int | None = None
    """Images that one process evaluates at once, by default as many as --micro-batch."""
    lr: float = 0.1
    """Learning rate of SGD."""
    lr_batch: int | None = None
    """The effective batch that --lr is meant for: --lr is scaled linearly to the trial's own. By default it is not."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """L2 penalty of SGD, per step."""
    milestones: tuple[float, ...] = ()
    """Fractions of the epochs after which the learning rate is multiplied by --gamma."""
    gamma: float = 0.1
    """Factor of the learning rate at each milestone."""
    warmup: float = 0.0
    """Fraction of the training during which the learning rate rises linearly to its value."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, augmentation and dropout."""

    processes: int = 1
    """Processes in the group, each with a replica of the model."""
    machines: int = 1
    """Machines that the processes run on, the same number on each."""
    bucket_mib: float = 25.0
    """Size in MiB of the buckets in which DDP shares gradients; a single process shares none."""
    gradient_compression: Literal["none", "bf16"] = "none"
    """The number format in which gradients are shared: their own, or bf16, which rounds them."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Accelerate's mixed precision; no is float32."""
    tf32: bool = False
    """Let convolutions and matrix products in float32 round their inputs to TF32's 10 bits, which GPUs since Ampere
    do much faster. torch's own default is True for convolutions; here precision no means float32."""
    cudnn_benchmark: bool = False
    """Have cuDNN time its algorithms for each shape and use the fastest, however much memory it takes. False, as in
    torch, because two launches may choose different ones."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Memory layout of images and convolution weights."""
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"
    """Compile the model with torch.compile in this mode, for each size of micro-batch. reduce-overhead records CUDA
    graphs, max-autotune also times kernels."""
    checkpoint_activations: Literal["none", "block", "stage"] = "none"
    """Keep of each block, or each stage, its input alone, and compute the rest again in the backward pass."""
    memory_limit_bytes: int | None = None
    """Bytes that the tensors of one process may take, by default all that the machine has."""
    warmup_windows: int = 3
    """Optimizer steps at the start that are run but not measured. Unless 0, the first step with each size of
    micro-batch and a GPU's first second are not measured either."""

    def __post_init__(self) -> None:
        check(self)

    def title(self) -> str:
        """The experiment and the arm."""
        return f"{self.experiment} {self.arm}"

    def effective_batch(self) -> int:
        """Images in a full window, over all processes."""
        return self.micro_batch * self.accumulate * self.processes

    def evaluation_batch(self) -> int:
        """Images that one process evaluates at once."""
        return self.eval_batch or self.micro_batch

    def trains_head_alone(self) -> bool:
        """Whether no block has a backward pass."""
        return all(name.split(".")[0] in ("head", "fc") for name in self.trainable)

    def stop_accuracy(self) -> float | None:
        """The accuracy at which training ends; None: it goes through all epochs."""
        return self.target_accuracy if self.stop_at_target else None

    def is_last(self, epoch: int, eval_accuracy: float | None) -> bool:
        """Whether training ends with this epoch, counted from 0, after which the evaluation found this accuracy."""
        stop = self.stop_accuracy()
        reached = stop is not None and eval_accuracy is not None and eval_accuracy >= stop
        return epoch + 1 >= self.epochs or reached

    def windows_per_epoch(self, images: int) -> int:
        """Optimizer steps in an epoch of `images` images; the last one may be short."""
        return math.ceil(images / self.effective_batch())

    def learning_rate(self, window: int, windows_per_epoch: int) -> float:
        """The learning rate of a window, which is counted from the start of training.

        It does not depend on the number of processes at an equal effective batch. Warm-up and linear scaling as in
        Goyal et al. 2017, sections 2.1 and 2.2.
        """
        epoch = window // windows_per_epoch
        rate = self.lr * (self.effective_batch() / self.lr_batch if self.lr_batch else 1.0)
        # Less 1e-9: a product such as 0.1 * 30 is a little above 3 and would be rounded up to 4.
        warmup = math.ceil(self.warmup * self.epochs * windows_per_epoch - 1e-9)
        if window < warmup:
            return rate * (window + 1) / warmup
        passed = sum(epoch >= math.ceil(m * self.epochs - 1e-9) for m in self.milestones)
        return rate * self.gamma**passed

    def augmentation(self) -> tuple[bool, bool]:
        """(crop, flip). Digits are not flipped: a mirrored digit is none."""
        return self.augment == "crop_flip", self.augment in ("flip", "crop_flip") and self.data != "digits"

    def settings(self) -> dict[str, Any]:
        """Field name -> value, in the order of the fields."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def key(self) -> str:
        """Twelve hex digits of a hash over the settings that decide the work. Repeats of a trial have equal keys.

        So has a trial with a target, unless it stops there: what is read off the accuracies changes none of them.
        """
        settings = {name: value for name, value in self.settings().items() if name not in NOT_IN_KEY}
        settings = {name: value for name, value in settings.items() if (name, value) not in AS_BEFORE.items()}
        settings |= {name: value for name in IN_KEY_IF_SET if (value := getattr(self, name))}
        if self.data_contents:  # wherever the folder lies, they say what it has
            settings["data"] = FOLDER
        if (stop := self.stop_accuracy()) is not None:
            settings["stop_accuracy"] = stop
        # Of JSON with sorted keys, not Python's hash: equal in every process and on every machine.
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


POSITIVE: tuple[str, ...] = ("image_size", "epochs", "micro_batch", "accumulate", "eval_batch", "processes", "machines")
POSITIVE += ("lr_batch", "limit_train", "limit_eval", "limit_windows", "memory_limit_bytes")
# What follows from other options; arm is no field to set either, but has an option of its own.
FIXED = ("experiment", "experiment_file", "experiment_hash", "data_contents")
IN_KEY_IF_SET = ("experiment_hash", "data_contents")
NOT_IN_KEY = ("repeat", "target_accuracy", "stop_at_target", "experiment_file", *IN_KEY_IF_SET)
# Settings that were added since keys are kept, and the value of what ran before: with it, a trial keeps its key.
AS_BEFORE = {"features": "each_epoch", "checkpoint_activations": "none"}
CHOICES = {name: get_args(kind) for name, kind in get_type_hints(Trial).items() if get_origin(kind) is Literal}
MOST_BUCKET_MIB = 2**20  # 1 TiB, more than any model's gradients
NOT_NEGATIVE = ("repeat", "workers", "warmup_windows", "momentum", "weight_decay", "lr", "seed")
LARGEST_WHOLE = 2**53  # from here on not every integer is a float, and whatever reads a CSV file may lose digits


def check(trial: Trial) -> None:
    """Raises UsageError for the first setting that no machine can run."""
    check_values(trial)
    if trial.stop_at_target and trial.target_accuracy is None:
        raise UsageError("--stop-at-target needs a target; give --target-accuracy too, such as 0.9 for 90%")
    if len(set(trial.body_dropout_after)) != len(trial.body_dropout_after):
        raise UsageError(f"--body-dropout-after is {list(trial.body_dropout_after)}; give each module once")
    if trial.body_dropout and not trial.body_dropout_after:
        raise UsageError(f"--body-dropout is {trial.body_dropout}; give --body-dropout-after too, such as layer2")
    if trial.checkpoint_activations != "none" and trial.trains_head_alone():
        trains = f"--trainable is {' '.join(trial.trainable)}, so no block keeps anything for a backward pass"
        raise UsageError(f"{trains}; leave --checkpoint-activations {trial.checkpoint_activations} out")
    if trial.shortcut != "B" and not names.is_ours(trial.model):
        raise UsageError(
            f"--shortcut is {trial.shortcut}, which {trial.model} cannot have, only B; give B, or "
            f"--model {names.HANDBUILT} or a CIFAR model, which have each"
        )
    if trial.evaluate_on != "none" and trial.data != "synthetic" and not share_classes(trial.data, trial.evaluate_on):
        raise UsageError(
            f"--evaluate-on is {trial.evaluate_on}, which is not another data set with the classes of {trial.data}; "
            f"give none, or voc with cifar10, or the reverse"
        )
    if trial.processes % trial.machines:
        raise UsageError(f"--processes is {trial.processes} but --machines is {trial.machines}; give a multiple of it")
    several = len(set(trial.classes)) == len(trial.classes) and all(c >= 0 for c in trial.classes)
    if not several or (trial.data in DATA and trial.data != OWN and max(trial.classes, default=0) > 9):
        raise UsageError(f"--classes is {list(trial.classes)}; give different numbers from 0 to 9")
    if trial.features == "once":
        check_features(trial)


def check_values(trial: Trial) -> None:
    """Raises UsageError for the first setting with a value that it cannot have, whatever the others are."""
    for name, choices in CHOICES.items():
        if getattr(trial, name) not in choices:
            raise UsageError(f"{option(name)} is {getattr(trial, name)!r}; choose from: {', '.join(choices)}")
    for name in POSITIVE:
        value = getattr(trial, name)
        if value is not None and value < 1:
            raise UsageError(f"{option(name)} is {value}; give 1 or more")
    for name in NOT_NEGATIVE:
        value = getattr(trial, name)
        if not 0 <= value < math.inf:
            raise UsageError(f"{option(name)} is {value}; give a finite number of 0 or more")
    for name in (*POSITIVE, *NOT_NEGATIVE):
        value = getattr(trial, name)
        if isinstance(value, int) and value >= LARGEST_WHOLE:
            raise UsageError(f"{option(name)} is {value}; give less than 2**53, which every reader of a CSV file keeps")
    if not 0 < trial.bucket_mib <= MOST_BUCKET_MIB:
        raise UsageError(f"--bucket-mib is {trial.bucket_mib}; give MiB above 0 and at most {MOST_BUCKET_MIB}")
    if trial.data not in DATA and not (trial.data.startswith(FOLDER) and trial.data != FOLDER):
        raise UsageError(f"--data is {trial.data!r}; choose from: {', '.join(DATA)}, {FOLDER}PATH")
    try:
        names.check(trial.model)
    except ModelError as error:
        raise UsageError(str(error)) from error
    fractions = {"milestones": trial.milestones, "dropout": trial.dropout, "body_dropout": (trial.body_dropout,)}
    fractions |= {"validation": (trial.validation,), "warmup": (trial.warmup,)}
    for name, values in fractions.items():
        for value in values:
            if not 0 <= value < 1:
                raise UsageError(f"{option(name)} has {value}; give fractions from 0 to below 1")
    if trial.target_accuracy is not None and not 0 <= trial.target_accuracy <= 1:
        raise UsageError(
            f"--target-accuracy is {trial.target_accuracy:g}; give a share from 0 to 1, such as 0.9 for 90%"
        )
    if any(width < 1 for width in trial.head):
        raise UsageError(f"--head has {min(trial.head)}; give widths of 1 or more")
    if len(trial.classes) == 1:
        raise UsageError(f"--classes is {list(trial.classes)}; give two classes or more")


def check_features(trial: Trial) -> None:
    """Raises UsageError at the first setting with which an image's features are not the same in each epoch."""
    for name, allowed, why in (
        ("trainable", (("head",),), "changes features while it trains"),
        ("batch_norm", ("eval",), "makes an image's features depend on the other images of its batch"),
        ("augment", ("none", "flip"), "makes more different images of one than are stored, which is two"),
        ("body_dropout", (0,), "makes features random"),
        ("compile", ("none",), "makes one program of backbone and head"),
        ("pipeline", ("auto", "resident"), "has its workers draw the flips"),
    ):
        if (value := getattr(trial, name)) not in allowed:
            said, give = (" ".join(each) if isinstance(each, tuple) else str(each) for each in (value, allowed[0]))
            others = "".join(f" or {each}" for each in allowed[1:])
            raise UsageError(
                f"--features is once, but {option(name)} {said} {why}; give {option(name)} {give}{others}, "
                f"or --features each_epoch"
            )


def check_device_settings(trial: Trial) -> None:
    """Raises UsageError for a setting that has no effect on a CPU: the trial's row would claim it."""
    for name in ("tf32", "cudnn_benchmark"):
        if getattr(trial, name):
            raise UsageError(f"{option(name)} True needs a CUDA device; leave it out")


def share_classes(one: str, other: str) -> bool:
    """Whether two different data sets have the same classes, by number."""
    return {one, other} == {"cifar10", "voc"}


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")
