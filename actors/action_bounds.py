"""Where continuous actions may lie, and how a network's numbers become them."""

from __future__ import annotations

import numpy as np

from actors.episode import Array

_NO_BOUND = float(np.finfo(np.float32).max)
"""Environments without a bound declare infinity, or float32's largest number."""


class ActionBounds:
    """Turns a Gaussian policy's numbers into an environment's actions, component by component.

    A component that is scaled is clipped to [-1, 1], of which -1 becomes ``low`` and 1 ``high``, as Gymnasium's
    RescaleAction does: a network starts near zero and explores at the order of one, whatever the bounds. Others are
    clipped to their bounds. A component that lacks a bound on either side is never scaled.

    Args:
        low: [A]; -inf: no lower bound.
        high: [A]; inf: no upper bound.
        scaled: scale the components that have both bounds.
    """

    def __init__(self, low: tuple[float, ...], high: tuple[float, ...], scaled: bool) -> None:
        bounds = np.array([low, high], np.float64)
        scales = scaled & (np.abs(bounds) < _NO_BOUND).all(axis=0)
        self.low, self.high = bounds.astype(np.float32)
        ends = np.where(scales, [self.low, self.high], [[-1.0], [1.0]])  # the actions that -1 and 1 stand for
        self.centre = ends.mean(axis=0).astype(np.float32)
        """[A] the action that 0 stands for."""
        scale = np.abs(ends - self.centre).max(axis=0).astype(np.float32)
        falls_short = (self.centre - scale > ends[0]) | (self.centre + scale < ends[1])
        self.scale = np.where(falls_short, np.nextafter(scale, np.float32(np.inf)), scale)
        """[A] what a step of 1 is in the action's units; rounded so that 1 and -1 reach the bounds, or pass them."""
        self._lowest, self._highest = np.where(scales, -1, self.low), np.where(scales, 1, self.high)
        self.all_scaled = bool(scales.all())
        """Whether -1 and 1 stand for bounds in every component."""
        self.as_they_are = bool((self.centre == 0).all() and (self.scale == 1).all())
        """Whether numbers are actions but for clipping."""

    def place(self, numbers: Array) -> Array:
        """Numbers [B, A] in the actions' units, not clipped."""
        return numbers if self.as_they_are else np.asarray(self.centre + self.scale * numbers)

    def numbers(self, actions: Array) -> Array:
        """The numbers [B, A] that stand for actions [B, A]."""
        return actions if self.as_they_are else np.asarray((actions - self.centre) / self.scale, np.float32)

    def actions(self, numbers: Array) -> Array:
        """The actions [B, A] that numbers [B, A] stand for, within the bounds."""
        clipped = np.clip(numbers, self._lowest, self._highest)
        if self.as_they_are:
            return np.asarray(clipped)
        return np.clip(self.place(clipped), self.low, self.high)  # rounding may have passed a bound
