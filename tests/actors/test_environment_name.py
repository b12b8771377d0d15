"""Names of environments: read, written again, refused in one line, and made."""

from __future__ import annotations

from keyword import iskeyword
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from actors.environment_name import EnvironmentName, WrapperName, named, parse
from actors.environments import describe
from actors.errors import UserError
from actors.making import make_gymnasium
from actors.trust import require_named
from actors.vectors import envpool_lacks, make_environments

WINDY = "LunarLander-v3(enable_wind=True, wind_power=15.0)"


class Scaled(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A user's wrapper."""

    def __init__(self, env: gymnasium.Env[Any, Any], factor: float = 1.0) -> None:
        super().__init__(env)
        self.factor = factor

    def observation(self, observation: Any) -> Any:
        return np.float32(self.factor) * observation


class Forgetful(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Its author forgot to call the base class."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env


def no_wrapper(env: gymnasium.Env[Any, Any]) -> int:
    return 3


SCALED = f"{__name__}:Scaled"


def test_a_name_in_its_parts() -> None:
    name = parse(f"my.module:space/Ship-v2(size=(1, 2), label='a) | b') | TimeAwareObservation|{SCALED}(factor=2)")
    assert name == EnvironmentName(
        "space/Ship-v2",
        "my.module",
        {"size": (1, 2), "label": "a) | b"},
        (WrapperName("TimeAwareObservation"), WrapperName(SCALED, {"factor": 2})),
    )
    assert name.made == "my.module:space/Ship-v2"
    assert name.modules == ["my.module", __name__]
    assert name.slug == "space-Ship-v2"
    assert parse(str(name)) == name
    assert parse("CartPole-v1") == EnvironmentName("CartPole-v1")


literals = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.text(max_size=8)
    | some.floats(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner, max_size=3),
    max_leaves=4,
)
identifiers = some.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True).filter(
    lambda key: key != "id" and not iskeyword(key)
)
arguments = some.dictionaries(identifiers, literals, max_size=3)
wrappers = some.lists(some.builds(WrapperName, some.sampled_from(["Clip", "a.b:C"]), arguments), max_size=2)


