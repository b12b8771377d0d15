"""What is wrong with an environment, in one line that names it and the method."""

import logging
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.check_env import main, try_out
from actors.environments import describe
from actors.errors import UserError
from actors.evaluation import fly_episodes
from tests.actors.examples import policy_for
from tests.actors.fake_environments import Wrong, old_step


class Sized(Wrong):
    def __init__(self, size: int) -> None:
        super().__init__()


class Spaceless(Wrong):
    observation_space: Any = None


class Seedless(Wrong):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


def crash(_: Any) -> Any:
    raise RuntimeError("the lander\nis on fire")


def leave(_: Any) -> Any:
    raise SystemExit(0)


class Clinging(Wrong):
    def close(self) -> None:
        raise RuntimeError("the door is stuck")


def at(index: int, value: Any) -> Any:
    return lambda result: (*result[:index], value, *result[index + 1 :])


FAULTS = [
    (Sized, {}, "environment 'Odd-v0' cannot be made: __init__ raised TypeError: ", "'size'"),
    (Spaceless, {}, "environment 'Odd-v0' cannot be made: ", "observation space"),
    (Seedless, {}, "Odd-v0: reset raised TypeError: ", "unexpected keyword argument 'seed'"),
    (Wrong, {"on_reset": crash}, "Odd-v0: reset raised RuntimeError: the lander is on fire", ""),
    (Wrong, {"on_step": leave}, "Odd-v0: step raised SystemExit: 0", ""),
    (
        Wrong,
        {"on_step": crash},
        "Odd-v0: step raised RuntimeError: the lander is on fire",
        "python -m actors.check_env Odd-v0",
    ),
    (Wrong, {"on_reset": lambda result: result[0]}, "Odd-v0: reset must return (observation, info), not an array", ""),
    (Wrong, {"on_step": old_step}, "Odd-v0: step must return (observation, reward, ", "not 4 values"),
    (Wrong, {"on_reset": at(0, np.zeros(4, np.float32))}, "Odd-v0: reset gives an observation of shape (4,); ", "(3,)"),
    (Wrong, {"on_step": at(0, np.zeros((3, 1)))}, "Odd-v0: step gives an observation of shape (3, 1); ", "(3,)"),
    (
        Wrong,
        {"on_reset": at(0, np.full(3, np.nan, np.float32))},
        "Odd-v0: reset gives an observation that holds a NaN",
        "",
    ),
    (Wrong, {"on_step": at(0, np.array(["a"] * 3))}, "Odd-v0: step gives an observation of <U1; ", "float32"),
    (Wrong, {"on_step": at(1, np.array([1.0]))}, "Odd-v0: step must return a number as the reward, not ", "(1,)"),
    (Wrong, {"on_step": at(1, None)}, "Odd-v0: step must return a number as the reward, not None", ""),
    (Wrong, {"on_step": at(2, "no")}, "Odd-v0: step must return True or False for terminated, not 'no'", ""),
    (Wrong, {"on_step": at(3, None)}, "Odd-v0: step must return True or False for truncated, not None", ""),
]


def inspect(env_id: str) -> None:
    """As a run does before it starts."""
    describe(env_id)
    try_out(env_id)


@pytest.fixture
def odd() -> Iterator[Any]:
    """Registers Odd-v0."""

    def register(made_by: Any, options: dict[str, Any]) -> None:
        gymnasium.register("Odd-v0", entry_point=made_by, kwargs=options, max_episode_steps=9)

    yield register
    gymnasium.registry.pop("Odd-v0", None)


@pytest.mark.parametrize(("made_by", "options", "begin", "also"), FAULTS)
def test_a_fault_is_one_line(
    odd: Any, made_by: Any, options: Any, begin: str, also: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd(made_by, options)
    with caplog.at_level(logging.DEBUG, "touchdown"), pytest.raises(UserError) as caught:
        inspect("Odd-v0")
    message = str(caught.value)
    assert message.startswith(begin)
    assert also in message
    assert "\n" not in message
    assert ("raised" in message) == ("Traceback" in caplog.text)  # at hand, for who asks


@pytest.mark.parametrize("reward", [1, 1.0, True, np.float32(1), np.int64(1), np.array(1.0)])
def test_numbers_are_rewards(odd: Any, reward: Any) -> None:
    odd(Wrong, {"on_step": at(1, reward)})
    assert try_out("Odd-v0") == []


def test_a_dtype_that_can_be_cast_is_a_word_in_the_log(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    odd(Wrong, {"on_reset": at(0, np.zeros(3))})
    try_out("Odd-v0")
    assert "Odd-v0: reset gives float64; its observation_space is of float32" in caplog.text


def test_closing_that_raises_is_a_line_in_the_log(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    odd(Clinging, {"on_step": at(2, True)})
    inspect("Odd-v0")
    fly_episodes(policy_for("Odd-v0"), [1, 2])
    assert {record.getMessage() for record in caplog.records} == {
        "Odd-v0: close raised RuntimeError: the door is stuck"
    }


@pytest.mark.parametrize("name", ["Nope-v0", "no_such_module:Nope-v0"])
def test_an_unknown_name_is_one_line_of_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name])
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "Nope-v0" in said or "no_such_module" in said


def test_the_command_praises_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    main(["CartPole-v1", "--steps", "200"])
    assert "CartPole-v1 keeps to Gymnasium's interface" in capsys.readouterr().out


def test_the_command_shows_where_it_went_wrong(odd: Any, capsys: pytest.CaptureFixture[str]) -> None:
    odd(Wrong, {"on_step": crash})
    with pytest.raises(SystemExit) as end:
        main(["Odd-v0"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "in crash" in said
    assert said.splitlines()[-1].startswith(
        "python -m actors.check_env: error: Odd-v0: step raised RuntimeError: the lander"
    )
