"""Decision Transformers of the transformers library itself, imported without it, against its own actions."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.core import CORE
from actors.errors import NonFiniteError, UserError
from actors.evaluation import fly_episodes
from actors.memory import restarted
from actors.policy import Policy
from learner.keeping.policies import find_policy
from learner.train import main as train
from serve.client import PolicyClient
from serve.import_transformers import Told, import_transformers, main
from serve.publish import main as publish
from serve.service.http import Service
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig
from tests.serve.decision_transformers import Episode, saved
from tests.serve.hub_server import Hub
from tests.serve.served import PATIENCE, PATIENT, running

MEAN = np.array([1.349, -0.1121, -0.5506, -0.1319, -0.0038, 2.6071, 0.0232, -0.0163, -0.0684, -0.0518, 0.0427])
STD = np.array([0.1598, 0.0446, 0.1431, 0.1763, 0.5912, 0.59, 1.5405, 0.8153, 2.0173, 2.4108, 5.844])
TOLD = Told(tuple(MEAN), tuple(STD), 1000.0, 3600.0)
CARD = f"""# Decision Transformer model trained on expert trajectories sampled from the Gym Hopper environment
The following normalization coefficients are required to use this model:

mean = {MEAN.tolist()}

std = {STD.tolist()}
"""


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint with a card as the published ones have, and its model."""
    path = tmp_path_factory.mktemp("checkpoints") / "decision-transformer-gym-hopper"
    model = saved(path)
    (path / "README.md").write_text(CARD)
    return path, model


