"""What is served, and what is refused in its place."""

from __future__ import annotations

import dataclasses
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.numpy

import serve.service.policies
from actors.environments import describe
from actors.errors import UserError
from actors.policy import Policy
from learner.run.run_directory import RunDirectory
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from serve.watch.flight import Flight
from tests.actors.examples import policy_for, random_policy, stubborn_policy
from tests.learner.link import Link
from tests.serve.served import running, save, valued


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


def test_a_run_in_an_object_store_and_its_newer_version(s3: Link) -> None:
    run = RunDirectory("s3://bucket/runs/first")
    policy = policy_for("LunarLander-v3")
    with pytest.raises(UserError, match="no policy in s3://bucket/runs/first"):
        Policies({"run": "s3://bucket/runs/first"})
    run.write_policy(Policy(dataclasses.replace(policy.spec, version=1), policy.weights))
    policies = Policies({"run": "s3://bucket/runs/first"})
    assert policies["run"].version == 1
    assert policies.refresh() == []
    run.write_policy(Policy(dataclasses.replace(policy.spec, version=2), policy.weights))
    s3.mode = "cut"
    policies.refresh()
    assert policies["run"].version == 1, "the one that is served stays while the store is away"
    s3.mode = "open"
    policies.refresh()
    assert (policies["run"].version, policies["run"].refused) == (2, None)


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


def test_standard_deviations_are_told_in_the_actions_units(tmp_path: Path) -> None:
    policy = policy_for("Pendulum-v1")  # whose torques lie within ±2
    policies = Policies({"scaled": save(policy, tmp_path / "a")})
    assert policies["scaled"].shown_once == {"std": pytest.approx((2 * np.exp(policy.weights["log_std"])).tolist())}


def test_as_many_actions_are_told_as_there_are(tmp_path: Path) -> None:
    spec = describe("Pendulum-v1").policy_spec(hidden_sizes=(), distribution="squashed_gaussian")
    policies = {
        "values": valued("CartPole-v1", 1, 2),
        "squashed": random_policy(spec),
        "plain": policy_for("Acrobot-v1"),
    }
    served = Policies({name: save(policy, tmp_path / name) for name, policy in policies.items()})
    told = {name: (one.summary()["actions"], one.summary()["action_size"]) for name, one in served.items()}
    assert told == {
        "values": ("epsilon_greedy", 2),
        "squashed": ("squashed_gaussian", 1),
        "plain": ("categorical", 3),
    }


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
        ("not its environment's", "its observation is 4 numbers, LunarLander-v3 has 8 numbers"),
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
    assert said in refused.refused
    assert "version 1 stays" in caplog.text
    assert policies.refresh() == [], "what was refused is not tried again"
    save(stubborn_policy("LunarLander-v3", 2), tmp_path, version=4)
    (taken,) = policies.refresh()
    assert (taken.version, taken.reloads, taken.refusals, taken.refused) == (4, 1, 1, None)


def test_a_policy_whose_environment_is_not_installed_acts_all_the_same(tmp_path: Path) -> None:
    policy = policy_for("CartPole-v1")
    Policy(dataclasses.replace(policy.spec, env_id="Somewhere-v0"), policy.weights).save(tmp_path)
    assert Policies({"a": tmp_path})["a"].policy.act(np.zeros((1, 4), np.float32)).shape == (1,)


def save_oddly(directory: Path, **spec: Any) -> None:
    """A policy for LunarLander whose spec says something else of itself."""
    policy = stubborn_policy("LunarLander-v3", 1)
    data = json.dumps(dataclasses.asdict(policy.spec) | spec)
    safetensors.numpy.save_file(policy.weights, directory / "policy.safetensors", {"spec": data})


