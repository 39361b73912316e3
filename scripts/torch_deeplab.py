"""DeepLab-v2 on a ResNet of bottlenecks in PyTorch, with our names: the counterpart of ``model=deeplab`` in benchmarks.

Written from ``nightjax/models/backbones/resnet.py`` (stem v1c) and ``nightjax/models/heads/deeplab.py``; no training
part of the library uses it.
"""

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """A stem of three 3x3 convolutions, a max-pool and four stages."""

    def __init__(self, depths: list[int], widths: list[int], strides: list[int], dilations: list[int], features: int):
        super().__init__()
        half = features // 2
        stem = []
        for inputs, outputs, stride in ((3, half, 2), (half, half, 1), (half, features, 1)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            stem += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*stem)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = features
        for stage, (depth, width, stride, dilation) in enumerate(zip(depths, widths, strides, dilations, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1, dilation))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Head(nn.Module):
    """The sum of dilated 3x3 convolutions to the classes."""

    def __init__(self, inputs: int, classes: int, dilations: tuple[int, ...] = (6, 12, 18, 24)):
        super().__init__()
        self.conv2d_list = nn.ModuleList(nn.Conv2d(inputs, classes, 3, 1, d, d) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x).float() for branch in self.conv2d_list)


class DeepLab(nn.Module):
    """Normalized images [B, 3, H, W] to float32 logits [B, K, h, w] at an eighth of the size.

    Args:
        form: arguments of `Backbone`.
        classes: K.
    """

    def __init__(self, form: dict, classes: int):
        super().__init__()
        self.backbone = Backbone(**form)
        self.head = Head(4 * form["widths"][-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy at the label's size [B, H, W], 255 ignored, over all pixels."""
    full = nn.functional.interpolate(logits.float(), size=label.shape[1:], mode="bilinear", align_corners=False)
    return nn.functional.cross_entropy(full, label, ignore_index=255, reduction="sum") / label.numel()


def optimizer(model: DeepLab, section: dict) -> torch.optim.AdamW:
    """AdamW with the groups of a config's section ``optim``: backbone at a tenth of the rate, no decay of vectors."""
    groups = []
    for prefix, factor in (("backbone.", section["backbone_lr"]), ("head.", 1.0)):
        for matrices in (True, False):
            parameters = [
                p for name, p in model.named_parameters() if name.startswith(prefix) and (p.ndim > 1) == matrices
            ]
            decay = section["weight_decay"] if matrices else 0.0
            groups.append({"params": parameters, "lr": factor * section["lr"], "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(section["b1"], section["b2"]), eps=section["eps"], fused=True)