def changed(hopper: tuple[Path, Any], tmp_path: Path, **config: Any) -> Path:
    """A copy of the checkpoint whose config.json says something else; None: nothing."""
    copy = Path(shutil.copytree(hopper[0], tmp_path / "changed"))
    data = json.loads((copy / "config.json").read_text()) | config
    (copy / "config.json").write_text(json.dumps(data))
    return copy


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices: on a busy machine two threads wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({}, 70),
        ({"n_head": 1, "n_layer": 1, "activation_function": "tanh"}, 24),
        ({"action_tanh": False, "activation_function": "gelu_new", "n_inner": 24, "layer_norm_epsilon": 0.1}, 24),
        ({"scale_attn_weights": False, "activation_function": "silu"}, 24),
        ({"scale_attn_by_inverse_layer_idx": True, "n_layer": 2, "activation_function": "gelu"}, 24),
    ],
    ids=str,
)
def test_it_acts_as_transformers_does_with_episodes_that_end_in_between(
    config: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    model = saved(tmp_path / "checkpoint", **config)
    policy, rng = import_transformers(tmp_path / "checkpoint", "Hopper-v5", TOLD), np.random.default_rng(0)

    def begun() -> Episode:
        return Episode(model, MEAN, STD, 1000.0, 3600.0)

    episodes, memory, seen = [begun() for _ in range(3)], policy.start(3), []
    for number in range(steps):
        states = MEAN + STD * rng.standard_normal((3, 11)) * rng.choice([1, 30], (3, 11), p=[0.95, 0.05])
        step = policy.step(states, memory)
        theirs = np.stack([episode.act(state) for episode, state in zip(episodes, states, strict=True)])
        np.testing.assert_allclose(step.parameters, theirs, atol=1e-4)
        np.testing.assert_allclose(step.actions, np.clip(theirs, -1, 1), atol=1e-4)
        seen.append(theirs)
        rewards = rng.uniform(0, 200, 3)
        for episode, reward in zip(episodes, rewards, strict=True):
            episode.rewarded(reward)
        begins = np.array([False, number == 11, number in (5, 33, 40)])
        memory = restarted(policy.rewarded(step.memory, rewards), begins, policy)
        episodes = [begun() if again else episode for again, episode in zip(begins, episodes, strict=True)]
    assert np.std(np.concatenate(seen), axis=0).min() > 0.05


def test_the_command_makes_a_run_of_a_checkpoint_and_its_card(
    hopper: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = hopper[0]
    main([str(path), "--env", "Hopper-v3", "--scale", "1000", "--target-return", "3600", "--to", str(tmp_path / "run")])
    policy = find_policy(tmp_path / "run")
    for name, weight in import_transformers(path, "Hopper-v5", TOLD).weights.items():
        np.testing.assert_array_equal(policy.weights[name], weight)
    trained = policy.spec.trained
    assert (policy.spec.env_id, policy.spec.target_return) == ("Hopper-v4", 3600)
    assert (trained["library"], trained["source"], trained["scale"]) == ("transformers", path.name, 1000)
    said = " ".join(capsys.readouterr().out.split())
    assert "Hopper-v3 is not there any more, Hopper-v4 is its successor" in said
    assert "Decision Transformer of 3 blocks of 32 units, attending to 20 steps" in said
    assert "from the model card: state_mean and state_std" in said


@pytest.mark.parametrize("form", ["bin", "old bin", "bin in shards", "safetensors in shards", "half"])
def test_any_form_of_its_weights_is_the_same(form: str, hopper: tuple[Path, Any], tmp_path: Path) -> None:
    path = Path(shutil.copytree(hopper[0], tmp_path / "checkpoint"))
    state = load_file(path / "model.safetensors")
    whole = import_transformers(path, "Hopper-v5", TOLD).weights
    (path / "model.safetensors").unlink()
    masks = {"encoder.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}
    masks["encoder.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    if form == "half":
        save_file({name: tensor.bfloat16() for name, tensor in state.items()}, path / "model.safetensors")
        half = import_transformers(path, "Hopper-v5", TOLD).weights
        np.testing.assert_allclose(half["core_state_w"], whole["core_state_w"], rtol=1e-2)
        return
    if form == "safetensors in shards":
        model = hopper[1]
        model.save_pretrained(path, max_shard_size="30KB")
        assert len([*path.glob("model-*.safetensors")]) > 2
    elif form == "bin in shards":
        names = {"pytorch_model-00001-of-00002.bin": {}, "pytorch_model-00002-of-00002.bin": masks}
        for i, name in enumerate(state):
            [*names.values()][i % 2][name] = state[name]
        for file, part in names.items():
            torch.save(part, path / file)
        index = {"weight_map": {name: file for file, part in names.items() for name in part}}
        (path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save(state | masks, path / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
    again = import_transformers(path, "Hopper-v5", TOLD).weights
    for name, array in whole.items():
        np.testing.assert_array_equal(again[name], array)


def test_nothing_is_unpickled(hopper: tuple[Path, Any], tmp_path: Path) -> None:
    path, touched = Path(shutil.copytree(hopper[0], tmp_path / "checkpoint")), tmp_path / "touched"
    (path / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self) -> Any:
            return touched.touch, ()

    torch.save({"embed_ln.weight": Trap()}, path / "pytorch_model.bin")
    for content in ((path / "pytorch_model.bin").read_bytes(), pickle.dumps(Trap())):
        (path / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged, or holds more than tensors"):
            import_transformers(path, "Hopper-v5", TOLD)
    assert not touched.exists()


def test_what_is_given_goes_before_the_card(hopper: tuple[Path, Any]) -> None:
    policy = import_transformers(hopper[0], "Hopper-v5", Told(state_mean=(0.0,) * 11, scale=10, target_return=-5))
    assert (policy.weights["observation_mean"] == 0).all()
    np.testing.assert_array_equal(policy.weights["observation_std"], STD)
    assert policy.weights["observation_std"].dtype == np.float64
    assert policy.asked_for(7.0).start(1)[CORE][0, 3] == 7


@pytest.mark.parametrize(
    ("config", "told", "env_id", "said"),
    [
        (
            {"model_type": "gpt2"},
            TOLD,
            "Hopper-v5",
            "is of a model 'gpt2'; what can be imported is a decision_transfor",
        ),
        ({"n_layer": "3"}, TOLD, "Hopper-v5", "its n_layer must be a whole number, not '3'"),
        ({"n_layer": True}, TOLD, "Hopper-v5", "its n_layer must be a whole number, not 'True'"),
        ({"n_layer": 2}, TOLD, "Hopper-v5", r"encoder\.h\.2\.attn\.c_attn\.bias is \(96,\), config.json has no place"),
        ({"n_layer": 4}, TOLD, "Hopper-v5", r"encoder\.h\.3\.attn\.c_attn\.bias is missing, config.json needs \(96,\)"),
        ({"n_layer": 10**6}, TOLD, "Hopper-v5", "memory_layers must lie between 1 and 64"),
        ({"n_head": 5}, TOLD, "Hopper-v5", "memory_size 32 must be a multiple of memory_heads 5"),
        ({"n_head": 0}, TOLD, "Hopper-v5", "memory_heads must lie between 1 and 64"),
        ({"n_inner": 10**6}, TOLD, "Hopper-v5", "n_inner must lie between 1 and 65536"),
        ({"n_inner": 99}, TOLD, "Hopper-v5", r"c_fc\.bias is \(128,\), config.json needs \(99,\)"),
        ({"hidden_size": 2**30}, TOLD, "Hopper-v5", "n_inner must lie between"),
        ({"hidden_size": 4096, "max_ep_len": 10**6}, TOLD, "Hopper-v5", "MiB, more than 256"),
        ({"max_length": 4096}, TOLD, "Hopper-v5", "memory_window must be smaller"),
        ({"layer_norm_epsilon": 0}, TOLD, "Hopper-v5", "layer_norm_epsilon must lie between 0 and 1"),
        ({"activation_function": "mish"}, TOLD, "Hopper-v5", "activation_function 'mish'"),
        ({}, TOLD, "Walker2d-v5", "it is told of 11 numbers and gives 3, the environment shows 17 numbers"),
        ({}, TOLD, "CartPole-v1", "does not fit CartPole-v1"),
        ({}, TOLD, "Hoper-v5", "Hopper"),
        ({}, Told(), "Hopper-v5", "does not say its scale and target_return: give --scale and --target-return$"),
        ({}, Told(scale=1.0), "Hopper-v5", "does not say its target_return: give --target-return$"),
        (
            {},
            Told((0.0,), scale=1.0, target_return=1.0),
            "Hopper-v5",
            "state_mean has 1 numbers, and a state of the mo",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_imported_is_one_line(
    config: dict[str, Any], told: Told, env_id: str, said: str, hopper: tuple[Path, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        import_transformers(changed(hopper, tmp_path, **config), env_id, told)
    assert "\n" not in str(refused.value)


def test_files_that_are_missing_or_damaged_are_one_line(hopper: tuple[Path, Any], tmp_path: Path) -> None:
    def refused(said: str, files: dict[str, bytes | None]) -> None:
        copy = Path(shutil.copytree(hopper[0], tmp_path / str(len([*tmp_path.iterdir()]))))
        for name, content in files.items():
            if content is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(content)
        with pytest.raises(UserError, match=said) as error:
            import_transformers(copy, "Hopper-v5", TOLD)
        assert "\n" not in str(error.value)

    whole = (hopper[0] / "model.safetensors").read_bytes()
    index = "model.safetensors.index.json"
    refused(r"it has no config\.json", {"config.json": None})
    refused(r"config\.json is damaged or not JSON", {"config.json": b"{"})
    refused(r"config\.json must hold a JSON object, not list", {"config.json": b"[]"})
    refused(r"config\.json has more than 2,097,152 bytes", {"config.json": b" " * (3 * 1024**2)})
    refused(r"it has neither model\.safetensors nor pytorch_model\.bin", {"model.safetensors": None})
    refused(r"model\.safetensors is damaged", {"model.safetensors": whole[:-8]})
    refused(r"model\.safetensors is damaged", {"model.safetensors": b""})
    sharded: dict[str, bytes | None] = {"model.safetensors": None}
    for wrong in (b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": "../secret.bin"}}', b'{"weight_map": {"a": 1}}'):
        refused("its weight_map must name files", {**sharded, index: wrong})
    refused("no a.safetensors, which its index", {**sharded, index: b'{"weight_map": {"a": "a.safetensors"}}'})
    state = load_file(hopper[0] / "model.safetensors")
    counts = tmp_path / "counts.safetensors"
    save_file({**state, "embed_ln.bias": torch.zeros(32, dtype=torch.int64)}, counts)
    refused("'embed_ln.bias' as torch.int64, which is no weight", {"model.safetensors": counts.read_bytes()})
    save_file({**state, "embed_ln.bias": torch.full((32,), torch.nan)}, counts)
    shutil.copytree(hopper[0], tmp_path / "nan")
    shutil.copy(counts, tmp_path / "nan" / "model.safetensors")
    with pytest.raises(NonFiniteError, match="core_token_shift holds a NaN"):
        import_transformers(tmp_path / "nan", "Hopper-v5", TOLD)


def test_a_bad_request_is_one_line_and_leaves_nothing(
    hopper: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, both = str(hopper[0]), ["--scale", "1000", "--target-return", "3600"]
    for arguments, said in (
        ([path, "--env", "Hopper-v5"], "give --scale and --target-return"),
        ([path, "--env", "Walker2d-v5", *both], "does not fit Walker2d-v5"),
        ([path, "--env", "Hopper-v5", *both, "--window", "0"], "window must be 1 or more, not 0"),
        ([path, "--env", "Hopper-v5", *both, "--scale", "0"], "scale must be positive, not 0"),
        (
            [path, "--env", "Hopper-v5", *both, "--state-mean", "1", "-2e-05"],
            "state_mean has 2 numbers, and a state of",
        ),
        ([path, "--env", "Hopper-v5", *both, "--revision", "main"], "--revision is for the Hub"),
        (["no-such-directory", "--env", "Hopper-v5", *both], "is no name of a repository"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--to", str(tmp_path / "run")])
        assert end.value.code == 2
        told = capsys.readouterr().err.strip()
        assert said in told
        assert "\n" not in told
        assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("shards", [False, True])
def test_it_comes_from_the_hub_and_nothing_else_is_fetched(
    shards: bool, hopper: tuple[Path, Any], hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: (hopper[0] / name).read_bytes() for name in ("config.json", "README.md", "model.safetensors")}
    if shards:
        weights, shard = files.pop("model.safetensors"), "model-00001-of-00001.safetensors"
        index = json.dumps({"weight_map": {"embed_ln.bias": shard}}).encode()
        files |= {"model.safetensors.index.json": index, shard: weights}
    hub.add("user/dt", {**files, "pytorch_model.bin": b"a trap", "run.py": b"a trap"})
    main(["user/dt", "--env", "Hopper-v5", "--scale", "1000", "--target-return", "3600", "--to", "theirs"])
    policy = find_policy("theirs")
    for name, weight in import_transformers(hopper[0], "Hopper-v5", TOLD).weights.items():
        np.testing.assert_array_equal(policy.weights[name], weight)
    assert policy.spec.trained["source"] == "user/dt"
    assert [path.name for path in Path("theirs").iterdir()] == ["policy"]
    assert {path.rpartition("/")[2] for path in hub.seen("HEAD", "/resolve/")} == files.keys()


def test_a_repository_without_a_checkpoint_is_one_line(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("user/empty", {"config.json": b"{}"})
    hub.add("user/talks", {"config.json": b" " * 3_000_000, "model.safetensors": b""})
    for repo, said in (
        ("user/empty", "user/empty holds no weights of transformers"),
        ("user/talks", "user/talks has a config.json of 3 MB: it is not fetched"),
        ("user/nobody", "no repository user/nobody that you may read"),
    ):
        with pytest.raises(SystemExit):
            main([repo, "--env", "Hopper-v5", "--to", "theirs"])
        assert said in capsys.readouterr().err
        assert not Path("theirs").exists()


@pytest.fixture
def imported(hopper: tuple[Path, Any], tmp_path: Path) -> Path:
    import_transformers(hopper[0], "Hopper-v5", TOLD).save(tmp_path / "imported")
    return tmp_path / "imported"


def test_it_is_served_with_its_memory(hopper: tuple[Path, Any], imported: Path) -> None:
    limits = HttpConfig(access_log=False, body_seconds=PATIENCE)
    episode, rng = Episode(hopper[1], MEAN, STD, 1000.0, 3600.0), np.random.default_rng(1)
    with (
        running(Service(Policies({"hopper": imported}), limits, None, False)) as address,
        PolicyClient(address, **PATIENT) as client,
        client.episode() as flight,
    ):
        reward = None
        for _ in range(3):
            state = MEAN + STD * rng.standard_normal(11)
            np.testing.assert_allclose(flight.act(state, reward).action, episode.act(state), atol=1e-4)
            reward = rng.uniform(0, 100)
            episode.rewarded(reward)


@pytest.mark.slow
def test_it_flies_hopper(imported: Path) -> None:
    policy = Policy.load(imported)
    returns, lengths, _ = fly_episodes(policy, range(5), slots=2)
    again, _, _ = fly_episodes(policy, [4])
    assert (lengths > 5).all()
    np.testing.assert_allclose(again[0], returns[4], rtol=0.1)  # batches of other sizes round otherwise


@pytest.mark.slow
def test_it_is_published_without_onnx_and_not_trained_further(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish([str(imported), "--to", str(tmp_path / "package"), "--episodes", "1"])
    assert "no policy.onnx: memory gpt2 has no form in ONNX" in " ".join(capsys.readouterr().out.split())
    card = (tmp_path / "package" / "README.md").read_text()
    assert "onnx" not in card
    assert "memory = policy.rewarded(memory, np.array([reward]))" in card
    with pytest.raises(SystemExit):
        train(["--env", "Hopper-v5", "--init-from", str(imported), "--run-dir", str(tmp_path / "run")])
    said = capsys.readouterr().err.strip()
    assert "is flown and served, and not trained further: memory gpt2" in said
    assert "\n" not in said
