"""Policies that Stable-Baselines3 itself has saved, imported without unpickling, against its own actions."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from actors.errors import UserError
from actors.policy import Policy
from learner.keeping.policies import find_policy
from serve.hub.formats.sb3_names import environment_of, named_environment
from serve.import_sb3 import import_sb3, main
from tests.serve.sb3_files import data_changed, rewrite, saved, weights_changed


def wordy(content: bytes) -> bytes:
    """A policy.pth whose pickle is megabytes of nothing, which pack well."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, b"N0" * 3 * 1024**2 if name.endswith("data.pkl") else old.read(name))
    return buffer.getvalue()


def older(content: bytes) -> bytes:
    """A policy.pth as torch wrote it before 1.6."""
    buffer = io.BytesIO()
    state = torch.load(io.BytesIO(content), weights_only=True)
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def ppo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "ppo-CartPole-v1.zip"
    saved(path, "PPO", "CartPole-v1", n_steps=32, batch_size=32)
    return path


@pytest.mark.parametrize(
    ("algorithm", "env_id", "kwargs"),
    [
        ("PPO", "LunarLander-v3", {"policy_kwargs": {"net_arch": {"pi": [32, 16, 8], "vf": [64]}}}),
        ("A2C", "CartPole-v1", {"policy_kwargs": {"activation_fn": torch.nn.ReLU, "net_arch": [48]}}),
        ("A2C", "Pendulum-v1", {"policy_kwargs": {"activation_fn": torch.nn.ELU}}),
        ("PPO", "Pendulum-v1", {"policy_kwargs": {"net_arch": []}}),
    ],
)
def test_it_acts_as_stable_baselines3_does(
    algorithm: str, env_id: str, kwargs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"{algorithm.lower()}-{env_id}.zip"
    model = saved(file, algorithm, env_id, **kwargs)
    main([str(file), "--to", str(tmp_path / "run")])
    policy = find_policy(tmp_path / "run")
    assert policy.spec.env_id == env_id
    trained = policy.spec.trained
    assert (trained["algorithm"], trained["library"], trained["source"]) == (
        *(algorithm, "stable-baselines3", file.name),
    )
    space = gymnasium.make(env_id).observation_space
    observations = np.random.default_rng(0).standard_normal((1000, *space.shape), np.float32)
    theirs, _ = model.predict(observations, deterministic=True)
    if policy.spec.distribution == "categorical":
        np.testing.assert_array_equal(policy.act(observations), theirs)
        assert len(np.unique(theirs)) > 1
    else:
        np.testing.assert_allclose(policy.act(observations), theirs, atol=1e-5)
        np.testing.assert_array_equal(policy.weights["log_std"], model.policy.log_std.detach().numpy())
    assert "VecNormalize" in capsys.readouterr().out


def test_a_retired_environment_gives_way_to_its_successor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "ppo-LunarLander-v2.zip", "PPO", "LunarLander-v3")
    main([str(tmp_path / "ppo-LunarLander-v2.zip"), "--to", str(tmp_path / "run")])
    assert Policy.load(tmp_path / "run" / "policy").spec.env_id == "LunarLander-v3"
    assert "LunarLander-v2 is retired" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("ppo/LunarLander-v2.zip", "LunarLander-v2"),
        ("LunarLander-v2.zip", "LunarLander-v2"),
        ("ppo-LunarLander-v2.zip", "LunarLander-v2"),
        ("a2c_CartPole-v1.zip", "CartPole-v1"),
        ("sb3-trpo-CartPole-v1.zip", "CartPole-v1"),
        ("CartPole-v1_3/best_model.zip", "CartPole-v1"),
        ("ppo-CartPole-v1/model.zip", "CartPole-v1"),
        ("CartPole-v0/MountainCar-v0.zip", "MountainCar-v0"),
        ("CartPole-v1_3/model-v2.zip", "CartPole-v1"),
        ("runs-v2/ppo_My-Own-v0.zip", "My-Own-v0"),
        ("My-Own-v0.zip", "My-Own-v0"),
    ],
)
def test_an_environment_is_named_by_its_file_or_by_the_folder_it_is_in(name: str, env_id: str, tmp_path: Path) -> None:
    assert named_environment(tmp_path / name) == env_id


def test_of_a_successor_that_cannot_be_made_the_next_one_is_taken() -> None:
    gymnasium.register("Retired-v3", "gymnasium.envs.no_such_module:Env")
    gymnasium.register("Retired-v5", "gymnasium.envs.classic_control.cartpole:CartPoleEnv")
    try:
        assert environment_of("Retired-v2").env_id == "Retired-v5"
        assert environment_of("Retired-v2(sutton_barto_reward=True)").env_id == "Retired-v5(sutton_barto_reward=True)"
        gymnasium.registry.pop("Retired-v5")
        with pytest.raises(UserError, match="no_such_module"):
            environment_of("Retired-v3")
    finally:
        gymnasium.registry.pop("Retired-v3")


