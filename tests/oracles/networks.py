"""Networks written out in plain torch calls: filters turned by rot90, no tables, no layers of the package."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def normalise(x, norm):
    """Batch norm in eval, from its definition, on the channels of plain maps."""
    shape = (1, -1, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    return x * norm.weight.view(shape) + norm.bias.view(shape)


def turns(x, conv):
    """Responses of the four turns of each filter, (4, batch, filters, height, width)."""
    side = math.isqrt(conv.weight.shape[2])
    filters = conv.weight.view(*conv.weight.shape[:2], side, side)
    return torch.stack([F.conv2d(x, torch.rot90(filters, k, (2, 3)), conv.bias) for k in range(4)])


def rotation_pooled_network(x, convolutions, norms):
    """P4CNN-RP of Cohen & Welling from its words: a plain network in which every layer takes the maximum over
    the four turns of its filters, after norm and rectifier; the norm's statistics are those of all turns."""
    for depth, (conv, norm) in enumerate(zip(convolutions, norms)):
        x = torch.stack([normalise(turn, norm).relu() for turn in turns(x, conv)]).amax(0)
        x = F.max_pool2d(x, 2) if depth == 1 else x
    return turns(x, convolutions[-1]).amax(0).flatten(1)


class PreactivationBlock(nn.Module):
    """He et al. 2016b, figure 4e."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.project = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else nn.Identity()

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        return self.project(x) + self.conv2(F.relu(self.bn2(y)))


def preactivation_resnet(channels, widths, blocks, classes, first_window):
    """The plain ResNet of 6 n + 2 layers for small images."""
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], first_window, 1, first_window // 2, bias=False)]
    before = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(PreactivationBlock(before, width, 2 if stage and not block else 1))
            before = width
    last = [nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *last, nn.Linear(before, classes))
