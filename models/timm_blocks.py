"""timm's residual blocks that add no identity. Imports timm."""

from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor


class PlainBasicBlock(BasicBlock):
    """timm's BasicBlock that does not add its identity. If it has a `downsample`, that is not computed."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        out = self.bn2(self.conv2(out))
        out = out if self.se is None else self.se(out)
        return self.act2(out if self.drop_path is None else self.drop_path(out))


class PlainBottleneck(Bottleneck):
    """timm's Bottleneck that does not add its identity. If it has a `downsample`, that is not computed."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(out)))))
        out = self.bn3(self.conv3(out))
        out = out if self.se is None else self.se(out)
        return self.act3(out if self.drop_path is None else self.drop_path(out))