def test_layers_that_older_versions_shared_come_first(ppo: Path, tmp_path: Path) -> None:
    def share(state: dict[str, Any]) -> dict[str, Any]:
        return {
            name.replace("policy_net.0", "shared_net.0").replace("policy_net.2", "policy_net.0"): value
            for name, value in state.items()
            if "mlp_extractor.value_net" not in name
        }

    older = rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", policy=weights_changed(share))
    observations = np.random.default_rng(0).standard_normal((100, 4), np.float32)
    np.testing.assert_array_equal(import_sb3(older).forward(observations), import_sb3(ppo).forward(observations))


def test_weights_of_torch_before_1_6_are_the_same(ppo: Path, tmp_path: Path) -> None:
    file = rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", policy=older)
    theirs, ours = import_sb3(file).weights, import_sb3(ppo).weights
    for name, weight in ours.items():
        np.testing.assert_array_equal(theirs[name], weight)


def test_nothing_is_unpickled(ppo: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    class Trap:
        def __reduce__(self) -> Any:
            return touched.touch, ()

    def with_trap(content: bytes) -> bytes:
        import base64

        data = json.loads(content)
        trap = base64.b64encode(pickle.dumps(Trap())).decode()
        for entry in data.values():
            if isinstance(entry, dict) and ":serialized:" in entry:
                entry[":serialized:"] = trap
        return json.dumps(data).encode()

    pickle.loads(pickle.dumps(Trap()))
    assert touched.exists(), "the trap works"
    touched.unlink()
    import_sb3(rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", data=with_trap))
    buffer, old_buffer = io.BytesIO(), io.BytesIO()
    torch.save({"a": Trap()}, buffer)
    torch.save({"a": Trap()}, old_buffer, _use_new_zipfile_serialization=False)
    for content in (buffer.getvalue(), old_buffer.getvalue(), pickle.dumps(Trap())):
        trapped = rewrite(ppo, tmp_path / "a2c-CartPole-v1.zip", policy=lambda _, content=content: content)
        with pytest.raises(UserError, match="is damaged"):
            import_sb3(trapped)
    assert not touched.exists()


def test_what_cannot_be_imported_is_refused_by_name(ppo: Path, tmp_path: Path) -> None:
    saved(
        *(tmp_path / "ppo-Pendulum-v1.zip", "PPO", "Pendulum-v1"), use_sde=True, policy_kwargs={"squash_output": True}
    )
    saved(tmp_path / "a2c-Pendulum-v1.zip", "A2C", "Pendulum-v1", use_sde=True, policy_kwargs={"net_arch": []})
    gelu = {"policy_kwargs": {"activation_fn": torch.nn.GELU}}
    saved(tmp_path / "a2c-CartPole-v1.zip", "A2C", "CartPole-v1", **gelu)
    cnn = {"features_extractor.cnn.0.weight": torch.zeros(1)}
    rewrite(ppo, tmp_path / "cnn-CartPole-v1.zip", policy=weights_changed(lambda state: state | cnn))
    rewrite(
        ppo, tmp_path / "huge.zip", policy=weights_changed(lambda _: {"log_std": torch.zeros(1).expand(10**6, 10**6)})
    )
    rewrite(ppo, tmp_path / "bomb-CartPole-v1.zip", data=lambda _: b" " * (9 * 1024**2))
    understated = (tmp_path / "bomb-CartPole-v1.zip").read_bytes()
    understated = understated.replace((9 * 1024**2).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    (tmp_path / "understated-CartPole-v1.zip").write_bytes(understated)
    described = rewrite(ppo, tmp_path / "described-CartPole-v1.zip", policy=wordy)
    counts = {"counts-CartPole-v1.zip": torch.zeros(3, dtype=torch.int64)}
    rewrite(ppo, tmp_path / "counts-CartPole-v1.zip", policy=weights_changed(lambda state: state | counts))
    long = b"\x80\x02X" + (5 * 1024**2).to_bytes(4, "little") + bytes(5 * 1024**2) + b"."
    rewrite(ppo, tmp_path / "older-CartPole-v1.zip", policy=lambda content: long + older(content))
    (tmp_path / "text-CartPole-v1.zip").write_text("no zip file")
    (tmp_path / "short-CartPole-v1.zip").write_bytes(ppo.read_bytes()[:3000])
    rotten = bytearray(ppo.read_bytes())
    rotten[100:140] = bytes(40)
    (tmp_path / "rotten-CartPole-v1.zip").write_bytes(rotten)
    with zipfile.ZipFile(tmp_path / "other-CartPole-v1.zip", "w") as other:
        other.writestr("notes.txt", "no policy")
    for name, said in {
        "ppo-Pendulum-v1.zip": "squash_output=True",
        "a2c-Pendulum-v1.zip": "last hidden layer; this one has none",
        "a2c-CartPole-v1.zip": "activation is GELU",
        "cnn-CartPole-v1.zip": "CnnPolicy",
        "huge.zip": "tensors of more than 268,435,456 bytes",
        "bomb-CartPole-v1.zip": "data unpacks to more than 8,388,608 bytes",
        "understated-CartPole-v1.zip": "is damaged, or no zip file",
        described.name: "describes its tensors in more than",
        "counts-CartPole-v1.zip": "is no weight of a network",
        "older-CartPole-v1.zip": "describes its tensors in more than",
        "text-CartPole-v1.zip": "is damaged, or no zip file",
        "short-CartPole-v1.zip": "is damaged, or no zip file",
        "rotten-CartPole-v1.zip": "is damaged, or no zip file",
        "other-CartPole-v1.zip": "there is no policy.pth in it",
    }.items():
        with pytest.raises(UserError, match=said) as refused:
            import_sb3(tmp_path / name)
        assert "\n" not in str(refused.value)


THEIRS = {"cg_max_steps": 15, "cg_damping": 0.1, "n_critic_updates": 20, "clip_range": None, "n_epochs": None}
"""What a file of TRPO has, and has not, unlike one of PPO."""


def test_trpo_is_not_taken_for_a2c(ppo: Path, tmp_path: Path) -> None:
    trpo = rewrite(ppo, tmp_path / "trpo-CartPole-v1.zip", data=data_changed(**THEIRS))
    policy = import_sb3(trpo)
    assert policy.spec.trained["algorithm"] == "TRPO"
    observations = np.random.default_rng(0).standard_normal((100, 4), np.float32)
    np.testing.assert_array_equal(policy.forward(observations), import_sb3(ppo).forward(observations))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("sb3_contrib.common.maskable.policies", "this is MaskablePPO"),
        ("sb3_contrib.tqc.policies", "this is TQC"),
        ("sb3_contrib.ars.policies", "this is ARS"),
        ("sb3_contrib.crossq.policies", "this is CrossQ"),
    ],
)
def test_other_algorithms_are_called_what_they_are(ppo: Path, tmp_path: Path, module: str, said: str) -> None:
    changed = data_changed(policy_class={":type:": "<class 'abc.ABCMeta'>", "__module__": module})
    other = rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", data=changed)
    with pytest.raises(UserError, match=said):
        import_sb3(other)


def test_an_algorithm_that_nobody_knows_is_not_guessed(ppo: Path, tmp_path: Path) -> None:
    other = rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", data=data_changed(clip_range=None, n_epochs=None))
    with pytest.raises(UserError, match="unknown algorithm"):
        import_sb3(other)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("_n_updates", True),
        ("_n_updates", 7.0),
        ("_n_updates", -1),
        ("_n_updates", 10**400),
        ("num_timesteps", "many"),
        ("seed", True),
        ("seed", [1]),
    ],
)
def test_a_count_of_another_type_is_damage(ppo: Path, tmp_path: Path, entry: str, value: Any) -> None:
    odd = rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", data=data_changed(**{entry: value}))
    with pytest.raises(UserError, match=f"its {entry} must be a whole number"):
        import_sb3(odd)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"\xff", b""])
def test_data_that_are_no_json_object_are_damage(ppo: Path, tmp_path: Path, text: bytes) -> None:
    odd = rewrite(ppo, tmp_path / "ppo-CartPole-v1.zip", data=lambda _: text)
    with pytest.raises(UserError, match=r"its data (is damaged or not JSON|are no JSON object)"):
        import_sb3(odd)


def test_a_bad_request_is_one_line_and_leaves_nothing(
    ppo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unnamed = tmp_path / "best_model.zip"
    unnamed.write_bytes(ppo.read_bytes())
    for arguments, said in (
        ([ppo, "--env", "LunarLander-v3"], "does not fit LunarLander-v3"),
        ([ppo, "--env", "CartPoole-v1"], "did you mean CartPole-v1"),
        ([ppo, "--activation", "gelu"], "must be one of tanh, relu, elu"),
        ([unnamed], "give --env"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), "--to", str(tmp_path / "run")])
        assert end.value.code == 2
        told = capsys.readouterr().err.strip()
        assert said in told
        assert "\n" not in told
        assert [path.name for path in tmp_path.iterdir()] == ["best_model.zip"]
    relu = import_sb3(unnamed, "CartPole-v1", "relu")
    assert relu.spec.network.activation == "relu"
