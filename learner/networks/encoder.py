"""Trunks in torch: what a network sees of pictures, where it is learned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from actors.pictures import Picture, pictures_in
from actors.spec import PolicySpec
from actors.trunks import RESIDUAL_CONVOLUTIONS, Layer, read_trunk, weight_name
from learner.memory.packing import Packing

_AT_ONCE = 512
"""Pictures that are looked at together where nothing is differentiated: activations of more would fill the memory."""


class OfBytes(nn.Conv2d):
    """A convolution of bytes as numbers from 0 to 1. It divides its weights, which are few, and not every pixel."""

    def forward(self, planes: Tensor) -> Tensor:
        """As Conv2d of ``planes / 255``."""
        assert self.bias is not None
        return torch.conv2d(planes, self.weight * (1 / 255), self.bias, self.stride, self.padding)


class ResidualSection(nn.Module):
    """A convolution, a maximum that halves the size, and two residual blocks: [B, C, H, W] -> [B, F, H/2, W/2]."""

    def __init__(self, first: nn.Conv2d) -> None:
        super().__init__()
        self.first, filters = first, first.out_channels
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(filters, filters, 3, padding=1) for _ in range(RESIDUAL_CONVOLUTIONS))

    def forward(self, x: Tensor) -> Tensor:
        """x + c(relu(c(relu(x)))) twice, after the pool."""
        x = self.pool(self.first(x))
        for one, two in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = x + two(one(x.relu()).relu())
        return x


class Trunk(nn.Module):
    """A trunk for one picture: [B, C, H, W] of bytes -> [B, features]; weights are orthogonal and biases zero."""

    def __init__(self, channels: int, trunk: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        convolution: type[nn.Conv2d] = OfBytes
        for layer in read_trunk(trunk):
            self.layers.append(_module(convolution, channels, layer))
            convolution, channels = nn.Conv2d, layer.filters
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight, math.sqrt(2))
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, planes: Tensor) -> Tensor:
        """Features, [B, features], of bytes [B, C, H, W] in any type."""
        device = planes.device.type
        if planes.shape[1] > 1:  # as CPUs convolve fastest; Frames are so already
            planes = planes.contiguous(memory_format=torch.channels_last)
        # Bytes are exact in bfloat16, too.
        x = planes.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32)
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                x = x.relu_()  # in place: what a convolution gave it does not need again
        if not isinstance(self.layers[-1], nn.Conv2d):
            x = x.relu()
        return x.flatten(1)

    def named_layers(self, part: str) -> Iterator[tuple[str, nn.Conv2d]]:
        """Its convolutions, by what the names of their weights begin with."""
        for i, layer in enumerate(self.layers):
            name = weight_name(part, i)
            if isinstance(layer, ResidualSection):
                yield name, layer.first
                yield from ((f"{name}_{j}", block) for j, block in enumerate(layer.blocks))  # type: ignore[misc]
            else:
                assert isinstance(layer, nn.Conv2d)
                yield name, layer


def _module(convolution: type[nn.Conv2d], channels: int, layer: Layer) -> nn.Module:
    if layer.is_residual:
        return ResidualSection(convolution(channels, layer.filters, 3, padding=1))
    return convolution(channels, layer.filters, layer.kernel, layer.stride)


class Encoder(nn.Module):
    """What the layers after a policy's trunks see of observations, as ``actors.trunk_graph.Encoder``."""

    in_bfloat16 = False
    """Convolve in bfloat16; weights, their gradients and features stay float32."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self._packing = None if isinstance(spec.seen, Picture) else Packing(spec.seen)
        self._pictures, trunk = dict(pictures_in(spec.seen)), spec.network.trunk
        eyes = [Trunk(picture.planes[0], trunk) for picture in self._pictures.values()] if trunk else []
        self.trunks = nn.ModuleList(eyes) if trunk else None

    def forward(self, observations: Tensor) -> Tensor:
        """[B, features] of pictures [B, C, H, W] uint8, or of rows of bytes [B, k, R]: see ``packing``."""
        with torch.autocast(observations.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            if torch.is_grad_enabled() or len(observations) <= _AT_ONCE:
                return self._features(observations).float()
            return torch.cat([self._features(some).float() for some in observations.split(_AT_ONCE)])

    def _features(self, observations: Tensor) -> Tensor:
        eyes: Iterator[Callable[[Tensor], Tensor]]
        eyes = itertools.repeat(_as_numbers) if self.trunks is None else iter(self.trunks)
        if self._packing is None:
            return next(eyes)(observations)
        floats = observations[:, -1, : self._packing.number_bytes].clone().view(torch.float32)
        columns = [
            next(eyes)(observations[:, -part.frames :, place].reshape(-1, *part.planes))
            if isinstance(part, Picture)
            else floats[:, place]
            for _, part, place in self._packing.parts
        ]
        return torch.cat(columns, dim=1)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """What is learned, by the names that Policy gives it."""
        for part, trunk in zip(self._pictures, self.trunks or [], strict=False):
            assert isinstance(trunk, Trunk)
            for name, layer in trunk.named_layers(part):
                assert layer.bias is not None
                yield f"{name}_w", layer.weight
                yield f"{name}_b", layer.bias


def _as_numbers(planes: Tensor) -> Tensor:
    """Bytes [B, C, H, W] as numbers from 0 to 1, in a row: [B, C · H · W]."""
    return planes.flatten(1).float() * (1 / 255)
