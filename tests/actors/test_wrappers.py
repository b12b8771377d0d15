"""Masks from ``info`` and from methods, where policies heed them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.check_env import try_out
from actors.environments import describe
from actors.errors import UserError
from actors.making import make_gymnasium
from actors.masks import MASK
from actors.parts import Parts
from actors.rollout import Rollout
from actors.spaces import Discrete
from actors.vectors import GymnasiumEnvironments, make_environments
from actors.wrappers import Screen, Tabular
from tests.actors.examples import random_policy


class Picky(gymnasium.Env[Any, Any]):
    """Allows two of its actions at a time; says so by a method, and never in ``info``."""

    def __init__(self, parts: bool = False, wrong: bool = False, choices: bool = False) -> None:
        here = gymnasium.spaces.Box(-1, 1, (2,))
        self.observation_space = gymnasium.spaces.Dict({"here": here}) if parts else here
        self.action_space = gymnasium.spaces.MultiDiscrete([2, 2]) if choices else gymnasium.spaces.Discrete(4)
        self._parts, self._wrong, self._choices = parts, wrong, choices

    def action_masks(self) -> Any:
        if self._wrong:
            return [True]
        return np.array([[1, 0], [0, 1]]) if self._choices else [self._time % 4 == i or i == 3 for i in range(4)]

    def _observation(self) -> Any:
        here = np.zeros(2, np.float32)
        return {"here": here} if self._parts else here

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert list(action) == [0, 1] if self._choices else self.action_masks()[action]
        self._time += 1
        return self._observation(), 1.0, self._time == 9, False, {}


gymnasium.register("Picky-v0", Picky)
PICKY = f"{__name__}:Picky-v0"


@pytest.mark.parametrize("options", ["", "(parts=True)", "(choices=True)"])
def test_a_mask_from_a_method(options: str) -> None:
    env_id = f"{PICKY}{options} | ActionMask(method='action_masks')"
    info = describe(env_id)
    assert isinstance(info.observation, Parts)
    assert set(info.observation.spaces) == ({"here", MASK} if "parts" in options else {"observation", MASK})
    assert info.policy_spec().is_masked
    policy = random_policy(info.policy_spec())
    batch = Rollout(GymnasiumEnvironments(env_id, 4, seed=0), seed=0).fragments(policy, 30)
    assert batch.num_steps > 80


def test_a_mask_from_info() -> None:
    env = make_gymnasium("Taxi-v3 | ActionMask")
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation[MASK], info[MASK])
    observation, _, _, _, info = env.step(int(np.flatnonzero(observation[MASK])[0]))
    np.testing.assert_array_equal(observation[MASK], info[MASK])
    assert env.observation_space.contains(observation)
    try_out("Taxi-v3 | ActionMask", 50)


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("Pendulum-v1 | ActionMask", r"actions Box.* cannot be masked"),
        ("Taxi-v3 | ActionMask | ActionMask", "its observations have an action_mask already"),
        ("CartPole-v1 | ActionMask", r"info has no action_mask; give the name of a method that answers it"),
        (f"{PICKY} | ActionMask(method='masks')", "masks"),
        (f"{PICKY}(wrong=True) | ActionMask(method='action_masks')", "the mask has 1 entries; its actions are 4"),
    ],
)
def test_what_cannot_be_masked_is_one_line(env_id: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        try_out(env_id)
    assert "\n" not in str(error.value)


# ---- Hide


def test_hidden_components_are_left_out() -> None:
    name = "CartPole-v1 | Hide(components=[1, 3])"
    env, bare = make_gymnasium(name), make_gymnasium("CartPole-v1")
    seen, all_of_it = env.reset(seed=3)[0], bare.reset(seed=3)[0]
    np.testing.assert_array_equal(seen, all_of_it[[0, 2]])
    np.testing.assert_array_equal(env.step(1)[0], bare.step(1)[0][[0, 2]])
    assert describe(name).observation.shape == (2,)
    try_out(name)


@pytest.mark.parametrize("wrappers", ["Hide(components=[2, 3, 5])", "Hide(components=[5]) | Hide(components=[2, 3])"])
def test_envpool_hides_them_too(wrappers: str) -> None:
    shown, hidden = (
        make_environments(name, 3, seed=5, backend="envpool")
        for name in ("LunarLander-v3", f"LunarLander-v3 | {wrappers}")
    )
    left = [0, 1, 4, 6, 7]
    np.testing.assert_array_equal(hidden.reset(), shown.reset()[:, left])  # type: ignore[index]
    slots = np.arange(3)
    for _ in range(20):
        seen, rewards, *_ = hidden.step(slots, slots)
        whole, same, *_ = shown.step(slots, slots)
        np.testing.assert_array_equal(seen, whole[:, left])  # type: ignore[index]
        np.testing.assert_array_equal(rewards, same)
    hidden.close()
    shown.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CartPole-v1 | Hide(components=[4])", "whole numbers from 0 to 3"),
        ("CartPole-v1 | Hide(components=[True])", "whole numbers from 0 to 3"),
        ("CartPole-v1 | Hide(components=[0, 1, 2, 3])", "nothing would be left of 4 components"),
        ("Taxi-v3 | Hide(components=[0])", "no Box of one dimension"),
        ("CartPole-v1 | Hide", "missing 1 required positional argument: 'components'"),
        ("CartPole-v1 | Hide(components=1)", "a list of whole numbers from 0 to 3"),
    ],
)
def test_what_cannot_be_hidden(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        describe(name)
    assert "\n" not in str(error.value)


# ---- Tabular


def test_whole_numbers_become_one() -> None:
    """Blackjack's hand, the dealer's card and the usable ace: 32 × 11 × 2 observations, each with its own number."""
    info = describe("Blackjack-v1 | Tabular")
    assert info.observation == Discrete(704)
    env, bare = make_gymnasium("Blackjack-v1 | Tabular"), make_gymnasium("Blackjack-v1")
    for seed in range(20):
        number, _ = env.reset(seed=seed)
        (hand, card, ace), _ = bare.reset(seed=seed)
        assert number == (hand * 11 + card) * 2 + ace
    try_out("Blackjack-v1 | Tabular")


class Numbers(gymnasium.Env[Any, Any]):
    """Whole numbers in all the ways that Gymnasium has, some not from 0."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Dict(
        {
            "several": gymnasium.spaces.MultiDiscrete([[2, 3]], start=[[5, -1]]),
            "one": gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(4, start=1), gymnasium.spaces.MultiBinary(2)]),
        }
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}


