"""Models to measure the Vision Transformer against, under the contract of `model.build`.

model: {build: "vitbench.model.baselines:cnn", args: {width: 20}}
"""

from __future__ import annotations

from torch import nn

from vitbench.torchvision_import import torchvision


def cnn(
    *, channels: int, image_size: int, outputs: int, width: int = 16, blocks: int = 1
) -> nn.Module:
    """A small residual network (arXiv:1512.03385, section 4.2) of torchvision's basic blocks.

    A convolution of stride 2, three stages of `blocks` blocks of `width`, 2 and 4 times `width`
    channels, the mean over all places, and a linear classifier.
    """
    block = torchvision().models.resnet.BasicBlock
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    inputs = width
    for stage in range(3):
        wide = width * 2**stage
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            shortcut = None
            if inputs != wide:
                shortcut = nn.Sequential(
                    nn.Conv2d(inputs, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide)
                )
            layers.append(block(inputs, wide, stride=stride, downsample=shortcut))
            inputs = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def linear(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """Logistic regression on the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, outputs))
