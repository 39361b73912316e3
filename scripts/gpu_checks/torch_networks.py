# SPDX-License-Identifier: Apache-2.0
"""Networks in PyTorch, under our names: what benchmarks compare our networks with.

ResNets, and the heads of DeepLab-v2 and FPN; ``torch_transformers.py`` has MiT and DAFormer's head. Written from
``nightjax/models/backbones/resnet.py`` and ``nightjax/models/heads/``; the library uses none of it.
``network_forms.py`` reads from a config which network it is, and ``nightjax.interop.torch_weights`` gives its weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gpu_checks.torch_transformers import DAFormerHead, MiT, at_least_float32
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block; subclasses make ``body``'s layers and say in ``outputs`` how many channels it has."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(Block):
    """Two 3x3 convolutions; the first carries stride and dilation."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int):
        super().__init__(inputs, width, stride)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def body(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions; the second carries stride and dilation."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int):
        super().__init__(inputs, 4 * width, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def body(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))


class ResNet(nn.Module):
    """A stem and four stages; the arguments are those of `nightjax.models.backbones.resnet.ResNet`."""

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[Any] = (1, 1, 1, 1),
        block: str = "bottleneck",
        stem: str = "torchvision",
        stem_features: int = 64,
        pool: str = "floor",
    ):
        super().__init__()
        self.deep = stem == "v1c"
        if self.deep:
            half, layers = stem_features // 2, []
            for inputs, outputs, stride in ((3, half, 2), (half, half, 1), (half, stem_features, 1)):
                convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
                layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            self.stem = nn.Sequential(*layers)
        else:
            size = {"torchvision": 7, "3x3": 3}[stem]
            self.conv1 = nn.Conv2d(3, stem_features, size, 2, size // 2, bias=False)
            self.bn1 = nn.BatchNorm2d(stem_features)
        self.pool = nn.Identity() if pool == "none" else nn.MaxPool2d(3, 2, 1)
        build, grows = {"basic": (BasicBlock, 1), "bottleneck": (Bottleneck, 4)}[block]
        inputs = stem_features
        for stage, (depth, width, stride, dilation) in enumerate(zip(depths, widths, strides, dilations, strict=True)):
            each = [dilation] * depth if isinstance(dilation, int) else dilation
            blocks = []
            for i in range(depth):
                blocks.append(build(inputs, width, stride if i == 0 else 1, each[i]))
                inputs = grows * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = [grows * width for width in widths]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features of the four stages."""
        x = self.pool(self.stem(x) if self.deep else torch.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


class DeepLabV2Head(nn.Module):
    """The sum of dilated 3x3 convolutions to the classes."""

    def __init__(self, channels: Sequence[int], classes: int, dilations: Sequence[int] = (6, 12, 18, 24)):
        super().__init__()
        self.conv2d_list = nn.ModuleList(nn.Conv2d(channels[-1], classes, 3, 1, d, d) for d in dilations)

    def forward(self, features: list[Tensor]) -> Tensor:
        return torch.stack([at_least_float32(branch(features[-1])) for branch in self.conv2d_list]).sum(0)


class FPNHead(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum, a 3x3 and a classifier; no dropout."""

    def __init__(self, channels: Sequence[int], classes: int, width: int = 32):
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.lateral_convs, features, strict=True)]
        x = levels[-1]
        for level in reversed(levels[:-1]):
            x = level + (x if x.shape == level.shape else grown(x, level.shape[2:]))
        return at_least_float32(self.conv_seg(torch.relu(self.bn(self.conv(x)))))


BACKBONES = {"resnet": ResNet, "mit": MiT}
HEADS = {"deeplab_v2": DeepLabV2Head, "fpn": FPNHead, "daformer": DAFormerHead}


class Segmenter(nn.Module):
    """Normalized images [B, 3, H, W] to float32 logits [B, K, h, w].

    Args:
        form: ``backbone`` and ``head``, the arguments of the two, and their names under ``kinds``; see `form_of`.
        classes: K.
    """

    def __init__(self, form: Mapping[str, Any], classes: int):
        super().__init__()
        backbone, head = form["kinds"]
        self.backbone = BACKBONES[backbone](**form["backbone"])
        self.head = HEADS[head](self.backbone.channels, classes, **form["head"])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def grown(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners not aligned."""
    return nn.functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def loss(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy at the label's size [B, H, W], 255 ignored, over all pixels."""
    full = grown(at_least_float32(logits), label.shape[1:])
    summed = nn.functional.cross_entropy(full, label, class_weights, ignore_index=255, reduction="sum")
    return summed / label.numel()


def optimizer(model: nn.Module, section: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW as a config's section ``optim`` has it: factors of rates by prefix, no decay of vectors."""
    factors, groups = dict(section["factors"]), []
    for matrices in (True, False):
        for prefix in {name.partition(".")[0] for name, _ in model.named_parameters()}:
            own = [p for name, p in model.named_parameters() if name.startswith(f"{prefix}.")]
            rate = factors.get(prefix, 1.0) * section["lr"]
            decay = section["weight_decay"] if matrices else 0.0
            groups.append({"params": [p for p in own if (p.ndim > 1) == matrices], "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(section["b1"], section["b2"]), eps=section["eps"], fused=True)
