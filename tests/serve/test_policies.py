"""What is served, and what is refused in its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from actors.errors import UserError
from actors.policy import Policy
from serve.policies import Policies
from tests.actors.examples import policy_for, stubborn_policy
from tests.serve.served import save


def test_a_run_and_a_bare_directory(tmp_path: Path) -> None:
    policy = policy_for("LunarLander-v3")
    policies = Policies(
        {"run": save(policy, tmp_path / "run" / "policy").parent, "bare": save(policy, tmp_path / "bare")}
    )
    assert list(policies) == ["run", "bare"]
    assert policies.find(None).name == "run"
    assert policies.find("bare").summary()["env_id"] == "LunarLander-v3"
    with pytest.raises(UserError, match="unknown policy 'bar'; did you mean bare"):
        policies.find("bar")


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no policy to serve"):
        Policies({})
    with pytest.raises(UserError, match="no policy in"):
        Policies({"a": tmp_path})


def test_a_newer_version_is_swapped_in_and_nothing_is_read_twice(tmp_path: Path) -> None:
    save(stubborn_policy("LunarLander-v3", 1), tmp_path, version=1)
    policies = Policies({"lander": tmp_path})
    before = policies["lander"]
    assert policies.refresh() == []
    save(stubborn_policy("LunarLander-v3", 2), tmp_path, version=2)
    assert [(served.version, served.reloads) for served in policies.refresh()] == [(2, 1)]
    assert policies["lander"].policy.act(np.zeros((1, 8), np.float32)) == [2]
    assert before.version == 1, "requests under way keep theirs"
    assert policies.refresh() == []


def broken(directory: Path, how: str) -> None:
    file = directory / "policy.safetensors"
    if how == "cut short":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "gone":
        file.unlink()
    elif how == "not finite":
        policy = stubborn_policy("LunarLander-v3", 1, version=3)
        policy.weights["b0"][:] = np.float32(3e38)
        policy.weights["w0"][:] = np.float32(3e38)
        policy.save(directory)
    elif how == "other spaces":
        save(policy_for("CartPole-v1"), directory)
    else:
        wrong = policy_for("CartPole-v1")
        Policy(dataclasses.replace(wrong.spec, env_id="LunarLander-v3"), wrong.weights).save(directory)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut short", "damaged"),
        ("gone", "policy.safetensors is missing"),
        ("not finite", "outputs hold NaNs"),
        ("other spaces", "serve it under another name"),
        ("not its environment's", r"its observation_shape is \(4,\), LunarLander-v3 has \(8,\)"),
    ],
)
def test_a_broken_version_is_refused_until_it_changes(
    tmp_path: Path, how: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(stubborn_policy("LunarLander-v3", 1), tmp_path, version=1)
    policies = Policies({"lander": tmp_path})
    broken(tmp_path, how)
    (refused,) = policies.refresh()
    assert (refused.version, refused.refusals) == (1, 1)
    assert refused.refused is not None
    assert said.replace("\\", "") in refused.refused
    assert "version 1 stays" in caplog.text
    assert policies.refresh() == [], "what was refused is not tried again"
    save(stubborn_policy("LunarLander-v3", 2), tmp_path, version=4)
    (taken,) = policies.refresh()
    assert (taken.version, taken.reloads, taken.refusals, taken.refused) == (4, 1, 1, None)


def test_a_policy_whose_environment_is_not_installed_acts_all_the_same(tmp_path: Path) -> None:
    policy = policy_for("CartPole-v1")
    Policy(dataclasses.replace(policy.spec, env_id="Somewhere-v0"), policy.weights).save(tmp_path)
    assert Policies({"a": tmp_path})["a"].policy.act(np.zeros((1, 4), np.float32)).shape == (1,)