@given(arguments, wrappers)
def test_what_is_written_is_read_again(options: dict[str, Any], around: list[WrapperName]) -> None:
    name = EnvironmentName("Id-v0", "mod", options, tuple(around))
    assume(len(str(name)) <= 1000)
    assert parse(str(name)) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "give a Gymnasium id, such as LunarLander-v3"),
        ("CartPole-v1 TimeLimit", "write wrappers so: CartPole-v1 | TimeAwareObservation"),
        ("CartPole-v1 | ", "is no environment"),
        ("CartPole-v1(", "what is in the brackets after CartPole-v1 is not name=value"),
        ("CartPole-v1(1)", r"arguments are given by name, as in CartPole-v1\(name=value\)"),
        ("CartPole-v1(a=b)", "CartPole-v1: a must be a number, a text in quotes"),
        ("CartPole-v1(a=__import__('os'))", "must be a number, a text in quotes"),
        ("CartPole-v1(**{})", "must be a number"),
        ("CartPole-v1(x=1, x=2)", "x is given twice"),
        ("CartPole-v1(x=" + "-" * 900 + "1)", "CartPole-v1"),
        ("CartPole-v1 | 1x", "give a wrapper's name after"),
        ("CartPole-v1(render_mode='human')", "render_mode is not yours to choose"),
        ("CartPole-v1 | RecordVideo(video_folder='/')", "wrapper RecordVideo is not for environments that are trained"),
        ("CartPole-v1(a='" + "x" * 1000 + "')", "has 1000 characters at most"),
        ("CartPole-v1" + "(" * 500, "what is in the brackets"),
    ],
)
def test_what_is_no_name(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_more_arguments_and_wrappers() -> None:
    assert named("FrozenLake-v1", ["map_name=8x8", "is_slippery=False"], []) == (
        "FrozenLake-v1(map_name='8x8', is_slippery=False)"
    )
    assert named(WINDY, ["wind_power=5"], ["TimeAwareObservation", f"{SCALED}(factor=2)"]) == (
        f"LunarLander-v3(enable_wind=True, wind_power=5) | TimeAwareObservation | {SCALED}(factor=2)"
    )
    assert (
        named("CartPole-v1", [], [f"{SCALED} | TimeAwareObservation"])
        == f"CartPole-v1 | {SCALED} | TimeAwareObservation"
    )
    with pytest.raises(UserError, match="env_kwargs gives gravity twice"):
        named("LunarLander-v3", ["gravity=-5", "gravity=-6"], [])
    with pytest.raises(UserError, match="env_kwargs takes name=value, such as enable_wind=True, not 'wind'"):
        named("LunarLander-v3", ["wind"], [])


def test_it_is_made_as_it_says() -> None:
    env = make_gymnasium(f"{WINDY} | {SCALED}(factor=2) | TimeAwareObservation")
    bare: Any = env.unwrapped
    assert (bare.enable_wind, bare.wind_power) == (True, 15.0)
    assert env.observation_space.shape == (9,)
    plain = make_gymnasium(WINDY)
    np.testing.assert_allclose(env.reset(seed=3)[0][:8], 2 * plain.reset(seed=3)[0])
    assert describe("LunarLander(enable_wind=True)").env_id == "LunarLander-v3(enable_wind=True)"
    assert describe("CartPole-v1(max_episode_steps=30)").max_episode_steps == 30
    exec("\n".join(["import gymnasium", *parse(f"{WINDY} | {SCALED}(factor=2)").code()]), scope := {})
    assert isinstance(scope["env"], Scaled)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("LunarLander-v3(wnd=1)", "'LunarLander-v3.wnd=1.' cannot be made: __init__ raised TypeError: .*wnd"),
        ("LunarLnder-v3(wind_power=1)", "unknown environment 'LunarLnder-v3'; did you mean LunarLander-v3"),
        ("CartPole-v1 | TimeAwareObservations", "unknown wrapper 'TimeAwareObservations'; did you mean TimeAwareObs"),
        ("CartPole-v1 | no.such:Wrapper", "wrapper 'no.such:Wrapper': No module named 'no'"),
        (f"CartPole-v1 | {SCALED}(fctor=1)", r"Scaled\(fctor=1\) raised TypeError: .*fctor"),
        (f"CartPole-v1 | {__name__}:Forgetful", "Forgetful raised AttributeError"),
        (
            "CartPole-v1 | tests.learner.broken_module:Wrapper",
            "importing tests.learner.broken_module raised RuntimeError",
        ),
        (f"CartPole-v1 | {__name__}:no_wrapper", "no_wrapper makes no environment, but int"),
    ],
)
def test_what_cannot_be_made(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        describe(text)
    assert "\n" not in str(error.value)


def test_who_flies_it() -> None:
    assert envpool_lacks(describe(WINDY)) == "EnvPool has no argument enable_wind of it"
    assert (
        envpool_lacks(describe("CartPole-v1 | TimeAwareObservation")) == "wrapper TimeAwareObservation is Gymnasium's"
    )
    assert envpool_lacks(describe("CartPole-v1(max_episode_steps=30)")) is None
    hardcore = "BipedalWalker-v3(hardcore=True)"
    assert make_environments(hardcore, 1, 0).backend == "envpool"
    assert make_environments(WINDY, 1, 0).backend == "gymnasium"
    environments = make_environments("CartPole-v1(max_episode_steps=5)", 1, 0)
    environments.reset()
    ends = [environments.step(np.zeros(1, np.int64), np.zeros(1, np.int64))[3][0] for _ in range(5)]
    assert ends == [False] * 4 + [True]


def test_no_name_imports_what_nobody_named() -> None:
    name = f"my.module:Ship-v0 | Clip | {SCALED}"
    with pytest.raises(UserError, match=r"would import my\.module, which nobody named: add --module my.module"):
        require_named(name, [])
    with pytest.raises(UserError, match=f"would import {__name__}"):
        require_named(name, ["my.module"])
    require_named(name, ["my.module", __name__])
    require_named("CartPole-v1 | TimeAwareObservation", [])
