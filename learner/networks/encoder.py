"""Trunks in torch: what a network sees of pictures, where it is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Space
from actors.spec import PolicySpec
from actors.trunks import RESIDUAL_CONVOLUTIONS, Layer, read_trunk, weight_name

_AT_ONCE = 512
"""Pictures that are looked at together where nothing is differentiated: activations of more would fill the memory."""


class ResidualSection(nn.Module):
    """A convolution, a maximum that halves the size, and two residual blocks: [B, C, H, W] -> [B, F, H/2, W/2]."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, padding=1)
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
        for layer in read_trunk(trunk):
            self.layers.append(_module(channels, layer))
            channels = layer.filters
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight, math.sqrt(2))
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, planes: Tensor) -> Tensor:
        """Features, [B, features], of bytes [B, C, H, W] in any type."""
        # Of one channel both layouts are the same in memory, and oneDNN's kernels for the other name are faster.
        layout = torch.channels_last if planes.shape[1] > 1 else torch.contiguous_format
        x = planes.to(torch.float32, memory_format=layout) * (1 / 255)
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                x = x.relu()
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


def _module(channels: int, layer: Layer) -> nn.Module:
    if layer.is_residual:
        return ResidualSection(channels, layer.filters)
    return nn.Conv2d(channels, layer.filters, layer.kernel, layer.stride)


class Encoder(nn.Module):
    """What the layers after a policy's trunks see of observations, as ``actors.trunk_graph.Encoder``."""

    in_bfloat16 = False
    """Convolve in bfloat16; weights, their gradients and features stay float32."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self._spans = [*_spans(spec.seen, "", 0)]
        self._is_whole = isinstance(spec.seen, Picture)
        trunk = spec.network.trunk
        self.trunks = (
            nn.ModuleList(Trunk(span[3].planes[0], trunk) for span in self._spans if span[3]) if trunk else None
        )

    def forward(self, observations: Tensor) -> Tensor:
        """[B, features] of pictures [B, C, H, W] uint8, or of all parts' numbers [B, inputs], pictures from 0 to 1."""
        with torch.autocast(observations.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            if torch.is_grad_enabled() or len(observations) <= _AT_ONCE:
                return self._features(observations).float()
            return torch.cat([self._features(some).float() for some in observations.split(_AT_ONCE)])

    def _features(self, observations: Tensor) -> Tensor:
        if self.trunks is None:
            return observations.flatten(1).float() * (1 / 255) if self._is_whole else observations
        if self._is_whole:
            features: Tensor = self.trunks[0](observations)
            return features
        trunks, columns = iter(self.trunks), []
        for _, start, end, picture in self._spans:
            numbers = observations[:, start:end]
            if picture:
                numbers = next(trunks)(numbers.unflatten(1, picture.planes) * 255)
            columns.append(numbers)
        return torch.cat(columns, dim=1)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """What is learned, by the names that Policy gives it."""
        parts = [name for name, *_, picture in self._spans if picture]
        for part, trunk in zip(parts, self.trunks or [], strict=False):
            assert isinstance(trunk, Trunk)
            for name, layer in trunk.named_layers(part):
                assert layer.bias is not None
                yield f"{name}_w", layer.weight
                yield f"{name}_b", layer.bias


def _spans(space: Space, part: str, start: int) -> Iterator[tuple[str, int, int, Picture | None]]:
    """Where each part's numbers are among those of an observation; and the picture that they are, if they are one."""
    if isinstance(space, Parts):
        for name, inner in space.spaces.items():
            yield from _spans(inner, f"{part}.{name}" if part else name, start)
            start += inner.inputs
    else:
        yield part, start, start + space.inputs, space if isinstance(space, Picture) else None
