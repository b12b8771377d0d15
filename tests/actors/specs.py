"""Specs of policies of every kind, as files have them now and had them before."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from actors.episode import Array
from actors.layers import ACTIVATIONS
from actors.parts import Parts
from actors.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from actors.spec import PolicyNetwork, PolicySpec
from tests.actors.examples import reshaped

DEEP, SHALLOW = PolicyNetwork((16, 8)), PolicyNetwork((8,))
CATEGORICAL = PolicySpec(
    "CartPole-v1", Box((4,)), Discrete(2), "categorical", network=DEEP, version=7, trained={"seed": 3}
)
ARM = Box((2, 2), low=(-1.0,) * 4, high=(1.0, 1.0, 0.5, np.inf))
GAUSSIAN = PolicySpec("Arm-v0", Box((2, 3)), ARM, "gaussian", network=SHALLOW)
MULTI = PolicySpec(
    "Odd-v0",
    MultiDiscrete((3, 2), (2,), (1, -4)),
    MultiDiscrete((2, 3, 2, 2), (2, 2), (0, 5, 0, 0)),
    "multi_categorical",
)
BITS = PolicySpec("Odd-v0", MultiBinary((2, 2)), MultiBinary((3, 1)), "bernoulli", network=SHALLOW)
STATE_DEPENDENT = dataclasses.replace(GAUSSIAN, distribution="state_dependent_gaussian")
PARTS = Parts(
    {"near": Box((2,), "float64"), "far": Parts({"0": Discrete(4, -1), "1": MultiBinary((2,))}, is_tuple=True)}
)
EPSILON_GREEDY = dataclasses.replace(CATEGORICAL, distribution="epsilon_greedy")
BOUNDED = dataclasses.replace(ARM, high=(1.0, 3.0, 0.5, 9.0))
SQUASHED = dataclasses.replace(GAUSSIAN, action=BOUNDED, distribution="squashed_gaussian")
NESTED = PolicySpec("Odd-v0", PARTS, ARM, "gaussian", network=PolicyNetwork((8,), normalize_observations=True))
ORDERS = PolicySpec(
    "Odd-v0",
    PARTS.form,
    Parts(
        {
            "lift": Discrete(3, -1),
            "arms": Parts({"0": ARM, "1": MultiBinary((2,))}, is_tuple=True),
            "gears": MULTI.action,
        }
    ),
    "joint",
    network=SHALLOW,
)
SPECS = {
    "categorical": CATEGORICAL,
    "gaussian": GAUSSIAN,
    "parts": NESTED,
    "multi_categorical": MULTI,
    "bernoulli": BITS,
    "state_dependent_gaussian": STATE_DEPENDENT,
    "epsilon_greedy": EPSILON_GREEDY,
    "squashed_gaussian": SQUASHED,
    "joint": ORDERS,
    "a cell of a grid": dataclasses.replace(
        CATEGORICAL, observation=Discrete(16, start=2), action=Discrete(3, start=-1)
    ),
    "linear": reshaped(CATEGORICAL, hidden_sizes=()),
    "normalised": reshaped(GAUSSIAN, normalize_observations=True),
    "normalised in float64": dataclasses.replace(
        reshaped(GAUSSIAN, normalize_observations=True), observation=Box((2, 3), "float64")
    ),
    "scaled": dataclasses.replace(
        GAUSSIAN, action=dataclasses.replace(ARM, high=(5.0, 0.0, -0.5, np.inf)), scale_actions=True
    ),
    "layer norm": reshaped(CATEGORICAL, layer_norm=True),
    "layer norm before noise": reshaped(STATE_DEPENDENT, layer_norm=True),
    **{f"categorical {name}": reshaped(CATEGORICAL, activation=name) for name in ACTIVATIONS},
    **{f"gaussian {name}": reshaped(GAUSSIAN, activation=name) for name in ACTIVATIONS},
}
OLD_CATEGORICAL: dict[str, Any] = {
    **{"env_id": "CartPole-v1", "observation_shape": [4], "actions": "categorical", "action_size": 2},
    **{"action_low": [], "action_high": [], "action_shape": [], "scale_actions": False, "hidden_sizes": [16, 8]},
    **{"activation": "tanh", "normalize_observations": False, "observation_dtype": "float32", "version": 7},
    **{"trained": {"seed": 3}},
}
"""The same specs as they were written before spaces had kinds."""
OLD_GAUSSIAN: dict[str, Any] = OLD_CATEGORICAL | {
    **{"env_id": "Arm-v0", "observation_shape": [2, 3], "actions": "gaussian", "action_size": 4},
    **{"action_low": [-1.0] * 4, "action_high": [1.0, 1.0, 0.5, "Infinity"], "action_shape": [2, 2]},
    **{"hidden_sizes": [8], "version": 0, "trained": {}},
}


def observations(spec: PolicySpec, count: int = 50) -> Array:
    sampled = spec.observation.sample(np.random.default_rng(5), count)
    return 3 * sampled if isinstance(spec.observation, Box) else sampled


def write_policy(directory: Path, metadata: dict[str, str] | None, weights: dict[str, Array]) -> None:
    safetensors.numpy.save_file(weights, directory / "policy.safetensors", metadata=metadata)