def test_every_observation_has_its_own_number() -> None:
    env = Tabular(Numbers())
    assert env.observation_space == gymnasium.spaces.Discrete(2 * 3 * 4 * 2 * 2)
    found = {}
    for seed in range(2_000):
        seen = env.unwrapped.reset(seed=seed)[0]
        found[repr(seen)] = int(env.observation(seen))
    assert len(found) == 96
    assert sorted(found.values()) == [*range(96)]


def test_the_order_of_a_dictionary_is_its_spaces() -> None:
    env = Tabular(Numbers())
    seen = env.unwrapped.reset(seed=1)[0]
    assert env.observation({name: seen[name] for name in reversed(seen)}) == env.observation(seen)


def test_what_no_table_can_number() -> None:
    with pytest.raises(UserError, match=r"observations Box\(.* are not of whole numbers alone"):
        describe("CartPole-v1 | Tabular")
    wide = Numbers()
    wide.observation_space = gymnasium.spaces.MultiDiscrete([10_000, 10_000])
    with pytest.raises(UserError, match=r"100,000,000 observations, more than the 10,000,000 rows of a table"):
        Tabular(wide)


# ---- Screen


class Shows(gymnasium.Env[Any, Any]):
    """Has observations of a space, and does nothing."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.observation_space = space


def pictures(*shape: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize("size", [(3, 4), (2, 8), (5, 3), (6, 8), (7, 11)])
def test_each_pixel_of_a_screen_is_the_mean_of_its_area(size: tuple[int, int]) -> None:
    """Against pixels repeated until both sizes divide them; 7 × 11 is larger than the picture."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    fine = picture.repeat(size[0], 0).repeat(size[1], 1).astype(np.float64)
    means = fine.reshape(size[0], 6, size[1], 8).mean((1, 3))
    screen = Screen(Shows(pictures(6, 8)), *size)
    assert screen.observation_space == pictures(*size)
    seen = screen.observation(picture)
    assert seen.dtype == np.uint8
    assert np.abs(seen - means).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(Screen(Shows(pictures(6, 8, 1)), *size).observation(picture[..., None]), seen)


def test_colours_become_as_bright_as_they_are() -> None:
    screen = Screen(Shows(pictures(1, 4, 3)), height=1, width=4)
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert screen.observation(colours).tolist() == [[77, 149, 29, 255]]


def test_a_screen_is_taken_from_among_other_parts() -> None:
    parts = gymnasium.spaces.Dict({"screen": pictures(4, 4, 1), "health": gymnasium.spaces.Box(0, 100, (1,))})
    screen = Screen(Shows(parts), height=2, width=2)
    seen = screen.observation({"screen": np.full((4, 4, 1), 9, np.uint8), "health": np.zeros(1, np.float32)})
    assert seen.tolist() == [[9, 9], [9, 9]]


def test_any_environments_pictures_make_a_screen() -> None:
    env_id = "CarRacing-v3(continuous=False) | Screen(height=42, width=42)"
    assert describe(env_id).observation_space == pictures(42, 42)
    try_out(env_id, 2)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (gymnasium.spaces.Box(0, 1, (4, 4)), "observations Box.* are no pictures"),
        (pictures(4, 4, 4), "observations Box.* are no pictures"),
        (pictures(4), "observations Box.* are no pictures"),
        (gymnasium.spaces.Dict({"picture": pictures(4, 4)}), "observations Dict.* are no pictures"),
        (gymnasium.spaces.Discrete(2), "observations Discrete.* are no pictures"),
    ],
)
def test_what_is_no_picture_is_one_line(space: gymnasium.Space[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Screen(Shows(space), height=2, width=2)


@pytest.mark.parametrize("size", [{"height": 0, "width": 2}, {"height": 2, "width": 2.5}])
def test_a_size_of_a_screen_is_whole_and_positive(size: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be a positive whole number, not"):
        Screen(Shows(pictures(4, 4)), **size)