@pytest.mark.parametrize(
    "odd",
    [
        {"env_id": 7},
        {"env_id": "Moon-v0\x1b[2J"},
        {"observation": {"kind": "box", "shape": [8.0]}},
        {"observation": {"kind": "box", "shape": [1, 1, 2**40, 2**24]}},
        {"observation": {"kind": "discrete", "n": 8}},
        {"version": "x"},
        {"version": None},
        {"version": 10**400},
        {"trained": {"by": "\ud800"}},
        {"trained": {"by": float("nan")}},
    ],
)
def test_an_odd_file_stops_neither_the_others_nor_the_list(tmp_path: Path, odd: dict[str, Any]) -> None:
    for name in ("odd", "good"):
        save(stubborn_policy("LunarLander-v3", 1), tmp_path / name, version=1)
    policies = Policies({"odd": tmp_path / "odd", "good": tmp_path / "good"})
    save_oddly(tmp_path / "odd", **odd)
    save(stubborn_policy("LunarLander-v3", 2), tmp_path / "good", version=2)
    refused, renewed = policies.refresh()
    assert (refused.version, renewed.version) == (1, 2)
    with running(Service(policies, HttpConfig(access_log=False))) as address:
        listed = json.load(urllib.request.urlopen(f"{address}/policies"))["policies"]
    assert [(one["version"], bool(one["refused"])) for one in listed] == [(1, True), (2, False)]
    assert listed[0]["refused"].isprintable()


def test_what_nobody_thought_of_stops_no_other_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("odd", "good"):
        save(stubborn_policy("LunarLander-v3", 1), tmp_path / name, version=1)
    policies = Policies({"odd": tmp_path / "odd", "good": tmp_path / "good"})

    def fall(policy: Policy, modules: object) -> None:
        if policy.spec.env_id == "Burning-v0":
            raise RuntimeError("the hangar is on fire")

    monkeypatch.setattr(serve.service.policies, "check", fall)
    save_oddly(tmp_path / "odd", env_id="Burning-v0")
    save(stubborn_policy("LunarLander-v3", 2), tmp_path / "good", version=2)
    refused, renewed = policies.refresh()
    assert refused.refused is not None
    assert "the hangar is on fire" in refused.refused
    assert renewed.version == 2
    assert policies.refresh() == []
    assert "the hangar is on fire" in caplog.text


def test_a_name_that_is_no_unicode_can_be_listed(tmp_path: Path) -> None:
    directory = save(stubborn_policy("LunarLander-v3", 1), tmp_path / "caf\udce9")
    with running(Service(Policies({directory.name: directory}), HttpConfig(access_log=False))) as address:
        (listed,) = json.load(urllib.request.urlopen(f"{address}/policies"))["policies"]
    assert listed["name"] == r"caf\udce9"


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that registers Stranger-v0, an environment like CartPole, and is not imported yet."""
    lines = ["import gymnasium", "gymnasium.register('Stranger-v0', 'gymnasium.envs.classic_control:CartPoleEnv')"]
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "strangers_module.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield "strangers_module"
    sys.modules.pop("strangers_module", None)
    gymnasium.registry.pop("Stranger-v0", None)


def test_a_file_does_not_choose_what_is_imported(tmp_path: Path, stranger: str) -> None:
    policy = policy_for("CartPole-v1")
    Policy(dataclasses.replace(policy.spec, env_id=f"{stranger}:Stranger-v0"), policy.weights).save(tmp_path)
    policies = Policies({"a": tmp_path})
    assert policies["a"].policy.act(np.zeros((1, 4), np.float32)).shape == (1,), "acting needs no environment"
    with pytest.raises(UserError, match=f"add --module {stranger} if you trust it"):
        Flight(policies, "a")
    assert stranger not in sys.modules
    assert Flight(Policies({"a": tmp_path}, [stranger]), "a").step().t == 1


def test_the_environment_of_a_module_that_was_named_is_checked(tmp_path: Path, stranger: str) -> None:
    policy = policy_for("LunarLander-v3")
    Policy(dataclasses.replace(policy.spec, env_id=f"{stranger}:Stranger-v0"), policy.weights).save(tmp_path)
    assert Policies({"a": tmp_path})
    with pytest.raises(UserError, match=r"its observation is 8 numbers, .* has 4 numbers"):
        Policies({"a": tmp_path}, [stranger])
