"""Actions of several parts, each from a distribution of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actors import trees
from actors.action_bounds import ActionBounds
from actors.discrete import Bernoulli, Categorical, MultiCategorical
from actors.distribution import Distribution
from actors.gaussians import Gaussian
from actors.parts import Parts, leaf_spaces, num_continuous
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from actors.trees import Array, Tree

if TYPE_CHECKING:
    from actors.spec import PolicySpec


class Place(NamedTuple):
    """Where a part of an action is. Parts of parts are parts of the whole."""

    name: str
    """The part's name, after those of the parts that it is in, with dots between them."""
    space: Space
    parameters: slice
    """Its own, among the A of all parts."""
    sampled: slice
    """Its numbers, among the K of an action as it is sampled: one for each choice, switch and component."""
    log_stds: slice
    """Those of its continuous components, among the policy's."""


def places(space: Parts) -> list[Place]:
    """The parts of actions, in the order in which their numbers are laid out side by side."""
    found = []
    ends = np.zeros(3, int)
    for name, leaf in leaf_spaces(space):
        starts, ends = ends, ends + np.array([leaf.inputs, math.prod(leaf.shape), num_continuous(leaf)])
        found.append(Place(name, leaf, *map(slice, starts.tolist(), ends.tolist())))
    return found


class Joint(Distribution):
    """Actions of several parts, independent given what is seen; the parameters are those of each part, [B, A].

    As it is sampled an action is the numbers of all parts in a row, [B, K] float32; as it is flown a tree of the parts.

    Args:
        space: of the actions.
        log_std: of the continuous components of all parts: the policy's.
        scaled: continuous components are scaled to their bounds.

    Raises:
        NonFiniteError: a standard deviation is infinite.
    """

    space = Parts

    def __init__(self, space: Parts, log_std: Array, scaled: bool) -> None:
        self.parts = [(place, _distribution(place.space, log_std[place.log_stds], scaled)) for place in places(space)]
        """Where each part is, and its distribution."""
        self.labels = [f"{place.name}: {label}" for place, part in self.parts for label in part.labels]

    @classmethod
    def of(cls, spec: PolicySpec, weights: dict[str, Array]) -> Joint:
        """That of a policy, which has the log σ of all continuous components among its weights.

        Raises:
            NonFiniteError: a σ is infinite.
        """
        assert isinstance(spec.action, Parts)
        return cls(spec.action, weights.get("log_std", np.empty(0, np.float32)), spec.scale_actions)

    @classmethod
    def weight_shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """log σ of each continuous component, if there is one."""
        count = num_continuous(spec.action)
        return {"log_std": (count,)} if count else {}

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """The noise of each part."""
        return np.concatenate([part.noise(rng, shape) for _, part in self.parts], axis=-1)

    def sample(self, parameters: Array, noise: Array | None) -> Array:
        """[B, K] float32, which is exact for choices of less than 2**24."""
        sampled = [
            part.sample(parameters[:, place.parameters], None if noise is None else noise[:, place.parameters])
            for place, part in self.parts
        ]
        return _in_a_row(sampled)

    def log_prob(self, parameters: Array, actions: Array) -> Array:
        """[B] float32: the sum over parts."""
        each = [part.log_prob(parameters[:, place.parameters], _own(place, actions)) for place, part in self.parts]
        return np.asarray(np.sum(each, axis=0, dtype=np.float32))

    def flyable(self, actions: Array) -> Any:
        """A tree of each part's actions, [B, …] each."""
        return trees.grown({place.name: part.flyable(_own(place, actions)) for place, part in self.parts})

    def as_sampled(self, actions: Any) -> Array:
        """[B, K] float32."""
        of = dict(trees.leaves(actions))
        return _in_a_row([part.as_sampled(of[place.name]) for place, part in self.parts])

    def can_act(self, allows: Array) -> Array:
        """Those that leave something to each part."""
        each = [part.can_act(allows[:, place.parameters]) for place, part in self.parts]
        return np.asarray(np.all(each, axis=0))

    def chosen(self, action: Array) -> list[int]:
        """Those of each part."""
        each = [(place, part.chosen(_own(place, action[None])[0])) for place, part in self.parts]
        return [place.parameters.start + number for place, numbers in each for number in numbers]

    def shown(self, parameters: Array) -> dict[str, Tree]:
        """What each part shows, by its name within each kind: probabilities of one, the mean of another."""
        return _by_kind((place.name, part.shown(parameters[:, place.parameters])) for place, part in self.parts)

    @property
    def shown_once(self) -> dict[str, Tree]:
        """The standard deviations of continuous parts, by their names."""
        return _by_kind((place.name, part.shown_once) for place, part in self.parts)


def _distribution(space: Space, log_std: Array, scaled: bool) -> Distribution:
    """The distribution over a part."""
    if isinstance(space, Discrete):
        return Categorical(space.n, space.start)
    if isinstance(space, MultiDiscrete):
        return MultiCategorical(space)
    if isinstance(space, MultiBinary):
        return Bernoulli(space.shape)
    assert isinstance(space, Box)
    return Gaussian(log_std, ActionBounds(space.low, space.high, scaled), space.shape)


def _own(place: Place, actions: Array) -> Array:
    """A part's own actions, as its distribution samples them, of those of all parts, [B, K]."""
    own = actions[:, place.sampled].astype(place.space.dtype, copy=False)
    return own[:, 0] if isinstance(place.space, Discrete) else own


def _in_a_row(columns: list[Array]) -> Array:
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1, dtype=np.float32)


def _by_kind(shown: Iterator[tuple[str, Mapping[str, Tree]]]) -> dict[str, Tree]:
    found: dict[str, dict[str, Any]] = {}
    for name, kinds in shown:
        for kind, column in kinds.items():
            found.setdefault(kind, {})[name] = column
    return {kind: trees.grown(columns) for kind, columns in found.items()}
