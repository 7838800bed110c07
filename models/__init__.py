"""Which networks are there, and how is one changed before it trains?

`names` lists them. `cifar` and `resnet34` build our own residual networks out of `stages` and `blocks`; `imagenet`
gives torchvision's, `from_timm` timm's. `weights` loads state dicts. `surgery` replaces blocks and heads, and freezes
parts; `backbone` runs all but the head. Imports nothing else of resbench.
"""


class ModelError(ValueError):
    """A request for a model that cannot be met. Its text is one sentence for the user: the value and the next step."""
